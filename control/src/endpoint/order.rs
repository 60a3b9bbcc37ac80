//! What the endpoints that begin a migration share: their parameters, with the names of both generations of
//! influx-proxy (`cpus` or `worker`, `db` or `dbs` ...), and their answers.
//!
//! Order of checks, as in 2.4.7: the endpoint's own parameters, conflicts with running migrations, then the parameters
//! here.

use std::thread;

use fluxgate_dataplane::handoff::AdminResponse;

use super::{Action, AdminCall, AdminState, Dialect};
use crate::clock::unix_ns;
use crate::limits;
use crate::migration::jobs::NotBegun;
use crate::migration::order::Order;
use crate::migration::peers;
use crate::migration::plan::Goal;

/// Begins `goal` with the parameters of `call`, or answers why not.
pub fn begin(state: &AdminState, call: &AdminCall<'_>, goal: Goal) -> Action {
    if let Some(text) = state.jobs.conflict(&goal) {
        return Action::Answer(answer(call.form, &Err(NotBegun::Conflict(text))));
    }
    match order(call, goal) {
        Ok(mut order) => {
            if order.ha_addrs.is_empty() {
                order.ha_addrs = state.jobs.peers().to_vec();
            }
            Action::Migrate { order: Box::new(order), form: call.form }
        }
        Err(why) => call.refuse(400, &why),
    }
}

/// The header with the id of the migration that begins.
pub const MIGRATION: &str = "X-Fluxgate-Migration";

/// The answer once it is known whether the migration begins (Ok = its id). 2.4.7 always answers 202; only the text
/// tells whether it begins.
pub fn answer(form: Dialect, result: &Result<u64, NotBegun>) -> AdminResponse {
    match (result, form) {
        (Ok(id), _) => {
            let mut response = super::text(202, "accepted");
            response.headers.push((MIGRATION.to_owned(), id.to_string()));
            response
        }
        (Err(NotBegun::Conflict(text)), Dialect::Older) => super::text(202, text),
        (Err(NotBegun::Conflict(text)), Dialect::Newer) => super::text(400, &text.replace("migrating", "transferring")),
        (Err(NotBegun::Failed(text)), _) => super::text(503, text),
    }
}

/// The circle named by parameter `name`.
pub fn circle(state: &AdminState, call: &AdminCall<'_>, name: &str) -> Result<usize, Action> {
    let circles = state.topology.circles.len();
    let number = call.text(name).parse().ok().filter(|&circle: &usize| circle < circles);
    number.ok_or_else(|| call.refuse(400, &format!("invalid {name}")))
}

fn order(call: &AdminCall<'_>, goal: Goal) -> Result<Order, String> {
    let (cpus, worker) = (call.text("cpus"), call.text("worker"));
    let cpus = match &*cpus {
        "" if worker.is_empty() => 1,
        text if text.is_empty() || call.form == Dialect::Newer && !worker.is_empty() => {
            positive(&worker).ok_or("invalid worker, require positive integer")?
        }
        text => {
            let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
            positive(text).filter(|&cpus| cpus <= processors).ok_or("invalid cpus")?
        }
    };
    // Checked but not used: memory bounds the batches here.
    let batch = call.text("batch");
    if !batch.is_empty() && positive(&batch).is_none() {
        return Err("invalid batch, require positive integer".to_owned());
    }
    let rate = match &*call.text("rate") {
        "" => None,
        text => Some(positive(text).ok_or("invalid rate, require positive integer (bytes per second)")?),
    };
    let since_ns = since(call, &goal)?;
    let ha_addrs = ha_addrs(call)?;
    let dbs = list(&call.text("db")).chain(list(&call.text("dbs"))).collect();
    Ok(Order { goal, dbs, cpus: (cpus as usize).min(limits::MIGRATION_THREADS_MAX), since_ns, rate, ha_addrs })
}

/// The oldest time to copy: 2.4.7's resync sums `days`, `hours`, `minutes` and `seconds` back from now; 2.5 has `since`
/// or `tick`, in seconds since 1970.
fn since(call: &AdminCall<'_>, goal: &Goal) -> Result<Option<i64>, String> {
    let mut last = 0_u64;
    if *goal == Goal::Resync {
        for (name, seconds) in [("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1)] {
            let text = call.text(name);
            let count = if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
            let count = count.ok_or("invalid days, hours, minutes or seconds")?;
            last = last.saturating_add(count.saturating_mul(seconds));
        }
    }
    let nanoseconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    let mut since_ns = (last > 0).then(|| unix_ns().saturating_sub(nanoseconds(last)));
    for name in ["since", "tick"] {
        let text = call.text(name);
        if text.is_empty() {
            continue;
        }
        let seconds = text.parse::<u64>().map_err(|_| "invalid since, require non-negative integer")?;
        if seconds > 0 {
            since_ns = since_ns.max(Some(nanoseconds(seconds)));
        }
    }
    match goal {
        // Reads would switch to backends that lack the older points.
        Goal::Rebalance { .. } | Goal::Clear { .. } if since_ns.is_some() => {
            Err("since is for recovery and resync only: here it would leave older points behind".to_owned())
        }
        _ => Ok(since_ns),
    }
}

fn ha_addrs(call: &AdminCall<'_>) -> Result<Vec<String>, String> {
    let text = call.text("ha_addrs");
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let addrs: Vec<String> = text.split(',').map(|addr| addr.trim().to_owned()).collect();
    let is_valid = addrs.len() <= limits::PEERS_MAX && addrs.iter().all(|addr| peers::is_addr(addr));
    match call.form {
        Dialect::Newer if addrs.len() < 2 || !is_valid => {
            Err("invalid ha_addrs, require at least two addresses as <host:port>, comma-separated".to_owned())
        }
        Dialect::Older if addrs.len() < 2 => Err("ha_addrs should contain two addrs at least".to_owned()),
        Dialect::Older if !is_valid => Err("invalid ha_addrs".to_owned()),
        _ => Ok(addrs),
    }
}

/// The items of a comma-separated list.
pub fn list(text: &str) -> impl Iterator<Item = String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned)
}

fn positive(text: &str) -> Option<u64> {
    text.parse().ok().filter(|&number| number > 0)
}

//! `GET /health`: the state of each backend, and how many of its measurements are where the ring puts them. In 2.5's
//! form also what a client of InfluxDB 2 looks for: `name`, `message`, `status`, `checks`, `version`.
//!
//! The answer uses only what the control thread already knows, so it comes at once even when backends hang.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

use fluxgate_dataplane::http::response::VERSION;
use fluxgate_dataplane::limits::STALL_AFTER;
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::parked::ParkedPoints;
use fluxgate_dataplane::topology::{Backend, Circle};
use serde::Serialize;

use super::{Action, AdminCall, AdminState, Dialect, json};
use crate::clock::unix_ms;
use crate::influx::catalog::Load;

/// Fields in alphabetical order, as in influx-proxy 2.4.7.
#[derive(Serialize)]
struct CircleHealth<'a> {
    backends: Vec<BackendHealth<'a>>,
    circle: &'a str,
    /// What this machine has failed to do. The same in each circle; shown only when there is something; influx-proxy
    /// has no such field.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    faults: &'a [Fault],
    /// Workers that take no writes until a restart, since their log has failed; as `faults`.
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    workers_failed: &'a [usize],
}

/// What this machine has failed to do, and what an operator should do.
#[derive(Serialize)]
struct Fault {
    message: &'static str,
    /// Whom it concerns.
    name: String,
}

const LOG_FAILED: &str = "its log has failed: it takes no writes until a restart; check the disk of data_dir, then \
                          restart the proxy; the proxy's log says what failed";
const STATE_UNSAVED: &str = "cursors and ledger cannot be saved, so after a crash points are delivered again; check \
                             the disk of data_dir; the proxy's log says what failed";
const LOG_UNREADABLE: &str = "a log cannot be read, so its points wait; check the disk of data_dir; the proxy's log \
                              says what failed";
const LETTERS_UNWRITTEN: &str = "refused points cannot be written to data_dir/rejected, so others wait behind them; \
                                 check the disk of data_dir; the proxy's log says what failed";

#[derive(Serialize)]
struct BackendHealth<'a> {
    active: bool,
    backlog: bool,
    /// Shown only when true; influx-proxy has no such field.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
    load: BTreeMap<&'a str, Share>,
    name: &'a str,
    /// Shown only when there is something; influx-proxy has no such field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parked: Vec<ParkedHealth>,
    rewrite: bool,
    url: &'a str,
}

/// Points that the backend does not take now, while it may take others.
#[derive(Serialize)]
struct ParkedHealth {
    database: String,
    /// Left out: all policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<String>>,
    /// When the oldest one that waits was accepted. Left out: none waits any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// What the backend says. Left out: it takes them now.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

#[derive(Clone, Copy, Serialize)]
struct Share {
    incorrect: u64,
    inplace: u64,
    measurements: u64,
}

/// 2.5's form.
#[derive(Serialize)]
struct NewerHealth<'a> {
    checks: Vec<Check>,
    circles: Vec<NewerCircle<'a>>,
    message: &'a str,
    name: &'a str,
    status: &'a str,
    version: &'a str,
}

/// What is wrong, in InfluxDB 2's form; influx-proxy has none.
#[derive(Serialize)]
struct Check {
    message: &'static str,
    name: String,
    status: &'static str,
}

#[derive(Serialize)]
struct NewerCircle<'a> {
    circle: CircleState<'a>,
    backends: Vec<NewerBackend<'a>>,
}

#[derive(Serialize)]
struct CircleState<'a> {
    id: usize,
    name: &'a str,
    active: bool,
    write_only: bool,
}

#[derive(Serialize)]
struct NewerBackend<'a> {
    name: &'a str,
    url: &'a str,
    active: bool,
    backlog: bool,
    rewriting: bool,
    write_only: bool,
    /// As in [`BackendHealth`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
    /// As in [`BackendHealth`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    parked: Vec<ParkedHealth>,
    /// All measurements are where they belong; shown only when true, and with `stats=true`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    healthy: bool,
    /// By database; with `stats=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<BTreeMap<&'a str, Share>>,
}

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let workers = state.stats.workers.iter().enumerate();
    let failed: Vec<_> =
        workers.filter(|(_, worker)| worker.log_failed.load(Relaxed)).map(|(number, _)| number).collect();
    let (faults, pretty) = (faults(state), call.query.pretty());
    if call.form == Dialect::Newer {
        let with_stats = *call.query.value("stats") == *b"true";
        return Action::Answer(json(&newer(state, faults, !failed.is_empty(), with_stats), pretty));
    }
    let mut circles = Vec::with_capacity(state.topology.circles.len());
    for circle in &state.topology.circles {
        let backends = circle.backends.iter().map(|&id| health(state, state.topology.backend(id))).collect();
        circles.push(CircleHealth { backends, circle: &circle.name, faults: &faults, workers_failed: &failed });
    }
    Action::Answer(json(&circles, pretty))
}

/// Of all workers, and of all backends.
fn faults(state: &AdminState) -> Vec<Fault> {
    let workers = state.stats.workers.iter().enumerate().flat_map(|(number, worker)| {
        let faults = [(&worker.log_failed, LOG_FAILED), (&worker.state_unsaved, STATE_UNSAVED)];
        faults.map(|(flag, message)| (flag, message, format!("worker {number}")))
    });
    let backends = state.stats.couriers.iter().zip(&state.topology.backends).flat_map(|(courier, backend)| {
        let faults = [(&courier.log_unreadable, LOG_UNREADABLE), (&courier.letters_unwritten, LETTERS_UNWRITTEN)];
        faults.map(|(flag, message)| (flag, message, format!("backend {}", backend.name)))
    });
    let all = workers.chain(backends).filter(|(flag, ..)| flag.load(Relaxed));
    all.map(|(_, message, name)| Fault { message, name }).collect()
}

fn newer(state: &AdminState, faults: Vec<Fault>, refuses: bool, with_stats: bool) -> NewerHealth<'_> {
    let (status, message) = match refuses {
        false => ("pass", "ready for queries and writes"),
        true => ("fail", "some workers take no writes"),
    };
    let check = |Fault { message, name }| Check { message, name, status: "fail" };
    NewerHealth {
        checks: faults.into_iter().map(check).collect(),
        circles: state
            .topology
            .circles
            .iter()
            .enumerate()
            .map(|(id, c)| newer_circle(state, id, c, with_stats))
            .collect(),
        message,
        name: "influx-proxy",
        status,
        version: VERSION,
    }
}

fn newer_circle<'a>(state: &'a AdminState, id: usize, circle: &'a Circle, with_stats: bool) -> NewerCircle<'a> {
    let backend = |&id| {
        let backend = state.topology.backend(id);
        let BackendHealth { active, backlog, leaving, load, name, parked, rewrite, url } = health(state, backend);
        let healthy = with_stats && load.values().all(|share| share.incorrect == 0);
        NewerBackend {
            name,
            url,
            active,
            backlog,
            rewriting: rewrite,
            write_only: backend.write_only,
            leaving,
            parked,
            healthy,
            stats: with_stats.then_some(load),
        }
    };
    let backends: Vec<_> = circle.backends.iter().map(backend).collect();
    let circle = CircleState {
        id,
        name: &circle.name,
        active: backends.iter().all(|backend| backend.active),
        write_only: backends.iter().any(|backend| backend.write_only),
    };
    NewerCircle { circle, backends }
}

fn health<'a>(state: &'a AdminState, backend: &'a Backend) -> BackendHealth<'a> {
    let index = backend.id.index();
    let courier = &state.stats.couriers[index];
    let reachable = state.probed_up[index] != Some(false);
    // A server that answers probes but refuses writes counts as down.
    let active = reachable && courier.up.load(Relaxed);
    let rewriting = courier.rewriting.load(Relaxed);
    // Queued points alone are not a backlog. Points that have waited for `STALL_AFTER` are, whatever the cause.
    let waits = unix_ms().saturating_sub(courier.oldest_ms.load(Relaxed)) >= STALL_AFTER.as_millis() as u64;
    let backlog = state.stats.queued_points(index) > 0 && (!active || rewriting || courier.is_stuck() || waits);
    // Delivery to a server with a backlog is retried all the time.
    let rewrite = rewriting || backlog;
    let share = |load: &Load| Share {
        incorrect: load.incorrect,
        inplace: load.inplace,
        measurements: load.inplace + load.incorrect,
    };
    let load = if reachable {
        state.loads[index].iter().map(|(db, load)| (&db[..], share(load))).collect()
    } else {
        BTreeMap::new()
    };
    let parked = state.order.parked(backend.id).into_iter().map(parked).collect();
    let Backend { leaving, name, url, .. } = backend;
    BackendHealth { active, backlog, leaving: *leaving, load, name, parked, rewrite, url }
}

fn parked(ParkedPoints { key, oldest, why, .. }: ParkedPoints) -> ParkedHealth {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    // The default policy has its name as well.
    let named = |rps: Vec<Box<[u8]>>| rps.iter().filter(|rp| !rp.is_empty()).map(|rp| text(rp)).collect();
    let time = |stamp| UNIX_EPOCH + Duration::from_millis(RecordOrder::unix_ms(stamp));
    ParkedHealth {
        database: text(&key.db),
        policies: key.rps.map(named),
        since: (oldest != u64::MAX).then(|| humantime::format_rfc3339_millis(time(oldest)).to_string()),
        why,
    }
}

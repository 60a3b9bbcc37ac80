//! What the answer to a write waits for: a commit of the log, and as many circles as `consistency` asks for.
//!
//! Not here: which lines of a request are taken (`write`), when the answer is sent (`conn`).

use std::borrow::Cow;

use crate::disklog::{Durable, Seq};
use crate::io;
use crate::ledger::DbId;
use crate::request::reject::Reject;
use crate::settings::Consistency;
use crate::topology::Circle;
use crate::worker::Worker;

/// A write that has been taken, with what its answer waits for.
#[derive(Debug)]
pub struct Taken {
    /// None: there was no valid line, so there is nothing to wait for.
    pub last_seq: Option<Seq>,
    pub consistency: Consistency,
    /// Set for levels that wait for circles.
    pub confirmation: Option<Confirmation>,
    /// Set when some lines were refused. The answer says so only when the accepted lines are safe.
    pub some_refused: Option<Reject>,
}

/// What backends must have confirmed.
#[derive(Debug)]
pub struct Confirmation {
    /// Number of circles.
    pub wanted: usize,
    /// Which backends get the write, by `BackendId`.
    pub touched: Vec<bool>,
    pub db: DbId,
    pub db_name: Vec<u8>,
    /// Points of this database that each backend had refused before the write, by `BackendId`.
    pub rejected_before: Vec<u64>,
}

/// Gives the text of `X-Fluxgate-Ack` for a write with lines in the log. The token proves that they are as durable as
/// the level requires.
///
/// # Errors
/// When some lines were refused, or too few circles confirmed within `write_timeout`. The accepted lines are safe in
/// both cases.
pub async fn acknowledge(worker: &Worker, durable: &Durable, taken: Taken) -> Result<Cow<'static, str>, Reject> {
    let last = taken.last_seq.expect("the caller has looked");
    let text = match &taken.confirmation {
        Some(confirmation) => {
            let confirmed = confirm(worker, confirmation, last).await?;
            format!("circles={confirmed}/{}", worker.settings.topology.circles.len()).into()
        }
        None => {
            let level = taken.consistency.durability(worker.settings.durability);
            assert!(durable.level() >= level, "an ack needs its own level");
            level.name().into()
        }
    };
    taken.some_refused.map_or(Ok(text), Err)
}

/// Waits until enough circles have confirmed everything of this database up to `last`.
async fn confirm(worker: &Worker, confirmation: &Confirmation, last: Seq) -> Result<usize, Reject> {
    let wanted = confirmation.wanted;
    let circle_done = |circle: &Circle| {
        let touched = circle.backends.iter().filter(|b| confirmation.touched[b.index()]);
        touched.clone().all(|&b| worker.own.has_settled(b, &confirmation.db_name, Seq(last.0 + 1)))
    };
    let circle_refused = |circle: &Circle| {
        let now = worker.rejected_points(confirmation.db, &confirmation.db_name);
        circle
            .backends
            .iter()
            .any(|b| confirmation.touched[b.index()] && now[b.index()] > confirmation.rejected_before[b.index()])
    };
    let wait = async {
        loop {
            let changed = worker.own.log.confirmed();
            let done: Vec<_> = worker.settings.topology.circles.iter().filter(|c| circle_done(c)).collect();
            let refused = done.iter().filter(|c| circle_refused(c)).count();
            let confirmed = done.len() - refused;
            if confirmed >= wanted {
                return Ok(confirmed);
            }
            if refused > 0 && done.len() == worker.settings.topology.circles.len() {
                return Err(Reject::RefusedByBackend { confirmed, wanted });
            }
            worker.hurry_couriers();
            changed.await;
        }
    };
    io::timeout(worker.settings.write_timeout, wait).await.unwrap_or_else(|_| {
        let circles = &worker.settings.topology.circles;
        Err(Reject::Unconfirmed { confirmed: circles.iter().filter(|c| circle_done(c)).count(), wanted })
    })
}

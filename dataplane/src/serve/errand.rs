//! What a worker does on behalf of the control thread for a statement: hold its couriers, or take lines as if a client
//! had sent them.
//!
//! Each errand is answered once, also when it fails. The answer is lost only if the queue to the control thread is
//! full; the control thread has stopped waiting by then.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::disklog::Seq;
use crate::handoff::{Drained, Ticket, ToControl, Written};
use crate::io;
use crate::limits::{DRAIN_LOOK_INTERVAL, HOLD_MAX, START_LOOK_INTERVAL};
use crate::precision::Precision;
use crate::request::reject::Reject;
use crate::topology::BackendId;
use crate::worker::Worker;
use crate::worker::awaited::Awaited;
use crate::write::ack;
use crate::write::admit::{Admitted, Target, admit};

/// Holds the couriers at the stamp `from` and answers when this worker's couriers have delivered everything of `db`
/// before it, and what they have delivered is on disk. Empty: everything of all databases.
pub fn drain(worker: &Rc<Worker>, ticket: Ticket, db: String, from: u64, timeout: Duration) {
    worker.hold(ticket, from);
    let worker = worker.clone();
    io::spawn(async move {
        let db = Some(db.as_bytes()).filter(|db| !db.is_empty());
        let served = worker.served_here();
        let is_behind = |backend: &BackendId| !worker.has_settled_below(*backend, db, from);
        let behind = || served.iter().copied().filter(is_behind).collect::<Vec<_>>();
        // After the timeout the answer lists the backends that are behind.
        _ = io::timeout(timeout, reached(&worker, behind)).await;
        let behind = behind();
        let result = if !behind.is_empty() { Drained::Behind(behind) } else { save_settled(&worker, &served).await };
        worker.link.tell(|worker| ToControl::Drained { worker, ticket, result });
        if io::timeout(HOLD_MAX, worker.released(ticket)).await.is_err() && worker.release(ticket) {
            log::warn!("a change of structure took longer than {HOLD_MAX:?}: held points are delivered before it ends");
        }
    });
}

/// Saves what the couriers of this worker have settled, in one log: after a start it counts for all logs. Otherwise a
/// crash soon after the change would deliver again, and bring back, what was delivered before it. No timeout here: a
/// save that is given up halfway would block the next one. The control thread stops waiting in time.
async fn save_settled(worker: &Worker, served: &[BackendId]) -> Drained {
    if served.is_empty() {
        return Drained::Done;
    }
    rerouting_ended(worker).await;
    match worker.own.save(true).await {
        Ok(()) => Drained::Done,
        Err(error) => Drained::Unsaved(error.to_string()),
    }
}

/// Until points of backends that are gone have been routed again, a crash undoes what is appended, and nothing is
/// saved.
async fn rerouting_ended(worker: &Worker) {
    while worker.feeds.are_rerouting() {
        io::sleep(START_LOOK_INTERVAL).await;
    }
}

/// Lines for one database and policy, with timestamps in nanoseconds.
pub struct Lines {
    pub db: String,
    pub rp: String,
    pub lines: Bytes,
}

/// Appends the lines and answers when the backends that are up have confirmed them.
pub async fn write(worker: Rc<Worker>, ticket: Ticket, lines: Lines, timeout: Duration) {
    let safe = Cell::new(false);
    let result = match io::timeout(timeout, take(&worker, lines, &safe)).await {
        Ok(Ok(())) => Written::Done,
        Ok(Err(text)) => Written::Refused(text),
        Err(io::Elapsed) if safe.get() => {
            Written::Refused("timeout: not all backends have confirmed; points are safe and will be delivered".into())
        }
        Err(io::Elapsed) => Written::Refused("timeout: points may not be stored; write them again".into()),
    };
    worker.link.tell(|worker| ToControl::Written { worker, ticket, result });
}

/// `safe`: whether all points are in the log, as far as backends need them.
async fn take(worker: &Worker, Lines { db, rp, lines }: Lines, safe: &Cell<bool>) -> Result<(), String> {
    rerouting_ended(worker).await;
    let text = |reject: Reject| String::from_utf8_lossy(&reject.text()).into_owned();
    let backends = worker.settings.topology.backends.len();
    let target = Target { db: db.as_bytes(), rp: rp.as_bytes(), precision: Ok(Precision::Nanosecond) };
    let Admitted { mut intake, policy_known } = admit(worker, target).await.map_err(text)?;
    if !policy_known {
        return Err(text(Reject::PolicyUnknown(rp.into_bytes())));
    }
    intake.awaited = Some(Awaited::new(&worker.own.awaited));
    intake.take(worker, &lines, true).await.map_err(|error| text(error.into()))?;
    if let Some(last) = intake.last_seq {
        worker.own.log.committed(last, worker.settings.durability).await.map_err(|error| text(error.into()))?;
        let touched: Vec<_> = (0..backends).filter(|&b| intake.touched[b]).map(|b| BackendId(b as u16)).collect();
        let awaited = intake.awaited.as_ref();
        let (first, end) = (awaited.and_then(Awaited::first).unwrap_or(last), Seq(last.0 + 1));
        // A backend that is down, or does not take points of this database now, does not count: it gets them later.
        let is_refused = |backend: BackendId| {
            let wait = worker.feeds.order.parked_wait(backend, |of| *of == *db.as_bytes());
            wait.is_some_and(|wait| wait.is_refused)
        };
        let is_awaited = |&backend: &BackendId| {
            let has_settled = worker.own.has_settled(backend, db.as_bytes(), first, end);
            !has_settled && worker.is_up(backend) && !is_refused(backend)
        };
        reached(worker, || {
            // What the log has dropped is delivered only if the process lives until then.
            safe.set(!touched.iter().any(|&backend| worker.own.log.has_only_given(backend, db.as_bytes(), end)));
            touched.iter().copied().filter(is_awaited).collect()
        })
        .await;
        let circles = &worker.settings.topology.circles;
        let lost = circles.iter().filter(|circle| awaited.is_some_and(|awaited| awaited.dropped_by(circle))).count();
        if lost > 0 {
            return Err(text(Reject::Dropped { confirmed: circles.len() - lost, wanted: circles.len() }));
        }
        if let Some(reject) = awaited.and_then(|awaited| ack::refusal(awaited, circles)) {
            return Err(text(reject));
        }
    }
    if intake.refusals.count > 0 {
        let refusals = Box::new(intake.refusals);
        return Err(text(if intake.accepted > 0 {
            Reject::SomeRefused(refusals)
        } else {
            Reject::AllRefused(refusals)
        }));
    }
    Ok(())
}

/// Waits until no backend is `behind`, while their couriers deliver without delay. They are looked at when something is
/// settled and at intervals, since a backend that goes down moves no cursor.
async fn reached(worker: &Worker, behind: impl Fn() -> Vec<BackendId>) {
    loop {
        let changed = worker.own.log.confirmed();
        let behind = behind();
        if behind.is_empty() {
            return;
        }
        worker.hurry_couriers(|backend| behind.contains(&backend));
        _ = io::timeout(DRAIN_LOOK_INTERVAL, changed).await;
    }
}

//! What a worker does on behalf of the control thread for a statement: hold its couriers, or take lines as if a client
//! had sent them.
//!
//! Each errand is answered once, also when it fails. The answer is lost only if the queue to the control thread is
//! full; the control thread has stopped waiting by then.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::disklog::Seq;
use crate::handoff::{Drained, Ticket, ToControl, Written};
use crate::io;
use crate::limits::{DRAIN_LOOK_INTERVAL, HOLD_MAX, START_LOOK_INTERVAL};
use crate::precision::Precision;
use crate::request::reject::Reject;
use crate::topology::{BackendId, Circle};
use crate::worker::Worker;
use crate::worker::awaited::Awaited;
use crate::write::ack;
use crate::write::admit::{Admitted, Target, admit};
use crate::write::intake::Intake;

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
    let began = io::now();
    let result = match io::timeout(timeout, store(&worker, lines)).await {
        Ok(Ok(intake)) => confirm(&worker, intake, timeout.saturating_sub(io::elapsed(began))).await,
        Ok(Err(text)) => Err(text),
        Err(io::Elapsed) => Err("timeout: points may not be stored; write them again".into()),
    };
    let result = result.map_or_else(Written::Refused, |()| Written::Done);
    worker.link.tell(|worker| ToControl::Written { worker, ticket, result });
}

/// Appends the lines, as durable as the settings say.
async fn store(worker: &Worker, Lines { db, rp, lines }: Lines) -> Result<Intake, String> {
    rerouting_ended(worker).await;
    let target = Target { db: db.as_bytes(), rp: rp.as_bytes(), precision: Ok(Precision::Nanosecond) };
    let Admitted { mut intake, policy_known } = admit(worker, target).await.map_err(text)?;
    if !policy_known {
        return Err(text(Reject::PolicyUnknown(rp.into_bytes())));
    }
    intake.awaited = Some(Awaited::new(&worker.own.awaited));
    intake.take(worker, &lines, true).await.map_err(|error| text(error.into()))?;
    if let Some(last) = intake.last_seq {
        worker.own.log.committed(last, worker.settings.durability).await.map_err(|error| text(error.into()))?;
    }
    Ok(intake)
}

/// Waits until the backends that are up have confirmed what is stored.
async fn confirm(worker: &Worker, intake: Intake, timeout: Duration) -> Result<(), String> {
    let Intake { last_seq, touched, awaited, accepted, refusals, db_name: db, .. } = intake;
    if let (Some(last), Some(awaited)) = (last_seq, &awaited) {
        let (first, end) = (awaited.first().unwrap_or(last), Seq(last.0 + 1));
        // A backend that is down, or does not take points of this database now, does not count: it gets them later.
        let is_refused = |backend: BackendId| {
            let wait = worker.feeds.order.parked_wait(backend, |of| *of == *db);
            wait.is_some_and(|wait| wait.is_refused)
        };
        let is_awaited = |&backend: &BackendId| {
            let has_settled = worker.own.has_settled(backend, &db, first, end);
            !has_settled && worker.is_up(backend) && !is_refused(backend)
        };
        let backends = || (0..touched.len()).filter(|&b| touched[b]).map(|b| BackendId(b as u16));
        let behind = || backends().filter(is_awaited).collect();
        let is_late = io::timeout(timeout, reached(worker, behind)).await.is_err();
        let circles = &worker.settings.topology.circles;
        let is_lost = |circle: &&Circle| match is_late {
            true => ack::may_be_lost(worker, awaited, circle, &touched, &db, end),
            false => awaited.dropped_by(circle),
        };
        let lost = circles.iter().filter(is_lost).count();
        if lost > 0 {
            return Err(text(Reject::Dropped { confirmed: circles.len() - lost, wanted: circles.len() }));
        }
        if is_late {
            return Err("timeout: not all backends have confirmed; points are safe and will be delivered".into());
        }
        if let Some(reject) = ack::refusal(awaited, circles) {
            return Err(text(reject));
        }
    }
    match (refusals.count, accepted) {
        (0, _) => Ok(()),
        (_, 0) => Err(text(Reject::AllRefused(Box::new(refusals)))),
        _ => Err(text(Reject::SomeRefused(Box::new(refusals)))),
    }
}

fn text(reject: Reject) -> String {
    String::from_utf8_lossy(&reject.text()).into_owned()
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

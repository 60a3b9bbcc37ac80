//! Decides about a write, to `/write`, `/api/v2/write`, `/api/v3/write_lp` or `/api/v1/prom/write`: who may write
//! where, and which lines of the body are taken. What the answer waits for is in `ack`.
//!
//! The order of checks is InfluxDB's: method, user, database, body, lines, consistency, policy, storage.

pub mod ack;
pub mod admit;
pub mod intake;
mod prometheus;
mod wanted;

use std::sync::atomic::Ordering::Relaxed;

use crate::http::auth::AuthVerdict;
use crate::http::head::{Head, Method};
use crate::http::query;
use crate::io;
use crate::limits::BODY_WHOLE_BYTES_MAX;
use crate::one_line::one_line;
use crate::request::api::Api;
use crate::request::body::{Body, BodyError};
use crate::request::inbox::Inbox;
use crate::request::pool::PooledBuf;
use crate::request::reject::Reject;
use crate::settings::Consistency;
use crate::stats::DatabaseSlot;
use crate::worker::Worker;
use crate::worker::awaited::Awaited;
use ack::{Confirmation, Taken};
use admit::{Admitted, Target, admit};
use intake::Intake;
use wanted::Wanted;

/// A write whose parameters have been checked as far as possible before the body.
pub struct Plan {
    api: Api,
    intake: Intake,
    /// One bad line refuses all lines.
    all_or_none: bool,
    consistency: Consistency,
    /// Why good lines will be refused after the body has been read.
    late: Option<Reject>,
}

/// Checks head and parameters. `buf` begins with the head.
///
/// # Errors
/// Why the request is refused before its body is read.
pub async fn plan(worker: &Worker, api: Api, head: &Head, buf: &[u8]) -> Result<Plan, Reject> {
    if head.method != Method::Post {
        return Err(Reject::Method);
    }
    let params = head.query(buf);
    let authorization = head.authorization.map(|span| span.of(buf));
    // InfluxDB 3 knows the same token under two names.
    let bearer = authorization.filter(|_| api == Api::V3).and_then(|value| value.strip_prefix(b"Bearer "));
    let renamed = bearer.map(|token| [b"Token ", token].concat());
    if worker.guard.judge(params, renamed.as_deref().or(authorization)) != AuthVerdict::Ok {
        return Err(Reject::Unauthorized);
    }
    let Wanted { db, mut rp, precision, by_magnitude, all_or_none } = Wanted::read(api, params)?;
    if api == Api::V1 && worker.settings.ignore_rp && !rp.is_empty() {
        note_ignored_policy(worker, &rp);
        rp.clear();
    }
    let Admitted { mut intake, policy_known } = admit(worker, Target { db: &db, rp: &rp, precision }).await?;
    let consistency = Consistency::from_param(&query::first(params, "consistency").unwrap_or_default());
    let late = match (consistency, policy_known) {
        (None, _) => Some(Reject::Consistency),
        (_, false) => Some(Reject::PolicyUnknown(rp)),
        _ => None,
    };
    intake.count_only = late.is_some();
    intake.by_magnitude = by_magnitude;
    let consistency = consistency.unwrap_or(Consistency::Default).min(worker.settings.consistency_max);
    Ok(Plan { api, intake, all_or_none, consistency, late })
}

/// Logs the first one of this worker, and counts all.
fn note_ignored_policy(worker: &Worker, rp: &[u8]) {
    if worker.stats().rp_ignored.fetch_add(1, Relaxed) == 0 {
        log::warn!(
            "a write names retention policy {}, which is ignored (ignore_rp): its points go to the default policy. \
             Further ones are only counted (rp_ignored in /ledger)",
            one_line(&String::from_utf8_lossy(rp))
        );
    }
}

/// The most bytes that the body of a request may have; 0 = any number.
pub fn body_bytes_max(worker: &Worker, api: Api) -> u64 {
    let max = worker.settings.max_body_bytes;
    match api {
        Api::Prometheus => prometheus::request_bytes_max(max),
        Api::V1 | Api::V2 | Api::V3 => max,
    }
}

/// Appends the body's lines to the log.
///
/// # Errors
/// Why the request is refused. Nothing of a body up to `BODY_WHOLE_BYTES_MAX` has been appended then, unless only some
/// lines were refused or the log failed midway.
pub async fn take(worker: &Worker, plan: Plan, inbox: &mut Inbox, body: &mut Body) -> Result<Taken, Reject> {
    let Plan { api, mut intake, all_or_none, consistency, late } = plan;
    let wanted = consistency.circles(worker.settings.topology.circles.len());
    intake.awaited = (wanted > 0).then(|| Awaited::new(&worker.own.awaited));
    match body.whole(inbox) {
        _ if api == Api::Prometheus => prometheus::take(worker, &mut intake, inbox, body).await?,
        Some(len) => {
            if all_or_none {
                look_first(worker, &mut intake, &inbox.bytes()[..len]).await?;
            }
            intake.take(worker, &inbox.bytes()[..len], true).await?;
            inbox.consume(len);
            body.taken_whole();
        }
        None => receive(worker, &mut intake, all_or_none, inbox, body).await?,
    }
    intake.trace(worker);
    let refused = intake.refusals.count > 0;
    if refused && intake.accepted == 0 {
        return Err(Reject::AllRefused(Box::new(intake.refusals)));
    }
    if let Some(late) = late {
        return Err(late);
    }
    let slot = DatabaseSlot::of(&intake.db_name);
    let confirmation = intake.awaited.filter(|_| intake.last_seq.is_some()).map(|awaited| Confirmation {
        wanted,
        touched: intake.touched,
        db_name: intake.db_name,
        awaited,
    });
    let some_refused = refused.then(|| Reject::SomeRefused(Box::new(intake.refusals)));
    Ok(Taken { last_seq: intake.last_seq, consistency, slot, confirmation, some_refused })
}

/// Takes a body that is not completely in the inbox: collects it in a window, and appends in pieces only if it exceeds
/// the largest window.
async fn receive(
    worker: &Worker,
    intake: &mut Intake,
    all_or_none: bool,
    inbox: &mut Inbox,
    body: &mut Body,
) -> Result<(), Reject> {
    let mut window = BodyWindow::new(worker, body.size_hint()).await?;
    loop {
        if window.space().is_empty() && !body.exhausted() && !window.grow(worker) {
            if all_or_none {
                let is_large = window.filled >= BODY_WHOLE_BYTES_MAX;
                return Err(if is_large { Reject::TooLargeAsAWhole } else { Reject::Busy });
            }
            let used = intake.take(worker, window.filled(), false).await?;
            if used == 0 {
                // The window is smaller than the longest line and there is no memory for a larger one.
                return Err(Reject::Busy);
            }
            window.consume(used);
        }
        match body.read(inbox, window.space()).await? {
            0 => break,
            n => window.filled += n,
        }
        io::yield_if_needed().await;
    }
    if all_or_none {
        look_first(worker, intake, window.filled()).await?;
    }
    intake.take(worker, window.filled(), true).await?;
    Ok(())
}

/// Looks at all lines of a body before the first one is taken.
///
/// # Errors
/// [`Reject::NoneTaken`] when one is bad.
async fn look_first(worker: &Worker, intake: &mut Intake, body: &[u8]) -> Result<(), Reject> {
    let mut look = intake.for_a_look();
    look.take(worker, body, true).await?;
    if look.refusals.count > 0 { Err(Reject::NoneTaken(Box::new(look.refusals))) } else { Ok(()) }
}

/// A buffer for the part of a body that has not been appended yet.
struct BodyWindow {
    buf: PooledBuf,
    filled: usize,
}

impl BodyWindow {
    async fn new(worker: &Worker, size_hint: Option<u64>) -> Result<Self, Reject> {
        let bytes = worker.pool.suitable(size_hint);
        let waiting = worker.pool.take_waiting(bytes);
        let buf = io::timeout(worker.settings.idle_timeout, waiting).await.map_err(|_| Reject::Busy)?;
        Ok(Self { buf, filled: 0 })
    }

    fn filled(&self) -> &[u8] {
        &self.buf[..self.filled]
    }

    fn space(&mut self) -> &mut [u8] {
        &mut self.buf[self.filled..]
    }

    /// Doubles the window if the pool has a buffer now.
    fn grow(&mut self, worker: &Worker) -> bool {
        let Some(mut larger) = worker.pool.take(self.buf.len() * 2) else { return false };
        larger[..self.filled].copy_from_slice(&self.buf[..self.filled]);
        self.buf = larger;
        true
    }

    fn consume(&mut self, used: usize) {
        self.buf.copy_within(used..self.filled, 0);
        self.filled -= used;
    }
}

/// The client has gone, so nobody is left to answer.
pub fn client_gone(reject: &Reject) -> bool {
    matches!(reject, Reject::Body(BodyError::Gone))
}

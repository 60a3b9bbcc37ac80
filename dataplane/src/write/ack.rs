//! What the answer to a write waits for: a commit of the log, and as many circles as `consistency` asks for.
//!
//! Not here: which lines of a request are taken (`write`), when the answer is sent (`conn`).

use std::borrow::Cow;

use crate::disklog::{Durable, Seq};
use crate::io;
use crate::request::reject::Reject;
use crate::settings::Consistency;
use crate::stats::DatabaseSlot;
use crate::topology::{BackendId, Circle};
use crate::worker::Worker;
use crate::worker::awaited::Awaited;

/// A write that has been taken, with what its answer waits for.
#[derive(Debug)]
pub struct Taken {
    /// None: there was no valid line, so there is nothing to wait for.
    pub last_seq: Option<Seq>,
    pub consistency: Consistency,
    /// Where the database is noted.
    pub slot: DatabaseSlot,
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
    pub db_name: Vec<u8>,
    /// What backends refuse of the write.
    pub awaited: Awaited,
}

/// Gives the text of `X-Fluxgate-Ack` for a write with lines in the log. The token proves that they are as durable as
/// the level requires.
///
/// # Errors
/// When some lines were refused, here or by backends, or too few circles answered within `write_timeout`: the accepted
/// lines are safe then. Or when the log has dropped some of them before enough circles had them.
pub async fn acknowledge(worker: &Worker, durable: &Durable, taken: Taken) -> Result<Cow<'static, str>, Reject> {
    let last = taken.last_seq.expect("the caller has looked");
    // Before the answer: a query that begins after it must see the points.
    worker.stats().acknowledged.note(taken.slot, worker.own.log.committed_stamp());
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

/// Waits until enough circles have answered for everything of this database up to `last`: with a confirmation, or with
/// a refusal of some lines and a confirmation of the rest.
async fn confirm(worker: &Worker, confirmation: &Confirmation, last: Seq) -> Result<usize, Reject> {
    let Confirmation { wanted, touched, db_name, awaited } = confirmation;
    let circles = &worker.settings.topology.circles;
    let (first, end) = (awaited.first().unwrap_or(last), Seq(last.0 + 1));
    let is_awaited = |b: BackendId| touched[b.index()] && !worker.own.has_settled(b, db_name, first, end);
    let is_lost = |circle: &&Circle| awaited.dropped_by(circle);
    let has_answered = |circle: &&Circle| !circle.backends.iter().any(|&b| is_awaited(b)) && !is_lost(circle);
    let wait = async {
        loop {
            let changed = worker.own.log.confirmed();
            let answered: Vec<&Circle> = circles.iter().filter(has_answered).collect();
            let confirmed = answered.iter().filter(|circle| awaited.refused_by(circle) == 0).count();
            if confirmed >= *wanted {
                return Ok(confirmed);
            }
            if answered.len() >= *wanted {
                return refusal(awaited, answered).map_or(Ok(confirmed), Err);
            }
            if circles.iter().filter(|circle| !is_lost(circle)).count() < *wanted {
                return Err(Reject::Dropped { confirmed, wanted: *wanted });
            }
            worker.hurry_couriers(is_awaited);
            changed.await;
        }
    };
    io::timeout(worker.settings.write_timeout, wait).await.unwrap_or_else(|_| {
        let (confirmed, wanted) = (circles.iter().filter(has_answered).count(), *wanted);
        Err(match circles.iter().any(|circle| may_be_lost(worker, awaited, circle, touched, db_name, end)) {
            true => Reject::Dropped { confirmed, wanted },
            false => Reject::Unconfirmed { confirmed, wanted },
        })
    })
}

/// Whether points of a request that is in the log before `end` may never come to a backend of this circle: the log has
/// dropped them, and what a courier has of them is delivered only if the process lives until then. `touched`: as in
/// [`Confirmation`].
pub fn may_be_lost(worker: &Worker, awaited: &Awaited, circle: &Circle, touched: &[bool], db: &[u8], end: Seq) -> bool {
    let is_only_given = |&b: &BackendId| touched[b.index()] && worker.own.log.has_only_given(b, db, end);
    awaited.dropped_by(circle) || circle.backends.iter().any(is_only_given)
}

/// The error for what backends of these circles have refused; None: nothing. All circles refuse the same points, unless
/// their backends' data differs: then the largest number counts.
pub fn refusal<'a>(awaited: &Awaited, circles: impl IntoIterator<Item = &'a Circle>) -> Option<Reject> {
    let most = circles.into_iter().map(|circle| (awaited.refused_by(circle), circle)).max_by_key(|(points, _)| *points);
    let (points, circle) = most.filter(|(points, _)| *points > 0)?;
    Some(Reject::RefusedByBackend(with_count(&awaited.text(circle)?, points)))
}

/// Puts the count of the whole request into the backend's text: couriers send refused lines one by one, so that the
/// text says `dropped=1`.
fn with_count(text: &str, points: u64) -> String {
    match text.rsplit_once(" dropped=") {
        Some((before, _)) => format!("{before} dropped={points}"),
        None => text.to_owned(),
    }
}

//! The one admission of points: which database and policy they may go to, and whether the log takes any. Every way in
//! passes it, a client's `/write` and SELECT INTO alike, so that a check that is added here holds for all.
//!
//! Not here: who the client is (its door knows), and what the lines say (`intake`).

use super::intake::Intake;
use crate::limits::NAME_BYTES_MAX;
use crate::precision::Precision;
use crate::request::reject::Reject;
use crate::worker::{Found, Worker};

/// Where points are to go, as it was asked for.
pub struct Target<'a> {
    pub db: &'a [u8],
    /// Empty = the default policy.
    pub rp: &'a [u8],
    /// As the parameter `precision` has it.
    pub precision: &'a [u8],
}

/// Points may be taken.
pub struct Admitted {
    pub intake: Intake,
    /// False: InfluxDB tells of bad lines first, and then refuses the good ones with [`Reject::PolicyUnknown`].
    pub policy_known: bool,
}

/// Checks a target, in InfluxDB's order. An unknown database or policy costs one look at the backends.
///
/// # Errors
/// What everything for this target is refused for now.
pub async fn admit(worker: &Worker, Target { db, rp, precision }: Target<'_>) -> Result<Admitted, Reject> {
    if db.is_empty() {
        return Err(Reject::NoDatabase);
    }
    for (name, what) in [(db, "database"), (rp, "retention policy")] {
        if name.len() > NAME_BYTES_MAX {
            return Err(Reject::NameTooLong(what));
        }
    }
    if !worker.db_allowed(db) {
        return Err(Reject::DatabaseForbidden(db.to_vec()));
    }
    let precision = Precision::from_param(precision).ok_or_else(|| Reject::Precision(precision.to_vec()))?;
    let policy_known = match worker.find(db, rp).await {
        Found::Yes => true,
        Found::NoPolicy => false,
        Found::NoDatabase => return Err(Reject::DatabaseUnknown(db.to_vec())),
    };
    worker.log.admits()?;
    let id = worker.ledger.borrow_mut().database(db);
    let backends = worker.settings.topology.backends.len();
    Ok(Admitted { intake: Intake::new(id, db.to_vec(), rp.to_vec(), precision, backends), policy_known })
}

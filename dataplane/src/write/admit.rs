//! The admission check for points: may they go to this database and policy, and does the log take any? All writes pass
//! it, from `/write` and from SELECT INTO, so that a check added here holds for both.
//!
//! Not here: who the client is (checked by the caller), what the lines say (`intake`).

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::intake::Intake;
use crate::io;
use crate::ledger::OTHERS;
use crate::limits::{IMPORT_LOOK_INTERVAL, IMPORT_WAIT, NAME_BYTES_MAX};
use crate::precision::Precision;
use crate::request::reject::Reject;
use crate::worker::{Found, Worker};

/// The requested destination of points.
pub struct Target<'a> {
    pub db: &'a [u8],
    /// Empty = the default policy.
    pub rp: &'a [u8],
    /// The unit of timestamps, or why the parameter `precision` is none.
    pub precision: Result<Precision, Reject>,
}

/// The points may be taken.
pub struct Admitted {
    pub intake: Intake,
    /// False: InfluxDB reports bad lines first, and only then refuses the good ones with [`Reject::PolicyUnknown`].
    pub policy_known: bool,
}

/// The points of influx-proxy's cache files are older than all that clients send now, and come first.
async fn wait_for_import(worker: &Worker) -> Result<(), Reject> {
    let mut waited = Duration::ZERO;
    while worker.all_stats.importing.load(SeqCst) {
        if waited >= IMPORT_WAIT {
            return Err(Reject::Importing);
        }
        io::sleep(IMPORT_LOOK_INTERVAL).await;
        waited += IMPORT_LOOK_INTERVAL;
    }
    Ok(())
}

/// Checks a target, in InfluxDB's order. An unknown database or policy costs one request to the backends.
///
/// # Errors
/// Why every point for this target is refused now.
pub async fn admit(worker: &Worker, Target { db, rp, precision }: Target<'_>) -> Result<Admitted, Reject> {
    if db.is_empty() {
        return Err(Reject::NoDatabase);
    }
    for (name, what) in [(db, "database"), (rp, "retention policy")] {
        if name.len() > NAME_BYTES_MAX {
            return Err(Reject::NameTooLong(what));
        }
    }
    // InfluxDB has no such database, and the ledger uses the name.
    if db == OTHERS.as_bytes() {
        return Err(Reject::DatabaseUnknown(db.to_vec()));
    }
    if !worker.settings.db_allowed(db) {
        return Err(Reject::DatabaseForbidden(db.to_vec()));
    }
    let precision = precision?;
    wait_for_import(worker).await?;
    let policy_known = match worker.find(db, rp).await {
        Found::Yes => true,
        Found::NoPolicy => false,
        Found::NoDatabase => return Err(Reject::DatabaseUnknown(db.to_vec())),
    };
    worker.own.log.check_append()?;
    let backends = worker.settings.topology.backends.len();
    Ok(Admitted { intake: Intake::new(db.to_vec(), rp.to_vec(), precision, backends), policy_known })
}

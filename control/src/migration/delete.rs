//! Deletes a measurement from a backend that does not own it, after finding all its points at the owner.
//!
//! Points are compared one by one, not counted: the owner may have the same number of other points. Values are not
//! compared: nothing writes to the wrong backend any more, so where values differ the owner has the newer one.

use super::progress::Progress;
use super::rows::ReadError;
use super::side::{CopySide, SliceWindow};
use super::slices::{self, Interval};
use super::steering::{CallLost, Steering};
use super::verify::{self, MissingValues};
use crate::clock::unix_ns;
use crate::influx::catalog;
use crate::influx::client::CallFailure;
use crate::influx::policy::Policy;
use crate::limits;
use fluxgate_dataplane::influxql::print;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fluxgate_dataplane::placement::Place;

/// Why the measurement was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCleared {
    Cancelled,
    /// The owner lacks values of this window.
    Missing {
        values: u64,
        rp: String,
        interval: Interval,
    },
    /// Points appeared or vanished during the comparison.
    Changing,
    /// A backend did not answer, or refused.
    Failed {
        name: String,
        why: String,
    },
}

impl std::fmt::Display for NotCleared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Missing { values, rp, interval } => {
                write!(f, "{values} values of {rp} from {} to {} are not at the owner", interval.0, interval.1)
            }
            Self::Changing => f.write_str("it is still being written to"),
            Self::Failed { name, why } => write!(f, "{name}: {why}"),
        }
    }
}

impl std::error::Error for NotCleared {}

/// Drops a measurement at `misplaced` if all its living points are at `right`. Returns the number of values compared.
///
/// # Errors
/// Nothing was dropped, except perhaps when the drop itself fails with [`NotCleared::Failed`].
pub fn clear(
    place: &Place,
    misplaced: &CopySide,
    right: &CopySide,
    retry_for: Duration,
    steering: &Steering,
    progress: &Progress,
) -> Result<u64, NotCleared> {
    let Place { db, measurement } = place;
    let at_misplaced = |lost| lost_by(lost, misplaced);
    let _interrupts = steering.interrupts([misplaced.client.agent(), right.client.agent()]);
    let policies = steering
        .retry(retry_for, progress, || catalog::database(&misplaced.client, db))
        .map_err(at_misplaced)?
        .unwrap_or_default();
    let mut compared = Vec::new();
    let mut groups = Vec::new();
    for policy in &policies {
        let unknown = || NotCleared::Failed {
            name: misplaced.name.clone(),
            why: format!("duration {} of policy {}", policy.duration, policy.name),
        };
        let from_ns =
            slices::living_from(policy, unix_ns() + limits::EXPIRY_MARGIN.as_nanos() as i64).ok_or_else(unknown)?;
        let list = || slices::intervals(misplaced, db, &policy.name, from_ns);
        let intervals = steering.retry(retry_for, progress, list).map_err(at_misplaced)?;
        groups.push((policy, from_ns, intervals.clone()));
        for interval in intervals {
            let mut todo = vec![interval];
            while let Some(interval) = todo.pop() {
                if !steering.wait_while_paused() {
                    return Err(NotCleared::Cancelled);
                }
                let window = window(db, measurement, policy, interval);
                let counts = steering.retry(retry_for, progress, || misplaced.counts(&window)).map_err(at_misplaced)?;
                let values: u64 = counts.values().sum();
                if let Some(parts) = slices::parts(interval, values) {
                    todo.extend(parts);
                    continue;
                }
                if values > 0 {
                    let piece_rows = verify::piece_rows(counts.len());
                    compare(misplaced, right, &window, piece_rows, steering)?;
                }
                progress.slices_done.fetch_add(1, Relaxed);
                compared.push((policy, interval, counts));
            }
        }
    }
    for (policy, from_ns, intervals) in groups {
        let list = || slices::intervals(misplaced, db, &policy.name, from_ns);
        if steering.retry(retry_for, progress, list).map_err(at_misplaced)? != intervals {
            return Err(NotCleared::Changing);
        }
    }
    let mut values = 0;
    for (policy, interval, counts) in compared {
        let window = window(db, measurement, policy, interval);
        let again = steering.retry(retry_for, progress, || misplaced.counts(&window)).map_err(at_misplaced)?;
        if again != counts {
            return Err(NotCleared::Changing);
        }
        values += counts.values().sum::<u64>();
    }
    if steering.is_cancelled() {
        return Err(NotCleared::Cancelled);
    }
    let failed = |failure: CallFailure| NotCleared::Failed { name: misplaced.name.clone(), why: failure.to_string() };
    misplaced.statement(db, &format!("DROP MEASUREMENT {}", print::name(measurement))).map_err(failed)?;
    log::info!("{}: dropped {measurement} of {db}, {values} values of which are at {}", misplaced.name, right.name);
    Ok(values)
}

fn window<'a>(db: &'a str, measurement: &'a str, policy: &'a Policy, (begin_ns, end_ns): Interval) -> SliceWindow<'a> {
    SliceWindow { db, rp: &policy.name, measurement, begin_ns, end_ns }
}

fn compare(
    misplaced: &CopySide,
    right: &CopySide,
    window: &SliceWindow<'_>,
    piece_rows: usize,
    steering: &Steering,
) -> Result<(), NotCleared> {
    match verify::look(misplaced, right, window, piece_rows, None, &steering.cancelled).map(MissingValues::lacking) {
        Ok(lacking) if lacking.is_empty() => Ok(()),
        Ok(lacking) => {
            let values = lacking.len() as u64;
            Err(NotCleared::Missing { values, rp: window.rp.to_owned(), interval: (window.begin_ns, window.end_ns) })
        }
        Err((_, ReadError::Cancelled)) => Err(NotCleared::Cancelled),
        Err((is_source, ReadError::Refused(why) | ReadError::Cut(why))) => {
            let name = if is_source { &misplaced.name } else { &right.name };
            Err(NotCleared::Failed { name: name.clone(), why })
        }
    }
}

fn lost_by(lost: CallLost, side: &CopySide) -> NotCleared {
    let name = side.name.clone();
    match lost {
        CallLost::Cancelled => NotCleared::Cancelled,
        CallLost::Gone(why) => NotCleared::Failed { name, why },
        CallLost::Refused(failure) => NotCleared::Failed { name, why: failure.to_string() },
    }
}

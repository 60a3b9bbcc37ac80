//! Counts the points that a copy leaves out: older than their policy's duration, but still stored at the source, since
//! InfluxDB drops only whole shards. The target would refuse them.

use std::sync::atomic::Ordering::Relaxed;

use super::copy::{CopyEngine, CopyError, CopyOutcome, Writes, living_from};
use super::rows::ReadError;
use super::side::SliceWindow;
use super::slices::{self, Interval};
use super::verify;
use crate::clock::unix_ns;
use crate::influx::policy::Policy;
use crate::limits;

impl CopyEngine<'_> {
    /// Counts the points that expired before now and that the target lacks. Where this is not possible, the slice has
    /// failed: nobody would know what is left out.
    pub(super) fn expired(&self, policy: &Policy, outcome: &mut CopyOutcome<'_>) -> Result<(), CopyError> {
        // Verification leaves out what is about to expire, so this includes it.
        let until_ns = living_from(policy, unix_ns() + limits::EXPIRY_MARGIN.as_nanos() as i64)?;
        let since_ns = self.task.since_ns.unwrap_or(slices::TIME_MIN);
        if until_ns <= since_ns {
            return Ok(());
        }
        let stored = || slices::intervals(self.source, &self.task.place.db, &policy.name, since_ns);
        let stored = self.of_source(stored)?;
        let mut todo: Vec<Interval> = stored.into_iter().map(|(begin, end)| (begin, end.min(until_ns))).collect();
        todo.retain(|(begin, end)| begin < end);
        while let Some(interval) = todo.pop() {
            let window = self.window(policy, interval);
            let mut attempts = 0;
            let counted = loop {
                if !self.steering.wait_while_paused() {
                    return Err(CopyError::Cancelled);
                }
                match self.expired_in(&window)? {
                    Ok(counted) => break Ok(counted),
                    Err(why) => {
                        if let Err(why) = self.back_off(&mut attempts, why)? {
                            break Err(why);
                        }
                    }
                }
            };
            match counted {
                Ok(Expired::Points(points)) => _ = self.progress.points_expired.fetch_add(points, Relaxed),
                Ok(Expired::TooMany(parts)) => todo.extend(parts),
                Err(why) => outcome.note(&window, 0, Err(format!("counting expired points: {why}"))),
            }
        }
        Ok(())
    }

    fn expired_in(&self, window: &SliceWindow<'_>) -> Result<Result<Expired, String>, CopyError> {
        let counts = match self.counts(self.source, window)? {
            Ok(counts) => counts,
            Err(why) => return Ok(Err(why)),
        };
        if let Some(parts) = slices::parts((window.begin_ns, window.end_ns), counts.values().sum()) {
            return Ok(Ok(Expired::TooMany(parts)));
        }
        if counts.is_empty() {
            return Ok(Ok(Expired::Points(0)));
        }
        if let Err(why) = self.barrier()? {
            return Ok(Err(why));
        }
        let piece_rows = verify::piece_rows(counts.len());
        let left = match self.look(window, piece_rows, None)? {
            Ok(open) if matches!(self.writes, Writes::ToTarget) => open.lacking(),
            Ok(open) => open,
            Err(why) => return Ok(Err(why)),
        };
        if left.is_empty() {
            return Ok(Ok(Expired::Points(0)));
        }
        match verify::points_with(self.source, window, piece_rows, &left, &self.steering.cancelled) {
            Ok(points) => Ok(Ok(Expired::Points(points))),
            Err(ReadError::Cancelled) => Err(CopyError::Cancelled),
            Err(ReadError::Refused(why) | ReadError::Cut(why)) => Ok(Err(why)),
        }
    }
}

/// Expired points of a window.
enum Expired {
    /// So many that the target lacks.
    Points(u64),
    /// They are to be counted in these parts.
    TooMany(Vec<Interval>),
}

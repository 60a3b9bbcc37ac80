//! Copies one measurement of one database from one backend to another, in all its retention policies.
//!
//! For each slice: read it, write it, check that each value has arrived (`verify` says why that is enough). Only
//! verified slices go to `checkpoint`. When a slice fails, the reason is kept and the copy goes on. When a backend
//! stays away, the copy ends, since every later slice would wait just as long.
//!
//! Clients keep writing meanwhile. Before the copy begins their points already go to the target ([`Writes`]); where the
//! source is written to as well, new points for a slice go to both. Expired points in shards that are not dropped yet
//! are not copied: the target would refuse them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fluxgate_dataplane::placement::Place;

use super::order::Undelivered;
use super::policies::{self, PolicyFailure};
use super::pour::{Pour, PourEnd};
use super::progress::Progress;
use super::rows::{self, ReadError};
use super::side::{CopySide, SliceWindow};
use super::slices::{self, Interval, Slice};
use super::steering::{CallLost, Halt, Steering};
use super::verify::{self, MissingValues};
use crate::clock::unix_ns;
use crate::influx::client::CallFailure;
use crate::influx::policy::Policy;
use crate::limits;

/// What to copy.
#[derive(Debug, Clone)]
pub struct CopyTask {
    pub place: Place,
    /// Only points from this time on (nanoseconds since 1970); None = all.
    pub since_ns: Option<i64>,
    /// Slices that earlier calls gave to `checkpoint`: they are skipped.
    pub done: Vec<Slice>,
    /// How long a failing call is repeated; `limits::RETRY_FOR`.
    pub retry_for: Duration,
}

/// Where clients' writes go while a measurement is copied.
#[derive(Clone, Copy)]
pub enum Writes<'a> {
    /// To source and target, in the same order. The function waits until the source (and for a short time the target)
    /// has received all points accepted before the call.
    ToBoth(&'a dyn Fn() -> Result<(), Undelivered>),
    /// Only to the target, so all values at the target are newer and only missing ones are copied. One race remains: a
    /// client writes such a point for the first time after the comparison and before the copy writes it. Then the older
    /// value wins, until the copy from a place that is written to, which comes last in its chain (`plan`), repairs it.
    /// Where a backend was removed without `leaving`, there is no such copy.
    ToTarget,
}

/// The target has everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Slices verified by this call, empty ones included.
    pub slices: u64,
    /// Values (fields of points) in them.
    pub values: u64,
}

/// The target does not have everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyError {
    Cancelled,
    /// The source does not answer, or refuses.
    Source(String),
    /// The target does not answer, or refuses.
    Target(String),
    /// All other slices are at the target. `failures` holds the first `limits::SLICE_FAILURES_KEPT` failed ones.
    Slices {
        failed: u64,
        failures: Vec<SliceFailure>,
    },
}

/// Why a slice is not at the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceFailure {
    pub slice: Slice,
    pub why: String,
}

impl std::fmt::Display for CopyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cancelled => f.write_str("cancelled"),
            Self::Source(why) => write!(f, "source: {why}"),
            Self::Target(why) => write!(f, "target: {why}"),
            Self::Slices { failed, failures } => {
                write!(f, "{failed} slices failed")?;
                let Some(SliceFailure { slice, why }) = failures.first() else { return Ok(()) };
                write!(f, ", the first: {} from {} to {}: {why}", slice.rp, slice.begin_ns, slice.end_ns)
            }
        }
    }
}

impl std::error::Error for CopyError {}

/// Copies. `checkpoint` gets each slice once it is verified.
///
/// # Errors
/// Whenever the target may lack a point.
pub fn copy(
    task: &CopyTask,
    source: &CopySide,
    target: &CopySide,
    writes: Writes<'_>,
    steering: &Steering,
    progress: &Progress,
    checkpoint: &mut dyn FnMut(&Slice),
) -> Result<Copied, CopyError> {
    let mut failures = Vec::new();
    let mut failed = 0;
    let mut copied = Copied::default();
    let engine = CopyEngine { task, source, target, writes, steering, progress };
    let _interrupts = steering.interrupts([source.client.agent(), target.client.agent()]);
    for policy in engine.policies()? {
        let from_ns = living_from(&policy, unix_ns())?;
        let from_ns = task.since_ns.map_or(from_ns, |since| from_ns.max(since));
        let intervals = engine.of_source(|| slices::intervals(source, &task.place.db, &policy.name, from_ns))?;
        let mut todo: Vec<Interval> =
            intervals.into_iter().flat_map(|interval| slices::without(interval, &policy.name, &task.done)).collect();
        progress.slices_total.fetch_add(todo.len() as u64, Relaxed);
        // The newest slice is the last element, which is taken first.
        todo.reverse();
        while let Some(interval) = todo.pop() {
            if !steering.wait_while_paused() {
                return Err(CopyError::Cancelled);
            }
            let window = engine.window(&policy, interval);
            let slice = Slice { rp: policy.name.clone(), begin_ns: interval.0, end_ns: interval.1 };
            let counts = engine.counts(source, &window)?;
            let values = counts.as_ref().map_or(0, |counts| counts.values().sum::<u64>());
            if let Some(parts) = slices::parts(interval, values) {
                progress.slices_total.fetch_add(parts.len() as u64 - 1, Relaxed);
                todo.extend(parts.into_iter().rev());
                continue;
            }
            let ended = match counts {
                Ok(counts) => engine.slice(&policy, &window, counts)?,
                Err(why) => Err(why),
            };
            match ended {
                Ok(()) => {
                    copied.slices += 1;
                    copied.values += values;
                    progress.slices_done.fetch_add(1, Relaxed);
                    checkpoint(&slice);
                }
                Err(why) => {
                    log::warn!(
                        "{} {} {} from {interval:?} to {}: {why}",
                        task.place.db,
                        policy.name,
                        task.place.measurement,
                        target.name
                    );
                    progress.slices_failed.fetch_add(1, Relaxed);
                    failed += 1;
                    if failures.len() < limits::SLICE_FAILURES_KEPT {
                        failures.push(SliceFailure { slice, why });
                    }
                }
            }
        }
    }
    if failed == 0 { Ok(copied) } else { Err(CopyError::Slices { failed, failures }) }
}

fn living_from(policy: &Policy, now_ns: i64) -> Result<i64, CopyError> {
    let unknown = || CopyError::Source(format!("duration {} of policy {}", policy.duration, policy.name));
    slices::living_from(policy, now_ns).ok_or_else(unknown)
}

struct CopyEngine<'a> {
    task: &'a CopyTask,
    source: &'a CopySide,
    target: &'a CopySide,
    writes: Writes<'a>,
    steering: &'a Steering,
    progress: &'a Progress,
}

impl CopyEngine<'_> {
    fn window<'w>(&'w self, policy: &'w Policy, (begin_ns, end_ns): Interval) -> SliceWindow<'w> {
        let Place { db, measurement } = &self.task.place;
        SliceWindow { db, rp: &policy.name, measurement, begin_ns, end_ns }
    }

    fn of_source<T>(&self, call: impl FnMut() -> Result<T, CallFailure>) -> Result<T, CopyError> {
        self.steering.retry(self.task.retry_for, self.progress, call).map_err(|lost| lost_by(lost, CopyError::Source))
    }

    /// The inner error is the backend's answer about this window; other windows may succeed.
    fn counts(&self, side: &CopySide, window: &SliceWindow<'_>) -> Result<Result<FieldCounts, String>, CopyError> {
        let (name, error): (_, fn(String) -> CopyError) =
            if std::ptr::eq(side, self.source) { ("source", CopyError::Source) } else { ("target", CopyError::Target) };
        match self.steering.retry(self.task.retry_for, self.progress, || side.counts(window)) {
            Ok(counts) => Ok(Ok(counts)),
            Err(CallLost::Refused(CallFailure::Refused(why))) => Ok(Err(format!("counting at the {name}: {why}"))),
            Err(lost) => Err(lost_by(lost, error)),
        }
    }

    fn policies(&self) -> Result<Vec<Policy>, CopyError> {
        let mut is_source = false;
        let ensure = || {
            policies::ensure(self.source, self.target, &self.task.place.db).map_err(|unequal| {
                is_source = matches!(unequal, PolicyFailure::Source(_));
                match unequal {
                    PolicyFailure::Source(failure) | PolicyFailure::Target(failure) => failure,
                }
            })
        };
        let ensured = self.steering.retry(self.task.retry_for, self.progress, ensure);
        ensured.map_err(|lost| lost_by(lost, if is_source { CopyError::Source } else { CopyError::Target }))
    }

    /// Copies one slice until it is verified; the inner error says why it is not.
    fn slice(
        &self,
        policy: &Policy,
        window: &SliceWindow<'_>,
        counts: FieldCounts,
    ) -> Result<Result<(), String>, CopyError> {
        let mut counts = counts;
        let mut piece_rows = verify::piece_rows(counts.len());
        // None = all.
        let mut open = None;
        if matches!(self.writes, Writes::ToTarget) && !counts.is_empty() {
            match self.counts(self.target, window)? {
                Ok(there) if there.is_empty() => {}
                Ok(_) => match self.look(window, piece_rows, None)? {
                    Ok(found) => open = Some(found.lacking()),
                    Err(why) => return Ok(Err(why)),
                },
                Err(why) => return Ok(Err(why)),
            }
        }
        let mut attempts = 0;
        loop {
            if counts.is_empty() || open.as_ref().is_some_and(MissingValues::is_empty) {
                return Ok(Ok(()));
            }
            let why = match self.pour(window, piece_rows, open.as_ref())? {
                Poured::All => match self.verify(policy, window, piece_rows, open.as_ref())? {
                    Ok(left) if left.is_empty() => return Ok(Ok(())),
                    Ok(left) => {
                        if open.replace(left.clone()).is_some_and(|open| left.len() < open.len() / 2) {
                            attempts = 0;
                        }
                        left.to_string()
                    }
                    Err(why) => why,
                },
                Poured::Refused(why) => return Ok(Err(why)),
                Poured::Paused => continue,
                Poured::Cut(why) => {
                    // Perhaps a piece was too large.
                    piece_rows = (piece_rows / 16).max(1);
                    why
                }
            };
            attempts += 1;
            if attempts == limits::SLICE_ATTEMPTS {
                return Ok(Err(why));
            }
            self.progress.retries.fetch_add(1, Relaxed);
            if !self.steering.sleep(limits::BACK_OFF_MIN * attempts) {
                return Err(CopyError::Cancelled);
            }
            // This also waits until the source answers again.
            counts = match self.counts(self.source, window)? {
                Ok(counts) => counts,
                Err(why) => return Ok(Err(why)),
            };
        }
    }

    fn pour(
        &self,
        window: &SliceWindow<'_>,
        piece_rows: usize,
        only: Option<&MissingValues>,
    ) -> Result<Poured, CopyError> {
        let mut pour = Pour::new(self.target, window, self.steering, self.progress, self.task.retry_for, only);
        let read = rows::read(self.source, window, piece_rows, &self.steering.cancelled, &mut pour);
        let ended = read.and_then(|()| pour.flush().map_err(ReadError::Sink));
        match (ended, pour.refused) {
            (Ok(()), None) => Ok(Poured::All),
            (Ok(()), Some((points, why))) => Ok(Poured::Refused(format!("the target refused {points} points: {why}"))),
            (Err(ReadError::Sink(PourEnd::Halt(Halt::Paused))), _) => {
                if self.steering.wait_while_paused() {
                    Ok(Poured::Paused)
                } else {
                    Err(CopyError::Cancelled)
                }
            }
            (Err(ReadError::Cancelled | ReadError::Sink(PourEnd::Halt(Halt::Cancelled))), _) => {
                Err(CopyError::Cancelled)
            }
            (Err(ReadError::Sink(PourEnd::Gone(why))), _) => Err(CopyError::Target(why)),
            (Err(ReadError::Sink(PourEnd::NoPoint)), _) => {
                Ok(Poured::Refused("the source has a value that cannot be written".to_owned()))
            }
            (Err(ReadError::Refused(why)), _) => Ok(Poured::Refused(format!("the source refuses: {why}"))),
            (Err(ReadError::Cut(why)), _) => {
                Ok(Poured::Cut(format!("the source's answer: {}: {why}", self.source.name)))
            }
        }
    }

    /// The values of `among` (None = all) that are not settled; the inner error says why this is unknown.
    fn verify(
        &self,
        policy: &Policy,
        window: &SliceWindow<'_>,
        piece_rows: usize,
        among: Option<&MissingValues>,
    ) -> Result<Result<MissingValues, String>, CopyError> {
        let from_ns = living_from(policy, unix_ns() + limits::EXPIRY_MARGIN.as_nanos() as i64)?;
        let window = SliceWindow { begin_ns: window.begin_ns.max(from_ns), ..window.clone() };
        if window.begin_ns >= window.end_ns {
            return Ok(Ok(MissingValues::default()));
        }
        let Writes::ToBoth(delivered) = self.writes else {
            return Ok(self.look(&window, piece_rows, among)?.map(MissingValues::lacking));
        };
        let mut earlier: Option<MissingValues> = None;
        for _ in 0..limits::SLICE_LOOKS {
            match delivered() {
                Ok(()) => {}
                Err(Undelivered::Cancelled) => return Err(CopyError::Cancelled),
                Err(Undelivered::Late(why)) => return Ok(Err(why)),
            }
            let open = match self.look(&window, piece_rows, earlier.as_ref().or(among))? {
                Ok(open) => open,
                Err(why) => return Ok(Err(why)),
            };
            let open = match &earlier {
                Some(earlier) => open.unchanged_since(earlier),
                None => open,
            };
            if open.is_empty() {
                return Ok(Ok(open));
            }
            earlier = Some(open);
        }
        Ok(Ok(earlier.unwrap_or_default()))
    }

    fn look(
        &self,
        window: &SliceWindow<'_>,
        piece_rows: usize,
        among: Option<&MissingValues>,
    ) -> Result<Result<MissingValues, String>, CopyError> {
        match verify::look(self.source, self.target, window, piece_rows, among, &self.steering.cancelled) {
            Ok(open) => Ok(Ok(open)),
            Err((_, ReadError::Cancelled)) => Err(CopyError::Cancelled),
            Err((is_source, ReadError::Refused(why) | ReadError::Cut(why))) => {
                let side = if is_source { self.source } else { self.target };
                Ok(Err(format!("comparing: {}: {why}", side.name)))
            }
        }
    }
}

/// Number of values of each field.
type FieldCounts = BTreeMap<String, u64>;

fn lost_by(lost: CallLost, side: impl Fn(String) -> CopyError) -> CopyError {
    match lost {
        CallLost::Cancelled => CopyError::Cancelled,
        CallLost::Gone(why) => side(why),
        CallLost::Refused(failure) => side(failure.to_string()),
    }
}

/// How writing a slice ended.
enum Poured {
    All,
    /// In a way that a repetition does not change.
    Refused(String),
    Paused,
    Cut(String),
}

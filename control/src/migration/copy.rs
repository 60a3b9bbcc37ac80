//! Copies one measurement of one database from one backend to another, in all its retention policies.
//!
//! For each slice: read it, write it, check that each value has arrived (`verify` says why that is enough). Only
//! verified slices go to `checkpoint`. When a slice fails, the reason is kept and the copy goes on. When a backend
//! or another proxy stays away, the copy ends, since every later slice would wait just as long.
//!
//! Clients keep writing meanwhile. Before the copy begins their points already go to the target ([`Writes`]); where the
//! source is written to as well, new points for a slice go to both.
//!
//! Points that are older than their policy's duration stay stored, and are found by queries, until InfluxDB drops their
//! whole shard. They cannot be copied, since the target refuses them: `expired` counts those that the target lacks.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use fluxgate_dataplane::placement::Place;

use super::order::Undelivered;
use super::policies::{self, PolicyFailure};
use super::pour::{Pour, PourEnd};
use super::progress::Progress;
use super::rows::ReadError;
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
    ToBoth(&'a (dyn Fn() -> Result<(), Undelivered> + Sync)),
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
    /// Another proxy has not said for too long which points it holds.
    Proxy(String),
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
            Self::Proxy(why) => f.write_str(why),
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
    let engine = CopyEngine { task, source, target, writes, steering, progress };
    let _interrupts = steering.interrupts([source.client.agent(), target.client.agent()]);
    let mut outcome =
        CopyOutcome { engine: &engine, checkpoint, copied: Copied::default(), failed: 0, failures: vec![] };
    for policy in engine.policies()? {
        let from_ns = living_from(&policy, unix_ns())?;
        let from_ns = task.since_ns.map_or(from_ns, |since| from_ns.max(since));
        let intervals = engine.of_source(|| slices::intervals(source, &task.place.db, &policy.name, from_ns))?;
        let todo: Vec<Interval> =
            intervals.into_iter().flat_map(|interval| slices::without(interval, &policy.name, &task.done)).collect();
        progress.slices_total.fetch_add(todo.len() as u64, Relaxed);
        engine.slices(&policy, todo, &mut outcome)?;
        // Last: points that expire meanwhile belong to it.
        engine.expired(&policy, &mut outcome)?;
    }
    outcome.end()
}

/// What became of the slices.
pub(super) struct CopyOutcome<'a> {
    engine: &'a CopyEngine<'a>,
    checkpoint: &'a mut dyn FnMut(&Slice),
    copied: Copied,
    failed: u64,
    failures: Vec<SliceFailure>,
}

impl CopyOutcome<'_> {
    pub fn note(&mut self, window: &SliceWindow<'_>, values: u64, ended: Result<(), String>) {
        let progress = self.engine.progress;
        let slice = Slice { rp: window.rp.to_owned(), begin_ns: window.begin_ns, end_ns: window.end_ns };
        match ended {
            Ok(()) => {
                self.copied.slices += 1;
                self.copied.values += values;
                progress.slices_done.fetch_add(1, Relaxed);
                (self.checkpoint)(&slice);
            }
            Err(why) => {
                let (db, name, interval) = (window.db, window.measurement, (window.begin_ns, window.end_ns));
                let target = &self.engine.target.name;
                log::warn!("{db} {} {name} from {interval:?} to {target}: {why}", window.rp);
                progress.slices_failed.fetch_add(1, Relaxed);
                self.failed += 1;
                if self.failures.len() < limits::SLICE_FAILURES_KEPT {
                    self.failures.push(SliceFailure { slice, why });
                }
            }
        }
    }

    fn end(self) -> Result<Copied, CopyError> {
        let Self { copied, failed, failures, .. } = self;
        if failed == 0 { Ok(copied) } else { Err(CopyError::Slices { failed, failures }) }
    }
}

pub(super) fn living_from(policy: &Policy, now_ns: i64) -> Result<i64, CopyError> {
    let unknown = || CopyError::Source(format!("duration {} of policy {}", policy.duration, policy.name));
    slices::living_from(policy, now_ns).ok_or_else(unknown)
}

pub(super) struct CopyEngine<'a> {
    pub task: &'a CopyTask,
    pub source: &'a CopySide,
    pub target: &'a CopySide,
    pub writes: Writes<'a>,
    pub steering: &'a Steering,
    pub progress: &'a Progress,
}

impl CopyEngine<'_> {
    pub(super) fn window<'w>(&'w self, policy: &'w Policy, (begin_ns, end_ns): Interval) -> SliceWindow<'w> {
        let Place { db, measurement } = &self.task.place;
        SliceWindow { db, rp: &policy.name, measurement, begin_ns, end_ns }
    }

    pub(super) fn of_source<T>(&self, call: impl FnMut() -> Result<T, CallFailure>) -> Result<T, CopyError> {
        self.steering.retry(self.task.retry_for, self.progress, call).map_err(|lost| lost_by(lost, CopyError::Source))
    }

    /// The inner error is the backend's answer about this window; other windows may succeed.
    pub(super) fn counts(
        &self,
        side: &CopySide,
        window: &SliceWindow<'_>,
    ) -> Result<Result<FieldCounts, String>, CopyError> {
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

    /// Copies slices, newest first. One slice is verified while the next one is read and written.
    fn slices(&self, policy: &Policy, mut todo: Vec<Interval>, outcome: &mut CopyOutcome<'_>) -> Result<(), CopyError> {
        // The newest slice is the last element, which is taken first.
        todo.reverse();
        let mut todo: Vec<SliceTodo> = todo.into_iter().map(SliceTodo::counted).collect();
        thread::scope(|scope| {
            let mut verifying: Option<Verifying<'_, '_>> = None;
            let ended = loop {
                let Some(next) = todo.pop() else { break Ok(()) };
                let poured = match self.begin_slice(policy, &next) {
                    Ok(SliceBegun::TooLarge { parts, fields }) => {
                        self.progress.slices_total.fetch_add(parts.len() as u64 - 1, Relaxed);
                        let is_uneven = next.is_uneven || next.fields.is_some();
                        // Where only missing values are copied, a slice is counted before it is compared.
                        let is_counted = is_uneven || matches!(self.writes, Writes::ToTarget);
                        let fields = Some(fields).filter(|_| !is_counted);
                        let part = |interval| SliceTodo { interval, fields, is_uneven };
                        todo.extend(parts.into_iter().rev().map(part));
                        continue;
                    }
                    Ok(SliceBegun::Poured(slice)) => Ok(slice),
                    Ok(SliceBegun::Failed(window, why)) => Err((window, why)),
                    Err(error) => break Err(error),
                };
                if let Some(Err(error)) = verifying.take().map(|verifying| verifying.end(outcome)) {
                    break Err(error);
                }
                match poured {
                    Ok(slice) => {
                        let (window, values) = (slice.window.clone(), slice.values);
                        let thread = scope.spawn(move || self.end_slice(policy, slice));
                        verifying = Some(Verifying { window, values, thread });
                    }
                    Err((window, why)) => outcome.note(&window, 0, Err(why)),
                }
            };
            // Also after an error: what is verified need not be copied again.
            let last = verifying.map_or(Ok(()), |verifying| verifying.end(outcome));
            ended.and(last)
        })
    }

    /// Writes a slice for the first time.
    fn begin_slice<'w>(&'w self, policy: &'w Policy, todo: &SliceTodo) -> Result<SliceBegun<'w>, CopyError> {
        if !self.steering.wait_while_paused() {
            return Err(CopyError::Cancelled);
        }
        let (interval, window) = (todo.interval, self.window(policy, todo.interval));
        if let Some(fields) = todo.fields {
            let mut slice = SliceCopy::new(window.clone(), fields);
            slice.values_max = limits::PART_VALUES_MAX;
            match self.pour_slice(&mut slice)? {
                Ok(()) => return Ok(SliceBegun::Poured(slice)),
                Err(NotPoured::TooMany) => {}
                Err(NotPoured::Failed(why)) => return Ok(SliceBegun::Failed(window, why)),
            }
        }
        let counts = match self.counts(self.source, &window)? {
            Ok(counts) => counts,
            Err(why) => return Ok(SliceBegun::Failed(window, why)),
        };
        let values = counts.values().sum::<u64>();
        if let Some(parts) = slices::parts(interval, values) {
            return Ok(SliceBegun::TooLarge { parts, fields: counts.len() });
        }
        let mut slice = SliceCopy::new(window.clone(), counts.len());
        slice.is_empty = counts.is_empty();
        if matches!(self.writes, Writes::ToTarget) && !counts.is_empty() {
            match self.counts(self.target, &window)? {
                Ok(there) if there.is_empty() => {}
                Ok(_) => match self.look(&window, slice.piece_rows, None)? {
                    Ok(found) => slice.open = Some(found.lacking()),
                    Err(why) => return Ok(SliceBegun::Failed(window, why)),
                },
                Err(why) => return Ok(SliceBegun::Failed(window, why)),
            }
        }
        slice.values = values;
        Ok(match self.pour_slice(&mut slice)? {
            Ok(()) => SliceBegun::Poured(slice),
            Err(why) => SliceBegun::Failed(window, why.to_string()),
        })
    }

    /// Verifies a slice, and copies again what is not right until it is; the inner error says why it is not.
    fn end_slice(&self, policy: &Policy, mut slice: SliceCopy<'_>) -> Result<Result<(), String>, CopyError> {
        loop {
            if slice.is_over() {
                return Ok(Ok(()));
            }
            let why = match self.verify(policy, &slice)? {
                Ok(left) if left.is_empty() => return Ok(Ok(())),
                Ok(left) => {
                    let why = left.to_string();
                    let before = slice.open.as_ref().map(MissingValues::len);
                    if before.is_some_and(|before| left.len() < before / 2) {
                        slice.attempts = 0;
                    }
                    slice.open = Some(left);
                    why
                }
                Err(why) => why,
            };
            slice.values_max = u64::MAX;
            if let Err(why) = self.next_attempt(&mut slice, why)? {
                return Ok(Err(why));
            }
            if let Err(why) = self.pour_slice(&mut slice)? {
                return Ok(Err(why.to_string()));
            }
        }
    }

    /// Writes the open values of a slice.
    fn pour_slice(&self, slice: &mut SliceCopy<'_>) -> Result<Result<(), NotPoured>, CopyError> {
        while !slice.is_over() {
            match self.pour(slice)? {
                Poured::All(values) => {
                    if slice.open.is_none() {
                        (slice.values, slice.is_empty) = (values, values == 0);
                    }
                    break;
                }
                Poured::Refused(why) => return Ok(Err(NotPoured::Failed(why))),
                Poured::TooMany => return Ok(Err(NotPoured::TooMany)),
                Poured::Paused => {}
                Poured::Cut(why) => {
                    // Perhaps a piece was too large.
                    slice.piece_rows = (slice.piece_rows / 16).max(1);
                    if let Err(why) = self.next_attempt(slice, why)? {
                        return Ok(Err(NotPoured::Failed(why)));
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// Waits a moment before another attempt. The inner error: there is none; why the last one failed.
    pub(super) fn back_off(&self, attempts: &mut u32, why: String) -> Result<Result<(), String>, CopyError> {
        *attempts += 1;
        if *attempts == limits::SLICE_ATTEMPTS {
            return Ok(Err(why));
        }
        self.progress.retries.fetch_add(1, Relaxed);
        if !self.steering.sleep(limits::BACK_OFF_MIN * *attempts) {
            return Err(CopyError::Cancelled);
        }
        Ok(Ok(()))
    }

    /// Like `back_off`, and looks again whether the source has points in the slice.
    fn next_attempt(&self, slice: &mut SliceCopy<'_>, why: String) -> Result<Result<(), String>, CopyError> {
        if let Err(why) = self.back_off(&mut slice.attempts, why)? {
            return Ok(Err(why));
        }
        // This also waits until the source answers again.
        Ok(self.counts(self.source, &slice.window)?.map(|counts| slice.is_empty = counts.is_empty()))
    }

    fn pour(&self, slice: &SliceCopy<'_>) -> Result<Poured, CopyError> {
        let Self { source, target, steering, progress, .. } = *self;
        let SliceCopy { window, piece_rows, values_max, open, .. } = slice;
        let pour = Pour {
            source,
            target,
            window,
            piece_rows: *piece_rows,
            values_max: *values_max,
            only: open.as_ref(),
            retry_for: self.task.retry_for,
            steering,
            progress,
        };
        match pour.run() {
            Ok(values) => Ok(Poured::All(values)),
            Err(PourEnd::TooMany) => Ok(Poured::TooMany),
            Err(PourEnd::Refused(points, why)) => {
                Ok(Poured::Refused(format!("the target refused {points} points: {why}")))
            }
            Err(PourEnd::Halt(Halt::Paused)) => {
                if steering.wait_while_paused() {
                    Ok(Poured::Paused)
                } else {
                    Err(CopyError::Cancelled)
                }
            }
            Err(PourEnd::Halt(Halt::Cancelled)) => Err(CopyError::Cancelled),
            Err(PourEnd::Gone(why)) => Err(CopyError::Target(why)),
            Err(PourEnd::NoPoint) => Ok(Poured::Refused("the source has a value that cannot be written".to_owned())),
            Err(PourEnd::SourceRefuses(why)) => Ok(Poured::Refused(format!("the source refuses: {why}"))),
            Err(PourEnd::Cut(why)) => Ok(Poured::Cut(format!("the source's answer: {}: {why}", source.name))),
        }
    }

    /// The open values that are not settled; the inner error says why this is unknown.
    fn verify(&self, policy: &Policy, slice: &SliceCopy<'_>) -> Result<Result<MissingValues, String>, CopyError> {
        let SliceCopy { window, piece_rows, open: among, .. } = slice;
        let (piece_rows, among) = (*piece_rows, among.as_ref());
        let from_ns = living_from(policy, unix_ns() + limits::EXPIRY_MARGIN.as_nanos() as i64)?;
        let window = SliceWindow { begin_ns: window.begin_ns.max(from_ns), ..window.clone() };
        if window.begin_ns >= window.end_ns {
            return Ok(Ok(MissingValues::default()));
        }
        if matches!(self.writes, Writes::ToTarget) {
            return Ok(self.look(&window, piece_rows, among)?.map(MissingValues::lacking));
        }
        let mut earlier: Option<MissingValues> = None;
        for _ in 0..limits::SLICE_LOOKS {
            if let Err(why) = self.barrier()? {
                return Ok(Err(why));
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

    /// Waits until all points accepted before the call are at the source, if it is written to. The inner error: they
    /// are not in time.
    pub(super) fn barrier(&self) -> Result<Result<(), String>, CopyError> {
        let Writes::ToBoth(delivered) = self.writes else { return Ok(Ok(())) };
        match delivered() {
            Ok(()) => Ok(Ok(())),
            Err(Undelivered::Late(why)) => Ok(Err(why)),
            Err(Undelivered::Cancelled) => Err(CopyError::Cancelled),
            Err(Undelivered::Gone(why)) => Err(CopyError::Proxy(why)),
        }
    }

    pub(super) fn look(
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
pub(super) type FieldCounts = BTreeMap<String, u64>;

fn lost_by(lost: CallLost, side: impl Fn(String) -> CopyError) -> CopyError {
    match lost {
        CallLost::Cancelled => CopyError::Cancelled,
        CallLost::Gone(why) => side(why),
        CallLost::Refused(failure) => side(failure.to_string()),
    }
}

/// A slice to be copied.
struct SliceTodo {
    interval: Interval,
    /// The number of its fields, if it is a part of a slice that was counted. It is then probably small enough, and not
    /// counted itself.
    fields: Option<usize>,
    /// It is a part of one that was not small enough.
    is_uneven: bool,
}

impl SliceTodo {
    fn counted(interval: Interval) -> Self {
        Self { interval, fields: None, is_uneven: false }
    }
}

/// A slice on its way.
struct SliceCopy<'a> {
    window: SliceWindow<'a>,
    values: u64,
    /// The source has nothing there.
    is_empty: bool,
    piece_rows: usize,
    /// Values that may be read.
    values_max: u64,
    /// What the target does not have yet, as far as is known; None = all.
    open: Option<MissingValues>,
    attempts: u32,
}

impl<'a> SliceCopy<'a> {
    fn new(window: SliceWindow<'a>, fields: usize) -> Self {
        let piece_rows = verify::piece_rows(fields);
        Self { window, values: 0, is_empty: false, piece_rows, values_max: u64::MAX, open: None, attempts: 0 }
    }

    fn is_over(&self) -> bool {
        self.is_empty || self.open.as_ref().is_some_and(MissingValues::is_empty)
    }
}

/// How the first writing of a slice ended.
enum SliceBegun<'a> {
    /// It is to be copied in these parts.
    TooLarge {
        parts: Vec<Interval>,
        fields: usize,
    },
    Poured(SliceCopy<'a>),
    Failed(SliceWindow<'a>, String),
}

/// A slice that is being verified.
struct Verifying<'scope, 'a> {
    window: SliceWindow<'a>,
    values: u64,
    thread: ScopedJoinHandle<'scope, Result<Result<(), String>, CopyError>>,
}

impl Verifying<'_, '_> {
    fn end(self, outcome: &mut CopyOutcome<'_>) -> Result<(), CopyError> {
        let ended = self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        outcome.note(&self.window, self.values, ended);
        Ok(())
    }
}

/// Why the values of a slice are not written.
enum NotPoured {
    /// The slice is to be cut.
    TooMany,
    Failed(String),
}

impl std::fmt::Display for NotPoured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if let Self::Failed(why) = self { why } else { "it has too many values" })
    }
}

/// How writing a slice ended.
enum Poured {
    /// So many values were read.
    All(u64),
    TooMany,
    /// In a way that a repetition does not change.
    Refused(String),
    Paused,
    Cut(String),
}

//! What a courier needs from its surroundings: records, and somebody to tell.

use std::future::Future;

use crate::disklog::{RecordView, Seq};
use crate::handoff::Created;

/// What one [`RecordSource::fetch`] passed to its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The record after the last one passed (or skipped, being meant for others).
    pub next: Seq,
    /// Lines passed.
    pub lines: u64,
    /// Lines known to be lost on the way (a damaged frame, `drop_oldest`).
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// The log has been closed: the courier ends.
    Closed,
    /// The log cannot be read now; it has said why. The courier asks again later.
    Unreadable,
}

/// One backend's records of one worker's log, in order.
pub trait RecordSource {
    /// Passes records to `sink` until it answers false (that record was not taken and comes again) or none is left that
    /// can be had at once; with `wait`, waits until there is one. Continues where the last fetch ended, confirmed or
    /// not.
    ///
    /// # Errors
    /// [`SourceError`].
    fn fetch(
        &mut self,
        wait: bool,
        sink: &mut dyn FnMut(RecordView<'_>) -> bool,
    ) -> impl Future<Output = Result<Fetched, SourceError>>;

    /// Whether there may be records beyond what has been fetched.
    fn behind(&self) -> bool;

    /// Everything before `next` has been delivered or dead-lettered: the cursor moves there.
    fn confirm(&mut self, next: Seq);
}

/// How a courier's backend fares, seen from its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    Up,
    /// The last write failed; everything is kept.
    Down,
    /// 401, 403 or an address where no InfluxDB answers: an operator must act, everything is kept.
    Refusing,
}

/// Whom a courier tells what became of the points. Counts of one window are told together, directly before the
/// [`RecordSource::confirm`] that moves the cursor past them, in one poll: whoever saves both saves one moment.
pub trait Reports {
    /// The backend has confirmed these points.
    fn delivered(&self, db: &[u8], lines: u64);

    /// The backend refused these points; they are among the dead letters. `reason` is one of a few fixed texts.
    fn rejected(&self, db: &[u8], reason: &'static str, lines: u64);

    /// What the backend said when it refused points; told before they are counted.
    fn refused(&self, text: &str);

    /// Told at each change, with the reason for the program's status.
    fn state(&self, state: DeliveryState, reason: &str);

    /// The time of the oldest record fetched and not settled; None = there is none in the log.
    fn holds(&self, oldest_ms: Option<u64>);

    /// The oldest time that couriers of other workers hold for this backend; `u64::MAX` = none.
    fn oldest_elsewhere(&self) -> u64;

    /// True from the first success after a failure until the courier has caught up with the log.
    fn rewriting(&self, on: bool);

    /// True from a failure of this machine (the log cannot be read, dead letters cannot be written) until the courier
    /// goes on.
    fn stuck(&self, on: bool);

    /// Has the database (or policy; `rp` empty = the default one) created at the backend as another backend has it.
    fn create_database(&self, db: &str, rp: &str) -> impl Future<Output = Created>;
}

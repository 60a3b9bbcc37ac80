//! What a courier needs from its worker: a source of records, and a receiver for its reports.

use std::future::Future;

use super::window::PartlySettled;
use crate::disklog::{RecordView, Seq};
use crate::handoff::Created;

/// What one [`RecordSource::fetch`] passed to its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The record after the last one that was passed, or skipped because it is for other backends.
    pub next: Seq,
    /// Lines passed.
    pub lines: u64,
    /// Lines lost on the way (a damaged frame, `drop_oldest`).
    pub lost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// The log has been closed: the courier ends.
    Closed,
    /// The log cannot be read now, and the reason has been logged. The courier tries again later.
    Unreadable,
}

/// The records for one backend in one worker's log, in order.
pub trait RecordSource {
    /// Passes records to `sink` until it returns false (that record comes again) or no more are available at once. With
    /// `wait`, waits until there is a record. Starts where the last fetch ended, confirmed or not.
    ///
    /// # Errors
    /// [`SourceError`].
    fn fetch(
        &mut self,
        wait: bool,
        sink: &mut dyn FnMut(RecordView<'_>) -> bool,
    ) -> impl Future<Output = Result<Fetched, SourceError>>;

    /// Whether there may be more records than have been fetched.
    fn behind(&self) -> bool;

    /// Moves the cursor: everything before `next` has been delivered or is a dead letter.
    fn confirm(&mut self, next: Seq);
}

/// The state of a backend as its writes show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    Up,
    /// The last write failed. Points are kept.
    Down,
    /// 401, 403, or no InfluxDB answers at this address. An operator must act; points are kept.
    Refusing,
}

/// Receives what became of points. The counts of one window are reported together, directly before the
/// [`RecordSource::confirm`] that moves the cursor past them, without an await in between. So counts and cursor can be
/// saved as of the same moment.
pub trait Reports {
    /// The backend has confirmed these points.
    fn delivered(&self, db: &[u8], lines: u64);

    /// The backend refused these points; they are dead letters. `reason` is one of a few fixed texts.
    fn rejected(&self, db: &[u8], reason: &'static str, lines: u64);

    /// The cursor cannot move, but this much is settled. Holds until the next call or the next move of the cursor.
    fn partly_settled(&self, settled: PartlySettled);

    /// The text with which the backend refused points; called before they are counted.
    fn refused(&self, text: &str);

    /// Called at each change, with the reason for the program's status.
    fn state(&self, state: DeliveryState, reason: &str);

    /// The time of the oldest record that is fetched and not settled. None: there is none in the log.
    fn holds(&self, oldest_ms: Option<u64>);

    /// The time of the oldest record that couriers of other workers hold for this backend; `u64::MAX` = none.
    fn oldest_elsewhere(&self) -> u64;

    /// True from the first success after a failure until the courier has reached the end of the log.
    fn rewriting(&self, on: bool);

    /// True from a local failure (the log cannot be read, dead letters cannot be written) until the courier continues.
    fn stuck(&self, on: bool);

    /// Creates the database (or policy; `rp` empty = the default one) at the backend, as another backend has it.
    fn create_database(&self, db: &str, rp: &str) -> impl Future<Output = Created>;
}

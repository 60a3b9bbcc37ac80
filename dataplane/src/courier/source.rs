//! What a courier needs from its worker: the records for its backend, and a receiver for its reports.

use std::future::Future;
use std::sync::Arc;

use super::group::{RefusedPoints, RejectedPoints};
use super::window::PartlySettled;
use crate::disklog::{RecordView, Seq};
use crate::handoff::Created;
use crate::parked::ParkedKey;

/// What one [`RecordSource::fetch`] passed to its sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Lines passed.
    pub lines: u64,
    /// Lines lost on the way (a damaged frame, `drop_oldest`).
    pub lost: u64,
    /// Every record with a stamp below this has been passed, now or earlier. 0 = not known.
    pub below: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// The log has been closed: the courier ends.
    Closed,
    /// The log cannot be read now, and the reason has been logged. The courier tries again later.
    Unreadable,
}

/// The records for one backend in all logs, in one order.
pub trait RecordSource {
    /// Passes records, each with the number of its log, to `sink` until it returns false (that record comes again) or
    /// no more are available now. Starts where the last fetch ended, confirmed or not.
    ///
    /// # Errors
    /// [`SourceError`]. What was passed before counts as passed.
    fn fetch(
        &mut self,
        sink: &mut dyn FnMut(usize, RecordView<'_>) -> bool,
    ) -> impl Future<Output = Result<Fetched, SourceError>>;

    /// Waits until a fetch may pass something. May be dropped at any time.
    fn ready(&mut self) -> impl Future<Output = ()>;

    /// Whether there may be more records than have been fetched.
    fn behind(&self) -> bool;

    /// Records with smaller stamps are from former processes.
    fn began(&self) -> u64;

    /// By log: the record after the last one that was passed, or skipped because it is for other backends.
    fn positions(&self) -> Vec<Seq>;

    /// Moves the cursors of all logs to where they have been fetched: everything passed has been delivered or is a dead
    /// letter.
    fn confirm(&mut self);

    /// Whether the logs have got all reports.
    fn has_reported(&mut self) -> bool;

    /// Nothing is fetched for a while: gives memory back.
    fn rest(&mut self);
}

/// The points of a group that are not settled, and the counts of those that are and have not been reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsettledPart {
    /// Of the first record and of the last one.
    pub stamp: u64,
    pub last_stamp: u64,
    /// By log: the first record; where there is none, the next one that is fetched.
    pub first: Vec<Seq>,
    /// By log: the record after the last one; 0 = there is none.
    pub end: Vec<Seq>,
    /// Counts, each with its log. Dead letters are on disk.
    pub delivered: Vec<(usize, u64)>,
    pub rejected: Vec<RejectedPoints>,
}

/// Points that a side courier delivers.
pub trait Parking<R>: Sized {
    /// What former processes have parked.
    fn parked_before(&self) -> Vec<ParkedKey>;

    /// Everything below the first stamp is settled or parked; of this key everything is settled below the second one.
    fn floors(&self, key: &ParkedKey) -> (u64, u64);

    /// Parks points. `part`: what is not settled of those that have been fetched; None = the logs know. Returns a
    /// source of these points, and where to report what became of them. None: a log cannot be told now.
    fn park(&self, key: &ParkedKey, part: Option<&UnsettledPart>) -> Option<(Self, R)>;

    /// All parked points of this key that were passed over are settled, and have been reported. False: a log cannot be
    /// told now.
    fn unpark(&self, key: &ParkedKey) -> bool;
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
/// [`RecordSource::confirm`] that moves the cursors past them, without an await in between. So counts and cursors can
/// be saved as of the same moment.
pub trait Reports {
    /// The backend has confirmed these points of a log.
    fn delivered(&self, log: usize, db: &[u8], lines: u64);

    /// The backend refused these points of `db`; they are dead letters.
    fn rejected(&self, db: &[u8], rejected: &RejectedPoints);

    /// Everything below this stamp is settled. Called before [`RecordSource::confirm`].
    fn settled_below(&self, stamp: u64);

    /// The cursors cannot move, but this much is settled. Holds until the next call or the next move of the cursors.
    fn partly_settled(&self, settled: Arc<PartlySettled>);

    /// The backend refused these points of a log; called before anything says that they are settled.
    fn refused(&self, log: usize, refused: RefusedPoints);

    /// The lines of a record that some backend has refused for the type of a field.
    fn refused_lines(&self, log: usize, record: Seq) -> Vec<u32>;

    /// Whether the backends of other circles that take writes have received everything of `db` up to this stamp. If
    /// not, their couriers look whether they have.
    fn others_are_past(&self, db: &[u8], stamp: u64) -> bool;

    /// Called at each change, with the reason for the program's status.
    fn state(&self, state: DeliveryState, reason: &str);

    /// The stamp of the oldest record that is fetched and not settled. None: there is none in the logs.
    fn holds(&self, oldest: Option<u64>);

    /// Whether the backend does not take something that the courier holds.
    fn failing(&self, on: bool);

    /// What the backend said to a write; empty = it took it.
    fn answered(&self, text: &str);

    /// True from the first success after a failure until the courier has reached the end of the logs.
    fn rewriting(&self, on: bool);

    /// A failure of this machine, until the courier continues: a log cannot be read, dead letters cannot be written.
    fn stuck(&self, log: bool, letters: bool);

    /// The name of the database's default policy, if it is known.
    fn default_policy(&self, db: &[u8]) -> Option<String>;

    /// Creates the database (or policy; `rp` empty = the default one) at the backend, as another backend has it.
    fn create_database(&self, db: &str, rp: &str) -> impl Future<Output = Created>;
}

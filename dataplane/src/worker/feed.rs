//! Between a log and a courier that live on different workers: records one way, reports of what became of them the
//! other way. Both queues are bounded and without locks; each end wakes the other one through its worker's bell.
//!
//! ```text
//!   worker of the log                                            worker of the courier
//!   log ─ reader ─> chunks ─────────────────────────────────────> merge ─> courier ─> backend
//!         ledger <──────────────────────────────────── reports <──┘
//! ```
//!
//! A backend has one courier, on the worker [`Feeds::courier_of`]; a log lives on the worker [`Feeds::owner_of`].

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize, fence};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::courier::{PartlySettled, RefusedPoints};
use crate::disklog::{RecordView, Seq};
use crate::io::Bell;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, FEED_CHUNKS, FEED_POOL_BYTES, FEED_REFUSED, FEED_REPORTS};
use crate::order::RecordOrder;
use crate::parked::ParkedKey;
use crate::precision::Precision;
use crate::topology::BackendId;

/// Records of one log for one backend, copied.
#[derive(Debug, Default)]
pub struct Chunk {
    records: Vec<ChunkRecord>,
    /// For each record: database, policy, lines.
    bytes: Vec<u8>,
    /// The record after the last one that is here or was skipped.
    pub next: Seq,
    /// Lines lost before `next`, which are not here.
    pub lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct ChunkRecord {
    seq: Seq,
    stamp: u64,
    precision: Precision,
    lines: u32,
    /// Ends in `Chunk::bytes`.
    db: usize,
    rp: usize,
    end: usize,
}

impl Chunk {
    /// Adds a record. False: there is no room below `bytes_max`.
    pub fn push(&mut self, record: &RecordView<'_>, bytes_max: usize) -> bool {
        let len = record.db.len() + record.rp.len() + record.bytes.len();
        if !self.records.is_empty() && self.bytes.len() + len > bytes_max {
            return false;
        }
        let (mut ends, parts) = ([0; 3], [record.db, record.rp, record.bytes]);
        for (end, part) in ends.iter_mut().zip(parts) {
            self.bytes.extend_from_slice(part);
            *end = self.bytes.len();
        }
        let [db, rp, end] = ends;
        let RecordView { seq, stamp, precision, lines, .. } = *record;
        self.records.push(ChunkRecord { seq, stamp, precision, lines, db, rp, end });
        true
    }

    /// The record with this index, if there are so many.
    pub fn record(&self, index: usize) -> Option<RecordView<'_>> {
        let record = self.records.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.records[before].end);
        Some(RecordView {
            seq: record.seq,
            db: &self.bytes[start..record.db],
            rp: &self.bytes[record.db..record.rp],
            precision: record.precision,
            stamp: record.stamp,
            lines: record.lines,
            bytes: &self.bytes[record.rp..record.end],
        })
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Makes it empty and keeps its memory, unless a long record has made it large.
    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
        self.bytes.shrink_to(CHUNK_BYTES_MAX);
        (self.next, self.lost) = (Seq(0), 0);
    }
}

/// What became of records.
#[derive(Debug)]
pub enum Report {
    Settled(Settled),
    /// The cursor cannot move, but this much is settled.
    Partly(Arc<PartlySettled>),
    /// What the backend has refused of records that the next report may settle.
    Refused(Vec<RefusedPoints>),
    /// Points are parked: before the cursor moves past them.
    Park(Box<ParkOrder>),
    /// All parked points before the cursor are settled.
    Unpark(ParkedKey),
}

/// Points that a side courier delivers.
#[derive(Debug)]
pub struct ParkOrder {
    pub key: ParkedKey,
    /// The first record of the log that is not settled, and the counts of those before it that have not been reported;
    /// None = the log knows.
    pub from: Option<Settled>,
    /// Where the side courier gets them.
    pub feed: Arc<Feed>,
}

/// Everything before `next` is settled.
#[derive(Debug, Default)]
pub struct Settled {
    pub next: Seq,
    pub delivered: Vec<(Box<[u8]>, u64)>,
    pub rejected: Vec<(Box<[u8]>, Cow<'static, str>, u64)>,
    /// Dropped to make room.
    pub dropped: Vec<(Box<[u8]>, u64)>,
}

impl Settled {
    /// Counts refused points.
    pub fn reject(&mut self, db: &[u8], reason: Cow<'static, str>, points: u64) {
        match self.rejected.iter_mut().rfind(|(of, known, _)| **of == *db && *known == reason) {
            Some((.., known)) => *known += points,
            None => self.rejected.push((db.into(), reason, points)),
        }
    }
}

/// One end: who is to be woken there.
#[derive(Debug)]
pub struct FeedEnd {
    rung: AtomicBool,
    bell: Arc<Bell>,
}

impl FeedEnd {
    /// Wakes the worker at this end, once until it has looked.
    pub fn ring(&self) {
        if !self.rung.swap(true, SeqCst) {
            self.bell.ring();
        }
    }

    /// Whether it has been rung since the last call.
    pub fn look(&self) -> bool {
        self.rung.swap(false, SeqCst)
    }
}

/// Connects one log with one backend's courier.
#[derive(Debug)]
pub struct Feed {
    chunks: ArrayQueue<Chunk>,
    /// Emptied chunks, to be filled again.
    spares: ArrayQueue<Chunk>,
    reports: ArrayQueue<Report>,
    /// Set when a frame for this backend can be read, cleared when all that can be read has been offered.
    pub behind: Arc<AtomicBool>,
    /// The log cannot be read now.
    pub unreadable: AtomicBool,
    /// Of a side courier: it has ended.
    pub closed: AtomicBool,
    /// A client waits: the courier's next window starts at once.
    pub hurry: AtomicBool,
    /// The courier waits for a chunk, or to hear that there is none; the log's reader waits for room.
    courier_waits: AtomicBool,
    reader_waits: AtomicBool,
    pub to_courier: FeedEnd,
    pub to_owner: FeedEnd,
}

impl Feed {
    fn new(owner: Arc<Bell>, courier: Arc<Bell>) -> Self {
        let end = |bell| FeedEnd { rung: AtomicBool::new(false), bell };
        Self {
            chunks: ArrayQueue::new(FEED_CHUNKS),
            spares: ArrayQueue::new(FEED_CHUNKS),
            reports: ArrayQueue::new(FEED_REPORTS),
            // Until the log has been looked into.
            behind: Arc::new(AtomicBool::new(true)),
            unreadable: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            courier_waits: AtomicBool::new(false),
            reader_waits: AtomicBool::new(false),
            to_courier: end(courier),
            to_owner: end(owner),
        }
    }

    /// An empty chunk.
    pub fn spare(&self) -> Chunk {
        self.spares.pop().unwrap_or_default()
    }

    /// True: there is room for a chunk. False: the reader is woken when there is.
    pub fn has_room(&self) -> bool {
        if !self.chunks.is_full() {
            return true;
        }
        self.reader_waits.store(true, SeqCst);
        !self.chunks.is_full()
    }

    /// Offers a chunk to the courier; there is room.
    pub fn offer(&self, chunk: Chunk) {
        self.chunks.push(chunk).expect("only the reader offers, and it has looked");
        self.wake_courier();
    }

    /// All that can be read has been offered.
    pub fn offered_all(&self) {
        if self.behind.swap(false, SeqCst) {
            self.wake_courier();
        }
    }

    fn wake_courier(&self) {
        if self.courier_waits.swap(false, SeqCst) {
            self.to_courier.ring();
        }
    }

    /// The next chunk.
    pub fn take(&self) -> Option<Chunk> {
        let chunk = self.chunks.pop();
        if chunk.is_some() && self.reader_waits.swap(false, SeqCst) {
            self.to_owner.ring();
        }
        chunk
    }

    /// Gives the memory of a chunk back.
    pub fn give_back(&self, mut chunk: Chunk) {
        chunk.clear();
        // Beyond the bound it is freed.
        drop(self.spares.push(chunk));
    }

    /// True: a chunk is there. False: the courier is woken when one is.
    pub fn has_chunk(&self) -> bool {
        self.courier_waits.store(true, SeqCst);
        !self.chunks.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Reports to the worker of the log. Returns the report when there is no room.
    pub fn report(&self, report: Report) -> Result<(), Report> {
        self.reports.push(report)?;
        self.to_owner.ring();
        Ok(())
    }

    /// Whether there is no room for a report. Only the courier's worker reports, so room stays.
    pub fn reports_are_full(&self) -> bool {
        self.reports.is_full()
    }

    /// The next report.
    pub fn next_report(&self) -> Option<Report> {
        self.reports.pop()
    }

    /// Makes the courier hurry.
    pub fn hurry(&self) {
        self.hurry.store(true, SeqCst);
        self.to_courier.ring();
    }
}

/// A record, and the numbers of its lines that a backend has refused.
pub type RefusedRecord = (Seq, Vec<u32>);

/// Wakes a worker whose queries wait until something is settled.
#[derive(Debug)]
struct SettledNews {
    wanted: AtomicBool,
    end: FeedEnd,
}

/// What the workers of one process share for delivery: the logs and where they live, the order of their records, and a
/// feed for each log and backend that live on different workers.
#[derive(Debug)]
pub struct Feeds {
    pub order: Arc<RecordOrder>,
    workers: usize,
    /// By log: N of its directory `worker-N`, ascending. The first ones have a worker that writes them.
    numbers: Vec<usize>,
    bells: Vec<Arc<Bell>>,
    /// By log, then by backend.
    feeds: Vec<Vec<Option<Arc<Feed>>>>,
    /// What backends have refused. By log, then by the backend whose courier has not looked yet.
    refused: Vec<Vec<ArrayQueue<RefusedRecord>>>,
    pub chunk_bytes: usize,
    /// By worker.
    settled_news: Vec<SettledNews>,
    /// The first worker has listed what is in the logs, and they may be opened.
    pub listed: AtomicBool,
    /// Some log has records for backends that are no longer configured.
    pub absent: AtomicBool,
    /// Such records have been routed again.
    pub rerouted: AtomicBool,
    /// Workers whose couriers run.
    pub couriers_running: AtomicUsize,
}

impl SettledNews {
    fn new(bell: Arc<Bell>) -> Self {
        Self { wanted: AtomicBool::new(false), end: FeedEnd { rung: AtomicBool::new(false), bell } }
    }
}

impl Feeds {
    /// `former`: numbers of logs without a worker, all at least the number of workers, ascending. `bells`: by worker.
    /// `wall`: the time since 1970.
    pub fn new(former: &[usize], backends: usize, bells: &[Arc<Bell>], wall: Duration) -> Self {
        let workers = bells.len();
        let numbers: Vec<usize> = (0..workers).chain(former.iter().copied()).collect();
        let owner = |log: usize| numbers[log] % workers;
        let feed = |log: usize, backend: usize| {
            let (owner, courier) = (owner(log), backend % workers);
            (owner != courier).then(|| Arc::new(Feed::new(bells[owner].clone(), bells[courier].clone())))
        };
        let feeds: Vec<Vec<_>> =
            (0..numbers.len()).map(|log| (0..backends).map(|backend| feed(log, backend)).collect()).collect();
        let count = feeds.iter().flatten().flatten().count();
        let chunk_bytes = FEED_POOL_BYTES / (count.max(1) * 2 * FEED_CHUNKS);
        Self {
            order: Arc::new(RecordOrder::new(numbers.len(), backends, wall)),
            workers,
            refused: numbers.iter().map(|_| (0..backends).map(|_| ArrayQueue::new(FEED_REFUSED)).collect()).collect(),
            numbers,
            bells: bells.to_vec(),
            feeds,
            chunk_bytes: chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
            settled_news: bells.iter().map(|bell| SettledNews::new(bell.clone())).collect(),
            listed: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            rerouted: AtomicBool::new(false),
            couriers_running: AtomicUsize::new(workers),
        }
    }

    /// Points of backends that are gone are being routed again.
    pub fn are_rerouting(&self) -> bool {
        self.absent.load(SeqCst) && !self.rerouted.load(SeqCst)
    }

    /// Number of logs.
    pub fn logs(&self) -> usize {
        self.numbers.len()
    }

    /// N of the directory `worker-N` of a log.
    pub fn number(&self, log: usize) -> usize {
        self.numbers[log]
    }

    /// Tells all couriers what a backend has refused of a log. Without room one is not told.
    pub fn tell_refused(&self, log: usize, record: Seq, lines: &[u32]) {
        for courier in self.refused[log].iter().filter(|courier| !courier.is_full()) {
            drop(courier.push((record, lines.to_vec())));
        }
    }

    /// What some backend has refused of a log, for the courier of this one.
    pub fn next_refused(&self, log: usize, backend: BackendId) -> Option<RefusedRecord> {
        self.refused[log][backend.index()].pop()
    }

    /// The worker is to be woken when something is settled. To be called before it looks what is.
    pub fn want_settled_news(&self, worker: usize) {
        self.settled_news[worker].wanted.store(true, SeqCst);
        fence(SeqCst);
    }

    /// Something has been settled.
    pub fn tell_settled(&self) {
        fence(SeqCst);
        for news in &self.settled_news {
            if news.wanted.load(Relaxed) && news.wanted.swap(false, SeqCst) {
                news.end.ring();
            }
        }
    }

    /// Whether something has been settled since that worker wanted to know and looked last.
    pub fn look_at_settled_news(&self, worker: usize) -> bool {
        self.settled_news[worker].end.look()
    }

    /// The worker that a log lives on.
    pub fn owner_of(&self, log: usize) -> usize {
        self.numbers[log] % self.workers
    }

    /// The worker that the courier of a backend lives on.
    pub fn courier_of(&self, backend: BackendId) -> usize {
        backend.index() % self.workers
    }

    /// A new feed between a log and a side courier of a backend, which live on different workers.
    pub fn side_feed(&self, log: usize, backend: BackendId) -> Arc<Feed> {
        let [owner, courier] = [self.owner_of(log), self.courier_of(backend)].map(|worker| self.bells[worker].clone());
        Arc::new(Feed::new(owner, courier))
    }

    /// The feed between a log and a backend; None: they live on the same worker.
    pub fn feed(&self, log: usize, backend: BackendId) -> Option<&Arc<Feed>> {
        self.feeds[log][backend.index()].as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record<'a>(seq: u64, bytes: &'a [u8]) -> RecordView<'a> {
        let precision = Precision::Second;
        RecordView { seq: Seq(seq), db: b"db", rp: b"week", precision, stamp: 7 * seq, lines: 1, bytes }
    }

    #[test]
    fn a_chunk_gives_back_what_was_put_in() {
        let mut chunk = Chunk::default();
        assert!(chunk.push(&record(5, b"m v=1 1\n"), 10), "the first one always fits");
        assert!(!chunk.push(&record(6, b"n v=2 2\n"), 20));
        assert!(chunk.push(&record(6, b"n v=2 2\n"), 40));
        let second = chunk.record(1).unwrap();
        assert_eq!((second.seq, second.stamp, second.db, second.rp), (Seq(6), 42, &b"db"[..], &b"week"[..]));
        assert_eq!((second.precision, second.lines, second.bytes), (Precision::Second, 1, &b"n v=2 2\n"[..]));
        assert_eq!(chunk.record(0).unwrap().bytes, b"m v=1 1\n");
        assert!(chunk.record(2).is_none());
        chunk.clear();
        assert!(chunk.is_empty() && chunk.record(0).is_none());
    }

    #[test]
    fn a_log_and_a_courier_of_one_worker_have_no_feed() {
        let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::new().unwrap())).collect();
        let feeds = Feeds::new(&[3, 6], 3, &bells, Duration::ZERO);
        assert_eq!((0..feeds.logs()).map(|log| feeds.number(log)).collect::<Vec<_>>(), [0, 1, 3, 6]);
        assert_eq!((0..feeds.logs()).map(|log| feeds.owner_of(log)).collect::<Vec<_>>(), [0, 1, 1, 0]);
        for log in 0..4 {
            for backend in (0..3).map(BackendId) {
                let same = feeds.owner_of(log) == feeds.courier_of(backend);
                assert_eq!(feeds.feed(log, backend).is_none(), same, "{log} {backend:?}");
            }
        }
    }

    #[test]
    fn a_feed_is_bounded_and_says_who_is_to_be_woken() {
        let bell = || Arc::new(Bell::new().unwrap());
        let feed = Feed::new(bell(), bell());
        assert!(!feed.has_chunk(), "the courier waits now");
        for _ in 0..FEED_CHUNKS {
            assert!(feed.has_room());
            feed.offer(Chunk::default());
        }
        assert!(feed.to_courier.look() && !feed.to_courier.look());
        assert!(!feed.has_room(), "the reader waits now");
        assert!(feed.take().is_some() && feed.to_owner.look());
        for _ in 0..FEED_REPORTS {
            feed.report(Report::Refused(Vec::new())).unwrap();
        }
        assert!(feed.report(Report::Refused(Vec::new())).is_err(), "the courier keeps it");
        assert!(feed.to_owner.look());
    }
}

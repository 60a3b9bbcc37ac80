//! One order of all records, over all logs of this process and of the ones before it.
//!
//! Each worker appends to its own log. A *stamp* gives every record its place among the records of all logs:
//! nanoseconds of one clock that never goes back, whatever the wall clock does, and that starts above every stamp in
//! the logs. Within a log stamps never fall. The order is (stamp, number of the log), and a courier sends the records
//! of all logs in this order.
//!
//! # When is the order known?
//!
//! A courier may send a record when no log can still show it one with a smaller stamp. Before a log takes a stamp it
//! *announces* a lower bound of it; when what it has stamped can be read, it withdraws the announcement. A courier
//! calls [`RecordOrder::complete_below`], which reads the clock and then all announcements, and looks into the logs
//! after that. Every record with a stamp below the result can be read then:
//!
//! - Let a record with stamp s be below the result, and not to be read yet. Its log announced a ≤ s, and has not
//!   withdrawn it. The announcement, a fence, and the reading of the clock (s) follow one another in that worker; the
//!   reading of the clock (t > s), a fence, and the reading of the announcement follow one another in the courier. If
//!   the worker's fence came first, the courier has read `a` and the result is at most a ≤ s. If the courier's fence
//!   came first, its clock was read before the worker's, and t ≤ s. Both contradict that s is below the result.
//! - What one log withdraws after its records can be read (release) is read (acquire) before the courier looks.
//!
//! So a write that was acknowledged before another one began comes first: the second one's stamp is taken later.
//!
//! # What has been delivered?
//!
//! Couriers serve one backend from several logs, which save their state at different moments. After a crash, what has
//! been delivered already must not be sent again from one log alone, or an old value would replace a newer one of
//! another log. So each courier publishes one stamp for its backend: everything below it is settled. Every log saves
//! these stamps *after* its cursors, so its cursor is never past the stamp. After a restart the largest saved stamp of
//! a backend counts for all logs, and whatever lies above it is sent again, from all logs, in order.
//!
//! Points that a backend does not take now are parked: they have a smaller stamp of their own, below which they are
//! settled. They are parked before the backend's stamp moves past them, and both are saved as of one moment: so no save
//! says of parked points that they are settled.
//!
//! What of it was refused is saved with the stamp, by every log, until the log that the points are from has saved it
//! itself ([`UnsavedRefusals`]): so a start after a crash counts all that it does not send again as what it was.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::io;
use crate::limits::{LOGGED_TEXT_CHARS_MAX, UNSAVED_REFUSALS_BYTES};
use crate::parked::{ParkedKey, ParkedPoints, ParkedWait};
use crate::topology::BackendId;
use crate::unsaved::{UnsavedRefusal, UnsavedRefusals};

/// Stamps below this are from a version that stored milliseconds since 1970. They are smaller than all others.
const NANOS_MIN: u64 = 1 << 52;

/// Nothing is announced.
const NOTHING: u64 = u64::MAX;

/// What had been settled for a backend, in all logs, when a state was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledBefore {
    pub backend: BackendId,
    /// Everything below this stamp, but for what is parked.
    pub below: u64,
    /// Parked points are settled only below this stamp.
    pub parked: Vec<(ParkedKey, u64)>,
    /// How often that has changed: of two states with one stamp the later one has more changes.
    pub changes: u64,
    /// What of it was refused, as far as its log may not have saved that.
    pub refusals: Vec<UnsavedRefusal>,
    /// See [`RecordOrder::dropped`].
    pub dropped: Vec<DroppedBefore>,
}

/// The stamp of a record that a log has dropped, of a key that was parked or of what was not (None).
pub type DroppedBefore = (Option<ParkedKey>, u64);

/// The order of all records of one process. Shared by all threads.
#[derive(Debug)]
pub struct RecordOrder {
    began: Instant,
    /// The stamp at `began`; 0 = not all logs are open.
    base: AtomicU64,
    /// A stamp above all that the logs had at the start.
    floor: AtomicU64,
    unopened: AtomicUsize,
    /// By log: a lower bound of the stamps that cannot be read yet.
    announced: Vec<AtomicU64>,
    /// By backend: everything below is settled, but for what is parked.
    settled: Vec<AtomicU64>,
    /// By backend: what is parked and refused. Locked while that is copied or changed, and, with parked keys, while
    /// `settled` changes: so both are saved as of one moment. Only the worker of the backend's courier changes either
    /// (but for refusals that are saved).
    parked: Vec<Mutex<NotTaken>>,
    has_parked: Vec<AtomicBool>,
}

/// What is parked for one backend, and what it has refused.
#[derive(Debug)]
struct NotTaken {
    /// How often points have been parked, or are not parked any more.
    changes: u64,
    keys: Vec<ParkedPoints>,
    refusals: UnsavedRefusals,
    /// At most one for each key, and one for what is not parked.
    dropped: Vec<DroppedBefore>,
}

impl NotTaken {
    /// `backends`: how many there are.
    fn new(backends: usize) -> Self {
        let refusals = UnsavedRefusals::new(UNSAVED_REFUSALS_BYTES / backends.max(1));
        Self { changes: 0, keys: Vec::new(), refusals, dropped: Vec::new() }
    }

    fn get(&mut self, key: &ParkedKey) -> Option<&mut ParkedPoints> {
        self.keys.iter_mut().find(|parked| parked.key == *key)
    }

    fn add_dropped(&mut self, key: Option<&ParkedKey>, stamp: u64) {
        match self.dropped.iter_mut().find(|(known, _)| known.as_ref() == key) {
            Some((_, known)) => *known = stamp.max(*known),
            None => self.dropped.push((key.cloned(), stamp)),
        }
    }
}

impl RecordOrder {
    /// For this many logs and backends. `wall`: the time since 1970.
    pub fn new(logs: usize, backends: usize, wall: Duration) -> Self {
        Self {
            began: io::now(),
            base: AtomicU64::new(0),
            floor: AtomicU64::new(u64::try_from(wall.as_nanos()).unwrap_or(0).max(NANOS_MIN)),
            unopened: AtomicUsize::new(logs),
            announced: (0..logs).map(|_| AtomicU64::new(NOTHING)).collect(),
            settled: (0..backends).map(|_| AtomicU64::new(0)).collect(),
            parked: (0..backends).map(|_| Mutex::new(NotTaken::new(backends))).collect(),
            has_parked: (0..backends).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Number of logs.
    pub fn logs(&self) -> usize {
        self.announced.len()
    }

    /// A log has been opened: all its stamps are at most `last`, and its saved state says what was settled. What the
    /// latest state says counts. To be called once for each log, before any stamp is taken.
    pub fn opened(&self, last: u64, settled: &[SettledBefore]) {
        self.floor.fetch_max(last.saturating_add(1), SeqCst);
        for SettledBefore { backend, below, parked, changes, refusals, dropped } in settled {
            // No new record may count as settled.
            self.floor.fetch_max(*below, SeqCst);
            let mut known = self.parked_of(*backend);
            let before = self.settled[backend.index()].fetch_max(*below, SeqCst);
            if (*below, *changes) > (before, known.changes) {
                let keys = parked.iter().map(|(key, stamp)| ParkedPoints::new(key.clone(), *stamp)).collect();
                (known.changes, known.keys) = (*changes, keys);
                known.refusals.clear();
                known.refusals.unite(refusals);
            } else if (*below, *changes) == (before, known.changes) {
                // Of one set of keys; or of a backend that comes back, of which each log knows something.
                for (key, stamp) in parked {
                    match known.get(key) {
                        Some(known) if known.below >= *stamp => {}
                        Some(known) => *known = ParkedPoints::new(key.clone(), *stamp),
                        None => known.keys.push(ParkedPoints::new(key.clone(), *stamp)),
                    }
                }
                known.refusals.unite(refusals);
            }
            // The largest counts, whatever state it is from: what is settled by now it does not concern.
            dropped.iter().for_each(|(key, stamp)| known.add_dropped(key.as_ref(), *stamp));
            self.has_parked[backend.index()].store(!known.keys.is_empty(), Release);
        }
        if self.unopened.fetch_sub(1, SeqCst) == 1 {
            self.base.store(self.floor.load(SeqCst), SeqCst);
        }
    }

    /// All logs have been opened, so that stamps may be taken and the settled stamps are known.
    pub fn is_ready(&self) -> bool {
        self.base.load(Acquire) != 0
    }

    /// Everything that former processes have written has a smaller stamp. 0 before [`RecordOrder::is_ready`].
    pub fn began(&self) -> u64 {
        self.base.load(Acquire)
    }

    /// The stamp of this moment. 0 before [`RecordOrder::is_ready`].
    pub fn now(&self) -> u64 {
        let base = self.base.load(Acquire);
        if base == 0 { 0 } else { base + io::elapsed(self.began).as_nanos() as u64 }
    }

    /// The log will take stamps from now on that cannot be read at once.
    pub fn announce(&self, log: usize) {
        self.announced[log].store(self.now(), SeqCst);
        fence(SeqCst);
    }

    /// Everything that the log stamped before `open` can be read; None: everything. A log that has failed, or that has
    /// no room for a frame, gives its frame up in the same way: nobody was told that it is safe.
    pub fn withdraw(&self, log: usize, open: Option<u64>) {
        self.announced[log].store(open.unwrap_or(NOTHING), Release);
    }

    /// Every record with a smaller stamp can be read from its log, or lies in a frame that a log has given up for now
    /// and will stamp again.
    pub fn complete_below(&self) -> u64 {
        let now = self.now();
        fence(SeqCst);
        self.announced.iter().map(|a| a.load(Acquire)).min().unwrap_or(NOTHING).min(now)
    }

    /// These points have been refused, each with the stamp of its last record. To be called before
    /// [`RecordOrder::settle`] or [`RecordOrder::park`] says, with the same stamp, that they are settled.
    pub fn refused(&self, backend: BackendId, refused: Vec<(u64, UnsavedRefusal)>, below: u64) {
        // What one log saves is of one moment.
        if !refused.is_empty() && self.logs() > 1 {
            self.parked_of(backend).refusals.add(refused, below);
        }
    }

    /// A log has saved what became of its points but for those to keep. `worker`: N of its directory `worker-N`.
    pub fn retain_refusals(&self, backend: BackendId, worker: usize, keep: impl Fn(&UnsavedRefusal) -> bool) {
        self.parked_of(backend).refusals.retain(worker, keep);
    }

    /// A log has dropped a record with that stamp which a courier had been given, so that the backend may have it
    /// already, or get it yet. After a restart older ones that other logs still have must not be sent on top of it:
    /// they are dropped, too. All of them had been given to the same courier.
    pub fn dropped(&self, backend: BackendId, db: &[u8], rp: &[u8], stamp: u64) {
        let mut all = self.parked_of(backend);
        let key = all.keys.iter().find(|parked| parked.key.has(db, rp)).map(|parked| parked.key.clone());
        all.add_dropped(key.as_ref(), stamp);
    }

    /// Everything below that stamp has been delivered to the backend, or is a dead letter on disk.
    pub fn settle(&self, backend: BackendId, below: u64) {
        let _parked = self.has_parked[backend.index()].load(Relaxed).then(|| self.parked_of(backend));
        self.settled[backend.index()].fetch_max(below, Release);
    }

    /// Everything below this stamp is settled, but for what is parked.
    pub fn settled(&self, backend: BackendId) -> u64 {
        self.settled[backend.index()].load(Acquire)
    }

    /// From now on points of this key are settled only below that stamp, whatever [`RecordOrder::settle`] says.
    pub fn park(&self, backend: BackendId, key: &ParkedKey, below: u64) {
        let mut all = self.parked_of(backend);
        match all.get(key) {
            Some(parked) => parked.below = below.max(parked.below),
            None => {
                // What was dropped of all may have been of this key.
                if let Some(&(_, stamp)) = all.dropped.iter().find(|(of, _)| of.is_none()) {
                    all.add_dropped(Some(key), stamp);
                }
                all.keys.push(ParkedPoints::new(key.clone(), below));
                all.changes += 1;
                self.has_parked[backend.index()].store(true, Release);
            }
        }
    }

    /// Parked points of this key are settled below that stamp. Returns the stamp before; None: they are not parked (any
    /// more): only [`RecordOrder::park`] parks them.
    pub fn settle_parked(&self, backend: BackendId, key: &ParkedKey, below: u64) -> Option<u64> {
        let mut all = self.parked_of(backend);
        let parked = all.get(key)?;
        let later = below.max(parked.below);
        Some(std::mem::replace(&mut parked.below, later))
    }

    /// Points of this key are not parked any more: they are settled as far as all others.
    pub fn unpark(&self, backend: BackendId, key: &ParkedKey) {
        let mut all = self.parked_of(backend);
        all.keys.retain(|parked| parked.key != *key);
        all.dropped.retain(|(of, _)| of.as_ref() != Some(key));
        all.changes += 1;
        self.has_parked[backend.index()].store(!all.keys.is_empty(), Release);
    }

    /// What is settled, as of one moment.
    pub fn settled_state(&self, backend: BackendId) -> SettledBefore {
        let parked = self.parked_of(backend);
        let NotTaken { changes, keys, refusals, dropped } = &*parked;
        let (below, refusals) = (self.settled(backend), refusals.list().to_vec());
        let settled = |key: &Option<ParkedKey>| match key {
            None => Some(below),
            Some(key) => keys.iter().find(|parked| parked.key == *key).map(|parked| parked.below),
        };
        let concerns_some = |(key, stamp): &&DroppedBefore| settled(key).is_some_and(|below| below < *stamp);
        let dropped = dropped.iter().filter(concerns_some).cloned().collect();
        let parked = keys.iter().map(|parked| (parked.key.clone(), parked.below)).collect();
        SettledBefore { backend, below, parked, changes: *changes, refusals, dropped }
    }

    /// What is parked for a backend, for people.
    pub fn parked(&self, backend: BackendId) -> Vec<ParkedPoints> {
        if self.has_parked(backend) { self.parked_of(backend).keys.clone() } else { Vec::new() }
    }

    /// The stamp of the oldest point of this key that waits; `u64::MAX` = none.
    pub fn parked_hold(&self, backend: BackendId, key: &ParkedKey, oldest: u64) {
        if let Some(parked) = self.parked_of(backend).get(key) {
            parked.oldest = oldest;
        }
    }

    /// What the backend said to a request with points of this key; empty = it took them.
    pub fn parked_answered(&self, backend: BackendId, key: &ParkedKey, text: &str) {
        if let Some(parked) = self.parked_of(backend).get(key) {
            parked.why.clear();
            parked.why.extend(text.chars().take(LOGGED_TEXT_CHARS_MAX));
        }
    }

    /// What waits of the parked points of the databases that `concerns` names. None: nothing of them is parked.
    pub fn parked_wait(&self, backend: BackendId, concerns: impl Fn(&[u8]) -> bool) -> Option<ParkedWait> {
        if !self.has_parked(backend) {
            return None;
        }
        let all = self.parked_of(backend);
        let waits = all.keys.iter().filter(|parked| concerns(&parked.key.db));
        let wait = |parked: &ParkedPoints| ParkedWait { oldest: parked.oldest, is_refused: !parked.why.is_empty() };
        waits.map(wait).reduce(|one, other| ParkedWait {
            oldest: one.oldest.min(other.oldest),
            is_refused: one.is_refused | other.is_refused,
        })
    }

    /// Whether all records of `db` (None: of all databases) below that stamp are settled.
    pub fn is_settled(&self, backend: BackendId, db: Option<&[u8]>, stamp: u64) -> bool {
        self.settled(backend) >= stamp && self.parked_reach(backend, db, stamp)
    }

    /// Whether all parked records of `db` (None: of all databases) below that stamp are settled.
    pub fn parked_reach(&self, backend: BackendId, db: Option<&[u8]>, stamp: u64) -> bool {
        if !self.has_parked(backend) {
            return true;
        }
        let concerned = |parked: &&ParkedPoints| db.is_none_or(|db| *parked.key.db == *db);
        self.parked_of(backend).keys.iter().filter(concerned).all(|parked| parked.below >= stamp)
    }

    fn has_parked(&self, backend: BackendId) -> bool {
        self.has_parked[backend.index()].load(Acquire)
    }

    fn parked_of(&self, backend: BackendId) -> MutexGuard<'_, NotTaken> {
        self.parked[backend.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of a stamp in milliseconds since 1970, as far as the wall clock was right at the start.
    pub fn unix_ms(stamp: u64) -> u64 {
        if stamp < NANOS_MIN { stamp } else { stamp / 1_000_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: BackendId = BackendId(0);

    fn key(db: &str) -> ParkedKey {
        ParkedKey { db: db.as_bytes().into(), rps: None }
    }

    fn before(below: u64, parked: &[(&str, u64)]) -> SettledBefore {
        let parked = parked.iter().map(|(db, stamp)| (key(db), *stamp)).collect();
        SettledBefore { backend: B, below, parked, changes: 0, refusals: Vec::new(), dropped: Vec::new() }
    }

    #[test]
    fn stamps_start_above_all_that_the_logs_have_whatever_the_wall_clock_says() {
        let wall = Duration::from_secs(1_700_000_000);
        let order = RecordOrder::new(2, 1, wall);
        order.opened(5, &[before(3, &[])]);
        assert!(!order.is_ready());
        assert_eq!(order.now(), 0, "another log may have larger stamps");
        let ahead = wall.as_nanos() as u64 + 1_000_000_000_000;
        order.opened(ahead, &[before(7, &[])]);
        assert!(order.is_ready());
        let first = order.now();
        assert!(first > ahead);
        assert!(order.now() >= first);
        assert_eq!(order.settled(B), 7, "the largest saved stamp counts");
        order.settle(B, 6);
        assert_eq!(order.settled(B), 7, "it never goes back");
        let order = RecordOrder::new(1, 1, wall);
        order.opened(0, &[before(ahead, &[])]);
        assert!(order.now() >= ahead, "a new record is not settled");
    }

    #[test]
    fn what_was_dropped_concerns_what_is_not_settled_yet() {
        let order = RecordOrder::new(1, 1, Duration::ZERO);
        let a = key("a");
        let of_state = |stamps: &[(Option<&str>, u64)]| SettledBefore {
            dropped: stamps.iter().map(|(db, stamp)| (db.map(key), *stamp)).collect(),
            ..before(5, &[("a", 3)])
        };
        order.opened(0, &[of_state(&[(None, 8), (Some("a"), 4), (Some("gone"), 9)]), of_state(&[(None, 7)])]);
        let dropped = || order.settled_state(B).dropped;
        assert_eq!(dropped(), [(None, 8), (Some(a.clone()), 4)]);
        order.settle_parked(B, &a, 4);
        assert_eq!(dropped(), [(None, 8)]);
        order.dropped(B, b"a", b"", 12);
        order.dropped(B, b"other", b"", 7);
        // Points of it may be among those that were dropped before.
        order.park(B, &key("b"), 6);
        assert_eq!(dropped(), [(None, 8), (Some(a.clone()), 12), (Some(key("b")), 8)]);
        order.settle(B, 8);
        order.unpark(B, &a);
        assert_eq!(dropped(), [(Some(key("b")), 8)]);
        order.park(B, &a, 9);
        assert_eq!(dropped(), [(Some(key("b")), 8)], "that is settled");
    }

    #[test]
    fn the_latest_state_says_what_is_parked() {
        for (states, want) in [
            (&[(5, 1, &[("a", 3)][..]), (7, 2, &[])][..], (7, 2, &[][..])),
            (&[(5, 0, &[]), (7, 2, &[("a", 5), ("b", 6)])], (7, 2, &[("a", 5), ("b", 6)])),
            // Not parked yet, or not any more.
            (&[(7, 0, &[]), (7, 1, &[("a", 9)])], (7, 1, &[("a", 9)])),
            (&[(7, 1, &[("a", 9)]), (7, 2, &[])], (7, 2, &[])),
            // Delivered further.
            (&[(7, 2, &[("a", 5), ("b", 6)]), (7, 2, &[("a", 6), ("b", 6)])], (7, 2, &[("a", 6), ("b", 6)])),
            // A backend that had left.
            (&[(0, 0, &[("a", 0)]), (0, 0, &[("a", 0), ("b", 0)])], (0, 0, &[("a", 0), ("b", 0)])),
        ] {
            let state = |(below, changes, parked): (u64, u64, &[(&str, u64)])| SettledBefore {
                changes,
                ..before(below, parked)
            };
            for states in [states.to_vec(), states.iter().rev().copied().collect()] {
                let order = RecordOrder::new(states.len(), 1, Duration::ZERO);
                states.iter().for_each(|of_log| order.opened(0, &[state(*of_log)]));
                let mut got = order.settled_state(B);
                got.parked.sort_by(|one, other| one.0.db.cmp(&other.0.db));
                assert_eq!(got, state(want), "{states:?}");
            }
        }
    }

    #[test]
    fn what_is_parked_is_settled_below_a_stamp_of_its_own() {
        let order = RecordOrder::new(1, 1, Duration::ZERO);
        order.park(B, &key("a"), 10);
        order.settle(B, 50);
        let settled = |db: Option<&str>, stamp| order.is_settled(B, db.map(str::as_bytes), stamp);
        assert!(settled(Some("b"), 50) && !settled(Some("b"), 51));
        assert!(settled(Some("a"), 10) && !settled(Some("a"), 11) && !settled(None, 11));
        assert_eq!(order.settle_parked(B, &key("a"), 40), Some(10));
        assert_eq!(order.settle_parked(B, &key("a"), 30), Some(40));
        assert!(settled(Some("a"), 40) && !settled(Some("a"), 41), "it never goes back");
        order.park(B, &key("b"), 45);
        let wait = |dbs: &[&str]| {
            let wait = order.parked_wait(B, |db| dbs.iter().any(|own| *own.as_bytes() == *db));
            wait.map(|wait| (wait.oldest, wait.is_refused))
        };
        order.parked_answered(B, &key("a"), &"x".repeat(1000));
        assert_eq!([wait(&["a"]), wait(&["b"]), wait(&[])], [Some((10, true)), Some((45, false)), None]);
        assert_eq!(wait(&["a", "b"]), Some((10, true)));
        assert_eq!(order.parked(B)[0].why.len(), LOGGED_TEXT_CHARS_MAX);
        order.parked_hold(B, &key("a"), u64::MAX);
        order.parked_answered(B, &key("a"), "");
        assert_eq!(wait(&["a", "b"]), Some((45, false)));
        ["a", "b"].iter().for_each(|db| order.unpark(B, &key(db)));
        assert_eq!(order.settle_parked(B, &key("a"), 60), None, "its side courier has ended");
        assert!(settled(None, 50) && order.parked(B).is_empty());
    }

    #[test]
    fn what_is_announced_bounds_what_is_complete() {
        let order = RecordOrder::new(2, 1, Duration::ZERO);
        order.opened(0, &[]);
        order.opened(0, &[]);
        order.announce(1);
        let stamp = order.now();
        assert!(order.complete_below() <= stamp);
        order.withdraw(1, Some(stamp + 10));
        assert!(order.complete_below() <= stamp + 10);
        order.withdraw(1, None);
        assert!(order.complete_below() >= stamp);
    }

    #[test]
    fn milliseconds_of_older_versions_are_smaller_than_all_stamps() {
        let order = RecordOrder::new(1, 1, Duration::ZERO);
        order.opened(0, &[]);
        let old = 4_000_000_000_000;
        assert!(order.now() > old);
        assert_eq!(RecordOrder::unix_ms(old), old);
        assert_eq!(RecordOrder::unix_ms(1_700_000_000_123_456_789), 1_700_000_000_123);
    }

    /// Threads stamp and publish, one reads: below what is complete nothing is missing.
    #[test]
    fn below_what_is_complete_every_record_can_be_read() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

        const LOGS: usize = 3;
        let order = Arc::new(RecordOrder::new(LOGS, 1, Duration::ZERO));
        (0..LOGS).for_each(|_| order.opened(0, &[]));
        let written: Arc<Vec<_>> = Arc::new((0..LOGS).map(|_| crossbeam::queue::SegQueue::new()).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..LOGS)
            .map(|log| {
                let (order, written, stop) = (order.clone(), written.clone(), stop.clone());
                std::thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        order.announce(log);
                        let stamp = order.now();
                        std::hint::spin_loop();
                        written[log].push(stamp);
                        order.withdraw(log, None);
                    }
                })
            })
            .collect();
        let mut complete = 0;
        for _ in 0..20_000 {
            let below = order.complete_below();
            for log in written.iter() {
                while let Some(stamp) = log.pop() {
                    assert!(stamp >= complete, "{stamp} came after everything below {complete} was said to be there");
                }
            }
            complete = complete.max(below);
        }
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|t| t.join().unwrap());
    }
}

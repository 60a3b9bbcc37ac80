//! A worker's log: append-only segments, shared by all couriers of the worker.
//!
//!   append → hot tail (`tail`) → group commit (`commit`) → segment on disk → courier (`reader`) → cursor (`state`)
//!
//! Layers; each uses only those before it: `record` and `frame` are bytes, `segment` is one file, `scan` finds frames
//! in it, `store` alone touches files, `recovery` reads the directory at open, `compact` rewrites segments that only a
//! lagging backend needs, `inspect` and `pending` read directories for people and for re-routing.
//!
//! Promises: a record stays as durable as [`Log::committed`] has said. Records are read in the order of their appends.
//! Damage is reported exactly, and everything else is still read. A failed write or sync poisons the log until the
//! restart. A full disk is back-pressure ([`Error::Full`]); no appended record is dropped for it.
//!
//! Not here: what a backend answers, what a point is, the contents of the ledger (opaque bytes to this module).

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::io::{Event, now, spawn};
use crate::limits::{FRAME_BYTES_MAX, LOG_SPARES_MAX, SEGMENT_BYTES_MAX};
use crate::order::{RecordOrder, SettledBefore};
use crate::precision::Precision;
use crate::settings::{BacklogFull, Durability};
use crate::topology::{BackendId, Topology};

pub use crate::limits::RECORD_BYTES_MAX;
pub use commit::Durable;
pub use error::{Damage, DamageKind, Error, Loss, Torn};
pub use pending::{Pending, PendingRecord, pending};
pub use reader::{Fetched, LogReader};
pub use refused::RefusedLines;

mod commit;
mod compact;
#[cfg(test)]
mod disk_test;
#[cfg(test)]
mod drop_test;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod gather;
pub mod inspect;
#[cfg(test)]
mod last_frame_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod next_file_test;
mod parked;
#[cfg(test)]
mod parked_test;
mod pending;
mod reader;
mod record;
mod recovery;
mod refused;
#[cfg(test)]
mod rerouting_test;
mod scan;
mod segment;
mod shared;
#[cfg(test)]
mod sim;
mod state;
mod state_files;
mod store;
mod tail;

use parked::Parked;
use segment::{Mark, Segment};
use shared::{Inner, SharedLog};
use state_files::StateFiles;
use store::Store;
use tail::Tail;

/// Number of a record in its worker's log. Starts at 1 and never repeats, also across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// A record, borrowed from the hot tail or from a frame read from disk.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub seq: Seq,
    pub db: &'a [u8],
    /// Empty = the database's default policy.
    pub rp: &'a [u8],
    pub precision: Precision,
    /// Its place among the records of all logs ([`RecordOrder`](crate::order)).
    pub stamp: u64,
    /// Number of lines in `bytes`.
    pub lines: u32,
    /// Whole lines, each ended by LF.
    pub bytes: &'a [u8],
}

/// What the lines of one record have in common.
#[derive(Clone, Copy, Debug)]
pub struct RecordKey<'a> {
    /// At most `limits::NAME_BYTES_MAX` bytes. The same holds for `rp`.
    pub db: &'a [u8],
    /// Empty = the database's default policy.
    pub rp: &'a [u8],
    pub precision: Precision,
    /// One entry per circle, None = this circle does not want the lines. Then further backends of these circles; at
    /// most `limits::ROUTE_BACKENDS_MAX` entries in total. Each backend at most once.
    pub route: &'a [Option<BackendId>],
}

pub struct LogSettings {
    /// The log's directory, `<data_dir>/worker-N`. Created if missing.
    pub dir: PathBuf,
    /// N.
    pub worker: usize,
    /// The number of this log in `order`.
    pub number: usize,
    /// False: the worker is no more. The log is only read; appends fail with [`Error::Closed`].
    pub written: bool,
    pub order: Arc<RecordOrder>,
    pub workers: usize,
    pub topology: Arc<Topology>,
    /// Durability of every frame; a single ack may ask for more.
    pub durability: Durability,
    /// Wait after the first line of an idle log before its frame is written.
    pub linger: Duration,
    pub hot_tail_bytes: usize,
    /// This worker's share of the backlog on disk.
    pub max_bytes: u64,
    pub backlog_full: BacklogFull,
}

/// Lines in the log: database, backends of this topology, number.
pub type Appended = (Vec<u8>, Vec<BackendId>, u64);

/// What was found when the log was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// The last ledger given to [`Log::save_state`]; empty if there was none.
    pub ledger: Vec<u8>,
    /// All stamps in the log are at most this; 0 = there are none.
    pub last_stamp: u64,
    /// What had been settled, in all logs, when the state was saved.
    pub settled: Vec<SettledBefore>,
    /// See [`Log::refused`].
    pub refused: Vec<(Seq, Vec<u32>)>,
    /// Lines appended after the state was saved. One entry per database and backends.
    pub uncounted: Vec<Appended>,
    pub damage: Vec<Damage>,
    pub torn: Option<Torn>,
    /// Names of backends that are not in the configuration any more and still have records here. The records are kept
    /// until [`Log::settle_absent`]. [`pending`], called before the log is opened, returns them.
    pub absent: Vec<String>,
    /// See [`Log::begin_rerouting`]: a process ended before it had saved what it appended; that is not there any more.
    pub rerouting: bool,
    /// See [`Log::note_rerouted`].
    pub rerouted: Vec<(String, u64)>,
}

/// Points deleted to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub db: Vec<u8>,
    pub backend: BackendId,
    pub lines: u64,
}

/// The limits of a log; tests use smaller ones.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    segment_bytes: u64,
    frame_bytes_max: usize,
    record_bytes_max: usize,
    ring_bytes: usize,
    /// Files kept for later segments.
    spares_max: usize,
}

impl Sizes {
    /// Bytes of the file in which a log begins on a full disk: room for one frame.
    fn reserve_bytes(&self) -> u64 {
        (segment::FRAMES_AT + self.frame_bytes_max) as u64
    }
}

/// A worker's log. Dropping it without [`Log::close`] leaves the files as a crash does.
pub struct Log {
    shared: Rc<SharedLog>,
    /// None in tests whose disks need no lock.
    _lock: Option<store::DirLock>,
}

impl Log {
    /// Opens the log of a worker, recovers what the last process left, and starts its commit task on this executor.
    /// Makes blocking calls while it reads: call it before the worker accepts.
    pub async fn open(settings: LogSettings) -> Result<(Rc<Self>, Opened), Error> {
        let (disk, lock) = store::Disk::open(&settings.dir).map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked { dir: settings.dir.clone() },
            _ => Error::io("open", &settings.dir, source),
        })?;
        let total = disk.fs_bytes().map_err(|e| Error::io("statvfs", &settings.dir, e))?;
        // A small backlog needs small segments, or the first segment would fill it.
        let share = (total / 256 / settings.workers.max(1) as u64).min(settings.max_bytes / 8);
        let (segment_bytes_min, ring_bytes_min) = disk.smallest();
        let segment_bytes = share.clamp(segment_bytes_min, SEGMENT_BYTES_MAX) & !(frame::BLOCK_BYTES as u64 - 1);
        let sizes = Sizes {
            segment_bytes,
            // When a frame does not fit, the rest of a segment is wasted: at most a quarter of it.
            frame_bytes_max: ((segment_bytes / 4) as usize).min(FRAME_BYTES_MAX),
            record_bytes_max: RECORD_BYTES_MAX,
            ring_bytes: settings.hot_tail_bytes.max(ring_bytes_min),
            spares_max: if settings.written { LOG_SPARES_MAX } else { 0 },
        };
        Self::open_on(Rc::new(disk), Some(lock), settings, sizes).await
    }

    async fn open_on(
        store: Rc<dyn Store>,
        lock: Option<store::DirLock>,
        settings: LogSettings,
        sizes: Sizes,
    ) -> Result<(Rc<Self>, Opened), Error> {
        let LogSettings { dir, worker, number, written, order, topology, .. } = settings;
        let header = segment::Header::of(&topology, worker);
        if !header.fits() {
            return Err(Error::TooManyNames);
        }
        let mut found = recovery::recover(&*store, &dir, &topology)?;
        recovery::tidy(&*store, &dir, &mut found, &sizes).await?;
        let states = StateFiles::new(found.state_copy);
        let files = store.list().map_err(|e| Error::io("list", &dir, e))?;
        // Without space for them now, the first save tries again.
        if let Err(error) = states.open(&*store, &files).await
            && !store::is_full(&error)
        {
            return Err(Error::io("open", &dir.join(state::FILES[0]), error));
        }
        let kept: Vec<_> = found.state.iter().flat_map(|state| state.refused.clone()).collect();
        let mut refused = RefusedLines::default();
        kept.iter().for_each(|(record, lines)| refused.add(*record, lines));
        let opened = Opened {
            ledger: found.state.as_ref().map(|s| s.ledger.clone()).unwrap_or_default(),
            last_stamp: found.last_stamp,
            settled: found.settled(&topology),
            refused: kept,
            uncounted: found.uncounted,
            damage: found.damage,
            torn: found.torn,
            absent: found.absent.iter().map(|(name, _)| name.clone()).collect(),
            rerouting: found.state.as_ref().is_some_and(|state| state.rerouting),
            rerouted: found.state.iter().flat_map(|state| state.rerouted.clone()).collect(),
        };
        let backends = topology.backends.len();
        let start = Mark { seq: found.next, offset: 0, lines: found.lines };
        let dsync = settings.durability == Durability::Disk;
        let spares_made = found.spares_made;
        let (name, spares) = match found.spares.split_last() {
            Some((last, rest)) => (last.clone(), rest.to_vec()),
            None => (spare_name(spares_made), Vec::new()),
        };
        // What is only read needs one segment more, which stays empty.
        let (mut name, mut bytes) = (name, if written { sizes.segment_bytes } else { sizes.reserve_bytes() });
        let mut file = store.create(&name, bytes, dsync).await;
        if file.as_ref().is_err_and(store::is_full) {
            // The backlog must be delivered even when the disk is full: with room for one frame the log opens as full,
            // until couriers have freed space. First the space reserved for the large file is released.
            let _ = store.remove(&name).await;
            bytes = sizes.reserve_bytes();
            if std::mem::take(&mut found.reserve) {
                RESERVE.clone_into(&mut name);
            }
            file = store.create(&name, bytes, dsync).await;
        }
        let file =
            file.map_err(|e| if store::is_full(&e) { Error::Full } else { Error::io("create", &dir.join(&name), e) })?;
        let previous = found.segments.back().map_or(Seq(0), Segment::first);
        let first = commit::start_segment(&*store, &dir, &name, &*file, header, start, previous, dsync).await?;
        let mut segments = found.segments;
        segments.push_back(Segment::new(first, &topology, bytes));
        segments.back_mut().expect("just pushed").bytes_by_backend = Some(vec![0; backends]);
        let shared = Rc::new(SharedLog {
            store,
            states,
            book: RefCell::default(),
            drop_listener: RefCell::default(),
            dir,
            worker,
            number,
            order,
            refused: RefCell::new(refused),
            written,
            sizes,
            durability: settings.durability,
            linger: settings.linger,
            max_bytes: settings.max_bytes,
            backlog_full: settings.backlog_full,
            inner: RefCell::new(Inner {
                tail: Tail::new(sizes.ring_bytes, sizes.frame_bytes_max, start.seq, start.lines),
                segments,
                file,
                next: None,
                spares,
                spares_made: spares_made + 1,
                has_reserve: found.reserve,
                given: found.cursors.clone(),
                confirmed: found.cursors.clone(),
                cursors: found.cursors,
                parked: found
                    .parked
                    .into_iter()
                    .map(|parked| parked.into_iter().map(|(key, from)| Parked::new(key, from)).collect())
                    .collect(),
                held: vec![Seq(0); backends],
                resting: vec![None; backends],
                behind: vec![None; backends],
                absent: found.absent,
                rerouted: Vec::new(),
                written: start.seq,
                synced: start.seq,
                sealed_stamp: 0,
                acked_stamp: 0,
                sync_wanted: false,
                open_appends: 0,
                sealed_appends: 0,
                gather_target: 0,
                frames_sealed: 0,
                open_bytes: vec![0; backends],
                sealed_bytes: vec![0; backends],
                poison: None,
                closing: !written,
                full: false,
                obstacle: None,
                stuck: false,
                retry_after: now(),
                saving: false,
                saved: found.state,
                snapshots: 0,
                saved_number: 0,
                dropping: None,
                dropped: HashMap::new(),
                damage: VecDeque::new(),
                damage_known: HashSet::new(),
            }),
            work: Event::default(),
            room: Event::default(),
            acks: Default::default(),
            synced: Event::default(),
            arrived: (0..backends).map(|_| Event::default()).collect(),
            confirmed: Event::default(),
            compact: Event::default(),
            compacted: Event::default(),
            saved: Event::default(),
            reading: Cell::new(0),
            read: Event::default(),
            topology,
        });
        shared.keep_reserve().await;
        spawn(commit::run(Rc::clone(&shared)));
        spawn(compact::run(Rc::clone(&shared)));
        Ok((Rc::new(Self { shared, _lock: lock }), opened))
    }

    /// Reserves `len` bytes in the open frame and lets `fill` write `lines` whole lines there, at least one. Waits only
    /// for room. Adjacent lines with the same key share a record, so two appends may return the same sequence; with
    /// `alone` these lines have a record of their own.
    ///
    /// `fill` must not call the log. [`Error::Full`], [`Error::NoNextFile`]: no disk space can be reserved;
    /// nothing was appended.
    /// [`Error::TooLong`]: `len` is above [`RECORD_BYTES_MAX`]; a bug of the caller.
    pub async fn append(
        &self,
        key: &RecordKey<'_>,
        lines: u32,
        len: usize,
        alone: bool,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Seq, Error> {
        let shared = &*self.shared;
        if len > shared.sizes.record_bytes_max {
            return Err(Error::TooLong { bytes: len });
        }
        assert!(lines > 0 && len > 0, "a record has lines");
        let mut fill = fill;
        loop {
            let room = shared.room.wait();
            {
                let mut inner = shared.inner.borrow_mut();
                inner.check()?;
                let was_empty = inner.tail.open_len() == 0;
                // Space is reserved for the frame being written, the open one, and one more.
                if inner.next.is_some() || inner.left_in_segment() >= 3 * shared.sizes.frame_bytes_max as u64 {
                    let stamp = shared.stamp(&inner);
                    if alone {
                        inner.tail.end_record();
                    }
                    match inner.tail.put(key, stamp, lines, len, shared.sizes.record_bytes_max, fill) {
                        Ok(seq) => {
                            if alone || shared.acks_from_memory() {
                                inner.tail.end_record();
                            }
                            for backend in key.route.iter().flatten() {
                                inner.open_bytes[backend.index()] += len as u64;
                            }
                            inner.open_appends += 1;
                            inner.acked_stamp = inner.acked_stamp.max(stamp);
                            let gathered = inner.open_appends == inner.gather_target;
                            drop(inner);
                            if was_empty || gathered {
                                shared.work.notify();
                            }
                            return Ok(seq);
                        }
                        Err((tail::NoRoom, back)) => fill = back,
                    }
                } else if inner.full {
                    shared.look_for_space(&mut inner);
                    return Err(inner.no_room());
                }
            }
            shared.work.notify();
            room.await;
        }
    }

    /// Whether an append now would succeed. Called before a body is read.
    pub fn check_append(&self) -> Result<(), Error> {
        let mut inner = self.shared.inner.borrow_mut();
        inner.check()?;
        if inner.full {
            self.shared.look_for_space(&mut inner);
            let left = inner.left_in_segment();
            if inner.next.is_none() && left < 3 * self.shared.sizes.frame_bytes_max as u64 {
                return Err(inner.no_room());
            }
        }
        Ok(())
    }

    /// Waits until everything up to and including `seq` has reached `level`.
    pub async fn committed(&self, seq: Seq, level: Durability) -> Result<Durable, Error> {
        let durable = commit::committed(&self.shared, seq, level).await?;
        // What reached the disk is not there any more.
        self.shared.inner.borrow().check_gone()?;
        Ok(durable)
    }

    /// A reader for one backend, starting at its cursor. One per backend at a time. It also gives records that are
    /// parked: whoever reads leaves them out.
    pub fn reader(self: &Rc<Self>, backend: BackendId) -> LogReader {
        LogReader::new(Rc::clone(self), backend, None)
    }

    /// `flag` is set whenever a frame that may hold records for `backend` can be read.
    pub fn tell_written(&self, backend: BackendId, flag: Arc<AtomicBool>) {
        self.shared.inner.borrow_mut().behind[backend.index()] = Some(flag);
    }

    /// `backend` needs no record before `next` any more. Never moves a cursor back.
    pub fn confirm(&self, backend: BackendId, next: Seq) {
        let mut inner = self.shared.inner.borrow_mut();
        assert!(next <= inner.written, "only what was read can be confirmed");
        let confirmed = &mut inner.confirmed[backend.index()];
        *confirmed = next.max(*confirmed);
        // A reader that waits has skipped what lies behind the last record it gave.
        let skipped = inner.resting[backend.index()].filter(|_| inner.given[backend.index()] <= next);
        let next = skipped.map_or(next, |to| to.max(next));
        let cursor = &mut inner.cursors[backend.index()];
        if next > *cursor {
            *cursor = next;
            drop(inner);
            self.shared.confirmed.notify();
        }
    }

    /// Wakes those who wait for [`Log::confirmed`], so that they look again.
    pub fn wake_waiting(&self) {
        self.shared.confirmed.notify();
    }

    /// Resolves when the cursor of any backend has moved after this call, or [`Log::wake_waiting`] was called.
    pub fn confirmed(&self) -> impl Future<Output = ()> + '_ {
        self.shared.confirmed.wait()
    }

    /// No record that has been committed since the start has a larger stamp.
    pub fn committed_stamp(&self) -> u64 {
        self.shared.inner.borrow().acked_stamp
    }

    /// All records before this sequence have been confirmed.
    pub fn cursor(&self, backend: BackendId) -> Seq {
        self.shared.inner.borrow().cursors[backend.index()]
    }

    /// Whether `backend` has confirmed all records before `end` that were not dropped, but for what is parked. While
    /// records from `first` on are being dropped that is not known: no.
    pub fn has_confirmed(&self, backend: BackendId, first: Seq, end: Seq) -> bool {
        let inner = self.shared.inner.borrow();
        let is_known = inner.dropping.is_none_or(|dropping| dropping <= first);
        inner.cursors[backend.index()] >= end && is_known && !inner.has_only_given(backend, end)
    }

    /// Whether `backend` needs nothing that is in the log, and no record that its reader was given is unconfirmed.
    pub fn is_served(&self, backend: BackendId) -> bool {
        let inner = self.shared.inner.borrow();
        let b = backend.index();
        // A segment that is being dropped may be counted only in part.
        let counted = !inner.segments.front().is_some_and(|segment| segment.busy);
        let end = inner.tail.end();
        let parked = inner.parked[b].iter().all(|parked| parked.cursor == end && parked.given <= parked.confirmed);
        counted && parked && inner.cursors[b] == end && inner.given[b] <= inner.confirmed[b]
    }

    /// The sequence after the last record appended.
    pub fn end(&self) -> Seq {
        self.shared.inner.borrow().tail.end()
    }

    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Bytes of all files that count towards `max_bytes`.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.disk_bytes(&self.shared.inner.borrow())
    }

    /// Why the log is poisoned, if it is.
    pub fn poison(&self) -> Option<String> {
        match self.shared.inner.borrow().check_poison() {
            Ok(()) => None,
            Err(Error::Poisoned { reason }) => Some(reason),
            Err(other) => Some(other.to_string()),
        }
    }

    /// Looks whether the directory is still where it was opened, with the files that are being written. Otherwise
    /// nothing new would be there after a restart: the log takes nothing more. What can still be read is delivered.
    ///
    /// # Errors
    /// [`Error::Gone`], once.
    pub async fn look_at_dir(&self) -> Result<(), Error> {
        let shared = &*self.shared;
        let current = {
            let inner = shared.inner.borrow();
            if inner.poison.is_some() {
                return Ok(());
            }
            inner.current().first()
        };
        let names = std::iter::once(segment::file_name(current)).chain(shared.states.names()).collect();
        // A failure of the look says nothing of the log.
        if shared.store.is_in_place(names).await.unwrap_or(true) {
            return Ok(());
        }
        {
            let inner = shared.inner.borrow();
            // The log may have moved on meanwhile, and freed the file itself.
            if inner.poison.is_some() || inner.current().first() != current {
                return Ok(());
            }
        }
        shared.poison(&Error::Gone { dir: shared.dir.clone() });
        shared.inner.borrow().check_poison()
    }

    /// Points dropped since the last call, by database and backend.
    pub fn take_dropped(&self) -> Vec<Dropped> {
        let dropped = std::mem::take(&mut self.shared.inner.borrow_mut().dropped);
        dropped.into_iter().map(|((db, backend), lines)| Dropped { db, backend, lines }).collect()
    }

    /// Has `book` called when points have been dropped, before they are gone for good: it takes them
    /// ([`Log::take_dropped`]) and returns the ledger of that moment, without the lines that it is given, which are not
    /// on disk yet. It must not append. None: the books are closed, and the saved ledger stays.
    pub fn keep_books(&self, book: impl Fn(&[Appended]) -> Option<Vec<u8>> + 'static) {
        *self.shared.book.borrow_mut() = Some(Rc::new(book));
    }

    /// Has `tell` called with each record that is dropped before that backend was given it.
    pub fn tell_dropped(&self, tell: impl Fn(BackendId, Seq) + 'static) {
        *self.shared.drop_listener.borrow_mut() = Some(Rc::new(tell));
    }

    /// Damage found by reads since the last call; each place once.
    pub fn take_damage(&self) -> Vec<Damage> {
        self.shared.inner.borrow_mut().damage.drain(..).collect()
    }

    /// The records of backends that left the configuration have been appended again: they need not be kept. Takes
    /// effect on disk with the next [`Log::save_state`].
    pub fn settle_absent(&self) {
        self.shared.inner.borrow_mut().absent.clear();
    }

    /// Points of backends that have left are about to be appended again, from all logs. A crash before the next
    /// [`Log::save_state`] undoes that: what has been appended since is removed by the next open. Before anything is
    /// appended in this life. `ledger` as for [`Log::save_state`].
    pub async fn begin_rerouting(&self, ledger: Vec<u8>) -> Result<(), Error> {
        let shared = &*self.shared;
        let mut state = shared.snapshot(ledger);
        assert_eq!(state.end.seq, shared.inner.borrow().current().first(), "nothing has been appended");
        state.rerouting = true;
        shared.place_end(&mut state);
        shared.save(state, true).await
    }

    /// By backend that has left: below this stamp, its points of all logs have been appended again. Saved with the
    /// state from now on, in this life.
    pub fn note_rerouted(&self, rerouted: Vec<(String, u64)>) {
        self.shared.inner.borrow_mut().rerouted = rerouted;
    }

    /// Lines that a backend has refused for the type of a field, as long as another one has not received them. Saved
    /// with the state.
    pub fn refused(&self) -> &RefCell<RefusedLines> {
        &self.shared.refused
    }

    /// Makes the cursors and the caller's ledger, both of this moment, durable in one step, after everything appended
    /// before has been written and synced. Then frees segments that no backend needs.
    ///
    /// `exactly`: also if only the stamps have changed below which records of other logs are settled.
    pub async fn save_state(&self, ledger: Vec<u8>, exactly: bool) -> Result<(), Error> {
        let shared = &*self.shared;
        shared.inner.borrow().check_poison()?;
        let mut state = shared.snapshot(ledger);
        if let Some(last) = state.end.seq.0.checked_sub(1) {
            commit::committed(shared, Seq(last), Durability::Disk).await?;
        }
        shared.place_end(&mut state);
        shared.save(state, exactly).await?;
        shared.release_segments().await?;
        shared.keep_reserve().await;
        shared.compact.notify();
        Ok(())
    }

    /// Writes and syncs what was appended, and ends. Nothing may be appended afterwards. If nothing has changed since
    /// the last [`Log::save_state`], the next open reads nothing beyond it.
    pub async fn close(&self) -> Result<(), Error> {
        let shared = &*self.shared;
        let end = {
            let mut inner = shared.inner.borrow_mut();
            inner.check_poison()?;
            inner.closing = true;
            inner.tail.end()
        };
        shared.room.notify();
        if let Some(last) = end.0.checked_sub(1) {
            commit::committed(shared, Seq(last), Durability::Disk).await?;
        }
        let saved = shared.inner.borrow().saved.clone();
        if let Some(mut state) = saved.filter(|s| s.end.seq == end) {
            state.closed = true;
            shared.place_end(&mut state);
            shared.save(state, false).await?;
        }
        shared.work.notify();
        // Nothing touches the directory after this.
        loop {
            let compacted = shared.compacted.wait();
            if !shared.inner.borrow().segments.iter().any(|s| s.busy) {
                return Ok(());
            }
            compacted.await;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.poison(&Error::Closed);
    }
}

/// A small file without contents, kept for an open on a full disk.
const RESERVE: &str = "reserve.free";

/// A file of segment size without contents, to be used for a later segment.
fn spare_name(number: u64) -> String {
    format!("spare-{number}.free")
}

fn parse_spare_name(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.strip_suffix(".free")?.parse().ok()
}

/// The directory of a worker's log.
pub fn worker_dir(data_dir: &Path, worker: usize) -> PathBuf {
    data_dir.join(format!("worker-{worker}"))
}

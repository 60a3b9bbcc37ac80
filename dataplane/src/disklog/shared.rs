//! State that the log, its tasks and its readers share, and what can be calculated from it: how much room is left,
//! which backends still need a segment, the state to save.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::parked::{Needs, Parked, ParkedId};
use super::segment::{Mark, Segment};
use super::state_files::StateFiles;
use super::store::{self, Store, WriteFile};
use super::tail::Tail;
use super::{Appended, Damage, DamageKind, Error, RESERVE, RefusedLines, Seq, Sizes, record, spare_name, state};
use crate::io::{Event, now};
use crate::limits::{LOG_DAMAGE_REPORTS_MAX, LOG_FULL_RETRY, LOG_STATE_BYTES_MAX};
use crate::order::{RecordOrder, SettledBefore};
use crate::parked::ParkedKey;
use crate::settings::{BacklogFull, Durability};
use crate::topology::{BackendId, Topology};
use crate::unsaved::UnsavedRefusal;

/// See [`super::Log::keep_books`].
pub(super) type Bookkeeper = dyn Fn(&[Appended]) -> Option<Vec<u8>>;
/// See [`super::Log::tell_dropped`].
pub(super) type DropListener = dyn Fn(BackendId, Seq);

/// State that the log, its tasks and its readers share.
pub(super) struct SharedLog {
    pub(super) store: Rc<dyn Store>,
    pub(super) states: StateFiles,
    pub(super) dir: PathBuf,
    /// Books what was dropped, and gives the ledger without these lines.
    pub(super) book: RefCell<Option<Rc<Bookkeeper>>>,
    /// Is told each record that is dropped before that backend was given it.
    pub(super) drop_listener: RefCell<Option<Rc<DropListener>>>,
    /// N of its directory `worker-N`, and its number among all logs.
    pub(super) worker: usize,
    pub(super) number: usize,
    pub(super) order: Arc<RecordOrder>,
    pub(super) refused: RefCell<RefusedLines>,
    /// False: it is only read.
    pub(super) written: bool,
    pub(super) topology: Arc<Topology>,
    pub(super) sizes: Sizes,
    pub(super) durability: Durability,
    pub(super) linger: Duration,
    pub(super) max_bytes: u64,
    pub(super) backlog_full: BacklogFull,
    /// Never borrowed across an await.
    pub(super) inner: RefCell<Inner>,
    /// The commit task has work.
    pub(super) work: Event,
    /// There may be room in the hot tail or on disk again.
    pub(super) room: Event,
    /// Frame n has been written: `acks[n % 2]`. At most two frames are unwritten at any time.
    pub(super) acks: [Event; 2],
    pub(super) synced: Event,
    /// By backend: a frame that may hold records for it has been written.
    pub(super) arrived: Vec<Event>,
    pub(super) confirmed: Event,
    /// Segments may be worth rewriting now.
    pub(super) compact: Event,
    /// A segment is not busy any more.
    pub(super) compacted: Event,
    pub(super) saved: Event,
    /// How many readers read from disk, and that one of them does so no longer.
    pub(super) reading: Cell<usize>,
    pub(super) read: Event,
}

/// Why a log accepts nothing more.
pub(super) enum Poison {
    /// What failed.
    Failed(String),
    /// See [`Error::Gone`].
    Gone(PathBuf),
}

pub(super) struct Inner {
    pub(super) tail: Tail,
    /// Oldest first; the last one is being written. Never empty.
    pub(super) segments: VecDeque<Segment>,
    pub(super) file: Rc<dyn WriteFile>,
    /// The prepared file of the next segment; its space is reserved.
    pub(super) next: Option<(String, Rc<dyn WriteFile>)>,
    pub(super) spares: Vec<String>,
    pub(super) spares_made: u64,
    /// There is the file for an open on a full disk.
    pub(super) has_reserve: bool,
    /// By backend: all records before this sequence have been confirmed.
    pub(super) cursors: Vec<Seq>,
    /// By backend: the position after the last record given to its reader, and the last one confirmed.
    pub(super) given: Vec<Seq>,
    pub(super) confirmed: Vec<Seq>,
    /// By backend: the end of what its reader had been given, not confirmed, when the log dropped it. The cursor has
    /// passed that.
    pub(super) held: Vec<Seq>,
    /// By backend: points that its cursor has passed although they are not confirmed.
    pub(super) parked: Vec<Vec<Parked>>,
    /// By backend: the position of its reader while the reader waits.
    pub(super) resting: Vec<Option<Seq>>,
    /// By backend: set when a frame with records for it can be read ([`super::Log::tell_written`]).
    pub(super) behind: Vec<Option<Arc<AtomicBool>>>,
    /// What backends need that have left the configuration.
    pub(super) absent: Vec<(String, Needs)>,
    /// See [`super::Log::note_rerouted`].
    pub(super) rerouted: Vec<(String, u64)>,
    /// The sequence after the last one written, and after the last one synced.
    pub(super) written: Seq,
    pub(super) synced: Seq,
    /// The largest stamp in the frame that was sealed last, and in what may be acknowledged.
    pub(super) sealed_stamp: u64,
    pub(super) acked_stamp: u64,
    pub(super) sync_wanted: bool,
    /// Appends in the open frame, and in the frame sealed before it.
    pub(super) open_appends: u32,
    pub(super) sealed_appends: u32,
    /// The commit task waits for this many appends in the open frame; 0 = it does not wait.
    pub(super) gather_target: u32,
    pub(super) frames_sealed: u64,
    /// Record bytes by backend in frames not written yet.
    pub(super) open_bytes: Vec<u64>,
    pub(super) sealed_bytes: Vec<u64>,
    pub(super) poison: Option<Poison>,
    pub(super) closing: bool,
    /// No space could be reserved for the next segment.
    pub(super) full: bool,
    /// The step that keeps the next segment's file from being made, other than space.
    pub(super) obstacle: Option<&'static str>,
    /// A frame waits for disk space: acks are refused.
    pub(super) stuck: bool,
    pub(super) retry_after: Instant,
    pub(super) saving: bool,
    pub(super) saved: Option<state::SavedState>,
    /// States made in this life, and the number of the saved one.
    pub(super) snapshots: u64,
    pub(super) saved_number: u64,
    /// Records before this are being dropped: cursors have passed them, and what is lost is not told yet.
    pub(super) dropping: Option<Seq>,
    pub(super) dropped: HashMap<(Vec<u8>, BackendId), u64>,
    pub(super) damage: VecDeque<Damage>,
    pub(super) damage_known: HashSet<(u64, u64)>,
}

impl Inner {
    pub(super) fn check(&self) -> Result<(), Error> {
        self.check_poison()?;
        if self.closing { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) fn check_poison(&self) -> Result<(), Error> {
        match &self.poison {
            None => Ok(()),
            Some(Poison::Failed(reason)) => Err(Error::Poisoned { reason: reason.clone() }),
            Some(Poison::Gone(dir)) => Err(Error::Gone { dir: dir.clone() }),
        }
    }

    /// Files can still be reached by their names.
    pub(super) fn check_gone(&self) -> Result<(), Error> {
        if matches!(self.poison, Some(Poison::Gone(_))) { self.check_poison() } else { Ok(()) }
    }

    /// Why an append or an ack is refused while `full` or `stuck`.
    pub(super) fn no_room(&self) -> Error {
        if self.obstacle.is_some() { Error::NoNextFile } else { Error::Full }
    }

    pub(super) fn current(&self) -> &Segment {
        self.segments.back().expect("there is always one being written")
    }

    /// Unused bytes of the segment being written. The open frame is not subtracted.
    pub(super) fn left_in_segment(&self) -> u64 {
        let current = self.current();
        current.file_bytes - current.used
    }

    /// The segment with this first sequence and epoch, if it still exists.
    pub(super) fn segment_mut(&mut self, first: Seq, epoch: u64) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&first, Segment::first).ok()?;
        Some(&mut self.segments[index]).filter(|s| s.header.epoch == epoch)
    }

    /// By name in a segment's header: the first sequence that this backend needs; None = no backend has this name. Uses
    /// the last saved state, and returns None for a segment beyond it: after a crash the saved ledger counts as queued
    /// what was confirmed later, and later appends are counted from the records themselves.
    pub(super) fn needs(&self, segment: &Segment) -> Option<Vec<Option<Seq>>> {
        let saved = self.saved.as_ref().filter(|saved| segment.end <= saved.end.seq)?;
        let first = |name: &String| saved.needs_of(name).map(|needs| needs.first());
        Some(segment.header.backends.iter().map(first).collect())
    }

    /// The sequence up to which a backend needs nothing any more: from now, not as saved.
    pub(super) fn needs_now(&self, backend: BackendId) -> Needs {
        let parked = self.parked[backend.index()].iter().map(|parked| (parked.key.clone(), parked.cursor)).collect();
        Needs { cursor: self.cursors[backend.index()], parked }
    }

    /// Whether the reader of `backend` was given records before `end` that the log has dropped since, and which are not
    /// confirmed: they are delivered if the process lives until then.
    pub(super) fn has_only_given(&self, backend: BackendId, end: Seq) -> bool {
        let (held, confirmed) = (self.held[backend.index()], self.confirmed[backend.index()]);
        held > confirmed && end > confirmed
    }

    /// None: points of this key are not parked any more.
    pub(super) fn parked_mut(&mut self, backend: BackendId, key: &ParkedKey) -> Option<&mut Parked> {
        self.parked[backend.index()].iter_mut().find(|parked| parked.key == *key)
    }

    /// As [`Inner::parked_mut`], for a reader.
    pub(super) fn parked_by_id(&mut self, backend: BackendId, id: ParkedId) -> Option<&mut Parked> {
        self.parked[backend.index()].iter_mut().find(|parked| parked.id == id)
    }
}

impl SharedLog {
    pub(super) fn dsync(&self) -> bool {
        self.durability == Durability::Disk
    }

    /// A client is told before its lines are in a sealed frame. So each append needs a stamp of its own; otherwise a
    /// frame gets one when it is sealed, which costs less.
    pub(super) fn acks_from_memory(&self) -> bool {
        self.durability == Durability::Memory
    }

    /// The stamp of a frame that is about to be written.
    pub(super) fn next_stamp(&self) -> u64 {
        self.order.announce(self.number);
        self.order.now()
    }

    /// The stamp of lines that are being appended.
    pub(super) fn stamp(&self, inner: &Inner) -> u64 {
        if !self.acks_from_memory() {
            return 0;
        }
        if inner.tail.open_len() == 0 && inner.tail.all_written() {
            self.order.announce(self.number);
        }
        self.order.now()
    }

    pub(super) fn disk_bytes(&self, inner: &Inner) -> u64 {
        let free = inner.spares.len() as u64 + u64::from(inner.next.is_some());
        inner.segments.iter().map(|s| s.file_bytes).sum::<u64>() + free * self.sizes.segment_bytes
    }

    /// Keeps the first failure and wakes every task that would wait for ever.
    pub(super) fn poison(&self, error: &Error) {
        let poison = match error {
            Error::Gone { dir } => Poison::Gone(dir.clone()),
            other => Poison::Failed(other.to_string()),
        };
        self.inner.borrow_mut().poison.get_or_insert(poison);
        self.order.withdraw(self.number, None);
        self.room.notify();
        self.acks.iter().for_each(Event::notify);
        self.synced.notify();
        self.saved.notify();
        self.work.notify();
        self.compact.notify();
    }

    /// Asks the commit task to check for space again, but not too often.
    pub(super) fn look_for_space(&self, inner: &mut Inner) {
        let now = now();
        if now >= inner.retry_after {
            inner.retry_after = now + LOG_FULL_RETRY;
            self.work.notify();
        }
    }

    /// Reports damage found by a read, once for each place, and keeps the file aside.
    pub(super) async fn report(&self, epoch: u64, damage: Damage) {
        let name = {
            let mut inner = self.inner.borrow_mut();
            if !inner.damage_known.insert((epoch, damage.bytes.start)) {
                return;
            }
            if let Some(segment) = inner.segments.iter_mut().find(|s| s.header.epoch == epoch) {
                segment.damaged = true;
            }
            let name = damage.file.file_name().map(|n| n.to_string_lossy().into_owned());
            if inner.damage.len() == LOG_DAMAGE_REPORTS_MAX {
                inner.damage.pop_front();
            }
            inner.damage.push_back(damage);
            name
        };
        if let Some(name) = name {
            // Best effort: the report names the place even if the file cannot be kept.
            let _ = self.store.keep_aside(&name).await;
        }
    }

    pub(super) fn damage_in(&self, name: &str, bytes: Range<u64>, seqs: Range<Seq>, lines: u64) -> Damage {
        Damage { kind: DamageKind::Frames, file: self.dir.join(name), bytes, seqs, lines }
    }

    /// Cursors and end of this moment. Later appends are not part of it.
    pub(super) fn snapshot(&self, ledger: Vec<u8>) -> state::SavedState {
        let mut inner = self.inner.borrow_mut();
        inner.tail.end_record();
        inner.snapshots += 1;
        let (mut settled, mut waiting, mut changes, mut rejected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut dropped = Vec::new();
        let present = self.topology.backends.iter().map(|b| (b.name.clone(), inner.needs_now(b.id)));
        let all: Vec<_> = present.chain(inner.absent.iter().cloned()).collect();
        let passed = all.iter().map(|(_, needs)| needs.first()).min().unwrap_or_else(|| inner.tail.end());
        // After the cursors: none of them is past it.
        for backend in &self.topology.backends {
            let of_all = self.order.settled_state(backend.id);
            let SettledBefore { below, parked, changes: of_backend, refusals, .. } = of_all;
            dropped.extend(of_all.dropped.into_iter().map(|(key, stamp)| (backend.name.clone(), key, stamp)));
            rejected.extend(refusals.into_iter().map(|refusal| (backend.name.clone(), refusal)));
            settled.push((backend.name.clone(), below));
            if of_backend > 0 {
                changes.push((backend.name.clone(), of_backend));
            }
            waiting.extend(parked.into_iter().map(|(key, stamp)| (backend.name.clone(), key, stamp)));
        }
        let oldest = inner.segments.front().expect("never empty");
        state::SavedState {
            end: Mark { seq: inner.tail.end(), lines: inner.tail.lines(), offset: 0 },
            segment: Seq(0),
            epoch: 0,
            first: oldest.first(),
            first_lines: oldest.header.lines_base,
            closed: false,
            rerouting: false,
            rerouted: inner.rerouted.clone(),
            stamp: self.order.now(),
            cursors: all.iter().map(|(name, needs)| (name.clone(), needs.cursor)).collect(),
            parked: all
                .into_iter()
                .flat_map(|(name, needs)| needs.parked.into_iter().map(move |(key, from)| (name.clone(), key, from)))
                .collect(),
            settled,
            waiting,
            dropped,
            changes,
            refused: {
                let mut refused = self.refused.borrow_mut();
                refused.forget_before(passed);
                refused.list()
            },
            rejected,
            ledger,
            number: inner.snapshots,
        }
    }

    /// Sets where the end of `state` lies on disk, if it is the end of what is written. Otherwise the next open scans
    /// the whole segment.
    pub(super) fn place_end(&self, state: &mut state::SavedState) {
        let inner = self.inner.borrow();
        let current = inner.current();
        if current.end == state.end.seq {
            state.segment = current.first();
            state.epoch = current.header.epoch;
            state.end.offset = current.used;
        }
    }

    /// Makes this the saved state. One save at a time.
    /// `exactly`: also when only what is settled of other logs has changed.
    pub(super) async fn save(&self, state: state::SavedState, exactly: bool) -> Result<(), Error> {
        // While this waited a later state may have been saved: with it a segment has gone that this one needs.
        self.save_made(exactly, || Some(state).filter(|s| s.number >= self.inner.borrow().saved_number)).await
    }

    /// Saves the state of this moment without the oldest segment, which all cursors have passed and which will be
    /// deleted. What has been dropped with it is booked in the same step. What is written must be synced.
    pub(super) async fn save_without_oldest(&self) -> Result<(), Error> {
        let saved = self.save_made(false, || Some(self.snapshot_of_written())).await;
        if !matches!(saved, Err(Error::Full)) {
            return saved;
        }
        // The state has grown beyond its own space. What is kept for a start is found again when the segment is gone.
        let _ = self.store.remove(RESERVE).await;
        self.inner.borrow_mut().has_reserve = false;
        self.save_made(false, || Some(self.snapshot_of_written())).await
    }

    /// Cursors and ledger of this moment, without what is not written yet.
    fn snapshot_of_written(&self) -> state::SavedState {
        let unwritten: Vec<Appended> = {
            let mut inner = self.inner.borrow_mut();
            // A record that grows would be neither in this state nor behind it.
            inner.tail.end_record();
            let route = |r: &record::Record<'_>| r.route().map(BackendId).collect();
            inner.tail.unwritten().map(|r| (r.db.to_vec(), route(&r), u64::from(r.lines))).collect()
        };
        let book = self.book.borrow().clone();
        let saved = || self.inner.borrow().saved.as_ref().map(|saved| saved.ledger.clone());
        let ledger = book.and_then(|book| book(&unwritten)).or_else(saved).unwrap_or_default();
        let mut state = self.snapshot(ledger);
        let inner = self.inner.borrow();
        let current = inner.current();
        state.end = Mark { seq: current.end, lines: current.lines_end, offset: current.used };
        (state.segment, state.epoch) = (current.first(), current.header.epoch);
        let next = inner.segments.get(1).expect("the last segment is not dropped");
        (state.first, state.first_lines) = (next.first(), next.header.lines_base);
        state
    }

    /// Calls `make` when no other save is in progress; saves nothing if it returns None, or what is saved already.
    async fn save_made(&self, exactly: bool, make: impl FnOnce() -> Option<state::SavedState>) -> Result<(), Error> {
        loop {
            let saved = self.saved.wait();
            if !std::mem::replace(&mut self.inner.borrow_mut().saving, true) {
                break;
            }
            saved.await;
        }
        let made = make();
        let is_new = |state: &state::SavedState| {
            let inner = self.inner.borrow();
            exactly || !self.states.are_equal() || inner.saved.as_ref().is_none_or(|saved| !saved.says_the_same(state))
        };
        let Some(state) = made.filter(is_new) else {
            self.inner.borrow_mut().saving = false;
            self.saved.notify();
            return Ok(());
        };
        let bytes = state.encode();
        let too_long = (bytes.len() > LOG_STATE_BYTES_MAX).then_some(Error::TooLong { bytes: bytes.len() });
        let result = match too_long {
            Some(error) => Err(error),
            None => self.states.save(&*self.store, &bytes).await.map_err(|e| self.save_failed(e)),
        };
        let mut inner = self.inner.borrow_mut();
        inner.saving = false;
        if result.is_ok() {
            for backend in &self.topology.backends {
                let needs = state.needs_of(&backend.name).unwrap_or_else(|| Needs::from(Seq(0)));
                let keep = |refusal: &UnsavedRefusal| needs.has(&refusal.db, &refusal.rp, Seq(refusal.record));
                self.order.retain_refusals(backend.id, self.worker, keep);
            }
            inner.saved_number = state.number;
            inner.saved = Some(state);
        }
        drop(inner);
        self.saved.notify();
        result
    }

    /// If cursors cannot be saved nothing is lost: the old state is still there. A full disk is temporary.
    pub(super) fn save_failed(&self, source: std::io::Error) -> Error {
        if store::is_full(&source) { Error::Full } else { Error::io("save", &self.dir.join(state::FILES[0]), source) }
    }

    /// Frees the segments that every saved cursor has passed.
    pub(super) async fn release_segments(&self) -> Result<(), Error> {
        loop {
            let segment = {
                let mut inner = self.inner.borrow_mut();
                let Some(state) = &inner.saved else { return Ok(()) };
                let passed = state.passed();
                let oldest = inner.segments.front().expect("never empty");
                if inner.segments.len() == 1 || oldest.end > passed || oldest.busy {
                    return Ok(());
                }
                inner.segments.pop_front().expect("looked at above")
            };
            self.free_file(&segment).await?;
            // Appends that were refused for lack of space may succeed now.
            if self.inner.borrow().full {
                self.work.notify();
            }
        }
    }

    /// Makes the file for an open on a full disk, where it is missing and there is space.
    pub(super) async fn keep_reserve(&self) {
        if self.inner.borrow().has_reserve {
            return;
        }
        // Best effort: what it is for may never happen. What a failure leaves is found at the next open.
        let made = self.store.create(RESERVE, self.sizes.reserve_bytes(), false).await.is_ok();
        self.inner.borrow_mut().has_reserve = made;
        if !made {
            let _ = self.store.remove(RESERVE).await;
        }
    }

    /// Makes a spare of a file that is no longer needed, or removes it.
    pub(super) async fn free_file(&self, segment: &Segment) -> Result<(), Error> {
        let name = segment.name();
        let spare = {
            let mut inner = self.inner.borrow_mut();
            let whole = segment.file_bytes == self.sizes.segment_bytes && !segment.damaged;
            (whole && inner.spares.len() < self.sizes.spares_max).then(|| {
                inner.spares_made += 1;
                spare_name(inner.spares_made)
            })
        };
        let Some(spare) = spare else {
            return self.store.remove(&name).await.map_err(|e| Error::io("remove", &self.dir.join(&name), e));
        };
        self.store.rename(&name, &spare).await.map_err(|e| Error::io("rename", &self.dir.join(&name), e))?;
        self.inner.borrow_mut().spares.push(spare);
        Ok(())
    }
}

//! What the log, its tasks and its readers share, and what follows from it alone: how much room is left, who still
//! needs a segment, what a saved state says.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::segment::{Mark, Segment};
use super::store::{self, Store, WriteFile};
use super::tail::Tail;
use super::{Damage, DamageKind, Error, Seq, Sizes, spare_name, state};
use crate::io::{Event, now};
use crate::limits::{LOG_DAMAGE_REPORTS_MAX, LOG_FULL_RETRY, LOG_SPARES_MAX, LOG_STATE_BYTES_MAX};
use crate::settings::{BacklogFull, Durability};
use crate::topology::{BackendId, Topology};

/// What the log, its tasks and its readers share.
pub(super) struct SharedLog {
    pub(super) store: Rc<dyn Store>,
    pub(super) dir: PathBuf,
    pub(super) topology: Arc<Topology>,
    pub(super) sizes: Sizes,
    pub(super) durability: Durability,
    pub(super) linger: Duration,
    pub(super) max_bytes: u64,
    pub(super) backlog_full: BacklogFull,
    /// Never borrowed across an await.
    pub(super) inner: RefCell<Inner>,
    /// There is something for the commit task.
    pub(super) work: Event,
    /// There may be room in the hot tail, or on disk, again.
    pub(super) room: Event,
    /// Frame n has been written: `acks[n % 2]`. At most two frames are not written at any time.
    pub(super) acks: [Event; 2],
    pub(super) synced: Event,
    /// By backend: a frame that may hold records for it has been written.
    pub(super) arrived: Vec<Event>,
    pub(super) confirmed: Event,
    /// Segments may have become worth rewriting.
    pub(super) compact: Event,
    /// A segment is not busy any more.
    pub(super) compacted: Event,
    pub(super) saved: Event,
}

pub(super) struct Inner {
    pub(super) tail: Tail,
    /// Oldest first; the last one is being written. Never empty.
    pub(super) segments: VecDeque<Segment>,
    pub(super) file: Rc<dyn WriteFile>,
    /// The file the next segment will be made of; its space is reserved.
    pub(super) next: Option<(String, Rc<dyn WriteFile>)>,
    pub(super) spares: Vec<String>,
    pub(super) spares_made: u64,
    /// By backend: everything before it has been confirmed.
    pub(super) cursors: Vec<Seq>,
    /// By backend: everything before it has been given to its reader.
    pub(super) given: Vec<Seq>,
    /// By backend: where its reader waits, while it does.
    pub(super) parked: Vec<Option<Seq>>,
    /// Cursors of backends that have left the configuration.
    pub(super) absent: Vec<(String, Seq)>,
    /// The sequence after the last one written, and after the last one synced.
    pub(super) written: Seq,
    pub(super) synced: Seq,
    pub(super) sync_wanted: bool,
    /// Appends in the open frame, and in the one before it.
    pub(super) open_appends: u32,
    pub(super) sealed_appends: u32,
    /// The commit task waits for so many in the open frame; 0 = it does not wait.
    pub(super) gather_target: u32,
    pub(super) frames_sealed: u64,
    /// Record bytes by backend in frames not written yet.
    pub(super) open_bytes: Vec<u64>,
    pub(super) sealed_bytes: Vec<u64>,
    pub(super) poison: Option<String>,
    pub(super) closing: bool,
    /// No space could be reserved for the next segment.
    pub(super) full: bool,
    /// A frame waits for space: acks are refused meanwhile.
    pub(super) stuck: bool,
    pub(super) retry_after: Instant,
    pub(super) saving: bool,
    pub(super) saved: Option<state::SavedState>,
    pub(super) dropped: HashMap<(Vec<u8>, BackendId), u64>,
    pub(super) damage: VecDeque<Damage>,
    pub(super) damage_known: HashSet<(u64, u64)>,
}

impl Inner {
    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.poison {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None if self.closing => Err(Error::Closed),
            None => Ok(()),
        }
    }

    pub(super) fn current(&self) -> &Segment {
        self.segments.back().expect("there is always one being written")
    }

    /// Bytes of the segment being written that no frame has been promised, the open frames aside.
    pub(super) fn left_in_segment(&self) -> u64 {
        let current = self.current();
        current.file_bytes - current.used
    }

    /// The segment with this first sequence and epoch, if it is still there.
    pub(super) fn segment_mut(&mut self, first: Seq, epoch: u64) -> Option<&mut Segment> {
        let index = self.segments.binary_search_by_key(&first, Segment::first).ok()?;
        Some(&mut self.segments[index]).filter(|s| s.header.epoch == epoch)
    }

    /// By name in a segment's header: the sequence from which on that backend needs records; None = nobody's name. As
    /// saved last, and nothing for a segment beyond that: after a crash the saved ledger still has as queued what has
    /// been confirmed since, and counts what was appended since from the records themselves.
    pub(super) fn needs(&self, segment: &Segment) -> Option<Vec<Option<Seq>>> {
        let saved = self.saved.as_ref().filter(|saved| segment.end <= saved.end.seq)?;
        let cursor = |name: &String| saved.cursors.iter().find(|(n, _)| n == name).map(|(_, seq)| *seq);
        Some(segment.header.backends.iter().map(cursor).collect())
    }
}

impl SharedLog {
    pub(super) fn dsync(&self) -> bool {
        self.durability == Durability::Disk
    }

    pub(super) fn disk_bytes(&self, inner: &Inner) -> u64 {
        let free = inner.spares.len() as u64 + u64::from(inner.next.is_some());
        inner.segments.iter().map(|s| s.file_bytes).sum::<u64>() + free * self.sizes.segment_bytes
    }

    /// Latches the first failure and wakes all who would wait for ever.
    pub(super) fn poison(&self, error: &Error) {
        self.inner.borrow_mut().poison.get_or_insert_with(|| error.to_string());
        self.room.notify();
        self.acks.iter().for_each(Event::notify);
        self.synced.notify();
        self.saved.notify();
        self.work.notify();
        self.compact.notify();
    }

    /// Asks the commit task to try again whether there is space, not too often.
    pub(super) fn look_for_space(&self, inner: &mut Inner) {
        let now = now();
        if now >= inner.retry_after {
            inner.retry_after = now + LOG_FULL_RETRY;
            self.work.notify();
        }
    }

    /// Records damage met while reading, once for each place, and keeps the file.
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
            // Best effort: the report names the place also when the file cannot be kept.
            let _ = self.store.keep_aside(&name).await;
        }
    }

    pub(super) fn damage_in(&self, name: &str, bytes: Range<u64>, seqs: Range<Seq>, lines: u64) -> Damage {
        Damage { kind: DamageKind::Frames, file: self.dir.join(name), bytes, seqs, lines }
    }

    /// Cursors and end as of now. What is appended from now on is not part of it.
    pub(super) fn snapshot(&self, ledger: Vec<u8>) -> state::SavedState {
        let mut inner = self.inner.borrow_mut();
        inner.tail.end_record();
        let names = self.topology.backends.iter().map(|b| b.name.clone());
        let mut cursors: Vec<_> = names.zip(inner.cursors.iter().copied()).collect();
        cursors.extend(inner.absent.iter().cloned());
        let oldest = inner.segments.front().expect("never empty");
        state::SavedState {
            end: Mark { seq: inner.tail.end(), lines: inner.tail.lines(), offset: 0 },
            segment: Seq(0),
            epoch: 0,
            first: oldest.first(),
            first_lines: oldest.header.lines_base,
            closed: false,
            cursors,
            ledger,
        }
    }

    /// Says where the end of `state` lies on disk, if that is the end of what is written. Otherwise the next open
    /// looks through the whole segment.
    pub(super) fn place_end(&self, state: &mut state::SavedState) {
        let inner = self.inner.borrow();
        let current = inner.current();
        if current.end == state.end.seq {
            state.segment = current.first();
            state.epoch = current.header.epoch;
            state.end.offset = current.used;
        }
    }

    /// Replaces the state file; one at a time.
    pub(super) async fn save(&self, state: state::SavedState) -> Result<(), Error> {
        self.save_made(move |_| Some(state)).await
    }

    /// Saves once more what was saved last, as if everybody had passed the oldest segment: it is about to be given up,
    /// and the next open must not take that for damage.
    pub(super) async fn save_without_oldest(&self) -> Result<(), Error> {
        self.save_made(|inner| {
            let mut state = inner.saved.clone()?;
            let (oldest, next) = (inner.segments.front()?, inner.segments.get(1)?);
            state.cursors.iter_mut().for_each(|(_, cursor)| *cursor = oldest.end.max(*cursor));
            (state.first, state.first_lines) = (next.first(), next.header.lines_base);
            Some(state)
        })
        .await
    }

    /// `make` is called when it is this save's turn; nothing is saved if it makes nothing.
    async fn save_made(&self, make: impl FnOnce(&Inner) -> Option<state::SavedState>) -> Result<(), Error> {
        loop {
            let saved = self.saved.wait();
            if !std::mem::replace(&mut self.inner.borrow_mut().saving, true) {
                break;
            }
            saved.await;
        }
        let made = make(&self.inner.borrow());
        let Some(state) = made else {
            self.inner.borrow_mut().saving = false;
            self.saved.notify();
            return Ok(());
        };
        let bytes = state.encode();
        let too_long = (bytes.len() > LOG_STATE_BYTES_MAX).then_some(Error::TooLong { bytes: bytes.len() });
        let result = match too_long {
            Some(error) => Err(error),
            None => self.store.replace(state::FILE, bytes).await.map_err(|e| self.save_failed(e)),
        };
        let mut inner = self.inner.borrow_mut();
        inner.saving = false;
        if result.is_ok() {
            inner.saved = Some(state);
        }
        drop(inner);
        self.saved.notify();
        result
    }

    /// Not being able to save cursors loses nothing: the old state stands. Being out of space passes.
    pub(super) fn save_failed(&self, source: std::io::Error) -> Error {
        if store::is_full(&source) { Error::Full } else { Error::io("save", &self.dir.join(state::FILE), source) }
    }

    /// Frees the segments that every saved cursor has passed.
    pub(super) async fn release_segments(&self) -> Result<(), Error> {
        loop {
            let segment = {
                let mut inner = self.inner.borrow_mut();
                let Some(state) = &inner.saved else { return Ok(()) };
                let passed = state.cursors.iter().map(|(_, seq)| *seq).min().unwrap_or(state.end.seq);
                let oldest = inner.segments.front().expect("never empty");
                if inner.segments.len() == 1 || oldest.end > passed || oldest.busy {
                    return Ok(());
                }
                inner.segments.pop_front().expect("looked at above")
            };
            self.free_file(&segment).await?;
            // Whoever was refused for lack of space may have it now.
            if self.inner.borrow().full {
                self.work.notify();
            }
        }
    }

    /// Makes a spare of a file that is not needed any more, or removes it.
    pub(super) async fn free_file(&self, segment: &Segment) -> Result<(), Error> {
        let name = segment.name();
        let spare = {
            let mut inner = self.inner.borrow_mut();
            let whole = segment.file_bytes == self.sizes.segment_bytes && !segment.damaged;
            (whole && inner.spares.len() < LOG_SPARES_MAX).then(|| {
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

//! Reads the log for a courier: from the hot tail while the courier keeps up, otherwise from disk.
//!
//! A position is a sequence, not a file offset: a segment may be rewritten (`compact.rs`) or dropped between two
//! fetches, and the reader finds its place by sequence. Damage is skipped, reported, and counted for the caller. A
//! failed read is an error and does not move the position.

use std::rc::Rc;

use super::parked::{Parked, ParkedId};
use super::scan::{Found, FrameStep, Scan};
use super::segment::{self, Mark};
use super::store::ReadFile;
use super::{Error, Inner, Log, RecordView, Seq, SharedLog, frame, record};
use crate::io::{sleep, yield_if_needed};
use crate::limits::{LOG_READ_BYTES_MIN, LOG_READERS_MAX, LOG_REPLACED_PAUSE};
use crate::parked::ParkedKey;
use crate::topology::BackendId;

/// The result of a fetch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The reader's position now; the caller confirms it when all returned records have been settled.
    pub next: Seq,
    pub records: u64,
    pub lines: u64,
    /// Points in damaged places skipped, for whichever backends: how many were for this backend is unknown.
    pub lost: u64,
}

pub struct LogReader {
    log: Rc<Log>,
    backend: BackendId,
    /// Only parked records of this key are read; None = all.
    key: Option<ParkedKey>,
    /// Of the key; None = its records were not parked when this reader was made.
    parked: Option<ParkedId>,
    position: Seq,
    /// The position after the last record given to the sink.
    given: Seq,
    cold: Option<Cold>,
}

/// A segment being read from disk.
struct Cold {
    first: Seq,
    epoch: u64,
    name: String,
    /// The backend's index in this segment's routes.
    index: u16,
    file: Rc<dyn ReadFile>,
    scan: Scan,
    /// A frame with records that have not been given yet.
    frame: Option<Found>,
}

/// Held by a reader that reads from disk.
struct ReadTurn<'a>(&'a SharedLog);

impl Drop for ReadTurn<'_> {
    fn drop(&mut self) {
        self.0.reading.set(self.0.reading.get() - 1);
        self.0.read.notify();
    }
}

impl SharedLog {
    /// Waits until few others read from disk.
    async fn turn_to_read(&self) -> ReadTurn<'_> {
        loop {
            let other_ends = self.read.wait();
            if self.reading.get() < LOG_READERS_MAX {
                self.reading.set(self.reading.get() + 1);
                return ReadTurn(self);
            }
            other_ends.await;
        }
    }
}

/// Why a part of a fetch has ended.
#[derive(PartialEq, Eq)]
enum ReadOutcome {
    /// The sink takes no more.
    Stopped,
    /// Nothing more is written.
    AtEnd,
    /// The position is not in the hot tail.
    NotInMemory,
    /// The position has moved: start again.
    Moved,
}

type Sink<'a> = &'a mut dyn FnMut(RecordView<'_>) -> bool;

impl LogReader {
    /// `key`: of parked records.
    pub(super) fn new(log: Rc<Log>, backend: BackendId, key: Option<ParkedKey>) -> Self {
        // Records that an earlier reader gave and that were not confirmed are given again.
        let mut inner = log.shared.inner.borrow_mut();
        let parked = key.as_ref().and_then(|key| inner.parked_mut(backend, key));
        let id = parked.as_ref().map(|parked| parked.id);
        let position = match (parked, &key) {
            (None, None) => {
                let position = inner.cursors[backend.index()];
                inner.resting[backend.index()] = None;
                inner.given[backend.index()] = position;
                inner.confirmed[backend.index()] = position;
                position
            }
            (None, Some(_)) => Seq(0),
            (Some(parked), _) => {
                parked.resting = None;
                (parked.given, parked.confirmed) = (parked.cursor, parked.cursor);
                parked.cursor
            }
        };
        drop(inner);
        Self { log, backend, key, parked: id, position, given: position, cold: None }
    }

    /// The place of a reader of parked points. None: they are not parked any more.
    fn parked<'a>(&self, inner: &'a mut Inner) -> Option<&'a mut Parked> {
        self.parked.and_then(|id| inner.parked_by_id(self.backend, id))
    }

    /// Whether it may go on: its records are still parked.
    fn is_of_use(&self) -> bool {
        self.key.is_none() || self.parked(&mut self.log.shared.inner.borrow_mut()).is_some()
    }

    /// All records before this are confirmed.
    fn cursor(&self, inner: &mut Inner) -> Seq {
        match &self.key {
            None => inner.cursors[self.backend.index()],
            Some(_) => self.parked(inner).map_or(self.position, |parked| parked.cursor),
        }
    }

    /// Publishes what was given.
    fn publish(&self, inner: &mut Inner) {
        match &self.key {
            None => inner.given[self.backend.index()] = self.given,
            Some(_) => {
                if let Some(parked) = self.parked(inner) {
                    parked.given = self.given;
                }
            }
        }
    }

    /// The record after the last one that was given or skipped.
    pub fn position(&self) -> Seq {
        self.position
    }

    /// Nothing is fetched for a while: gives memory back, where there may be many readers.
    pub fn rest(&mut self) {
        if self.is_one_of_many() {
            self.cold = None;
        }
    }

    fn is_one_of_many(&self) -> bool {
        self.key.is_some() || self.log.shared.topology.backends.len() > LOG_READERS_MAX
    }

    /// Whether any record lies beyond the position, for whichever backend.
    pub fn behind(&self) -> bool {
        self.position < self.log.shared.inner.borrow().written
    }

    /// With `wait`, waits until at least one record for this backend is written at or after the position. Gives records
    /// in order to `sink` until it returns false (that record is not consumed and is given again) or there are no more.
    /// Skips records of other backends; while no given record is unconfirmed, the cursor follows. Returns early,
    /// without records, to report points lost in a damaged place, and with a key when frames have come that hold
    /// nothing of it. `sink` must not call the log.
    ///
    /// A fetch that is dropped while it waits has skipped no record of this backend.
    pub async fn fetch(
        &mut self,
        mut wait: bool,
        sink: &mut dyn FnMut(RecordView<'_>) -> bool,
    ) -> Result<Fetched, Error> {
        let log = Rc::clone(&self.log);
        let shared = &*log.shared;
        let mut got = Fetched::default();
        loop {
            let arrived = shared.arrived[self.backend.index()].wait();
            if !self.is_of_use() {
                return Err(Error::Closed);
            }
            self.catch_up(shared);
            let mut outcome = self.read_memory(shared, sink, &mut got);
            if outcome == ReadOutcome::NotInMemory {
                let _turn = shared.turn_to_read().await;
                outcome = match self.read_disk(shared, sink, &mut got).await {
                    Ok(outcome) => outcome,
                    // The records given so far count; the error returns with the next fetch.
                    Err(error) if got.records == 0 && got.lost == 0 => return Err(error),
                    Err(_) => ReadOutcome::Stopped,
                };
            }
            self.settle(shared);
            match outcome {
                ReadOutcome::AtEnd if wait && got.records == 0 && got.lost == 0 => {
                    {
                        let mut inner = shared.inner.borrow_mut();
                        let resting = match &self.key {
                            None => Some(&mut inner.resting[self.backend.index()]),
                            Some(_) => self.parked(&mut inner).map(|parked| &mut parked.resting),
                        };
                        resting.into_iter().for_each(|resting| *resting = Some(self.position));
                    }
                    arrived.await;
                    if self.key.is_some() {
                        // Most frames hold nothing of a key: who reads must hear that there is nothing.
                        wait = false;
                    }
                }
                ReadOutcome::Stopped | ReadOutcome::AtEnd => return Ok(Fetched { next: self.position, ..got }),
                ReadOutcome::NotInMemory | ReadOutcome::Moved => {}
            }
        }
    }

    /// The position follows the cursor (the oldest segment was dropped), and the frames that passed while it waited.
    fn catch_up(&mut self, shared: &SharedLog) {
        let mut inner = shared.inner.borrow_mut();
        let rested = match &self.key {
            None => inner.resting[self.backend.index()].take(),
            Some(_) => self.parked(&mut inner).and_then(|parked| parked.resting.take()),
        };
        self.position = self.position.max(rested.unwrap_or_default()).max(self.cursor(&mut inner));
    }

    /// Publishes what was given. The cursor follows if no given record is unconfirmed.
    fn settle(&mut self, shared: &SharedLog) {
        let mut inner = shared.inner.borrow_mut();
        self.publish(&mut inner);
        let cursor = match &self.key {
            None => &mut inner.cursors[self.backend.index()],
            Some(_) => match self.parked(&mut inner) {
                Some(parked) => &mut parked.cursor,
                None => return,
            },
        };
        if self.given <= *cursor && *cursor < self.position {
            *cursor = self.position;
            drop(inner);
            shared.confirmed.notify();
        }
    }

    fn read_memory(&mut self, shared: &SharedLog, sink: Sink<'_>, got: &mut Fetched) -> ReadOutcome {
        let inner = shared.inner.borrow();
        while self.position < inner.written {
            let Some(sealed) = inner.tail.frame_at(self.position) else { return ReadOutcome::NotInMemory };
            if sealed.wanted.may_contain(self.backend.index()) {
                let body = &inner.tail.bytes(sealed)[frame::HEADER_BYTES..];
                if !self.give(body, sealed.header.first, self.backend.0, sink, got) {
                    return ReadOutcome::Stopped;
                }
            }
            self.position = sealed.header.end();
        }
        self.cold = None;
        ReadOutcome::AtEnd
    }

    /// Gives the records of a frame from the position on; false if the sink takes no more.
    fn give(&mut self, body: &[u8], first: Seq, index: u16, sink: Sink<'_>, got: &mut Fetched) -> bool {
        for record in record::records(body) {
            let seq = record.seq(first);
            let is_of_key = self.key.as_ref().is_none_or(|key| key.has(record.db, record.rp));
            if seq < self.position || !is_of_key || !record.route().any(|i| i == index) {
                continue;
            }
            if !sink(record.view(first)) {
                self.position = seq;
                return false;
            }
            self.position = Seq(seq.0 + 1);
            self.given = self.position;
            got.records += 1;
            got.lines += u64::from(record.lines);
        }
        true
    }

    async fn read_disk(&mut self, shared: &SharedLog, sink: Sink<'_>, got: &mut Fetched) -> Result<ReadOutcome, Error> {
        if !self.locate(shared, got).await? {
            return Ok(ReadOutcome::Moved);
        }
        let mut cold = self.cold.take().expect("located");
        loop {
            // The next frame may be in memory now; a segment may be gone after every await.
            yield_if_needed().await;
            let (end, stored_lines) = {
                let mut inner = shared.inner.borrow_mut();
                self.publish(&mut inner);
                if self.cursor(&mut inner) > self.position {
                    return Ok(ReadOutcome::Moved); // the segment is being dropped
                }
                let Some(segment) = inner.segment_mut(cold.first, cold.epoch) else { return Ok(ReadOutcome::Moved) };
                cold.scan.end = segment.used;
                cold.scan.until = Some(segment.end);
                (segment.end, segment.stored_lines_end())
            };
            if let Some(found) = cold.frame.take() {
                if found.header.end() > self.position {
                    let more = self.give(cold.scan.body(&found), found.header.first, cold.index, sink, got);
                    if !more {
                        cold.frame = Some(found);
                        self.cold = Some(cold);
                        return Ok(ReadOutcome::Stopped);
                    }
                    self.position = found.header.end();
                }
                if shared.inner.borrow().tail.frame_at(self.position).is_some() {
                    return Ok(ReadOutcome::Moved);
                }
            }
            match cold.scan.step() {
                FrameStep::Read { offset, len } => {
                    let bytes = cold.file.read(offset, len).await;
                    let bytes = bytes.map_err(|e| Error::io("read", &shared.dir.join(&cold.name), e))?;
                    cold.scan.give(offset, bytes, len);
                }
                FrameStep::Frame(found) => {
                    let mark = Mark { seq: found.header.first, offset: found.offset, lines: found.header.lines_before };
                    if let Some(segment) = shared.inner.borrow_mut().segment_mut(cold.first, cold.epoch) {
                        segment.note(mark);
                    }
                    cold.frame = Some(found);
                }
                FrameStep::Gap(gap) => {
                    let damage = shared.damage_in(&cold.name, gap.bytes, gap.seqs.clone(), gap.lines);
                    self.pass(shared, cold.epoch, gap.seqs.end, damage, got).await;
                }
                FrameStep::End(ended) => {
                    let lines = stored_lines.saturating_sub(ended.after.lines);
                    let bytes = ended.after.offset..cold.scan.end.max(ended.after.offset);
                    let damage = shared.damage_in(&cold.name, bytes, ended.after.seq..end, lines);
                    self.pass(shared, cold.epoch, end, damage, got).await;
                    return Ok(ReadOutcome::Moved);
                }
            }
        }
    }

    /// Moves the position to `to`, past a place without frames. Reports the points lost there, if any.
    async fn pass(&mut self, shared: &SharedLog, epoch: u64, to: Seq, damage: super::Damage, got: &mut Fetched) {
        if damage.lines > 0 && to > self.position {
            // A file that has been removed may read as anything; that is not damage.
            if !shared.inner.borrow().segments.iter().any(|s| s.header.epoch == epoch) {
                return;
            }
            got.lost += damage.lines;
            shared.report(epoch, damage).await;
        }
        self.position = self.position.max(to);
    }

    /// Opens the segment of the position. False if there was none to open; the position has then moved.
    async fn locate(&mut self, shared: &SharedLog, got: &mut Fetched) -> Result<bool, Error> {
        let (first, epoch, name, index, scan) = {
            let inner = shared.inner.borrow();
            // Another file may have the name now.
            inner.check_gone()?;
            let at = inner.segments.partition_point(|s| s.end <= self.position);
            let Some(segment) = inner.segments.get(at) else { return Ok(false) };
            if segment.first() > self.position {
                // No segment has the position: a file is missing, or sequences were skipped after a crash.
                if let Some(before) = at.checked_sub(1).map(|i| &inner.segments[i]) {
                    got.lost += segment.header.lines_base.saturating_sub(before.lines_end);
                }
                self.position = segment.first();
                return Ok(false);
            }
            let index = segment.index_of(self.backend);
            let nothing = |i: u16| segment.bytes_by_backend.as_ref().is_some_and(|b| b[usize::from(i)] == 0);
            let Some(index) = index.filter(|&i| !nothing(i)) else {
                self.position = segment.end;
                return Ok(false);
            };
            let (first, epoch) = (segment.first(), segment.header.epoch);
            if self.cold.as_ref().is_some_and(|c| c.first == first && c.epoch == epoch) {
                return Ok(true);
            }
            let scan = Scan::new(epoch, segment.mark_before(self.position), segment.used, Some(segment.end));
            let scan = if self.is_one_of_many() { scan.reading(LOG_READ_BYTES_MIN) } else { scan };
            (first, epoch, segment.name(), index, scan)
        };
        self.cold = None;
        match shared.store.open(&name).await {
            Ok(file) => {
                let head = file.read(0, segment::FRAMES_AT).await;
                let head = head.map_err(|e| Error::io("read", &shared.dir.join(&name), e))?;
                if segment::Header::decode(&head).is_ok_and(|h| h.epoch != epoch) {
                    // Rewritten just now; the list of segments will be up to date soon.
                    sleep(LOG_REPLACED_PAUSE).await;
                    return Ok(false);
                }
                self.cold = Some(Cold { first, epoch, name, index, file, scan, frame: None });
                Ok(true)
            }
            // Rewritten or dropped in the meantime.
            Err(_) if shared.inner.borrow_mut().segment_mut(first, epoch).is_none() => Ok(false),
            Err(e) => Err(Error::io("open", &shared.dir.join(&name), e)),
        }
    }
}

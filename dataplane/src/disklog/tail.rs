//! The hot tail: the newest frames, in one ring buffer.
//!
//!   | frame | frame | frame being written | open frame ....      | oldest frame | frame | unused |
//!                                                          ^ at + len            (until the ring wraps)
//!
//! Lines are copied once, straight into the open frame; sealing adds the header in place. A frame is contiguous: when
//! less than a whole frame is left before the end of the ring, the next one opens at its start. Old frames are evicted
//! when their bytes are needed, but never a frame that is not on disk yet. At most one frame is sealed and not written.
//!
//! Not here: when frames are sealed and written (`commit.rs`).

use std::collections::VecDeque;

use super::{RecordKey, Seq, frame, record};

/// A sealed frame in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    pub(super) header: frame::Header,
    at: usize,
    /// Backends with records in this frame.
    pub(super) wanted: BackendSet,
    written: bool,
}

/// Backends by number. Those from 63 up share a bit: a false yes is possible, a false no is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BackendSet(u64);

impl BackendSet {
    fn bit(backend: usize) -> u64 {
        1 << backend.min(63)
    }

    fn insert(&mut self, backend: usize) {
        self.0 |= Self::bit(backend);
    }

    pub(super) fn may_contain(self, backend: usize) -> bool {
        self.0 & Self::bit(backend) != 0
    }
}

struct OpenFrame {
    at: usize,
    len: usize,
    records: u32,
    lines: u32,
    /// Start of the last record, if lines may still be added to it.
    last: Option<usize>,
    wanted: BackendSet,
}

/// No room now; wait until the frame being written is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

pub(super) struct Tail {
    ring: Box<[u8]>,
    /// Oldest first, in ring order.
    frames: VecDeque<Sealed>,
    open: Option<OpenFrame>,
    /// Start of the next frame.
    next_at: usize,
    /// First sequence of the open frame, or of the next one.
    first: Seq,
    /// Lines in the log before `first`.
    lines_before: u64,
    frame_bytes_max: usize,
}

impl Tail {
    pub(super) fn new(ring_bytes: usize, frame_bytes_max: usize, first: Seq, lines_before: u64) -> Self {
        assert!(ring_bytes >= 4 * frame_bytes_max, "a frame is filled while another is written");
        let ring = vec![0; ring_bytes].into_boxed_slice();
        Self { ring, frames: VecDeque::new(), open: None, next_at: 0, first, lines_before, frame_bytes_max }
    }

    /// Adds `lines` lines of `len` bytes, written by `fill`, to the end of the open frame. Returns the sequence of
    /// their record, which may be that of the lines before. Returns `fill` if there is no room. `stamp` counts unless
    /// [`Tail::seal`] gives another one.
    pub(super) fn put<F: FnOnce(&mut [u8])>(
        &mut self,
        key: &RecordKey<'_>,
        stamp: u64,
        lines: u32,
        len: usize,
        record_bytes_max: usize,
        fill: F,
    ) -> Result<Seq, (NoRoom, F)> {
        let grows = self.open.as_ref().and_then(|open| open.last).filter(|&last| {
            let old = record::read(&self.ring[last..]).expect("the last record is whole");
            old.has_key(key) && old.bytes.len() + len <= record_bytes_max
        });
        let need = len + if grows.is_some() { 0 } else { record::header_bytes(key) };
        if self.make_room(need).is_err() {
            return Err((NoRoom, fill));
        }
        let open = self.open.as_mut().expect("room was made in it");
        let mut at = open.at + open.len;
        open.len += need;
        open.lines += lines;
        match grows {
            Some(last) => record::extend(&mut self.ring[last..], len, lines),
            None => {
                record::write_header(&mut self.ring[at..], key, stamp, open.records, len, lines);
                open.last = Some(at);
                open.records += 1;
                key.route.iter().flatten().for_each(|b| open.wanted.insert(b.index()));
                at = open.at + open.len - len;
            }
        }
        fill(&mut self.ring[at..at + len]);
        Ok(Seq(self.first.0 + u64::from(open.records) - 1))
    }

    /// Extends the open frame's part of the ring by `need` bytes.
    fn make_room(&mut self, need: usize) -> Result<(), NoRoom> {
        if self.open.is_none() {
            let at = if self.ring.len() - self.next_at < self.frame_bytes_max {
                // Frames after `next_at` are from the lap before, and older than those at the start.
                while self.frames.front().is_some_and(|f| f.at >= self.next_at) {
                    self.evict()?;
                }
                0
            } else {
                self.next_at
            };
            self.next_at = at;
            self.clear(at, at + frame::HEADER_BYTES)?;
            self.open = Some(OpenFrame {
                at,
                len: frame::HEADER_BYTES,
                records: 0,
                lines: 0,
                last: None,
                wanted: BackendSet::default(),
            });
        }
        let open = self.open.as_ref().expect("opened above");
        if open.len + need > self.frame_bytes_max {
            return Err(NoRoom);
        }
        self.clear(open.at + open.len, open.at + open.len + need)
    }

    /// Evicts the frames in `from..to`.
    fn clear(&mut self, from: usize, to: usize) -> Result<(), NoRoom> {
        while self.frames.front().is_some_and(|f| f.at < to && from < f.at + f.header.len) {
            self.evict()?;
        }
        Ok(())
    }

    fn evict(&mut self) -> Result<(), NoRoom> {
        match self.frames.front() {
            Some(oldest) if oldest.written => {
                self.frames.pop_front();
                Ok(())
            }
            _ => Err(NoRoom),
        }
    }

    /// Bytes of the open frame; 0 = nothing to write.
    pub(super) fn open_len(&self) -> usize {
        self.open.as_ref().filter(|open| open.records > 0).map_or(0, |open| open.len)
    }

    /// True once the open frame is so full that a wait for more does not pay.
    pub(super) fn is_filled(&self) -> bool {
        self.open_len() >= self.frame_bytes_max / 2
    }

    /// No sealed frame waits to be written.
    pub(super) fn all_written(&self) -> bool {
        self.frames.back().is_none_or(|f| f.written)
    }

    /// Gives the next record a new sequence, even if its key is the same.
    pub(super) fn end_record(&mut self) {
        if let Some(open) = &mut self.open {
            open.last = None;
        }
    }

    /// The sequence after the last record.
    pub(super) fn end(&self) -> Seq {
        Seq(self.first.0 + self.open.as_ref().map_or(0, |open| u64::from(open.records)))
    }

    /// Lines in the log.
    pub(super) fn lines(&self) -> u64 {
        self.lines_before + self.open.as_ref().map_or(0, |open| u64::from(open.lines))
    }

    /// First sequence of the open frame, or of the next one.
    pub(super) fn open_first(&self) -> Seq {
        self.first
    }

    /// Lines in the log before [`Tail::open_first`].
    pub(super) fn lines_before(&self) -> u64 {
        self.lines_before
    }

    /// Closes the open frame, for the segment with `epoch`. With `stamp` all its records get this one. The frame must
    /// have records, and the frame sealed before must be written.
    pub(super) fn seal(&mut self, epoch: u64, stamp: Option<u64>) -> Sealed {
        assert!(self.all_written(), "one frame is written at a time");
        let open = self.open.take().filter(|open| open.records > 0).expect("sealing what has records");
        let header = frame::Header {
            len: open.len,
            epoch,
            first: self.first,
            span: open.records,
            lines_before: self.lines_before,
            lines: open.lines,
            records: open.records,
        };
        let bytes = &mut self.ring[open.at..open.at + open.len];
        if let Some(stamp) = stamp {
            set_stamps(bytes, stamp);
        }
        frame::seal(bytes, &header);
        self.first = header.end();
        self.lines_before = header.lines_after();
        self.next_at = open.at + open.len;
        let sealed = Sealed { header, at: open.at, wanted: open.wanted, written: false };
        self.frames.push_back(sealed);
        sealed
    }

    /// Gives the records of a sealed frame that is not written another stamp.
    pub(super) fn stamp_again(&mut self, sealed: &Sealed, stamp: u64) {
        let bytes = &mut self.ring[sealed.at..sealed.at + sealed.header.len];
        set_stamps(bytes, stamp);
        frame::seal(bytes, &sealed.header);
    }

    /// The stamp of the first record in the open frame, if it has one.
    pub(super) fn open_stamp(&self) -> Option<u64> {
        let open = self.open.as_ref().filter(|open| open.records > 0)?;
        record::read(&self.ring[open.at + frame::HEADER_BYTES..]).map(|record| record.stamp)
    }

    /// The sealed frame is on disk: it can be evicted and read from now on.
    pub(super) fn mark_written(&mut self) {
        self.frames.back_mut().expect("a frame was sealed").written = true;
    }

    /// Header and records of a sealed frame that is still in the ring.
    pub(super) fn bytes(&self, sealed: &Sealed) -> &[u8] {
        &self.ring[sealed.at..sealed.at + sealed.header.len]
    }

    /// Records that are not on disk: of the frame being written, and of the open one.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = record::Record<'_>> {
        let sealed = self.frames.iter().filter(|frame| !frame.written).map(|frame| self.bytes(frame));
        let open = self.open.iter().map(|open| &self.ring[open.at..open.at + open.len]);
        sealed.chain(open).flat_map(|frame| record::records(&frame[frame::HEADER_BYTES..]))
    }

    /// The first written frame that ends after `position`, if all written frames from `position` on are in memory.
    pub(super) fn frame_at(&self, position: Seq) -> Option<&Sealed> {
        let index = self.frames.partition_point(|f| f.header.end() <= position);
        self.frames.get(index).filter(|f| f.written && (f.header.first <= position || index > 0))
    }
}

/// Gives all records of a frame the same stamp.
fn set_stamps(frame: &mut [u8], stamp: u64) {
    let mut at = frame::HEADER_BYTES;
    while let Some(len) = record::read(&frame[at..]).map(|record| record.whole.len()) {
        record::set_stamp(&mut frame[at..], stamp);
        at += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;
    use crate::topology::BackendId;

    const KEY: RecordKey<'static> =
        RecordKey { db: b"db", rp: b"", precision: Precision::Second, route: &[Some(BackendId(1))] };

    fn put(tail: &mut Tail, key: &RecordKey<'_>, text: &str) -> Result<Seq, NoRoom> {
        tail.put(key, 7, 1, text.len(), 1000, |out| out.copy_from_slice(text.as_bytes())).map_err(|(e, _)| e)
    }

    #[test]
    fn lines_of_one_key_share_a_record() {
        let mut tail = Tail::new(8192, 2048, Seq(1), 0);
        assert_eq!(put(&mut tail, &KEY, "a\n"), Ok(Seq(1)));
        assert_eq!(put(&mut tail, &KEY, "b\n"), Ok(Seq(1)));
        assert_eq!(put(&mut tail, &RecordKey { db: b"other", ..KEY }, "c\n"), Ok(Seq(2)));
        assert_eq!(put(&mut tail, &KEY, "d\n"), Ok(Seq(3)));
        tail.end_record();
        assert_eq!(put(&mut tail, &KEY, "e\n"), Ok(Seq(4)));
        assert_eq!(put(&mut tail, &KEY, &"x".repeat(999)), Ok(Seq(5)), "a record has a bound");
        let sealed = tail.seal(9, None);
        assert_eq!((sealed.header.first, sealed.header.end(), sealed.header.lines), (Seq(1), Seq(6), 6));
        assert!(sealed.wanted.may_contain(1) && !sealed.wanted.may_contain(0));
        assert_eq!(frame::look(tail.bytes(&sealed), 9), frame::Look::Frame(sealed.header));
    }

    #[test]
    fn a_frame_that_is_not_on_disk_never_falls_out() {
        let mut tail = Tail::new(1024, 256, Seq(1), 0);
        put(&mut tail, &KEY, &"x".repeat(150)).unwrap();
        assert_eq!(put(&mut tail, &KEY, &"x".repeat(150)), Err(NoRoom), "the frame is full");
        let sealed = tail.seal(1, None);
        put(&mut tail, &KEY, &"y".repeat(150)).unwrap();
        assert_eq!(put(&mut tail, &KEY, &"y".repeat(150)), Err(NoRoom));
        assert!(tail.frame_at(Seq(1)).is_none(), "not yet to be read");
        tail.mark_written();
        assert_eq!(tail.frame_at(Seq(1)).unwrap().header, sealed.header);
    }

    #[test]
    fn the_newest_frames_stay_readable_lap_after_lap() {
        let mut tail = Tail::new(1024, 256, Seq(1), 0);
        for n in 1..200u64 {
            let text = format!("{n}").repeat(1 + (n as usize * 7) % 40);
            assert_eq!(put(&mut tail, &KEY, &text), Ok(Seq(n)));
            tail.seal(1, None);
            tail.mark_written();
            let mut seq = tail.frames.front().unwrap().header.first;
            assert!(n - seq.0 < 12 && (n < 8 || n > seq.0 + 1), "{n} {seq:?}");
            while seq.0 <= n {
                let found = *tail.frame_at(seq).unwrap();
                assert_eq!(found.header.first, seq);
                assert_eq!(frame::look(tail.bytes(&found), 1), frame::Look::Frame(found.header), "{n} {seq:?}");
                seq = found.header.end();
            }
            assert!(tail.frame_at(seq).is_none());
            assert!(tail.frame_at(Seq(0)).is_none(), "fallen out or never there");
        }
    }
}

//! Finds the frames of one segment without touching a file: it asks for bytes, gets them, and returns frames, gaps, and
//! an end.
//!
//! Where a frame should begin but none does, it tries block by block until it finds one with the right epoch, correct
//! checksums and a later sequence. Everything in between is a gap, and the header of that frame tells exactly what is
//! missing.

use std::ops::Range;

use super::segment::Mark;
use super::{Seq, frame};
use crate::limits::LOG_READ_BYTES;

/// The next step of a scan.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FrameStep {
    /// Read up to this many bytes at this offset and pass them to [`Scan::give`].
    Read { offset: u64, len: usize },
    /// A frame; its records are [`Scan::body`].
    Frame(Found),
    /// Frames are missing here; the frame after them is the next step.
    Gap(Gap),
    /// No frame follows. If `until` is set and not reached, the frames up to it are missing.
    End(End),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) header: frame::Header,
    pub(super) offset: u64,
    body: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) bytes: Range<u64>,
    pub(super) seqs: Range<Seq>,
    pub(super) lines: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// The sequence, lines and offset after the last frame.
    pub(super) after: Mark,
    /// Something like a frame of this segment begins at `after.offset`, but it is not whole.
    pub(super) broken: bool,
}

#[derive(Debug)]
pub(super) struct Scan {
    epoch: u64,
    /// What is expected at `offset`, or after a gap that has begun.
    expected: Mark,
    /// Where the next frame is looked for.
    offset: u64,
    broken: bool,
    /// Bytes of the file that may hold frames.
    pub(super) end: u64,
    /// No frame at or after this sequence is looked for; None = look to the end of the file.
    pub(super) until: Option<Seq>,
    window: Vec<u8>,
    window_at: u64,
}

impl Scan {
    pub(super) fn new(epoch: u64, from: Mark, end: u64, until: Option<Seq>) -> Self {
        Self { epoch, expected: from, offset: from.offset, broken: false, end, until, window: Vec::new(), window_at: 0 }
    }

    pub(super) fn step(&mut self) -> FrameStep {
        loop {
            if self.until.is_some_and(|until| self.expected.seq >= until)
                || self.offset + frame::HEADER_BYTES as u64 > self.end
            {
                return FrameStep::End(End { after: self.expected, broken: self.broken });
            }
            match frame::look(self.at_offset(), self.epoch) {
                frame::Look::Short(need) if self.offset + need as u64 <= self.end => {
                    let len = (need.max(LOG_READ_BYTES) as u64).min(self.end - self.offset) as usize;
                    return FrameStep::Read { offset: self.offset, len };
                }
                frame::Look::Frame(header) if header.first > self.expected.seq => {
                    let gap = Gap {
                        bytes: self.expected.offset..self.offset,
                        seqs: self.expected.seq..header.first,
                        lines: header.lines_before.saturating_sub(self.expected.lines),
                    };
                    self.expected = Mark { seq: header.first, offset: self.offset, lines: header.lines_before };
                    return FrameStep::Gap(gap);
                }
                frame::Look::Frame(header) if header.first == self.expected.seq => {
                    let at = (self.offset - self.window_at) as usize;
                    let body = at + frame::HEADER_BYTES..at + header.len;
                    let found = Found { header, offset: self.offset, body };
                    self.offset += frame::padded(header.len) as u64;
                    self.expected = Mark { seq: header.end(), offset: self.offset, lines: header.lines_after() };
                    self.broken = false;
                    return FrameStep::Frame(found);
                }
                // An earlier frame in the wrong place counts as damage: going back would repeat sequences.
                look => {
                    self.broken |= look != frame::Look::Nothing;
                    self.offset += frame::BLOCK_BYTES as u64;
                }
            }
        }
    }

    fn at_offset(&self) -> &[u8] {
        let at = self.offset.checked_sub(self.window_at).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.window.get(at..)).unwrap_or(&[])
    }

    /// Takes the bytes read at `offset`. Fewer bytes than asked for mean that the file ends there.
    pub(super) fn give(&mut self, offset: u64, bytes: Vec<u8>, asked: usize) {
        if bytes.len() < asked {
            self.end = self.end.min(offset + bytes.len() as u64);
        }
        self.window = bytes;
        self.window_at = offset;
    }

    /// The records of the frame that the last step returned.
    pub(super) fn body(&self, found: &Found) -> &[u8] {
        &self.window[found.body.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disklog::frame::tests::sample;
    use crate::disklog::{record, segment};

    const EPOCH: u64 = 0xfeed_0000_0000_0001;

    fn file(frames: &[(u64, u64, &[&str])]) -> Vec<u8> {
        let mut out = vec![0; segment::FRAMES_AT];
        for (first, lines, texts) in frames {
            out.extend(sample(EPOCH, Seq(*first), *lines, texts));
            out.resize(frame::padded(out.len()), 0);
        }
        out
    }

    fn walk(file: &[u8]) -> (Vec<String>, Vec<Gap>, End) {
        let from = Mark { seq: Seq(1), offset: segment::FRAMES_AT as u64, lines: 0 };
        let mut scan = Scan::new(EPOCH, from, file.len() as u64, None);
        let (mut texts, mut gaps) = (Vec::new(), Vec::new());
        loop {
            match scan.step() {
                FrameStep::Read { offset, len } => {
                    let from = offset as usize;
                    scan.give(offset, file[from..(from + len).min(file.len())].to_vec(), len);
                }
                FrameStep::Frame(found) => texts
                    .extend(record::records(scan.body(&found)).map(|r| String::from_utf8_lossy(r.bytes).into_owned())),
                FrameStep::Gap(gap) => gaps.push(gap),
                FrameStep::End(end) => return (texts, gaps, end),
            }
        }
    }

    #[test]
    fn a_damaged_middle_is_skipped_and_named_exactly() {
        let mut bytes = file(&[(1, 0, &["a\n", "b\n"]), (3, 2, &["c\n", "d\n", "e\n"]), (6, 5, &["f\n"])]);
        let second = segment::FRAMES_AT + frame::BLOCK_BYTES;
        assert_eq!(walk(&bytes).1, []);
        bytes[second + 90] ^= 1;
        let (texts, gaps, end) = walk(&bytes);
        assert_eq!(texts, ["a\n", "b\n", "f\n"]);
        let lost = second as u64..(second + frame::BLOCK_BYTES) as u64;
        assert_eq!(gaps, [Gap { bytes: lost, seqs: Seq(3)..Seq(6), lines: 3 }]);
        assert_eq!((end.after.seq, end.after.lines, end.broken), (Seq(7), 6, false));
    }

    #[test]
    fn an_earlier_frame_in_a_later_place_is_skipped() {
        let frames: [(u64, u64, &[&str]); 3] = [(1, 0, &["a\n", "b\n"]), (3, 2, &["c\n"]), (4, 3, &["d\n"])];
        let [first, second, third] = frames;
        let (texts, gaps, end) = walk(&file(&[first, second, first, second, third]));
        assert_eq!((texts.concat().as_str(), gaps, end.after.seq, end.broken), ("a\nb\nc\nd\n", vec![], Seq(5), false));
        let (texts, gaps, end) = walk(&file(&[first, second, first]));
        assert_eq!((texts.concat().as_str(), gaps, end.after.seq, end.broken), ("a\nb\nc\n", vec![], Seq(4), true));
        let (texts, gaps, end) = walk(&file(&[second, first]));
        assert_eq!((texts.concat().as_str(), gaps.len(), end.after.seq, end.broken), ("c\n", 1, Seq(4), true));
    }

    #[test]
    fn a_torn_tail_ends_before_it_at_every_length() {
        let bytes = file(&[(1, 0, &["a\n"]), (2, 1, &["b\n"])]);
        let second = segment::FRAMES_AT + frame::BLOCK_BYTES;
        let whole = sample(EPOCH, Seq(2), 1, &["b\n"]).len();
        for len in second..second + whole {
            let (texts, gaps, end) = walk(&bytes[..len]);
            assert_eq!((texts.len(), gaps.len(), end.after.seq), (1, 0, Seq(2)), "{len}");
            assert_eq!(end.broken, len >= second + frame::HEADER_BYTES, "{len}");
        }
        assert_eq!(walk(&bytes[..second + whole]).0.len(), 2);
    }
}

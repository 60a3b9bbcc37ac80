//! Finds the frames of one segment without touching a file: it asks for bytes, gets them, and returns frames, gaps, and
//! an end.
//!
//! Where a frame should begin but none does, it tries block by block until it finds one with the right epoch, correct
//! checksums and a later sequence. Everything in between is a gap, and the header of that frame tells exactly what is
//! missing.

use std::ops::Range;
use std::path::Path;

use super::segment::Mark;
use super::{Loss, Seq, Torn, frame};
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
    /// What lies there, if it looks like frames of this segment.
    pub(super) remains: Option<Remains>,
}

/// Frames of a segment after its last whole one. Only one frame is written at a time: where another one begins behind
/// it, a frame had been written as a whole, and with it what it holds had been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remains {
    /// Everything before it had been written.
    pub(super) written: Mark,
    /// A frame had been written of which nobody can tell how much it held.
    pub(super) untold: bool,
    /// Lines of the last frame, as far as its header can be read.
    pub(super) last_lines: Option<u32>,
    /// A crash has cut the last frame short.
    pub(super) cut_short: bool,
    /// The sequence and lines after the last frame, if its header can be read.
    last_end: Option<(Seq, u64)>,
}

impl Remains {
    /// Whether the last frame, or one that cannot be told, lies after `seq`.
    pub(super) fn is_after(&self, seq: Seq) -> bool {
        self.last_end.is_some_and(|(end, _)| end > seq)
    }

    /// What may be missing besides what lies before `written`. `end` is where the whole frames end.
    pub(super) fn torn(&self, file: &Path, end: Mark) -> Torn {
        let loss = match self.last_lines {
            _ if self.untold => Loss::Certain,
            _ if self.cut_short => Loss::CutShort,
            lines => Loss::Possible(lines.map(u64::from)),
        };
        Torn { file: file.to_owned(), offset: if self.untold { end.offset } else { self.written.offset }, loss }
    }
}

#[derive(Debug)]
pub(super) struct Scan {
    epoch: u64,
    /// What is expected at `offset`, or after a gap that has begun.
    expected: Mark,
    /// Where the next frame is looked for.
    offset: u64,
    remains: Option<Remains>,
    /// Bytes of the file that may hold frames.
    pub(super) end: u64,
    /// No frame at or after this sequence is looked for; None = look to the end of the file.
    pub(super) until: Option<Seq>,
    window: Vec<u8>,
    window_at: u64,
    read_bytes: usize,
}

impl Scan {
    pub(super) fn new(epoch: u64, from: Mark, end: u64, until: Option<Seq>) -> Self {
        let (window, window_at) = (Vec::new(), 0);
        let read_bytes = LOG_READ_BYTES;
        Self { epoch, expected: from, offset: from.offset, remains: None, end, until, window, window_at, read_bytes }
    }

    /// One read takes so many bytes, unless a frame is longer.
    pub(super) fn reading(self, read_bytes: usize) -> Self {
        Self { read_bytes, ..self }
    }

    pub(super) fn step(&mut self) -> FrameStep {
        loop {
            if self.until.is_some_and(|until| self.expected.seq >= until)
                || self.offset + frame::HEADER_BYTES as u64 > self.end
            {
                return FrameStep::End(End { after: self.expected, remains: self.remains });
            }
            match frame::look(self.at_offset(), self.epoch) {
                frame::Look::Short(need) if self.offset + need as u64 <= self.end => {
                    let len = (need.max(self.read_bytes) as u64).min(self.end - self.offset) as usize;
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
                    self.remains = None;
                    return FrameStep::Frame(found);
                }
                // An earlier frame in the wrong place counts as damage: going back would repeat sequences.
                look => {
                    if look != frame::Look::Nothing {
                        self.note_remains();
                    }
                    self.offset += frame::BLOCK_BYTES as u64;
                }
            }
        }
    }

    /// A frame that is not whole begins at `offset`, or something that looks like one.
    fn note_remains(&mut self) {
        let bytes = self.at_offset();
        // Text of a client's may look like a frame, but not like one of this epoch.
        let begins = frame::begins(bytes, self.epoch);
        if self.remains.is_some() && !begins {
            return;
        }
        let header = frame::header(bytes).filter(|header| header.epoch == self.epoch);
        let mut written = self.remains.map_or(self.expected, |before| before.written);
        let mut untold = self.remains.is_some_and(|before| before.untold);
        if begins && self.offset > self.expected.offset {
            match self.remains.and_then(|before| before.last_end) {
                Some((seq, lines)) => written = Mark { seq, offset: self.offset, lines },
                None => untold = true,
            }
        }
        let cut_short = header
            .and_then(|header| bytes.get(..header.len))
            .is_some_and(|frame| frame::has_unwritten_part(frame, self.epoch));
        let header = header.filter(|header| header.first >= written.seq);
        if let Some(header) = header.filter(|header| header.first > written.seq) {
            written = Mark { seq: header.first, offset: self.offset, lines: header.lines_before };
            untold = false;
        }
        let last_end = header.map(|header| (header.end(), header.lines_after()));
        let last_lines = header.map(|header| header.lines);
        self.remains = Some(Remains { written, untold, last_lines, cut_short, last_end });
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
        assert_eq!((end.after.seq, end.after.lines, end.remains), (Seq(7), 6, None));
    }

    #[test]
    fn an_earlier_frame_in_a_later_place_is_skipped() {
        let frames: [(u64, u64, &[&str]); 3] = [(1, 0, &["a\n", "b\n"]), (3, 2, &["c\n"]), (4, 3, &["d\n"])];
        let [first, second, third] = frames;
        let (texts, gaps, end) = walk(&file(&[first, second, first, second, third]));
        assert_eq!((texts.concat().as_str(), gaps, end.after.seq, end.remains), ("a\nb\nc\nd\n", vec![], Seq(5), None));
        let (texts, gaps, end) = walk(&file(&[first, second, first]));
        assert_eq!((texts.concat().as_str(), gaps, end.after.seq), ("a\nb\nc\n", vec![], Seq(4)));
        assert!(end.remains.is_some());
        let (texts, gaps, end) = walk(&file(&[second, first]));
        assert_eq!((texts.concat().as_str(), gaps.len(), end.after.seq), ("c\n", 1, Seq(4)));
        assert!(end.remains.is_some());
    }

    #[test]
    fn a_torn_tail_ends_before_it_at_every_length() {
        let bytes = file(&[(1, 0, &["a\n"]), (2, 1, &["b\n"])]);
        let second = segment::FRAMES_AT + frame::BLOCK_BYTES;
        let whole = sample(EPOCH, Seq(2), 1, &["b\n"]).len();
        for len in second..second + whole {
            let (texts, gaps, end) = walk(&bytes[..len]);
            assert_eq!((texts.len(), gaps.len(), end.after.seq), (1, 0, Seq(2)), "{len}");
            assert_eq!(end.remains.is_some(), len >= second + frame::HEADER_BYTES, "{len}");
        }
        assert_eq!(walk(&bytes[..second + whole]).0.len(), 2);
    }

    /// One frame is written at a time: of several at the end all but the last had been written.
    #[test]
    fn frames_damaged_at_the_end_are_counted_but_for_the_last() {
        let bytes = file(&[(1, 0, &["a\n"]), (2, 1, &["b\n", "c\n"]), (4, 3, &["d\n"]), (5, 4, &["e\n"])]);
        let frame_at = |n: usize| segment::FRAMES_AT + n * frame::BLOCK_BYTES;
        // Damaged bodies, damaged headers, or garbage, of the last frames: sequence and lines written, and how many
        // lines the last one may have held.
        type Case = (&'static [(usize, usize, usize)], (u64, u64), bool, Option<u32>);
        let cases: [Case; 7] = [
            (&[(3, 70, 1)], (5, 4), false, Some(1)),
            (&[(3, 20, 1)], (5, 4), false, None),
            (&[(2, 70, 1), (3, 70, 1)], (5, 4), false, Some(1)),
            (&[(2, 0, 200), (3, 70, 1)], (5, 4), false, Some(1)),
            (&[(2, 70, 1), (3, 20, 1)], (5, 4), false, None),
            (&[(2, 0, 200), (3, 20, 1)], (4, 3), true, None),
            (&[(1, 20, 1), (2, 70, 1), (3, 20, 1)], (5, 4), false, None),
        ];
        for (damage, written, untold, last_lines) in cases {
            let mut bad = bytes.clone();
            for &(frame, at, len) in damage {
                bad[frame_at(frame) + at..][..len].iter_mut().for_each(|byte| *byte ^= 0xa5);
            }
            let (_, gaps, end) = walk(&bad);
            let remains = end.remains.unwrap();
            let found = ((remains.written.seq.0, remains.written.lines), remains.untold, remains.last_lines);
            assert_eq!(found, (written, untold, last_lines), "{damage:?}");
            assert!(gaps.is_empty() && !remains.cut_short, "{damage:?}");
        }
    }
}

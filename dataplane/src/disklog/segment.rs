//! One log file: two copies of a header, then frames. Numbers are little-endian.
//!
//!   | header copy | header copy | frame | frame | ... | what an earlier life of the file left behind |
//!                               ^ FRAMES_AT             ^ used                                 ^ file_bytes
//!
//!   header copy: | magic "FXLOGSEG" | version u32 | worker u32 | epoch u64 | first u64 | lines_base u64 |
//!                | previous u64 | compacted_end u64 | stored_lines u64 | circles u16 | backends u16 |
//!                | per backend: len u16, name | zeros | XXH3 u64 of all before it |
//!
//! A file is named by its first sequence. It gets that name only when it is complete on disk, header included.
//! Not here: which segment comes next (`mod.rs`), how frames are found (`scan.rs`).

use std::rc::Rc;

use twox_hash::XxHash3_64;

use super::{Seq, frame};
use crate::limits::{LOG_MARK_BYTES, LOG_SEQ_MAX};
use crate::topology::{BackendId, Topology};

pub(super) const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"FXLOGSEG";
const COPY_BYTES: usize = 2 * frame::BLOCK_BYTES;
/// Offset of the first frame.
pub(super) const FRAMES_AT: usize = 2 * COPY_BYTES;
const FIXED_BYTES: usize = 68;

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) worker: u32,
    /// Random; frames with another epoch are left from an earlier life of the file.
    pub(super) epoch: u64,
    pub(super) first: Seq,
    /// Lines in the log before this segment.
    pub(super) lines_base: u64,
    /// First sequence of the segment before this one; shows that a file is missing.
    pub(super) previous: Seq,
    pub(super) compacted: Option<Compacted>,
    pub(super) circles: u16,
    pub(super) backends: Vec<String>,
}

/// What a rewritten segment covers. `lines_base` and frame headers count only the lines still in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compacted {
    /// The sequence after the last one that it covers.
    pub(super) end: Seq,
    pub(super) stored_lines: u64,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    Version(u32),
}

pub(super) fn file_name(first: Seq) -> String {
    format!("{:020}.seg", first.0)
}

/// The first sequence in a segment's file name.
pub(super) fn parse_file_name(name: &str) -> Option<Seq> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20).then(|| digits.parse().ok().map(Seq))?
}

/// A number that no earlier life of any segment has had.
pub(super) fn new_epoch() -> u64 {
    crate::io::unlike().max(1)
}

impl Header {
    /// A header for segments of this process: backend indexes are the topology's own.
    pub(super) fn of(topology: &Topology, worker: usize) -> Self {
        Self {
            worker: worker as u32,
            epoch: 0,
            first: Seq(0),
            lines_base: 0,
            previous: Seq(0),
            compacted: None,
            circles: topology.circles.len() as u16,
            backends: topology.backends.iter().map(|b| b.name.clone()).collect(),
        }
    }

    /// False if the names need more space than one header has.
    pub(super) fn fits(&self) -> bool {
        let names: usize = self.backends.iter().map(|n| 2 + n.len()).sum();
        FIXED_BYTES + names + 8 <= COPY_BYTES && self.circles <= u16::from(u8::MAX)
    }

    /// Both copies of the header, [`FRAMES_AT`] bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        assert!(self.fits(), "checked at open");
        let mut out = Vec::with_capacity(FRAMES_AT);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.worker.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.lines_base.to_le_bytes());
        out.extend_from_slice(&self.previous.0.to_le_bytes());
        out.extend_from_slice(&self.compacted.map_or(0, |c| c.end.0).to_le_bytes());
        out.extend_from_slice(&self.compacted.map_or(0, |c| c.stored_lines).to_le_bytes());
        out.extend_from_slice(&self.circles.to_le_bytes());
        out.extend_from_slice(&(self.backends.len() as u16).to_le_bytes());
        for name in &self.backends {
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name.as_bytes());
        }
        out.resize(COPY_BYTES - 8, 0);
        out.extend_from_slice(&XxHash3_64::oneshot(&out).to_le_bytes());
        out.extend_from_within(..);
        out
    }

    /// Reads a header from the start of a file; one valid copy is enough.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let first = bytes.get(..COPY_BYTES).map_or(Err(HeaderFault::Damaged), decode_copy);
        if first.is_ok() {
            return first;
        }
        // Another version in both copies, or in the only readable one, is not damage: a later version may lay out the
        // rest differently.
        bytes.get(COPY_BYTES..FRAMES_AT).and_then(|copy| decode_copy(copy).ok()).map_or(first, Ok)
    }
}

fn decode_copy(copy: &[u8]) -> Result<Header, HeaderFault> {
    let u64_at = |at: usize| u64::from_le_bytes(copy[at..at + 8].try_into().expect("8 bytes"));
    let u32_at = |at: usize| u32::from_le_bytes(copy[at..at + 4].try_into().expect("4 bytes"));
    let u16_at = |at: usize| copy.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if copy[..8] != MAGIC {
        return Err(HeaderFault::Damaged);
    }
    if u32_at(8) != VERSION {
        return Err(HeaderFault::Version(u32_at(8)));
    }
    if u64_at(COPY_BYTES - 8) != XxHash3_64::oneshot(&copy[..COPY_BYTES - 8]) {
        return Err(HeaderFault::Damaged);
    }
    // With correct checksums this holds for what this code wrote. It is checked so that later additions cannot
    // overflow.
    if (24..=56).step_by(8).any(|at| u64_at(at) > LOG_SEQ_MAX) {
        return Err(HeaderFault::Damaged);
    }
    let mut at = FIXED_BYTES;
    let mut backends = Vec::new();
    for _ in 0..u16_at(66).ok_or(HeaderFault::Damaged)? {
        let len = usize::from(u16_at(at).ok_or(HeaderFault::Damaged)?);
        let name =
            copy.get(at + 2..at + 2 + len).and_then(|n| std::str::from_utf8(n).ok()).ok_or(HeaderFault::Damaged)?;
        backends.push(name.to_owned());
        at += 2 + len;
    }
    let compacted_end = Seq(u64_at(48));
    Ok(Header {
        worker: u32_at(12),
        epoch: u64_at(16),
        first: Seq(u64_at(24)),
        lines_base: u64_at(32),
        previous: Seq(u64_at(40)),
        compacted: (compacted_end.0 != 0).then_some(Compacted { end: compacted_end, stored_lines: u64_at(56) }),
        circles: u16_at(64).ok_or(HeaderFault::Damaged)?,
        backends,
    })
}

/// Where in a segment a frame begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) offset: u64,
    pub(super) lines: u64,
}

/// A segment of an open log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Rc<Header>,
    /// The sequence after the last one written to the segment.
    pub(super) end: Seq,
    /// Lines in the log before `end`, including lines that compaction left out.
    pub(super) lines_end: u64,
    /// Bytes that may hold frames.
    pub(super) used: u64,
    pub(super) file_bytes: u64,
    /// Maps names in the header to backends of this process; None = not in the configuration.
    pub(super) backends: Rc<[Option<BackendId>]>,
    /// Places to start a search for a sequence from: about one for each `LOG_MARK_BYTES`, as far as known.
    marks: Vec<Mark>,
    /// Record bytes for each name in the header; None until counted.
    pub(super) bytes_by_backend: Option<Vec<u64>>,
    /// Never rewritten, and its file is never recycled.
    pub(super) damaged: bool,
    /// Being rewritten or dropped: it is kept until that is done.
    pub(super) busy: bool,
}

impl Segment {
    pub(super) fn new(header: Header, topology: &Topology, file_bytes: u64) -> Self {
        let backends = header.backends.iter().map(|name| topology.by_name(name).map(|b| b.id)).collect();
        let (end, lines_end) =
            header.compacted.map_or((header.first, header.lines_base), |c| (c.end, header.lines_base));
        let mark = Mark { seq: header.first, offset: FRAMES_AT as u64, lines: header.lines_base };
        Self {
            end,
            lines_end,
            used: FRAMES_AT as u64,
            file_bytes,
            backends,
            marks: vec![mark],
            bytes_by_backend: None,
            damaged: false,
            busy: false,
            header: Rc::new(header),
        }
    }

    pub(super) fn name(&self) -> String {
        file_name(self.header.first)
    }

    pub(super) fn first(&self) -> Seq {
        self.header.first
    }

    /// Lines in the log before the segment's end, as its own frames count.
    pub(super) fn stored_lines_end(&self) -> u64 {
        self.header.compacted.map_or(self.lines_end, |c| self.header.lines_base + c.stored_lines)
    }

    /// The index of `backend` in this segment's routes.
    pub(super) fn index_of(&self, backend: BackendId) -> Option<u16> {
        self.backends.iter().position(|b| *b == Some(backend)).map(|i| i as u16)
    }

    /// A rewritten file has taken this segment's place. It covers the same sequences.
    pub(super) fn rewritten(&mut self, header: Header, marks: &[Mark], used: u64, bytes_by_backend: Vec<u64>) {
        self.header = Rc::new(header);
        self.marks.truncate(1);
        marks.iter().for_each(|mark| self.note(*mark));
        self.used = used;
        self.file_bytes = used;
        self.bytes_by_backend = Some(bytes_by_backend);
    }

    /// The last mark at or before `seq`.
    pub(super) fn mark_before(&self, seq: Seq) -> Mark {
        self.marks[self.marks.partition_point(|m| m.seq <= seq).saturating_sub(1)]
    }

    /// Notes where a frame begins, unless the last mark is close.
    pub(super) fn note(&mut self, mark: Mark) {
        let last = self.marks.last().expect("the first frame's place is always known");
        if mark.offset >= last.offset + LOG_MARK_BYTES && mark.seq > last.seq {
            self.marks.push(mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            worker: 3,
            epoch: 77,
            first: Seq(1001),
            lines_base: 5000,
            previous: Seq(1),
            compacted: Some(Compacted { end: Seq(2000), stored_lines: 12 }),
            circles: 2,
            backends: vec!["a-1".into(), "β".into()],
        }
    }

    #[test]
    fn either_copy_of_the_header_is_enough() {
        let bytes = sample().encode();
        assert_eq!(bytes.len(), FRAMES_AT);
        assert_eq!(Header::decode(&bytes), Ok(sample()));
        for at in (0..FRAMES_AT).filter(|at| at % COPY_BYTES < 120 || at % COPY_BYTES > COPY_BYTES - 20) {
            let mut bad = bytes.clone();
            bad[at] ^= 0xff;
            assert_eq!(Header::decode(&bad), Ok(sample()), "{at}");
        }
        let mut bad = bytes.clone();
        bad[20] ^= 1;
        bad[COPY_BYTES + 20] ^= 1;
        assert_eq!(Header::decode(&bad), Err(HeaderFault::Damaged));
        assert_eq!(Header::decode(&bytes[..100]), Err(HeaderFault::Damaged));
    }

    #[test]
    fn another_version_is_not_damage() {
        let mut bytes = sample().encode();
        bytes[8] = 9;
        bytes[COPY_BYTES..].fill(0);
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Version(9)));
    }

    #[test]
    fn names_carry_the_first_sequence() {
        assert_eq!(parse_file_name(&file_name(Seq(42))), Some(Seq(42)));
        for other in ["state", "42.seg", "00000000000000000042.seg.tmp", "spare-1.free", "0000000000000000004x.seg"] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}

//! A frame is what one disk write carries: a header and records, padded to whole blocks. Numbers are little-endian.
//!
//!   | magic "FXF1" | len u32 | epoch u64 | first u64 | lines_before u64 | span u32 | lines u32 |
//!   | records u32 | zero u32 | body XXH3 u64 | header XXH3 u64 | records ... | padding |
//!
//! `len` counts header and records without padding. `epoch` is the segment's; frames from an earlier life of a recycled
//! file have another one. The frame covers the sequences `first .. first + span`, also where compaction left records
//! out. `lines_before` counts all lines in earlier frames, so that the frame after a damaged one tells exactly what is
//! missing. The header has its own checksum, so that a frame with a damaged body still tells how much was lost.
//!
//! Two frames never share a block: a write that fails half-way cannot damage an older frame, also on devices that
//! rewrite a whole physical block of 4 KiB to change 512 bytes of it.

use twox_hash::XxHash3_64;

use super::{Seq, record};
use crate::limits::LOG_SEQ_MAX;

pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"FXF1";

pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(BLOCK_BYTES)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: usize,
    pub(super) epoch: u64,
    pub(super) first: Seq,
    pub(super) span: u32,
    pub(super) lines_before: u64,
    pub(super) lines: u32,
    pub(super) records: u32,
}

impl Header {
    /// The sequence after the last one that this frame covers.
    pub(super) fn end(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.span))
    }

    pub(super) fn lines_after(&self) -> u64 {
        self.lines_before + u64::from(self.lines)
    }
}

/// Writes header and checksums into `frame`, which already contains its records.
pub(super) fn seal(frame: &mut [u8], header: &Header) {
    assert_eq!(frame.len(), header.len, "a frame is sealed as a whole");
    let (head, body) = frame.split_at_mut(HEADER_BYTES);
    head[0..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&(header.len as u32).to_le_bytes());
    head[8..16].copy_from_slice(&header.epoch.to_le_bytes());
    head[16..24].copy_from_slice(&header.first.0.to_le_bytes());
    head[24..32].copy_from_slice(&header.lines_before.to_le_bytes());
    head[32..36].copy_from_slice(&header.span.to_le_bytes());
    head[36..40].copy_from_slice(&header.lines.to_le_bytes());
    head[40..44].copy_from_slice(&header.records.to_le_bytes());
    head[44..48].fill(0);
    head[48..56].copy_from_slice(&XxHash3_64::oneshot(body).to_le_bytes());
    let sum = XxHash3_64::oneshot(&head[..56]);
    head[56..64].copy_from_slice(&sum.to_le_bytes());
}

/// What lies at a block boundary of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// A whole frame of this segment with correct checksums.
    Frame(Header),
    /// This many bytes are needed to decide.
    Short(usize),
    /// A frame of this segment began here, but it is damaged or was never finished.
    Broken,
    /// No trace of a frame of this segment.
    Nothing,
}

/// Looks for a frame of the segment with `epoch` at the start of `bytes`.
pub(super) fn look(bytes: &[u8], epoch: u64) -> Look {
    let Some(head) = bytes.get(..HEADER_BYTES) else { return Look::Short(HEADER_BYTES) };
    let Some(header) = header(bytes) else {
        // One flipped byte cannot hide a frame: it cannot change both magic and epoch. The epoch is random, so that
        // other bytes here do not match it. Frames of an earlier life have correct checksums.
        return if begins(bytes, epoch) || head.starts_with(&MAGIC) { Look::Broken } else { Look::Nothing };
    };
    if header.epoch != epoch {
        return Look::Nothing;
    }
    let sound = header.len >= HEADER_BYTES && header.first.0 <= LOG_SEQ_MAX && header.lines_before <= LOG_SEQ_MAX;
    if !sound {
        return Look::Broken;
    }
    let Some(body) = bytes.get(HEADER_BYTES..header.len) else { return Look::Short(header.len) };
    if XxHash3_64::oneshot(body) != u64_in(head, 48) || !agrees(&header, body) {
        return Look::Broken;
    }
    Look::Frame(header)
}

fn u64_in(head: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"))
}

/// Whether a frame of the segment with `epoch` begins here, whole or not. The epoch is random: nothing else matches.
pub(super) fn begins(bytes: &[u8], epoch: u64) -> bool {
    bytes.len() >= HEADER_BYTES && u64_in(bytes, 8) == epoch
}

/// The header at the start of `bytes`, of whichever segment, if its own checksum is correct.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let head = bytes.get(..HEADER_BYTES)?;
    let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("4 bytes"));
    if !head.starts_with(&MAGIC) || u64_in(head, 56) != XxHash3_64::oneshot(&head[..56]) {
        return None;
    }
    Some(Header {
        len: u32_at(4) as usize,
        epoch: u64_in(head, 8),
        first: Seq(u64_in(head, 16)),
        span: u32_at(32),
        lines_before: u64_in(head, 24),
        lines: u32_at(36),
        records: u32_at(40),
    })
}

/// Whether a part of this frame, which is not whole, was never written: a sector without content, or what an earlier
/// life of the file left there. A crash has then cut the write short. Damage that comes later leaves no such trace.
pub(super) fn has_unwritten_part(frame: &[u8], epoch: u64) -> bool {
    const SECTOR_BYTES: usize = 512;
    let of_earlier_life = |block: &[u8]| header(block).is_some_and(|header| header.epoch != epoch);
    frame.chunks(SECTOR_BYTES).any(|sector| sector.iter().all(|&byte| byte == 0))
        || frame.chunks(BLOCK_BYTES).any(of_earlier_life)
}

/// Whether all records are there and within the span of the header. With correct checksums this holds for whatever this
/// code wrote. It is checked so that later code need not check again.
fn agrees(header: &Header, body: &[u8]) -> bool {
    let (mut count, mut lines, mut bytes) = (0u32, 0u64, 0usize);
    let mut last = None;
    for record in record::records(body) {
        if record.delta >= header.span || last.is_some_and(|l| l >= record.delta) {
            return false;
        }
        last = Some(record.delta);
        count += 1;
        lines += u64::from(record.lines);
        bytes += record.whole.len();
    }
    count == header.records && lines == u64::from(header.lines) && bytes == body.len()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disklog::RecordKey;
    use crate::precision::Precision;

    /// A sealed frame with one record per text.
    pub(in crate::disklog) fn sample(epoch: u64, first: Seq, lines_before: u64, texts: &[&str]) -> Vec<u8> {
        let key = RecordKey { db: b"db", rp: b"", precision: Precision::Nanosecond, route: &[] };
        let mut frame = vec![0; HEADER_BYTES];
        for (i, text) in texts.iter().enumerate() {
            let at = frame.len();
            frame.resize(at + record::header_bytes(&key), 0);
            record::write_header(&mut frame[at..], &key, 7, i as u32, text.len(), 1);
            frame.extend_from_slice(text.as_bytes());
        }
        let count = texts.len() as u32;
        let header = Header { len: frame.len(), epoch, first, span: count, lines_before, lines: count, records: count };
        seal(&mut frame, &header);
        frame
    }

    #[test]
    fn a_flip_anywhere_is_seen_and_never_hides_the_frame() {
        let frame = sample(0x1234_5678_9abc_def0, Seq(5), 40, &["a b=1\n", "c d=2\n"]);
        let Look::Frame(header) = look(&frame, 0x1234_5678_9abc_def0) else { panic!() };
        assert_eq!((header.first, header.end(), header.lines_after()), (Seq(5), Seq(7), 42));
        for at in 0..frame.len() {
            let mut bad = frame.clone();
            bad[at] ^= 0x20;
            assert_eq!(look(&bad, 0x1234_5678_9abc_def0), Look::Broken, "{at}");
        }
        for len in 0..frame.len() {
            assert!(matches!(look(&frame[..len], 0x1234_5678_9abc_def0), Look::Short(n) if n > len), "{len}");
        }
        assert_eq!(look(&frame, 1), Look::Nothing, "an earlier life of the file");
    }

    #[test]
    fn a_write_that_was_cut_short_is_told_from_damage() {
        let line = format!("m t=\"{}\"\n", "x".repeat(9_000));
        let frame = sample(1, Seq(5), 40, &[&line]);
        let old = sample(2, Seq(1), 0, &[&line]);
        assert!(!has_unwritten_part(&frame, 1));
        for at in [0, 100, 5_000] {
            let mut damaged = frame.clone();
            damaged[at..at + 50].fill(0xa5);
            assert!(!has_unwritten_part(&damaged, 1), "{at}");
            let mut cut = frame.clone();
            cut[(at + 512).next_multiple_of(512)..][..512].fill(0);
            assert!(has_unwritten_part(&cut, 1), "{at}");
        }
        let mut cut = frame.clone();
        cut[BLOCK_BYTES..][..1_000].copy_from_slice(&old[..1_000]);
        assert!(has_unwritten_part(&cut, 1));
    }
}

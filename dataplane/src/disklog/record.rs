//! One record in a frame: a header, then whole lines. Numbers are little-endian.
//!
//!   | delta u32 | len u32 | lines u32 | precision u8 | circles u8 | db_len u16 | rp_len u16 | stamp u64 |
//!   | route u16 x circles | db | rp | bytes (len) |
//!
//! `delta` is the record's sequence minus the frame's first one; a compacted frame has holes. `route` holds, by circle,
//! an index into the backend names of the segment header, or [`NOWHERE`]. While data is being moved, further backends
//! follow. So `circles` counts entries, and may be more than the segment's number of circles.
//!
//! Not here: checksums (`frame.rs`), what an index means (`segment.rs`).

use super::{RecordKey, RecordView, Seq};
use crate::precision::Precision;
use crate::topology::BackendId;

/// Bytes of a record header without route and names.
const FIXED_BYTES: usize = 26;
const STAMP: std::ops::Range<usize> = 18..26;
/// Route entry of a circle that does not want the record.
pub(super) const NOWHERE: u16 = u16::MAX;

/// Bytes that `key` needs in front of a record's lines.
pub(super) fn header_bytes(key: &RecordKey<'_>) -> usize {
    FIXED_BYTES + 2 * key.route.len() + key.db.len() + key.rp.len()
}

fn route_code(backend: Option<BackendId>) -> u16 {
    backend.map_or(NOWHERE, |b| b.0)
}

/// Writes the header of a record of `len` bytes to the start of `out`, which has [`header_bytes`] bytes.
pub(super) fn write_header(out: &mut [u8], key: &RecordKey<'_>, stamp: u64, delta: u32, len: usize, lines: u32) {
    out[0..4].copy_from_slice(&delta.to_le_bytes());
    out[4..8].copy_from_slice(&(len as u32).to_le_bytes());
    out[8..12].copy_from_slice(&lines.to_le_bytes());
    out[12] = key.precision as u8;
    out[13] = u8::try_from(key.route.len()).expect("circles are bounded at open");
    out[14..16].copy_from_slice(&(key.db.len() as u16).to_le_bytes());
    out[16..18].copy_from_slice(&(key.rp.len() as u16).to_le_bytes());
    out[STAMP].copy_from_slice(&stamp.to_le_bytes());
    let mut at = FIXED_BYTES;
    for backend in key.route {
        out[at..at + 2].copy_from_slice(&route_code(*backend).to_le_bytes());
        at += 2;
    }
    out[at..at + key.db.len()].copy_from_slice(key.db);
    at += key.db.len();
    out[at..at + key.rp.len()].copy_from_slice(key.rp);
}

/// Changes the sequence of the record whose header starts `out`, relative to its frame.
pub(super) fn set_delta(out: &mut [u8], delta: u32) {
    out[0..4].copy_from_slice(&delta.to_le_bytes());
}

/// Changes the stamp of the record whose header starts `out`.
pub(super) fn set_stamp(out: &mut [u8], stamp: u64) {
    out[STAMP].copy_from_slice(&stamp.to_le_bytes());
}

/// Adds `len` bytes and `lines` lines to the record whose header starts `out`.
pub(super) fn extend(out: &mut [u8], len: usize, lines: u32) {
    let old_len = u32::from_le_bytes(out[4..8].try_into().expect("4 bytes"));
    let old_lines = u32::from_le_bytes(out[8..12].try_into().expect("4 bytes"));
    out[4..8].copy_from_slice(&(old_len + len as u32).to_le_bytes());
    out[8..12].copy_from_slice(&(old_lines + lines).to_le_bytes());
}

/// A record in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// Header and lines.
    pub(super) whole: &'a [u8],
    pub(super) delta: u32,
    pub(super) lines: u32,
    pub(super) precision: Precision,
    pub(super) stamp: u64,
    route: &'a [u8],
    pub(super) db: &'a [u8],
    pub(super) rp: &'a [u8],
    pub(super) bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Indexes into the segment's backend names, without the circles that do not want the record. Positions are not
    /// those of the circles.
    pub(super) fn route(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.route_by_circle().filter(|&index| index != NOWHERE)
    }

    pub(super) fn route_by_circle(&self) -> impl Iterator<Item = u16> + use<'a> {
        self.route.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    /// True if lines with `key` may be added to this record instead of opening a new one.
    pub(super) fn has_key(&self, key: &RecordKey<'_>) -> bool {
        self.precision == key.precision
            && self.db == key.db
            && self.rp == key.rp
            && self.route.len() == 2 * key.route.len()
            && self.route_by_circle().eq(key.route.iter().map(|b| route_code(*b)))
    }

    pub(super) fn view(&self, frame_first: Seq) -> RecordView<'a> {
        RecordView {
            seq: self.seq(frame_first),
            db: self.db,
            rp: self.rp,
            precision: self.precision,
            stamp: self.stamp,
            lines: self.lines,
            bytes: self.bytes,
        }
    }

    pub(super) fn seq(&self, frame_first: Seq) -> Seq {
        Seq(frame_first.0 + u64::from(self.delta))
    }
}

/// Reads the record at the start of `bytes`; None if there is none.
pub(super) fn read(bytes: &[u8]) -> Option<Record<'_>> {
    let fixed = bytes.get(..FIXED_BYTES)?;
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
    let u32_at = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let route_end = FIXED_BYTES + 2 * usize::from(fixed[13]);
    let db_end = route_end + u16_at(14);
    let rp_end = db_end + u16_at(16);
    let end = rp_end.checked_add(u32_at(4) as usize)?;
    let whole = bytes.get(..end)?;
    Some(Record {
        whole,
        delta: u32_at(0),
        lines: u32_at(8),
        precision: Precision::from_u8(fixed[12])?,
        stamp: u64::from_le_bytes(fixed[STAMP].try_into().expect("8 bytes")),
        route: &whole[FIXED_BYTES..route_end],
        db: &whole[route_end..db_end],
        rp: &whole[db_end..rp_end],
        bytes: &whole[rp_end..],
    })
}

/// The records of a frame's body, in order; ends early at bytes that are not a record.
pub(super) fn records(mut body: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let record = read(body)?;
        body = &body[record.whole.len()..];
        Some(record)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_knows_its_key() {
        let route = [Some(BackendId(3)), None, Some(BackendId(0))];
        let key = RecordKey { db: b"telegraf", rp: b"week", precision: Precision::Second, route: &route };
        let mut buf = vec![0; header_bytes(&key) + 9];
        write_header(&mut buf, &key, 9, 7, 4, 1);
        let at = header_bytes(&key);
        buf[at..at + 4].copy_from_slice(b"m v\n");
        let record = read(&buf).unwrap();
        assert_eq!((record.delta, record.lines, record.bytes), (7, 1, &b"m v\n"[..]));
        assert_eq!(record.route().collect::<Vec<_>>(), [3, 0]);
        assert!(record.has_key(&key));
        assert!(!record.has_key(&RecordKey { rp: b"", ..key }));
        assert!(!record.has_key(&RecordKey { route: &route[..2], ..key }));
        assert!(!record.has_key(&RecordKey { precision: Precision::Hour, ..key }));

        extend(&mut buf, 5, 2);
        buf[at + 4..].copy_from_slice(b"m w\n\n");
        let record = read(&buf).unwrap();
        assert_eq!((record.lines, record.bytes), (3, &b"m v\nm w\n\n"[..]));
    }

    #[test]
    fn a_cut_record_is_none_at_every_length() {
        let key = RecordKey { db: b"d", rp: b"", precision: Precision::Nanosecond, route: &[None] };
        let mut buf = vec![b'x'; header_bytes(&key) + 3];
        write_header(&mut buf, &key, 9, 0, 3, 1);
        assert!(read(&buf).is_some());
        for len in 0..buf.len() {
            assert!(read(&buf[..len]).is_none(), "{len}");
        }
    }
}

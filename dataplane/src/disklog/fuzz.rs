//! Fuzz bodies: ordinary functions over bytes, called by fuzz targets and by unit tests.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use twox_hash::XxHash3_64;

use super::recovery::recover;
use super::scan::{FrameStep, Scan};
use super::segment::{FRAMES_AT, Header, file_name};
use super::store::Files;
use super::{frame, record};
use crate::topology::Topology;

/// A directory with one file.
struct OneFile<'a> {
    name: String,
    bytes: &'a [u8],
}

impl Files for OneFile<'_> {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(vec![(self.name.clone(), self.bytes.len() as u64)])
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if name != self.name {
            return Err(io::ErrorKind::NotFound.into());
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(self.bytes[from..from.saturating_add(len).min(self.bytes.len())].to_vec())
    }
}

/// Takes `data` for a segment. Recovery must not panic. Every frame that the scan returns must have correct checksums
/// (checked independently), lie after the frame before it, and hold its records in order. Runs once as it is, and once
/// with all checksums corrected, so that the code behind them is tested as well.
pub fn fuzz_open(data: &[u8]) {
    frames(data);
    frames(&with_correct_checksums(data));
}

/// `data` with correct checksums in everything that looks like a header or a frame.
fn with_correct_checksums(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    let sum = |bytes: &[u8]| XxHash3_64::oneshot(bytes).to_le_bytes();
    let head = data.len().min(FRAMES_AT);
    for copy in data[..head].chunks_exact_mut(FRAMES_AT / 2) {
        let end = copy.len() - 8;
        let right = sum(&copy[..end]);
        copy[end..].copy_from_slice(&right);
    }
    for at in (FRAMES_AT..data.len()).step_by(frame::BLOCK_BYTES) {
        let frame = &mut data[at..];
        let Some(len) = frame.get(4..8).map(|len| u32::from_le_bytes(len.try_into().expect("4 bytes"))) else { break };
        if frame.starts_with(b"FXF1") && (frame::HEADER_BYTES..=frame.len()).contains(&(len as usize)) {
            let body = sum(&frame[frame::HEADER_BYTES..len as usize]);
            frame[48..56].copy_from_slice(&body);
            let header = sum(&frame[..56]);
            frame[56..64].copy_from_slice(&header);
        }
    }
    data
}

/// The number of frames in the segment `data`. Panics when a promise of [`fuzz_open`] is broken.
pub fn frames(data: &[u8]) -> usize {
    let Ok(header) = Header::decode(&data[..data.len().min(FRAMES_AT)]) else { return 0 };
    let files = OneFile { name: file_name(header.first), bytes: data };
    let recovered = recover(&files, Path::new("log"), &Topology::default());
    let segment = super::segment::Segment::new(header, &Topology::default(), data.len() as u64);
    let mut scan = Scan::new(segment.header.epoch, segment.mark_before(segment.first()), data.len() as u64, None);
    let mut last = segment.first();
    let mut good = BTreeSet::new();
    loop {
        match scan.step() {
            FrameStep::Read { offset, len } => {
                scan.give(offset, files.read(&files.name, offset, len).expect("in memory"), len);
            }
            FrameStep::Frame(found) => {
                let at = found.offset as usize;
                let whole = &data[at..at + found.header.len];
                let sum = |range: std::ops::Range<usize>| XxHash3_64::oneshot(&whole[range]).to_le_bytes();
                assert_eq!(whole[56..64], sum(0..56), "header checksum");
                assert_eq!(whole[48..56], sum(64..whole.len()), "body checksum");
                assert!(found.header.first >= last, "frames go forward");
                last = found.header.end();
                let mut seq = found.header.first;
                for record in record::records(scan.body(&found)) {
                    assert!(record.seq(found.header.first) >= seq, "records go forward");
                    seq = record.seq(found.header.first);
                }
                assert!(good.insert(at) && at.is_multiple_of(frame::BLOCK_BYTES), "each frame once");
            }
            FrameStep::Gap(gap) => assert!(gap.seqs.start < gap.seqs.end && gap.bytes.start <= gap.bytes.end),
            FrameStep::End(_) => break,
        }
    }
    // The header of a compacted segment says where it ends, and recovery trusts it.
    let end = segment.header.compacted.map_or(last, |compacted| compacted.end.min(last));
    if let Ok(recovered) = recovered {
        assert!(recovered.next >= end, "sequences do not repeat");
    }
    good.len()
}

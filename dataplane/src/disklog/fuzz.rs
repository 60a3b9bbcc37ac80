//! Fuzz bodies: ordinary functions over bytes, called by fuzz targets and by unit tests.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use twox_hash::XxHash3_64;

use super::recovery::recover;
use super::scan::{Scan, Step};
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

/// Takes `data` for a segment: whatever it holds, recovery does not panic, and every frame that the scan yields has
/// right checksums by a check of its own, lies after the one before it, and holds its records in order.
pub fn fuzz_open(data: &[u8]) {
    let Ok(header) = Header::decode(&data[..data.len().min(FRAMES_AT)]) else { return };
    let files = OneFile { name: file_name(header.first), bytes: data };
    let recovered = recover(&files, Path::new("log"), &Topology::default());
    let segment = super::segment::Segment::new(header, &Topology::default(), data.len() as u64);
    let mut scan = Scan::new(segment.header.epoch, segment.mark_before(segment.first()), data.len() as u64, None);
    let mut last = segment.first();
    let mut good = BTreeSet::new();
    loop {
        match scan.step() {
            Step::Read { offset, len } => {
                scan.give(offset, files.read(&files.name, offset, len).expect("in memory"), len);
            }
            Step::Frame(found) => {
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
            Step::Gap(gap) => assert!(gap.seqs.start < gap.seqs.end && gap.bytes.start <= gap.bytes.end),
            Step::End(_) => break,
        }
    }
    if let Ok(recovered) = recovered {
        assert!(recovered.next >= last, "sequences do not repeat");
    }
}

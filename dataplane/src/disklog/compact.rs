//! Rewrites sealed segments that only lagging backends still need, so that they hold only the records these need.
//!
//! One segment at a time, while the log is in use: frames are read, the records still needed are written to a `.tmp`
//! file with their old sequences, and that file gets the segment's name once it is durable. After an earlier crash the
//! old segment is there, and a `.tmp` file that the next open removes; after a later one, the new segment. The new
//! frames cover all sequences of the old segment, so that a gap still means a loss. Readers find their place by
//! sequence.
//!
//! A segment with damage is not rewritten: it is the only evidence. Without space, or after a failure, the old segment
//! stays.

use std::io;
use std::rc::Rc;

use super::scan::{FrameStep, Scan};
use super::segment::{self, Compacted, FRAMES_AT, Header, Mark};
use super::store::{ReadFile, WriteFile};
use super::{Seq, SharedLog, frame, record};
use crate::crash;
use crate::io::yield_if_needed;
use crate::limits::LOG_LIVE_PERCENT_MIN;

/// A segment worth rewriting.
struct Compaction {
    old: Rc<Header>,
    name: String,
    scan: Scan,
    end: Seq,
    /// By name in the header: the first sequence needed; None = nothing is needed.
    needs: Vec<Option<Seq>>,
    /// Its record bytes by backend have been counted.
    counted: bool,
}

enum Done {
    Rewritten(Header, Output),
    /// With record bytes by backend.
    NotWorthIt(Vec<u64>),
    Damaged,
}

/// What has been written so far.
struct Output {
    file: Rc<dyn WriteFile>,
    epoch: u64,
    /// The open frame: room for its header, then records.
    frame: Vec<u8>,
    first: Seq,
    lines_before: u64,
    lines: u32,
    records: u32,
    used: u64,
    marks: Vec<Mark>,
    bytes_by_backend: Vec<u64>,
}

pub(super) async fn run(shared: Rc<SharedLog>) {
    loop {
        let asked = shared.compact.wait();
        if shared.inner.borrow().check().is_err() {
            return;
        }
        while let Some(job) = next_job(&shared) {
            let (first, epoch) = (job.old.first, job.old.epoch);
            let done = rewrite(&shared, job).await;
            let mut inner = shared.inner.borrow_mut();
            let Some(segment) = inner.segment_mut(first, epoch) else { continue };
            segment.busy = false;
            shared.compacted.notify();
            match done {
                Ok(Done::Rewritten(header, o)) => segment.rewritten(header, &o.marks, o.used, o.bytes_by_backend),
                Ok(Done::NotWorthIt(counts)) => segment.bytes_by_backend = Some(counts),
                Ok(Done::Damaged) => segment.damaged = true,
                // The old segment is unchanged; the next compaction tries again.
                Err(_) => break,
            }
        }
        asked.await;
    }
}

/// The oldest segment that most backends have passed. Marks it busy.
fn next_job(shared: &SharedLog) -> Option<Compaction> {
    let mut inner = shared.inner.borrow_mut();
    inner.check().ok()?;
    let sealed = inner.segments.len() - 1;
    let index = (0..sealed).find(|&i| {
        let segment = &inner.segments[i];
        let bytes = segment.file_bytes.saturating_sub(FRAMES_AT as u64);
        if segment.busy || segment.damaged || bytes <= 2 * frame::BLOCK_BYTES as u64 {
            return false;
        }
        let Some(needs) = inner.needs(segment) else { return false };
        // No reader may be inside the segment: each backend that needs it has its cursor at or before its start.
        let parked = inner.parked.iter().flatten().map(|parked| &parked.cursor);
        let cursors = needs.iter().flatten().chain(&inner.cursors).chain(parked);
        let inside = cursors.copied().any(|seq| seq > segment.first() && seq < segment.end);
        let worth_it = match &segment.bytes_by_backend {
            Some(counts) => is_worth_it(counts, &needs, segment.file_bytes, segment.end),
            // Not counted since the open: worth counting once a backend has passed it.
            None => needs.iter().flatten().any(|n| *n >= segment.end),
        };
        !inside && worth_it
    })?;
    let segment = &mut inner.segments[index];
    segment.busy = true;
    let scan = Scan::new(segment.header.epoch, segment.mark_before(segment.first()), segment.used, Some(segment.end));
    let (old, name, end) = (Rc::clone(&segment.header), segment.name(), segment.end);
    let counted = segment.bytes_by_backend.is_some();
    let needs = inner.needs(&inner.segments[index])?;
    Some(Compaction { old, name, scan, end, needs, counted })
}

/// Writes the needed records to a new file and gives it the segment's name.
async fn rewrite(shared: &SharedLog, mut job: Compaction) -> io::Result<Done> {
    let file = shared.store.open(&job.name).await?;
    if !job.counted {
        let Some(counts) = count(&job, &*file).await? else { return Ok(Done::Damaged) };
        if !is_worth_it(&counts, &job.needs, job.scan.end, job.end) {
            return Ok(Done::NotWorthIt(counts));
        }
    }
    crash::point("compact");
    let tmp = format!("{}.tmp", job.name);
    let out = shared.store.create(&tmp, FRAMES_AT as u64, false).await?;
    let result = copy(shared, &mut job, &*file, out).await;
    if matches!(result, Ok(Done::Rewritten(..))) {
        crash::point("compact-written");
        shared.store.rename(&tmp, &job.name).await?;
        crash::point("compacted");
    } else {
        // If this fails, the next open removes it.
        let _ = shared.store.remove(&tmp).await;
    }
    result
}

/// Record bytes by name in the header; None if the segment is damaged.
async fn count(job: &Compaction, file: &dyn ReadFile) -> io::Result<Option<Vec<u64>>> {
    let mut counts = vec![0; job.old.backends.len()];
    let start = Mark { seq: job.old.first, offset: FRAMES_AT as u64, lines: job.old.lines_base };
    let mut scan = Scan::new(job.old.epoch, start, job.scan.end, Some(job.end));
    loop {
        match scan.step() {
            FrameStep::Read { offset, len } => {
                let bytes = file.read(offset, len).await?;
                scan.give(offset, bytes, len);
            }
            FrameStep::Frame(found) => {
                for record in record::records(scan.body(&found)) {
                    record.route().for_each(|i| {
                        if let Some(count) = counts.get_mut(usize::from(i)) {
                            *count += record.bytes.len() as u64;
                        }
                    });
                }
                yield_if_needed().await;
            }
            FrameStep::End(end) if end.after.seq >= job.end => return Ok(Some(counts)),
            // Its readers report the damage. With an incomplete count they would skip records that exist.
            FrameStep::Gap(_) | FrameStep::End(_) => return Ok(None),
        }
    }
}

/// Less than half of the file is still needed, and some backend's records are not.
fn is_worth_it(counts: &[u64], needs: &[Option<Seq>], file_bytes: u64, end: Seq) -> bool {
    let needed = |n: &Option<Seq>| n.is_some_and(|n| n < end);
    let live: u64 = counts.iter().zip(needs).filter(|(_, n)| needed(n)).map(|(c, _)| *c).sum();
    let gain = counts.iter().zip(needs).any(|(c, n)| *c > 0 && !needed(n));
    gain && live * 100 < file_bytes * LOG_LIVE_PERCENT_MIN
}

async fn copy(
    shared: &SharedLog,
    job: &mut Compaction,
    file: &dyn ReadFile,
    out: Rc<dyn WriteFile>,
) -> io::Result<Done> {
    let frame_bytes_max = shared.sizes.frame_bytes_max;
    let mut output = Output {
        file: out,
        epoch: segment::new_epoch(),
        frame: vec![0; frame::HEADER_BYTES],
        first: job.old.first,
        lines_before: job.old.lines_base,
        lines: 0,
        records: 0,
        used: FRAMES_AT as u64,
        marks: Vec::new(),
        bytes_by_backend: vec![0; job.old.backends.len()],
    };
    loop {
        match job.scan.step() {
            FrameStep::Read { offset, len } => {
                let bytes = file.read(offset, len).await?;
                job.scan.give(offset, bytes, len);
            }
            FrameStep::Frame(found) => {
                yield_if_needed().await;
                for record in record::records(job.scan.body(&found)) {
                    let seq = record.seq(found.header.first);
                    let needs = |i: u16| job.needs.get(usize::from(i)).copied().flatten().is_some_and(|n| n <= seq);
                    if !record.route().any(needs) {
                        continue;
                    }
                    if output.frame.len() + record.whole.len() > frame_bytes_max {
                        output.write_frame(seq).await?;
                    }
                    output.push(&record, seq, needs);
                }
            }
            FrameStep::End(end) if end.after.seq >= job.end => break,
            FrameStep::Gap(_) | FrameStep::End(_) => return Ok(Done::Damaged),
        }
    }
    // Written also when empty: it covers the sequences up to the end.
    output.write_frame(job.end).await?;
    let header = Header {
        epoch: output.epoch,
        compacted: Some(Compacted { end: job.end, stored_lines: output.lines_before - job.old.lines_base }),
        ..(*job.old).clone()
    };
    let bytes = header.encode();
    write_all(&*output.file, 0, &bytes).await?;
    output.file.sync().await?;
    Ok(Done::Rewritten(header, output))
}

impl Output {
    /// Adds a record. It is counted only for the backends that need it, so that the segment is not rewritten again for
    /// nothing.
    fn push(&mut self, record: &record::Record<'_>, seq: Seq, needs: impl Fn(u16) -> bool) {
        let at = self.frame.len();
        self.frame.extend_from_slice(record.whole);
        record::set_delta(&mut self.frame[at..], (seq.0 - self.first.0) as u32);
        self.lines += record.lines;
        self.records += 1;
        for index in record.route().filter(|i| needs(*i)) {
            if let Some(bytes) = self.bytes_by_backend.get_mut(usize::from(index)) {
                *bytes += record.bytes.len() as u64;
            }
        }
    }

    /// Writes the open frame, which covers all sequences before `end`, and opens the next one.
    async fn write_frame(&mut self, end: Seq) -> io::Result<()> {
        let header = frame::Header {
            len: self.frame.len(),
            epoch: self.epoch,
            first: self.first,
            span: (end.0 - self.first.0) as u32,
            lines_before: self.lines_before,
            lines: self.lines,
            records: self.records,
        };
        frame::seal(&mut self.frame, &header);
        write_all(&*self.file, self.used, &self.frame).await?;
        self.marks.push(Mark { seq: self.first, offset: self.used, lines: self.lines_before });
        self.used += frame::padded(self.frame.len()) as u64;
        self.frame.truncate(frame::HEADER_BYTES);
        (self.first, self.lines_before, self.lines, self.records) = (end, header.lines_after(), 0, 0);
        Ok(())
    }
}

async fn write_all(file: &dyn WriteFile, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let padded = frame::padded(bytes.len());
    let mut done = 0;
    while done < padded {
        let write = file.write(offset + done as u64, padded - done, &mut |out| {
            let rest = bytes.get(done..).unwrap_or(&[]);
            out[..rest.len()].copy_from_slice(rest);
            out[rest.len()..].fill(0);
        });
        let n = write.await? & !(frame::BLOCK_BYTES - 1);
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += n;
    }
    Ok(())
}

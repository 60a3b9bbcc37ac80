//! Recovers a log directory at open. One rule for each case:
//!
//! | found | action |
//! |---|---|
//! | clean end | continue after it |
//! | torn tail: the last frame is not complete | cut there and report it |
//! | damage before another frame, or an end before the saved one | keep the file aside, report the lost points |
//! | missing file | report the lost points |
//! | damaged header | use the other copy; both damaged: as a missing file, but kept aside |
//! | damaged state file | deliver everything again, keep the file aside; the ledger starts empty |
//! | a state that calls what follows it void | remove that (`Log::begin_rerouting`) |
//! | unknown version | refuse, change nothing |
//!
//! An I/O error is none of these: opening fails and nothing is changed. All segment headers are read, and the frames
//! after the end in the saved state. A log never continues an old segment, so that what a crash left after its end
//! cannot interfere.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;

use super::parked::Needs;
use super::scan::{FrameStep, Gap, Scan};
use super::segment::{self, FRAMES_AT, Header, Mark, Segment};
use super::state::{self, SavedState};
use super::state_files::{FoundState, read_state};
use super::store::{Files, Store};
use super::{
    Appended, Damage, DamageKind, Error, Loss, RESERVE, Seq, Sizes, Torn, parse_spare_name, record, spare_name,
};
use crate::order::SettledBefore;
use crate::parked::ParkedKey;
use crate::topology::{BackendId, Topology};

/// Sequences skipped after an end that is not clean: more than a frame can hold, so that a lost frame and its
/// replacement never share a sequence.
const SKIPPED_SEQS: u64 = 1 << 20;

pub(super) struct Recovered {
    pub(super) segments: VecDeque<Segment>,
    pub(super) spares: Vec<String>,
    pub(super) spares_made: u64,
    /// There is the file for an open on a full disk.
    pub(super) reserve: bool,
    pub(super) state: Option<SavedState>,
    /// The copy that it was read from.
    pub(super) state_copy: Option<usize>,
    /// All stamps are at most this.
    pub(super) last_stamp: u64,
    /// The next sequence to be used.
    pub(super) next: Seq,
    /// Lines in the log before `next`.
    pub(super) lines: u64,
    pub(super) cursors: Vec<Seq>,
    /// By backend: parked points, and from where they are needed.
    pub(super) parked: Vec<Vec<(ParkedKey, Seq)>>,
    pub(super) absent: Vec<(String, Needs)>,
    pub(super) uncounted: Vec<Appended>,
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<Torn>,
    /// Files to keep aside, and files to remove afterwards; a file may be in both.
    aside: Vec<String>,
    remove: Vec<String>,
    /// Cut the last segment after its last frame.
    cut: bool,
}

type Uncounted = HashMap<(Vec<u8>, Vec<BackendId>), u64>;

/// The segments of a directory, in order, according to their headers.
pub(super) struct SegmentChain {
    pub(super) segments: VecDeque<Segment>,
    /// Files whose header cannot be read.
    pub(super) headless: Vec<String>,
    others: Vec<String>,
}

/// Reads all segment headers. The end of the last segment, and of one before a missing file, is not known yet: it is
/// set to the segment's first sequence.
pub(super) fn read_chain(
    files: &(impl Files + ?Sized),
    dir: &Path,
    topology: &Topology,
) -> Result<SegmentChain, Error> {
    let io = |op, name: &str, e| Error::io(op, &dir.join(name), e);
    let mut list = files.list().map_err(|e| io("list", "", e))?;
    list.sort();
    let mut chain = SegmentChain { segments: VecDeque::new(), headless: Vec::new(), others: Vec::new() };
    for (name, bytes) in list {
        let Some(first) = segment::parse_file_name(&name) else {
            chain.others.push(name);
            continue;
        };
        let head = files.read(&name, 0, FRAMES_AT).map_err(|e| io("read", &name, e))?;
        match Header::decode(&head) {
            Ok(header) if header.first == first => {
                let mut segment = Segment::new(header, topology, bytes);
                segment.used = bytes;
                chain.segments.push_back(segment);
            }
            Err(segment::HeaderFault::Version(version)) => {
                return Err(Error::UnknownVersion { file: dir.join(name), version });
            }
            _ => chain.headless.push(name),
        }
    }
    for i in 1..chain.segments.len() {
        let next = &chain.segments[i].header;
        let (first, lines, previous) = (next.first, next.lines_base, next.previous);
        let segment = &mut chain.segments[i - 1];
        if previous == segment.first() {
            (segment.end, segment.lines_end) = (first, lines);
        }
    }
    Ok(chain)
}

pub(super) fn recover(files: &(impl Files + ?Sized), dir: &Path, topology: &Topology) -> Result<Recovered, Error> {
    let mut damage = Vec::new();
    let mut aside = Vec::new();
    let (state, state_copy) = match read_state(files, dir)? {
        FoundState::None => (None, None),
        FoundState::Whole(state, copy) => (Some(*state), Some(copy)),
        FoundState::Fault(state::StateFault::Version(version)) => {
            return Err(Error::UnknownVersion { file: dir.join(state::FILES[0]), version });
        }
        FoundState::Fault(state::StateFault::Damaged) => {
            aside.extend(state::FILES.map(str::to_owned));
            let file = dir.join(state::FILES[0]);
            damage.push(Damage { kind: DamageKind::State, file, bytes: 0..0, seqs: Seq(0)..Seq(0), lines: 0 });
            (None, None)
        }
    };
    let SegmentChain { mut segments, headless, others } = read_chain(files, dir, topology)?;
    let void = take_void(&mut segments, state.as_ref().and_then(SavedState::void_from));
    let mut found = Recovered {
        segments,
        spares: Vec::new(),
        spares_made: 0,
        reserve: others.iter().any(|name| name == RESERVE),
        last_stamp: state.as_ref().map_or(0, |s| s.stamp),
        state,
        state_copy,
        next: Seq(1),
        lines: 0,
        cursors: Vec::new(),
        parked: Vec::new(),
        absent: Vec::new(),
        uncounted: Vec::new(),
        damage,
        torn: None,
        // Written in place, a state would change what is kept aside.
        remove: headless.iter().chain(aside.iter().filter(|name| others.contains(name))).cloned().chain(void).collect(),
        aside,
        cut: false,
    };
    found.aside.extend(headless);
    for name in others {
        if let Some(number) = parse_spare_name(&name) {
            found.spares_made = found.spares_made.max(number + 1);
            found.spares.push(name);
        } else if name.ends_with(".tmp") {
            found.remove.push(name);
        }
    }
    found.find_ends(files, dir)?;
    found.find_missing(dir);
    found.place_cursors(topology);
    Ok(found)
}

/// Takes out the segments that begin at `from` or later, and returns their names.
pub(super) fn take_void(segments: &mut VecDeque<Segment>, from: Option<Seq>) -> Vec<String> {
    let kept = from.map_or(segments.len(), |from| segments.partition_point(|segment| segment.first() < from));
    segments.split_off(kept).iter().map(Segment::name).collect()
}

impl Recovered {
    /// Reads the frames after the saved state, and finds the end of the log.
    fn find_ends(&mut self, files: &(impl Files + ?Sized), dir: &Path) -> Result<(), Error> {
        let known = self.state.as_ref().map_or(Seq(0), |s| s.end.seq);
        let mut uncounted = Uncounted::new();
        let mut clean = true;
        // The end of what had been written, as far as the state and headers at the end tell.
        let mut written = self.state.as_ref().map_or((Seq(1), 0), |s| (s.end.seq, s.end.lines));
        let count = self.segments.len();
        for i in 0..count {
            let last = i + 1 == count;
            let segment = &mut self.segments[i];
            let open_end = segment.end == segment.first() && segment.header.compacted.is_none();
            if !open_end && segment.end <= known {
                continue;
            }
            let here = self.state.as_ref().filter(|s| s.segment == segment.first() && s.epoch == segment.header.epoch);
            let start = here.map_or(segment.mark_before(segment.first()), |s| s.end);
            let until = match here {
                _ if !open_end => Some(segment.end),
                // The log was closed: nothing follows.
                Some(state) if last && state.closed => Some(state.end.seq),
                _ => None,
            };
            let mut scan = Scan::new(segment.header.epoch, start, segment.file_bytes, until);
            let mut last_stamp = 0;
            let mut on_frame = |first: Seq, body: &[u8]| {
                last_stamp = record::records(body).fold(last_stamp, |last: u64, r| last.max(r.stamp));
                count_lines(segment, first, body, known, &mut uncounted);
            };
            let (gaps, end) = walk(files, &segment.name(), &mut scan, &mut on_frame)
                .map_err(|e| Error::io("read", &dir.join(segment.name()), e))?;
            self.last_stamp = self.last_stamp.max(last_stamp);
            let file = dir.join(segment.name());
            let mut lost = gaps;
            if open_end {
                (segment.end, segment.lines_end) = (end.after.seq, end.after.lines);
                segment.used = end.after.offset;
                let saved = here.map(|s| s.end).filter(|saved| saved.seq > end.after.seq);
                // What a missing file held is counted by the segment after it.
                let remains = end.remains.filter(|_| last);
                let by_headers = remains.map(|r| r.written).filter(|w| w.seq > end.after.seq);
                let missing = [saved, by_headers].into_iter().flatten().max_by_key(|mark| mark.seq);
                if let Some(Mark { seq, lines, .. }) = missing {
                    let bytes = end.after.offset..scan.end;
                    lost.push(Gap { bytes, seqs: end.after.seq..seq, lines: lines - end.after.lines });
                    written = written.max((seq, lines));
                }
                self.torn =
                    remains.filter(|r| saved.is_none_or(|s| r.is_after(s.seq))).map(|r| r.torn(&file, end.after));
                clean &= self.torn.is_none();
                let damaged = self.torn.as_ref().is_some_and(|torn| torn.loss == Loss::Certain);
                if damaged && missing.is_none() {
                    segment.damaged = true;
                    self.aside.push(segment.name());
                }
                self.cut = last && missing.is_none() && !damaged;
            } else if segment.stored_lines_end() > end.after.lines {
                let (seqs, lines) = (end.after.seq..segment.end, segment.stored_lines_end() - end.after.lines);
                lost.push(Gap { bytes: end.after.offset..scan.end, seqs, lines });
            }
            if lost.iter().any(|gap| gap.lines > 0) {
                segment.damaged = true;
                clean = false;
                self.cut = false;
                self.aside.push(segment.name());
            }
            self.damage.extend(lost.into_iter().filter(|gap| gap.lines > 0).map(|gap| Damage {
                kind: DamageKind::Frames,
                file: file.clone(),
                bytes: gap.bytes,
                seqs: gap.seqs,
                lines: gap.lines,
            }));
        }
        let end = self.segments.back().map_or((Seq(1), 0), |s| (s.end, s.lines_end));
        if written.0 > end.0 {
            clean = false;
        }
        self.lines = end.1.max(written.1);
        self.next = Seq(end.0.max(written.0).0 + if clean { 0 } else { SKIPPED_SEQS });
        self.uncounted = uncounted.into_iter().map(|((db, backends), lines)| (db, backends, lines)).collect();
        Ok(())
    }

    /// What the saved state says about backends of this configuration.
    pub(super) fn settled(&self, topology: &Topology) -> Vec<SettledBefore> {
        let Some(state) = &self.state else { return Vec::new() };
        let of = |(name, below): &(String, u64)| {
            let waiting = state.waiting.iter().filter(|(named, ..)| named == name);
            let parked = waiting.map(|(_, key, stamp)| (key.clone(), *stamp)).collect();
            let changes = state.changes.iter().find(|(named, _)| named == name).map_or(0, |(_, changes)| *changes);
            let rejected = state.rejected.iter().filter(|(named, _)| named == name);
            let refusals = rejected.map(|(_, refusal)| refusal.clone()).collect();
            let dropped = state.dropped.iter().filter(|(named, ..)| named == name);
            let dropped = dropped.map(|(_, key, stamp)| (key.clone(), *stamp)).collect();
            let backend = topology.by_name(name)?.id;
            Some(SettledBefore { backend, below: *below, parked, changes, refusals, dropped })
        };
        let mut all: Vec<_> = state.settled.iter().filter_map(of).collect();
        // A backend that had left the configuration: nobody knows how far it had got elsewhere.
        for backend in topology.backends.iter().filter(|backend| !self.parked[backend.id.index()].is_empty()) {
            if !all.iter().any(|known| known.backend == backend.id) {
                let parked = self.parked[backend.id.index()].iter().map(|(key, _)| (key.clone(), 0)).collect();
                let (refusals, dropped) = (Vec::new(), Vec::new());
                all.push(SettledBefore { backend: backend.id, below: 0, parked, changes: 0, refusals, dropped });
            }
        }
        all
    }

    /// Reports sequences that no file covers: before, between and after the segments.
    fn find_missing(&mut self, dir: &Path) {
        let mut missing = Vec::new();
        let before = self.state.as_ref().map(|s| (s.passed().max(s.first), s.first_lines));
        // Without a state the log is assumed to begin with its first segment.
        let (mut seq, mut lines) = before.unwrap_or_else(|| {
            self.segments.front().map_or((self.next, self.lines), |s| (s.first(), s.header.lines_base))
        });
        for segment in &self.segments {
            if segment.first() > seq && segment.header.lines_base > lines {
                missing.push((seq..segment.first(), segment.header.lines_base - lines));
            }
            if segment.end >= seq {
                (seq, lines) = (segment.end, segment.lines_end);
            }
        }
        if let Some(state) = &self.state {
            let reported = self.damage.iter().any(|d| d.seqs.end >= state.end.seq && d.kind == DamageKind::Frames);
            if state.end.seq > seq && state.end.lines > lines && !reported {
                missing.push((seq..state.end.seq, state.end.lines - lines));
            }
        }
        self.damage.extend(missing.into_iter().map(|(seqs, lines)| Damage {
            kind: DamageKind::Segment,
            file: dir.join(segment::file_name(seqs.start)),
            bytes: 0..0,
            seqs,
            lines,
        }));
    }

    fn place_cursors(&mut self, topology: &Topology) {
        let oldest = self.segments.front().map_or(self.next, Segment::first);
        let needs = |name: &str| match &self.state {
            // A crash may have lost frames that were delivered but not synced; the log continues after them. A name
            // missing in the state is a new backend: its records were appended after the state was saved.
            Some(state) => state.needs_of(name).unwrap_or_else(|| Needs::from(state.end.seq)),
            None => Needs::from(oldest),
        };
        let within = |seq: Seq| seq.clamp(oldest, self.next);
        let (cursors, parked) = topology
            .backends
            .iter()
            .map(|backend| {
                let Needs { cursor, parked } = needs(&backend.name);
                (within(cursor), parked.into_iter().map(|(key, from)| (key, within(from))).collect())
            })
            .unzip();
        let end = self.segments.back().map_or(oldest, |s| s.end);
        let is_gone = |name: &str| topology.by_name(name).is_none();
        self.absent = match &self.state {
            Some(state) => {
                let gone = state.cursors.iter().map(|(name, _)| name).filter(|name| is_gone(name));
                let needs = gone.map(|name| (name.clone(), needs(name)));
                needs.filter(|(_, needs)| needs.first() < end).collect()
            }
            // Their cursors are unknown: they need everything in the segments that name them.
            None => {
                let named = self.segments.iter().flat_map(|s| &s.header.backends).filter(|name| is_gone(name));
                let names: std::collections::BTreeSet<_> = named.cloned().collect();
                names.into_iter().map(|name| (name, Needs::from(oldest))).collect()
            }
        };
        (self.cursors, self.parked) = (cursors, parked);
    }
}

/// Reads frames from the position of `scan` to its end.
fn walk(
    files: &(impl Files + ?Sized),
    name: &str,
    scan: &mut Scan,
    on_frame: &mut dyn FnMut(Seq, &[u8]),
) -> io::Result<(Vec<Gap>, super::scan::End)> {
    let mut gaps = Vec::new();
    loop {
        match scan.step() {
            FrameStep::Read { offset, len } => {
                let bytes = files.read(name, offset, len)?;
                scan.give(offset, bytes, len);
            }
            FrameStep::Frame(found) => on_frame(found.header.first, scan.body(&found)),
            FrameStep::Gap(gap) => gaps.push(gap),
            FrameStep::End(end) => return Ok((gaps, end)),
        }
    }
}

/// Counts the lines of records from `known` on, by database and backends.
fn count_lines(segment: &Segment, first: Seq, body: &[u8], known: Seq, uncounted: &mut Uncounted) {
    for record in record::records(body).filter(|r| r.seq(first) >= known) {
        let backends = record.route().filter_map(|i| segment.backends.get(usize::from(i)).copied().flatten()).collect();
        *uncounted.entry((record.db.to_vec(), backends)).or_default() += u64::from(record.lines);
    }
}

/// Brings the directory into the state that `found` describes. After a crash in any step, the next open finds the same.
pub(super) async fn tidy(store: &dyn Store, dir: &Path, found: &mut Recovered, sizes: &Sizes) -> Result<(), Error> {
    let io = |op, name: &str, e| Error::io(op, &dir.join(name), e);
    for name in &found.aside {
        // Best effort: the report names the place even if the file cannot be kept.
        let _ = store.keep_aside(name).await;
    }
    for name in &found.remove {
        store.remove(name).await.map_err(|e| io("remove", name, e))?;
    }
    let parked = found.parked.iter().flatten().map(|(_, from)| *from);
    let absent = found.absent.iter().map(|(_, needs)| needs.first());
    let passed = found.cursors.iter().copied().chain(parked).chain(absent).min().unwrap_or(found.next);
    let empty = |s: &Segment| s.end == s.first() && s.header.compacted.is_none();
    let segments = std::mem::take(&mut found.segments);
    let last = segments.back().map(Segment::first);
    for mut segment in segments {
        let name = segment.name();
        if empty(&segment) || segment.end <= passed {
            if segment.file_bytes == sizes.reserve_bytes() && !segment.damaged && !found.reserve {
                found.reserve = true;
                store.rename(&name, RESERVE).await.map_err(|e| io("rename", &name, e))?;
            } else if segment.file_bytes == sizes.segment_bytes && !segment.damaged {
                let spare = spare_name(found.spares_made);
                found.spares_made += 1;
                store.rename(&name, &spare).await.map_err(|e| io("rename", &name, e))?;
                found.spares.push(spare);
            } else {
                store.remove(&name).await.map_err(|e| io("remove", &name, e))?;
            }
            continue;
        }
        if found.cut && Some(segment.first()) == last {
            store.truncate(&name, segment.used).await.map_err(|e| io("truncate", &name, e))?;
            segment.file_bytes = segment.used;
        }
        found.segments.push_back(segment);
    }
    while found.spares.len() > sizes.spares_max {
        let name = found.spares.pop().expect("more than none");
        store.remove(&name).await.map_err(|e| io("remove", &name, e))?;
    }
    Ok(())
}

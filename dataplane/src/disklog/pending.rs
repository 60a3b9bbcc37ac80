//! Walks a log directory that no log has open, and returns the records that are still needed: by backends that have
//! left the configuration, or from workers that no longer exist. Reads with blocking calls, one segment and one frame
//! at a time, and changes nothing. The list of segments is read once, so that a log may be opened on the directory
//! during the walk (it keeps the records of absent backends until `Log::settle_absent`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::parked::Needs;
use super::recovery::{read_chain, take_void};
use super::scan::{Found, FrameStep, Scan};
use super::segment::Segment;
use super::state::{FILES, StateFault};
use super::state_files::{FoundState, read_state};
use super::store::{self, Files};
use super::{Error, RecordView, Seq, record};
use crate::topology::Topology;

/// A record that some backend has not confirmed.
#[derive(Debug)]
pub struct PendingRecord<'a> {
    pub record: RecordView<'a>,
    /// The backends that still need it, at least one: the position of the circle when the record was written, and the
    /// backend's name. Position None: the former owner of a place that was being moved.
    pub needed_by: Vec<(Option<usize>, &'a str)>,
}

pub struct Pending {
    dir: PathBuf,
    /// The last segment first.
    segments: Vec<Segment>,
    /// None: there is no state file, every backend needs everything.
    needs: Option<HashMap<String, Needs>>,
    ledger: Vec<u8>,
    current: Option<Current>,
    lost: u64,
}

struct Current {
    segment: Segment,
    scan: Scan,
    frame: Option<Found>,
    /// Bytes of the frame's records already returned.
    done: usize,
}

/// What is still needed of the log in `dir`. A directory without a log gives no records.
pub fn pending(dir: &Path) -> Result<Pending, Error> {
    if !store::is_dir(dir) {
        return Ok(Pending {
            dir: dir.to_owned(),
            segments: Vec::new(),
            needs: None,
            ledger: Vec::new(),
            current: None,
            lost: 0,
        });
    }
    let state = match read_state(dir, dir)? {
        FoundState::Fault(StateFault::Version(version)) => {
            return Err(Error::UnknownVersion { file: dir.join(FILES[0]), version });
        }
        FoundState::Fault(StateFault::Damaged) | FoundState::None => None,
        FoundState::Whole(state, _) => Some(state),
    };
    let mut chain = read_chain(dir, dir, &Topology::default())?;
    take_void(&mut chain.segments, state.as_ref().and_then(|state| state.void_from()));
    let (needs, ledger) = match state {
        Some(state) => {
            let of = |(name, _): &(String, Seq)| Some((name.clone(), state.needs_of(name)?));
            (Some(state.cursors.iter().filter_map(of).collect()), state.ledger)
        }
        None => (None, Vec::new()),
    };
    let segments = chain.segments.into_iter().rev().collect();
    Ok(Pending { dir: dir.to_owned(), segments, needs, ledger, current: None, lost: 0 })
}

impl Pending {
    /// The ledger last saved with the log.
    pub fn ledger(&self) -> &[u8] {
        &self.ledger
    }

    /// Points in damaged places passed so far, for whichever backends.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The next record that is needed, in order; None at the end.
    pub fn next_record(&mut self) -> Result<Option<PendingRecord<'_>>, Error> {
        while let Some(at) = self.advance()? {
            // The record is looked up twice, because a value returned from a loop would borrow `self` for the whole
            // loop.
            let current = self.current.as_mut().expect("advanced to it");
            current.done = at.end;
            if self.needed_by(&at).next().is_some() {
                let (record, first) = self.record_at(&at);
                return Ok(Some(PendingRecord {
                    record: record.view(first),
                    needed_by: self.needed_by(&at).collect(),
                }));
            }
        }
        Ok(None)
    }

    /// The stamp of what [`Pending::next_record`] will return.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_stamp(&mut self) -> Result<Option<u64>, Error> {
        while let Some(at) = self.advance()? {
            if self.needed_by(&at).next().is_some() {
                return Ok(Some(self.record_at(&at).0.stamp));
            }
            self.current.as_mut().expect("advanced to it").done = at.end;
        }
        Ok(None)
    }

    fn record_at(&self, at: &std::ops::Range<usize>) -> (record::Record<'_>, Seq) {
        let current = self.current.as_ref().expect("advanced to it");
        let found = current.frame.as_ref().expect("advanced to it");
        (record::read(&current.scan.body(found)[at.clone()]).expect("read before"), found.header.first)
    }

    fn needed_by(&self, at: &std::ops::Range<usize>) -> impl Iterator<Item = (Option<usize>, &str)> {
        let (record, first) = self.record_at(at);
        let seq = record.seq(first);
        let header = &self.current.as_ref().expect("advanced to it").segment.header;
        let circles = usize::from(header.circles);
        let named = move |(at, i): (usize, u16)| {
            Some((Some(at).filter(|&at| at < circles), header.backends.get(usize::from(i))?.as_str()))
        };
        // `NOWHERE` is not the index of a name.
        record.route_by_circle().enumerate().filter_map(named).filter(move |(_, name)| {
            match &self.needs {
                // A name missing in the state had nothing queued when it was saved.
                Some(all) => all.get(*name).is_none_or(|needs| needs.has(record.db, record.rp, seq)),
                None => true,
            }
        })
    }

    /// Moves to the next record: returns its range in the frame's body.
    fn advance(&mut self) -> Result<Option<std::ops::Range<usize>>, Error> {
        loop {
            let Some(current) = &mut self.current else {
                let Some(segment) = self.segments.pop() else { return Ok(None) };
                let until = (segment.end > segment.first()).then_some(segment.end);
                let start = segment.mark_before(segment.first());
                let scan = Scan::new(segment.header.epoch, start, segment.file_bytes, until);
                self.current = Some(Current { segment, scan, frame: None, done: 0 });
                continue;
            };
            if let Some(found) = &current.frame
                && let Some(record) = record::read(&current.scan.body(found)[current.done..])
            {
                return Ok(Some(current.done..current.done + record.whole.len()));
            }
            (current.frame, current.done) = (None, 0);
            match current.scan.step() {
                FrameStep::Read { offset, len } => {
                    let name = current.segment.name();
                    let bytes = Files::read(self.dir.as_path(), &name, offset, len)
                        .map_err(|e| Error::io("read", &self.dir.join(&name), e))?;
                    current.scan.give(offset, bytes, len);
                }
                FrameStep::Frame(found) => current.frame = Some(found),
                FrameStep::Gap(gap) => self.lost += gap.lines,
                FrameStep::End(end) => {
                    if current.segment.end > current.segment.first() {
                        self.lost += current.segment.stored_lines_end().saturating_sub(end.after.lines);
                    }
                    self.current = None;
                }
            }
        }
    }
}

//! The records a courier has fetched and not yet settled, regrouped into requests.
//!
//! A group holds the requests of one (database, policy), in order; only its first request is ever in flight. Groups are
//! independent of each other. A group that must wait stays in the window while others leave it and new records are
//! added. The cursor moves once every group is settled; until then [`PartlySettled`] says how far the others are.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Instant;

use super::bisect::Bisect;
use super::body::RequestBody;
use super::client::Target;
use super::verdict::Backoff;
use crate::disklog::{RecordView, Seq};
use crate::limits::{BATCH_BYTES_MAX, COURIER_GROUPS_MAX, REQUEST_BYTES_MIN, WINDOW_HELD_SHARE};
use crate::precision::Precision;

/// Returns the ranges of the lines in a body, each without its final LF. Needs the rules of line protocol, since a
/// string may contain an LF.
pub type Splitter = fn(&[u8]) -> Vec<Range<usize>>;

/// Lines that are sent to the backend together.
#[derive(Debug)]
pub struct Request {
    pub precision: Precision,
    pub body: RequestBody,
    pub lines: u64,
    /// Failures that may be caused by this request, and the time of the first.
    pub strikes: u32,
    pub since: Option<Instant>,
    /// How often the backend did not answer in time.
    pub timeouts: u32,
    /// Set once the backend has refused some of the lines.
    pub search: Option<Bisect>,
    /// Its first record.
    first: Seq,
}

impl Request {
    fn new(precision: Precision, body: RequestBody, first: Seq) -> Self {
        Self { precision, body, lines: 0, strikes: 0, since: None, timeouts: 0, search: None, first }
    }
}

/// The requests of one (database, policy).
#[derive(Debug)]
pub struct Group {
    pub db: Box<[u8]>,
    pub rp: Box<[u8]>,
    pub requests: VecDeque<Request>,
    pub backoff: Backoff,
    /// When the log last said that the backend's user may not write here.
    pub loud_at: Option<Instant>,
    /// Counts of the lines that are settled.
    pub delivered: u64,
    pub rejected: Vec<(&'static str, u64)>,
}

impl Group {
    pub fn target(&self, precision: Precision) -> Target<'_> {
        Target { db: &self.db, rp: &self.rp, precision }
    }

    /// It waits after a failure of its own.
    fn is_held(&self) -> bool {
        self.backoff.is_running()
    }

    /// Counts lines as rejected.
    pub fn reject(&mut self, reason: &'static str, lines: u64) {
        match self.rejected.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, n)) => *n += lines,
            None => self.rejected.push((reason, lines)),
        }
    }

    /// Puts the second request's lines behind those of the first one, if they fit in one request.
    pub fn join_next(&mut self) {
        let (Some(first), Some(next)) = (self.requests.front(), self.requests.get(1)) else { return };
        if first.precision != next.precision || first.body.len() + next.body.len() > BATCH_BYTES_MAX {
            return;
        }
        let next = self.requests.remove(1).expect("looked at above");
        let first = self.requests.front_mut().expect("looked at above");
        first.body.push(next.body.bytes());
        first.lines += next.lines;
    }

    /// Splits the first request in two, in order. False: it has only one line.
    pub fn halve(&mut self, split: Splitter) -> bool {
        let Some(first) = self.requests.front_mut() else { return false };
        let bytes = first.body.bytes();
        let lines = split(bytes);
        if lines.len() < 2 {
            return false;
        }
        let middle = lines.len() / 2;
        let at = lines[middle].start;
        let mut halves = [(&bytes[..at], middle), (&bytes[at..], lines.len() - middle)].map(|(bytes, lines)| {
            let mut half = Request::new(first.precision, RequestBody::default(), first.first);
            half.body.push(bytes);
            half.lines = lines as u64;
            half
        });
        // If the record's count differs from the splitter's, the total stays the same.
        halves[1].lines = first.lines.saturating_sub(halves[0].lines);
        let [front, back] = halves;
        *first = back;
        self.requests.push_front(front);
        true
    }
}

/// The bounds of a window.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Lines (`flush_size`).
    pub lines: u64,
    /// Bytes of all requests together. Groups that are held get a part of it.
    pub bytes: usize,
}

/// A window in which only some groups are settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartlySettled {
    /// The record after the last one of the window.
    pub next: Seq,
    /// The other groups are settled up to `next`, without a refused line.
    pub groups: Vec<PartGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartGroup {
    pub db: Box<[u8]>,
    /// The first record that is not settled.
    pub first: Option<Seq>,
    /// Refused lines, which are not yet reported.
    pub rejected: u64,
}

#[derive(Debug)]
pub struct Window {
    bounds: Bounds,
    pub groups: Vec<Group>,
    /// Buffers for the next requests.
    spare: Vec<RequestBody>,
    /// The group of the last record, which is usually also the group of the next one.
    last: usize,
    /// Lines of groups that are not held, bytes of all groups and of those that are held: as far as they are still in
    /// requests.
    lines: u64,
    bytes: usize,
    held_bytes: usize,
    /// Largest request; reduced after a 413.
    request_bytes_max: usize,
    /// Set by the first record or fetch.
    pub next: Option<Seq>,
    /// Time of the oldest record taken, in milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

impl Window {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            groups: Vec::new(),
            spare: Vec::new(),
            last: 0,
            lines: 0,
            bytes: 0,
            held_bytes: 0,
            request_bytes_max: bounds.bytes,
            next: None,
            oldest_ms: None,
        }
    }

    /// Takes the record's lines. False: the window is full. The first record always fits.
    pub fn take(&mut self, record: &RecordView<'_>) -> bool {
        let (lines, bytes) = (u64::from(record.lines), record.bytes.len());
        let Some(index) = self.group(record) else { return false };
        let group = &mut self.groups[index];
        let is_held = group.is_held();
        let in_share = match is_held {
            true => self.held_bytes + bytes <= self.bounds.bytes / WINDOW_HELD_SHARE,
            false => self.lines == 0 || self.lines + lines <= self.bounds.lines,
        };
        if self.bytes > 0 && (!in_share || self.bytes + bytes > self.bounds.bytes) {
            return false;
        }
        let room = self.request_bytes_max;
        let joins = |last: &&mut Request| {
            last.precision == record.precision && last.search.is_none() && last.body.len() + bytes <= room
        };
        let request = match group.requests.back_mut().filter(joins) {
            Some(last) => last,
            None => {
                let body = self.spare.pop().unwrap_or_default();
                group.requests.push_back(Request::new(record.precision, body, record.seq));
                group.requests.back_mut().expect("just pushed")
            }
        };
        request.body.push(record.bytes);
        request.lines += lines;
        match is_held {
            true => self.held_bytes += bytes,
            false => self.lines += lines,
        }
        self.bytes += bytes;
        self.oldest_ms.get_or_insert(record.appended_ms);
        true
    }

    /// The record's group. None: it would be one group too many.
    fn group(&mut self, record: &RecordView<'_>) -> Option<usize> {
        let same = |g: &Group| *g.db == *record.db && *g.rp == *record.rp;
        if !self.groups.get(self.last).is_some_and(same) {
            self.last = match self.groups.iter().position(same) {
                Some(index) => index,
                None if self.groups.len() < COURIER_GROUPS_MAX => {
                    self.groups.push(Group {
                        db: record.db.into(),
                        rp: record.rp.into(),
                        requests: VecDeque::new(),
                        backoff: Backoff::default(),
                        loud_at: None,
                        delivered: 0,
                        rejected: Vec::new(),
                    });
                    self.groups.len() - 1
                }
                None => return None,
            };
        }
        Some(self.last)
    }

    /// Counts again what is still in requests. Must be called before records are added to a window that has been worked
    /// on.
    pub fn recount(&mut self) {
        (self.lines, self.bytes, self.held_bytes) = (0, 0, 0);
        for group in &self.groups {
            let bytes: usize = group.requests.iter().map(|r| r.body.len()).sum();
            self.bytes += bytes;
            match group.is_held() {
                true => self.held_bytes += bytes,
                false => self.lines += group.requests.iter().map(|r| r.lines).sum::<u64>(),
            }
        }
    }

    /// Whether more records should be fetched.
    pub fn has_room(&self) -> bool {
        self.lines < self.bounds.lines && self.bytes < self.bounds.bytes
    }

    /// Nothing has been fetched since the last [`Window::clear`].
    pub fn is_empty(&self) -> bool {
        self.next.is_none()
    }

    /// Every line has been delivered or rejected.
    pub fn settled(&self) -> bool {
        self.groups.iter().all(|g| g.requests.is_empty())
    }

    /// What is settled although the cursor cannot move.
    pub fn partly_settled(&self) -> Option<PartlySettled> {
        let of = |group: &Group| {
            let first = group.requests.front().map(|request| request.first);
            let rejected = group.rejected.iter().map(|(_, lines)| lines).sum();
            (first.is_some() || rejected > 0).then(|| PartGroup { db: group.db.clone(), first, rejected })
        };
        Some(PartlySettled { next: self.next?, groups: self.groups.iter().filter_map(of).collect() })
    }

    /// A request of this size was too large for the backend. Later ones stay below half of it.
    pub fn shrink_requests(&mut self, bytes: usize) {
        self.request_bytes_max = self.request_bytes_max.min(bytes / 2).max(REQUEST_BYTES_MIN);
    }

    /// Keeps the memory of `bodies`, together with what is in use up to the window's bound.
    pub fn reuse(&mut self, bodies: &mut Vec<RequestBody>) {
        self.spare.append(bodies);
        let mut kept = self.bytes;
        let bytes_max = self.bounds.bytes;
        self.spare.retain_mut(|body| {
            body.clear();
            kept += body.capacity();
            kept <= bytes_max
        });
    }

    /// Starts a new window.
    pub fn clear(&mut self, bodies: &mut Vec<RequestBody>) {
        self.groups.clear();
        (self.last, self.lines, self.bytes, self.held_bytes) = (0, 0, 0, 0);
        self.reuse(bodies);
        (self.next, self.oldest_ms) = (None, None);
    }

    /// Frees memory when the courier has reached the end of the log.
    pub fn release(&mut self) {
        self.spare.retain(|body| body.capacity() <= REQUEST_BYTES_MIN);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::courier::verdict::Jitter;

    fn record(seq: u64, db: &'static [u8], bytes: &'static [u8]) -> RecordView<'static> {
        let precision = Precision::Nanosecond;
        RecordView { seq: Seq(seq), db, rp: b"", precision, appended_ms: 0, lines: 1, bytes }
    }

    #[test]
    fn what_is_held_fills_at_most_half_of_a_window_and_counts_no_lines() {
        let line = b"m v=1 1 ...\n";
        let mut window = Window::new(Bounds { lines: 2, bytes: 8 * line.len() });
        assert!(window.take(&record(1, b"held", line)));
        window.next = Some(Seq(2));
        window.groups[0].backoff.failed(Instant::now(), Duration::from_secs(1), &mut Jitter::new(1));
        window.recount();
        for seq in 2..=4 {
            assert!(window.take(&record(seq, b"held", line)), "{seq}");
        }
        assert!(!window.take(&record(5, b"held", line)), "half of the bytes");
        for seq in 5..=6 {
            assert!(window.take(&record(seq, b"other", line)), "{seq}");
        }
        assert!(!window.take(&record(7, b"other", line)), "two lines");
        window.groups[1].requests.clear();
        window.recount();
        let long = RecordView { lines: 3, ..record(7, b"other", line) };
        assert!(window.take(&long), "more lines than a window: alone");
        assert!(!window.has_room());
        window.groups[1].requests.clear();
        window.next = Some(Seq(8));
        window.recount();
        assert!(window.has_room());
        let held = PartGroup { db: b"held"[..].into(), first: Some(Seq(1)), rejected: 0 };
        assert_eq!(window.partly_settled(), Some(PartlySettled { next: Seq(8), groups: vec![held] }));
        window.groups[1].reject("refused", 3);
        let refused = PartGroup { db: b"other"[..].into(), first: None, rejected: 3 };
        assert_eq!(window.partly_settled().unwrap().groups[1], refused);
    }
}

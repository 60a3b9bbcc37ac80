//! The records a courier has fetched and not yet settled, regrouped into requests.
//!
//! A group holds the requests of one (database, policy), in order; only its first request is ever in flight. A policy
//! may be named or, as the default one, not: both are the same group. While the name of the default policy is not
//! known, all policies of a database are one group. Groups are independent of each other. A group that must wait stays
//! in the window while others leave it and new records are added. The cursors move once every group is settled; until
//! then [`PartlySettled`] says how far the others are.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::bisect::Bisect;
use super::body::RequestBody;
use super::client::Target;
use super::verdict::{Backoff, reason};
use super::watch::Watch;
use crate::disklog::{RecordView, Seq};
use crate::limits::{
    BATCH_BYTES_MAX, COURIER_GROUPS_MAX, REFUSAL_TEXT_CHARS_MAX, REQUEST_BYTES_MIN, WINDOW_HELD_SHARE,
};
use crate::precision::Precision;

/// Returns the ranges of the lines in a body, each without its final LF. Needs the rules of line protocol, since a
/// string may contain an LF.
pub type Splitter = fn(&[u8]) -> Vec<Range<usize>>;

/// Returns the name of a database's default policy, if it is known.
pub type DefaultPolicy<'a> = dyn Fn(&[u8]) -> Option<Box<[u8]>> + 'a;

/// Lines that are sent to the backend together.
#[derive(Debug)]
pub struct Request {
    /// The policy as the writers named it; empty = the default one.
    pub rp: Box<[u8]>,
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
    /// What may still be carried out is this request or a part of it: it need not wait for that when it is sent again,
    /// and nothing joins it.
    again: bool,
    /// Where its lines are from, in order.
    runs: Vec<Run>,
}

/// Consecutive lines of a request that are from one record.
#[derive(Clone, Copy, Debug)]
struct Run {
    log: u32,
    lines: u32,
    record: Seq,
    stamp: u64,
}

/// Points of one record that a backend has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedPoints {
    pub record: Seq,
    pub points: u64,
    /// The backend's text for the first of them.
    pub text: Arc<str>,
}

impl Request {
    fn new(rp: &[u8], precision: Precision, body: RequestBody) -> Self {
        let rp = rp.into();
        Self {
            rp,
            precision,
            body,
            lines: 0,
            strikes: 0,
            since: None,
            timeouts: 0,
            search: None,
            again: false,
            runs: Vec::new(),
        }
    }

    pub fn target<'a>(&'a self, db: &'a [u8]) -> Target<'a> {
        Target { db, rp: &self.rp, precision: self.precision }
    }

    fn add(&mut self, log: usize, record: &RecordView<'_>) {
        let lines = u64::from(record.lines);
        self.body.push(record.bytes);
        self.lines += lines;
        self.runs.push(Run { log: log as u32, lines: record.lines, record: record.seq, stamp: record.stamp });
    }

    /// The run of each line. `lines`: numbers, ascending.
    fn runs_of(&self, lines: impl Iterator<Item = u64>) -> impl Iterator<Item = &Run> {
        let (mut index, mut before) = (0, 0);
        lines.map(move |line| {
            while index + 1 < self.runs.len() && line >= before + u64::from(self.runs[index].lines) {
                before += u64::from(self.runs[index].lines);
                index += 1;
            }
            &self.runs[index]
        })
    }

    /// The stamp of its first record.
    fn stamp(&self) -> Option<u64> {
        self.runs.first().map(|run| run.stamp)
    }

    fn first_of(&self, log: usize) -> Option<Seq> {
        self.runs.iter().find(|run| run.log as usize == log).map(|run| run.record)
    }
}

/// The requests of one (database, policy).
#[derive(Debug)]
pub struct Group {
    pub db: Box<[u8]>,
    /// Its policy; None = all policies of the database.
    policy: Option<Box<[u8]>>,
    /// Under which names its policy has come.
    names: Vec<Box<[u8]>>,
    pub requests: VecDeque<Request>,
    pub backoff: Backoff,
    /// The first request, or a part of it, whose time is up and whose answer may still come. Nothing is sent meanwhile.
    pub watch: Option<Watch>,
    /// Until then an earlier request may still be carried out. Newer lines wait, so that it cannot replace them.
    doubtful_until: Option<Instant>,
    /// When the log last said that the backend's user may not write here.
    pub loud_at: Option<Instant>,
    /// Counts of the lines that are settled: each with its log.
    pub delivered: Vec<(usize, u64)>,
    pub rejected: Vec<(usize, &'static str, u64)>,
}

impl Group {
    /// It waits after a failure of its own, or refused lines are being searched: others go on meanwhile.
    fn is_held(&self) -> bool {
        let waits = self.backoff.is_running() || self.watch.is_some() || self.doubtful_until.is_some();
        waits || self.is_searched()
    }

    /// Those lines of its first request are searched that the backend refuses.
    pub fn is_searched(&self) -> bool {
        self.requests.front().is_some_and(|request| request.search.is_some())
    }

    /// What was last sent of the first request may still be carried out until then.
    pub fn doubt(&mut self, until: Instant) {
        self.wait_for_earlier(until);
        for (i, request) in self.requests.iter_mut().enumerate() {
            request.again = i == 0;
        }
    }

    /// A request that is not known here may be carried out until then.
    fn wait_for_earlier(&mut self, until: Instant) {
        self.doubtful_until = self.doubtful_until.max(Some(until));
    }

    /// When its first request can be sent, or its watch be looked at. None: it waits for its watch, or has nothing.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        let first = self.requests.front()?;
        match &self.watch {
            Some(watch) => watch.is_over().then_some(now),
            None => {
                let doubtful_until = self.doubtful_until.filter(|_| !first.again);
                Some(self.backoff.until().max(doubtful_until).unwrap_or(now))
            }
        }
    }

    /// Its first request can be sent, or its watch be looked at.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due_at(now).is_some_and(|at| at <= now)
    }

    /// When it no longer has to be remembered although it has no requests.
    pub fn forgotten_at(&self) -> Option<Instant> {
        self.doubtful_until.filter(|_| self.requests.is_empty())
    }

    /// Counts the lines of a request that is settled. `refused`: the numbers of those that were refused, ascending, and
    /// the backend's text. Returns these by record, each with its log.
    pub fn count<'a>(
        &mut self,
        request: &Request,
        refused: impl Iterator<Item = (u64, &'a str)> + Clone,
    ) -> Vec<(usize, RefusedPoints)> {
        for run in &request.runs {
            self.deliver(run.log as usize, u64::from(run.lines));
        }
        let mut by_record: Vec<(usize, RefusedPoints)> = Vec::new();
        let runs = request.runs_of(refused.clone().map(|(line, _)| line));
        for (run, (_, text)) in runs.zip(refused) {
            let log = run.log as usize;
            self.reject(log, reason(text), 1);
            if let Some((_, delivered)) = self.delivered.iter_mut().find(|(of, _)| *of == log) {
                *delivered = delivered.saturating_sub(1);
            }
            match by_record.last_mut().filter(|(of, last)| (*of, last.record) == (log, run.record)) {
                Some((_, last)) => last.points += 1,
                None => by_record.push((log, RefusedPoints { record: run.record, points: 1, text: kept(text) })),
            }
        }
        by_record
    }

    /// Counts all lines of a request as refused. Returns them as [`Group::count`] does.
    pub fn count_refused(
        &mut self,
        request: &Request,
        reason: &'static str,
        text: &str,
    ) -> Vec<(usize, RefusedPoints)> {
        let text = kept(text);
        let count = |run: &Run| {
            let (log, points) = (run.log as usize, u64::from(run.lines));
            self.reject(log, reason, points);
            (log, RefusedPoints { record: run.record, points, text: text.clone() })
        };
        request.runs.iter().map(count).collect()
    }

    fn deliver(&mut self, log: usize, lines: u64) {
        match self.delivered.iter_mut().find(|(of, _)| *of == log) {
            Some((_, n)) => *n += lines,
            None => self.delivered.push((log, lines)),
        }
    }

    fn reject(&mut self, log: usize, reason: &'static str, lines: u64) {
        match self.rejected.iter_mut().find(|(of, r, _)| *of == log && *r == reason) {
            Some((.., n)) => *n += lines,
            None => self.rejected.push((log, reason, lines)),
        }
    }

    /// Puts the second request's lines behind those of the first one, if they fit in one request.
    pub fn join_next(&mut self) {
        let (Some(first), Some(next)) = (self.requests.front(), self.requests.get(1)) else { return };
        if first.precision != next.precision
            || first.rp != next.rp
            || first.body.len() + next.body.len() > BATCH_BYTES_MAX
        {
            return;
        }
        let next = self.requests.remove(1).expect("looked at above");
        let first = self.requests.front_mut().expect("looked at above");
        first.body.push(next.body.bytes());
        first.lines += next.lines;
        first.runs.extend(next.runs);
        first.again = false;
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
            let mut half = Request::new(&first.rp, first.precision, RequestBody::default());
            half.body.push(bytes);
            half.lines = lines as u64;
            half.again = first.again;
            half
        });
        // If the record's count differs from the splitter's, the total stays the same.
        halves[1].lines = first.lines.saturating_sub(halves[0].lines);
        [halves[0].runs, halves[1].runs] = divide(&first.runs, halves[0].lines);
        let [front, back] = halves;
        *first = back;
        self.requests.push_front(front);
        true
    }
}

/// What is kept of a backend's text.
fn kept(text: &str) -> Arc<str> {
    text.chars().take(REFUSAL_TEXT_CHARS_MAX).collect::<String>().into()
}

/// Divides runs after that many lines. Both parts have at least one run.
fn divide(runs: &[Run], lines: u64) -> [Vec<Run>; 2] {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let mut left = lines;
    for run in runs {
        let taken = u64::from(run.lines).min(left) as u32;
        left -= u64::from(taken);
        if taken > 0 {
            front.push(Run { lines: taken, ..*run });
        }
        if taken < run.lines {
            back.push(Run { lines: run.lines - taken, ..*run });
        }
    }
    for part in [&mut front, &mut back] {
        if part.is_empty() {
            part.extend(runs.last().map(|run| Run { lines: 0, ..*run }));
        }
    }
    [front, back]
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
    /// All records with a smaller stamp have been fetched.
    pub below: u64,
    /// By log: the record after the last one that was fetched.
    pub next: Vec<Seq>,
    /// The other groups are settled as far as they were fetched.
    pub groups: Vec<PartGroup>,
}

impl PartlySettled {
    /// Whether all records of `db` before `end` in this log are settled.
    pub fn reaches(&self, log: usize, db: &[u8], end: Seq) -> bool {
        let is_open = |group: &PartGroup| *group.db == *db && group.first[log].is_some_and(|first| first < end);
        self.next[log] >= end && !self.groups.iter().any(is_open)
    }

    /// Whether all records of `db` (None: of all databases) with a smaller stamp are settled.
    pub fn reaches_stamp(&self, db: Option<&[u8]>, stamp: u64) -> bool {
        let concerned = |group: &&PartGroup| db.is_none_or(|db| *group.db == *db);
        let is_open = |group: &PartGroup| group.stamp.is_some_and(|first| first < stamp);
        self.below >= stamp && !self.groups.iter().filter(concerned).any(is_open)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartGroup {
    pub db: Box<[u8]>,
    /// The stamp of the first record that is not settled.
    pub stamp: Option<u64>,
    /// By log: the first record that is not settled.
    pub first: Vec<Option<Seq>>,
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
    /// Something has been fetched since the last [`Window::clear`].
    pub begun: bool,
    /// All records with a smaller stamp have been fetched.
    pub below: u64,
    /// The stamp of the oldest record taken.
    pub oldest: Option<u64>,
    /// A former process may have sent records with smaller stamps than this, and they may be carried out until then.
    pub earlier: Option<(u64, Instant)>,
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
            begun: false,
            below: 0,
            oldest: None,
            earlier: None,
        }
    }

    /// Takes the lines of a record from that log. False: the window is full. The first record always fits. `default`
    /// names the default policy of a database, if that is known.
    pub fn take(&mut self, log: usize, record: &RecordView<'_>, default: &DefaultPolicy<'_>) -> bool {
        let (lines, bytes) = (u64::from(record.lines), record.bytes.len());
        let Some(index) = self.group(record, default) else { return false };
        let group = &mut self.groups[index];
        if let Some((_, until)) = self.earlier.filter(|(below, _)| record.stamp < *below) {
            group.wait_for_earlier(until);
        }
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
            last.precision == record.precision
                && *last.rp == *record.rp
                && last.search.is_none()
                && !last.again
                && last.body.len() + bytes <= room
        };
        let request = match group.requests.back_mut().filter(joins) {
            Some(last) => last,
            None => {
                let body = self.spare.pop().unwrap_or_default();
                group.requests.push_back(Request::new(record.rp, record.precision, body));
                group.requests.back_mut().expect("just pushed")
            }
        };
        request.add(log, record);
        match is_held {
            true => self.held_bytes += bytes,
            false => self.lines += lines,
        }
        self.bytes += bytes;
        self.oldest.get_or_insert(record.stamp);
        self.begun = true;
        true
    }

    /// The record's group. None: it would be one group too many.
    fn group(&mut self, record: &RecordView<'_>, default: &DefaultPolicy<'_>) -> Option<usize> {
        let same = |g: &Group| *g.db == *record.db && g.names.iter().any(|name| **name == *record.rp);
        if self.groups.get(self.last).is_some_and(same) {
            return Some(self.last);
        }
        if let Some(index) = self.groups.iter().position(same) {
            self.last = index;
            return Some(index);
        }
        // A name can be trusted to be another policy than the default one only when that one is known.
        let policy = default(record.db).map(|default| if record.rp.is_empty() { default } else { record.rp.into() });
        let joins = |g: &Group| *g.db == *record.db && (g.policy.is_none() || policy.is_none() || g.policy == policy);
        self.last = match self.groups.iter().rposition(joins) {
            Some(index) => {
                let group = &mut self.groups[index];
                group.names.push(record.rp.into());
                group.policy = group.policy.take().filter(|_| policy.is_some());
                index
            }
            None if self.groups.len() < COURIER_GROUPS_MAX => {
                self.groups.push(Group {
                    db: record.db.into(),
                    policy,
                    names: vec![record.rp.into()],
                    requests: VecDeque::new(),
                    backoff: Backoff::default(),
                    watch: None,
                    doubtful_until: None,
                    loud_at: None,
                    delivered: Vec::new(),
                    rejected: Vec::new(),
                });
                self.groups.len() - 1
            }
            None => return None,
        };
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
        !self.begun
    }

    /// Every line has been delivered or rejected, and nothing that was sent is in doubt.
    pub fn settled(&self) -> bool {
        self.groups.iter().all(|g| g.requests.is_empty() && g.doubtful_until.is_none())
    }

    /// Forgets the doubts whose time has passed.
    pub fn forget(&mut self, now: Instant) {
        self.earlier = self.earlier.filter(|(_, until)| *until > now);
        for group in &mut self.groups {
            group.doubtful_until = group.doubtful_until.filter(|until| *until > now);
        }
    }

    /// What is settled although the cursor cannot move.
    /// `next`: by log, the record after the last one that was fetched.
    pub fn partly_settled(&self, next: Vec<Seq>) -> PartlySettled {
        let logs = next.len();
        let of = |group: &Group| {
            let first = |log| group.requests.iter().find_map(|request| request.first_of(log));
            (!group.requests.is_empty()).then(|| PartGroup {
                db: group.db.clone(),
                stamp: group.requests.front().and_then(Request::stamp),
                first: (0..logs).map(first).collect(),
            })
        };
        PartlySettled { below: self.below, next, groups: self.groups.iter().filter_map(of).collect() }
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
        (self.begun, self.oldest) = (false, None);
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
        RecordView { seq: Seq(seq), db, rp: b"", precision, stamp: 7, lines: 1, bytes }
    }

    #[test]
    fn what_is_held_fills_at_most_half_of_a_window_and_counts_no_lines() {
        let line = b"m v=1 1 ...\n";
        let mut window = Window::new(Bounds { lines: 2, bytes: 8 * line.len() });
        assert!(window.take(0, &record(1, b"held", line), &autogen));
        window.groups[0].backoff.failed(Instant::now(), Duration::from_secs(1), &mut Jitter::new(1));
        window.recount();
        for seq in 2..=4 {
            assert!(window.take(0, &record(seq, b"held", line), &autogen), "{seq}");
        }
        assert!(!window.take(0, &record(5, b"held", line), &autogen), "half of the bytes");
        for seq in 5..=6 {
            assert!(window.take(0, &record(seq, b"other", line), &autogen), "{seq}");
        }
        assert!(!window.take(0, &record(7, b"other", line), &autogen), "two lines");
        window.groups[1].requests.clear();
        window.recount();
        let long = RecordView { lines: 3, ..record(7, b"other", line) };
        assert!(window.take(0, &long, &autogen), "more lines than a window: alone");
        assert!(!window.has_room());
        window.groups[1].requests.clear();
        window.below = 8;
        window.recount();
        assert!(window.has_room());
        let held = PartGroup { db: b"held"[..].into(), stamp: Some(7), first: vec![Some(Seq(1)), None] };
        let next = vec![Seq(8), Seq(3)];
        let want = PartlySettled { below: 8, next: next.clone(), groups: vec![held] };
        assert_eq!(window.partly_settled(next), want);
        assert!(want.reaches(0, b"other", Seq(8)) && !want.reaches(0, b"other", Seq(9)));
        assert!(want.reaches(0, b"held", Seq(1)) && !want.reaches(0, b"held", Seq(2)));
        assert!(want.reaches(1, b"held", Seq(3)), "in the other log nothing of it is open");
        assert!(want.reaches_stamp(Some(b"other"), 8) && !want.reaches_stamp(Some(b"other"), 9));
        assert!(want.reaches_stamp(None, 7) && !want.reaches_stamp(None, 8));
    }

    fn autogen(_: &[u8]) -> Option<Box<[u8]>> {
        Some(b"autogen"[..].into())
    }

    /// Names of policies in the order of their first records, each with the number of its group.
    fn groups(names: &[&'static [u8]], default: &DefaultPolicy<'_>) -> Vec<usize> {
        let mut window = Window::new(Bounds { lines: 100, bytes: 10_000 });
        let number = |rp: &&'static [u8]| {
            let record = RecordView { rp, ..record(1, b"db", b"m v=1\n") };
            assert!(window.take(0, &record, default));
            window.last
        };
        names.iter().map(number).collect()
    }

    #[test]
    fn the_default_policy_is_one_group_by_whatever_name() {
        let names: [&[u8]; 6] = [b"", b"week", b"autogen", b"week", b"", b"autogen"];
        assert_eq!(groups(&names, &autogen), [0, 1, 0, 1, 0, 0]);
        assert_eq!(groups(&names, &|_| None), [0; 6], "any name may be that of the default policy");
        let known = std::cell::Cell::new(false);
        let later = |_: &[u8]| known.replace(true).then(|| b"autogen"[..].into());
        assert_eq!(groups(&names, &later), [0; 6], "until the window is done");
    }

    #[test]
    fn lines_are_counted_for_the_log_and_the_record_that_they_are_from() {
        let mut window = Window::new(Bounds { lines: 100, bytes: 10_000 });
        for (seq, log, lines) in [(1, 0, 2), (9, 1, 3), (2, 0, 1), (3, 0, 1)] {
            let record = RecordView { lines, ..record(seq, b"db", b"m v=1\nm v=1\nm v=1\n") };
            assert!(window.take(log, &record, &autogen));
        }
        let group = &mut window.groups[0];
        let request = group.requests.front().unwrap();
        let records = request.runs_of([0, 1, 2, 4, 5, 6, 99].into_iter()).map(|run| (run.log, run.record.0));
        let want = [(0, 1), (0, 1), (1, 9), (1, 9), (0, 2), (0, 3), (0, 3)];
        assert_eq!(records.collect::<Vec<_>>(), want);
        assert_eq!((request.first_of(0), request.first_of(1)), (Some(Seq(1)), Some(Seq(9))));
        let [front, back] = divide(&request.runs, 3);
        let lines = |runs: &[Run]| runs.iter().map(|run| (run.log, run.lines)).collect::<Vec<_>>();
        assert_eq!((lines(&front), lines(&back)), (vec![(0, 2), (1, 1)], vec![(1, 2), (0, 1), (0, 1)]));
        let [front, back] = divide(&request.runs, 7);
        assert_eq!((lines(&front), lines(&back)), (vec![(0, 2), (1, 3), (0, 1), (0, 1)], vec![(0, 0)]));
        let request = group.requests.pop_front().unwrap();
        let refused = group.count(&request, [(2, "no"), (3, "not either"), (6, "no")].into_iter());
        assert_eq!(group.delivered, [(0, 3), (1, 1)]);
        assert_eq!(group.rejected, [(1, "refused", 2), (0, "refused", 1)]);
        let of = |record, points| RefusedPoints { record: Seq(record), points, text: "no".into() };
        assert_eq!(refused, [(1, of(9, 2)), (0, of(3, 1))]);
        let refused = group.count_refused(&request, "too large", "no");
        assert_eq!(refused, [(0, of(1, 2)), (1, of(9, 3)), (0, of(2, 1)), (0, of(3, 1))]);
    }
}

//! The requests of one (database, policy), in order, and where their lines are from. Only the first request is ever in
//! flight. Not here: which records are fetched (`window.rs`), what answers mean (`deliver.rs`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::bisect::Bisect;
use super::body::RequestBody;
use super::client::Target;
use super::hint;
use super::verdict::{Backoff, reason};
use super::watch::Watch;
use crate::disklog::{RecordView, Seq};
use crate::limits::{BATCH_BYTES_MAX, REFUSAL_TEXT_CHARS_MAX};
use crate::precision::Precision;

/// Returns the ranges of the lines in a body, each without its final LF. Needs the rules of line protocol, since a
/// string may contain an LF.
pub type Splitter = fn(&[u8]) -> Vec<Range<usize>>;

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
    pub(super) again: bool,
    /// It waits until other circles have its lines; nothing joins it, or the wait would not end.
    pub(super) is_closed: bool,
    /// Where its lines are from, in order.
    runs: Vec<Run>,
}

/// Consecutive lines of a request that are from one record.
#[derive(Clone, Copy, Debug)]
struct Run {
    log: u32,
    /// The number of the first one in the record.
    first: u32,
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
    /// Their lines in the record as far as every backend refuses them that knows the types of fields, ascending.
    pub lines: Vec<u32>,
}

/// Points that a backend has refused: of one log, policy and stamp, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedPoints {
    pub log: usize,
    pub rp: Box<[u8]>,
    pub stamp: u64,
    /// The last record.
    pub record: Seq,
    pub reason: &'static str,
    pub points: u64,
}

impl Request {
    pub(super) fn new(rp: &[u8], precision: Precision, body: RequestBody) -> Self {
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
            is_closed: false,
            runs: Vec::new(),
        }
    }

    pub fn target<'a>(&'a self, db: &'a [u8]) -> Target<'a> {
        Target { db, rp: &self.rp, precision: self.precision }
    }

    pub(super) fn add(&mut self, log: usize, record: &RecordView<'_>) {
        let lines = u64::from(record.lines);
        self.body.push(record.bytes);
        self.lines += lines;
        self.runs.push(Run { log: log as u32, first: 0, lines: record.lines, record: record.seq, stamp: record.stamp });
    }

    /// The run of each line, and the line's number in its record. `lines`: numbers, ascending.
    fn runs_of(&self, lines: impl Iterator<Item = u64>) -> impl Iterator<Item = (&Run, u32)> {
        let (mut index, mut before) = (0, 0);
        lines.map(move |line| {
            while index + 1 < self.runs.len() && line >= before + u64::from(self.runs[index].lines) {
                before += u64::from(self.runs[index].lines);
                index += 1;
            }
            let run = &self.runs[index];
            (run, run.first + (line - before) as u32)
        })
    }

    /// The numbers of those lines that `of` tells of their record, ascending.
    pub(super) fn lines_among(&self, of: impl Fn(usize, Seq) -> Vec<u32>) -> Vec<u32> {
        let (mut lines, mut before) = (Vec::new(), 0);
        for run in &self.runs {
            let mine = of(run.log as usize, run.record)
                .into_iter()
                .filter(|line| (run.first..run.first.saturating_add(run.lines)).contains(line));
            lines.extend(mine.map(|line| before + line - run.first));
            before += run.lines;
        }
        lines
    }

    /// The stamp of its first record.
    pub(super) fn stamp(&self) -> Option<u64> {
        self.runs.first().map(|run| run.stamp)
    }

    /// The stamp of its last record.
    pub(super) fn last_stamp(&self) -> Option<u64> {
        self.runs.last().map(|run| run.stamp)
    }

    /// Nothing of its first record is in an earlier request.
    pub(super) fn begins_a_record(&self) -> bool {
        self.runs.first().is_some_and(|run| run.first == 0)
    }

    pub(super) fn last_of(&self, log: usize) -> Option<Seq> {
        self.runs.iter().rfind(|run| run.log as usize == log).map(|run| run.record)
    }

    pub(super) fn first_of(&self, log: usize) -> Option<Seq> {
        self.runs.iter().find(|run| run.log as usize == log).map(|run| run.record)
    }
}

/// The requests of one (database, policy).
#[derive(Debug)]
pub struct Group {
    pub db: Box<[u8]>,
    /// Its policy; None = all policies of the database.
    pub(super) policy: Option<Box<[u8]>>,
    /// Under which names its policy has come.
    pub(super) names: Vec<Box<[u8]>>,
    pub requests: VecDeque<Request>,
    pub backoff: Backoff,
    /// The first request, or a part of it, whose time is up and whose answer may still come. Nothing is sent meanwhile.
    pub watch: Option<Watch>,
    /// Until then an earlier request may still be carried out. Newer lines wait, so that it cannot replace them.
    pub(super) doubtful_until: Option<Instant>,
    /// Since when it is held; set when the courier looks.
    pub(super) held_since: Option<Instant>,
    /// A side courier delivers what comes before its requests.
    pub(super) behind_side: bool,
    /// When the log last said that the backend's user may not write here.
    pub loud_at: Option<Instant>,
    /// What became of the lines that are settled: each with its log.
    pub delivered: Vec<(usize, u64)>,
    pub rejected: Vec<RejectedPoints>,
}

impl Group {
    /// Without requests. `policy`: None = all policies of the database. `rp`: under which name it comes first.
    pub(super) fn new(db: &[u8], policy: Option<Box<[u8]>>, rp: &[u8]) -> Self {
        Self {
            db: db.into(),
            policy,
            names: vec![rp.into()],
            requests: VecDeque::new(),
            backoff: Backoff::default(),
            watch: None,
            doubtful_until: None,
            held_since: None,
            behind_side: false,
            loud_at: None,
            delivered: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// It waits after a failure of its own, or refused lines are being searched: others go on meanwhile.
    pub(super) fn is_held(&self) -> bool {
        let waits = self.backoff.is_running() || self.watch.is_some() || self.doubtful_until.is_some();
        waits || self.behind_side || self.is_searched()
    }

    /// It has something that waits, nothing of it is in doubt, and it shares no record with what is settled.
    pub(super) fn may_park(&self) -> bool {
        let is_doubtful = self.watch.is_some() || self.doubtful_until.is_some() || self.behind_side;
        !is_doubtful && self.requests.front().is_some_and(Request::begins_a_record)
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
    pub(super) fn wait_for_earlier(&mut self, until: Instant) {
        self.doubtful_until = self.doubtful_until.max(Some(until));
    }

    /// When its first request can be sent, or its watch be looked at. None: it waits for its watch or a side courier,
    /// or has nothing.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        let first = self.requests.front().filter(|_| !self.behind_side)?;
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
        for ((run, line), (_, text)) in runs.zip(refused) {
            let log = run.log as usize;
            self.reject(&request.rp, run, reason(text), 1);
            if let Some((_, delivered)) = self.delivered.iter_mut().find(|(of, _)| *of == log) {
                *delivered = delivered.saturating_sub(1);
            }
            match by_record.last_mut().filter(|(of, last)| (*of, last.record) == (log, run.record)) {
                Some((_, last)) => last.points += 1,
                None => {
                    let (record, text) = (run.record, kept(text));
                    by_record.push((log, RefusedPoints { record, points: 1, text, lines: Vec::new() }));
                }
            }
            if hint::is_type_conflict(text) {
                by_record.last_mut().expect("just looked at").1.lines.push(line);
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
            self.reject(&request.rp, run, reason, points);
            (log, RefusedPoints { record: run.record, points, text: text.clone(), lines: Vec::new() })
        };
        request.runs.iter().map(count).collect()
    }

    fn deliver(&mut self, log: usize, lines: u64) {
        match self.delivered.iter_mut().find(|(of, _)| *of == log) {
            Some((_, n)) => *n += lines,
            None => self.delivered.push((log, lines)),
        }
    }

    fn reject(&mut self, rp: &[u8], run: &Run, reason: &'static str, points: u64) {
        let (log, stamp, record) = (run.log as usize, run.stamp, run.record);
        let mut of_stamp = self.rejected.iter_mut().rev().take_while(|rejected| rejected.stamp == stamp);
        match of_stamp.find(|known| (known.log, &*known.rp, known.reason) == (log, rp, reason)) {
            Some(known) => (known.record, known.points) = (record, known.points + points),
            None => self.rejected.push(RejectedPoints { log, rp: rp.into(), stamp, record, reason, points }),
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
            back.push(Run { first: run.first + taken, lines: run.lines - taken, ..*run });
        }
    }
    for part in [&mut front, &mut back] {
        if part.is_empty() {
            part.extend(runs.last().map(|run| Run { lines: 0, ..*run }));
        }
    }
    [front, back]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_for_the_log_and_the_record_that_they_are_from() {
        let mut group = Group::new(b"db", None, b"");
        let mut request = Request::new(b"", Precision::Nanosecond, RequestBody::default());
        for (seq, log, lines) in [(1, 0, 2), (9, 1, 3), (2, 0, 1), (3, 0, 1)] {
            let precision = Precision::Nanosecond;
            request.add(log, &RecordView { seq: Seq(seq), db: b"db", rp: b"", precision, stamp: 7, lines, bytes: b"" });
        }
        let of = |(run, line): (&Run, u32)| (run.log, run.record.0, line);
        let records = request.runs_of([0, 1, 2, 4, 5, 6, 99].into_iter()).map(of);
        let want = [(0, 1, 0), (0, 1, 1), (1, 9, 0), (1, 9, 2), (0, 2, 0), (0, 3, 0), (0, 3, 93)];
        assert_eq!(records.collect::<Vec<_>>(), want);
        let known = |log, record: Seq| if (log, record) == (1, Seq(9)) { vec![0, 2, 7] } else { Vec::new() };
        assert_eq!(request.lines_among(known), [2, 4]);
        assert_eq!((request.first_of(0), request.first_of(1)), (Some(Seq(1)), Some(Seq(9))));
        let [front, back] = divide(&request.runs, 3);
        assert_eq!((back[0].first, back[1].first), (1, 0));
        let lines = |runs: &[Run]| runs.iter().map(|run| (run.log, run.lines)).collect::<Vec<_>>();
        assert_eq!((lines(&front), lines(&back)), (vec![(0, 2), (1, 1)], vec![(1, 2), (0, 1), (0, 1)]));
        let [front, back] = divide(&request.runs, 7);
        assert_eq!((lines(&front), lines(&back)), (vec![(0, 2), (1, 3), (0, 1), (0, 1)], vec![(0, 0)]));
        let conflict = "partial write: field type conflict: ...";
        let refused = group.count(&request, [(2, "no"), (3, conflict), (6, "no")].into_iter());
        assert_eq!(group.delivered, [(0, 3), (1, 1)]);
        let rejected: Vec<_> = group.rejected.iter().map(|r| (r.log, r.record.0, r.reason, r.points)).collect();
        assert_eq!(rejected, [(1, 9, "refused", 1), (1, 9, "field type conflict", 1), (0, 3, "refused", 1)]);
        let of = |record, points| RefusedPoints { record: Seq(record), points, text: "no".into(), lines: Vec::new() };
        assert_eq!(refused, [(1, RefusedPoints { lines: vec![1], ..of(9, 2) }), (0, of(3, 1))]);
        let refused = group.count_refused(&request, "too large", "no");
        assert_eq!(refused, [(0, of(1, 2)), (1, of(9, 3)), (0, of(2, 1)), (0, of(3, 1))]);
    }
}

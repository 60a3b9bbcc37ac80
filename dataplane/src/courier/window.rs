//! The records a courier has fetched and not yet settled, regrouped into requests.
//!
//! A group holds the requests of one (database, policy), in order; only its first request is ever in flight. A policy
//! may be named or, as the default one, not: both are the same group. While the name of the default policy is not
//! known, all policies of a database are one group. Groups are independent of each other. A group that must wait stays
//! in the window while others leave it and new records are added. The cursors move once every group is settled; until
//! then [`PartlySettled`] says how far the others are.

use std::time::Instant;

use super::body::RequestBody;
use super::group::{Group, Request};
use super::source::UnsettledPart;
use crate::disklog::{RecordView, Seq};
use crate::limits::{COURIER_GROUPS_MAX, PARK_AFTER, REQUEST_BYTES_MIN, WINDOW_HELD_SHARE};
use crate::parked::ParkedKey;

/// Returns the name of a database's default policy, if it is known.
pub type DefaultPolicy<'a> = dyn Fn(&[u8]) -> Option<Box<[u8]>> + 'a;

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
        let Some(index) = self.group(record, default) else { return false };
        !self.groups[index].behind_side && self.add(log, record, index)
    }

    fn add(&mut self, log: usize, record: &RecordView<'_>, index: usize) -> bool {
        let (lines, bytes) = (u64::from(record.lines), record.bytes.len());
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
                && !last.is_closed
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
                self.groups.push(Group::new(record.db, policy, record.rp));
                self.groups.len() - 1
            }
            None => return None,
        };
        Some(self.last)
    }

    /// Takes a record that waits for a side courier. False: there is no room.
    pub fn take_behind_side(
        &mut self,
        log: usize,
        record: &RecordView<'_>,
        key: &ParkedKey,
        default: &DefaultPolicy<'_>,
    ) -> bool {
        let Some(index) = self.group(record, default) else { return false };
        let group = &mut self.groups[index];
        // While the default policy is not known, a group may have points that are not parked.
        if !group.names.iter().all(|rp| key.has(&group.db, rp)) {
            return false;
        }
        // What the group has from before its points were parked is settled.
        group.behind_side = true;
        self.add(log, record, index)
    }

    /// The groups of this database and policies.
    pub fn of_key<'a>(&'a mut self, key: &'a ParkedKey) -> impl Iterator<Item = &'a mut Group> {
        self.groups.iter_mut().filter(|group| group.names.iter().any(|rp| key.has(&group.db, rp)))
    }

    /// A group that has been held for [`PARK_AFTER`], nothing of which is in doubt, and that shares no record with what
    /// is settled: its index and key. `may_be`: whether a key may be parked now.
    pub fn next_to_park(
        &mut self,
        now: Instant,
        default: &DefaultPolicy<'_>,
        may_be: impl Fn(&ParkedKey) -> bool,
    ) -> Option<(usize, ParkedKey)> {
        for group in &mut self.groups {
            let is_held = group.is_held() && !group.requests.is_empty();
            group.held_since = is_held.then(|| group.held_since.unwrap_or(now));
        }
        let has_waited = |since| now.saturating_duration_since(since) >= PARK_AFTER;
        let all = self.groups.iter().enumerate();
        let waiting = all.filter(|(_, group)| group.may_park() && group.held_since.is_some_and(has_waited));
        let mut keys = waiting.filter_map(|(index, group)| Some((index, self.key_of(group, default)?)));
        keys.find(|(_, key)| may_be(key))
    }

    /// The key of a group. None: it cannot be told from other groups of its database.
    fn key_of(&self, group: &Group, default: &DefaultPolicy<'_>) -> Option<ParkedKey> {
        let db = group.db.clone();
        let (Some(policy), Some(default)) = (&group.policy, default(&db)) else {
            // Where the default policy is not known any policy may be it.
            let is_alone = self.groups.iter().filter(|other| other.db == db).count() == 1;
            return is_alone.then_some(ParkedKey { db, rps: None });
        };
        let mut rps = group.names.clone();
        rps.push(policy.clone());
        rps.extend((*policy == default).then(Box::default));
        rps.sort_unstable();
        rps.dedup();
        Some(ParkedKey { db, rps: Some(rps) })
    }

    /// When the next group is to be parked, if nothing of it is in doubt then.
    pub fn park_at(&self) -> Option<Instant> {
        self.groups
            .iter()
            .filter(|group| group.may_park())
            .filter_map(|group| Some(group.held_since? + PARK_AFTER))
            .min()
    }

    /// What of a group is not settled, and the counts of what is. `next`: by log, the record after the last one that
    /// was fetched.
    pub fn part_of(&self, index: usize, next: Vec<Seq>) -> Option<UnsettledPart> {
        let group = &self.groups[index];
        let first = |log| group.requests.iter().find_map(|request| request.first_of(log));
        let last = |log| group.requests.iter().rev().find_map(|request| request.last_of(log));
        Some(UnsettledPart {
            stamp: group.requests.front()?.stamp()?,
            last_stamp: group.requests.back()?.last_stamp()?,
            first: next.iter().enumerate().map(|(log, next)| first(log).unwrap_or(*next)).collect(),
            end: (0..next.len()).map(|log| last(log).map_or(Seq(0), |last| Seq(last.0 + 1))).collect(),
            delivered: group.delivered.clone(),
            rejected: group.rejected.clone(),
        })
    }

    /// Makes a group empty, as if it had had nothing in this window.
    pub fn empty(&mut self, index: usize, bodies: &mut Vec<RequestBody>) {
        let group = &mut self.groups[index];
        bodies.extend(group.requests.drain(..).map(|request| request.body));
        group.delivered.clear();
        group.rejected.clear();
        group.backoff.reset();
        group.held_since = None;
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

    /// The backend does not take, or does not answer, some of what is here.
    pub fn fails(&self) -> bool {
        let fails = |group: &Group| group.backoff.is_running() || group.watch.is_some();
        self.groups.iter().any(|group| !group.requests.is_empty() && fails(group))
    }

    pub fn lines_max(&self) -> u64 {
        self.bounds.lines
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
    use crate::precision::Precision;

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

    #[test]
    fn what_is_parked_is_named_by_its_policy_or_by_its_database_alone() {
        let line = b"m v=1 1\n";
        let key = |rps: Option<&[&str]>| ParkedKey {
            db: b"held"[..].into(),
            rps: rps.map(|rps| rps.iter().map(|rp| rp.as_bytes().into()).collect()),
        };
        let held = |policies: &[&'static [u8]], default: &DefaultPolicy<'_>| {
            let mut window = Window::new(Bounds { lines: 100, bytes: 10_000 });
            for rp in policies {
                assert!(window.take(0, &RecordView { rp, ..record(1, b"held", line) }, default));
            }
            let now = Instant::now();
            window.groups[0].backoff.failed(now, Duration::from_secs(9), &mut Jitter::new(1));
            assert_eq!(window.next_to_park(now, default, |_| true), None, "not at once");
            assert!(window.park_at().is_some_and(|at| at == now + PARK_AFTER));
            (window, now + PARK_AFTER)
        };
        let unknown: &DefaultPolicy<'_> = &|_| None;
        for (policies, default, want) in [
            (&[&b""[..]][..], &autogen as &DefaultPolicy<'_>, Some(key(Some(&["", "autogen"])))),
            (&[b"week", b""], &autogen, Some(key(Some(&["week"])))),
            (&[b"week", b""], unknown, Some(key(None))),
        ] {
            let (mut window, later) = held(policies, default);
            let found = window.next_to_park(later, default, |_| true).map(|(_, key)| key);
            assert_eq!(found, want, "{policies:?}");
            assert_eq!(window.next_to_park(later, default, |key| Some(key) != want.as_ref()), None);
        }
        // The default policy was known, and is not any more: another group may be of the same policy.
        let (mut window, later) = held(&[b"week", b""], &autogen);
        assert_eq!(window.next_to_park(later, unknown, |_| true), None);
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
}

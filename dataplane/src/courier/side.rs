//! Side couriers. Points of a database that the backend does not take now, while it may take others, are *parked* after
//! a while: the courier passes them over, and a courier of their own delivers them from the same logs, in the same
//! order, with a small window. When that one is near the end, the courier takes new records of the key again, and holds
//! them until the side courier has delivered all before.
//!
//! The point of the change is kept for each log: the record after the last one that the courier has passed over, or
//! that the side courier has taken. The side courier delivers what comes before, the courier what comes after. Since
//! both see the records in one order, no record is delivered by both, and none by neither. The side courier ends when
//! it has delivered all before that point; the cursors have passed it by then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use super::source::{Parking, RecordSource, Reports, UnsettledPart};
use super::window::{Bounds, DefaultPolicy, Window};
use super::{Courier, Handle};
use crate::disklog::{RecordView, Seq};
use crate::io;
use crate::limits::{SIDE_END_WAIT, SIDE_WINDOW_BYTES};
use crate::parked::ParkedKey;

/// How far a side courier is, for the courier; and where it must stop.
#[derive(Debug, Default)]
pub struct SideProgress {
    /// It has received all there was, a moment ago.
    is_near: Cell<bool>,
    /// Everything of the key below this stamp, and by log before this sequence, is settled and reported.
    below: Cell<u64>,
    next: RefCell<Vec<Seq>>,
    /// By log: the record after the last one that it has taken; and the largest stamp of these.
    taken: RefCell<Vec<Seq>>,
    taken_stamp: Cell<u64>,
    /// By log: it delivers only what comes before.
    until: RefCell<Option<Vec<Seq>>>,
}

impl SideProgress {
    /// For so many logs.
    pub fn new(logs: usize) -> Self {
        Self { next: vec![Seq(0); logs].into(), taken: vec![Seq(0); logs].into(), ..Self::default() }
    }

    /// Whether the side courier takes a record. False: it has come to its end.
    pub fn takes(&self, log: usize, record: &RecordView<'_>) -> bool {
        self.until.borrow().as_ref().is_none_or(|until| record.seq < until[log])
    }

    /// The backend does not take what it has.
    pub fn falls_behind(&self) {
        self.is_near.set(false);
    }

    /// The side courier has taken a record.
    pub fn took(&self, log: usize, record: &RecordView<'_>) {
        self.taken.borrow_mut()[log] = Seq(record.seq.0 + 1);
        self.taken_stamp.set(record.stamp.max(self.taken_stamp.get()));
    }
}

/// One side courier, for the courier.
#[derive(Debug)]
struct Side {
    key: ParkedKey,
    handle: Rc<Handle>,
    progress: Rc<SideProgress>,
    /// By log: the record after the last one that the courier has passed over; and the largest stamp of these.
    passed: Vec<Seq>,
    passed_stamp: u64,
    /// Former processes have passed over everything below the first stamp, and have delivered everything of the key
    /// below the second one.
    floors: (u64, u64),
    /// Since when the courier takes records from `passed` on itself.
    resumed: Option<Instant>,
}

/// What a side courier knows of its courier.
#[derive(Debug)]
pub struct SideOf {
    /// What the courier sees of it.
    pub progress: Rc<SideProgress>,
    courier: Rc<Handle>,
}

impl SideOf {
    /// Everything that has been fetched is settled: tells the courier, unless a log has not got all reports.
    pub fn tell(&self, source: &mut impl RecordSource, below: u64, is_near: bool) {
        if !source.has_reported() {
            return;
        }
        let progress = &self.progress;
        progress.below.set(below.max(progress.below.get()));
        progress.next.replace(source.positions());
        if progress.is_near.replace(is_near) != is_near || progress.until.borrow().is_some() {
            self.courier.event.notify();
        }
    }
}

/// The side couriers of one courier.
#[derive(Debug, Default)]
pub struct Sides(Vec<Side>);

impl Sides {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A side courier has been started. `floors`: what former processes have passed over, and delivered of the key.
    /// `passed`: by log, the record after the last one of its key that has been fetched; and their largest stamp.
    pub fn add(
        &mut self,
        key: ParkedKey,
        handle: Rc<Handle>,
        progress: Rc<SideProgress>,
        floors: (u64, u64),
        (passed, passed_stamp): (Vec<Seq>, u64),
    ) {
        self.0.push(Side { key, handle, progress, passed, passed_stamp, floors, resumed: None });
    }

    /// Whether points of this key are parked already, or some of them.
    pub fn overlaps(&self, key: &ParkedKey) -> bool {
        self.0.iter().any(|side| {
            side.key.db == key.db
                && match (&side.key.rps, &key.rps) {
                    (Some(own), Some(other)) => own.iter().any(|rp| other.contains(rp)),
                    _ => true,
                }
        })
    }

    /// Leaves a record to its side courier, or takes it to hold it until that one has ended. False: it is not of a
    /// parked key.
    pub fn divert(
        &mut self,
        window: &mut Window,
        log: usize,
        record: &RecordView<'_>,
        default: &DefaultPolicy<'_>,
    ) -> bool {
        let Some(side) = self.0.iter_mut().find(|side| side.key.has(record.db, record.rp)) else { return false };
        if !side.progress.takes(log, record) {
            if window.take_behind_side(log, record, &side.key, default) {
                return true;
            }
            // There is no room for it in the window.
            side.give_back(window);
        }
        side.pass(log, record.seq, record.stamp);
        window.begun = true;
        true
    }

    /// Lets side couriers that are near the end come to it. To be called when the cursors have moved past everything
    /// that was fetched: otherwise, after a crash, what a side courier has delivered would lie behind a cursor of
    /// points that are not parked any more. `below`: everything with a smaller stamp has been fetched.
    pub fn resume(&mut self, below: u64, now: Instant) {
        for side in self.0.iter_mut().filter(|side| side.resumed.is_none() && side.progress.is_near.get()) {
            let progress = &side.progress;
            // What it has delivered must have been passed over. By stamp: what a log has lost is never passed over.
            let is_passed = below > progress.taken_stamp.get() || reached(&side.passed, &progress.taken.borrow());
            if is_passed && below >= side.floors.1 {
                side.resumed = Some(now);
                let taken = progress.taken.borrow();
                let until = side.passed.iter().zip(taken.iter()).map(|(passed, taken)| *passed.max(taken));
                progress.until.replace(Some(until.collect()));
                side.handle.event.notify();
            }
        }
    }

    /// Side couriers that do not come to their end soon get the records back.
    pub fn look(&mut self, window: &mut Window, now: Instant) {
        for side in &mut self.0 {
            let is_late = |since| now.saturating_duration_since(since) >= SIDE_END_WAIT;
            if side.resumed.is_some_and(is_late) && !side.has_ended() {
                side.give_back(window);
            }
        }
    }

    /// Ends those that have delivered everything that was passed over. `unpark`: false = not now.
    pub fn end(
        &mut self,
        window: &mut Window,
        mut unpark: impl FnMut(&ParkedKey) -> bool,
    ) -> Vec<(ParkedKey, Rc<Handle>)> {
        let mut ended = Vec::new();
        self.0.retain(|side| {
            let ends = side.resumed.is_some() && side.has_ended() && unpark(&side.key);
            if ends {
                window.of_key(&side.key).for_each(|group| group.behind_side = false);
                ended.push((side.key.clone(), side.handle.clone()));
            }
            !ends
        });
        ended
    }
}

/// Whether every log has come as far as another place.
fn reached(one: &[Seq], other: &[Seq]) -> bool {
    one.iter().zip(other).all(|(one, other)| one >= other)
}

impl Side {
    fn pass(&mut self, log: usize, record: Seq, stamp: u64) {
        self.passed[log] = Seq(record.0 + 1).max(self.passed[log]);
        self.passed_stamp = stamp.max(self.passed_stamp);
    }

    /// Whether it has delivered everything before the point of the change.
    fn has_ended(&self) -> bool {
        let (next, below) = (self.progress.next.borrow(), self.progress.below.get());
        // By stamp: what a log has lost or dropped is never reached. By sequence: two records may have one stamp.
        let all_delivered = below > self.passed_stamp || reached(&next, &self.passed);
        below >= self.floors.0 && all_delivered && reached(&next, &self.progress.taken.borrow())
    }

    /// The courier has taken records of the key too early: the side courier delivers them.
    fn give_back(&mut self, window: &mut Window) {
        self.resumed = None;
        self.progress.is_near.set(false);
        self.progress.until.replace(None);
        let key = self.key.clone();
        for group in window.of_key(&key).filter(|group| group.behind_side) {
            for request in group.requests.drain(..) {
                for log in 0..self.passed.len() {
                    if let Some(last) = request.last_of(log) {
                        self.pass(log, last, request.last_stamp().unwrap_or_default());
                    }
                }
            }
            group.behind_side = false;
        }
        self.handle.event.notify();
    }
}

impl<S: RecordSource + Parking<R> + 'static, R: Reports + 'static> Courier<S, R> {
    /// Parks what has been held for long.
    pub(super) fn park_held(&mut self) {
        // While the backend takes nothing there is nobody to let past.
        while self.sides.len() < self.parked_max && self.delivery.handle.health.borrow().reachable() {
            let reports = &self.delivery.reports;
            let default = |db: &[u8]| reports.default_policy(db).map(|name| name.into_bytes().into());
            let may_be = |key: &ParkedKey| !self.sides.overlaps(key);
            let Some((index, key)) = self.window.next_to_park(io::now(), &default, may_be) else { return };
            let Some(part) = self.window.part_of(index, self.source.positions()) else { return };
            if !self.start_side(key, Some(&part)) {
                return;
            }
            self.window.empty(index, &mut self.delivery.bodies.borrow_mut());
            self.window.recount();
        }
    }

    /// Starts a side courier. `part`: what of its points is in the window; None = the logs know where they begin.
    /// False: not now.
    pub(super) fn start_side(&mut self, key: ParkedKey, part: Option<&UnsettledPart>) -> bool {
        let Some((source, reports)) = self.source.park(&key, part) else { return false };
        let floors = self.source.floors(&key);
        let logs = self.source.positions().len();
        let main = &self.delivery.handle;
        let handle = Handle::new(main.health.clone());
        handle.hold.set(main.hold.get());
        main.sides.borrow_mut().push(handle.clone());
        let label = format!("{}, database {:?}", self.delivery.label, String::from_utf8_lossy(&key.db));
        log::warn!("{label}: its points wait on their own now, others go on");
        let bounds = Bounds { lines: self.window.lines_max(), bytes: SIDE_WINDOW_BYTES };
        let mut side = Self::with(label, source, reports, handle.clone(), bounds, self.shared.clone());
        let progress = Rc::new(SideProgress::new(logs));
        side.side_of = Some(SideOf { progress: progress.clone(), courier: main.clone() });
        // All that it sends had to wait.
        side.delivery.rewriting.set(true);
        let passed = match part {
            Some(part) => (part.end.clone(), part.last_stamp),
            None => (vec![Seq(0); logs], 0),
        };
        self.sides.add(key, handle, progress, floors, passed);
        io::spawn(side.run());
        true
    }

    /// Side couriers that are at their end give their points back.
    pub(super) fn look_at_sides(&mut self) {
        if self.sides.is_empty() {
            return;
        }
        if self.window.is_empty() {
            self.sides.resume(self.window.below, io::now());
        }
        self.sides.look(&mut self.window, io::now());
        let source = &self.source;
        for (key, ended) in self.sides.end(&mut self.window, |key| source.unpark(key)) {
            let db = String::from_utf8_lossy(&key.db);
            log::info!("{}, database {db:?}: its points wait on their own no longer", self.delivery.label);
            ended.stop.notify();
            self.delivery.handle.sides.borrow_mut().retain(|side| !Rc::ptr_eq(side, &ended));
        }
        self.window.recount();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::courier::verdict::{Health, Jitter};
    use crate::courier::window::Bounds;
    use crate::precision::Precision;

    fn record(seq: u64, rp: &'static [u8]) -> RecordView<'static> {
        let (db, bytes) = (&b"db"[..], &b"m v=1\n"[..]);
        RecordView { seq: Seq(seq), db, rp, precision: Precision::Second, stamp: 10 * seq, lines: 1, bytes }
    }

    fn key(rps: &[&[u8]]) -> ParkedKey {
        ParkedKey { db: b"db"[..].into(), rps: Some(rps.iter().map(|&rp| rp.into()).collect()) }
    }

    /// Points of the default policy are parked; two of them have been fetched.
    fn sides() -> (Sides, Rc<SideProgress>, Window) {
        let health = Health::new(Duration::from_secs(1), Jitter::new(1));
        let handle = Handle::new(Rc::new(RefCell::new(health)));
        let progress = Rc::new(SideProgress::new(1));
        let mut sides = Sides::default();
        sides.add(key(&[b"", b"autogen"]), handle, progress.clone(), (5, 10), (vec![Seq(3)], 20));
        (sides, progress, Window::new(Bounds { lines: 100, bytes: 1000 }))
    }

    fn default(_: &[u8]) -> Option<Box<[u8]>> {
        Some(b"autogen"[..].into())
    }

    /// The side courier has delivered everything before that record.
    fn delivers(progress: &SideProgress, before: u64) {
        progress.next.borrow_mut()[0] = Seq(before);
        progress.is_near.set(true);
    }

    #[test]
    fn what_was_passed_over_is_delivered_before_the_courier_goes_on() {
        let (mut sides, progress, mut window) = sides();
        let now = Instant::now();
        assert!(sides.overlaps(&key(&[b"autogen"])) && !sides.overlaps(&key(&[b"week"])));
        assert!(!sides.divert(&mut window, 0, &record(3, b"week"), &default));
        assert!(sides.divert(&mut window, 0, &record(4, b""), &default) && window.groups.is_empty());
        progress.took(0, &record(4, b""));
        sides.resume(40, now);
        assert!(sides.divert(&mut window, 0, &record(5, b""), &default));
        assert!(window.groups.is_empty(), "the side courier is far from the end");
        delivers(&progress, 4);
        sides.resume(50, now);
        assert!(progress.takes(0, &record(5, b"")) && !progress.takes(0, &record(6, b"")));
        assert!(sides.divert(&mut window, 0, &record(6, b""), &default));
        assert!(window.groups[0].due_at(now).is_none(), "it waits for the side courier");
        assert!(sides.end(&mut window, |_| true).is_empty());
        delivers(&progress, 6);
        progress.below.set(9);
        assert_eq!(sides.end(&mut window, |_| false).len(), 0, "a log cannot be told now");
        assert_eq!(sides.end(&mut window, |_| true).len(), 1);
        assert!(sides.is_empty() && window.groups[0].due_at(now).is_some());
    }

    #[test]
    fn a_side_courier_that_does_not_come_to_its_end_gets_everything_back() {
        let (mut sides, progress, mut window) = sides();
        let now = Instant::now();
        delivers(&progress, 3);
        sides.resume(9, now);
        assert!(progress.takes(0, &record(9, b"")), "a former process has delivered what is not passed over yet");
        sides.resume(10, now);
        assert!(sides.divert(&mut window, 0, &record(7, b""), &default));
        sides.look(&mut window, now + SIDE_END_WAIT / 2);
        assert_eq!(window.groups[0].requests.len(), 1);
        sides.look(&mut window, now + SIDE_END_WAIT);
        assert_eq!(window.groups[0].requests.len(), 0);
        assert!(progress.takes(0, &record(7, b"")));
        assert!(sides.divert(&mut window, 0, &record(8, b""), &default) && window.groups[0].requests.is_empty());
        delivers(&progress, 7);
        sides.resume(90, now);
        delivers(&progress, 8);
        assert!(sides.end(&mut window, |_| true).is_empty(), "not before the last one that was passed over");
    }
}

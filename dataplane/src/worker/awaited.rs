//! What backends refuse of the records of requests that wait for their verdict, and what of them the log drops before
//! that. Each such request has records of its own, so that nothing that is refused of another one counts for it.
//!
//! Bounded by the requests: a number for each record of theirs and each backend, one text for each backend.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::courier::RefusedPoints;
use crate::disklog::Seq;
use crate::topology::{BackendId, Circle};

/// All requests that wait, by the first sequence of each run of their records.
#[derive(Debug, Default)]
pub struct AllAwaited(RefCell<BTreeMap<Seq, AwaitedRun>>);

/// Consecutive records of one request.
#[derive(Debug)]
struct AwaitedRun {
    end: Seq,
    refused: Rc<RefCell<RefusedOfRequest>>,
}

#[derive(Debug, Default)]
struct RefusedOfRequest {
    points: BTreeMap<(Seq, BackendId), u64>,
    /// By backend: the first record with a refused point, and the text.
    first: BTreeMap<BackendId, (Seq, Arc<str>)>,
    /// Backends that have lost a record: the log has dropped it, and no courier delivers it.
    dropped: BTreeSet<BackendId>,
}

impl AllAwaited {
    /// What is known of the request with this record, if it waits.
    fn request(&self, record: Seq) -> Option<Rc<RefCell<RefusedOfRequest>>> {
        let all = self.0.borrow();
        let run = all.range(..=record).next_back().map(|(_, run)| run)?;
        (record < run.end).then(|| run.refused.clone())
    }

    /// The log drops a record that this backend has not been given.
    pub fn dropped(&self, backend: BackendId, record: Seq) {
        if let Some(request) = self.request(record) {
            request.borrow_mut().dropped.insert(backend);
        }
    }

    /// The log has dropped these records, and no courier of this backend delivers all of them. Which of them is not
    /// known: a request is told so, too, of which the backend has everything, and may be repeated.
    pub fn dropped_within(&self, backend: BackendId, records: Range<Seq>) {
        for run in self.0.borrow().range(..records.end).map(|(_, run)| run).filter(|run| run.end > records.start) {
            run.refused.borrow_mut().dropped.insert(backend);
        }
    }

    /// A backend has refused points of a record.
    pub fn refused(&self, backend: BackendId, refused: &RefusedPoints) {
        if let Some(request) = self.request(refused.record) {
            let RefusedPoints { record, points, ref text, .. } = *refused;
            let mut of_request = request.borrow_mut();
            *of_request.points.entry((record, backend)).or_default() += points;
            let first = of_request.first.entry(backend).or_insert_with(|| (record, text.clone()));
            if record < first.0 {
                *first = (record, text.clone());
            }
        }
    }
}

/// One request that waits. What is refused of it is noted until this is dropped.
#[derive(Debug)]
pub struct Awaited {
    all: Rc<AllAwaited>,
    /// The first sequence of each run of its records.
    runs: Vec<Seq>,
    refused: Rc<RefCell<RefusedOfRequest>>,
}

impl Awaited {
    /// `all`: of the log that the request is appended to.
    pub fn new(all: &Rc<AllAwaited>) -> Self {
        Self { all: all.clone(), runs: Vec::new(), refused: Rc::default() }
    }

    /// The request has this record, and shares it with no other one. No await may lie between this and the append.
    pub fn add(&mut self, record: Seq) {
        let end = Seq(record.0 + 1);
        let mut all = self.all.0.borrow_mut();
        let last = self.runs.last().and_then(|last| all.get_mut(last));
        if let Some(last) = last.filter(|last| last.end == record) {
            last.end = end;
            return;
        }
        self.runs.push(record);
        all.insert(record, AwaitedRun { end, refused: self.refused.clone() });
    }

    /// The first record of the request.
    pub fn first(&self) -> Option<Seq> {
        self.runs.first().copied()
    }

    /// Whether points of the request were dropped, and no courier delivers them to a backend of this circle.
    pub fn dropped_by(&self, circle: &Circle) -> bool {
        circle.backends.iter().any(|backend| self.refused.borrow().dropped.contains(backend))
    }

    /// Points of the request that backends of this circle have refused. While a measurement is being moved, two of them
    /// get, and refuse, the same points.
    pub fn refused_by(&self, circle: &Circle) -> u64 {
        let mut most_by_record = BTreeMap::<Seq, u64>::new();
        for (&(record, backend), &points) in &self.refused.borrow().points {
            if circle.backends.contains(&backend) {
                let most = most_by_record.entry(record).or_default();
                *most = points.max(*most);
            }
        }
        most_by_record.values().sum()
    }

    /// The text with which the first refused point was refused in this circle.
    pub fn text(&self, circle: &Circle) -> Option<String> {
        let refused = self.refused.borrow();
        let of_circle = circle.backends.iter().filter_map(|backend| refused.first.get(backend));
        of_circle.min_by_key(|(record, _)| *record).map(|(_, text)| text.to_string())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut all = self.all.0.borrow_mut();
        self.runs.iter().for_each(|first| drop(all.remove(first)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn awaited(all: &Rc<AllAwaited>, records: &[u64]) -> Awaited {
        let mut awaited = Awaited::new(all);
        records.iter().for_each(|&record| awaited.add(Seq(record)));
        awaited
    }

    #[test]
    fn each_request_is_told_what_was_refused_of_its_own_records() {
        let all = Rc::new(AllAwaited::default());
        let (one, other) = (awaited(&all, &[3, 4, 7]), awaited(&all, &[5, 6]));
        assert_eq!(all.0.borrow().len(), 3, "records that follow each other are one run");
        let refuse = |backend: u16, record, points, text: &str| {
            let (record, text, lines) = (Seq(record), text.into(), Vec::new());
            all.refused(BackendId(backend), &RefusedPoints { record, points, text, lines });
        };
        refuse(0, 7, 1, "later");
        refuse(0, 4, 2, "first");
        refuse(0, 4, 1, "rest");
        refuse(1, 4, 3, "first");
        refuse(2, 5, 9, "far");
        for record in [0, 2, 8, 1000] {
            refuse(0, record, 100, "of nobody");
        }
        let circle =
            |backends: &[u16]| Circle { name: "c".into(), backends: backends.iter().map(|&b| BackendId(b)).collect() };
        let counts =
            |awaited: &Awaited| [&[0][..], &[1], &[0, 1], &[2]].map(|backends| awaited.refused_by(&circle(backends)));
        assert_eq!((counts(&one), counts(&other)), ([4, 3, 4, 0], [0, 0, 0, 9]));
        assert_eq!(one.text(&circle(&[0])).as_deref(), Some("first"));
        all.dropped(BackendId(1), Seq(4));
        all.dropped(BackendId(0), Seq(8));
        let dropped = |awaited: &Awaited| [0, 1].map(|backend| awaited.dropped_by(&circle(&[backend])));
        assert_eq!((dropped(&one), dropped(&other)), ([false, true], [false, false]));
        let [third, fourth] = [&[10, 11][..], &[12]].map(|records| awaited(&all, records));
        all.dropped_within(BackendId(0), Seq(8)..Seq(10));
        assert_eq!((dropped(&third), dropped(&fourth)), ([false, false], [false, false]));
        all.dropped_within(BackendId(0), Seq(11)..Seq(12));
        assert_eq!((dropped(&third), dropped(&fourth)), ([true, false], [false, false]));
        drop([third, fourth]);
        assert_eq!((one.first(), other.first()), (Some(Seq(3)), Some(Seq(5))));
        assert_eq!((one.text(&circle(&[2])), other.text(&circle(&[2])).as_deref()), (None, Some("far")));
        drop(one);
        drop(other);
        assert!(all.0.borrow().is_empty());
    }
}

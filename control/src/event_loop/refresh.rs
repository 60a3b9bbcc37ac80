//! When the catalog is refreshed, and what it contains.
//!
//! A refresh is a *round*: all backends that may be up are asked at once. It ends when all have answered, or at its
//! deadline. A request during a round waits for the next round, because the current one may have looked before the
//! database existed. So two rounds serve any number of requests.
//!
//! The last answer of a backend stays until the next one: a backend that is down still has its databases.
//!
//! Pure: the time is an argument, and the caller (`event_loop`) sends the messages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use fluxgate_dataplane::handoff::Catalog;
use fluxgate_dataplane::topology::BackendId;

use crate::influx::catalog::{self, Databases};
use crate::limits;

/// `A` is what waits for a round.
#[derive(Debug)]
pub struct Refresh<A> {
    /// By backend: its last answer; None = it never answered as InfluxDB does.
    databases: Vec<Option<Databases>>,
    /// Backends that are being asked. One that hangs may stay here longer than its round.
    asking: HashSet<BackendId>,
    round: Option<Round<A>>,
    /// Requests that wait for the next round.
    askers: Vec<A>,
    /// One of them needs its round at once, since this time.
    hurried: Option<Instant>,
    /// When the next round begins without a request.
    due: Instant,
    /// No round starts before this, so that many unknown names do not cause many rounds.
    not_before: Instant,
    catalog: Arc<Catalog>,
}

#[derive(Debug)]
struct Round<A> {
    askers: Vec<A>,
    /// Backends that have not answered yet.
    open: HashSet<BackendId>,
    deadline: Instant,
}

impl<A> Refresh<A> {
    /// The first round is due at once.
    pub fn new(backends: usize, now: Instant) -> Self {
        Self {
            databases: vec![None; backends],
            asking: HashSet::new(),
            round: None,
            askers: Vec::new(),
            hurried: None,
            due: now,
            not_before: now,
            catalog: Arc::default(),
        }
    }

    /// Lets `asker` wait for a round that begins after this call.
    pub fn ask(&mut self, asker: A) {
        self.askers.push(asker);
    }

    /// As [`Refresh::ask`], for a change of structure, whose answer waits for the round: it begins as soon as the
    /// current one has ended. Such changes run one after another, which bounds the rounds.
    pub fn ask_now(&mut self, asker: A, now: Instant) {
        self.askers.push(asker);
        self.hurried.get_or_insert(now);
    }

    /// Makes a round due without a request.
    pub fn hurry(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// When to call [`Refresh::end`] and [`Refresh::start`] next, unless an event comes first.
    pub fn deadline(&self) -> Instant {
        match &self.round {
            Some(round) => round.deadline,
            None => match self.hurried {
                Some(since) => since,
                None if self.askers.is_empty() => self.due.max(self.not_before),
                None => self.not_before,
            },
        }
    }

    /// Starts a round if it is time for one, and returns the backends to ask. A round without backends is over at once.
    pub fn start(&mut self, now: Instant, may_answer: impl Iterator<Item = BackendId>) -> Vec<BackendId> {
        if self.round.is_some() || now < self.deadline() {
            return Vec::new();
        }
        let open: HashSet<_> = may_answer.filter(|backend| !self.asking.contains(backend)).collect();
        self.asking.extend(&open);
        self.due = now + limits::CATALOG_INTERVAL;
        self.not_before = now + limits::ROUND_INTERVAL_MIN;
        let ask = open.iter().copied().collect();
        self.hurried = None;
        let askers = std::mem::take(&mut self.askers);
        self.round = Some(Round { askers, open, deadline: now + limits::ROUND_DEADLINE });
        ask
    }

    /// Notes the answer of `backend`; None = it failed.
    pub fn answered(&mut self, backend: BackendId, databases: Option<Databases>) {
        self.asking.remove(&backend);
        if databases.is_some() {
            self.databases[backend.index()] = databases;
        }
        if let Some(round) = &mut self.round {
            round.open.remove(&backend);
        }
    }

    /// Ends the round if it is over, and returns the requests that waited for it.
    pub fn end(&mut self, now: Instant) -> Vec<A> {
        match self.round.take_if(|round| round.open.is_empty() || now >= round.deadline) {
            Some(round) => round.askers,
            None => Vec::new(),
        }
    }

    /// The catalog if it has changed since the last call.
    pub fn changed(&mut self) -> Option<Arc<Catalog>> {
        let catalog = catalog::merge(self.databases.iter().map(Option::as_ref));
        if catalog == *self.catalog {
            return None;
        }
        self.catalog = Arc::new(catalog);
        Some(self.catalog())
    }

    /// The catalog as of the last [`Refresh::changed`].
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    /// Whether this backend has ever answered as InfluxDB does.
    pub fn is_influx(&self, backend: BackendId) -> bool {
        self.databases[backend.index()].is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: BackendId = BackendId(0);
    const B: BackendId = BackendId(1);

    fn sorted(mut backends: Vec<BackendId>) -> Vec<BackendId> {
        backends.sort_unstable();
        backends
    }

    #[test]
    fn a_request_during_a_round_waits_for_the_next() {
        let start = Instant::now();
        let mut refresh = Refresh::new(2, start);
        refresh.ask((0, 1));
        assert_eq!(sorted(refresh.start(start, [A, B].into_iter())), [A, B]);
        refresh.ask((0, 2));
        refresh.ask((1, 3));
        assert_eq!(refresh.start(start, [A, B].into_iter()), [], "one round at a time");
        refresh.answered(A, None);
        assert_eq!(refresh.end(start), []);
        refresh.answered(B, None);
        assert_eq!(refresh.end(start), [(0, 1)]);
        assert_eq!(refresh.start(start, [A].into_iter()), [], "not before its time");
        let later = refresh.deadline();
        assert_eq!(later, start + limits::ROUND_INTERVAL_MIN);
        assert_eq!(refresh.start(later, [A].into_iter()), [A]);
        refresh.answered(A, None);
        assert_eq!(refresh.end(later), [(0, 2), (1, 3)]);
        assert_eq!(refresh.deadline(), later + limits::CATALOG_INTERVAL);
    }

    #[test]
    fn a_backend_that_hangs_ends_no_round_and_is_asked_once() {
        let start = Instant::now();
        let mut refresh = Refresh::new(2, start);
        refresh.ask((0, 1));
        assert_eq!(sorted(refresh.start(start, [A, B].into_iter())), [A, B]);
        refresh.answered(A, Some(Databases::new()));
        let deadline = refresh.deadline();
        assert_eq!(refresh.end(deadline - Duration::from_millis(1)), []);
        assert_eq!(refresh.end(deadline), [(0, 1)]);
        refresh.hurry(deadline);
        assert_eq!(refresh.start(deadline, [A, B].into_iter()), [A]);
        refresh.answered(B, None);
        refresh.answered(A, None);
        refresh.end(deadline);
        refresh.hurry(deadline);
        assert_eq!(sorted(refresh.start(refresh.deadline(), [A, B].into_iter())), [A, B]);
    }

    #[test]
    fn a_change_of_structure_waits_for_no_interval() {
        let start = Instant::now();
        let mut refresh = Refresh::new(1, start);
        for asker in 0..5 {
            refresh.ask_now(asker, start);
            assert_eq!(refresh.start(start, [A].into_iter()), [A]);
            refresh.ask_now(asker + 10, start);
            assert_eq!(refresh.start(start, [A].into_iter()), [], "one round at a time");
            refresh.answered(A, None);
            assert_eq!(refresh.end(start), [asker]);
            assert_eq!(refresh.start(start, [A].into_iter()), [A]);
            refresh.answered(A, None);
            assert_eq!(refresh.end(start), [asker + 10]);
        }
        refresh.ask(9);
        assert_eq!(refresh.start(start, [A].into_iter()), [], "others do");
    }

    #[test]
    fn a_round_without_backends_is_over_at_once() {
        let now = Instant::now();
        let mut refresh = Refresh::new(1, now);
        refresh.ask((0, 1));
        assert_eq!(refresh.start(now, [].into_iter()), []);
        assert_eq!(refresh.end(now), [(0, 1)]);
    }

    #[test]
    fn the_catalog_is_told_when_it_changes_and_outlives_failures() {
        let mut refresh = Refresh::<()>::new(2, Instant::now());
        assert!(refresh.changed().is_none());
        refresh.answered(A, Some(Databases::from([("db1".into(), vec![])])));
        assert!(refresh.changed().expect("a change").databases.contains_key("db1"));
        refresh.answered(A, None);
        assert!(refresh.changed().is_none());
        assert!(refresh.is_influx(A) && !refresh.is_influx(B));
        refresh.answered(A, Some(Databases::new()));
        let catalog = refresh.changed().expect("a change");
        assert!(catalog.known && catalog.databases.is_empty());
    }
}

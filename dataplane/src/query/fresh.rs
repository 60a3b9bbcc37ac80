//! Read after write: a query waits until the backends that it asks have what this proxy acknowledged before it began.
//!
//! It waits only for a backend that may have it soon ([`Lag::Short`]). Among those that can answer alone the first one
//! that has it is asked, see `routing::choose`.

use std::collections::BTreeSet;

use super::chooser;
use crate::influxql::ast::Statement;
use crate::io;
use crate::limits::READ_LOOK_MIN;
use crate::must_see::MustSee;
use crate::routing::access;
use crate::routing::choose::Lag;
use crate::routing::reach::{self, Reach};
use crate::topology::BackendId;
use crate::worker::Worker;

/// What a query must see that reads points of these databases and begins now.
pub fn must_see<'a>(worker: &Worker, dbs: impl IntoIterator<Item = &'a str>) -> MustSee {
    match worker.settings.query.read_wait {
        None => MustSee::nothing(dbs),
        Some(_) => MustSee::now(&worker.all_stats, dbs),
    }
}

/// The databases whose points these statements read.
pub fn databases<'a>(statements: &'a [Statement], default_db: &'a str) -> BTreeSet<&'a str> {
    let reading: Vec<_> = statements.iter().filter(|s| reach::of_points(s, default_db).is_some()).collect();
    if reading.is_empty() { BTreeSet::new() } else { access::databases(reading, default_db) }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// The best of the backends that can answer alone.
    One,
    /// Several together: they have what that one lacks.
    Several,
}

/// What a query may be asked of.
pub struct Choice<'a> {
    pub must_see: &'a MustSee,
    /// Backends that can answer alone; may be empty.
    pub alone: &'a BTreeSet<BackendId>,
    /// What several answer together; empty = they cannot.
    pub together: &'a [Reach],
}

impl Choice<'_> {
    /// Waits until those that will be asked have all that the query must see, if they may have it soon.
    pub async fn wait(&self, worker: &Worker) -> Answerer {
        let Some(longest) = worker.settings.query.read_wait.filter(|_| !self.must_see.is_empty()) else {
            return Answerer::One;
        };
        if !self.look(worker).1.is_empty() {
            // After the timeout the answer says that it may lack points.
            _ = io::timeout(longest, self.delivered(worker)).await;
        }
        self.look(worker).0
    }

    async fn delivered(&self, worker: &Worker) {
        let mut look = READ_LOOK_MIN;
        loop {
            let news = worker.settled_news();
            let (_, late) = self.look(worker);
            if late.is_empty() {
                return;
            }
            worker.hurry_couriers(|backend| late.contains(&backend));
            // A backend that goes down tells nothing, and a courier with nothing to deliver must look again.
            _ = io::timeout(look, news).await;
            look *= 2;
        }
    }

    /// Who would answer now, and for whom it is worth to wait.
    fn look(&self, worker: &Worker) -> (Answerer, BTreeSet<BackendId>) {
        let (placement, none) = (worker.placement(), BTreeSet::new());
        let chooser = chooser(worker, &placement, &none, self.must_see);
        let first = chooser.best_first(self.alone.iter().copied()).into_iter().next();
        match first.map(|(backend, rank)| (backend, rank.lag)) {
            Some((_, Lag::None)) => return (Answerer::One, none),
            Some((backend, Lag::Short)) if self.together.is_empty() => return (Answerer::One, [backend].into()),
            _ => {}
        }
        let lag = |backend: BackendId| chooser.rank(backend).map_or(Lag::Long, |rank| rank.lag);
        let asked = self.together.iter().map(|reach| chooser.shares(reach)).collect::<Result<Vec<_>, _>>();
        let asked: BTreeSet<_> =
            asked.unwrap_or_default().into_iter().flat_map(|shares| shares.backends.into_keys()).collect();
        let worst = asked.iter().map(|&backend| lag(backend)).max().unwrap_or(Lag::Long);
        let answerer = if worst == Lag::None { Answerer::Several } else { Answerer::One };
        let late = match first {
            // Asking one costs less.
            Some((backend, rank)) if rank.lag == Lag::Short => [backend].into(),
            // With one of them far behind, the answer lacks points anyway.
            _ if worst == Lag::Short => asked.into_iter().filter(|&backend| lag(backend) == Lag::Short).collect(),
            _ => BTreeSet::new(),
        };
        (answerer, late)
    }
}

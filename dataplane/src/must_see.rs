//! What a query must see: all that was acknowledged before it began.
//!
//! Each worker notes the stamp ([`order`](crate::order)) of the last point of a database that it has acknowledged,
//! before it says so. A query takes the largest of all workers when it begins: a backend that has settled everything up
//! to there has all that the query must see. What was acknowledged before the start counts for all databases.
//!
//! The databases are known also when a query need not wait: what waits of others does not concern it.

use std::sync::atomic::Ordering::Relaxed;

use crate::order::RecordOrder;
use crate::stats::{DatabaseSlot, Stats};
use crate::topology::BackendId;

/// What a query must see: all points of these databases below these stamps; None: what was left from before the start.
/// The default is nothing, of no database in particular.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MustSee(Vec<(Box<str>, Option<u64>)>);

/// Nothing of a database has a smaller stamp.
const NOTHING: Option<u64> = Some(0);

impl MustSee {
    /// Everything of these databases that has been acknowledged until now.
    pub fn now<'a>(stats: &Stats, dbs: impl IntoIterator<Item = &'a str>) -> Self {
        let below = |db: &str| match stats.last_acknowledged(DatabaseSlot::of(db.as_bytes())) {
            0 => None,
            last => Some(last + 1),
        };
        Self(dbs.into_iter().map(|db| (db.into(), below(db))).collect())
    }

    /// Nothing of these databases.
    pub fn nothing<'a>(dbs: impl IntoIterator<Item = &'a str>) -> Self {
        Self(dbs.into_iter().map(|db| (db.into(), NOTHING)).collect())
    }

    /// Whether points of this database may be read.
    pub fn concerns(&self, db: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|(own, _)| *own.as_bytes() == *db)
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, below)| *below == NOTHING)
    }

    /// Whether a backend has all of it.
    pub fn is_at(&self, backend: BackendId, stats: &Stats, order: &RecordOrder) -> bool {
        let is_settled = |db: &str, below| order.is_settled(backend, Some(db.as_bytes()), below);
        // Until it has something to deliver, a courier does not look how far it is.
        let none_was_left = || {
            let all_have_looked = stats.workers.iter().all(|worker| worker.ready.load(Relaxed));
            all_have_looked && stats.queued_points(backend.index()) == 0
        };
        self.0.iter().all(|(db, below)| match below {
            Some(below) => is_settled(db, *below),
            None => is_settled(db, order.began()) || none_was_left(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_query_must_see_what_was_acknowledged_before_it_by_any_worker_and_before_the_start() {
        let (stats, order) = (Stats::new(2, 2, 1), RecordOrder::new(1, 2, Duration::ZERO));
        order.opened(0, &[]);
        let (a, b) = (BackendId(0), BackendId(1));
        let see = |db| MustSee::now(&stats, [db]);
        let is_at = |see: &MustSee, backend| see.is_at(backend, &stats, &order);
        assert!(!is_at(&see("db"), a), "a log that is not open yet may have points");
        stats.workers.iter().for_each(|worker| worker.ready.store(true, Relaxed));
        stats.workers[1].queued_points[0].store(1, Relaxed);
        assert!(!is_at(&see("db"), a) && is_at(&see("db"), b), "the former process has left some");
        order.settle(a, order.began());
        assert!(is_at(&see("db"), a));
        let stamp = order.now();
        stats.workers[1].acknowledged.note(DatabaseSlot::of(b"db"), stamp);
        let begun = see("db");
        assert!(!is_at(&begun, a) && is_at(&see("other"), a), "only its own database");
        assert!(!is_at(&MustSee::now(&stats, ["other", "db"]), a));
        order.settle(a, stamp);
        assert!(!is_at(&begun, a), "below the stamp is not the stamp");
        order.settle(a, stamp + 1);
        stats.workers[0].acknowledged.note(DatabaseSlot::of(b"db"), stamp + 9);
        assert!(is_at(&begun, a) && !is_at(&see("db"), a), "a later query must see more");
        assert!(is_at(&MustSee::default(), b));
        let of_other = MustSee::nothing(["other"]);
        assert!(is_at(&of_other, b) && of_other.is_empty() && !see("other").is_empty());
        assert!(of_other.concerns(b"other") && !of_other.concerns(b"db") && MustSee::default().concerns(b"db"));
    }
}

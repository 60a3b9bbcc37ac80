//! Chooses which backends to ask, from counters only.
//!
//! The best backend is up to date; then the one least behind; among equals one that has all that was acknowledged
//! before the query began, and then the one with the fewest running queries. `write_only` backends come last, and so do
//! circles under migration and circles that lost data with a removed backend. A backend that the last probe found down,
//! or that takes only writes, is not asked. When only some backends of a circle are up, each measurement is read from
//! the best backend that has it.
//!
//! Of points that a backend does not take now (`parked`) only those count that are of the query's databases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::limits::STALE_AFTER;
use crate::must_see::MustSee;
use crate::order::RecordOrder;
use crate::parked::ParkedWait;
use crate::placement::{Place, Placement};
use crate::routing::reach::{Reach, backends_of};
use crate::stats::Stats;
use crate::topology::{BackendId, Topology};

/// How good a backend is for a read. Lower is better, in the order of the fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// Avoided for reads: it is `write_only`, or its circle is being migrated or lacks data of a removed backend.
    pub spared: bool,
    /// How long the oldest undelivered point for it has waited, in milliseconds; 0 up to [`STALE_AFTER`].
    pub behind_ms: u64,
    pub lag: Lag,
    pub running: u64,
}

impl Rank {
    /// How far its answer may be behind, in milliseconds; 0 = it has all that a query must see.
    pub fn stale_ms(&self) -> u64 {
        if self.lag == Lag::None { self.behind_ms } else { self.behind_ms.max(1) }
    }
}

/// Whether a backend has all that a query must see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lag {
    #[default]
    None,
    /// It may have it soon.
    Short,
    /// To wait for it is pointless: it takes no writes now, or its oldest point has waited longer than a query would.
    Long,
}

/// The input of the choice.
#[derive(Clone, Copy)]
pub struct Chooser<'a> {
    pub topology: &'a Topology,
    pub placement: &'a Placement,
    pub stats: &'a Stats,
    pub order: &'a RecordOrder,
    pub must_see: &'a MustSee,
    /// How long a query waits at most for what it must see.
    pub read_wait: Duration,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Backends that have failed to answer this request.
    pub failed: &'a BTreeSet<BackendId>,
}

/// Which backend is asked for which part of a statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// For each backend: the places it is asked about. None: all it has.
    pub backends: BTreeMap<BackendId, Option<BTreeSet<Place>>>,
    /// How far the answer may be behind, in milliseconds; 0 = up to date.
    pub stale_ms: u64,
}

impl Chooser<'_> {
    /// How good a backend is now. None: it must not be asked.
    pub fn rank(&self, backend: BackendId) -> Option<Rank> {
        let reads = &self.stats.reads[backend.index()];
        let at = self.topology.backend(backend);
        if reads.down.load(Relaxed) || self.failed.contains(&backend) || !at.takes_statements() {
            return None;
        }
        let has_queued = self.stats.queued_points(backend.index()) > 0;
        let waited = if has_queued { self.waited_ms(backend) } else { 0 };
        Some(Rank {
            spared: at.write_only || self.stats.migrating[at.circle].load(Relaxed) || self.placement.lacks(at.circle),
            behind_ms: if waited > STALE_AFTER.as_millis() as u64 { waited } else { 0 },
            lag: self.lag(backend),
            running: reads.running.load(Relaxed),
        })
    }

    fn lag(&self, backend: BackendId) -> Lag {
        if self.must_see.is_at(backend, self.stats, self.order) {
            return Lag::None;
        }
        let courier = &self.stats.couriers[backend.index()];
        let is_refused = self.parked(backend).is_some_and(|wait| wait.is_refused);
        let is_stuck = courier.failing.load(Relaxed) || courier.is_stuck() || is_refused;
        let waited = u128::from(self.waited_ms(backend));
        if is_stuck || waited > self.read_wait.as_millis() { Lag::Long } else { Lag::Short }
    }

    /// How long the oldest point for a backend has waited, but for parked ones of other databases, in milliseconds.
    fn waited_ms(&self, backend: BackendId) -> u64 {
        let unparked = self.stats.couriers[backend.index()].oldest_unparked_ms.load(Relaxed);
        let parked = self.parked(backend).map_or(u64::MAX, |wait| RecordOrder::unix_ms(wait.oldest));
        let since = |oldest: u64| match oldest {
            // 0 = not known yet, `u64::MAX` = none that has been looked at.
            0 => 0,
            oldest => self.now_ms.saturating_sub(oldest),
        };
        since(unparked).max(since(parked))
    }

    /// What waits of the parked points of the query's databases.
    fn parked(&self, backend: BackendId) -> Option<ParkedWait> {
        self.order.parked_wait(backend, |db| self.must_see.concerns(db))
    }

    /// The `candidates` that may be asked, best first.
    pub fn best_first(&self, candidates: impl IntoIterator<Item = BackendId>) -> Vec<(BackendId, Rank)> {
        let mut ranked: Vec<_> = candidates.into_iter().filter_map(|b| Some((b, self.rank(b)?))).collect();
        ranked.sort_by_key(|&(backend, rank)| (rank, backend));
        ranked
    }

    /// Chooses the backends that together answer `reach`.
    ///
    /// # Errors
    /// The backends that are down and without which there is no answer.
    pub fn shares(&self, reach: &Reach) -> Result<Shares, BTreeSet<BackendId>> {
        let circles = 0..self.topology.circles.len();
        // A circle whose needed backends are all up, with the rank of its worst one.
        let whole = |circle: usize| -> Option<(Rank, BTreeSet<BackendId>)> {
            let members = backends_of(reach, circle, self.placement);
            let worst = members.iter().map(|&b| self.rank(b)).try_fold(None, |worst: Option<Rank>, rank| {
                let rank = rank?;
                let base = worst.unwrap_or_default();
                Some(Some(Rank {
                    spared: base.spared | rank.spared,
                    behind_ms: base.behind_ms.max(rank.behind_ms),
                    lag: base.lag.max(rank.lag),
                    running: base.running + rank.running,
                }))
            })?;
            Some((worst?, members))
        };
        match reach {
            Reach::Any { .. } => {
                let all: Vec<_> = circles.flat_map(|c| self.placement.members(c).iter().copied()).collect();
                match self.best_first(all.iter().copied()).first() {
                    Some(&(backend, rank)) => Ok(Shares::one(backend, None, rank.stale_ms())),
                    None => Err(all.into_iter().collect()),
                }
            }
            Reach::Circle => match circles.clone().filter_map(whole).min_by_key(|(rank, _)| *rank) {
                Some((rank, members)) => Ok(Shares {
                    backends: members.into_iter().map(|backend| (backend, None)).collect(),
                    stale_ms: rank.stale_ms(),
                }),
                None => Err(self.unavailable(circles.flat_map(|c| self.placement.members(c).iter().copied()))),
            },
            Reach::Places(places) => {
                let best = circles.clone().filter_map(whole).min_by_key(|(rank, _)| *rank);
                let mut shares = Shares::default();
                // If one circle is up to date, or will be soon, take all from it: fewer backends are asked.
                let is_good = |rank: &Rank| !rank.spared && rank.behind_ms == 0 && rank.lag != Lag::Long;
                let preferred = best.filter(|(rank, _)| is_good(rank)).map(|(_, members)| members);
                for place in places {
                    let readers: BTreeSet<_> =
                        circles.clone().map(|c| self.placement.reader(c, place.bytes())).collect();
                    let ranked = self.best_first(readers.iter().copied());
                    let inside =
                        preferred.as_ref().and_then(|members| ranked.iter().find(|(b, _)| members.contains(b)));
                    let Some(&(backend, rank)) = inside.or(ranked.first()) else { return Err(readers) };
                    let share = shares.backends.entry(backend).or_insert_with(|| Some(BTreeSet::new()));
                    share.get_or_insert_default().insert(place.clone());
                    shares.stale_ms = shares.stale_ms.max(rank.stale_ms());
                }
                Ok(shares)
            }
        }
    }

    fn unavailable(&self, backends: impl Iterator<Item = BackendId>) -> BTreeSet<BackendId> {
        backends.filter(|&backend| self.rank(backend).is_none()).collect()
    }
}

impl Shares {
    fn one(backend: BackendId, share: Option<BTreeSet<Place>>, stale_ms: u64) -> Self {
        Self { backends: BTreeMap::from([(backend, share)]), stale_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parked::ParkedKey;
    use crate::placement::{Former, FormerMember, PlacementSettings};

    const NOW: u64 = 1_000_000;

    /// Two circles: backends 0 and 1, backends 2 to 4.
    struct Bench {
        topology: Topology,
        placement: Placement,
        stats: Stats,
        failed: BTreeSet<BackendId>,
        order: RecordOrder,
        must_see: MustSee,
    }

    impl Bench {
        fn new() -> Self {
            let topology = Topology::of_sizes(&[2, 3]);
            let placement = Placement::new(&topology, &PlacementSettings::default());
            let order = RecordOrder::new(1, 5, Duration::ZERO);
            order.opened(0, &[]);
            let (stats, failed, must_see) = (Stats::new(2, 5, 2), BTreeSet::new(), MustSee::default());
            Self { topology, placement, stats, failed, order, must_see }
        }

        fn chooser(&self) -> Chooser<'_> {
            let Self { topology, placement, stats, failed, order, must_see } = self;
            let read_wait = Duration::from_millis(250);
            Chooser { topology, placement, stats, order, must_see, read_wait, now_ms: NOW, failed }
        }

        fn shares(&self, reach: &Reach) -> Result<Shares, BTreeSet<BackendId>> {
            self.chooser().shares(reach)
        }

        fn rank(&self, backend: BackendId) -> Rank {
            self.chooser().rank(backend).expect("it is up")
        }

        fn down(&self, backend: usize) {
            self.stats.reads[backend].down.store(true, Relaxed);
        }

        fn behind(&self, backend: usize, ms: u64) {
            // Some worker has accepted them.
            self.stats.workers[1].queued_points[backend].store(1, Relaxed);
            self.stats.couriers[backend].oldest_unparked_ms.store(NOW - ms, Relaxed);
        }

        /// A measurement with these owners.
        fn place(&self, owners: [u16; 2]) -> Place {
            let owned = |m: &String| {
                (0..2).all(|circle| {
                    self.placement.owner(circle, Place::new("db", &**m).bytes()) == BackendId(owners[circle])
                })
            };
            let measurement = (0..1000).map(|i| format!("m{i}")).find(owned).expect("one of a thousand");
            Place::new("db".to_owned(), measurement)
        }
    }

    fn ids(shares: &Shares) -> Vec<u16> {
        shares.backends.keys().map(|b| b.0).collect()
    }

    #[test]
    fn a_whole_circle_that_is_up_to_date_answers_for_a_database() {
        let bench = Bench::new();
        assert_eq!(ids(&bench.shares(&Reach::Circle).unwrap()), [0, 1]);
        bench.stats.reads[1].running.store(3, Relaxed);
        assert_eq!(ids(&bench.shares(&Reach::Circle).unwrap()), [2, 3, 4], "the circle with less to do");
        bench.behind(3, 5_000);
        assert_eq!(ids(&bench.shares(&Reach::Circle).unwrap()), [0, 1], "the one without backlog");
        bench.behind(0, 9_000);
        let shares = bench.shares(&Reach::Circle).unwrap();
        assert_eq!((ids(&shares), shares.stale_ms), (vec![2, 3, 4], 5_000), "the one less behind, and it says so");
        bench.down(4);
        assert_eq!(bench.shares(&Reach::Circle).unwrap().stale_ms, 9_000);
        bench.down(0);
        assert_eq!(bench.shares(&Reach::Circle), Err([BackendId(0), BackendId(4)].into()), "both are named");
    }

    #[test]
    fn what_a_query_must_see_decides_before_the_number_of_queries() {
        let mut bench = Bench::new();
        let places = Reach::Places([bench.place([0, 2]), bench.place([1, 3])].into());
        bench.must_see = MustSee::now(&bench.stats, ["db"]);
        let (seen, ids_of) = (bench.order.began(), |bench: &Bench| ids(&bench.shares(&places).unwrap()));
        let stale = |bench: &Bench| bench.shares(&places).unwrap().stale_ms;
        assert_eq!((ids_of(&bench), stale(&bench)), (vec![0, 1], 1), "nobody has it");
        (2..5).for_each(|backend| bench.order.settle(BackendId(backend), seen));
        bench.stats.reads[2].running.store(9, Relaxed);
        assert_eq!((ids_of(&bench), stale(&bench)), (vec![2, 3], 0));
        assert_eq!(ids(&bench.shares(&Reach::Circle).unwrap()), [2, 3, 4]);
        // Half a second: too long for a query, and not long enough to ask another circle as a whole.
        bench.order.settle(BackendId(0), seen);
        bench.stats.couriers[1].oldest_unparked_ms.store(NOW - 500, Relaxed);
        bench.must_see = MustSee::now(&bench.stats, ["db"]);
        bench.down(2);
        assert_eq!((ids_of(&bench), stale(&bench)), (vec![0, 3], 0), "each from the one that has it");
        bench.down(3);
        assert_eq!((ids_of(&bench), stale(&bench)), (vec![0, 1], 1), "the only one");
    }

    #[test]
    fn parked_points_count_for_queries_of_their_own_database() {
        let mut bench = Bench::new();
        let (b, key) = (BackendId(0), ParkedKey { db: b"held"[..].into(), rps: None });
        bench.order.settle(b, bench.order.began());
        let ask = |bench: &mut Bench, dbs: &[&str]| {
            bench.must_see = MustSee::now(&bench.stats, dbs.iter().copied());
            bench.rank(b)
        };
        let behind = |rank: Rank| (rank.behind_ms, rank.lag);
        assert_eq!(behind(ask(&mut bench, &["held"])), (0, Lag::None));
        bench.stats.workers[1].queued_points[0].store(1, Relaxed);
        // As of a version that stored milliseconds.
        let stamp = |ms: u64| NOW - ms;
        bench.order.park(b, &key, stamp(5_000));
        for (oldest, why, dbs, want) in [
            (5_000, "", &["held"][..], (5_000, Lag::Long)),
            (5_000, "", &["db", "held"], (5_000, Lag::Long)),
            (5_000, "no right", &["db"], (0, Lag::None)),
            (5_000, "", &[], (5_000, Lag::None)),
            (100, "", &["held"], (0, Lag::Short)),
            (100, "no right", &["held"], (0, Lag::Long)),
        ] {
            bench.order.parked_hold(b, &key, stamp(oldest));
            bench.order.parked_answered(b, &key, why);
            assert_eq!(behind(ask(&mut bench, dbs)), want, "{oldest} {why} {dbs:?}");
        }
        bench.must_see = MustSee::nothing(["db"]);
        assert_eq!(behind(bench.rank(b)), (0, Lag::None), "also when queries do not wait");
    }

    #[test]
    fn it_is_known_when_waiting_is_pointless() {
        let mut bench = Bench::new();
        bench.must_see = MustSee::now(&bench.stats, ["db"]);
        let lag = |bench: &Bench| bench.chooser().lag(BackendId(1));
        let courier = |bench: &Bench, oldest| bench.stats.couriers[1].oldest_unparked_ms.store(oldest, Relaxed);
        for (oldest, want) in [(0, Lag::Short), (u64::MAX, Lag::Short), (NOW - 250, Lag::Short), (NOW - 251, Lag::Long)]
        {
            courier(&bench, oldest);
            assert_eq!(lag(&bench), want, "{oldest}");
        }
        courier(&bench, NOW);
        bench.stats.couriers[1].failing.store(true, Relaxed);
        assert_eq!(lag(&bench), Lag::Long, "its last write failed");
        bench.order.settle(BackendId(1), bench.order.began());
        assert_eq!(lag(&bench), Lag::None);
    }

    #[test]
    fn a_dead_backend_costs_only_its_own_share() {
        let bench = Bench::new();
        let (a, b, c) = (bench.place([0, 2]), bench.place([1, 3]), bench.place([0, 4]));
        let reach = Reach::Places([a.clone(), b.clone()].into());
        bench.down(0);
        bench.down(3);
        let shares = bench.shares(&reach).unwrap();
        let want = [(BackendId(1), Some([b].into())), (BackendId(2), Some([a].into()))];
        assert_eq!(shares.backends, want.into());
        bench.down(4);
        assert_eq!(bench.shares(&Reach::Places([c].into())), Err([BackendId(0), BackendId(4)].into()));
    }

    #[test]
    fn a_circle_without_a_backend_that_took_data_with_it_comes_last_until_all_is_moved() {
        let mut bench = Bench::new();
        let reach = Reach::Places([bench.place([0, 2])].into());
        let member = |name: &str, gone| FormerMember { name: name.into(), url: format!("http://{name}"), gone };
        let mut former = Former {
            settings: PlacementSettings::default(),
            members: vec![member("b0", false), member("b1", false), member("lost", true)],
            as_written: None,
        };
        bench.placement = bench.placement.with_former(&bench.topology, 0, &former);
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [2]);
        assert_eq!(ids(&bench.shares(&Reach::Circle).unwrap()), [2, 3, 4]);
        bench.placement = bench.placement.with_settled(0).with_ended(0);
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [0]);
        // Only the order differs: no data is missing.
        former.members = vec![member("b1", false), member("b0", false)];
        bench.placement = bench.placement.clone().with_former(&bench.topology, 0, &former);
        assert!(bench.placement.in_transition(0) && !bench.placement.lacks(0));
    }

    #[test]
    fn spared_backends_and_those_that_have_failed_come_last() {
        let mut bench = Bench::new();
        let reach = Reach::Places([bench.place([0, 2])].into());
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [0]);
        bench.stats.migrating[0].store(true, Relaxed);
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [2]);
        bench.behind(2, 60_000);
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [2], "behind, but meant for reads");
        bench.failed.insert(BackendId(2));
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [0]);
        bench.topology.backends[2].catalog = Some(false);
        bench.failed.clear();
        assert_eq!(ids(&bench.shares(&reach).unwrap()), [0], "one that takes only writes is not asked");
        bench.failed.insert(BackendId(0));
        assert!(bench.shares(&reach).is_err(), "whatever the others do");
        bench.failed = [BackendId(2)].into();
        bench.topology.backends[4].write_only = true;
        assert_eq!(ids(&bench.shares(&Reach::Any { db: None }).unwrap()), [3]);
    }
}

//! Points are counted once and end where they were counted, whoever leaves and however many names there are.

use super::*;
use crate::topology::Backend;

const A: BackendId = BackendId(0);
const B: BackendId = BackendId(1);

fn topology(names: &[&str]) -> Arc<Topology> {
    let mut topology = Topology::default();
    topology.add_circle("c", names.iter().map(|name| Backend::new(*name, "")));
    Arc::new(topology)
}

/// The ledger that a start with these backends finds.
fn again(ledger: &Ledger, names: &[&str]) -> Ledger {
    let (ledger, bad) = Ledger::from_text(topology(names), &ledger.to_text());
    assert_eq!(bad, 0);
    ledger
}

/// Database, backend, accepted and delivered of each row, which adds up.
fn shown(ledger: &Ledger) -> Vec<(String, String, u64, u64)> {
    let shown = |row: LedgerRow| {
        let sum = |reasons: &[(String, u64)]| reasons.iter().map(|(_, n)| n).sum::<u64>();
        assert_eq!(row.accepted, row.delivered + row.queued + sum(&row.rejected) + sum(&row.dropped), "{row:?}");
        let backend = match row.backend {
            LedgerBackend::Configured(backend) => ledger.topology.backend(backend).name.clone(),
            LedgerBackend::Retired(name) => format!("{name} retired"),
        };
        (row.db, backend, row.accepted, row.delivered)
    };
    ledger.rows().into_iter().map(shown).collect()
}

fn row(db: &str, backend: &str, accepted: u64, delivered: u64) -> (String, String, u64, u64) {
    (db.into(), backend.into(), accepted, delivered)
}

#[test]
fn the_sum_holds_after_every_event_and_a_round_trip() {
    let topology = topology(&["a", "b\tc"]);
    let mut ledger = Ledger::new(topology.clone());
    let db = "d%b\n监".as_bytes();
    ledger.accepted(db, [B], 100);
    ledger.delivered(db, B, 60);
    ledger.rejected(db, B, "field type\tconflict", 3);
    ledger.dropped(db, B, "backlog full", 7);
    assert_eq!((ledger.queued(A), ledger.queued(B)), (0, 30));
    let (again, bad) = Ledger::from_text(topology, &ledger.to_text());
    assert_eq!((again.rows(), again.queued(B), bad), (ledger.rows(), 30, 0));
}

#[test]
fn what_is_left_when_the_log_is_drained_counts_as_damaged() {
    let mut ledger = Ledger::new(topology(&["a"]));
    ledger.accepted(b"db", [A], 10);
    ledger.delivered(b"db", A, 8);
    assert_eq!(ledger.settle(A, DAMAGED), 2);
    assert_eq!(ledger.settle(A, DAMAGED), 0);
    assert_eq!(ledger.rows()[0].dropped, vec![(DAMAGED.to_string(), 2)]);
}

#[test]
fn reasons_are_bounded() {
    let mut ledger = Ledger::new(topology(&["a"]));
    ledger.accepted(b"db", [A], 1000);
    for i in 0..LEDGER_REASONS_MAX + 5 {
        ledger.rejected(b"db", A, &format!("reason {i}"), 1);
    }
    let row = &ledger.rows()[0];
    assert_eq!(row.rejected.len(), LEDGER_REASONS_MAX + 1);
    assert_eq!(row.rejected.last().unwrap(), &(OTHER_REASONS.to_string(), 5));
}

/// A ledger of two backends for which clients invent names of databases.
struct Crowd(Ledger);

impl Crowd {
    fn new() -> Self {
        Self(Ledger::with_room(topology(&["a", "b"]), 16 * 1024))
    }

    fn accept(&mut self, name: &str) {
        self.0.accepted(name.as_bytes(), [A, B], 2);
    }

    /// One of two points is refused.
    fn settle(&mut self, name: &str) {
        for backend in [A, B] {
            self.0.delivered(name.as_bytes(), backend, 1);
            self.0.rejected(name.as_bytes(), backend, "database not found", 1);
        }
        self.check();
    }

    fn check(&self) {
        let queued = |b: usize| {
            self.0
                .rows()
                .iter()
                .filter(|r| r.backend == LedgerBackend::Configured(BackendId(b as u16)))
                .map(|r| r.queued)
                .sum::<u64>()
        };
        assert_eq!([0, 1].map(queued), [self.0.queued(A), self.0.queued(B)]);
        let others = self.0.others.accounts.len() * 36 * 100;
        assert!(self.0.bytes <= 16 * 1024 && self.0.to_text().len() <= self.0.bytes + others, "{}", self.0.bytes);
        let mut counted = Ledger::with_room(self.0.topology.clone(), 16 * 1024);
        self.0.to_text().lines().for_each(|line| counted.read_line(line).unwrap());
        assert_eq!(shown(&counted), shown(&self.0));
    }

    fn has(&self, name: &str) -> usize {
        shown(&self.0).iter().filter(|row| row.0 == name).count()
    }
}

#[test]
fn invented_names_of_databases_take_bounded_room_and_every_point_is_counted() {
    let mut crowd = Crowd::new();
    crowd.accept("known");
    let names: Vec<_> = (0..500).map(|n| format!("{}%{n}", "x".repeat(n % 70))).collect();
    for _ in 0..3 {
        names.iter().for_each(|name| crowd.accept(name));
        crowd.check();
        assert_eq!((crowd.0.queued(A), crowd.has(OTHERS)), (2 * 501, 2));
        crowd.0.make_room(|_| true);
        assert!(crowd.0.databases.len() > 10, "not known, and not settled");
        names.iter().rev().for_each(|name| crowd.settle(name));
        crowd.settle("known");
        assert_eq!((crowd.0.queued(A), crowd.0.queued(B)), (0, 0));
        crowd.0.make_room(|name| name == "known");
        assert_eq!((crowd.0.databases.len(), crowd.has("known"), crowd.has(OTHERS)), (1, 2, 2));
        crowd.check();
        crowd.accept("known");
    }
    let others: Vec<_> = shown(&crowd.0).into_iter().filter(|row| row.0 == OTHERS).collect();
    assert_eq!(others, [row(OTHERS, "a", 3000, 1500), row(OTHERS, "b", 3000, 1500)]);
}

#[test]
fn what_was_accepted_among_the_others_is_settled_there() {
    let mut crowd = Crowd::new();
    let names: Vec<_> = (0..200).map(|n| format!("{n}")).collect();
    names.iter().for_each(|name| crowd.accept(name));
    // There is room again, and still points of "199" are queued among the others.
    names[..20].iter().for_each(|name| crowd.settle(name));
    crowd.0.make_room(|_| false);
    crowd.accept("199");
    assert_eq!(crowd.has("199"), 0);
    let unwritten = [(b"199".to_vec(), vec![A, B], 2)];
    let (saved, _) = Ledger::from_text(crowd.0.topology.clone(), &crowd.0.text_without(&unwritten));
    assert_eq!(saved.queued(A), 360);
    crowd.settle("199");
    names[20..].iter().for_each(|name| crowd.settle(name));
    assert_eq!(crowd.0.queued(A), 0);
    crowd.accept("199");
    assert_eq!(crowd.has("199"), 2, "nothing is queued among the others");
    // A database cannot have their name.
    crowd.accept(OTHERS);
    crowd.settle(OTHERS);
}

/// A log with its cursors, of which a crash takes what was not saved.
#[test]
fn whatever_happens_in_whatever_order_every_point_ends_where_it_was_counted() {
    for seed in 1..=40u64 {
        let mut state = seed;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let room = 1_000 + below(8_000);
        let topology = topology(&["a", "b"]);
        let mut ledger = Ledger::with_room(topology.clone(), room);
        let mut log: Vec<(String, u64)> = Vec::new();
        let mut cursors = [0, 0];
        let mut saved = (String::new(), 0, cursors);
        for _ in 0..600 {
            match below(20) {
                0..8 => {
                    log.push((format!("db{}", below(40)), below(9) as u64 + 1));
                    let (db, points) = log.last().unwrap();
                    ledger.accepted(db.as_bytes(), [A, B], *points);
                }
                8..17 => {
                    let b = below(2);
                    let Some((db, points)) = log.get(cursors[b]) else { continue };
                    cursors[b] += 1;
                    match below(3) {
                        0 => ledger.rejected(db.as_bytes(), [A, B][b], &format!("reason {}", below(5)), *points),
                        1 => ledger.dropped(db.as_bytes(), [A, B][b], BACKLOG_FULL, *points),
                        _ => ledger.delivered(db.as_bytes(), [A, B][b], *points),
                    }
                }
                17 => ledger.make_room(|db| db.ends_with(['1', '2', '3'])),
                18 => {
                    // Without the newest record, which is not on disk yet.
                    let end = log.len().saturating_sub(1).max(cursors[0]).max(cursors[1]);
                    let open = log[end..].iter().map(|(db, n)| (db.clone().into_bytes(), vec![A, B], *n));
                    saved = (ledger.text_without(&open.collect::<Vec<_>>()), end, cursors);
                }
                _ if below(4) == 0 => {
                    ledger = Ledger::with_room(topology.clone(), room);
                    saved.0.lines().for_each(|line| ledger.read_line(line).unwrap());
                    cursors = saved.2;
                    log[saved.1..].iter().for_each(|(db, n)| ledger.accepted(db.as_bytes(), [A, B], *n));
                }
                _ => {}
            }
            let bytes = ledger.bytes;
            ledger.count_bytes();
            assert!(bytes <= room && bytes == ledger.bytes, "{seed}: {bytes}");
        }
        for b in [0, 1] {
            let rest = log[cursors[b]..].iter();
            rest.for_each(|(db, points)| ledger.delivered(db.as_bytes(), [A, B][b], *points));
        }
        assert_eq!((ledger.queued(A), ledger.queued(B)), (0, 0), "{seed}");
        let accepted = |name| shown(&ledger).iter().filter(|row| row.1 == name).map(|row| row.2).sum::<u64>();
        let all = log.iter().map(|(_, points)| points).sum::<u64>();
        assert_eq!((accepted("a"), accepted("b")), (all, all), "{seed}");
    }
}

#[test]
fn reasons_find_room_too() {
    let mut crowd = Crowd::new();
    let names: Vec<_> = (0..200).map(|n| format!("{n}")).collect();
    for name in &names {
        crowd.0.accepted(name.as_bytes(), [A, B], 100);
    }
    for (n, name) in names.iter().enumerate() {
        for reason in 0..10 {
            crowd.0.rejected(name.as_bytes(), A, &format!("reason {}", n + reason), 1);
            crowd.0.dropped(name.as_bytes(), B, &format!("reason {}", n + reason), 1);
        }
    }
    crowd.check();
    assert_eq!(crowd.0.settle(A, DAMAGED), 200 * 90);
    crowd.check();
    assert_eq!((crowd.0.queued(A), crowd.0.queued(B)), (0, 200 * 90));
}

#[test]
fn a_backend_that_leaves_keeps_its_account_and_goes_on_with_it_when_it_comes_back() {
    let mut ledger = Ledger::new(topology(&["a", "b"]));
    ledger.accepted(b"db", [A, B], 10);
    ledger.delivered(b"db", A, 10);
    ledger.delivered(b"db", B, 4);
    ledger.rejected(b"db", B, "type", 1);
    let mut ledger = again(&ledger, &["a", "c"]);
    assert_eq!(ledger.settle_retired(&["b".into()], DAMAGED), 0);
    assert_eq!(shown(&ledger), [row("db", "a", 10, 10), row("db", "b retired", 10, 4)]);
    // Five are routed again.
    ledger.accepted(b"db", [B], 5);
    ledger.hand_over();
    let now = [row("db", "a", 10, 10), row("db", "c", 5, 0), row("db", "b retired", 5, 4)];
    assert_eq!(shown(&ledger), now);
    ledger.hand_over();
    let mut ledger = again(&again(&ledger, &["a", "c"]), &["a", "c"]);
    assert_eq!(ledger.settle_retired(&[], DAMAGED), 0);
    assert_eq!(shown(&ledger), now);
    let mut ledger = again(&ledger, &["b"]);
    ledger.accepted(b"db", [A], 2);
    assert_eq!((ledger.queued(A), ledger.settle_retired(&["c".into()], DAMAGED)), (2, 0));
    assert_eq!(shown(&ledger), [row("db", "b", 7, 4), row("db", "a retired", 10, 10), row("db", "c retired", 5, 0)]);
}

#[test]
fn what_a_retired_backend_can_get_no_more_is_dropped() {
    let mut ledger = Ledger::new(topology(&["a", "b", "c"]));
    ledger.accepted(b"db", [A, B, BackendId(2)], 10);
    let mut ledger = again(&ledger, &["d"]);
    // `a` has no records in the log: they are lost. Those of `b` go elsewhere, those of `c` nowhere.
    assert_eq!(ledger.settle_retired(&["b".into(), "c".into()], DAMAGED), 10);
    ledger.lost_with_circle(b"db", "c", 10);
    ledger.hand_over();
    let rows: Vec<_> = ledger.rows().into_iter().map(|row| (row.backend, row.accepted, row.dropped)).collect();
    let lost = |name: &str, reason: &str| (LedgerBackend::Retired(name.into()), 10, vec![(reason.to_owned(), 10)]);
    assert_eq!(rows, [lost("a", DAMAGED), lost("c", NO_CIRCLE)]);
}

#[test]
fn retired_backends_are_bounded() {
    let mut ledger = Ledger::new(topology(&[]));
    for round in 0..3 * RETIRED_BACKENDS_MAX {
        let name = format!("b{round}");
        ledger = again(&ledger, &[&name]);
        assert_eq!(ledger.settle_retired(&[], DAMAGED), 0);
        for db in [&b"x"[..], b"y"] {
            ledger.accepted(db, [A], 1);
            ledger.delivered(db, A, 1);
        }
    }
    let shown = shown(&ledger);
    assert_eq!(shown.len(), 2 * (RETIRED_BACKENDS_MAX + 2));
    assert_eq!(shown.iter().map(|row| row.2).sum::<u64>(), 6 * RETIRED_BACKENDS_MAX as u64);
    let others = RETIRED_BACKENDS_MAX as u64 * 2 - 1;
    assert_eq!(shown.iter().filter(|r| **r == row(&r.0, "/other retired", others, others)).count(), 2);
    // Those that have left last keep their names.
    let last = format!("b{} retired", 3 * RETIRED_BACKENDS_MAX - 2);
    assert_eq!(shown.iter().filter(|row| row.1 == last).count(), 2);
}

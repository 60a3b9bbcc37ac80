//! Tests of the load generator with the stand-in: its report must match what was stored.

use std::time::Duration;

use super::*;
use crate::lab::stand_in::{Fault, StandIn};

fn loaded(args: LoadArgs) -> Summary {
    run(&args, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

fn small(standin: &StandIn) -> LoadArgs {
    LoadArgs {
        points: Some(10_005),
        lines: 10,
        connections: 8,
        timeout: 5.0,
        measurements: 30,
        ..LoadArgs::new(&standin.url(), "db")
    }
}

#[test]
fn acked_points_are_exactly_those_stored() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    for (first, args) in [
        (1, small(&standin)),
        (20_001, LoadArgs { gzip: true, first: 20_001, threads: 2, ..small(&standin) }),
        (40_001, LoadArgs { rate: 100_000, first: 40_001, threads: 2, ..small(&standin) }),
    ] {
        let summary = loaded(args);
        assert!(summary.succeeded(), "{summary}");
        assert_eq!(summary.counts.acked_points, 10_005);
        assert_eq!(summary.serials, Some((first, first + 10_004)));
    }
    let runs = standin.serials("db").runs();
    assert_eq!(runs, [(1, 10_005), (20_001, 30_005), (40_001, 50_005)]);
    assert_eq!((standin.points("db"), standin.measurements("db").len()), (30_015, 30));
}

#[test]
fn points_without_acknowledgement_are_listed() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    let refused = Fault::Answer(503, "{\"error\":\"full\"}".into());
    standin.script([refused.clone(), Fault::Reset, Fault::StoreAndReset, Fault::Answer(400, "no".into()), refused]);
    let summary = loaded(LoadArgs { connections: 1, ..small(&standin) });
    assert!(!summary.succeeded());
    let c = &summary.counts;
    assert_eq!((c.sent_points, c.acked_points, c.refused_points, c.unknown_points), (10_005, 9_955, 30, 20));
    assert_eq!((c.statuses[&503], c.statuses[&400], c.statuses[&204]), (2, 1, 996));
    assert_eq!(c.failures.values().sum::<u64>(), 2);
    assert_eq!(c.failed_requests(), 5);
    assert_eq!(c.refusals[&503], "{\"error\":\"full\"}");
    assert_eq!(c.unacked, [1, 11, 21, 31, 41].map(|first| Range { first, count: 10 }));
    // The third request was stored without an answer.
    assert_eq!(standin.serials("db").runs(), [(21, 30), (51, 10_005)]);
    let json = summary.json();
    assert_eq!(json["not_acked_points"], 50);
    assert_eq!(json["not_acked"][0], serde_json::json!([1, 10]));
    assert_eq!(json["statuses"]["503"], 2);
}

#[test]
fn an_unreachable_server_is_a_failure_and_nothing_is_sent() {
    let mut standin = StandIn::with_databases(&["db"]).unwrap();
    standin.stop();
    let summary = loaded(LoadArgs { seconds: Some(0.3), ..small(&standin) });
    assert!(!summary.succeeded());
    assert!(summary.counts.failures[&RequestFailure::Connect] >= 8, "{summary}");
    assert_eq!((summary.counts.sent_points, summary.serials), (0, None));
}

#[test]
fn a_request_without_answer_ends_with_its_timeout() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    standin.script([Fault::Hang]);
    let summary = loaded(LoadArgs { timeout: 0.2, points: Some(20), connections: 1, ..small(&standin) });
    assert_eq!((summary.counts.unknown_points, summary.counts.acked_points), (10, 10));
    assert_eq!(summary.counts.failures[&RequestFailure::Timeout], 1);
}

#[test]
fn a_stall_counts_for_every_request_that_was_due_meanwhile() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    standin.script([Fault::Slow(Duration::from_millis(500))]);
    // 100 requests a second over one connection: 50 were due during the stall, the first of them 0.5 s late.
    let args = LoadArgs { connections: 1, rate: 1000, points: Some(1000), ..small(&standin) };
    let summary = loaded(args);
    assert!(summary.succeeded(), "{summary}");
    let late = summary.counts.latency_us.count_between(100_000, u64::MAX);
    assert!((30..=80).contains(&late), "{late} of 100 requests waited 100 ms or more\n{summary}");
}

#[test]
fn a_run_keeps_its_pace_and_its_end() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    let mut snapshots = Vec::new();
    let args = LoadArgs { rate: 2000, seconds: Some(2.0), points: None, ..small(&standin) };
    let summary = run(&args, &AtomicBool::new(false), &mut |s| snapshots.push(s.clone())).unwrap();
    assert!((3_900..=4_010).contains(&summary.counts.sent_points), "{summary}");
    assert!(!snapshots.is_empty() && snapshots[0].acked_points > 0 && snapshots[0].p99_us > 0, "{snapshots:?}");
}

#[test]
fn requests_without_a_free_connection_are_reported_as_unsent() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    standin.always(Some(Fault::Slow(Duration::from_millis(100))));
    let summary = loaded(LoadArgs { connections: 1, rate: 1000, points: None, seconds: Some(1.0), ..small(&standin) });
    assert!(summary.counts.unsent_requests >= 50, "{summary}");
    assert!(summary.counts.requests <= 20, "{summary}");
}

#[test]
fn the_database_is_created_on_the_backends_named() {
    let (a, b) = (StandIn::with_databases(&[]).unwrap(), StandIn::with_databases(&[]).unwrap());
    let args = LoadArgs { create_db: true, backend: vec![a.url(), b.url()], points: Some(10), ..small(&a) };
    assert_eq!(loaded(args).counts.acked_points, 10);
    assert_eq!(loaded(LoadArgs { points: Some(10), ..small(&b) }).counts.acked_points, 10);
}

#[test]
fn stopping_early_still_waits_for_the_answers() {
    let standin = StandIn::with_databases(&["db"]).unwrap();
    let stop = AtomicBool::new(false);
    let args = LoadArgs { points: None, seconds: None, ..small(&standin) };
    let summary = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&args, &stop, &mut |_| {}).unwrap());
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Relaxed);
        run.join().unwrap()
    });
    assert!(summary.succeeded() && summary.elapsed < Duration::from_secs(5), "{summary}");
    assert_eq!(standin.serials("db").len(), summary.counts.acked_points);
}

//! Promise: what was acknowledged survives `kill -9` of the proxy, in every circle, and the ledger stays true.

use std::time::{Duration, Instant};

use crate::circles::{Circles, Points, assert_nothing_lost};
use crate::crash_rounds::{Crash, CrashRounds, now_ns};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate_dataplane::crash::POINTS;

/// Several kills under load, each with a log that the one before has recovered. `one_down`: a backend is down
/// meanwhile, so that there is a backlog to recover.
fn kill_rounds(durability: &str, one_down: bool) {
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("durability", durability));
    let mut points = Points::default();
    let args = LoadArgs { rate: 5_000, ..points.args(&proxy) };
    if one_down {
        circles.0[1][1].stop();
    }
    let summary = points.load_during(&args, || {
        for round in 0..3 {
            // Not in step with the state, which is saved once a second.
            std::thread::sleep(Duration::from_millis(700 + 400 * round));
            proxy.restart().unwrap();
        }
        std::thread::sleep(Duration::from_millis(500));
    });
    assert!(summary.counts.acked_points > 200, "{summary}");
    assert!(summary.counts.failed_requests() > 0, "nobody noticed the kills\n{summary}");
    if one_down {
        circles.0[1][1].restart().unwrap();
    }
    assert_nothing_lost(&proxy, &circles, &points);
    // After another start, with nothing to deliver, the ledger is the same.
    let before = proxy.ledger().unwrap().totals;
    proxy.restart().unwrap();
    assert_eq!(assert_nothing_lost(&proxy, &circles, &points).totals, before);
}

#[test]
fn a_killed_proxy_delivers_all_that_it_acknowledged() {
    kill_rounds("disk", false);
}

#[test]
fn with_durability_os_as_well() {
    kill_rounds("os", false);
}

#[test]
fn with_a_backend_down_as_well() {
    kill_rounds("disk", true);
}

#[test]
fn with_durability_os_and_a_backend_down_as_well() {
    kill_rounds("os", true);
}

/// Crashes at numbered points and at random moments, with real servers, a changing number of workers and sometimes a
/// server down. `CRASH_ROUNDS` of them, each point in turn (`make crash`); without it the six of every test run.
#[test]
fn rounds_of_crashes_lose_nothing_and_keep_the_accounts() {
    let few = ["", "written", "rename-durable", "half-saved", "compact-written", "letter-written"];
    let count = std::env::var("CRASH_ROUNDS").map_or(few.len(), |text| text.parse().unwrap());
    // No backend leaves the configuration here; `former_workers.rs` comes to those points.
    let met = POINTS.iter().copied().filter(|point| !point.starts_with("reroute"));
    let all: Vec<_> = std::iter::once("").chain(met).collect();
    let points = if count > few.len() { &all[..] } else { &few };
    let seed = std::env::var("CRASH_SEED").map_or_else(|_| now_ns(), |text| text.parse().unwrap());
    println!("{count} rounds, CRASH_SEED={seed}");
    let mut random = seed | 1;
    let mut below = |bound: u64| {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut rounds = CrashRounds::new();
    let mut workers = 2;
    let begun = Instant::now();
    for round in 0..count {
        let point = points[round % points.len()];
        // There may be only one file to remove.
        let times = match point {
            "write" | "written" => 1 + below(300),
            _ if point.starts_with("remove") => 1,
            _ => 1 + below(3),
        };
        let before = workers;
        workers = 1 + below(4);
        let needs_backlog = point.starts_with("compact") || point.starts_with("re") || point.starts_with("create");
        let crash = Crash {
            at: (!point.is_empty()).then_some((point, times)),
            // Only then are log files written first and synced afterwards.
            durability: if point.starts_with("sync") || below(3) == 0 { "os" } else { "disk" },
            workers: (before, workers),
            down: if needs_backlog { Some(below(3) as usize) } else { Some(below(8) as usize).filter(|d| *d < 4) },
            after: Duration::from_millis(100 + below(2_000)),
        };
        let started = Instant::now();
        rounds.round(crash);
        println!("round {round}: {crash:?} {:.1} s", started.elapsed().as_secs_f64());
    }
    println!("{count} rounds in {:?}, {} points acknowledged, {:?}", begun.elapsed(), rounds.acked(), rounds.reached);
    // By hand each point is met.
    let missed: Vec<_> = all[1..].iter().filter(|point| !rounds.reached.contains_key(*point)).collect();
    assert!(count < 20 * points.len() || missed.is_empty(), "no round came to {missed:?}");
}

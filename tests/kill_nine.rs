//! Promise: what was acknowledged survives `kill -9` of the proxy, in every circle.

mod support;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fluxgate::load::{self, LoadArgs, Summary};
use fluxgate::proxy::{ProxyConfig, eventually};
use fluxgate::serials::Serials;
use fluxgate::standin::StandIn;

const DB: &str = "db";

/// Numbers of the points that were sent and not acknowledged.
fn not_acked(summary: &Summary) -> Serials {
    let mut numbers = Serials::default();
    for range in &summary.counts.unacked {
        for n in range.first..range.first + range.count {
            numbers.insert(n);
        }
    }
    numbers
}

fn held(circle: &[StandIn]) -> Serials {
    let mut numbers = Serials::default();
    circle.iter().for_each(|backend| numbers.merge(&backend.serials(DB)));
    numbers
}

#[test]
fn a_killed_proxy_delivers_all_that_it_acknowledged() {
    let circles: Vec<Vec<_>> =
        (0..2).map(|_| (0..2).map(|_| StandIn::with_databases(&[DB]).unwrap()).collect()).collect();
    let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(StandIn::url).collect()).collect();
    let mut proxy = support::start(&ProxyConfig::new(&urls));
    let args =
        LoadArgs { seconds: Some(5.0), rate: 5_000, lines: 20, connections: 8, ..LoadArgs::new(&proxy.url(), DB) };
    let summary = std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(&args, &AtomicBool::new(false), &mut |_| {}).unwrap());
        // Two kills, the second one with a log that has been recovered once.
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(1_200));
            proxy.restart().unwrap();
        }
        load.join().unwrap()
    });
    assert!(summary.counts.acked_points > 5_000, "{summary}");
    assert!(summary.counts.failed_requests() > 0, "nobody noticed the kills\n{summary}");

    let (first, last) = summary.serials.unwrap();
    let excused = not_acked(&summary);
    for circle in &circles {
        let missing = || {
            let held = held(circle);
            (first..=last).filter(|n| !excused.contains(*n) && !held.contains(*n)).collect::<Vec<_>>()
        };
        let complete = eventually(Duration::from_secs(30), || missing().is_empty());
        assert!(complete, "missing: {:?}\n{summary}\n{}", missing(), proxy.stderr());
    }
    let ledger = proxy.ledger().unwrap();
    assert!(ledger.proven_balanced(), "{ledger:?}");
}

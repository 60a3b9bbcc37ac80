//! Promise: what was acknowledged survives `kill -9` of the proxy, in every circle, and the ledger stays true.

use std::time::Duration;

use crate::circles::{Circles, Points, assert_nothing_lost};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;

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

//! Promise: what the logs of workers that the configuration no longer has hold is delivered, and points for backends
//! that it no longer has are routed again at the next start.

use serde_json::Value;

use crate::circles::{Circles, Points, assert_nothing_lost, balanced, drained, missing};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::Proxy;

/// Fills a backlog for the first circle and ends the proxy, one way or the other.
fn backlog(proxy: &mut Proxy, circles: &mut Circles, points: &mut Points, kill: bool) {
    circles.0[0].iter_mut().for_each(|backend| backend.stop());
    // More connections than the kernel would ever give to one of two workers.
    let summary = points.load(&LoadArgs { points: Some(10_000), connections: 32, ..points.args(proxy) }, || {});
    assert!(summary.succeeded(), "{summary}");
    if kill {
        proxy.kill();
    } else {
        assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    }
}

fn fewer_workers(kill: bool) {
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("workers", 2));
    let mut points = Points::default();
    backlog(&mut proxy, &mut circles, &mut points, kill);
    assert!(proxy.data_dir().join("worker-1").is_dir());
    proxy.edit(|config| config["workers"] = 1.into()).unwrap();
    proxy.restart().unwrap();
    let ledger = balanced(&proxy);
    assert!(ledger.totals.queued > 0, "the backlog is where it was: {ledger:?}");
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
    // And back.
    proxy.edit(|config| config["workers"] = 2.into()).unwrap();
    proxy.restart().unwrap();
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    assert_nothing_lost(&proxy, &circles, &points);
}

#[test]
fn the_log_of_a_former_worker_is_delivered() {
    fewer_workers(false);
}

#[test]
fn the_log_of_a_former_worker_is_delivered_after_a_kill() {
    fewer_workers(true);
}

/// The ledger forgets accounts of backends that have left: what it says of the others must still be true.
/// `crash`: where the first start after the change ends.
fn without(name: &str, crash: Option<&str>, change: impl FnOnce(&mut Value)) {
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("workers", 2));
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {});
    assert_nothing_lost(&proxy, &circles, &points);
    backlog(&mut proxy, &mut circles, &mut points, true);
    proxy.edit(change).unwrap();
    circles.restart();
    if let Some(point) = crash {
        proxy.launch_by(["env".to_owned(), format!("FLUXGATE_CRASH_AT={point}:1")]);
        assert!(proxy.restart().is_err(), "it did not come to {point}");
        proxy.launch_by::<String>([]);
    }
    proxy.restart().unwrap();
    let ledger = drained(&proxy);
    for circle in 0..2 {
        let lost = missing(&points.acked, &circles.held(circle));
        assert!(lost.is_empty(), "circle {circle} lacks {lost:?}\n{ledger:?}\n{}", proxy.stderr());
    }
    assert_eq!(ledger.backend(name).accepted, 0, "{ledger:?}");
    assert_eq!(ledger.totals.dropped + ledger.totals.rejected, 0, "{ledger:?}");
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    let ledger = drained(&proxy);
    assert!(missing(&points.acked, &circles.held(0)).is_empty());
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    assert_eq!(balanced(&proxy).totals, ledger.totals, "taken over once");
}

fn renamed(config: &mut Value) {
    config["circles"][0]["backends"][0]["name"] = "renamed".into();
}

#[test]
fn a_crash_at_each_step_of_routing_anew_loses_nothing() {
    for point in ["reroute", "reroute-appended", "rerouted"] {
        without("influxdb-1-1", Some(point), renamed);
    }
}

#[test]
fn the_backlog_of_a_renamed_backend_is_routed_anew() {
    without("influxdb-1-1", None, renamed);
}

#[test]
fn the_backlog_of_a_removed_backend_goes_to_the_others_of_its_circle() {
    without("influxdb-1-2", None, |config| {
        config["circles"][0]["backends"].as_array_mut().unwrap().pop();
    });
}

//! Promise: what the logs of workers that the configuration no longer has hold is delivered, and points for backends
//! that it no longer has are routed again at the next start.

use serde_json::Value;

use crate::circles::{Circles, Points, assert_nothing_lost, balanced, drained, missing};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Ledger, Proxy};

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

/// Whether the ledger has accounts of this backend, as a retired one.
fn is_retired(ledger: &Ledger, name: &str) -> bool {
    let rows = ledger.databases.iter().flat_map(|database| &database.backends);
    let mut retired = rows.filter(|row| row.backend == name).map(|row| row.retired);
    retired.next().is_some_and(|first| first && retired.all(|row| row))
}

/// The accounts of a backend that has left stay. `crashes`: where the first starts after the change end, each once.
fn without(name: &str, crashes: &[&str], change: impl FnOnce(&mut Value)) {
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("workers", 2));
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {});
    let before = assert_nothing_lost(&proxy, &circles, &points).backend(name);
    assert!(before.accepted > 0, "{before:?}");
    // Until it is saved.
    std::thread::sleep(std::time::Duration::from_secs(2));
    backlog(&mut proxy, &mut circles, &mut points, true);
    proxy.edit(change).unwrap();
    circles.restart();
    for point in crashes {
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
    assert!(is_retired(&ledger, name), "{ledger:?}");
    assert_eq!(ledger.backend(name), before, "{ledger:?}");
    assert_eq!(ledger.totals.accepted, 2 * points.acked.len(), "{ledger:?}");
    assert_eq!(ledger.totals.dropped + ledger.totals.rejected, 0, "{ledger:?}");
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    let ledger = drained(&proxy);
    assert!(missing(&points.acked, &circles.held(0)).is_empty());
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    let again = balanced(&proxy);
    assert_eq!((again.totals, again.backend(name)), (ledger.totals, before), "taken over once");
}

fn renamed(config: &mut Value) {
    config["circles"][0]["backends"][0]["name"] = "renamed".into();
}

/// Its account goes on under its old name, whatever happened meanwhile.
#[test]
fn a_backend_that_comes_back_goes_on_with_its_account() {
    let circles = Circles::new(1, 2);
    let mut proxy = start(&circles.config().set("workers", 2));
    let mut points = Points::default();
    let mut load = |proxy: &Proxy| {
        points.load(&LoadArgs { points: Some(1_000), ..points.args(proxy) }, || {});
        let ledger = drained(proxy);
        assert_eq!(ledger.totals.accepted, points.acked.len(), "{ledger:?}");
        ledger
    };
    let first = load(&proxy).backend("influxdb-1-1");
    for (name, other) in [("renamed", "influxdb-1-1"), ("influxdb-1-1", "renamed"), ("third", "renamed")] {
        assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
        assert!(!proxy.stderr().contains("are lost"), "{}", proxy.stderr());
        proxy.edit(|config| config["circles"][0]["backends"][0]["name"] = name.into()).unwrap();
        proxy.restart().unwrap();
        let before = balanced(&proxy);
        let ledger = load(&proxy);
        assert!(is_retired(&ledger, other) && !is_retired(&ledger, name), "{ledger:?}");
        assert_eq!(ledger.backend(other), before.backend(other), "{ledger:?}");
        assert!(ledger.backend(name).accepted > before.backend(name).accepted, "{ledger:?}");
        assert!(ledger.backend("influxdb-1-1").accepted >= first.accepted, "{ledger:?}");
    }
}

/// What waits for a circle that is taken out gets nowhere, and is told.
#[test]
fn the_backlog_of_a_circle_that_is_taken_out_is_counted_as_dropped() {
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config().set("workers", 2));
    let mut points = Points::default();
    let mut load = |proxy: &Proxy, count| {
        points.load(&LoadArgs { points: Some(count), connections: 32, ..points.args(proxy) }, || {});
        points.acked.len()
    };
    let delivered = load(&proxy, 1_000);
    drained(&proxy);
    circles.0[1][0].stop();
    let all = load(&proxy, 5_000);
    proxy.kill();
    proxy.edit(|config| drop(config["circles"].as_array_mut().unwrap().pop())).unwrap();
    proxy.restart().unwrap();
    for _ in 0..2 {
        let ledger = drained(&proxy);
        let gone = ledger.backend("influxdb-2-1");
        assert_eq!((gone.accepted, gone.dropped, gone.rejected), (all, all - gone.delivered, 0), "{ledger:?}");
        // Some of the last second before the kill may count twice.
        assert!(gone.delivered <= delivered && is_retired(&ledger, "influxdb-2-1"), "{ledger:?}");
        assert_eq!(ledger.backend("influxdb-1-1").delivered, all, "{ledger:?}");
        assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
        assert!(proxy.stderr().contains("influxdb-2-1: accepted"), "{}", proxy.stderr());
        proxy.restart().unwrap();
    }
}

#[test]
fn a_crash_at_each_step_of_routing_anew_loses_nothing_and_counts_nothing_twice() {
    let all = ["reroute", "reroute-appended", "reroute-saved", "rerouted"];
    all.iter().for_each(|point| without("influxdb-1-1", &[point], renamed));
    without("influxdb-1-1", &["reroute-appended", "reroute", "reroute-appended", "reroute-saved", "rerouted"], renamed);
}

#[test]
fn the_backlog_of_a_renamed_backend_is_routed_anew() {
    without("influxdb-1-1", &[], renamed);
}

#[test]
fn the_backlog_of_a_removed_backend_goes_to_the_others_of_its_circle() {
    without("influxdb-1-2", &[], |config| {
        config["circles"][0]["backends"].as_array_mut().unwrap().pop();
    });
}

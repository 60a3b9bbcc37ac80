//! Promise: a backend that is dead, hangs, resets or fails delays no ack and no other backend, and gets all its points
//! when it is back.

use std::time::Duration;

use crate::circles::{Circles, DB, DRAIN, Points, assert_nothing_lost, balanced, drained};
use crate::support::start;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::load::{LoadArgs, Summary};
use fluxgate::lab::proxy::{ProxyConfig, backend_name, eventually};
use fluxgate::lab::stand_in::Fault;

/// A request takes a hundredth of this. A wait for a hung backend would take `write_timeout`, 10 s in these tests.
const ACK_MAX: Duration = Duration::from_secs(2);

fn assert_quick(summary: &Summary) {
    assert!(summary.succeeded() && summary.counts.unsent_requests == 0, "{summary}");
    assert!(Duration::from_micros(summary.counts.latency_us.max()) < ACK_MAX, "{summary}");
}

/// Loads while the second circle's only backend is `broken`; the first circle must have everything meanwhile.
fn others_go_on(broken: impl FnOnce(&mut Circles), mended: impl FnOnce(&mut Circles)) {
    let mut circles = Circles::new(2, 1);
    let proxy = start(&circles.config());
    let mut points = Points::default();
    let args = LoadArgs { points: Some(2_000), rate: 4_000, ..points.args(&proxy) };
    points.load(&args, || {});
    assert_nothing_lost(&proxy, &circles, &points);

    broken(&mut circles);
    let args = LoadArgs { points: Some(8_000), rate: 4_000, ..points.args(&proxy) };
    let summary = points.load(&args, || {});
    assert_quick(&summary);
    let complete = eventually(Duration::from_secs(8), || circles.held(0).len() == 10_000);
    assert!(complete, "{} of 10000\n{}", circles.held(0).len(), proxy.stderr());
    let ledger = balanced(&proxy);
    let (healthy, sick) = (ledger.backend(&backend_name(0, 0)), ledger.backend(&backend_name(1, 0)));
    assert_eq!((healthy.accepted, sick.accepted), (10_000, 10_000));
    assert!(sick.queued > 0, "{ledger:?}");

    mended(&mut circles);
    assert_nothing_lost(&proxy, &circles, &points);
}

#[test]
fn a_dead_backend_delays_nobody() {
    others_go_on(|c| c.0[1][0].stop(), |c| c.0[1][0].restart().unwrap());
}

#[test]
fn a_hanging_backend_delays_nobody() {
    others_go_on(|c| c.0[1][0].always(Some(Fault::Hang)), |c| c.0[1][0].always(None));
}

#[test]
fn a_resetting_backend_delays_nobody() {
    others_go_on(|c| c.0[1][0].always(Some(Fault::Reset)), |c| c.0[1][0].always(None));
}

#[test]
fn a_failing_backend_delays_nobody() {
    let fault = Fault::Answer(503, "{\"error\":\"engine is closed\"}".into());
    others_go_on(|c| c.0[1][0].always(Some(fault)), |c| c.0[1][0].always(None));
}

/// A wrong password holds everything, says so, and recovers when the password is right.
#[test]
fn a_backend_that_refuses_the_password_holds_its_points() {
    let mut circles = Circles::new(2, 1);
    let proxy = start(&circles.config());
    circles.0[1][0].always(Some(Fault::Answer(401, "{\"error\":\"authorization failed\"}".into())));
    let mut points = Points::default();
    let summary = points.load(&LoadArgs { points: Some(5_000), rate: 5_000, ..points.args(&proxy) }, || {});
    assert_quick(&summary);
    assert!(eventually(DRAIN, || circles.held(0).len() == 5_000));
    // Several attempts fit into this.
    std::thread::sleep(Duration::from_secs(2));
    let sick = balanced(&proxy).backend(&backend_name(1, 0));
    assert_eq!((sick.accepted, sick.queued), (5_000, 5_000), "held, not given up");
    let told = proxy.stderr();
    let loud: Vec<_> =
        told.lines().filter(|line| line.contains("influxdb-2-1") && line.contains("authorization failed")).collect();
    assert!(!loud.is_empty(), "{told}");
    assert!(loud.len() <= 8, "rate-limited: {loud:?}");
    circles.0[1][0].always(None);
    assert_nothing_lost(&proxy, &circles, &points);
    circles.stop();
}

#[test]
fn a_real_server_that_stands_still_delays_nobody() {
    let servers = [Influxd::start().unwrap(), Influxd::start().unwrap()];
    servers.iter().for_each(|server| server.create_database(DB).unwrap());
    let proxy = start(
        &ProxyConfig::new(&[vec![servers[0].url()], vec![servers[1].url()]])
            .set("write_timeout", 2)
            .set("rewrite_interval", 1),
    );
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(2_000), rate: 4_000, ..points.args(&proxy) }, || {});
    drained(&proxy);

    servers[1].freeze().unwrap();
    let summary = points.load(&LoadArgs { points: Some(16_000), rate: 4_000, ..points.args(&proxy) }, || {});
    assert_quick(&summary);
    assert!(eventually(Duration::from_secs(8), || servers[0].points(DB).unwrap() == 18_000), "{}", proxy.stderr());
    assert!(balanced(&proxy).backend(&backend_name(1, 0)).queued > 0);

    servers[1].thaw().unwrap();
    let ledger = drained(&proxy);
    assert_eq!(ledger.totals.delivered, 36_000, "{ledger:?}");
    assert_eq!((servers[0].points(DB).unwrap(), servers[1].points(DB).unwrap()), (18_000, 18_000));
}

#[test]
fn each_transition_is_told_once_and_how_long_the_state_before_lasted() {
    let mut circles = Circles::new(1, 1);
    let proxy = start(&circles.config());
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(100), ..points.args(&proxy) }, || {});
    assert_nothing_lost(&proxy, &circles, &points);
    circles.stop();
    let told = |what: &str| proxy.stderr().matches(&format!("{}: {what}", backend_name(0, 0))).count();
    points.load(&LoadArgs { points: Some(100), ..points.args(&proxy) }, || {});
    assert!(eventually(DRAIN, || told("down after ") > 0 && told("writes fail: ") > 0), "{}", proxy.stderr());
    // Several probes and attempts fit into this.
    std::thread::sleep(Duration::from_secs(3));
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
    let back = || told("up again after ") > 0 && told("writes succeed again after ") > 0;
    assert!(eventually(DRAIN, back), "{}", proxy.stderr());
    let lines = ["down after ", "writes fail: ", "up again after ", "writes succeed again after "];
    assert_eq!(lines.map(told), [1; 4], "{}", proxy.stderr());
}

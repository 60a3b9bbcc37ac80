//! Promise: SIGTERM and SIGINT end the proxy within 5 s with status 0 and a ledger, nothing acknowledged is lost, and
//! the next start goes on.

use std::time::Duration;

use crate::circles::{Circles, Points, assert_nothing_lost};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::eventually;
use rustix::process::Signal;

const STOP: Duration = Duration::from_secs(5);

fn stop_under_load(signal: Signal, one_down: bool) {
    let mut circles = Circles::new(2, 2);
    if one_down {
        circles.0[0][0].stop();
    }
    let mut proxy = start(&circles.config());
    let mut points = Points::default();
    let args = LoadArgs { rate: 5_000, ..points.args(&proxy) };
    let summary = points.load_during(&args, || {
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(900));
            proxy.signal(signal).unwrap();
            let status = proxy.wait(STOP).unwrap();
            assert_eq!(status.code(), Some(0), "{}", proxy.stderr());
            proxy.restart().unwrap();
        }
        std::thread::sleep(Duration::from_millis(400));
    });
    assert!(summary.counts.acked_points > 200, "{summary}");
    let told = proxy.stderr();
    assert_eq!(told.matches("total all: accepted ").count(), 2, "{told}");
    if one_down {
        circles.0[0][0].restart().unwrap();
    }
    assert_nothing_lost(&proxy, &circles, &points);
}

#[test]
fn sigterm_under_load_loses_nothing() {
    stop_under_load(Signal::TERM, false);
}

#[test]
fn sigint_with_a_backend_down_loses_nothing() {
    stop_under_load(Signal::INT, true);
}

/// The ledger that is printed is the one that is served after the next start.
#[test]
fn the_ledger_goes_on_where_it_stopped() {
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config());
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(3_000), ..points.args(&proxy) }, || {});
    assert_nothing_lost(&proxy, &circles, &points);
    circles.0[1][0].stop();
    points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {});
    let served = || crate::circles::balanced(&proxy).backend("influxdb-1-1").queued == 0;
    assert!(fluxgate::lab::proxy::eventually(crate::circles::DRAIN, served));
    assert_eq!(proxy.terminate(STOP).unwrap().code(), Some(0));
    let told = proxy.stderr();
    let total = "total all: accepted 10000 = delivered 8000 + queued 2000 + rejected 0 + dropped 0";
    assert!(told.contains(total), "{told}");
    proxy.restart().unwrap();
    let ledger = crate::circles::balanced(&proxy);
    assert_eq!((ledger.totals.accepted, ledger.totals.queued), (10_000, 2_000), "{ledger:?}");
    circles.0[1][0].restart().unwrap();
    assert_nothing_lost(&proxy, &circles, &points);
}

/// A backend that never answers does not keep the proxy from ending.
#[test]
fn a_hanging_backend_does_not_delay_the_stop() {
    let circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config());
    circles.0[1][0].always(Some(fluxgate::lab::stand_in::Fault::Hang));
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {});
    assert_eq!(proxy.terminate(STOP).unwrap().code(), Some(0));
    circles.0[1][0].always(None);
    proxy.restart().unwrap();
    assert_nothing_lost(&proxy, &circles, &points);
}

/// Told to stop at any moment of its start, it stops as always.
#[test]
fn a_stop_in_the_middle_of_the_start_is_no_failure() {
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config().set("workers", 2));
    circles.stop();
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {});
    for _ in 0..5 {
        assert_eq!(proxy.terminate(STOP).unwrap().code(), Some(0), "{}", proxy.stderr());
        // Returns with the first worker's answer; others may still be opening their logs.
        proxy.restart().unwrap();
    }
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
}

/// A worker waits for another one, whose log cannot be read yet.
#[test]
fn sigterm_during_the_start_is_an_orderly_end() {
    let circles = Circles::new(1, 1);
    let mut proxy = start(&circles.config().set("workers", 2));
    assert!(proxy.terminate(STOP).unwrap().success());
    // To open it for reading waits for a writer.
    let state = proxy.data_dir().join("worker-1/state");
    std::fs::remove_file(&state).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &state, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let mut starting = std::process::Command::new(env!("CARGO_BIN_EXE_fluxgate"))
        .args(["--config".as_ref(), proxy.config_file().as_os_str()])
        .current_dir(proxy.config_file().parent().unwrap())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(1));
    rustix::process::kill_process(rustix::process::Pid::from_child(&starting), Signal::TERM).unwrap();
    let ended = eventually(2 * STOP, || starting.try_wait().unwrap().is_some());
    if !ended {
        starting.kill().unwrap();
    }
    let output = starting.wait_with_output().unwrap();
    assert!(ended && output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! Promise: memory does not grow with an outage, and an idle proxy costs nothing.

use std::time::Duration;

use crate::circles::{Circles, Points, assert_nothing_lost, balanced};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::Proxy;

pub const MIB: u64 = 1024 * 1024;
/// Memory that the process needs when it does nothing.
const MARGIN: u64 = 64 * MIB;

/// Largest resident memory so far.
pub fn peak_bytes(proxy: &Proxy) -> u64 {
    status_bytes(proxy, "VmHWM:")
}

/// A line of the kernel's account of the process.
pub fn status_bytes(proxy: &Proxy, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid().unwrap())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// User and system time of the process, in clock ticks of 10 ms.
fn cpu(proxy: &Proxy) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid().unwrap())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn memory_stays_bounded_while_all_backends_are_down() {
    let (workers, hot_tail) = (2, 8 * MIB);
    let bound = workers * (hot_tail + 64 * MIB) + MARGIN;
    // A backlog several times as large as the memory bound.
    let count = if cfg!(debug_assertions) { 400_000 } else { 1_000_000 };
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("workers", workers).set("hot_tail_bytes", hot_tail));
    circles.stop();
    let mut points = Points::default();
    let args = LoadArgs { points: Some(count), lines: 2_000, ..points.args(&proxy) };
    let summary = points.load(&args, || {});
    assert!(summary.succeeded(), "{summary}\n{}", proxy.stderr());
    assert!(peak_bytes(&proxy) < bound, "{} MiB with an outage", peak_bytes(&proxy) / MIB);
    assert_eq!(balanced(&proxy).totals.queued, 2 * count);
    // A start with that backlog, and its delivery, stay below the bound, too.
    proxy.restart().unwrap();
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
    assert!(peak_bytes(&proxy) < bound, "{} MiB while catching up", peak_bytes(&proxy) / MIB);
}

#[test]
fn an_idle_proxy_burns_no_cpu() {
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("check_interval", 10));
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    assert_nothing_lost(&proxy, &circles, &points);
    let idle = |proxy: &Proxy, what: &str| {
        // Work of before the test may still be running.
        std::thread::sleep(Duration::from_millis(500));
        let before = cpu(proxy);
        std::thread::sleep(Duration::from_secs(3));
        let used = cpu(proxy) - before;
        assert!(used < Duration::from_millis(300), "{used:?} {what}");
    };
    idle(&proxy, "with logs that have been written");
    proxy.restart().unwrap();
    idle(&proxy, "with logs that have been recovered");
    circles.stop();
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    idle(&proxy, "with backends down");
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
}

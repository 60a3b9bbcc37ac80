//! Promise: memory does not grow with an outage, and an idle proxy costs nothing.

use std::io::Write as _;
use std::net::TcpStream;
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

/// Opens this many connections, sends `head` over each, and as much of a body as is taken.
fn crowd(proxy: &Proxy, count: usize, head: &[u8], body_bytes: usize) -> Vec<TcpStream> {
    let piece = vec![b' '; body_bytes];
    let mut streams: Vec<_> = (0..count).map(|_| TcpStream::connect(proxy.addr()).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(head).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let mut sent = vec![0; count];
    for _ in 0..20 {
        for (stream, sent) in streams.iter_mut().zip(&mut sent) {
            while *sent < body_bytes {
                match stream.write(&piece[*sent..]) {
                    Ok(n) => *sent += n,
                    // It waits, or was refused.
                    Err(_) => break,
                }
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    streams
}

#[test]
fn bodies_that_are_kept_as_a_whole_are_bounded_together() {
    const CONNECTIONS: usize = 600;
    const BODY: usize = 1_000_000;
    let (workers, hot_tail) = (2, 8 * MIB);
    let bound = workers * (hot_tail + 64 * MIB) + CONNECTIONS as u64 * 64 * 1024;
    let user = [("username", "u"), ("password", "p")].map(|(key, value)| (key, value.into()));
    let config = Circles::new(1, 1).config().set("workers", workers).set("hot_tail_bytes", hot_tail);
    let proxy = start(&config.set("idle_timeout", 60).set_all(user));
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (target, fields) in [
        ("/rebalance?circle_id=0&operation=rm&u=u&p=p", ""),
        ("/query?u=u&p=p", form),
        // Nobody knows this user: nothing of its bodies is kept.
        ("/rebalance?circle_id=0&operation=rm&u=x&p=x", ""),
        ("/query?u=x&p=x", form),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {}\r\n\r\n", BODY + 1);
        let crowd = crowd(&proxy, CONNECTIONS, head.as_bytes(), BODY);
        let peak = peak_bytes(&proxy);
        assert!(peak < bound, "{target}: {} MiB, bound {} MiB", peak / MIB, bound / MIB);
        drop(crowd);
    }
    assert_eq!(proxy.get("/health?u=u&p=p").unwrap().0, 200);
}

/// When the states of the logs were last written.
fn saved(proxy: &Proxy) -> Vec<std::time::SystemTime> {
    let workers = std::fs::read_dir(proxy.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let states = workers.flat_map(|folder| ["state", "state.2"].map(|name| folder.join(name)));
    let times: Vec<_> = states.filter_map(|file| file.metadata().ok()?.modified().ok()).collect();
    assert!(times.len() >= 2, "{times:?}");
    times
}

#[test]
fn an_idle_proxy_burns_no_cpu_and_writes_nothing() {
    let mut circles = Circles::new(2, 2);
    let mut proxy = start(&circles.config().set("check_interval", 10));
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    assert_nothing_lost(&proxy, &circles, &points);
    let idle = |proxy: &Proxy, what: &str| {
        // Work of before the test may still be running; states are saved once a second.
        std::thread::sleep(Duration::from_millis(2_500));
        let (before, states) = (cpu(proxy), saved(proxy));
        std::thread::sleep(Duration::from_secs(3));
        let used = cpu(proxy) - before;
        assert_eq!(saved(proxy), states, "{what}");
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

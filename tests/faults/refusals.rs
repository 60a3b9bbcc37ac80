//! Promise: what a backend refuses is found line by line, named with the reason and counted; everything else arrives.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::circles::{Circles, DB, DRAIN, balanced, drained};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::Fault;

fn servers() -> [Influxd; 2] {
    [Influxd::start().unwrap(), Influxd::start().unwrap()]
}

/// A proxy in front of these servers, each a circle of its own.
fn proxy(servers: &[Influxd; 2]) -> Proxy {
    start(&ProxyConfig::new(&[vec![servers[0].url()], vec![servers[1].url()]]))
}

fn write(proxy: &Proxy, target: &str, lines: &str) {
    let mut client = Client::connect(proxy.addr()).unwrap();
    let reply = client.request("POST", target, &[], lines.as_bytes()).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

/// All dead letters of one backend: comment lines and point lines.
fn dead_letters(data_dir: &Path, backend: &str) -> (Vec<String>, Vec<String>) {
    let folder = data_dir.join("rejected").join(backend);
    let files = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    text.lines().map(String::from).partition(|line| line.starts_with('#'))
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn serial(line: &str) -> u64 {
    line.split(['=', 'i', ' ']).find_map(|part| part.parse().ok()).unwrap()
}

#[test]
fn only_the_lines_with_a_type_conflict_are_rejected() {
    let servers = servers();
    servers.iter().for_each(|server| server.create_database(DB).unwrap());
    let proxy = proxy(&servers);
    write(&proxy, &format!("/write?db={DB}"), "m n=0i,v=1i 1\n");
    drained(&proxy);
    // In the middle, at the beginning and at the end of big batches.
    let bad = [1, 777, 4_000, 4_001, 8_000];
    let line = |n: u64| {
        let v = if bad.contains(&n) { "\"text\"" } else { "2i" };
        format!("m n={n}i,v={v} {n}000\n")
    };
    write(&proxy, &format!("/write?db={DB}"), &(1..=8_000).map(line).collect::<String>());
    // Another measurement is not held up.
    write(&proxy, &format!("/write?db={DB}"), "other n=1i 1\n");
    let ledger = drained(&proxy);
    for (index, server) in servers.iter().enumerate() {
        let name = format!("influxdb-{}-1", index + 1);
        assert_eq!(server.points(DB).unwrap(), 1 + 8_000 - bad.len() as u64 + 1, "{name}");
        let row = ledger.databases[0].backends.iter().find(|row| row.backend == name).unwrap();
        assert_eq!(
            row.rejected.iter().collect::<Vec<_>>(),
            [(&"field type conflict".to_string(), &(bad.len() as u64))]
        );
        assert_eq!((row.delivered, row.dropped.len()), (8_002 - bad.len() as u64, 0));
        let (reasons, lines) = dead_letters(&proxy.data_dir(), &name);
        let mut named: Vec<_> = lines.iter().map(|line| serial(line)).collect();
        named.sort_unstable();
        assert_eq!(named, bad);
        assert_eq!(reasons.len(), bad.len());
        assert!(reasons.iter().all(|reason| reason.contains("field type conflict")), "{reasons:?}");
    }
}

#[test]
fn only_points_beyond_the_retention_policy_are_rejected() {
    let servers = servers();
    let create = format!("CREATE DATABASE {DB} WITH DURATION 1h NAME short");
    servers.iter().for_each(|server| drop(server.query("", &create).unwrap()));
    let proxy = proxy(&servers);
    let now = now_ns();
    let old = [3, 500, 501, 1_999];
    let line = |n: u64| {
        let age = if old.contains(&n) { 3 * 3600 * 1_000_000_000 } else { 0 };
        format!("m n={n}i {}\n", now - age - n * 1000)
    };
    write(&proxy, &format!("/write?db={DB}&rp=short"), &(1..=2_000).map(line).collect::<String>());
    let ledger = drained(&proxy);
    for (index, server) in servers.iter().enumerate() {
        let name = format!("influxdb-{}-1", index + 1);
        assert_eq!(server.points(DB).unwrap(), 1_996, "{name}");
        let row = ledger.databases[0].backends.iter().find(|row| row.backend == name).unwrap();
        assert_eq!(row.rejected.iter().collect::<Vec<_>>(), [(&"points beyond retention policy".to_string(), &4)]);
        let (reasons, lines) = dead_letters(&proxy.data_dir(), &name);
        let mut named: Vec<_> = lines.iter().map(|line| serial(line)).collect();
        named.sort_unstable();
        assert_eq!(named, old);
        assert!(reasons.iter().all(|reason| reason.contains("rp=short")), "{reasons:?}");
    }
}

/// A line that makes the server answer 500 each time is found although the server names no line.
#[test]
fn a_line_that_a_backend_fails_on_is_found() {
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config().set("workers", 1));
    let poison = Fault::Poison("poison".into(), 500, "{\"error\":\"engine: cannot do this\"}".into());
    circles.0[1][0].always(Some(poison));
    let line = |n: u64| format!("m,tag={} n={n}i {n}000\n", if n == 1_234 { "poison" } else { "good" });
    write(&proxy, &format!("/write?db={DB}"), &(1..=3_000).map(line).collect::<String>());
    let ledger = drained(&proxy);
    assert_eq!(circles.held(0).len(), 3_000);
    assert_eq!(circles.held(1).runs(), [(1, 1_233), (1_235, 3_000)]);
    assert_eq!((ledger.totals.delivered, ledger.totals.rejected), (5_999, 1), "{ledger:?}");
    let (reasons, lines) = dead_letters(&proxy.data_dir(), "influxdb-2-1");
    assert_eq!((reasons.len(), lines.len()), (1, 1));
    assert!(lines[0].contains("n=1234i") && reasons[0].contains("engine: cannot do this"), "{reasons:?} {lines:?}");
    // It is not tried again.
    assert!(proxy.terminate(Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    assert_eq!(balanced(&proxy).totals, ledger.totals);
    circles.stop();
}

#[test]
fn a_missing_database_is_created_as_another_backend_has_it() {
    let servers = servers();
    servers[0].query("", &format!("CREATE DATABASE {DB} WITH DURATION 52w NAME long")).unwrap();
    servers[0].query("", &format!("CREATE RETENTION POLICY extra ON {DB} DURATION 2h REPLICATION 1")).unwrap();
    let proxy = proxy(&servers);
    let now = now_ns();
    let lines = |from: u64| (from..from + 500).map(|n| format!("m n={n}i {}\n", now + n)).collect::<String>();
    write(&proxy, &format!("/write?db={DB}"), &lines(1));
    write(&proxy, &format!("/write?db={DB}&rp=extra"), &lines(501));
    let ledger = drained(&proxy);
    assert_eq!((ledger.totals.delivered, ledger.totals.accepted), (2_000, 2_000), "{ledger:?}\n{}", proxy.stderr());
    let policies = servers[1].query("", &format!("SHOW RETENTION POLICIES ON {DB}")).unwrap();
    let rows = policies["results"][0]["series"][0]["values"].as_array().unwrap().clone();
    let policy = |name: &str| rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name}: {rows:?}"));
    assert_eq!((&policy("long")[1], &policy("long")[4]), (&"8736h0m0s".into(), &true.into()));
    assert_eq!(policy("extra")[1], "2h0m0s");
    for server in &servers {
        let count = server.query(DB, "SELECT count(n) FROM extra.m").unwrap();
        assert_eq!(count["results"][0]["series"][0]["values"][0][1], 500);
        assert_eq!(server.points(DB).unwrap(), 500);
    }
}

/// A database that is dropped on one backend meanwhile is created there again.
#[test]
fn a_database_that_somebody_drops_on_one_backend_is_made_again() {
    let servers = servers();
    servers.iter().for_each(|server| server.create_database(DB).unwrap());
    let proxy = proxy(&servers);
    write(&proxy, &format!("/write?db={DB}"), "m n=1i 1\n");
    drained(&proxy);
    servers[1].query("", &format!("DROP DATABASE {DB}")).unwrap();
    write(&proxy, &format!("/write?db={DB}"), "m n=2i 2\n");
    let delivered = eventually(DRAIN, || servers[1].points(DB).is_ok_and(|points| points == 1));
    assert!(delivered, "{}", proxy.stderr());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(drained(&proxy).totals.delivered, 4);
}

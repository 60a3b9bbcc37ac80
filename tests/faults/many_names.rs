//! Promise: however many names of databases clients invent, while nobody knows which there are, the accounts of the
//! proxy stay small and can be saved; every point is counted.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::circles::{Circles, DB, Points, balanced, drained};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Ledger, Proxy};

/// Its escaped form in the saved ledger is three times as long.
fn name(n: usize) -> String {
    format!("{}{n}", "%25".repeat(1_000))
}

/// Writes a point to each of so many databases. Returns how often each status came.
fn invent(proxy: &Proxy, names: usize) -> BTreeMap<u16, usize> {
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut statuses = BTreeMap::new();
    for first in (0..names).step_by(50) {
        let request = |n| {
            let name = name(n);
            format!("POST /write?db={name} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nm v=1 1\n")
        };
        stream.write_all((first..first + 50).map(request).collect::<String>().as_bytes()).unwrap();
        let (mut answers, mut block) = (Vec::new(), [0; 64 * 1024]);
        while answers.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count() < 50 || !answers.ends_with(b"\r\n") {
            let got = stream.read(&mut block).unwrap();
            assert!(got > 0, "{}", proxy.stderr());
            answers.extend_from_slice(&block[..got]);
        }
        for at in memchr::memmem::find_iter(&answers, b"HTTP/1.1 ") {
            let status = std::str::from_utf8(&answers[at + 9..at + 12]).unwrap().parse().unwrap();
            *statuses.entry(status).or_default() += 1;
        }
    }
    statuses
}

fn accepted(ledger: &Ledger, db: &str) -> u64 {
    let rows = ledger.databases.iter().filter(|database| database.db == db);
    rows.flat_map(|database| &database.backends).map(|row| row.accepted).sum()
}

#[test]
fn invented_names_of_databases_make_no_state_that_cannot_be_saved() {
    const NAMES: usize = 10_000;
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config().set("workers", 1));
    let mut points = Points::default();
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    drained(&proxy);
    // Without backends the next start does not know which databases there are.
    circles.stop();
    assert!(proxy.terminate(Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    assert_eq!(invent(&proxy, NAMES), BTreeMap::from([(204, NAMES)]));
    points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
    std::thread::sleep(Duration::from_secs(3));
    assert!(!proxy.stderr().contains("cannot save"), "{}", proxy.stderr());
    let bytes = proxy.data_dir().join("worker-0/state").metadata().unwrap().len();
    assert!(bytes <= 16 << 20, "{bytes}");
    for end in ["now", "after a kill", "after an orderly end"] {
        let ledger = balanced(&proxy);
        let (sum, known) = (2 * (NAMES as u64 + points.acked.len()), 2 * points.acked.len());
        assert_eq!((ledger.totals.accepted, accepted(&ledger, DB)), (sum, known), "{end}");
        assert_eq!(ledger.totals.queued, sum - 2 * 1_000, "{end}");
        assert!(accepted(&ledger, "/other") > 0 && ledger.databases.len() < 1_000, "{end}: {}", ledger.databases.len());
        if end == "now" {
            proxy.kill();
        } else {
            assert!(proxy.terminate(Duration::from_secs(5)).unwrap().success(), "{}", proxy.stderr());
        }
        proxy.restart().unwrap();
    }
    // What InfluxDB can have no database of is not mixed up with it.
    let reply = fluxgate::lab::client::Client::connect(proxy.addr()).unwrap().write("/other", "m v=1 1\n").unwrap();
    assert_eq!((reply.status, reply.text().contains("database not found")), (404, true), "{}", reply.text());
}

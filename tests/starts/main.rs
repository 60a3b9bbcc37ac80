//! Promise: it works however a user starts it. Each start writes, has a line refused, reads back, ends, starts again
//! and goes on; `/ledger` adds up. The configuration is the quick start's, but for what a test is about.
//!
//! What this process may not do (namespaces, another user) is skipped, with a line that says so.

mod machine;
mod output;
mod restarts;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Ledger, LedgerTotals, Proxy, ProxyConfig};
use serde_json::Value;

use support::start;

const WAIT: Duration = Duration::from_secs(60);
const DB: &str = "db1";

/// What a user does, and what must be there afterwards.
struct Usage {
    circles: u64,
    written: u64,
    refused: u64,
}

impl Usage {
    /// The first use of an empty proxy with so many circles.
    fn begin(proxy: &mut Proxy, circles: u64) -> Self {
        let mut client = Client::connect(proxy.addr()).unwrap();
        let create = "/query?q=CREATE+DATABASE+db1";
        let reply = client.request("POST", create, &[], b"").unwrap();
        assert_eq!(reply.status, 200, "{}\n{}", reply.text(), proxy.stderr());
        let mut usage = Self { circles, written: 0, refused: 0 };
        usage.write(proxy);
        usage.refuse(proxy);
        usage.write(proxy);
        usage.read(proxy);
        usage
    }

    /// A line in each of ten measurements, stored in all circles when this returns.
    fn write(&mut self, proxy: &Proxy) {
        let mut client = Client::connect(proxy.addr()).unwrap();
        let time = self.written + 1;
        let lines: String = (0..10).map(|m| format!("cpu{m},host=a v={m}i {time}\n")).collect();
        let target = format!("/write?db={DB}&consistency=all");
        let reply = client.request("POST", &target, &[], lines.as_bytes()).unwrap();
        assert_eq!(reply.status, 204, "{}\n{}", reply.text(), proxy.stderr());
        self.written += 10;
    }

    /// A line that every circle refuses.
    fn refuse(&mut self, proxy: &Proxy) {
        let mut client = Client::connect(proxy.addr()).unwrap();
        let reply = client.write(DB, "cpu0,host=a v=\"text\" 1\n").unwrap();
        assert_eq!(reply.status, 204, "{}", reply.text());
        self.refused += 1;
        proxy.drained(WAIT).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Everything is there, and the ledger adds up.
    fn read(&self, proxy: &Proxy) -> Ledger {
        let ledger = proxy.drained(WAIT).unwrap_or_else(|e| panic!("{e}"));
        assert!(ledger.proven_balanced(), "{ledger:?}\n{}", proxy.stderr());
        let (status, text) = proxy.get("/query?db=db1&q=SELECT+count(v)+FROM+/cpu.*/").unwrap();
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let series = answer["results"][0]["series"].as_array().unwrap_or_else(|| panic!("{text}\n{}", proxy.stderr()));
        let found: u64 = series.iter().map(|series| series["values"][0][1].as_u64().unwrap()).sum();
        assert_eq!((series.len(), found), (10, self.written), "{text}\n{}", proxy.stderr());
        let health = proxy.health().unwrap();
        assert!(health.iter().flat_map(|circle| &circle.backends).all(|backend| backend.active), "{health:?}");
        assert!(!proxy.stderr().contains("panicked"), "{}", proxy.stderr());
        ledger
    }

    /// As [`Usage::read`], with the accounts from the first point on.
    fn read_all(&self, proxy: &Proxy) {
        let totals = LedgerTotals {
            accepted: self.circles * (self.written + self.refused),
            delivered: self.circles * self.written,
            rejected: self.circles * self.refused,
            ..LedgerTotals::default()
        };
        assert_eq!(self.read(proxy).totals, totals, "{}", proxy.stderr());
    }

    /// Each refused line lies once for each circle in `data_dir`.
    fn dead_letters(&self, data_dir: &Path) {
        let entries = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        let files = entries(&data_dir.join("rejected")).into_iter().flat_map(|folder| entries(&folder));
        let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let lines = text.lines().filter(|line| !line.starts_with('#')).count() as u64;
        assert_eq!(lines, self.circles * self.refused, "{text}");
    }

    /// Ends the proxy in order, starts it and goes on.
    fn again(&mut self, proxy: &mut Proxy) {
        assert!(proxy.terminate(WAIT).unwrap().success(), "{}", proxy.stderr());
        proxy.restart().unwrap();
        self.read(proxy);
        self.write(proxy);
        self.refuse(proxy);
    }
}

/// The whole course, with dead letters in the default `data_dir`.
fn works(mut proxy: Proxy, circles: u64) {
    let data_dir = proxy.data_dir();
    works_in(&mut proxy, circles, &data_dir);
}

fn works_in(proxy: &mut Proxy, circles: u64, data_dir: &Path) {
    let mut usage = Usage::begin(proxy, circles);
    usage.read_all(proxy);
    usage.again(proxy);
    usage.read_all(proxy);
    usage.dead_letters(data_dir);
}

/// The quick start's two circles, each of so many servers.
fn circles(servers: &[Influxd]) -> ProxyConfig {
    let urls: Vec<_> = servers.iter().map(Influxd::url).collect();
    ProxyConfig::new(&urls.chunks(servers.len() / 2).map(<[_]>::to_vec).collect::<Vec<_>>())
}

fn servers(count: usize) -> Vec<Influxd> {
    (0..count).map(|_| Influxd::start().unwrap()).collect()
}

/// As the README's quick start says, with so many workers.
fn quick_start(workers: u64) {
    let servers = servers(4);
    works(start(&circles(&servers).set("workers", workers)), 2);
}

#[test]
fn the_quick_start_with_one_worker() {
    quick_start(1);
}

#[test]
fn the_quick_start_with_two_workers() {
    quick_start(2);
}

#[test]
fn the_quick_start_with_four_workers() {
    quick_start(4);
}

//! Promise: all circles apply all writes in one and the same order, and a write that was acknowledged before another
//! one began comes first: whatever happens to the backend or the proxy meanwhile, over whatever connections and
//! workers they come, and however they name the policy.

use std::time::Duration;

use crate::circles::{DB, drained};
use crate::crash_rounds::now_ns;
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};

/// The value of the only point.
fn value(server: &Influxd) -> serde_json::Value {
    server.query(DB, "SELECT v FROM m").unwrap()["results"][0]["series"][0]["values"].clone()
}

/// Writes v = from .. from + 500 over one connection; returns the last.
fn write(proxy: &Proxy, from: u64) -> u64 {
    let mut client = Client::connect(proxy.addr()).unwrap();
    for v in from..from + 500 {
        let reply = client.write(DB, &format!("m v={v}i 1000\n")).unwrap();
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    from + 499
}

#[test]
fn the_last_write_stays_the_last() {
    let mut servers = [Influxd::start().unwrap(), Influxd::start().unwrap()];
    servers.iter().for_each(|server| server.create_database(DB).unwrap());
    let urls: Vec<_> = servers.iter().map(|server| vec![server.url()]).collect();
    let mut proxy =
        start(&ProxyConfig::new(&urls).set("workers", 2).set("write_timeout", 2).set("rewrite_interval", 1));
    let mut last = write(&proxy, 1);
    // Frozen in the middle of a delivery, and thawed while newer values arrive: the old request is still in its socket.
    servers[1].freeze().unwrap();
    last = write(&proxy, last + 1);
    std::thread::sleep(Duration::from_millis(2_500));
    servers[1].thaw().unwrap();
    last = write(&proxy, last + 1);
    // Killed and brought back.
    servers[1].kill();
    last = write(&proxy, last + 1);
    servers[1].restart().unwrap();
    last = write(&proxy, last + 1);
    // The proxy is killed, and sends some points again after its start.
    proxy.restart().unwrap();
    last = write(&proxy, last + 1);
    proxy.restart().unwrap();
    let ledger = drained(&proxy);
    assert_eq!((ledger.totals.accepted, ledger.totals.delivered), (2 * last, 2 * last), "{ledger:?}");
    for server in &servers {
        assert_eq!(value(server).as_array().map(Vec::len), Some(1));
        assert_eq!(value(server)[0][1], last);
    }
}

/// Small numbers that differ from run to run (xorshift64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = now_ns() | 1;
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

const POINTS: usize = 20;

/// Clients that write one after the other: each write begins when the one before has been acknowledged.
struct Writers {
    random: Random,
    kept: Vec<Option<Client>>,
    /// The number of the last write of each point, which is its value.
    last: [u64; POINTS],
    writes: u64,
}

impl Writers {
    /// Writes to any points, over kept and over new connections, with the default policy named or not.
    fn write(&mut self, proxy: &Proxy, count: u64) {
        for _ in 0..count {
            self.writes += 1;
            let point = self.random.below(POINTS as u64) as usize;
            let policy = ["", "&rp=autogen"][self.random.below(2) as usize];
            let kept = self.random.below(8) as usize;
            let mut client = self.kept.get_mut(kept).and_then(Option::take);
            let client = client.get_or_insert_with(|| Client::connect(proxy.addr()).unwrap());
            let line = format!("m,p={point} v={}i 1000\n", self.writes);
            let reply = client.request("POST", &format!("/write?db={DB}{policy}"), &[], line.as_bytes()).unwrap();
            assert_eq!(reply.status, 204, "{}", reply.text());
            self.last[point] = self.writes;
        }
    }

    /// Another start, after a kill or an end in order, with so many workers.
    fn restart(&mut self, proxy: &mut Proxy, workers: u64, kill: bool) {
        proxy.edit(|config| config["workers"] = workers.into()).unwrap();
        if kill {
            proxy.kill();
        } else {
            assert!(proxy.terminate(Duration::from_secs(10)).unwrap().success());
        }
        proxy.restart().unwrap();
        self.kept.fill_with(|| None);
    }
}

fn values(server: &Influxd) -> Vec<u64> {
    let one = |point: usize| {
        let answer = server.query(DB, &format!("SELECT v FROM m WHERE p = '{point}'")).unwrap();
        answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
    };
    (0..POINTS).map(one).collect()
}

#[test]
fn a_write_that_was_acknowledged_before_another_one_began_comes_first() {
    for (workers, then) in [(1, 2), (2, 1), (4, 2)] {
        let mut servers = [Influxd::start().unwrap(), Influxd::start().unwrap()];
        servers.iter().for_each(|server| server.create_database(DB).unwrap());
        let urls: Vec<_> = servers.iter().map(|server| vec![server.url()]).collect();
        let mut proxy = start(&ProxyConfig::new(&urls).set("workers", workers).set("rewrite_interval", 1));
        let mut writers =
            Writers { random: Random::new(), kept: (0..4).map(|_| None).collect(), last: [0; POINTS], writes: 0 };
        writers.write(&proxy, 200);
        servers[1].kill();
        writers.write(&proxy, 200);
        writers.restart(&mut proxy, then, true);
        writers.write(&proxy, 100);
        servers[1].restart().unwrap();
        writers.write(&proxy, 100);
        writers.restart(&mut proxy, workers, true);
        writers.write(&proxy, 50);
        writers.restart(&mut proxy, then, false);
        writers.write(&proxy, 50);
        let ledger = drained(&proxy);
        assert_eq!(ledger.totals.accepted, 2 * writers.writes, "{ledger:?}");
        for server in &servers {
            assert_eq!(values(server), writers.last, "{workers} workers, then {then}");
        }
    }
}

/// Name and values of each series of an answer.
fn series(server: &Influxd, query: &str) -> Vec<String> {
    let answer = server.query(DB, query).unwrap();
    let all = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
    all.iter().map(|series| format!("{} {}", series["name"], series["values"])).collect()
}

/// Nobody waits for anybody: the order is not known, but it is one, for values and for the types of fields.
#[test]
fn writers_that_race_leave_all_circles_equal() {
    for workers in [1, 2] {
        let mut servers = [Influxd::start().unwrap(), Influxd::start().unwrap()];
        servers.iter().for_each(|server| server.create_database(DB).unwrap());
        let urls: Vec<_> = servers.iter().map(|server| vec![server.url()]).collect();
        let proxy = start(&ProxyConfig::new(&urls).set("workers", workers).set("rewrite_interval", 1));
        let race = |writer: u64| {
            let mut client = Client::connect(proxy.addr()).unwrap();
            for n in 0..150 {
                if n % 10 == writer {
                    client = Client::connect(proxy.addr()).unwrap();
                }
                let value = 1000 * writer + n;
                // Each new measurement is first written with two types at once.
                let kind = if writer.is_multiple_of(2) { "i" } else { "" };
                let lines = format!("m v={value}i {}\nt{n} v={value}{kind} 1\n", n % 10);
                assert_eq!(client.write(DB, &lines).unwrap().status, 204);
            }
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..6).map(|writer| scope.spawn(move || race(writer))).collect();
            std::thread::sleep(Duration::from_millis(100));
            servers[1].kill();
            std::thread::sleep(Duration::from_millis(300));
            servers[1].restart().unwrap();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
        });
        drained(&proxy);
        for query in ["SELECT * FROM m", "SELECT * FROM /t.*/", "SHOW FIELD KEYS"] {
            let [one, other] = [0, 1].map(|server: usize| series(&servers[server], query));
            let differ: Vec<_> = one
                .iter()
                .filter(|series| !other.contains(series))
                .chain(other.iter().filter(|series| !one.contains(series)))
                .collect();
            assert!(differ.is_empty(), "{workers} workers: {query}: {differ:?}");
        }
    }
}

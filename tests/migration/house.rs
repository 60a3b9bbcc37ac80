//! Servers, a proxy before them, a writer that knows what was acknowledged, and what an operator does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fluxgate::client::Client;
use fluxgate::influxd::Influxd;
use fluxgate::proxy::{Proxy, ProxyConfig, backend_name, eventually};
use serde_json::{Value, json};

pub const DB: &str = "db";
pub const MEASUREMENTS: u64 = 12;
/// Some years, so that there are several shard groups.
const FIRST_NS: u64 = 1_500_000_000_000_000_000;
/// Few new shards: InfluxDB 1.6 loses sight of acknowledged points (until it is restarted) when two requests are the first ones in a
/// new shard at the same moment, seen twice in 600 such moments with two plain clients.
const STEP_NS: u64 = 300_000_000_000;

/// Measurement and time of a point; its value is its number.
pub type Points = BTreeMap<(String, u64), u64>;

/// Circles of servers behind one proxy.
pub struct House {
    pub servers: Vec<Vec<Influxd>>,
    pub proxy: Proxy,
    pub acked: Arc<Mutex<Points>>,
}

/// None: there is no influxd here.
pub fn house(circles: &[usize]) -> Option<House> {
    if Influxd::executable().is_none() {
        eprintln!("skipped: influxd is not on PATH");
        return None;
    }
    let servers: Vec<Vec<_>> =
        circles.iter().map(|&size| (0..size).map(|_| Influxd::start().unwrap()).collect()).collect();
    servers.iter().flatten().for_each(|server| server.create_database(DB).unwrap());
    let proxy = crate::support::start(&config(&urls(&servers)));
    Some(House { servers, proxy, acked: Arc::default() })
}

pub fn urls(servers: &[Vec<Influxd>]) -> Vec<Vec<String>> {
    servers.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect()
}

pub fn config(circles: &[Vec<String>]) -> ProxyConfig {
    // A clear waits so long after the end of a transition.
    ProxyConfig::new(circles).set("workers", 2).set("write_timeout", 5).set("query_timeout", 10)
}

fn line(number: u64) -> (String, u64, String) {
    let ((measurement, time), text) = line_of(number, number);
    (measurement, time, text)
}

/// Measurement and time of the point with this number, and its line with a value.
pub fn line_of(number: u64, value: u64) -> ((String, u64), String) {
    let (measurement, time) = (format!("m{}", number % MEASUREMENTS), FIRST_NS + number * STEP_NS);
    let text = format!("{measurement},host=h{} n={value}i {time}\n", number % 3);
    ((measurement, time), text)
}

/// Writes these points and notes them once they are acknowledged.
fn write(client: &mut Client, acked: &Mutex<Points>, numbers: std::ops::Range<u64>) {
    let lines: Vec<_> = numbers.clone().map(line).collect();
    let text: String = lines.iter().map(|(.., text)| &text[..]).collect();
    let Ok(reply) = client.write(DB, &text) else { return };
    assert_eq!(reply.status, 204, "{}", reply.text());
    let mut acked = acked.lock().unwrap();
    acked.extend(lines.into_iter().zip(numbers).map(|((m, time, _), number)| ((m, time), number)));
}

/// Writes and asks until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

impl House {
    /// Points with these numbers, delivered everywhere.
    pub fn fill(&self, numbers: std::ops::Range<u64>) {
        let mut client = Client::connect(self.proxy.addr()).unwrap();
        for first in numbers.clone().step_by(500) {
            write(&mut client, &self.acked, first..(first + 500).min(numbers.end));
        }
        self.drained();
    }

    pub fn drained(&self) {
        let drained = || self.proxy.ledger().is_ok_and(|ledger| ledger.totals.queued == 0);
        assert!(eventually(Duration::from_secs(60), drained), "{:?}", self.proxy.ledger());
    }

    /// Writes on from number `first`; with `queries`, what was there at the beginning must be seen all the time.
    pub fn traffic(&self, first: u64, queries: bool) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let (addr, acked, stopped) = (self.proxy.addr(), Arc::clone(&self.acked), Arc::clone(&stop));
        let writer = thread::spawn(move || {
            for first in (first..).step_by(20) {
                if stopped.load(Relaxed) {
                    return;
                }
                // The proxy may just be starting again.
                if let Ok(mut client) = Client::connect(addr) {
                    write(&mut client, &acked, first..first + 20);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        let mut threads = vec![writer];
        if queries {
            let before = self.acked.lock().unwrap().clone();
            let (url, stopped) = (self.proxy.url(), Arc::clone(&stop));
            threads.push(thread::spawn(move || {
                for number in (0..).map(|n| n % MEASUREMENTS) {
                    if stopped.load(Relaxed) {
                        return;
                    }
                    let name = format!("m{number}");
                    let want = before.keys().filter(|(m, _)| *m == name).count() as u64;
                    let answer = fluxgate::influxd::query(&url, DB, &format!("SELECT count(n) FROM {name}")).unwrap();
                    let seen = answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0);
                    assert!(seen >= want, "{name}: {seen} of {want} points are seen");
                }
            }));
        }
        Traffic { stop, threads }
    }

    /// Starts the proxy again, with other circles.
    pub fn restart_with(&mut self, circles: &[Vec<String>]) {
        let file = self.proxy.config_file();
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let backend = |c: usize, b: usize, url: &String| json!({"name": backend_name(c, b), "url": url});
        let circle = |(c, urls): (usize, &Vec<String>)| {
            let backends: Vec<_> = urls.iter().enumerate().map(|(b, url)| backend(c, b, url)).collect();
            json!({"name": format!("circle-{}", c + 1), "backends": backends})
        };
        config["circles"] = circles.iter().enumerate().map(circle).collect();
        std::fs::write(&file, config.to_string()).unwrap();
        self.proxy.restart().unwrap();
    }

    /// Begins a migration; returns its number.
    pub fn begin(&self, target: &str, body: &str) -> u64 {
        begin(&self.proxy, target, body)
    }

    pub fn wait(&self, id: u64) -> Value {
        wait(&self.proxy, id)
    }

    /// Every circle holds what was acknowledged, each measurement at its owner; with `alone`, nowhere else.
    pub fn check(&self, alone: bool) {
        self.drained();
        let acked = self.acked.lock().unwrap().clone();
        for (c, circle) in self.servers.iter().enumerate() {
            for number in 0..MEASUREMENTS {
                let name = format!("m{number}");
                let (_, text) = self.proxy.get(&format!("/replica?db={DB}&meas={name}")).unwrap();
                let owner: Value = serde_json::from_str(&text).unwrap();
                let want: BTreeSet<_> =
                    acked.iter().filter(|((m, _), _)| *m == name).map(|((_, time), n)| (*time, *n)).collect();
                let url =
                    owner.as_array().unwrap().iter().find(|r| r["circle"] == format!("circle-{}", c + 1)).unwrap();
                for server in circle {
                    let mut got = BTreeSet::new();
                    if url["url"] == server.url() {
                        // Delivered is known a moment before it can be seen.
                        eventually(Duration::from_secs(20), || {
                            got = points(server, &name);
                            want.is_subset(&got)
                        });
                    } else {
                        got = points(server, &name);
                    }
                    if url["url"] == server.url() {
                        let missing: Vec<_> = want.difference(&got).take(5).collect();
                        let more: Vec<_> = got.difference(&want).take(5).collect();
                        let told = || format!("{:?}\n{}", self.proxy.ledger(), self.proxy.stderr());
                        assert!(missing.is_empty(), "{name} lacks {missing:?} in circle {c}: {}", told());
                        // Written, and not acknowledged because the proxy was killed.
                        assert!(more.len() < 5, "{name} has more: {more:?} in circle {c}");
                    } else if alone {
                        assert!(got.is_empty(), "{name} also lies at {} in circle {c}", server.url());
                    }
                }
            }
        }
    }
}

pub fn points(server: &Influxd, measurement: &str) -> BTreeSet<(u64, u64)> {
    let q = format!("SELECT n FROM {measurement}");
    let form = [("db", DB), ("q", &q[..]), ("epoch", "ns")];
    let answer = ureq::post(format!("{}/query", server.url())).send_form(form).unwrap();
    let answer: Value = serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap();
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| (row[0].as_u64().unwrap(), row[1].as_u64().unwrap())).collect()
}

pub fn begin(proxy: &Proxy, target: &str, body: &str) -> u64 {
    let mut client = Client::connect(proxy.addr()).unwrap();
    let reply = client.request("POST", target, &["Content-Type: application/json"], body.as_bytes()).unwrap();
    assert_eq!((reply.status, &reply.text()[..]), (202, "accepted\n"), "{target}");
    let (_, text) = proxy.get("/migrate/jobs").unwrap();
    let jobs: Value = serde_json::from_str(&text).unwrap();
    jobs.as_array().unwrap().last().unwrap()["id"].as_u64().unwrap()
}

pub fn job(proxy: &Proxy, id: u64) -> Value {
    let (status, text) = proxy.get(&format!("/migrate/jobs/{id}")).unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// Waits for the end of a migration.
pub fn wait(proxy: &Proxy, id: u64) -> Value {
    let mut last = Value::Null;
    let over = eventually(Duration::from_secs(300), || {
        last = job(proxy, id);
        !["running", "paused", "cancelling"].contains(&last["state"].as_str().unwrap())
    });
    assert!(over, "{last:#}\n{}", proxy.stderr());
    last
}

//! Circles of real servers behind one proxy, a writer that knows what was acknowledged, and what an operator does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::{Influxd, query};
use fluxgate::lab::proxy::{Proxy, ProxyConfig, backend_name, eventually};
use serde_json::{Value, json};

pub const DB: &str = "db";
pub const MEASUREMENTS: u64 = 12;
/// Some years, so that there are several shard groups.
const FIRST_NS: u64 = 1_500_000_000_000_000_000;
/// Small, so that few shards are created. InfluxDB 1.6 loses sight of acknowledged points (until it is restarted) when
/// two requests create the same shard at the same moment: seen twice in 600 such moments with two plain clients.
const STEP_NS: u64 = 300_000_000_000;

/// Measurement and time of a point; its value is its number.
pub type Points = BTreeMap<(String, u64), u64>;

/// Circles of servers behind one proxy.
pub struct Cluster {
    pub servers: Vec<Vec<Influxd>>,
    pub proxy: Proxy,
    pub acked: Arc<Mutex<Points>>,
}

pub fn urls(servers: &[Vec<Influxd>]) -> Vec<Vec<String>> {
    servers.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect()
}

pub fn config(circles: &[Vec<String>]) -> ProxyConfig {
    // Two workers, so that points of one measurement lie in two logs. Backends that are down are asked again after a
    // second. With other proxies, a clear waits for `query_timeout` after the end of a transition.
    let config = ProxyConfig::new(circles).set("workers", 2).set("rewrite_interval", 1);
    config.set("write_timeout", 5).set("query_timeout", 10)
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

/// A writer, and perhaps a reader, that run until they are stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<()>,
    /// The number of answers, and the errors of the queries that got none.
    reader: Option<JoinHandle<(u64, Vec<String>)>>,
}

impl Traffic {
    /// Every query was answered.
    pub fn stop(self) {
        if let Some((answers, failures)) = self.ended() {
            assert!(failures.is_empty(), "{failures:?}");
            assert!(answers > 0);
        }
    }

    /// Every query was answered, but for those that found no proxy while it was down.
    pub fn stop_after_restart(self) {
        if let Some((answers, failures)) = self.ended() {
            assert!(failures.iter().all(|failure| !failure.starts_with("SELECT")), "{failures:?}");
            assert!(answers > 0);
        }
    }

    fn ended(self) -> Option<(u64, Vec<String>)> {
        // So that queries see the last change, too.
        thread::sleep(Duration::from_millis(500));
        self.stop.store(true, Relaxed);
        self.writer.join().unwrap();
        self.reader.map(|reader| reader.join().unwrap())
    }
}

/// Writes through `proxy`, beginning with point number `first`. With `queries`, a reader checks all the time that no
/// query misses a point that was there at the beginning.
pub fn traffic(proxy: &Proxy, acked: &Arc<Mutex<Points>>, first: u64, queries: bool) -> Traffic {
    let stop = Arc::new(AtomicBool::new(false));
    let before = acked.lock().unwrap().clone();
    let (addr, acked, stopped) = (proxy.addr(), Arc::clone(acked), Arc::clone(&stop));
    let writer = thread::spawn(move || {
        for first in (first..).step_by(20) {
            if stopped.load(Relaxed) {
                return;
            }
            // The proxy may just be starting again.
            if let Ok(mut client) = Client::connect(addr) {
                write(&mut client, &acked, first..first + 20);
            }
            thread::sleep(Duration::from_millis(25));
        }
    });
    let (url, stopped) = (proxy.url(), Arc::clone(&stop));
    let reader = queries.then(|| thread::spawn(move || watch(&url, &before, &stopped)));
    Traffic { stop, writer, reader }
}

/// Asks for one measurement after the other, and now and then for all together.
fn watch(url: &str, before: &Points, stopped: &AtomicBool) -> (u64, Vec<String>) {
    let mut want = BTreeMap::<&str, u64>::new();
    before.keys().for_each(|(name, _)| *want.entry(name).or_default() += 1);
    let (mut answers, mut failures) = (0, Vec::new());
    let sources: Vec<_> = want.keys().map(ToString::to_string).chain(["/^m/".to_owned()]).collect();
    for source in sources.iter().cycle() {
        if stopped.load(Relaxed) {
            break;
        }
        let answer = match query(url, DB, &format!("SELECT count(n) FROM {source}")) {
            Ok(answer) => answer,
            Err(error) => {
                failures.push(error.to_string());
                thread::sleep(Duration::from_millis(20));
                continue;
            }
        };
        answers += 1;
        // The CPU time is for the servers.
        thread::sleep(Duration::from_millis(10));
        let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
        let seen: BTreeMap<_, _> =
            series.iter().map(|s| (s["name"].as_str().unwrap(), s["values"][0][1].as_u64().unwrap())).collect();
        for (name, want) in want.iter().filter(|(name, _)| source.starts_with('/') || source == *name) {
            let seen = seen.get(name).unwrap_or(&0);
            assert!(seen >= want, "{seen} of {want} points of {name} are seen by {source}");
        }
    }
    (answers, failures)
}

impl Cluster {
    /// Circles of so many servers each.
    pub fn start(circles: &[usize]) -> Self {
        let servers: Vec<Vec<_>> = circles.iter().map(|&size| Influxd::start_several(size).unwrap()).collect();
        servers.iter().flatten().for_each(|server| server.create_database(DB).unwrap());
        let proxy = crate::support::start(&config(&urls(&servers)));
        Self { servers, proxy, acked: Arc::default() }
    }

    /// Points with these numbers, delivered everywhere.
    pub fn fill(&self, numbers: std::ops::Range<u64>) {
        let mut client = Client::connect(self.proxy.addr()).unwrap();
        for first in numbers.clone().step_by(500) {
            write(&mut client, &self.acked, first..(first + 500).min(numbers.end));
        }
        drained(&self.proxy);
    }

    /// As [`traffic`], through this cluster's proxy.
    pub fn traffic(&self, first: u64, queries: bool) -> Traffic {
        traffic(&self.proxy, &self.acked, first, queries)
    }

    /// Starts the proxy again with an empty server more in the first circle.
    pub fn restart_with_one_more(&mut self) {
        self.servers[0].push(Influxd::start().unwrap());
        self.restart_with(&urls(&self.servers));
    }

    /// Starts the proxy again, with other circles.
    pub fn restart_with(&mut self, circles: &[Vec<String>]) {
        restart_with(&mut self.proxy, circles);
    }

    /// Begins a migration; returns its number.
    pub fn begin(&self, target: &str, body: &str) -> u64 {
        begin(&self.proxy, target, body)
    }

    /// Runs a migration, which must succeed.
    pub fn complete(&self, target: &str, body: &str) -> Value {
        let job = self.wait(self.begin(target, body));
        assert_eq!(job["state"], "done", "{target}: {job:#}\n{}", self.proxy.stderr());
        job
    }

    pub fn wait(&self, id: u64) -> Value {
        wait(&self.proxy, id)
    }

    /// Every circle holds what was acknowledged, each measurement at its owner; with `alone`, nowhere else.
    pub fn check(&self, alone: bool) {
        drained(&self.proxy);
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
                        // A delivered point may be seen by queries only a moment later.
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

/// All that was acknowledged is delivered.
pub fn drained(proxy: &Proxy) {
    proxy.drained(Duration::from_secs(60)).unwrap();
}

/// Starts a proxy again, with other circles.
pub fn restart_with(proxy: &mut Proxy, circles: &[Vec<String>]) {
    let backend = |c: usize, b: usize, url: &String| json!({"name": backend_name(c, b), "url": url});
    let circle = |(c, urls): (usize, &Vec<String>)| {
        let backends: Vec<_> = urls.iter().enumerate().map(|(b, url)| backend(c, b, url)).collect();
        json!({"name": format!("circle-{}", c + 1), "backends": backends})
    };
    let circles: Value = circles.iter().enumerate().map(circle).collect();
    restart_changed(proxy, |file| file["circles"] = circles);
}

/// Stops a proxy as an operator does, changes its configuration, and starts it again.
pub fn restart_changed(proxy: &mut Proxy, change: impl FnOnce(&mut Value)) {
    assert!(proxy.terminate(Duration::from_secs(20)).unwrap().success(), "{}", proxy.stderr());
    let path = proxy.config_file();
    let mut file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut file);
    std::fs::write(&path, file.to_string()).unwrap();
    proxy.restart().unwrap();
}

/// The backends of a circle in a configuration.
pub fn backends_of(file: &mut Value, circle: usize) -> &mut Vec<Value> {
    file["circles"][circle]["backends"].as_array_mut().unwrap()
}

/// No migration runs, and no circle is in transition.
pub fn at_rest(proxy: &Proxy) {
    let (_, state) = proxy.get("/migrate/state").unwrap();
    assert!(!state.contains("true"), "{state}");
    let saved = std::fs::read_to_string(proxy.data_dir().join("circles.json")).unwrap();
    let saved: Value = serde_json::from_str(&saved).unwrap();
    assert!(saved["circles"].as_array().unwrap().iter().all(|circle| circle["former"].is_null()), "{saved:#}");
}

/// Status and body of the answer to a POST.
pub fn post(proxy: &Proxy, target: &str, body: &str) -> (u16, String) {
    let mut client = Client::connect(proxy.addr()).unwrap();
    let reply = client.request("POST", target, &["Content-Type: application/json"], body.as_bytes()).unwrap();
    (reply.status, reply.text())
}

/// Writes these lines to one server, past the proxy.
pub fn write_to(server: &Influxd, lines: &str) {
    let answer = ureq::post(format!("{}/write?db={DB}", server.url())).send(lines).unwrap();
    assert_eq!(answer.status(), 204);
}

/// Times and values of a measurement's points on one server.
pub fn points(server: &Influxd, measurement: &str) -> BTreeSet<(u64, u64)> {
    let q = format!("SELECT n FROM {measurement}");
    let form = [("db", DB), ("q", &q[..]), ("epoch", "ns")];
    let answer = ureq::post(format!("{}/query", server.url())).send_form(form).unwrap();
    let answer: Value = serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap();
    let rows = answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default();
    rows.iter().map(|row| (row[0].as_u64().unwrap(), row[1].as_u64().unwrap())).collect()
}

pub fn begin(proxy: &Proxy, target: &str, body: &str) -> u64 {
    assert_eq!(post(proxy, target, body), (202, "accepted\n".to_owned()), "{target}");
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

//! Promise: while measurements are marked as moved one by one and the transition ends, under writes, no query misses a
//! point that was confirmed before the query was sent. The proxy runs inside this test, so that the test can do to it
//! what a migration would do.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use fluxgate::config;
use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::{Influxd, query};
use fluxgate::lab::proxy::eventually;
use fluxgate_control::transition::Transitions;
use fluxgate_control::{Control, ControlSettings, Dialect};
use fluxgate_dataplane::handoff::WorkerEnd;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::serve::run::{self, Feeds, Start};
use fluxgate_dataplane::settings::Settings;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::{handoff, io};
use serde_json::{Value, json};

use crate::cluster::write_to;

const PATIENCE: Duration = Duration::from_secs(60);
const MEASUREMENTS: usize = 12;

/// A proxy inside this test: workers and control thread, as `serve` starts them.
struct ProxyInProcess {
    addr: SocketAddr,
    transitions: Transitions,
    control: Control,
    workers: Vec<thread::JoinHandle<()>>,
}

impl ProxyInProcess {
    fn start(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let file = Transitions::file_in(&settings.data_dir);
        let transitions = Transitions::open(&file, &settings.topology, &settings.placement).unwrap();
        let (backends, circles) = (settings.topology.backends.len(), settings.topology.circles.len());
        let stats = Arc::new(Stats::new(settings.workers, backends, circles));
        let (_port, sockets) = io::bind(settings.listen, settings.workers).unwrap();
        let addr = sockets[0].local_addr().unwrap().as_socket().unwrap();
        let (control_end, ends) = handoff::pair(settings.workers).unwrap();
        let bells: Vec<_> = ends.iter().map(WorkerEnd::bell).collect();
        let feeds = Arc::new(Feeds::new(&[], backends, &bells, UNIX_EPOCH.elapsed().unwrap()));
        let start = |(id, (socket, end))| {
            let start = Start {
                id,
                settings: settings.clone(),
                placement: transitions.placement(),
                socket,
                udp_sockets: Vec::new(),
                end,
                stats: stats.clone(),
                connections_max: 1000,
                backlog_max_bytes: 1 << 30,
                feeds: feeds.clone(),
                cache_files: Vec::new(),
            };
            let handle = io::executor(&format!("worker-{id}"), None, move || run::run(start)).unwrap();
            thread::spawn(move || drop(handle.join().unwrap().unwrap_or_else(|e| panic!("{e}"))))
        };
        let workers = sockets.into_iter().zip(ends).enumerate().map(start).collect();
        let control_settings = ControlSettings {
            topology: settings.topology.clone(),
            order: feeds.order.clone(),
            transitions: transitions.clone(),
            credentials: settings.credentials.clone(),
            check_interval: settings.check_interval,
            query: settings.query.clone(),
            trust: settings.trust.clone(),
            dialect: Dialect::Older,
            pprof_enabled: false,
            hot_tail_bytes: settings.hot_tail_bytes,
            data_dir: settings.data_dir.clone(),
            mlog_dir: settings.data_dir.join("log"),
            former_backends: Vec::new(),
            peers: Vec::new(),
        };
        let control = Control::start(control_settings, control_end, stats.clone()).unwrap();
        assert!(eventually(PATIENCE, || stats.workers.iter().all(|worker| worker.ready.load(Relaxed))));
        Self { addr, transitions, control, workers }
    }

    fn stop(self) {
        assert!(self.control.shutdown_workers());
        self.workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert!(self.control.stop());
    }
}

fn settings(dir: &Path, backends: &Value) -> Settings {
    let file = json!({
        "circles": [{"name": "c", "backends": backends}], "listen_addr": "127.0.0.1:0", "workers": 2,
        "check_interval": 1, "data_dir": dir.join("data"), "rewrite_interval": 1,
    });
    config::parse(Path::new("proxy.json"), &file.to_string()).unwrap().data
}

fn count(answer: &Value) -> u64 {
    answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
}

#[test]
fn no_query_misses_a_confirmed_point_while_data_is_moved() {
    let servers: Vec<_> = (0..3).map(|_| Influxd::start().unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    servers.iter().for_each(|server| server.create_database("db").unwrap());
    let backend = |i: usize| json!({"name": format!("b{i}"), "url": servers[i].url()});
    let leaving = json!({"name": "b1", "url": servers[1].url(), "leaving": true});
    let before = settings(dir.path(), &json!([backend(0), backend(1)]));
    std::fs::create_dir(&before.data_dir).unwrap();
    Transitions::open(&Transitions::file_in(&before.data_dir), &before.topology, &before.placement).unwrap();
    // One backend is added and one is removed.
    let proxy = ProxyInProcess::start(settings(dir.path(), &json!([backend(0), leaving, backend(2)])));
    let (addr, url) = (proxy.addr, format!("http://{}", proxy.addr));

    // Points from before the transition, on the former owners only.
    let placement = proxy.transitions.placement();
    for i in 0..MEASUREMENTS {
        let server = &servers[placement.reader(0, Place::new("db", &*format!("m{i}")).bytes()).index()];
        write_to(server, &format!("m{i} v=0 0"));
    }

    let stop = Arc::new(AtomicBool::new(false));
    let confirmed: Arc<Vec<AtomicU64>> = Arc::new((0..MEASUREMENTS).map(|_| AtomicU64::new(0)).collect());
    let writer = {
        let (stop, confirmed) = (stop.clone(), confirmed.clone());
        thread::spawn(move || {
            // Connections of both workers, most likely.
            let mut clients: Vec<_> = (0..6).map(|_| Client::connect(addr).unwrap()).collect();
            let mut n = 0;
            while !stop.load(SeqCst) {
                n += 1;
                let lines: String = (0..MEASUREMENTS).map(|i| format!("m{i} v={n} {n}\n")).collect();
                let client = &mut clients[n as usize % 6];
                let reply = client.request("POST", "/write?db=db&consistency=all", &[], lines.as_bytes()).unwrap();
                assert_eq!(reply.status, 204, "{}", reply.text());
                confirmed.iter().for_each(|count| count.store(n, SeqCst));
            }
        })
    };
    let readers: Vec<_> = [false, true]
        .into_iter()
        .map(|by_regex| {
            let (stop, confirmed, url) = (stop.clone(), confirmed.clone(), url.clone());
            thread::spawn(move || {
                let mut asked = 0u64;
                while !stop.load(SeqCst) {
                    let i = asked as usize % MEASUREMENTS;
                    asked += 1;
                    let least = confirmed[i].load(SeqCst);
                    let source = if by_regex { format!("/^m{i}$/") } else { format!("m{i}") };
                    let answer = query(&url, "db", &format!("SELECT count(v) FROM {source}")).unwrap();
                    assert!(count(&answer) > least, "m{i} by {source}: {least} were confirmed, {answer}");
                }
                asked
            })
        })
        .collect();
    assert!(eventually(PATIENCE, || confirmed[0].load(SeqCst) > 20));

    let mut moved = BTreeSet::new();
    for i in 0..MEASUREMENTS {
        let name = format!("m{i}");
        let place = Place::new(&b"db"[..], name.as_bytes());
        let Some(former) = placement.former(0, place) else { continue };
        let owner = placement.owner(0, place);
        let answer = servers[former.index()].query("db", &format!("SELECT v FROM {name}")).unwrap();
        let rows = answer["results"][0]["series"][0]["values"].as_array().unwrap().clone();
        // The n-th point has the value and the time n.
        let lines: String = rows.iter().map(|row| format!("{name} v={0} {0}\n", row[1])).collect();
        write_to(&servers[owner.index()], &lines);
        proxy.transitions.mark_moved(0, &[Place::new("db", &*name).owned()]).unwrap();
        moved.insert((name, former));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(moved.iter().any(|(_, former)| former.index() == 1), "{moved:?}");
    proxy.transitions.end(0, false).unwrap();
    assert_eq!(proxy.transitions.of(0), None);
    let at_end = confirmed[0].load(SeqCst);
    assert!(eventually(PATIENCE, || confirmed[0].load(SeqCst) > at_end + 20));
    stop.store(true, SeqCst);
    writer.join().unwrap();
    for reader in readers {
        assert!(reader.join().unwrap() > 20);
    }
    // Former owners get no more writes and no more queries.
    let all = confirmed[0].load(SeqCst);
    for (name, former) in &moved {
        let there = count(&servers[former.index()].query("db", &format!("SELECT count(v) FROM {name}")).unwrap());
        assert!(there < all && there + 22 > at_end, "{name}: {there} of {all}, {at_end} at the end");
    }
    proxy.stop();
}

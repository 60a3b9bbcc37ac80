//! Promise: a point that is overwritten while it is being copied has its newest acknowledged value on every circle in
//! the end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, backend_name, eventually};
use serde_json::json;

use crate::cluster::{Cluster, DB, config, drained, job, line_of, points, urls};

/// Writes these points again, each with another value, and notes what was acknowledged. Each point once: a second write
/// would hide that a copy had undone the first one.
struct Overwriting {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Overwriting {
    /// Two writers, each with points of its own.
    fn begin(cluster: &Cluster, numbers: std::ops::Range<u64>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let middle = u64::midpoint(numbers.start, numbers.end);
        let writer = |numbers: std::ops::Range<u64>| {
            let (addr, acked, stop) = (cluster.proxy.addr(), Arc::clone(&cluster.acked), Arc::clone(&stop));
            thread::spawn(move || {
                let mut client = Client::connect(addr).unwrap();
                for number in numbers.clone().step_by(10).take_while(|_| !stop.load(Relaxed)) {
                    let (numbers, value) = (number..(number + 10).min(numbers.end), 1_000_000 + number);
                    overwrite(&mut client, numbers.clone(), value);
                    acked.lock().unwrap().extend(numbers.map(|number| (line_of(number, value).0, value)));
                    thread::sleep(Duration::from_millis(50));
                }
            })
        };
        let threads = vec![writer(numbers.start..middle), writer(middle..numbers.end)];
        Self { stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// With the circles of now.
fn restart(cluster: &mut Cluster) {
    cluster.restart_with(&urls(&cluster.servers));
}

fn overwrite(client: &mut Client, numbers: std::ops::Range<u64>, value: u64) {
    let text: String = numbers.map(|number| line_of(number, value).1).collect();
    let reply = client.write(DB, &text).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

#[test]
fn a_rebalance_while_points_are_overwritten_keeps_the_newest_values() {
    let mut cluster = Cluster::start(&[2, 1]);
    cluster.fill(0..3000);
    cluster.servers[0].push(Influxd::start().unwrap());
    restart(&mut cluster);
    let overwriting = Overwriting::begin(&cluster, 0..3000);
    // Slow, so that much happens between reading and writing.
    let job = cluster.complete("/rebalance?circle_id=0&operation=add&cpus=2&rate=8000", "");
    assert!(job["tasks"]["done"].as_u64().unwrap() > 0, "{job:#}");
    overwriting.end();
    cluster.check(false);
}

#[test]
fn a_recovery_while_points_are_overwritten_keeps_the_newest_values() {
    let cluster = Cluster::start(&[2, 2]);
    cluster.fill(0..3000);
    cluster.servers[1][0].query("", &format!("DROP DATABASE {DB}")).unwrap();
    let overwriting = Overwriting::begin(&cluster, 0..3000);
    cluster.complete("/recovery?from_circle_id=0&to_circle_id=1&rate=15000", "");
    overwriting.end();
    cluster.check(false);
}

/// Its data is older than what has been written since it left.
#[test]
fn a_backend_that_was_removed_does_not_bring_older_values_back() {
    let mut cluster = Cluster::start(&[3, 1]);
    cluster.fill(0..3000);
    let gone = cluster.servers[0].pop().unwrap();
    restart(&mut cluster);
    let mut client = Client::connect(cluster.proxy.addr()).unwrap();
    overwrite(&mut client, 1000..1400, 900_000);
    cluster.acked.lock().unwrap().extend((1000..1400).map(|number| (line_of(number, 0).0, 900_000)));
    drained(&cluster.proxy);
    let overwriting = Overwriting::begin(&cluster, 1200..1400);
    let body = json!({"backends": [{"name": "influxdb-1-3", "url": gone.url(), "username": "", "password": ""}]});
    cluster.complete("/rebalance?circle_id=0&operation=rm", &body.to_string());
    overwriting.end();
    cluster.check(false);
}

/// A relay in front of a server. It closes every connection until it is opened.
fn door(server: SocketAddr) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if !is_open.load(Relaxed) {
                continue;
            }
            let server = TcpStream::connect(server).unwrap();
            let (client, server) = (Arc::new(client), Arc::new(server));
            for (from, to) in [(Arc::clone(&client), Arc::clone(&server)), (server, client)] {
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = (&*from).read(&mut buffer) {
                        if (&*to).write_all(&buffer[..read]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    (url, open)
}

#[test]
fn what_another_proxy_has_not_delivered_to_the_source_is_waited_for() {
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..120);
    // The other proxy does not reach the source, only the target.
    let (url, open) = door(cluster.servers[0][0].addr());
    let other: Proxy = crate::support::start(&config(&[vec![url], vec![cluster.servers[1][0].url()]]));
    let at = |circle: usize, value: u64| {
        (0..12).flat_map(|n| points(&cluster.servers[circle][0], &format!("m{n}"))).filter(|(_, n)| *n == value).count()
    };
    overwrite(&mut Client::connect(other.addr()).unwrap(), 0..120, 7_000);
    assert!(eventually(Duration::from_secs(20), || at(1, 7_000) == 120), "{:?}", other.ledger());
    assert_eq!(at(0, 7_000), 0);

    let addrs = format!("ha_addrs={},{}", cluster.proxy.addr(), other.addr());
    let id = cluster.begin(&format!("/recovery?from_circle_id=0&to_circle_id=1&{addrs}"), "");
    let waits = format!("delivered to {}", backend_name(0, 0));
    let shown = || job(&cluster.proxy, id)["doing"].as_str().unwrap().contains(&waits);
    assert!(eventually(Duration::from_secs(20), shown), "{:#}", job(&cluster.proxy, id));
    open.store(true, Relaxed);
    let job = cluster.wait(id);
    assert_eq!(job["state"], "done", "{job:#}");
    drained(&other);
    assert_eq!([at(0, 7_000), at(1, 7_000)], [120, 120]);
}

//! Promise: backends that accept connections and never answer stop neither writes nor `/health` nor `/ping`.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::circles::{Circles, DB, Points, balanced};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};

const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Accepts everything and answers nothing, until the program ends.
fn mute_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().collect::<Vec<std::io::Result<TcpStream>>>());
    addr
}

fn assert_quick(proxy: &Proxy, target: &str, status: u16) {
    let begun = Instant::now();
    let reply = Client::connect(proxy.addr()).unwrap().get(target).unwrap();
    assert_eq!(reply.status, status, "{target}: {}", reply.text());
    assert!(begun.elapsed() < ANSWER_MAX, "{target} took {:?}", begun.elapsed());
}

#[test]
fn a_mute_backend_delays_no_endpoint_and_no_write() {
    let circles = Circles::new(1, 1);
    let mute = format!("http://{}", mute_server());
    let begun = Instant::now();
    let proxy = start(&ProxyConfig::new(&[vec![circles.0[0][0].url()], vec![mute]]));
    assert!(begun.elapsed() < Duration::from_secs(10), "the start took {:?}", begun.elapsed());
    let mut points = Points::default();
    for _ in 0..3 {
        let args = LoadArgs { points: Some(1_000), rate: 2_000, ..points.args(&proxy) };
        let summary = points.load(&args, || {
            for target in ["/health", "/ledger", &format!("/replica?db={DB}&meas=cpu")] {
                assert_quick(&proxy, target, 200);
            }
            assert_quick(&proxy, "/ping", 204);
        });
        assert!(summary.succeeded(), "{summary}");
        assert!(Duration::from_micros(summary.counts.latency_us.max()) < ANSWER_MAX, "{summary}");
    }
    let health = proxy.health().unwrap();
    assert!(health[0].backends[0].active && !health[1].backends[0].active, "{health:?}");
    let ledger = balanced(&proxy);
    assert_eq!((ledger.totals.accepted, ledger.backend("influxdb-2-1").queued), (6_000, 3_000), "{ledger:?}");
    // A database that nobody is known to have costs one question to the backends, which one of them does not answer.
    let begun = Instant::now();
    let reply = Client::connect(proxy.addr()).unwrap().write("unknown", "m v=1 1\n").unwrap();
    assert!([204, 404].contains(&reply.status), "{}", reply.text());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

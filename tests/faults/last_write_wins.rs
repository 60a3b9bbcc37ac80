//! Promise: a point that is written again, over a connection that another worker serves, is not replaced by its older
//! value when a backlog is delivered.

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};

use crate::support::start;

/// Workers are told apart by the clock sequence of the request ids they make (the fourth group of a version 1 UUID).
fn worker_of(client: &mut Client) -> String {
    let reply = client.get("/ping").unwrap();
    reply.header("Request-Id").unwrap().split('-').nth(3).unwrap().to_owned()
}

fn connection(proxy: &Proxy, worker: impl Fn(&str) -> bool) -> Client {
    let mut found = None;
    // A worker whose log is not open yet takes no connections.
    assert!(eventually(Duration::from_secs(30), || {
        let mut client = Client::connect(proxy.addr()).unwrap();
        let wanted = worker(&worker_of(&mut client));
        found = wanted.then_some(client);
        wanted
    }));
    found.expect("just found")
}

#[test]
fn a_backlog_of_one_worker_does_not_overwrite_what_another_took_later() {
    let mut server = Influxd::start().unwrap();
    server.create_database("db").unwrap();
    // Two workers, so that each has a log of its own.
    let config = ProxyConfig::new(&[vec![server.url()]]).set("workers", 2).set("rewrite_interval", 1);
    let proxy = start(&config);

    let mut first = connection(&proxy, |_| true);
    let one = worker_of(&mut first);
    let mut second = connection(&proxy, |worker| worker != one);
    assert!(first.write("db", "m v=0i 1\n").unwrap().status == 204);
    proxy.drained(Duration::from_secs(30)).unwrap();

    server.kill();
    // Enough for the first worker's backlog to take many windows, with the old value at its end.
    for batch in 0..60 {
        let lines: String = (0..1000).map(|i| format!("filler n={i}i {}\n", batch * 1000 + i)).collect();
        assert_eq!(first.write("db", &lines).unwrap().status, 204);
    }
    assert_eq!(first.write("db", "m v=1i 1\n").unwrap().status, 204);
    assert_eq!(second.write("db", "m v=2i 1\n").unwrap().status, 204);
    server.restart().unwrap();

    let ledger = proxy.drained(Duration::from_secs(60)).unwrap();
    assert!(ledger.proven_balanced(), "{ledger:?}");
    let answer = server.query("db", "SELECT v FROM m").unwrap();
    assert_eq!(answer["results"][0]["series"][0]["values"][0][1], 2, "{answer}");
}

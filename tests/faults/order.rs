//! Promise: an old value never replaces a newer one, whatever happens to the backend or the proxy meanwhile.

use std::time::Duration;

use crate::circles::{DB, drained};
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
    // One worker: two connections of different workers have no order between them.
    let mut proxy =
        start(&ProxyConfig::new(&urls).set("workers", 1).set("write_timeout", 2).set("rewrite_interval", 1));
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

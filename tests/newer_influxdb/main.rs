//! Promise: clients of InfluxDB 2 and 3 write through the proxy as they would to their own server: what is acknowledged
//! reaches the servers behind, and what is refused is told in their words.
//!
//! Here the requests themselves, byte by byte.

#[path = "../support/mod.rs"]
mod support;

mod flux;
mod version_2;
mod version_3;

use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};
use serde_json::Value;

/// One real server with the database `db` and its policy `week`, and the proxy in front of it.
struct Influx {
    server: Influxd,
    proxy: Proxy,
}

impl Influx {
    fn start(keys: &[(&str, Value)]) -> Self {
        let server = Influxd::start().unwrap();
        server.create_database("db").unwrap();
        server.query("", "CREATE RETENTION POLICY week ON db DURATION INF REPLICATION 1").unwrap();
        let config = ProxyConfig::new(&[vec![server.url()]]).set_all(keys.iter().cloned());
        Self { proxy: support::start(&config), server }
    }

    fn post(&self, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        Client::connect(self.proxy.addr()).unwrap().request("POST", target, headers, body).unwrap()
    }

    /// The same request in a body that arrives in chunks.
    fn post_chunked(&self, target: &str, body: &[u8]) -> Reply {
        let chunks =
            body.chunks(100_000).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
        let body = chunks.collect::<Vec<_>>().concat();
        let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut client = Client::connect(self.proxy.addr()).unwrap();
        // The proxy may answer and close before it has read all.
        _ = client.send(&[head.as_bytes(), &body, b"0\r\n\r\n"].concat());
        client.receive().unwrap().unwrap()
    }

    /// Times and values of the field `v` of a measurement, once everything has been delivered.
    fn stored(&self, measurement: &str) -> Value {
        self.proxy.drained(Duration::from_secs(20)).unwrap();
        let answer = self.server.query("db", &format!("SELECT v FROM {measurement}")).unwrap();
        answer["results"][0]["series"][0]["values"].clone()
    }
}

/// A JSON body.
fn json_of(reply: &Reply) -> Value {
    assert_eq!(reply.header("Content-Type"), Some("application/json"), "{}", reply.text());
    serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}: {}", reply.text()))
}

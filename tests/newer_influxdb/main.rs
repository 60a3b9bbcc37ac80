//! Promise: clients of InfluxDB 2 write through the proxy as they would to their own server: what is acknowledged
//! reaches the servers behind, and what is refused is told in their words.
//!
//! Here the requests themselves, byte by byte.

#[path = "../support/mod.rs"]
mod support;

mod flux;
mod version_2;

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

    /// Times and values of the field `v` of a measurement, once everything has been delivered.
    fn stored(&self, measurement: &str) -> Value {
        self.proxy.drained(Duration::from_secs(20)).unwrap();
        let answer = self.server.query("db", &format!("SELECT v FROM {measurement}")).unwrap();
        answer["results"][0]["series"][0]["values"].clone()
    }
}

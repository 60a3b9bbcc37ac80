//! The oracle and the cluster: one influxd, and five behind the real binary, with the same data.

use std::net::SocketAddr;
use std::time::Duration;

use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use serde_json::Value;

use crate::data;
use crate::pair::Pair;

/// Backends of each circle.
pub const CIRCLES: [usize; 2] = [2, 3];
/// What is queued must be delivered within this. Long, since the machine is busy with other tests.
pub const DRAIN: Duration = Duration::from_secs(180);

pub struct OracleAndCluster {
    pub oracle: Influxd,
    pub circles: Vec<Vec<Influxd>>,
    pub proxy: Proxy,
    pub pair: Pair,
    /// Points that the backends refuse because a test wants it.
    pub refused: u64,
}

impl OracleAndCluster {
    /// Starts everything and gives both sides the data.
    pub fn start(big: bool) -> Self {
        let oracle = Influxd::start().unwrap();
        let circle = |backends: &usize| Influxd::start_several(*backends).unwrap();
        let circles: Vec<Vec<Influxd>> = CIRCLES.iter().map(circle).collect();
        let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
        // Backends are stopped and come back.
        let proxy = crate::support::start(&ProxyConfig::new(&urls).set("rewrite_interval", 1));
        let pair = Pair::new(oracle.addr(), proxy.addr());
        let mut world = Self { oracle, circles, proxy, pair, refused: 0 };
        world.pair.give(data::DECLARATIONS, &data::batches());
        if big {
            world.pair.give(data::DECLARATIONS_BIG, &data::batches_big());
        }
        world.drain();
        world
    }

    /// Address of the proxy.
    pub fn cluster(&self) -> SocketAddr {
        self.proxy.addr()
    }

    /// Waits until the ledger says that nothing is queued. Panics if points were lost on the way.
    pub fn drain(&self) {
        let totals = self.proxy.drained(DRAIN).unwrap().totals;
        assert_eq!((totals.rejected, totals.dropped), (self.refused, 0), "the data is sound\n{}", self.proxy.stderr());
    }

    /// Waits until the proxy has seen that all backends answer.
    pub fn wait_until_all_are_seen(&self) {
        let seen = || {
            let health = self.proxy.health();
            health.is_ok_and(|circles| circles.iter().flat_map(|circle| &circle.backends).all(|backend| backend.active))
        };
        assert!(eventually(DRAIN, seen), "{:?}\n{}", self.proxy.health(), self.proxy.stderr());
    }

    /// Names of the backends that hold this measurement, one for each circle.
    pub fn owners(&self, db: &str, measurement: &str) -> Vec<String> {
        let target = format!("/replica?db={}&meas={}", url_encoded(db), url_encoded(measurement));
        let (status, text) = self.proxy.get(&target).unwrap();
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let names = answer.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned());
        names.collect()
    }
}

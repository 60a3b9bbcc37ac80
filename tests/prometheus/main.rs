//! Promise: Prometheus' remote write and remote read through the proxy are those of InfluxDB 1.x: the same requests get
//! the same answers from one plain influxd and through the proxy, and then the same points are found.

#[path = "../support/mod.rs"]
mod support;

mod messages;
mod reads;
mod real;
mod writes;

use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};

/// One plain server, and the proxy before two circles of others, two each.
struct Both {
    plain: Influxd,
    circles: Vec<Vec<Influxd>>,
    proxy: Proxy,
}

impl Both {
    fn start() -> Self {
        Self::of(2)
    }

    /// With as many backends in each circle.
    fn of(backends: usize) -> Self {
        let plain = Influxd::start().unwrap();
        let circle = || (0..backends).map(|_| Influxd::start().unwrap()).collect();
        let circles: Vec<Vec<Influxd>> = (0..2).map(|_| circle()).collect();
        let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
        Self { plain, circles, proxy: support::start(&ProxyConfig::new(&urls)) }
    }

    /// The answers of the plain server and of the proxy.
    fn post(&self, target: &str, headers: &[&str], body: &[u8]) -> [Reply; 2] {
        [self.plain.addr(), self.proxy.addr()]
            .map(|addr| Client::connect(addr).unwrap().request("POST", target, headers, body).unwrap())
    }

    /// Runs a statement on both, with the same answer, which is returned.
    fn query(&self, db: &str, statement: &str) -> String {
        let target = format!("/query?epoch=ns&db={}&q={}", url_encoded(db), url_encoded(statement));
        let [plain, proxy] = self.post(&target, &[], b"").map(|reply| reply.text());
        assert_eq!(plain, proxy, "{db}: {statement}");
        plain
    }

    /// Everything in a database, the same on both and on each circle.
    fn contents(&self, db: &str) -> String {
        self.proxy.drained(Duration::from_secs(30)).unwrap();
        let all = self.query(db, "SELECT * FROM /.*/ GROUP BY *");
        let count = |server: &Influxd| {
            let answer = server.query(db, "SELECT count(value) FROM /.*/").unwrap();
            let series = answer["results"][0]["series"].as_array().cloned().unwrap_or_default();
            series.iter().map(|series| series["values"][0][1].as_u64().unwrap()).sum::<u64>()
        };
        let want = count(&self.plain);
        for circle in &self.circles {
            assert_eq!(circle.iter().map(count).sum::<u64>(), want, "{db}");
        }
        all
    }
}

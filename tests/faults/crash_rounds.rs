//! Rounds of crashes (`make crash`), for [`crate::kill_nine`]: the real program, real InfluxDB servers, a load that
//! never pauses, and after each round the count of what the clients had acknowledged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Ledger, LedgerTotals, Proxy, ProxyConfig};
use fluxgate::lab::serials::Serials;

use crate::circles::{DB, Points, drained, missing};
use crate::support::start;

/// A point that a round does not come to within this is given up: the proxy is killed as it is.
const ARMED: Duration = Duration::from_secs(4);

/// What a round does.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Where the proxy ends, and when it comes there for the how-manieth time. None: at a random moment.
    pub at: Option<(&'static str, u64)>,
    pub durability: &'static str,
    /// Workers before and after the crash.
    pub workers: (u64, u64),
    /// This server is down until the proxy has been started again.
    pub down: Option<usize>,
    /// The moment, of rounds without a point.
    pub after: Duration,
}

/// A proxy before two circles, one of three servers and one of one.
pub struct CrashRounds {
    servers: Vec<Influxd>,
    proxy: Proxy,
    points: Points,
    /// Points found on each server, over all rounds.
    held: Vec<Serials>,
    /// Lines of the wrong type: acknowledged, and sent.
    refused: (u64, u64),
    workers: u64,
    /// Rounds that ended at a point, by its name.
    pub reached: BTreeMap<&'static str, u32>,
}

impl CrashRounds {
    pub fn new() -> Self {
        let servers: Vec<_> = (0..4).map(|_| Influxd::start().unwrap()).collect();
        let first = format!("typed v=1i,n=0i {}", now_ns());
        for server in &servers {
            // One shard, which exists from now on: InfluxDB may lose points of two requests that are the first in one.
            server.query("", &format!("CREATE DATABASE {DB} WITH SHARD DURATION 5200w")).unwrap();
            assert_eq!(Client::connect(server.addr()).unwrap().write(DB, &first).unwrap().status, 204);
        }
        let url = |index: usize| servers[index].url();
        // Segments of 2 MiB, so that they are let go of and compacted within seconds.
        let config = ProxyConfig::new(&[vec![url(0), url(1), url(2)], vec![url(3)]])
            .set_all([("workers", 2), ("rewrite_interval", 1), ("backlog_max_bytes", 32 << 20)].map(value))
            .set("hot_tail_bytes", 4 << 20);
        let proxy = start(&config);
        Self {
            proxy,
            points: Points::default(),
            held: vec![Serials::default(); servers.len()],
            servers,
            refused: (0, 0),
            workers: 2,
            reached: BTreeMap::new(),
        }
    }

    /// One crash; afterwards everything acknowledged must be there, and the ledger must say what the servers hold.
    pub fn round(&mut self, crash: Crash) {
        let begun = now_ns();
        if self.workers != crash.workers.0 {
            self.restart(crash.workers.0, crash.durability, None).unwrap();
        }
        if let Some(down) = crash.down {
            self.servers[down].kill();
        }
        // Segments of 2 MiB fill within a second or two where one is to be compacted.
        let rate = if crash.at.is_some_and(|(point, _)| point.starts_with("compact")) { 20_000 } else { 8_000 };
        let args = LoadArgs { rate, lines: 100, ..self.points.args(&self.proxy) };
        let mut points = std::mem::take(&mut self.points);
        points.load_during(&args, || {
            let armed = crash.at.map(|(point, times)| format!("{point}:{times}"));
            let started = self.restart(crash.workers.0, crash.durability, armed);
            match started {
                Ok(()) => self.refuse_for(if crash.at.is_some() { ARMED } else { crash.after }),
                // It came to the point in its start.
                Err(e) => assert!(crash.at.is_some() && !self.proxy.stderr().contains("panicked"), "{e}"),
            }
            if let (Some((point, _)), false) = (crash.at, self.proxy.is_running()) {
                *self.reached.entry(point).or_default() += 1;
            }
            self.restart(crash.workers.1, crash.durability, None).unwrap();
            if let Some(down) = crash.down {
                self.servers[down].restart().unwrap();
            }
            std::thread::sleep(Duration::from_millis(200));
        });
        self.points = points;
        self.check(crash, begun);
    }

    fn restart(&mut self, workers: u64, durability: &str, armed: Option<String>) -> std::io::Result<()> {
        self.proxy.kill();
        self.proxy.edit(|config| {
            config["workers"] = workers.into();
            config["durability"] = durability.into();
        })?;
        self.workers = workers;
        match armed {
            Some(at) => self.proxy.launch_by(["env".to_owned(), format!("FLUXGATE_CRASH_AT={at}")]),
            None => self.proxy.launch_by::<String>([]),
        }
        self.proxy.restart()
    }

    /// Writes lines of a wrong type until the proxy has ended, or for so long.
    fn refuse_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time && self.proxy.is_running() {
            let line = format!("typed v=\"text\" {}", now_ns());
            self.refused.1 += 1;
            let reply = Client::connect(self.proxy.addr()).and_then(|mut client| client.write(DB, &line));
            self.refused.0 += u64::from(reply.is_ok_and(|reply| reply.status == 204));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn check(&mut self, crash: Crash, begun: u64) {
        let ledger = drained(&self.proxy);
        for (server, held) in self.servers.iter().zip(&mut self.held) {
            // The load's clock is read a little later, the first points of the servers are older.
            let query = format!("SELECT n FROM /.*/ WHERE time >= {begun} AND time < {}", now_ns() + 3_600_000_000_000);
            let answer = server.query(DB, &query).unwrap();
            let series = answer["results"][0]["series"].as_array().map_or(&[][..], Vec::as_slice);
            let rows = series.iter().flat_map(|series| series["values"].as_array().unwrap());
            for n in rows.filter_map(|row| row[1].as_u64()) {
                held.insert(n);
            }
        }
        let said = || format!("{crash:?}\n{ledger:?}\n{}", self.proxy.stderr());
        for (circle, servers) in [&[0, 1, 2][..], &[3]].into_iter().enumerate() {
            let mut all = Serials::default();
            servers.iter().for_each(|&server| all.merge(&self.held[server]));
            let lost = missing(&self.points.acked, &all);
            assert!(lost.is_empty(), "circle {circle} lacks {} points: {:?}\n{}", lost.len(), all.runs(), said());
            let strangers = missing(&all, &self.points.sent);
            assert!(strangers.is_empty(), "circle {circle} holds what nobody sent: {strangers:?}\n{}", said());
            let rejected: u64 = servers.iter().map(|server| self.row(&ledger, *server).rejected).sum();
            let right = (self.refused.0..=self.refused.1).contains(&rejected);
            assert!(right, "{rejected} of {:?} were refused\n{}", self.refused, said());
        }
        let delivered = self.held.iter().map(Serials::len).sum::<u64>();
        let totals = ledger.totals;
        assert_eq!(totals.dropped, 0, "{}", said());
        assert_eq!(totals.accepted - totals.rejected, delivered, "{}", said());
        assert_eq!(totals.delivered, delivered, "{}", said());
    }

    fn row(&self, ledger: &Ledger, server: usize) -> LedgerTotals {
        ledger.backend(["influxdb-1-1", "influxdb-1-2", "influxdb-1-3", "influxdb-2-1"][server])
    }

    pub fn acked(&self) -> u64 {
        self.points.acked.len()
    }
}

fn value((key, number): (&str, u64)) -> (&str, serde_json::Value) {
    (key, number.into())
}

pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

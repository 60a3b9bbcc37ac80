//! The counters of a run, while it goes on ([`Snapshot`]) and at its end ([`Summary`]).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::json;

/// Ranges of points without acknowledgement that are listed. More: only counted.
pub const UNACKED_RANGES_MAX: usize = 10_000;
/// Bytes kept of the first answer of each error status.
const REFUSAL_BYTES_MAX: usize = 300;

/// Why a request got no valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestFailure {
    /// No connection; nothing was sent.
    Connect,
    /// The connection was reset or broke while the request was under way.
    Reset,
    /// The server closed the connection instead of answering.
    Closed,
    Timeout,
    /// The answer is not HTTP/1.1.
    Malformed,
}

impl RequestFailure {
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
        }
    }
}

/// Consecutive points: the serial of the first, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub first: u64,
    pub count: u64,
}

/// Counters of one thread since its last tick, or of a whole run.
#[derive(Clone, Debug)]
pub struct Counts {
    pub requests: u64,
    /// Points in requests whose first byte was sent.
    pub sent_points: u64,
    pub acked_points: u64,
    /// Points in requests with an answer other than 2xx.
    pub refused_points: u64,
    /// Points in requests without an answer: they may be stored or not.
    pub unknown_points: u64,
    /// Line protocol of acknowledged requests, before compression.
    pub acked_bytes: u64,
    pub statuses: BTreeMap<u16, u64>,
    pub failures: BTreeMap<RequestFailure, u64>,
    /// The beginning of the first answer of each error status.
    pub refusals: BTreeMap<u16, String>,
    /// Refused and unknown points, up to [`UNACKED_RANGES_MAX`] ranges.
    pub unacked: Vec<Range>,
    /// Microseconds from due time to complete answer, of every answered request.
    pub latency_us: Histogram<u64>,
    /// Requests that were due before the end of a paced run but found no free connection.
    pub unsent_requests: u64,
    /// CPU of the sending threads.
    pub cpu: Duration,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: 0,
            sent_points: 0,
            acked_points: 0,
            refused_points: 0,
            unknown_points: 0,
            acked_bytes: 0,
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            refusals: BTreeMap::new(),
            unacked: Vec::new(),
            latency_us: Histogram::new(3).expect("3 digits are allowed"),
            unsent_requests: 0,
            cpu: Duration::ZERO,
        }
    }
}

impl Counts {
    /// Counts an answer for `points`.
    pub fn answered(&mut self, status: u16, points: Range, bytes: u64, latency: Duration, text: &[u8]) {
        *self.statuses.entry(status).or_default() += 1;
        // Not `saturating_record`, which would clamp all values to the histogram's first, small range.
        self.latency_us.record(latency.as_micros() as u64).expect("a resizing histogram takes every value");
        if (200..300).contains(&status) {
            self.acked_points += points.count;
            self.acked_bytes += bytes;
        } else {
            self.refused_points += points.count;
            self.unacked(points);
            self.refusals.entry(status).or_insert_with(|| {
                String::from_utf8_lossy(&text[..text.len().min(REFUSAL_BYTES_MAX)]).trim().to_string()
            });
        }
    }

    /// Counts a failed request; `points` is `None` if nothing was sent.
    pub fn failed(&mut self, why: RequestFailure, points: Option<Range>) {
        *self.failures.entry(why).or_default() += 1;
        if let Some(points) = points {
            self.unknown_points += points.count;
            self.unacked(points);
        }
    }

    fn unacked(&mut self, points: Range) {
        if self.unacked.len() < UNACKED_RANGES_MAX {
            self.unacked.push(points);
        }
    }

    pub fn add(&mut self, other: Counts) {
        self.requests += other.requests;
        self.sent_points += other.sent_points;
        self.acked_points += other.acked_points;
        self.refused_points += other.refused_points;
        self.unknown_points += other.unknown_points;
        self.acked_bytes += other.acked_bytes;
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (status, text) in other.refusals {
            self.refusals.entry(status).or_insert(text);
        }
        self.unacked.extend(other.unacked);
        self.unacked.truncate(UNACKED_RANGES_MAX);
        self.latency_us.add(&other.latency_us).expect("a resizing histogram takes every value");
        self.unsent_requests += other.unsent_requests;
        self.cpu += other.cpu;
    }

    /// Requests without a 2xx answer.
    pub fn failed_requests(&self) -> u64 {
        let refused: u64 = self.statuses.iter().filter(|(s, _)| !(200..300).contains(*s)).map(|(_, n)| n).sum();
        refused + self.failures.values().sum::<u64>()
    }
}

/// A running load, as [`super::run`] reports it about once a second.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub elapsed: Duration,
    /// Since the start.
    pub sent_points: u64,
    pub acked_points: u64,
    pub failed_requests: u64,
    /// Since the last snapshot; 0 if nothing was answered.
    pub points_per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Summary {
    pub url: String,
    pub db: String,
    pub threads: usize,
    pub connections: usize,
    pub lines: u64,
    /// Requested points per second; 0 = as fast as possible.
    pub rate: u64,
    pub gzip: bool,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Serials of the first and last point sent; `None` if none was sent.
    pub serials: Option<(u64, u64)>,
    pub counts: Counts,
}

impl Summary {
    /// Whether something was sent and everything was acknowledged.
    pub fn succeeded(&self) -> bool {
        self.counts.failed_requests() == 0 && self.counts.requests > 0
    }

    pub fn points_per_second(&self) -> f64 {
        self.counts.acked_points as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Megabytes (10^6) of acknowledged line protocol per second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.counts.acked_bytes as f64 / 1e6 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The CPU cost of this program: near one second per second and thread, it is the bottleneck, not the server.
    pub fn cpu_seconds_per_million_points(&self) -> f64 {
        self.counts.cpu.as_secs_f64() * 1e6 / (self.counts.sent_points as f64).max(1.0)
    }

    fn latencies(&self) -> [(&'static str, u64); 5] {
        let h = &self.counts.latency_us;
        [
            ("p50", h.value_at_quantile(0.5)),
            ("p90", h.value_at_quantile(0.9)),
            ("p99", h.value_at_quantile(0.99)),
            ("p99.9", h.value_at_quantile(0.999)),
            ("max", h.max()),
        ]
    }

    /// Everything [`fmt::Display`] prints, for programs.
    pub fn json(&self) -> serde_json::Value {
        let c = &self.counts;
        let named = |map: Vec<(String, u64)>| map.into_iter().map(|(k, v)| (k, v.into())).collect();
        let statuses: serde_json::Map<_, _> = named(c.statuses.iter().map(|(k, v)| (k.to_string(), *v)).collect());
        let failures: serde_json::Map<_, _> = named(c.failures.iter().map(|(k, v)| (k.name().into(), *v)).collect());
        let latency: serde_json::Map<_, _> =
            named(self.latencies().into_iter().map(|(k, v)| (k.replace('.', ""), v)).collect());
        json!({
            "url": self.url, "db": self.db, "threads": self.threads, "connections": self.connections,
            "lines_per_request": self.lines, "rate": self.rate, "gzip": self.gzip,
            "seconds": self.elapsed.as_secs_f64(),
            "first_serial": self.serials.map(|s| s.0), "last_serial": self.serials.map(|s| s.1),
            "requests": c.requests, "unsent_requests": c.unsent_requests,
            "sent_points": c.sent_points, "acked_points": c.acked_points,
            "not_acked_points": c.refused_points + c.unknown_points,
            "refused_points": c.refused_points, "unknown_points": c.unknown_points,
            "not_acked": c.unacked.iter().map(|r| [r.first, r.count]).collect::<Vec<_>>(),
            "points_per_second": self.points_per_second(), "megabytes_per_second": self.megabytes_per_second(),
            "latency_us": latency, "statuses": statuses, "failures": failures,
            "refusals": c.refusals.iter().map(|(k, v)| (k.to_string(), v.clone().into()))
                .collect::<serde_json::Map<String, serde_json::Value>>(),
            "cpu_seconds": c.cpu.as_secs_f64(),
            "cpu_seconds_per_million_points": self.cpu_seconds_per_million_points(),
            "succeeded": self.succeeded(),
        })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        let gzip = if self.gzip { ", gzip" } else { "" };
        let pace = if self.rate == 0 { "unpaced".into() } else { format!("{} points/s requested", self.rate) };
        writeln!(f, "target      {} db {}", self.url, self.db)?;
        writeln!(
            f,
            "load        {} connections, {} thread(s), {} lines/request, {pace}{gzip}",
            self.connections, self.threads, self.lines
        )?;
        writeln!(
            f,
            "throughput  {:.0} points/s, {:.1} MB/s, {} requests in {:.2} s",
            self.points_per_second(),
            self.megabytes_per_second(),
            c.requests,
            self.elapsed.as_secs_f64()
        )?;
        let latency: Vec<_> =
            self.latencies().iter().map(|(name, us)| format!("{name} {:.3} ms", *us as f64 / 1e3)).collect();
        writeln!(f, "latency     {}", latency.join(", "))?;
        let serials = self.serials.map_or("none".into(), |(first, last)| format!("n={first} to n={last}"));
        writeln!(
            f,
            "points      {} sent ({serials}), {} acked, {} not acked ({} refused, {} unknown)",
            c.sent_points,
            c.acked_points,
            c.refused_points + c.unknown_points,
            c.refused_points,
            c.unknown_points
        )?;
        if c.unsent_requests > 0 {
            writeln!(f, "late        {} requests were due and never sent: no connection was free", c.unsent_requests)?;
        }
        let mut answers: Vec<_> = c.statuses.iter().map(|(status, n)| format!("{status}: {n}")).collect();
        answers.extend(c.failures.iter().map(|(failure, n)| format!("{}: {n}", failure.name())));
        writeln!(f, "answers     {}", if answers.is_empty() { "none".into() } else { answers.join(", ") })?;
        for (status, text) in &c.refusals {
            writeln!(f, "            first {status}: {text}")?;
        }
        write!(
            f,
            "own CPU     {:.3} s per million points, {:.0} % of a core",
            self.cpu_seconds_per_million_points(),
            c.cpu.as_secs_f64() * 100.0 / self.elapsed.as_secs_f64().max(1e-9)
        )
    }
}

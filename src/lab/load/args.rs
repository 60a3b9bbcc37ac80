//! Options of `fluxgate load`, and the checks clap cannot do.

use std::net::{SocketAddr, ToSocketAddrs};

use clap::{Args, ValueEnum};

/// Writes numbered, Telegraf-like points, and says how many were acknowledged, how fast, and with what latency.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct LoadArgs {
    /// Where to write to (http only)
    #[arg(long, default_value = "http://127.0.0.1:7076")]
    pub url: String,
    /// Database
    #[arg(long, default_value = "load")]
    pub db: String,
    /// Retention policy (default: the database's default policy)
    #[arg(long)]
    pub rp: Option<String>,
    /// Unit of the timestamps; a coarser one cannot give each point a timestamp of its own
    #[arg(long, value_enum, default_value_t = Unit::Ns)]
    pub precision: Unit,
    /// User name
    #[arg(short = 'u', long)]
    pub username: Option<String>,
    /// Password
    #[arg(short = 'p', long, default_value = "")]
    pub password: String,
    /// Number of connections; each one has at most one request in flight
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// Lines (= points) in a request
    #[arg(long, default_value_t = 1000)]
    pub lines: u64,
    /// Number of different measurements
    #[arg(long, default_value_t = 20)]
    pub measurements: usize,
    /// Number of different hosts
    #[arg(long, default_value_t = 200)]
    pub hosts: usize,
    /// Add a boolean and a string field
    #[arg(long)]
    pub all_types: bool,
    /// Points per second; 0 = as fast as answers arrive. With a rate, latency counts from the time a request was due
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// Compress request bodies (needs far more CPU here than building them)
    #[arg(long)]
    pub gzip: bool,
    /// Stop after this many seconds [default: 10 when --points is not given]
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Stop after this many points
    #[arg(long)]
    pub points: Option<u64>,
    /// Number of the first point
    #[arg(long, default_value_t = 1)]
    pub first: u64,
    /// Consistency level of the writes: any, one, quorum, all
    #[arg(long)]
    pub consistency: Option<String>,
    /// Threads that send
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Seconds after which a request without an answer has failed; its points count as unknown
    #[arg(long, default_value_t = 30.0)]
    pub timeout: f64,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Create the database first: on every --backend, or through --url without one
    #[arg(long)]
    pub create_db: bool,
    /// Backends on which --create-db creates the database
    #[arg(long, num_args = 1.., value_name = "URL")]
    pub backend: Vec<String>,
}

/// Seconds of a run with neither `--seconds` nor `--points`.
const SECONDS_DEFAULT: f64 = 10.0;
/// Largest number of lines in a request; every server refuses a larger body.
const LINES_MAX: u64 = 1_000_000;
/// Longest run. A larger number is a typing error, and could overflow a `Duration`.
const SECONDS_MAX: f64 = 1e9;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    #[value(alias = "n")]
    Ns,
    #[value(alias = "us")]
    U,
    Ms,
    S,
}

impl Unit {
    /// The value of the `precision` parameter.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::Ns => "ns",
            Self::U => "u",
            Self::Ms => "ms",
            Self::S => "s",
        }
    }

    pub fn nanoseconds(self) -> u64 {
        match self {
            Self::Ns => 1,
            Self::U => 1_000,
            Self::Ms => 1_000_000,
            Self::S => 1_000_000_000,
        }
    }
}

impl LoadArgs {
    /// All defaults, for callers without a command line.
    pub fn new(url: &str, db: &str) -> Self {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            args: LoadArgs,
        }
        <Alone as clap::Parser>::parse_from(["load", "--url", url, "--db", db]).args
    }

    /// Seconds after which no request is started; `None` = no limit in time.
    pub fn seconds_max(&self) -> Option<f64> {
        match (self.seconds, self.points) {
            (None, None) => Some(SECONDS_DEFAULT),
            (seconds, _) => seconds,
        }
    }

    /// Checks the options. The error is one sentence.
    pub fn check(&self) -> Result<(), String> {
        let from_one = [
            ("--connections", self.connections as u64),
            ("--lines", self.lines),
            ("--measurements", self.measurements as u64),
            ("--hosts", self.hosts as u64),
            ("--threads", self.threads as u64),
        ];
        for (name, value) in from_one {
            if value == 0 {
                return Err(format!("{name} must be at least 1"));
            }
        }
        if self.lines > LINES_MAX {
            return Err(format!("--lines must be at most {LINES_MAX}"));
        }
        if self.threads > self.connections {
            return Err(format!("--threads {} is more than --connections {}", self.threads, self.connections));
        }
        for (name, seconds) in [("--seconds", self.seconds), ("--timeout", Some(self.timeout))] {
            if seconds.is_some_and(|s| !(s > 0.0 && s <= SECONDS_MAX)) {
                return Err(format!("{name} must be more than 0 and at most {SECONDS_MAX}"));
            }
        }
        Ok(())
    }
}

/// A parsed `http://host:port[/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadTarget {
    /// As in the `Host` header.
    pub host: String,
    /// Without a trailing slash.
    pub path: String,
    pub addr: SocketAddr,
}

impl LoadTarget {
    /// Looks the name up, which may block.
    pub fn resolve(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: only http:// is supported"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.contains('@') {
            return Err("give credentials with -u and -p, not in the URL".into());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if has_port { host.to_string() } else { format!("{host}:80") };
        let addr = with_port
            .to_socket_addrs()
            .map_err(|e| format!("{url}: {e}"))?
            .next()
            .ok_or_else(|| format!("{url}: no address"))?;
        Ok(Self { host: host.into(), path: path.trim_end_matches('/').into(), addr })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_path() {
        let target = LoadTarget::resolve("http://127.0.0.1:7076/a/").unwrap();
        assert_eq!((target.host.as_str(), target.path.as_str()), ("127.0.0.1:7076", "/a"));
        assert_eq!(target.addr, "127.0.0.1:7076".parse().unwrap());
        assert_eq!(LoadTarget::resolve("http://127.0.0.1").unwrap().addr.port(), 80);
        assert_eq!(LoadTarget::resolve("http://[::1]:1").unwrap().addr, "[::1]:1".parse().unwrap());
        for bad in ["https://a", "127.0.0.1:1", "http://u:p@127.0.0.1:1", "http://"] {
            assert!(LoadTarget::resolve(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn impossible_options_are_refused() {
        let good = LoadArgs::new("http://127.0.0.1:1", "db");
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.seconds_max(), Some(SECONDS_DEFAULT));
        assert_eq!(LoadArgs { points: Some(1), ..good.clone() }.seconds_max(), None);
        for bad in [
            LoadArgs { lines: 0, ..good.clone() },
            LoadArgs { lines: LINES_MAX + 1, ..good.clone() },
            LoadArgs { threads: 33, ..good.clone() },
            LoadArgs { seconds: Some(0.0), ..good.clone() },
            LoadArgs { timeout: f64::NAN, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}

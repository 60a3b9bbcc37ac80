//! The settings that the data plane gets at start. `src/config` makes them from files; nothing here reads a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::READ_WAIT;
use crate::placement::PlacementSettings;
use crate::precision::Precision;
use crate::tls::{ServerTls, Trust};
use crate::topology::Topology;

/// What must have happened before a 204 is sent. Ordered: each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In memory (the hot tail) only.
    Memory,
    /// Written to the log file: survives kill -9.
    Os,
    /// Written and synced: survives power loss.
    Disk,
}

impl Durability {
    /// As in the configuration and in `X-Fluxgate-Ack`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Os => "os",
            Self::Disk => "disk",
        }
    }
}

/// The parameter `consistency`: what a write needs beyond the configured durability.
/// Ordered: each level asks for at least as much as those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consistency {
    /// Not given: the configured durability.
    Default,
    /// Synced to this proxy's disk.
    Any,
    /// `One`, `Quorum` and `All`: synced, and confirmed by that many circles.
    One,
    Quorum,
    All,
}

impl Consistency {
    /// Parses the parameter, in any case, as InfluxDB does. Empty = not given. None: there is no such level.
    pub fn from_param(text: &[u8]) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_slice() {
            b"" => Self::Default,
            b"any" => Self::Any,
            b"one" => Self::One,
            b"quorum" => Self::Quorum,
            b"all" => Self::All,
            _ => return None,
        })
    }

    /// How many circles must confirm.
    pub fn circles(self, all: usize) -> usize {
        match self {
            Self::Default | Self::Any => 0,
            Self::One => 1,
            Self::Quorum => all / 2 + 1,
            Self::All => all,
        }
    }

    /// The durability the log must reach; `default` is the configured one.
    pub fn durability(self, default: Durability) -> Durability {
        if self == Self::Default { default } else { Durability::Disk }
    }
}

/// What happens when the backlog has reached its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BacklogFull {
    /// 503 with Retry-After; no accepted point is dropped.
    Reject,
    /// The oldest segment is deleted; its points are counted as dropped in the ledger.
    DropOldest,
}

/// What a courier does when its backend lacks the database or policy of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingDb {
    /// Create it there with the settings it has on another backend. While no backend has it, hold.
    Create,
    /// Hold for at most `limits::MISSING_DB_HOLD`, then dead-letter.
    Hold,
    /// Dead-letter at once.
    Reject,
}

/// The proxy's own user; empty = no authentication.
#[derive(Clone, Default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl Credentials {
    /// As in influx-proxy: a user or a password makes authentication necessary.
    pub fn required(&self) -> bool {
        !self.username.is_empty() || !self.password.is_empty()
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to listen on (an empty host in the configuration means all addresses).
    pub listen: SocketAddr,
    /// Where packets of line protocol are received.
    pub udp: Vec<UdpSettings>,
    pub workers: usize,
    pub topology: Arc<Topology>,
    pub placement: PlacementSettings,
    /// Databases that may be used; empty = all.
    pub db_list: Vec<String>,
    pub data_dir: PathBuf,
    pub credentials: Credentials,
    pub ping_auth_enabled: bool,
    /// The version of InfluxDB that clients are told; None = the lowest of the backends that are up.
    pub influxdb_version: Option<String>,
    pub durability: Durability,
    /// Wait after the first line of an idle log before its frame is written. Default 0.
    pub commit_linger: Duration,
    /// Size of the hot tail, per worker.
    pub hot_tail_bytes: usize,
    /// Limit of the log on disk over all workers; None = 80 % of the file system at start.
    pub backlog_max_bytes: Option<u64>,
    pub backlog_full: BacklogFull,
    /// A write that asks for more is taken as if it asked for this.
    pub consistency_max: Consistency,
    /// Compress writes to backends with gzip.
    pub backend_gzip: bool,
    /// Limit of one request body after decompression; 0 = none.
    pub max_body_bytes: u64,
    pub missing_db: MissingDb,
    /// Points per batch to a backend.
    pub flush_size: usize,
    pub check_interval: Duration,
    /// Longest pause between attempts to reach a backend that is down.
    pub rewrite_interval: Duration,
    /// Timeout of one write request to a backend.
    pub write_timeout: Duration,
    /// A client connection that sends nothing for this long is closed.
    pub idle_timeout: Duration,
    pub write_tracing: bool,
    pub query_tracing: bool,
    /// `/write` takes all points without a policy, whatever its parameter `rp` names.
    pub ignore_rp: bool,
    pub query: QuerySettings,
    /// TLS for clients; None = plain HTTP.
    pub tls: Option<ServerTls>,
    /// For backends that speak `https`.
    pub trust: Trust,
}

impl Settings {
    /// Whether clients may use this database.
    pub fn db_allowed(&self, db: &[u8]) -> bool {
        self.db_list.is_empty() || self.db_list.iter().any(|allowed| allowed.as_bytes() == db)
    }
}

/// One address on which packets of line protocol are received, and where their points go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpSettings {
    pub bind: SocketAddr,
    pub db: String,
    /// Empty = the default policy.
    pub rp: String,
    pub precision: Precision,
    /// Bytes that the kernel keeps of packets that nobody has read yet, for each worker; None = its default.
    pub read_buffer: Option<usize>,
}

/// Limits of queries that operators set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// Longest wait for the start of a backend's answer and between two parts of it. Also the longest time that a
    /// merged query or a change of structure may take in total.
    pub timeout: Duration,
    /// Queries in progress per worker; 0 = no limit. More: 503.
    pub concurrent_max: usize,
    /// Bytes of backends' answers held for merging, over all queries. More: 503 for the query that needs them.
    pub memory_bytes_max: usize,
    /// Rows of one merged answer; 0 = no limit. More: the query is refused, never cut.
    pub rows_max: usize,
    /// How long a query waits at most for points that this proxy acknowledged before it began; None = it does not.
    pub read_wait: Option<Duration>,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            concurrent_max: 0,
            memory_bytes_max: 256 * 1024 * 1024,
            rows_max: 0,
            read_wait: Some(READ_WAIT),
        }
    }
}

//! What the data plane is told at start. `src/config` makes it from files; nothing here reads one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::placement::PlacementSettings;
use crate::tls::{ServerTls, Trust};
use crate::topology::Topology;

/// What must have happened before 204 is sent. Ordered: each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In the hot tail only.
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

/// What happens when the backlog has reached its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BacklogFull {
    /// 503 with Retry-After; nothing accepted is given up.
    Reject,
    /// The oldest segment goes, counted in the ledger as dropped.
    DropOldest,
}

/// What a courier does when its backend lacks the database or policy of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingDb {
    /// Create it there with the settings another backend has; hold while none has it.
    Create,
    /// Hold (bounded by `limits::MISSING_DB_HOLD`), then dead-letter.
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
    pub workers: usize,
    pub topology: Arc<Topology>,
    pub placement: PlacementSettings,
    /// Databases that may be used; empty = all.
    pub db_list: Vec<String>,
    pub data_dir: PathBuf,
    pub credentials: Credentials,
    pub ping_auth_enabled: bool,
    pub durability: Durability,
    /// Waited after the first line of an idle log before the frame goes out. Default 0.
    pub commit_linger: Duration,
    /// Bytes of the newest frames kept in memory, per worker.
    pub hot_tail_bytes: usize,
    /// Bound of the log on disk over all workers; None = 80 % of the file system at start.
    pub backlog_max_bytes: Option<u64>,
    pub backlog_full: BacklogFull,
    /// gzip towards backends.
    pub backend_gzip: bool,
    /// Bound of one request body after inflating; 0 = none.
    pub max_body_bytes: u64,
    pub missing_db: MissingDb,
    /// Points per batch to a backend.
    pub flush_size: usize,
    pub check_interval: Duration,
    /// Longest pause between attempts to reach a backend that is down.
    pub rewrite_interval: Duration,
    /// One request to a backend.
    pub write_timeout: Duration,
    /// A client connection without a byte.
    pub idle_timeout: Duration,
    pub write_tracing: bool,
    pub query_tracing: bool,
    pub query: QuerySettings,
    /// TLS for clients; None = plain HTTP.
    pub tls: Option<ServerTls>,
    /// For backends that speak `https`.
    pub trust: Trust,
}

/// Bounds of queries that operators set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuerySettings {
    /// Longest wait for the beginning of a backend's answer and between two parts of it; and the longest a merged
    /// query or a change of structure may take as a whole.
    pub timeout: Duration,
    /// Queries at a time per worker; 0 = any number. More: 503.
    pub concurrent_max: usize,
    /// Bytes of backends' answers held for merging, over all queries. More: 503 for the query that asks for them.
    pub memory_bytes_max: usize,
    /// Rows of one merged answer; 0 = any number. More: the query is refused, never cut.
    pub rows_max: usize,
}

impl Default for QuerySettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), concurrent_max: 0, memory_bytes_max: 256 * 1024 * 1024, rows_max: 0 }
    }
}

//! The inputs of the event loop: its settings at start, and the reports of its own threads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fluxgate_dataplane::handoff::{AdminResponse, Created, QueryReply, Ticket};
use fluxgate_dataplane::http::version::InfluxVersion;
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::settings::{Credentials, QuerySettings};
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{BackendId, Topology};

use crate::endpoint::Dialect;
use crate::influx::catalog::{Databases, Load};
use crate::influx::client::CallFailure;
use crate::migration::plan::Removed;
use crate::transition::Transitions;

/// Settings of the control thread.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    pub topology: Arc<Topology>,
    /// Of the records in the workers' logs.
    pub order: Arc<RecordOrder>,
    pub transitions: Transitions,
    /// The proxy's own user, for admin endpoints.
    pub credentials: Credentials,
    /// Between two probes of a backend.
    pub check_interval: Duration,
    pub query: QuerySettings,
    /// For `https` backends.
    pub trust: Trust,
    /// Of the admin endpoints.
    pub dialect: Dialect,
    /// `/debug/pprof` is enabled.
    pub pprof_enabled: bool,
    /// Per worker; shown in `/debug/pprof/heap`.
    pub hot_tail_bytes: usize,
    /// Migrations keep their progress in it.
    pub data_dir: PathBuf,
    /// Folder of the migration log.
    pub mlog_dir: PathBuf,
    /// Backends that have left the circles, and that a rebalance may name.
    pub former_backends: Vec<Removed>,
    /// The other proxies before the same backends.
    pub peers: Vec<String>,
}

/// Results of the loop's own threads.
#[derive(Debug)]
pub enum Report {
    Probe {
        backend: BackendId,
        result: Result<Option<InfluxVersion>, String>,
    },
    Address {
        backend: BackendId,
        addr: SocketAddr,
    },
    Databases {
        backend: BackendId,
        result: Result<Databases, CallFailure>,
    },
    Load {
        backend: BackendId,
        result: Result<BTreeMap<String, Load>, CallFailure>,
    },
    Created {
        key: CreateKey,
        result: Created,
    },
    Queried {
        asker: Asker,
        reply: QueryReply,
    },
    Profiled {
        asker: Asker,
        response: AdminResponse,
    },
    /// The transition of a circle has ended, or could not end.
    Ended {
        asker: Asker,
        response: AdminResponse,
    },
    ShutdownWorkers,
    Stop,
}

/// What is created: backend, database, policy (empty = default).
pub type CreateKey = (BackendId, String, String);
/// Who waits for an answer: a worker, and its ticket.
pub type Asker = (usize, Ticket);

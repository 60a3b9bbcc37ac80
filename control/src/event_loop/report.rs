//! What the event loop gets: its settings at start, and reports of its own threads.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fluxgate_dataplane::handoff::{AdminResponse, Created, QueryReply, Ticket};
use fluxgate_dataplane::settings::{Credentials, QuerySettings};
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{BackendId, Topology};

use crate::influx::catalog::{Databases, Load};
use crate::influx::client::CallFailure;
use crate::transition::Transitions;

/// What the control thread is told at start.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    pub topology: Arc<Topology>,
    pub transitions: Transitions,
    /// The proxy's own user, for admin endpoints.
    pub credentials: Credentials,
    /// Between two probes of a backend.
    pub check_interval: Duration,
    pub query: QuerySettings,
    /// For backends that speak `https`.
    pub trust: Trust,
    /// `/debug/pprof` is there.
    pub pprof_enabled: bool,
    /// Of each worker; only told, in `/debug/pprof/heap`.
    pub hot_tail_bytes: usize,
    /// Migrations keep their progress below it.
    pub data_dir: PathBuf,
    /// Where migrations log.
    pub mlog_dir: PathBuf,
}

/// What our own threads tell the loop.
#[derive(Debug)]
pub enum Report {
    Probe {
        backend: BackendId,
        result: Result<(), String>,
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
    /// The transition of a circle, or not.
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

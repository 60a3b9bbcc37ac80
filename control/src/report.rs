//! What the event loop is told: at start, and by our own threads as they go.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fluxgate_dataplane::handoff::{Created, QueryReply, Ticket};
use fluxgate_dataplane::placement::Placement;
use fluxgate_dataplane::settings::{Credentials, QuerySettings};
use fluxgate_dataplane::topology::{BackendId, Topology};

use crate::backend::Failure;
use crate::catalog::{Databases, Load};
use crate::query::workers::Errand;

/// What the control thread is told at start.
#[derive(Debug, Clone)]
pub struct ControlSettings {
    pub topology: Arc<Topology>,
    pub placement: Arc<Placement>,
    /// The proxy's own user, for admin endpoints.
    pub credentials: Credentials,
    /// Between two probes of a backend.
    pub check_interval: Duration,
    pub query: QuerySettings,
}

/// What our own threads tell the loop.
#[derive(Debug)]
pub enum Report {
    Probe { backend: BackendId, result: Result<(), String> },
    Address { backend: BackendId, addr: SocketAddr },
    Databases { backend: BackendId, result: Result<Databases, Failure> },
    Load { backend: BackendId, result: Result<BTreeMap<String, Load>, Failure> },
    Created { key: CreateKey, result: Created },
    Errand(Errand),
    Queried { asker: Asker, reply: QueryReply },
    ShutdownWorkers,
    Stop,
}

/// What is created: backend, database, policy (empty = default).
pub type CreateKey = (BackendId, String, String);
/// Who waits for an answer: a worker, and its ticket.
pub type Asker = (usize, Ticket);

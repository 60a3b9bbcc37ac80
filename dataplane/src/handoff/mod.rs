//! The only door between workers and the control thread.
//!
//! A worker puts a [`ToControl`] into the one bounded queue to the control thread and goes on. The control thread puts
//! a [`ToWorker`] into that worker's bounded queue and signals its eventfd, which the worker's ring reads. Either side
//! may have ended. A full or closed queue is an error (503), never a wait and never a panic.
//!
//! This file lists the messages; `queue.rs` transports them.

mod queue;
mod unsent;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use queue::{ControlEnd, WorkerEnd, pair};
pub use unsent::{UnsentBody, UnsentBytes};

use bytes::Bytes;

use crate::http::error_body::Format;
use crate::limits::QUERY_CHUNK_ROWS_DEFAULT;
use crate::must_see::MustSee;
use crate::placement::Placement;
use crate::topology::{BackendId, Topology};

/// Pairs an answer with its request; unique per sender and worker.
pub type Ticket = u64;

/// An admin request. The worker has read its head and body completely.
#[derive(Debug, Clone, Default)]
pub struct AdminRequest {
    pub method: String,
    /// Percent-decoded path, e.g. `/health`.
    pub path: String,
    /// Raw query string without `?`.
    pub query: String,
    /// Raw `Authorization` header value.
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: Bytes,
}

/// What the worker sends to the client. The worker adds `Date`, `X-Influxdb-Version`, `X-Influxdb-Build`,
/// `Content-Length` and, if `request_id` is set, `Request-Id` and `X-Request-Id`. It leaves out the body when the
/// method is HEAD.
#[derive(Debug, Clone)]
pub struct AdminResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// A `/query` that needs more than one backend, or changes something. The worker has parsed its text and checked
/// access; parameters are decoded.
#[derive(Debug, Clone)]
pub struct QueryRequest {
    /// A GET that changes something is answered with InfluxDB's warning.
    pub is_get: bool,
    pub q: String,
    /// Prometheus' remote read instead of `q`: its request, uncompressed.
    pub prometheus: Option<Vec<u8>>,
    /// Empty = not given. The same holds for `rp` and `epoch`.
    pub db: String,
    pub rp: String,
    /// JSON text of the bind parameters.
    pub params: Option<String>,
    /// As given. A value other than `u`, `ms`, `s`, `m`, `h` means nanoseconds, unless empty.
    pub epoch: String,
    pub pretty: bool,
    pub chunked: bool,
    /// Rows in one piece of a chunked answer, at least 1.
    pub chunk_size: usize,
    pub format: Format,
    /// The client accepts gzip.
    pub gzip: bool,
    /// What the answer must have, as far as the backends do.
    pub must_see: MustSee,
    /// Set by the worker when the client has disconnected: the answer is not needed any more.
    pub cancelled: Arc<AtomicBool>,
}

/// A POST without any parameter.
impl Default for QueryRequest {
    fn default() -> Self {
        Self {
            is_get: false,
            q: String::new(),
            prometheus: None,
            db: String::new(),
            rp: String::new(),
            params: None,
            epoch: String::new(),
            pretty: false,
            chunked: false,
            chunk_size: QUERY_CHUNK_ROWS_DEFAULT,
            format: Format::Json,
            gzip: false,
            must_see: MustSee::default(),
            cancelled: Arc::default(),
        }
    }
}

/// What the worker sends to the client of a [`QueryRequest`].
#[derive(Debug)]
pub enum QueryReply {
    /// Status 200. `fields` has `Content-Type`, and `Content-Encoding` if the body is compressed.
    Answer { fields: Vec<(&'static str, String)>, body: UnsentBody },
    /// There is no result; the worker sends `text` as an error in the format the client asked for.
    Failed { status: u16, text: String },
    /// Backends have failed over the request, as InfluxDB does over some reads of Prometheus.
    Panicked,
}

/// Worker to control thread.
#[derive(Debug)]
pub enum ToControl {
    /// Always answered by [`ToWorker::Query`] with the same ticket.
    Query { worker: usize, ticket: Ticket, request: Box<QueryRequest> },
    /// An admin request; always answered by [`ToWorker::Admin`] with the same ticket.
    Admin { worker: usize, ticket: Ticket, request: AdminRequest },
    /// A write names a database or policy that the catalog does not know. Ask the backends once, publish the catalog if
    /// it changed, and answer with [`ToWorker::CatalogRefreshed`].
    RefreshCatalog { worker: usize, ticket: Ticket },
    /// `backend` answered that it lacks `db` or `rp` (empty = default). Create it there with the settings that another
    /// backend has. Answered by [`ToWorker::Created`].
    Create { worker: usize, ticket: Ticket, backend: BackendId, db: String, rp: String },
    /// According to the results of its courier's writes, a backend went down or came up.
    BackendChanged { backend: BackendId, up: bool, reason: String },
    /// A query has got no answer from `backend`: its name is looked up and it is probed at once.
    Unanswered { backend: BackendId },
    /// Answers [`ToWorker::LedgerWanted`].
    Ledger { worker: usize, ticket: Ticket, rows: Vec<LedgerRow> },
    /// Answers [`ToWorker::Drain`].
    Drained { worker: usize, ticket: Ticket, result: Drained },
    /// Answers [`ToWorker::Write`].
    Written { worker: usize, ticket: Ticket, result: Written },
}

/// Control thread to worker.
#[derive(Debug)]
pub enum ToWorker {
    Admin {
        ticket: Ticket,
        response: AdminResponse,
    },
    Query {
        ticket: Ticket,
        reply: QueryReply,
    },
    CatalogRefreshed {
        ticket: Ticket,
    },
    Created {
        ticket: Ticket,
        result: Created,
    },
    /// A newer catalog; replaces the one before.
    Catalog(Arc<Catalog>),
    /// A newer placement: where data is written to and read from. A version lower than the worker's is ignored.
    Placement(Arc<Placement>),
    /// A probe found this backend up or down. Sent when that changes, and again for a backend that is up while a
    /// worker's counters say it is down.
    Probed {
        backend: BackendId,
        up: bool,
    },
    /// The resolved address of this backend. Workers do not resolve names, since that blocks. Sent at start and
    /// whenever it changes.
    Address {
        backend: BackendId,
        addr: SocketAddr,
    },
    /// Answer with [`ToControl::Ledger`] and this ticket.
    LedgerWanted {
        ticket: Ticket,
    },
    /// Couriers deliver all points of `db` (empty = of all databases) below the stamp `from` and then hold, so that
    /// later points are not delivered before the change of structure that waits for this. `from` is one for all
    /// workers. The hold ends at [`ToWorker::Release`] with the same ticket, or `limits::HOLD_MAX` after the answer.
    /// Answered by [`ToControl::Drained`] within `timeout`. Tickets are unique over all workers.
    Drain {
        ticket: Ticket,
        db: String,
        from: u64,
        timeout: Duration,
    },
    Release {
        ticket: Ticket,
    },
    /// Accept these lines (timestamps in nanoseconds) like a client's write. Answered by [`ToControl::Written`] within
    /// `timeout`.
    Write {
        ticket: Ticket,
        db: String,
        /// Empty = the default policy.
        rp: String,
        lines: Bytes,
        timeout: Duration,
    },
    /// Stop accepting, finish requests, commit, save cursors, end.
    Shutdown,
}

/// The result of [`ToWorker::Drain`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// Couriers hold, and it is on disk how far they are.
    Done,
    /// These backends have not received everything in time.
    Behind(Vec<BackendId>),
    /// How far couriers are cannot be saved: after a crash they would deliver again what they have delivered.
    Unsaved(String),
}

/// The result of [`ToWorker::Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// As durable as the settings promise, and confirmed by every backend that is up.
    Done,
    /// Lines were not accepted, backends refused points, or backends that are up did not confirm in time. The text is
    /// InfluxDB's own where InfluxDB has one.
    Refused(String),
}

/// The result of [`ToControl::Create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The backend has it now: send the batch again.
    Done,
    /// All backends that may have it were asked and none has it.
    NowhereElse,
    /// Not all backends that may have it could be asked, or the statement failed: hold and ask again later.
    Failed(String),
}

/// Whose account a row of the ledger is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LedgerBackend {
    Configured(BackendId),
    /// One that is not configured any more, by its name.
    Retired(String),
}

impl LedgerBackend {
    pub fn name<'a>(&'a self, topology: &'a Topology) -> &'a str {
        match self {
            Self::Configured(backend) => &topology.backend(*backend).name,
            Self::Retired(name) => name,
        }
    }
}

/// One row of the ledger: what became of accepted points of `db` for `backend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    pub db: String,
    pub backend: LedgerBackend,
    pub accepted: u64,
    pub delivered: u64,
    pub queued: u64,
    /// By reason.
    pub rejected: Vec<(String, u64)>,
    /// By reason.
    pub dropped: Vec<(String, u64)>,
}

/// Which databases and policies exist, over all backends that answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// False until one backend has answered SHOW DATABASES in InfluxDB's form. Until then nothing is refused.
    pub known: bool,
    pub databases: HashMap<String, Database>,
}

impl Catalog {
    /// False when no backend has the database.
    pub fn may_have_database(&self, db: &str) -> bool {
        !self.known || self.databases.contains_key(db)
    }

    /// False when the database exists and the policy does not; an empty `rp` is the default policy.
    pub fn may_have_policy(&self, db: &str, rp: &str) -> bool {
        let policies = self.databases.get(db).map_or(&[][..], |database| &database.policies);
        rp.is_empty() || policies.is_empty() || policies.iter().any(|policy| policy == rp)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// Names of its retention policies, over all backends; empty = no backend could be asked.
    pub policies: Vec<String>,
    /// The name of its default policy; None = not known, or not the same on all backends.
    pub default: Option<String>,
}

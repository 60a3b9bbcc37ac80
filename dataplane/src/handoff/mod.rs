//! The only door between workers and the control thread.
//!
//! A worker puts a [`ToControl`] into the one bounded queue to the control thread and goes on serving; the control
//! thread puts a [`ToWorker`] into that worker's bounded queue and signals its eventfd, which the worker's ring reads.
//! Either side may be gone: a full or closed queue is an answer (503), never a wait and never a panic.
//!
//! Here is what may cross; `queue.rs` is how it crosses.

mod queue;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use queue::{ControlEnd, WorkerEnd, pair};

use bytes::Bytes;

use crate::http::error_body::Format;
use crate::placement::Placement;
use crate::topology::BackendId;

/// Pairs an answer with its question; unique per asking side and worker.
pub type Ticket = u64;

/// An admin request, owned: head and body have been read completely by the worker.
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

/// What the worker writes back. The worker adds `Date`, `X-Influxdb-Version`, `X-Influxdb-Build`, `Content-Length` and,
/// if `request_id` is set, `Request-Id` and `X-Request-Id`. To HEAD it sends everything but the body.
#[derive(Debug, Clone)]
pub struct AdminResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// A `/query` that needs more than one backend, or changes something. Its text has been parsed once and its access
/// checked; parameters are decoded.
#[derive(Debug, Clone)]
pub struct QueryRequest {
    /// A GET that changes something is answered with InfluxDB's warning.
    pub is_get: bool,
    pub q: String,
    /// Empty = not given; so for `rp` and `epoch`.
    pub db: String,
    pub rp: String,
    /// JSON text of the bind parameters.
    pub params: Option<String>,
    /// As given; anything but `u`, `ms`, `s`, `m`, `h` is nanoseconds when not empty.
    pub epoch: String,
    pub pretty: bool,
    pub chunked: bool,
    /// Rows of one piece of a chunked answer, at least 1.
    pub chunk_size: usize,
    pub format: Format,
    /// The client takes gzip.
    pub gzip: bool,
    /// Set by the worker when the client has gone: nobody waits for the answer any more.
    pub cancelled: Arc<AtomicBool>,
}

/// What the worker writes back to the client of a [`QueryRequest`].
#[derive(Debug, Clone)]
pub enum QueryReply {
    /// 200, with `Content-Type` (and `Content-Encoding` where it is packed) among the fields; the body in pieces.
    Answer { fields: Vec<(&'static str, String)>, body: Vec<Bytes> },
    /// Nothing was answered; the worker puts it in the client's form.
    Failed { status: u16, text: String },
}

/// Worker to control thread.
#[derive(Debug)]
pub enum ToControl {
    /// Always answered by [`ToWorker::Query`] with the same ticket.
    Query { worker: usize, ticket: Ticket, request: Box<QueryRequest> },
    /// Serve this; always answered by [`ToWorker::Admin`] with the same ticket.
    Admin { worker: usize, ticket: Ticket, request: AdminRequest },
    /// A write names a database or policy the catalog does not know: ask the backends once, then publish the catalog
    /// (if it changed) and answer [`ToWorker::CatalogRefreshed`].
    RefreshCatalog { worker: usize, ticket: Ticket },
    /// `backend` answered that it lacks `db` or `rp` (empty = default): create it there with the settings another
    /// backend has. Answered by [`ToWorker::Created`].
    Create { worker: usize, ticket: Ticket, backend: BackendId, db: String, rp: String },
    /// A courier's backend went down or came up by its write results.
    BackendChanged { worker: usize, backend: BackendId, up: bool, reason: String },
    /// The ledger asked for by [`ToWorker::LedgerWanted`].
    Ledger { worker: usize, ticket: Ticket, rows: Vec<LedgerRow> },
    /// Answers [`ToWorker::Drain`]: the backends that have not got everything in time; empty = couriers hold still.
    Drained { worker: usize, ticket: Ticket, behind: Vec<BackendId> },
    /// Answers [`ToWorker::Write`].
    Written { worker: usize, ticket: Ticket, result: Written },
}

/// Control thread to worker.
#[derive(Debug, Clone)]
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
    /// Data has been moved: where it is written to and read from now. Older versions than the worker has are ignored.
    Placement(Arc<Placement>),
    /// A probe found this backend up or down. Sent when that changes, and again for a backend that is up while some
    /// worker's counters have it down.
    Probed {
        backend: BackendId,
        up: bool,
    },
    /// Where this backend is to be reached: its host name resolved (workers resolve nothing, it blocks). Sent at start
    /// and whenever it changes.
    Address {
        backend: BackendId,
        addr: SocketAddr,
    },
    /// Send the ledger rows with this ticket.
    LedgerWanted {
        ticket: Ticket,
    },
    /// Couriers deliver what has been taken until now and then hold still, so that what is taken later is not delivered
    /// before a change of structure that waits for this; until [`ToWorker::Release`] with the same ticket, or
    /// `limits::HOLD_MAX` after the answer. Answered by [`ToControl::Drained`] within `timeout`. Tickets are unique
    /// over all workers.
    Drain {
        ticket: Ticket,
        timeout: Duration,
    },
    Release {
        ticket: Ticket,
    },
    /// Take these lines (timestamps in nanoseconds) as a write of a client would be taken. Answered by
    /// [`ToControl::Written`] within `timeout`.
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

/// What became of [`ToWorker::Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// As safe as the settings promise, and confirmed by every backend that is up.
    Done,
    /// Lines were not taken, backends refused points, or those that are up have not confirmed in time: in InfluxDB's
    /// words where it has some.
    Refused(String),
}

/// What became of [`ToControl::Create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// It exists there now: repeat the batch.
    Done,
    /// All backends that could have it were asked and none has it.
    NowhereElse,
    /// Not all backends that could have it can be asked, or the statement failed: hold and ask again later.
    Failed(String),
}

/// One line of the ledger: what became of accepted points of `db` meant for `backend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    pub db: String,
    pub backend: BackendId,
    pub accepted: u64,
    pub delivered: u64,
    pub queued: u64,
    /// By reason.
    pub rejected: Vec<(String, u64)>,
    /// By reason.
    pub dropped: Vec<(String, u64)>,
}

/// Which databases and policies exist, over all backends that could be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// False until one backend has answered SHOW DATABASES in InfluxDB's form; nothing is refused before.
    pub known: bool,
    pub databases: HashMap<String, Database>,
}

impl Catalog {
    /// False when the database is known to be nowhere.
    pub fn may_have_database(&self, db: &str) -> bool {
        !self.known || self.databases.contains_key(db)
    }

    /// False when the database is there and the policy known not to be; an empty `rp` is the default one.
    pub fn may_have_policy(&self, db: &str, rp: &str) -> bool {
        let policies = self.databases.get(db).map_or(&[][..], |database| &database.policies);
        rp.is_empty() || policies.is_empty() || policies.iter().any(|policy| policy == rp)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Database {
    /// Names of its retention policies, over all backends; empty = could not be asked.
    pub policies: Vec<String>,
}

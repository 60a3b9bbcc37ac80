//! Counters that a worker writes and the control thread reads. Relaxed atomics with one writer each; no lock. The order
//! of two counters is not defined.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::limits::ACKNOWLEDGED_SLOTS;

/// What the courier of one backend says of it.
#[derive(Debug)]
pub struct CourierStats {
    /// False from a failed write until the next success.
    pub up: AtomicBool,
    /// True while points that waited for a failed backend are being sent.
    pub rewriting: AtomicBool,
    /// When the oldest record of all logs was accepted that is not settled, in milliseconds since 1970; `u64::MAX` =
    /// none. Starts as 0: until the courier has looked into the logs, it is unknown.
    pub oldest_ms: AtomicU64,
    /// The same without parked points, of which `order` knows more.
    pub oldest_unparked_ms: AtomicU64,
    /// The backend does not take something that the courier holds. False again when that has been parked.
    pub failing: AtomicBool,
    /// The courier cannot make progress because of this machine: a log cannot be read.
    pub log_unreadable: AtomicBool,
    /// Or dead letters cannot be written.
    pub letters_unwritten: AtomicBool,
}

impl CourierStats {
    /// The courier cannot make progress because of this machine.
    pub fn is_stuck(&self) -> bool {
        self.log_unreadable.load(Relaxed) || self.letters_unwritten.load(Relaxed)
    }
}

impl Default for CourierStats {
    fn default() -> Self {
        let [rewriting, log_unreadable, letters_unwritten, failing] = Default::default();
        let [oldest_ms, oldest_unparked_ms] = Default::default();
        Self {
            up: AtomicBool::new(true),
            rewriting,
            oldest_ms,
            oldest_unparked_ms,
            failing,
            log_unreadable,
            letters_unwritten,
        }
    }
}

/// Where a database is noted. Several share a slot: a query of one of them may wait for points of another one.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseSlot(usize);

impl DatabaseSlot {
    pub fn of(db: &[u8]) -> Self {
        Self(crc32fast::hash(db) as usize % ACKNOWLEDGED_SLOTS)
    }
}

/// What one worker has acknowledged: by slot, the largest stamp ([`order`](crate::order)); 0 = nothing yet.
#[derive(Debug)]
pub struct LastAcknowledged(Vec<AtomicU64>);

impl Default for LastAcknowledged {
    fn default() -> Self {
        Self((0..ACKNOWLEDGED_SLOTS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl LastAcknowledged {
    /// Points up to this stamp are about to be acknowledged. Only the worker itself calls it.
    pub fn note(&self, slot: DatabaseSlot, stamp: u64) {
        self.0[slot.0].fetch_max(stamp, Release);
    }

    fn last(&self, slot: DatabaseSlot) -> u64 {
        self.0[slot.0].load(Acquire)
    }
}

/// One worker's counters.
#[derive(Debug, Default)]
pub struct WorkerStats {
    pub requests: AtomicU64,
    /// Writes that named a policy, which was ignored.
    pub rp_ignored: AtomicU64,
    /// Accepted since the start.
    pub connections: AtomicU64,
    /// Open now, as of the last sweep.
    pub connections_open: AtomicU64,
    /// Bytes of pooled body buffers, in use or kept, as of the last sweep.
    pub body_bytes: AtomicU64,
    /// Waits for acks in the last `ACK_LATENCY_SPAN`, in microseconds.
    pub ack_p50_us: AtomicU64,
    pub ack_p99_us: AtomicU64,
    pub ack_max_us: AtomicU64,
    /// True from when the log is open and the worker accepts connections; false again when its log is poisoned.
    pub ready: AtomicBool,
    /// The log takes no writes until a restart: it is poisoned.
    pub log_failed: AtomicBool,
    /// Cursors and ledgers could not be saved when that was last tried.
    pub state_unsaved: AtomicBool,
    /// Version of the placement that the worker uses. Stored with release ordering: a thread that reads it with acquire
    /// ordering knows that every later request of this worker uses this version.
    pub placement_version: AtomicU64,
    /// What it has acknowledged last, by database.
    pub acknowledged: LastAcknowledged,
    /// By `BackendId`: points in this worker's logs that the backend has not received.
    pub queued_points: Vec<AtomicU64>,
}

/// What decides how queries use one backend. Written by all threads.
#[derive(Debug, Default)]
pub struct ReadStats {
    /// The last probe failed.
    pub down: AtomicBool,
    /// Queries in progress on this backend.
    pub running: AtomicU64,
}

/// Packets of line protocol that came to one address. Written by all workers.
#[derive(Debug, Default)]
pub struct UdpStats {
    pub packets: AtomicU64,
    /// Packets of which no line was taken, for another cause than bad lines.
    pub packets_refused: AtomicU64,
    /// Packets that the kernel had no room for.
    pub packets_lost: AtomicU64,
    pub lines_refused: AtomicU64,
}

/// All workers' counters.
#[derive(Debug, Default)]
pub struct Stats {
    pub workers: Vec<WorkerStats>,
    /// Indexed by `BackendId`.
    pub couriers: Vec<CourierStats>,
    /// Indexed by `BackendId`.
    pub reads: Vec<ReadStats>,
    /// By address, as in the settings.
    pub udp: Vec<UdpStats>,
    /// By circle: its data is being moved, so reads prefer other circles.
    pub migrating: Vec<AtomicBool>,
    /// The data of any circle is being moved. Statements that remove data are then refused, since a copy could bring
    /// the data back. A migration sets this before it reads `removing`; a statement raises `removing` before it reads
    /// this (sequentially consistent), so at least one of them sees the other.
    pub moving: AtomicBool,
    /// Statements in progress that remove data.
    pub removing: AtomicU64,
    /// The lowest version of the backends that are up, packed (`http::version`); 0 = none has told its own.
    pub influxdb_version: AtomicU64,
    /// Set when the process stops, for workers that the control thread can no longer reach.
    pub stopping: AtomicBool,
    /// influx-proxy's cache files are not yet all in the log. Writes wait until they are.
    pub importing: AtomicBool,
}

impl Stats {
    pub fn new(workers: usize, backends: usize, circles: usize) -> Self {
        let worker =
            || WorkerStats { queued_points: (0..backends).map(|_| AtomicU64::new(0)).collect(), ..Default::default() };
        Self {
            workers: (0..workers).map(|_| worker()).collect(),
            couriers: (0..backends).map(|_| CourierStats::default()).collect(),
            reads: (0..backends).map(|_| ReadStats::default()).collect(),
            udp: Vec::new(),
            migrating: (0..circles).map(|_| AtomicBool::new(false)).collect(),
            moving: AtomicBool::new(false),
            removing: AtomicU64::new(0),
            influxdb_version: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            importing: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn with_udp(self, addresses: usize) -> Self {
        Self { udp: (0..addresses).map(|_| UdpStats::default()).collect(), ..self }
    }

    /// The largest stamp that any worker has acknowledged of a database; 0 = none since the start.
    pub fn last_acknowledged(&self, slot: DatabaseSlot) -> u64 {
        self.workers.iter().map(|worker| worker.acknowledged.last(slot)).max().unwrap_or(0)
    }

    /// Points queued for `backend` over all workers.
    pub fn queued_points(&self, backend: usize) -> u64 {
        self.workers.iter().map(|w| w.queued_points[backend].load(Relaxed)).sum()
    }
}

//! Counters a worker writes and the control thread reads. Relaxed atomics, one writer each; no lock, no ordering is
//! promised between two of them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// One worker's view of one backend.
#[derive(Debug, Default)]
pub struct BackendStats {
    /// False after a failed write until the next success.
    pub up: AtomicBool,
    /// Points this worker still has to deliver there.
    pub queued_points: AtomicU64,
    /// True while points that waited for a failed backend are being sent.
    pub rewriting: AtomicBool,
    /// Time of the oldest record the courier has not settled, in milliseconds since 1970; `u64::MAX` = none. Begins as
    /// 0: what a worker holds that has not looked yet is not known.
    pub oldest_ms: AtomicU64,
    /// The courier cannot go on because of this machine: the log cannot be read, or dead letters cannot be written.
    pub stuck: AtomicBool,
}

/// One worker's counters.
#[derive(Debug, Default)]
pub struct WorkerStats {
    pub requests: AtomicU64,
    /// Taken since the start.
    pub connections: AtomicU64,
    /// Open now, as of the last sweep.
    pub connections_open: AtomicU64,
    /// Bytes of pooled body buffers, in use or kept, as of the last sweep.
    pub body_bytes: AtomicU64,
    /// Waits for acks in the last `ACK_LATENCY_SPAN`, in microseconds.
    pub ack_p50_us: AtomicU64,
    pub ack_p99_us: AtomicU64,
    pub ack_max_us: AtomicU64,
    /// True once the log is open and the worker accepts; false again when its log is poisoned.
    pub ready: AtomicBool,
    /// Version of the placement it goes by. Stored with release ordering: who has seen it (acquire) knows that every
    /// request this worker takes from then on goes by it.
    pub placement_version: AtomicU64,
    /// Indexed by `BackendId`.
    pub backends: Vec<BackendStats>,
}

/// What queries go by, for one backend. Written by all threads.
#[derive(Debug, Default)]
pub struct ReadStats {
    /// The last probe failed.
    pub down: AtomicBool,
    /// Queries under way there.
    pub running: AtomicU64,
}

/// All workers' counters.
#[derive(Debug, Default)]
pub struct Stats {
    pub workers: Vec<WorkerStats>,
    /// Indexed by `BackendId`.
    pub reads: Vec<ReadStats>,
    /// By circle: its data is being moved, so that reads go elsewhere if they can.
    pub migrating: Vec<AtomicBool>,
    /// Data is being moved, in any circle: what is removed meanwhile might come back with a copy, so nothing is. Set
    /// before a migration looks at `removing`, which statements raise before they look here (sequentially consistent):
    /// one sees the other.
    pub moving: AtomicBool,
    /// Statements under way that remove data.
    pub removing: AtomicU64,
    /// Set when the process stops, for workers that the control thread can no longer tell.
    pub stopping: AtomicBool,
}

impl Stats {
    pub fn new(workers: usize, backends: usize, circles: usize) -> Self {
        let worker = || WorkerStats {
            backends: (0..backends).map(|_| BackendStats { up: AtomicBool::new(true), ..Default::default() }).collect(),
            ..Default::default()
        };
        Self {
            workers: (0..workers).map(|_| worker()).collect(),
            reads: (0..backends).map(|_| ReadStats::default()).collect(),
            migrating: (0..circles).map(|_| AtomicBool::new(false)).collect(),
            moving: AtomicBool::new(false),
            removing: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        }
    }

    /// When the oldest point was taken that a backend has not got, in milliseconds since 1970; `u64::MAX` = there is
    /// none.
    pub fn oldest_ms(&self, backend: usize) -> u64 {
        self.workers.iter().map(|w| w.backends[backend].oldest_ms.load(Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// Points queued for a backend over all workers.
    pub fn queued_points(&self, backend: usize) -> u64 {
        self.workers.iter().map(|w| w.backends[backend].queued_points.load(Relaxed)).sum()
    }
}

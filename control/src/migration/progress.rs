//! The progress of a migration: counters that copy threads increase and any thread may read.

use std::sync::atomic::AtomicU64;

/// Counters never decrease.
#[derive(Debug, Default)]
pub struct Progress {
    /// Points written. Points of a repeated slice count again.
    pub points: AtomicU64,
    /// Line protocol written, in bytes.
    pub bytes: AtomicU64,
    /// Slices known so far. A large slice is cut into several when its turn comes.
    pub slices_total: AtomicU64,
    /// Slices verified, now or before (`CopyTask::done`).
    pub slices_done: AtomicU64,
    pub slices_failed: AtomicU64,
    /// Points that a target refused.
    pub points_refused: AtomicU64,
    /// Points of the source that are older than their policy's duration and not, or not equally, at the target, which
    /// refuses such points. They are left out.
    pub points_expired: AtomicU64,
    /// Calls that were tried again.
    pub retries: AtomicU64,
    /// Most bytes of answers and lines that one copy thread has held at a time.
    pub held_bytes_max: AtomicU64,
}

//! The progress of a migration: counters that the copy threads raise and anybody may read.

use std::sync::atomic::AtomicU64;

/// All only rise.
#[derive(Debug, Default)]
pub struct Progress {
    /// Points written; those of a slice that is copied again count again.
    pub points: AtomicU64,
    /// Line protocol written, in bytes.
    pub bytes: AtomicU64,
    /// Slices known so far: a large one becomes several when it is come to.
    pub slices_total: AtomicU64,
    /// Slices verified, now or before (`Task::done`).
    pub slices_done: AtomicU64,
    pub slices_failed: AtomicU64,
    /// Points that a target refused.
    pub points_refused: AtomicU64,
    /// Calls that were tried again.
    pub retries: AtomicU64,
    /// Most bytes that one copy thread has held of answers and lines at a time.
    pub held_bytes_max: AtomicU64,
}

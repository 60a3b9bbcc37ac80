//! What a migration is asked to do, and the types that describe its progress. Plain data.
//!
//! Not here: the job itself (`job.rs`), its tasks (`plan.rs`).

use std::collections::BTreeMap;

use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::topology::BackendId;
use serde::{Deserialize, Serialize};

use super::plan::Goal;

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub goal: Goal,
    /// Empty = all.
    pub dbs: Vec<String>,
    /// Measurements copied at a time.
    pub cpus: usize,
    /// Only points at or after this time are copied.
    pub since_ns: Option<i64>,
    /// Bytes per second over all threads of the job; None = as fast as it goes.
    pub rate: Option<u64>,
    /// `host:port` of all proxies, this one perhaps among them.
    pub ha_addrs: Vec<String>,
}

/// The phase of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Running,
    Done,
    Failed,
    Cancelled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    Waiting,
    Running,
    /// Copied and verified.
    Done,
    Failed,
}

/// What a job knows of a backend. influx-proxy's other counters follow from the tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub circle: usize,
    pub name: String,
    pub url: String,
    /// By database: its measurements.
    pub databases: BTreeMap<String, u64>,
}

/// Why points accepted earlier are not all delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    Cancelled,
    /// Not in time. The text names the backend.
    Late(String),
    /// Another proxy has not said for so long what it holds that it is not waited for any more. The text names it.
    Gone(String),
}

/// A measurement that is complete at its owner once all points accepted before `at_ms` (since 1970) are delivered
/// there.
#[derive(Debug)]
pub struct Verified {
    pub circle: usize,
    pub place: Place,
    pub owner: BackendId,
    pub at_ms: u64,
}

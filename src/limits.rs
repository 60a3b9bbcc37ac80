//! Limits of the program around the data plane, each with what happens when it is reached. Not here: those of
//! `control` and `dataplane`, and those of `lab`, which bound a test or a demo only.

use std::time::Duration;

/// Time for workers to stop after a signal. Then the process ends; all acknowledged points are in the logs.
pub const STOP_TIMEOUT: Duration = Duration::from_millis(4500);
/// `drain`: how often it looks whether everything is delivered, and how often it tells what is left.
pub const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(50);
pub const DRAIN_TELL_INTERVAL: Duration = Duration::from_secs(5);
/// Locked memory that the rings of one executor need. If the process may lock less, it does not start.
pub const MEMLOCK_PER_WORKER_BYTES: u64 = 1024 * 1024;
/// Descriptors asked for; connections, segments and backends share them. If fewer are allowed, fewer connections are
/// accepted.
pub const NOFILE_WANTED: u64 = 1 << 20;
/// Descriptors kept from connections: for the process with its probes, queries and migrations; for a worker's rings and
/// log; for a worker's requests to one backend and its backlog.
pub const NOFILE_OF_PROCESS: u64 = 64;
pub const NOFILE_OF_WORKER: u64 = 24;
pub const NOFILE_OF_BACKEND_PER_WORKER: u64 = 13;
/// Connections may have one part in this many of all descriptors, even when that leaves less for the others.
pub const NOFILE_CLIENTS_MIN_PART: u64 = 4;
/// `migrate`: time for one answer of the proxy, which asks other proxies before a start. Longer: it counts as down.
pub const MIGRATE_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// `migrate`: bytes of one answer; some dozens of migrations with up to 100 errors each. Longer: the command fails.
pub const MIGRATE_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// `migrate`: a watched proxy may be down for this long, which is more than a restart takes. Longer: the command fails.
pub const MIGRATE_AWAY_MAX: Duration = Duration::from_secs(60);

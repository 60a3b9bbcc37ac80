//! Every bound of the control thread, each with what happens when it is reached.

use std::time::Duration;

/// A probe without an answer: the backend is down. The check interval, but at least this.
pub const PROBE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Between two probes of one backend, however often workers report that it fails.
pub const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// One try to connect when one address out of several has to be chosen. Longer: the next address.
pub const ADDRESS_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// One SHOW to a backend, whole answer included. Longer: what was known about it before stays.
pub const SHOW_TIMEOUT: Duration = Duration::from_secs(2);
/// Databases and policies of a backend are asked for again this often.
pub const CATALOG_INTERVAL: Duration = Duration::from_secs(10);
/// A round of questions ends then, with what has arrived: SHOW DATABASES and SHOW RETENTION POLICIES after it.
pub const ROUND_DEADLINE: Duration = Duration::from_secs(5);
/// From the start of one round to that of the next. Who asks earlier waits.
pub const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Measurements of a backend are counted again this often at most ...
pub const LOAD_INTERVAL: Duration = Duration::from_secs(10);
/// ... and only while `/health` has been asked for within this time.
pub const LOAD_WANTED: Duration = Duration::from_secs(60);
/// One SHOW MEASUREMENTS. Longer: the counts from before stay.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Statements in one request. More: further requests.
pub const STATEMENTS_MAX: usize = 100;
/// A backend's answer to statements. Longer: as if it had not answered.
pub const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What is read of the body of a failure. Longer: its text is left out.
pub const FAILURE_BODY_BYTES_MAX: u64 = 64 * 1024;
/// What is kept of the text of a failure, for the log. Longer: cut.
pub const FAILURE_TEXT_CHARS_MAX: usize = 512;

/// CREATE DATABASE and CREATE RETENTION POLICY.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Creations under way at a time. More: answered as failed, the courier holds its points and asks again.
pub const CREATES_MAX: usize = 8;

/// A worker's ledger. Longer: the answer names the worker as missing.
pub const LEDGER_DEADLINE: Duration = Duration::from_secs(2);
/// `/ledger` requests under way at a time. More: 503.
pub const LEDGERS_MAX: usize = 16;

/// Reports of probes and jobs waiting for the control thread. More: they wait, nobody else does.
pub const REPORTS_MAX: usize = 1024;
/// Longest sleep of the control thread.
pub const TICK_MAX: Duration = Duration::from_secs(1);

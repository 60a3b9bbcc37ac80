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

/// Queries that are merged, or change something, at a time. More: 503.
pub const MERGES_MAX: usize = 32;
/// Backends asked at a time by one request. More: they take turns.
pub const CALLS_AT_A_TIME: usize = 16;
/// One try to connect for a query. Longer: another circle is asked.
pub const QUERY_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is read of an answer between two looks at whether anybody still waits for it.
pub const QUERY_READ_BYTES: usize = 256 * 1024;
/// Rows of a piece where an answer is asked for in pieces.
pub const QUERY_PIECE_ROWS: usize = 10_000;
/// One piece of an answer. Longer: as if the backend had not answered.
pub const QUERY_DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A worker's answer may come this much later than the time it was given. Longer: as if it had not answered.
pub const WORKER_GRACE: Duration = Duration::from_secs(2);
/// Lines of a SELECT INTO that are written together (InfluxDB: 10,000 points), and bytes after which they are written though they are
/// fewer.
pub const INTO_BATCH_LINES: usize = 10_000;
pub const INTO_BATCH_BYTES: usize = 1024 * 1024;

/// Pieces of a query's answer, before they are packed. Longer by less than one row: the next piece begins.
pub const ANSWER_PIECE_BYTES: usize = 256 * 1024;
/// Rows of one series in an answer that is not in pieces. More: it is marked `partial`, though it is whole, as InfluxDB 1.6 does.
pub const ROWS_UNMARKED_MAX: usize = 10_000;

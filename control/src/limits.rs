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

/// Measurements of a circle marked as moved. More: not marked; reads go to their former owners until the end.
pub const MOVED_MARKS_MAX: usize = 1_000_000;
/// A worker takes a new placement within this. Longer: a transition does not end.
pub const PLACEMENT_TAKEN_TIMEOUT: Duration = Duration::from_secs(10);
pub const PLACEMENT_TAKEN_PAUSE: Duration = Duration::from_millis(5);

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
/// Lines of a SELECT INTO that are written together (InfluxDB: 10,000 points), and bytes after which they are written
/// though they are fewer.
pub const INTO_BATCH_LINES: usize = 10_000;
pub const INTO_BATCH_BYTES: usize = 1024 * 1024;

/// Pieces of a query's answer, before they are packed. Longer by less than one row: the next piece begins.
pub const ANSWER_PIECE_BYTES: usize = 256 * 1024;
/// Rows of one series in an answer that is not in pieces. More: it is marked `partial`, though it is whole, as InfluxDB
/// 1.6 does.
pub const ROWS_UNMARKED_MAX: usize = 10_000;

/// Migrations kept after their end, by their files. More: the oldest go.
pub const MIGRATIONS_KEPT: usize = 50;
/// Migrations under way at a time. More: 503. Each circle has one at most, so this is for processes that never end.
pub const MIGRATIONS_MAX: usize = 16;
/// A migration's file is written this often while it goes on, and no more than this share of the time (1 in ...). A
/// crash repeats what was copied since.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
pub const CHECKPOINT_SHARE: u32 = 20;
/// Measurements copied at a time by one migration. More are asked for: so many.
pub const MIGRATION_THREADS_MAX: usize = 64;
/// Errors of one migration that are told by `/migrate/jobs`. More: only counted, and in the migration log.
pub const MIGRATION_ERRORS_MAX: usize = 100;
/// Measurements that are told of one migration, the unfinished ones first. More: only counted.
pub const MIGRATION_SHOWN_MAX: usize = 10_000;
/// Asking a backend for its databases and measurements is repeated this often. Then: the migration goes on without it,
/// and fails in the end.
pub const INVENTORY_ATTEMPTS: u32 = 5;
pub const INVENTORY_PAUSE: Duration = Duration::from_secs(1);
/// A clear looks again at a measurement that is still being written to at the wrong place, this often. Then: it stays,
/// and the clear fails.
pub const CLEAR_ATTEMPTS: u32 = 5;
pub const CLEAR_PAUSE: Duration = Duration::from_secs(1);
/// Points acknowledged before a migration began are waited for this long. Longer: it goes on; a rebalance fails in the
/// end.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Reads are switched over to measurements that have been moved this often: each time all marks are written.
pub const MARK_INTERVAL: Duration = Duration::from_secs(2);
/// A rebalance looks again for measurements at wrong places until there are none, at most so often. Then: it fails.
pub const REBALANCE_PASSES: usize = 5;
/// Longest sleep of a migration's thread between two looks at whether it is to end or to pause.
pub const MIGRATION_STEP: Duration = Duration::from_millis(100);

/// The migration log: bytes of one file, and how many files. More: the oldest goes.
pub const MIGRATION_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
pub const MIGRATION_LOG_FILES: usize = 5;

/// One call to another proxy. Longer: tried again.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Another proxy's answer, and circles in it. Larger: taken for no answer; left out.
pub const PEER_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
pub const PEER_CIRCLES_MAX: usize = 1024;
/// While a migration goes on, other proxies are told so, and tell what they still hold, this often.
pub const PEER_REMINDER: Duration = Duration::from_millis(500);
/// Before a call to another proxy is repeated: doubling from the one to the other.
pub const PEER_PAUSE_MIN: Duration = Duration::from_millis(200);
pub const PEER_PAUSE_MAX: Duration = Duration::from_secs(10);
/// When a migration has been cancelled, its other proxies are told for this long. Longer: it ends with an error.
pub const PEER_CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Proxies of one call. More: 400.
pub const PEERS_MAX: usize = 64;

/// Values (fields of points) of one slice of a migration. More: it is cut, down to one nanosecond. A slice is what is
/// read by one statement, verified and noted as done at a time.
pub const SLICE_VALUES_MAX: u64 = 200_000;
/// Parts a slice is cut into at a time. More are needed: parts are cut again.
pub const SLICE_PARTS_MAX: u64 = 256;
/// Values of one piece of an answer that is copied; pieces have as many rows as that allows ...
pub const MIGRATION_PIECE_VALUES: u64 = 20_000;
/// ... and at most these bytes. Longer: the slice is read again in pieces of fewer rows.
pub const MIGRATION_PIECE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines of one write of a migration, and bytes after which it is sent though it has fewer.
pub const MIGRATION_WRITE_LINES: usize = 10_000;
pub const MIGRATION_WRITE_BYTES: usize = 1024 * 1024;
/// Reading one slice, writing what was read included. Longer: another attempt. It bounds the rate limit below: what a
/// slice holds must get through in this time.
pub const SLICE_TIMEOUT: Duration = Duration::from_secs(600);
/// Attempts to copy a slice and find it whole; one that leaves open less than half of what was open before does not
/// count. More: it has failed.
pub const SLICE_ATTEMPTS: u32 = 3;
/// Looks at a slice after each copy of it, while clients write to it. More: what is still open is copied again.
pub const SLICE_LOOKS: u32 = 2;
/// Values of the target that are kept while the source's are not all read yet. More: the target waits.
pub const LOOK_EARLY_MAX: usize = 2 * SLICE_VALUES_MAX as usize;
/// Before a look the source must have got what had been taken until then, within this time. Longer: the slice has
/// failed.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(60);
/// The target is waited for so long. Longer: what is still on its way there may be open, and is looked for again.
pub const BARRIER_TARGET_TIMEOUT: Duration = Duration::from_secs(2);
/// From the first pause between two looks at whether all has been delivered; doubled up to `MIGRATION_STEP`.
pub const BARRIER_STEP_MIN: Duration = Duration::from_millis(2);
/// Waits for deliveries that are longer than this are shown.
pub const BARRIER_QUIET: Duration = Duration::from_secs(1);
/// A backend that sends not a byte of a slice for so long: another attempt.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// One write of a migration. Longer: another try.
pub const MIGRATION_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// One count over a slice, or a statement about shards and policies. Longer: another try.
pub const MIGRATION_QUERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Between tries of one call of a migration: doubled from the first to the second.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(100);
pub const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// How long calls of a migration are tried again while a backend does not take them. Longer: the migration of the
/// measurement has failed.
pub const RETRY_FOR: Duration = Duration::from_secs(120);
/// Points that expire within this time (clocks of servers differ) are not counted when a slice is verified.
pub const EXPIRY_MARGIN: Duration = Duration::from_secs(60);
/// Failed slices of one measurement that are kept with their reasons. More: only counted.
pub const SLICE_FAILURES_KEPT: usize = 100;
/// One wait for a migration's rate limit. Longer: it looks again after this time.
pub const RATE_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Longest sleep of a migration between two looks at whether it goes on.
pub const MIGRATION_NAP: Duration = Duration::from_millis(50);

/// Rows read from msgpack lie in buffers of this size, many in one. Full: the next one begins.
pub const MSGPACK_ROWS_BYTES: usize = 64 * 1024;
/// Depth of values under names that are not known. More: the answer is malformed.
pub const MSGPACK_DEPTH_MAX: usize = 32;
/// Elements that a length may make us reserve room for before they have been seen. More: room is made as they come.
pub const MSGPACK_RESERVED_MAX: usize = 1024;

/// A CPU profile takes so long where the request does not say, or says what is no number, as in Go.
pub const PROFILE_SECONDS_DEFAULT: u64 = 30;
/// The sampler's own functions are among this many innermost ones of a stack, inlined or not. Further out: they stay.
pub const PROFILE_OWN_FRAMES_MAX: usize = 8;

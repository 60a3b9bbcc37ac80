//! Every limit of the control thread, with what happens when it is reached.

use std::time::Duration;

/// A probe may take as long as the check interval, and at least this. Longer: the backend counts as down.
pub const PROBE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Between two probes of one backend, however often workers report that it fails.
pub const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(200);
/// The name of a backend is looked up again after this long, besides after each failure. Then workers get the
/// address if it has changed.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);
/// One attempt to connect when a host has several addresses. Longer: the next address is tried.
pub const ADDRESS_CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// One SHOW statement, until its whole answer has arrived. Longer: the catalog keeps the older answer.
pub const SHOW_TIMEOUT: Duration = Duration::from_secs(2);
/// Databases and policies of a backend are asked for again this often.
pub const CATALOG_INTERVAL: Duration = Duration::from_secs(10);
/// All calls about the databases of one backend. Longer: as above.
pub const CATALOG_TIMEOUT: Duration = Duration::from_secs(60);
/// A catalog refresh (SHOW DATABASES, then SHOW RETENTION POLICIES) ends after this time with what has arrived.
pub const ROUND_DEADLINE: Duration = Duration::from_secs(5);
/// Between the starts of two catalog refreshes. Requests that come earlier wait, except changes of structure.
pub const ROUND_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Measurements of a backend are counted at most this often ...
pub const LOAD_INTERVAL: Duration = Duration::from_secs(10);
/// ... and only while `/health` has been asked for within this time.
pub const LOAD_WANTED: Duration = Duration::from_secs(60);
/// One SHOW MEASUREMENTS. Longer: the counts from before stay.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// All of them, for one backend. Longer: the counts from before stay.
pub const LOADS_TIMEOUT: Duration = Duration::from_secs(600);
/// The first start asks all backends for their measurements with a backslash. Longer: as if they had none.
pub const SURVEY_TIMEOUT: Duration = Duration::from_secs(10);
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
/// Creations under way at a time. More: answered as failed; the courier keeps its points and asks again.
pub const CREATES_MAX: usize = 8;

/// A worker's ledger. Longer: the answer names the worker as missing.
pub const LEDGER_DEADLINE: Duration = Duration::from_secs(2);
/// `/ledger` requests under way at a time. More: 503.
pub const LEDGERS_MAX: usize = 16;

/// Events of one kind in the control thread's queue. More: the thread that sends one waits.
pub const REPORTS_MAX: usize = 1024;
/// Longest sleep of the control thread.
pub const TICK_MAX: Duration = Duration::from_secs(1);

/// Measurements of a circle marked as moved. More: not marked; reads go to their former owners until the end.
pub const MOVED_MARKS_MAX: usize = 1_000_000;
/// A worker takes a new placement within this. Longer: a transition does not end.
pub const PLACEMENT_TAKEN_TIMEOUT: Duration = Duration::from_secs(10);
pub const PLACEMENT_TAKEN_PAUSE: Duration = Duration::from_millis(5);

/// Queries that are merged, or change something, at a time. More: they wait, within `query_timeout`.
pub const MERGES_MAX: usize = 32;
/// Queries that wait for that, and the bytes of their texts. More: 503.
pub const MERGES_WAITING_MAX: usize = 1024;
pub const MERGES_WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a client that waits for a merged answer must read. Slower: it is behind ...
pub const ANSWER_BYTES_PER_SECOND_MIN: usize = 256 * 1024;
/// ... and when it is behind by this, its answer is given up if another query needs the memory.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// A query waits this long for memory that others will return. Longer: it is refused.
pub const MEMORY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Queries that hold at most this part of the memory (1 in ...) are small; the second part is for small ones alone.
/// More than the rest: the others wait.
pub const MEMORY_SMALL_SHARE: usize = 64;
pub const MEMORY_FOR_SMALL_SHARE: usize = 8;
/// When merged queries have freed so much, memory goes back to the system, at most once in this time.
pub const MEMORY_BACK_BYTES: usize = 4 * 1024 * 1024;
pub const MEMORY_BACK_INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks for memory that has become free.
pub const MEMORY_PAUSE: Duration = Duration::from_millis(10);
/// What the parsing of an answer is expected to take for each array and object in its text, until the answer itself can
/// be measured. More: the memory of merged queries exceeds its bound for that long.
pub const PARSED_ARRAY_BYTES: usize = 64;
pub const PARSED_OBJECT_BYTES: usize = 512;
/// What a msgpack document is expected to take as rows, as a multiple of its length. More: as above.
pub const PARSED_MSGPACK_FACTOR: usize = 6;
/// Backends asked at a time by one request. More: they take turns.
pub const CALLS_AT_A_TIME: usize = 16;
/// Statements of one request that are tried before their turn, so that their questions are asked together. More: tried
/// when these are answered.
pub const AHEAD_STATEMENTS_MAX: usize = 1000;
/// Texts of the questions that they ask together. More: asked in the next round.
pub const AHEAD_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Rounds of tries and questions: most statements need one or two. More: what is left is asked at its turn.
pub const AHEAD_ROUNDS_MAX: usize = 8;
/// Requests for what follows an error in such a request, one after the other. More: as above.
pub const AHEAD_ATTEMPTS: usize = 3;
/// Questions of a round that are asked alone, since an error was about them. More: as above.
pub const AHEAD_ALONE_MAX: usize = 64;
/// One try to connect for a query. Longer: another circle is asked.
pub const QUERY_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Types of functions that are remembered, and for how long. More or older: backends are asked again.
pub const FUNCTION_TYPES_MAX: usize = 1024;
pub const FUNCTION_TYPES_AGE: Duration = Duration::from_secs(600);
/// Bytes read of an answer between two checks whether the client still waits.
pub const QUERY_READ_BYTES: usize = 256 * 1024;
/// Rows of a piece where an answer is asked for in pieces.
pub const QUERY_PIECE_ROWS: usize = 10_000;
/// One piece of an answer. Longer: as if the backend had not answered.
pub const QUERY_DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A worker's answer may come this much later than the timeout it was given. Longer: it counts as no answer.
pub const WORKER_GRACE: Duration = Duration::from_secs(2);
/// Lines of a SELECT INTO that are written together (InfluxDB: 10,000 points), and the bytes at which a write begins
/// with fewer lines.
pub const INTO_BATCH_LINES: usize = 10_000;
pub const INTO_BATCH_BYTES: usize = 1024 * 1024;

/// Size of the pieces of a query's answer before compression. A piece ends after the row that reaches it.
pub const ANSWER_PIECE_BYTES: usize = 256 * 1024;
/// Rows of one series in an answer without chunks. More: it is marked `partial` although it is complete, as in InfluxDB
/// 1.6.
pub const ROWS_UNMARKED_MAX: usize = 10_000;

/// Files of finished migrations that are kept. More: the oldest are deleted.
pub const MIGRATIONS_KEPT: usize = 50;
/// Migrations under way at a time. More: 503. Each circle has at most one, so only migrations that never end reach it.
pub const MIGRATIONS_MAX: usize = 16;
/// The file of a running migration is written this often, and takes at most this share of the time (1 in ...). After a
/// crash the work since the last write is repeated.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
pub const CHECKPOINT_SHARE: u32 = 20;
/// Measurements that one migration copies at a time. More requested: it uses this number.
pub const MIGRATION_THREADS_MAX: usize = 64;
/// Errors of one migration that `/migrate/jobs` lists. More: only counted, and in the migration log.
pub const MIGRATION_ERRORS_MAX: usize = 100;
/// Measurements of one migration that `/migrate/jobs` lists, unfinished ones first. More: only counted.
pub const MIGRATION_SHOWN_MAX: usize = 10_000;
/// Attempts to list the databases and measurements of a backend. More: the migration goes on without it and ends as
/// failed.
pub const INVENTORY_ATTEMPTS: u32 = 5;
pub const INVENTORY_PAUSE: Duration = Duration::from_secs(1);
/// Attempts to clear a measurement that is still written to at the wrong place. More: the data stays there, and the
/// clear fails.
pub const CLEAR_ATTEMPTS: u32 = 5;
pub const CLEAR_PAUSE: Duration = Duration::from_secs(1);
/// Time to deliver the points that were acknowledged before a migration began. Longer: the migration goes on, and a
/// rebalance ends as failed.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Reads switch over to moved measurements this often. Each time all marks are written.
pub const MARK_INTERVAL: Duration = Duration::from_secs(2);
/// Passes of a rebalance, each of which looks for measurements at wrong places. More: the rebalance fails.
pub const REBALANCE_PASSES: usize = 5;
/// Longest sleep of a migration's thread before it checks again for a cancel or a pause.
pub const MIGRATION_STEP: Duration = Duration::from_millis(100);

/// Bytes of one file of the migration log, and number of files. More: the oldest file is deleted.
pub const MIGRATION_LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
pub const MIGRATION_LOG_FILES: usize = 5;

/// One call to another proxy. Longer: tried again.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of another proxy's answer, and circles in it. More bytes: it counts as no answer. More circles: left out.
pub const PEER_ANSWER_BYTES_MAX: u64 = 1024 * 1024;
/// Another proxy may not answer for this long, which is more than a restart takes. Longer: a migration that has not
/// begun fails, one that is under way copies nothing more and fails, and one that has ended does not tell it.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(600);
/// influx-proxy holds a point in memory for flush_time and, while a backend does not answer, for write_timeout: so long
/// by default. Points that it took earlier are delivered or in its cache file.
pub const INFLUX_PROXY_HOLDS: Duration = Duration::from_secs(12);
pub const PEER_CIRCLES_MAX: usize = 1024;
/// While a migration runs, other proxies are told this often. They answer with what they still have to deliver.
pub const PEER_REMINDER: Duration = Duration::from_millis(500);
/// Pause before a call to another proxy is repeated; it doubles from the first value to the second.
pub const PEER_PAUSE_MIN: Duration = Duration::from_millis(200);
pub const PEER_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time to tell other proxies that a migration is cancelled. Longer: it ends with an error.
pub const PEER_CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Proxies of one call. More: 400.
pub const PEERS_MAX: usize = 64;

/// Values (fields of points) of one slice of a migration. More: it is cut, down to one nanosecond. A slice is read by
/// one statement, and verified and noted as done as a whole.
pub const SLICE_VALUES_MAX: u64 = 200_000;
/// Values of a part of a slice, which is read without a count before. More: it is counted and cut.
pub const PART_VALUES_MAX: u64 = SLICE_VALUES_MAX / 2 * 3;
/// Parts into which a slice is cut at a time. More needed: the parts are cut again.
pub const SLICE_PARTS_MAX: u64 = 256;
/// Values of one piece of an answer that is copied; pieces have as many rows as that allows ...
pub const MIGRATION_PIECE_VALUES: u64 = 20_000;
/// ... and at most these bytes. Longer: the slice is read again in pieces of fewer rows.
pub const MIGRATION_PIECE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Lines of one write of a migration, and the bytes at which it is sent with fewer lines.
pub const MIGRATION_WRITE_LINES: usize = 10_000;
pub const MIGRATION_WRITE_BYTES: usize = 1024 * 1024;
/// Writes of one copy thread that are made while another one is under way. More: the source waits.
pub const MIGRATION_WRITES_AHEAD: usize = 1;
/// Time to read one slice and write what was read. Longer: another attempt. It is also a lower bound for the rate
/// limit: a slice must get through in this time.
pub const SLICE_TIMEOUT: Duration = Duration::from_secs(600);
/// Attempts to copy a slice completely. An attempt that leaves less than half of the missing values does not count.
/// More: the slice fails.
pub const SLICE_ATTEMPTS: u32 = 3;
/// Comparisons of a slice after each copy, while clients write to it. More: what still differs is copied again.
pub const SLICE_LOOKS: u32 = 2;
/// Values of the target that are kept while those of the source are still being read. More: the target waits.
pub const LOOK_EARLY_MAX: usize = 2 * SLICE_VALUES_MAX as usize;
/// Before a comparison the source must have received all points taken until then, within this time. Longer: the slice
/// fails.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(60);
/// Time to wait until the target has received them too. Longer: what is still on its way may count as missing, and is
/// compared again.
pub const BARRIER_TARGET_TIMEOUT: Duration = Duration::from_secs(2);
/// First pause between two checks of whether all has been delivered; it doubles up to `MIGRATION_STEP`.
pub const BARRIER_STEP_MIN: Duration = Duration::from_millis(2);
/// A wait for deliveries that takes longer than this is shown to the operator.
pub const BARRIER_QUIET: Duration = Duration::from_secs(1);
/// Time in which a backend sends no byte of a slice. Longer: the slice is read again.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// One write of a migration. Longer: it is repeated.
pub const MIGRATION_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// One count over a slice, or one statement about shards and policies. Longer: it is repeated.
pub const MIGRATION_QUERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between attempts of one call of a migration; it doubles from the first value to the second.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(100);
pub const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// Time in which a failing call of a migration is repeated. Longer: the migration of the measurement fails.
pub const RETRY_FOR: Duration = Duration::from_secs(120);
/// Points that expire within this time (clocks of servers differ) are not counted when a slice is verified.
pub const EXPIRY_MARGIN: Duration = Duration::from_secs(60);
/// Failed slices of one measurement that are kept with their reasons. More: only counted.
pub const SLICE_FAILURES_KEPT: usize = 100;
/// One wait for a migration's rate limit. Longer: it checks again after this time.
pub const RATE_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Longest sleep of a copy before it checks again for a cancel or a pause.
pub const MIGRATION_NAP: Duration = Duration::from_millis(50);

/// Size of the buffers for rows read from msgpack; one buffer holds many rows. Full: the next one begins.
pub const MSGPACK_ROWS_BYTES: usize = 64 * 1024;
/// Depth of values under unknown names. More: the answer is malformed.
pub const MSGPACK_DEPTH_MAX: usize = 32;
/// Elements for which a length in msgpack reserves room in advance. More: room grows as they are read.
pub const MSGPACK_RESERVED_MAX: usize = 1024;

/// Seconds of a CPU profile when the request gives none or no number, as in Go.
pub const PROFILE_SECONDS_DEFAULT: u64 = 30;
/// The sampler's own functions are among this many innermost ones of a stack, inlined or not. Further out: they stay.
pub const PROFILE_OWN_FRAMES_MAX: usize = 8;

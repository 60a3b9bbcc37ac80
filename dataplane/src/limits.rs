//! Every bound of the data plane, each with what happens when it is reached. Together these lines are the
//! back-pressure design; nothing else in the house holds a number of this kind.

use std::time::Duration;

/// Request head. Longer: 431, connection closed.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields in a request head. More: 431, connection closed.
pub const HEADERS_MAX: usize = 64;
/// Default bound of a body after inflating, InfluxDB's own `max-body-size`. Larger: 413.
pub const BODY_BYTES_MAX_DEFAULT: u64 = 25_000_000;
/// A body up to this size is appended only after its last byte has arrived and proved good; a larger one is appended in
/// pieces, so that a failure late in it leaves unacknowledged points behind.
pub const BODY_WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of one worker for bodies beyond each connection's own buffer. At the bound a body is appended in pieces even
/// when it is small; nobody waits.
pub const BODY_POOL_BYTES: usize = 24 * 1024 * 1024;
/// A connection's own read buffer.
pub const CONN_BUFFER_BYTES: usize = 32 * 1024;
/// Longest line. Longer: that line is refused with 400.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Longest series key (measurement and tags as sent), InfluxDB's `MaxKeyLength`. Longer: that line is refused with 400.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest database or policy name (a record header holds its length in 16 bits). Longer: 400.
pub const NAME_BYTES_MAX: usize = 1024;
/// Connections of one worker. More: not accepted until one closes.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 10_000;
/// Refused lines that are listed one by one in an answer. More: only counted.
pub const REFUSED_LISTED_MAX: usize = 100;
/// Bytes of the error text of one answer. More: cut, with the number of lines left out.
pub const ERROR_TEXT_BYTES_MAX: usize = 1024 * 1024;

/// Default and smallest memory of the newest frames, per worker. Older frames are read from disk.
pub const HOT_TAIL_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
pub const HOT_TAIL_BYTES_MIN: usize = 4 * FRAME_BYTES_MAX;
/// One disk write. A full frame is closed and the next one opened; appending waits while one is being written and
/// another one is full.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest log file; smaller on small file systems, but a segment always holds a few frames.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
pub const SEGMENT_BYTES_MIN: u64 = 2 * FRAME_BYTES_MAX as u64;
/// Share of the file system the backlog may take when `backlog_max_bytes` is not set, in percent. At the bound:
/// `backlog_full`.
pub const BACKLOG_DEFAULT_PERCENT: u64 = 80;
/// Cursors and ledger are made durable this often while they move. A crash repeats at most what was confirmed since.
pub const STATE_SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// One request to a backend, before compression. Fuller: the rest goes into the next one.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// All batches of one worker's couriers together; each courier gets an equal part, at least [`BATCH_BYTES_MIN`].
pub const BATCH_POOL_BYTES: usize = 24 * 1024 * 1024;
pub const BATCH_BYTES_MIN: usize = 2 * LINE_BYTES_MAX;
/// What is read of a backend's answer to a write. Longer: the rest is ignored and the connection closed.
pub const BACKEND_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// First pause after a failed attempt to reach a backend; doubles up to `rewrite_interval`.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// A batch that failed with 5xx or a cut connection this often, while the backend otherwise answers, is taken for the cause and
/// bisected.
pub const POISON_ATTEMPTS: u32 = 3;
/// A database that exists on no backend: its points are held this long, then dead-lettered, so that they do not block
/// the backend's other databases for ever.
pub const MISSING_DB_HOLD: Duration = Duration::from_secs(60);
/// Dead letters of one backend on disk. At the bound: the oldest file goes.
pub const DEAD_LETTER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Databases with an account of their own in the ledger, and reasons per account. More: counted as "(other)".
pub const LEDGER_DATABASES_MAX: usize = 10_000;
pub const LEDGER_REASONS_MAX: usize = 16;

/// Entries of a worker's route cache. At the bound: the cache is emptied and fills again.
pub const ROUTE_CACHE_ENTRIES_MAX: usize = 65_536;
/// Bytes of all keys (database and measurement as written) of a worker's route cache. At the bound: as above.
pub const ROUTE_CACHE_KEY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests waiting for the control thread. More: 503.
pub const HANDOFF_TO_CONTROL_MAX: usize = 1024;
/// Messages waiting for one worker. More: the control thread waits for room, up to [`HANDOFF_WAIT`], then gives the
/// message up and says so.
pub const HANDOFF_TO_WORKER_MAX: usize = 1024;
pub const HANDOFF_WAIT: Duration = Duration::from_secs(5);
/// Body of an admin request. Larger: 413.
pub const ADMIN_BODY_BYTES_MAX: usize = 1024 * 1024;
/// An admin request without an answer from the control thread: 503.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// After a refresh that did not find a database, writes to it are refused without another refresh for this long.
pub const UNKNOWN_DB_CACHE: Duration = Duration::from_secs(1);
/// Stop: requests under way get this long, then connections are closed.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

const _: () = assert!(LINE_BYTES_MAX * 2 <= FRAME_BYTES_MAX, "a frame must hold the longest line");
const _: () = assert!(LINE_BYTES_MAX <= BATCH_BYTES_MIN, "a batch must hold the longest line");
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
const _: () = assert!(CONN_BUFFER_BYTES >= HEAD_BYTES_MAX, "a buffer must hold a whole head");
const _: () = assert!(KEY_BYTES_MAX < LINE_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + NAME_BYTES_MAX <= ROUTE_CACHE_KEY_BYTES_MAX, "an empty cache takes any key");

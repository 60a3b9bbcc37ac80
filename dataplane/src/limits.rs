//! Every bound of the data plane, each with what happens when it is reached. Together these lines are the
//! back-pressure design; nothing else in the house holds a number of this kind.

use std::time::Duration;

/// Request head. Longer: 431, connection closed.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields in a request head. More: 431, connection closed.
pub const HEADERS_MAX: usize = 64;
/// Chunk extensions and trailers of one body, together; they are skipped. More: 400, connection closed.
pub const CHUNK_EXTRAS_BYTES_MAX: usize = 16 * 1024;
/// File name or comment in a gzip header with its NUL, Go's bound. Longer: 400 `gzip: invalid header`.
pub const GZIP_NAME_BYTES_MAX: u32 = 512;
/// Default bound of a body after inflating, InfluxDB's own `max-body-size`. Larger: 413.
pub const BODY_BYTES_MAX_DEFAULT: u64 = 25_000_000;
/// A body up to this size is appended only after its last byte has arrived and proved good; a larger one is appended in
/// pieces, so that a failure late in it leaves unacknowledged points behind.
pub const BODY_WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of one worker for bodies beyond each connection's own buffer. At the bound a body that has a buffer is
/// appended in pieces, even when it is small; one that has none waits up to `idle_timeout`, then 503.
pub const BODY_POOL_BYTES: usize = 24 * 1024 * 1024;
/// Smallest buffer of that pool; sizes are powers of two up to [`BODY_WHOLE_BYTES_MAX`].
pub const POOL_BUFFER_BYTES_MIN: usize = 64 * 1024;
/// Buffer of a body beyond [`BODY_WHOLE_BYTES_MAX`], which takes any line. Full: its lines are appended.
pub const BODY_PIECES_BYTES: usize = 4 * LINE_BYTES_MAX;
/// Bytes scanned before their lines are appended; bounds the memory of the line index. Longer than any line, so that
/// every piece brings the scanner forward.
pub const SCAN_PIECE_BYTES: usize = 2 * LINE_BYTES_MAX;
/// A refused request's body up to this size is read and forgotten, so that the connection can go on. Larger: the
/// connection is closed.
pub const DISCARD_BYTES_MAX: usize = 256 * 1024;
/// What is read at once where speed does not matter. On the heap: a local would be part of every connection's task.
pub const SLOW_READ_BYTES: usize = 4096;
/// After a last answer the peer gets this long to read it and close.
pub const LINGER: Duration = Duration::from_millis(500);
/// Idle connections are looked for this often, so they end up to this much late.
pub const IDLE_SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Reusable helpers (line indexes, inflaters) kept per worker. More: freed.
pub const SPARES_MAX: usize = 32;
/// Pause after an accept that failed, for lack of descriptors say.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Answers of pipelined requests that wait together for one commit. More: the commit is awaited first.
pub const PIPELINED_MAX: usize = 128;
/// A connection's own read buffer.
pub const CONN_BUFFER_BYTES: usize = 32 * 1024;
/// Records of TLS that have arrived and are not opened, per connection that has one; the largest record fits (16,645
/// bytes).
pub const TLS_INPUT_BYTES: usize = 17 * 1024;
/// A message of a TLS handshake, a little above rustls's own bound. Larger: the connection is closed.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 80 * 1024;
/// Plain bytes made into TLS records at once, before they are sent. More: the rest follows.
pub const TLS_OUTPUT_BYTES: usize = 64 * 1024;
/// What a connection keeps of the memory of sent records. More: freed.
pub const TLS_OUTPUT_KEPT_BYTES: usize = 4 * 1024;
/// Longest line. Longer: that line is refused with 400.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// What an error text shows of a line that is too long. More: left out.
pub const LINE_SHOWN_BYTES_MAX: usize = 1024;
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
/// The error text in `X-Influxdb-Error`, InfluxDB's own bound. Longer: cut there; the body has all of it.
pub const ERROR_HEADER_BYTES_MAX: usize = 1024;

/// A block of influx-proxy's cache files, packed and unpacked. Larger: taken for damage.
pub const CACHE_BLOCK_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// While other logs are taken over at start and this one is full, couriers get this long to make room.
pub const ADOPT_PAUSE: Duration = Duration::from_millis(100);
/// Acks of this long, and the latest of them, make the latencies of `/ledger`. Longer waits count as the longest.
pub const ACK_LATENCY_SPAN: Duration = Duration::from_secs(10);
pub const ACK_LATENCY_MAX: Duration = Duration::from_secs(60);
/// Circles of a configuration. More: refused at start.
pub const CIRCLES_MAX: usize = 16;
/// Backends of a route: one per circle, and a second one where data is being moved. Follows from [`CIRCLES_MAX`]; a
/// record's header has room for 255.
pub const ROUTE_BACKENDS_MAX: usize = 2 * CIRCLES_MAX;
const _: () = assert!(ROUTE_BACKENDS_MAX <= u8::MAX as usize);

/// Default and smallest memory of the newest frames, per worker. Older frames are read from disk.
pub const HOT_TAIL_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
pub const HOT_TAIL_BYTES_MIN: usize = 4 * FRAME_BYTES_MAX;
/// One disk write. A full frame is closed and the next one opened; appending waits while one is being written and
/// another one is full.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest log file; smaller on small file systems, but a segment always holds a few frames.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
pub const SEGMENT_BYTES_MIN: u64 = 2 * FRAME_BYTES_MAX as u64;
/// Lines of one record of the log; the next line opens a new record. A single append above it is the caller's error. A
/// record is never split, so that it must fit into the smallest batch, and two of them into a frame.
pub const RECORD_BYTES_MAX: usize = 480 * 1024;
/// Empty segments kept for reuse. More: removed.
pub const LOG_SPARES_MAX: usize = 2;
/// One read of frames that have left the hot tail, unless a frame is longer. Each reader that lags holds one.
pub const LOG_READ_BYTES: usize = 1024 * 1024;
/// A segment remembers where a frame begins about this often; a reader that starts in between skips up to as much.
pub const LOG_MARK_BYTES: u64 = 1024 * 1024;
/// Sequences and counts of lines in a log file. More: taken for damage, since no log lives that long.
pub const LOG_SEQ_MAX: u64 = 1 << 62;
/// Damaged log files kept aside. More: only reported.
pub const LOG_DAMAGED_FILES_MAX: usize = 8;
/// Reports of damage and of dropped points waiting to be taken. More: reports of damage are given up, oldest first;
/// counts of dropped points are added up by database and backend and never given up.
pub const LOG_DAMAGE_REPORTS_MAX: usize = 1024;
/// Bytes of a state file, ledger included. Larger: not saved, the caller's error.
pub const LOG_STATE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A commit waits this long, at most, for clients that have just been acknowledged to come back.
pub const COMMIT_GATHER_MAX: Duration = Duration::from_micros(300);
/// After this long without a commit nobody is expected back, and the next commit does not wait.
pub const COMMIT_GATHER_FORGET: Duration = Duration::from_millis(5);
/// A reader that meets a rewritten segment looks again after this pause, until the list of segments says so.
pub const LOG_REPLACED_PAUSE: Duration = Duration::from_millis(1);
/// While the disk is full, space is looked for again at most this often, when somebody asks.
pub const LOG_FULL_RETRY: Duration = Duration::from_millis(100);
/// Share of a segment's bytes that must be needed still; below it, it is rewritten. In percent.
pub const LOG_LIVE_PERCENT_MIN: u64 = 50;
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
/// Room for a request's head in front of its lines; most have 200-300 bytes. Longer: it goes out in a write of its own.
pub const BATCH_HEAD_BYTES: usize = 1024;
/// A batch's memory grows by at most this much at a time, so that it stays close to the batch's length.
pub const BATCH_GROWTH_BYTES_MAX: usize = 1024 * 1024;
/// Compressed in one go, some milliseconds of the executor. Then other tasks have their turn.
pub const GZIP_PIECE_BYTES: usize = 128 * 1024;
/// What is read at once of a backend's answer to a write; most are shorter.
pub const BACKEND_ANSWER_READ_BYTES: usize = 4096;
/// What is read of a backend's answer to a write. Longer: the rest is ignored and the connection closed.
pub const BACKEND_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Head of a backend's answer, interim (1xx) heads before it included, and its header fields. More: the answer is
/// unreadable, which counts like a cut connection.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
pub const ANSWER_HEADERS_MAX: usize = 64;
/// Points written over different workers' connections arrive in order when they are further apart than this. Closer:
/// they have no order, as two clients have none.
pub const ORDER_SLACK: Duration = Duration::from_secs(1);
/// A courier of another worker that holds an older record and does not move is waited for this long.
pub const ORDER_WAIT: Duration = Duration::from_secs(20);
/// First pause after a failed attempt to reach a backend; doubles up to `rewrite_interval`.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// A batch that failed with 5xx or a cut connection this often, while the backend otherwise answers, is taken for the
/// cause and bisected.
pub const POISON_ATTEMPTS: u32 = 3;
/// A database that exists on no backend: its points are held this long, then dead-lettered, so that they do not block
/// the backend's other databases for ever.
pub const MISSING_DB_HOLD: Duration = Duration::from_secs(60);
/// Dead letters of one backend on disk. At the bound: the oldest file goes.
pub const DEAD_LETTER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files one worker's dead letters of one backend are spread over, so that the oldest file is a small part of them.
pub const DEAD_LETTER_FILES: u64 = 8;
/// What an almost empty file takes on disk. Smaller files count as this.
pub const DEAD_LETTER_FILE_BYTES_MIN: u64 = 4096;
/// Least time between the starts of two windows of a courier, unless the one before was full or somebody waits for
/// the delivery: many small appends then share a request.
pub const COURIER_PACE: Duration = Duration::from_millis(5);
/// Requests of one courier in flight, each for another (database, policy). More: they take turns.
pub const COURIER_CONNECTIONS: usize = 4;
/// (Database, policy) pairs in one window of a courier. At the bound: the window is full, the next one takes the rest.
pub const COURIER_GROUPS_MAX: usize = 64;
/// A backend that answers 413 gets smaller requests from then on, but never asked smaller than this.
pub const REQUEST_BYTES_MIN: usize = 64 * 1024;
/// A batch fails while other databases of the backend are served: for this long the backend is given the benefit of the
/// doubt, then the failing lines are dead-lettered. Lines beside which others of the same batch succeed do not wait.
pub const POISON_HOLD: Duration = Duration::from_secs(60);
/// What an operator must act on (401, 403, a wrong address, a full disk under the dead letters) is repeated in the
/// program's log this often.
pub const LOUD_INTERVAL: Duration = Duration::from_secs(60);
/// A backend's points that have waited this long for their delivery show as a backlog in `/health`, and the program's
/// log says how long they have waited, whatever the cause.
pub const STALL_AFTER: Duration = Duration::from_secs(10);
/// A courier that could not read the log, or not write dead letters, tries again after this pause.
pub const LOCAL_FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Databases with an account of their own in the ledger, and reasons per account. More: counted as "(other)".
pub const LEDGER_DATABASES_MAX: usize = 10_000;
pub const LEDGER_REASONS_MAX: usize = 16;

/// Workers, backends over all circles, points of one backend on its ring. More: the configuration is refused.
pub const WORKERS_MAX: usize = 256;
pub const BACKENDS_MAX: usize = 1024;
pub const VNODES_MAX: u32 = 65_536;
/// A backend's name is also the name of files. Longer: the configuration is refused.
pub const BACKEND_NAME_BYTES_MAX: usize = 200;
/// Longest `commit_linger_us` and longest of all other configured times. Longer: the configuration is refused.
pub const COMMIT_LINGER_MAX: Duration = Duration::from_secs(1);
pub const SETTING_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Smallest `backlog_max_bytes` of one worker: a segment that is read and one that is written. Less: the configuration
/// is refused.
pub const BACKLOG_BYTES_PER_WORKER_MIN: u64 = 2 * SEGMENT_BYTES_MIN;

/// Entries of a worker's route cache. At the bound: the cache is emptied and fills again.
pub const ROUTE_CACHE_ENTRIES_MAX: usize = 65_536;
/// Bytes of all keys (database and measurement as written) of a worker's route cache. At the bound: as above.
pub const ROUTE_CACHE_KEY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Slots looked at for one key of the route cache; longer runs do not happen by themselves in a table half full. At the
/// bound: the rings are asked each time.
pub const ROUTE_CACHE_PROBES_MAX: usize = 64;
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
/// Longest CPU profile. Longer: 400. Its request waits this much longer than others for its answer.
pub const PROFILE_MAX: Duration = Duration::from_secs(300);
/// Creating a database at a backend. Longer: asked again later.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// A catalog refresh that takes longer: the write is accepted and held rather than lost.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
/// Databases and policies remembered as unknown. More: forgotten all at once.
pub const UNKNOWN_DB_ENTRIES_MAX: usize = 10_000;
/// After a refresh that did not find a database, writes to it are refused without another refresh for this long.
pub const UNKNOWN_DB_CACHE: Duration = Duration::from_secs(1);
/// A backend whose oldest undelivered point has waited no longer counts as up to date: couriers always have something
/// under way. Longer: other backends are asked first, and an answer carries `X-Fluxgate-Stale`.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// Couriers hold still for a change of structure this long at most, from when they have nothing older left. Longer:
/// newer points are delivered, and may reach a backend before the change does.
pub const HOLD_MAX: Duration = Duration::from_secs(60);
/// While couriers drain, it is looked this often whether they are done, besides at each move of a cursor.
pub const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What is kept of a backend's text when it refuses points. Longer: cut.
pub const REFUSAL_TEXT_CHARS_MAX: usize = 1024;
/// What a line of the program's log shows of such a text. Longer: cut.
pub const LOGGED_TEXT_CHARS_MAX: usize = 300;
/// Stop: requests under way get this long, then connections are closed.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Text of a query, all statements of a request together. Longer: 400.
pub const QUERY_BYTES_MAX: usize = 1024 * 1024;
/// Parentheses, calls and subqueries inside each other in a query. More: 400. Readers of the tree recurse as deep as it
/// is.
pub const QUERY_NESTING_MAX: usize = 64;
/// Height of an expression's tree, which a chain of operators gives as well: so many `OR`s in a row. More: 400.
pub const QUERY_EXPR_HEIGHT_MAX: usize = 1024;

/// Form of a query in a body, Go's own bound. Larger: 413, connection closed.
pub const QUERY_BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Forms beyond [`QUERY_BODY_SMALL_BYTES`] that one worker holds at a time. More: 503.
pub const QUERY_BODIES_LARGE_MAX: usize = 4;
pub const QUERY_BODY_SMALL_BYTES: usize = 64 * 1024;
/// Rows of one piece of a chunked answer when `chunk_size` is not given or bad, as in InfluxDB.
pub const QUERY_CHUNK_ROWS_DEFAULT: usize = 10_000;
/// What is held of an answer that is passed on, once as received and once as sent. At the bound: the backend waits
/// until the client has taken it.
pub const QUERY_BUFFER_BYTES: usize = 64 * 1024;
/// Connecting to a backend for a query. Longer: the next backend is asked.
pub const QUERY_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections to one backend that a worker keeps between queries, and for how long. More, older: closed.
pub const QUERY_KEPT_CONNECTIONS_MAX: usize = 8;
pub const QUERY_KEPT_CONNECTION_AGE_MAX: Duration = Duration::from_secs(30);
/// What a text about a failed backend shows of the backend's own words. More: cut.
pub const QUERY_FAILURE_SHOWN_BYTES_MAX: usize = 200;
/// Smallest `query_memory_bytes`. Less: the configuration is refused.
pub const QUERY_MEMORY_BYTES_MIN: usize = 1024 * 1024;
/// The control thread answers within `query_timeout` by itself; so much later it is given up: 503.
pub const QUERY_CONTROL_GRACE: Duration = Duration::from_secs(5);

const _: () = assert!(LINE_BYTES_MAX * 2 <= FRAME_BYTES_MAX, "a frame must hold the longest line");
const _: () = assert!(LINE_BYTES_MAX <= BATCH_BYTES_MIN, "a batch must hold the longest line");
const _: () = assert!(REQUEST_BYTES_MIN <= BATCH_BYTES_MIN && BATCH_BYTES_MIN <= BATCH_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
const _: () = assert!(LINE_BYTES_MAX < RECORD_BYTES_MAX, "a record must hold the longest line");
const _: () = assert!(RECORD_BYTES_MAX <= BATCH_BYTES_MIN, "a batch must hold the longest record");
const _: () = assert!(RECORD_BYTES_MAX + 4 * NAME_BYTES_MAX <= FRAME_BYTES_MAX / 2, "a frame must hold two records");
const _: () = assert!(CONN_BUFFER_BYTES >= HEAD_BYTES_MAX, "a buffer must hold a whole head");
const _: () = assert!(KEY_BYTES_MAX < LINE_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + NAME_BYTES_MAX <= ROUTE_CACHE_KEY_BYTES_MAX, "an empty cache takes any key");
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize, "places in a head are 16 bits wide");
const _: () = assert!(ANSWER_HEAD_BYTES_MAX <= u16::MAX as usize, "places in a head are 16 bits wide");

//! Every bound of the data plane, each with what happens when it is reached. Together they are the back-pressure
//! design. No other file of this crate defines a bound.

use std::time::Duration;

/// A request head has this long from its first byte, whatever arrives meanwhile. Longer: 408, connection closed.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Time that a request waits for its body, all waits together: [`BODY_PATIENCE`], and a second more for each
/// [`BODY_BYTES_PER_SECOND_MIN`] that arrive. At no moment more than [`BODY_PATIENCE`] or `idle_timeout`, whichever is
/// longer, is left. At the end: 408, connection closed.
pub const BODY_PATIENCE: Duration = Duration::from_secs(10);
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 1024;
/// A client must take this much of an answer within `idle_timeout`. Less: connection closed.
pub const SEND_PIECE_BYTES: usize = 64 * 1024;
/// Request head. Longer: 431, connection closed.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Head of a GET of `/query`, whose text is in the target; Go's own bound. What does not fit the connection's buffer is
/// part of the memory for bodies. Longer: 431, connection closed.
pub const QUERY_HEAD_BYTES_MAX: usize = 1024 * 1024;
/// Header fields in a request head. More: 431, connection closed.
pub const HEADERS_MAX: usize = 64;
/// Chunk extensions and trailers of one body, together; their contents are ignored. More: 400, connection closed.
pub const CHUNK_EXTRAS_BYTES_MAX: usize = 16 * 1024;
/// File name or comment in a gzip header, including its NUL; Go's bound. Longer: 400 `gzip: invalid header`.
pub const GZIP_NAME_BYTES_MAX: u32 = 512;
/// Default bound of a body after decompression, InfluxDB's own `max-body-size`. Larger: 413.
pub const BODY_BYTES_MAX_DEFAULT: u64 = 25_000_000;
/// A body up to this size is appended to the log only after all of it has arrived and is valid. A larger one is
/// appended in pieces, so that a late failure leaves unacknowledged points in the log.
pub const BODY_WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Memory of one worker for bodies beyond each connection's own buffer. At the bound: a body that already has a buffer
/// is appended in pieces, even a small one; a body without a buffer waits up to `idle_timeout`, then 503.
pub const BODY_POOL_BYTES: usize = 24 * 1024 * 1024;
/// The part of that memory for bodies that are kept as a whole: of admin requests, and forms of queries. Writes have
/// the rest. At the bound: a body waits up to `idle_timeout` for its first [`POOL_BUFFER_BYTES_MIN`], then 503; a body
/// that grows is 503 at once.
pub const WHOLE_BODIES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Such a body gets at most this much more memory at a time, and only when bytes for it have arrived.
pub const WHOLE_BODY_GROWTH_BYTES_MAX: usize = 1024 * 1024;
/// A Prometheus request, as sent and uncompressed together; both are held at once. Larger: 413.
pub const PROMETHEUS_REQUEST_BYTES_MAX: usize = 12 * 1024 * 1024;
/// A read request of Prometheus, as sent and also uncompressed. Larger: 413.
pub const PROMETHEUS_READ_BYTES_MAX: usize = 64 * 1024;
/// Lines that one Prometheus write becomes: a series repeats its labels with each sample. More: 413.
pub const PROMETHEUS_LINES_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Labels of one series in a Prometheus write. More: 400.
pub const PROMETHEUS_LABELS_MAX: usize = 64 * 1024;
/// When this many connections fewer are open than before, memory is given back to the system, at most this often.
pub const MEMORY_BACK_CONNECTIONS: usize = 256;
pub const MEMORY_BACK_INTERVAL: Duration = Duration::from_secs(5);
/// Smallest buffer of that pool. Sizes are powers of two up to [`BODY_WHOLE_BYTES_MAX`].
pub const POOL_BUFFER_BYTES_MIN: usize = 64 * 1024;
/// Buffer of a body larger than [`BODY_WHOLE_BYTES_MAX`]; the longest line fits. Full: its lines are appended.
pub const BODY_PIECES_BYTES: usize = 4 * LINE_BYTES_MAX;
/// Bytes scanned before their lines are appended; bounds the memory of the line index. Longer than the longest line, so
/// that the scanner makes progress with every piece.
pub const SCAN_PIECE_BYTES: usize = 2 * LINE_BYTES_MAX;
/// The body of a refused request up to this size is read and discarded, so that the connection can be used again.
/// Larger: the connection is closed.
pub const DISCARD_BYTES_MAX: usize = 256 * 1024;
/// Size of one read where speed does not matter. On the heap: a local array would enlarge every connection's task.
pub const SLOW_READ_BYTES: usize = 4096;
/// After the last answer on a connection the peer gets this long to read it and close.
pub const LINGER: Duration = Duration::from_millis(500);
/// Idle connections are searched for this often, so they end up to this much late.
pub const IDLE_SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Reusable objects (line indexes, gzip decoders) kept per worker. More: freed.
pub const SPARES_MAX: usize = 32;
/// Pause after a failed accept, for example when no file descriptor is left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Answers of pipelined requests that wait together for one commit. At the bound: the commit is awaited first.
pub const PIPELINED_MAX: usize = 128;
/// A connection's own read buffer.
pub const CONN_BUFFER_BYTES: usize = 32 * 1024;
/// TLS records that have arrived and are not decrypted yet, per TLS connection. The largest record fits (16,645 bytes).
pub const TLS_INPUT_BYTES: usize = 17 * 1024;
/// A TLS handshake message, a little above rustls's own bound. Larger: the connection is closed.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 80 * 1024;
/// Plain bytes encrypted at once, before they are sent. More: the rest follows.
pub const TLS_OUTPUT_BYTES: usize = 64 * 1024;
/// Memory of sent TLS records that a connection keeps for reuse. More: freed.
pub const TLS_OUTPUT_KEPT_BYTES: usize = 4 * 1024;
/// Longest line. Longer: that line is refused with 400.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a too long line, of a Prometheus series, or of a line listed by `/api/v3/write_lp`, that an error shows.
/// More: left out.
pub const LINE_SHOWN_BYTES_MAX: usize = 1024;
/// Longest series key (measurement and tags as sent), InfluxDB's `MaxKeyLength`. Longer: that line is refused with 400.
pub const KEY_BYTES_MAX: usize = 65_535;
/// Longest database or policy name (a record header holds its length in 16 bits). Longer: 400.
pub const NAME_BYTES_MAX: usize = 1024;
/// Connections of one worker, or fewer when fewer descriptors are allowed. More: not accepted until one closes.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 10_000;
/// Refused lines listed one by one in an answer. More: only counted.
pub const REFUSED_LISTED_MAX: usize = 100;
/// Bytes of the error text of one answer. More: cut, with the number of lines left out.
pub const ERROR_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// The error text in `X-Influxdb-Error`, InfluxDB's own bound. Longer: cut there; the body has the full text.
pub const ERROR_HEADER_BYTES_MAX: usize = 1024;

/// Lines of influx-proxy's cache files that are inflated at a time. A larger block is taken in pieces.
pub const CACHE_PIECE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Database and policy before a block of a cache file, query-escaped (three bytes for one), with their blanks. Longer:
/// treated as damage.
pub const CACHE_NAMES_BYTES_MAX: usize = 2 * (3 * NAME_BYTES_MAX + 1);
/// A part of a damaged cache file that is searched at a time for the next block.
pub const CACHE_SEARCH_BYTES: usize = 1024 * 1024;
/// A write waits this long for the end of the import of cache files, whose points come before it. Longer: 503.
pub const IMPORT_WAIT: Duration = Duration::from_secs(5);
/// How often such a write looks.
pub const IMPORT_LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// When the log is full while other logs are taken over at start, couriers get this long to free space.
pub const REROUTE_PAUSE: Duration = Duration::from_millis(100);
/// Acks older than the span do not count in the latencies of `/ledger`. Waits above the maximum count as the maximum.
pub const ACK_LATENCY_SPAN: Duration = Duration::from_secs(10);
pub const ACK_LATENCY_MAX: Duration = Duration::from_secs(60);
/// Circles in a configuration. More: refused at start.
pub const CIRCLES_MAX: usize = 64;
/// Backends of a route: one per circle, and a second one where data is being moved. Follows from [`CIRCLES_MAX`]. A
/// record's header has room for 255.
pub const ROUTE_BACKENDS_MAX: usize = 2 * CIRCLES_MAX;
const _: () = assert!(ROUTE_BACKENDS_MAX <= u8::MAX as usize);

/// Default and minimum memory of the hot tail, per worker. Older frames are read from disk.
pub const HOT_TAIL_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
pub const HOT_TAIL_BYTES_MIN: usize = 4 * FRAME_BYTES_MAX;
/// One disk write. A full frame is closed and the next one opened. When one frame is being written and another one is
/// full, appends wait.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest log file. Smaller on small file systems, but a segment always holds a few frames.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
pub const SEGMENT_BYTES_MIN: u64 = 2 * FRAME_BYTES_MAX as u64;
/// Lines of one record of the log. More: the next line opens a new record. One append larger than this is a bug of the
/// caller. A record is never split: it must fit into the smallest batch, and two of them into a frame.
pub const RECORD_BYTES_MAX: usize = 480 * 1024;
/// Empty segments kept for reuse. More: removed.
pub const LOG_SPARES_MAX: usize = 2;
/// One read of frames that are no longer in the hot tail, unless a frame is longer. Each reader that reads such frames
/// holds one buffer of this size.
pub const LOG_READ_BYTES: usize = 1024 * 1024;
/// The same where there may be many readers: of parked points, or with more backends than [`LOG_READERS_MAX`].
pub const LOG_READ_BYTES_MIN: usize = 64 * 1024;
/// Readers of one log that read such frames at the same time. More: they take turns. With more backends than this a
/// reader keeps nothing of what it has read while its courier waits.
pub const LOG_READERS_MAX: usize = 8;
/// A segment notes the start of a frame about this often. A reader that starts between two notes skips up to this much.
pub const LOG_MARK_BYTES: u64 = 1024 * 1024;
/// Largest sequence and largest count of lines in a log file. More: treated as damage, since no log lives that long.
pub const LOG_SEQ_MAX: u64 = 1 << 62;
/// Damaged log files kept for analysis. More: only reported.
pub const LOG_DAMAGED_FILES_MAX: usize = 8;
/// Reports of damage and of dropped points that wait to be read. More: the oldest reports of damage are discarded.
/// Counts of dropped points are summed by database and backend and never discarded.
pub const LOG_DAMAGE_REPORTS_MAX: usize = 1024;
/// Databases and backends whose dropped points wait to be counted in the ledger. More: they are counted at once.
pub const LOG_DROPPED_NAMES_MAX: usize = 10_000;
/// `log verify` reads a segment so often while its last write is not whole: a running log may be writing it.
pub const VERIFY_LOOKS: u32 = 3;
/// Lines for a backend that has lacked their database wait so long until other circles have judged them. Longer: they
/// are sent all the same, and later ones wait no more.
pub const LEARNING_WAIT: Duration = Duration::from_secs(2);
/// A courier whose lines wait for other circles looks again after this time, later after a quarter of what it has
/// waited.
pub const LEARNING_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Lines of one log that a backend has refused for the type of a field, and another one has not received yet. More: not
/// remembered, each backend judges for itself.
pub const REFUSED_LINES_MAX: usize = 4096;
/// Least space reserved for each of the two copies of a worker's state. A longer state: twice what it needs.
pub const LOG_STATE_RESERVED_BYTES_MIN: u64 = 64 * 1024;
/// Bytes of a state file, ledger included. Larger: not saved; a bug of the caller.
pub const LOG_STATE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A commit waits at most this long for the next requests of clients that have just been acknowledged.
pub const COMMIT_GATHER_MAX: Duration = Duration::from_micros(300);
/// After this long without a commit no client is expected to return, and the next commit does not wait.
pub const COMMIT_GATHER_FORGET: Duration = Duration::from_millis(5);
/// A reader that finds a rewritten segment tries again after this pause, until the list of segments is up to date.
pub const LOG_REPLACED_PAUSE: Duration = Duration::from_millis(1);
/// While the disk is full, free space is checked at most this often, and only when a request needs it.
pub const LOG_FULL_RETRY: Duration = Duration::from_millis(100);
/// Share of a segment's bytes that is still needed, in percent. Below it: the segment is rewritten.
pub const LOG_LIVE_PERCENT_MIN: u64 = 50;
/// Share of the file system that the backlog may take when `backlog_max_bytes` is not set, in percent. At the bound:
/// see `backlog_full`.
pub const BACKLOG_DEFAULT_PERCENT: u64 = 80;
/// How often a log looks whether its directory is still in its place. Until then points are acknowledged that are not
/// on disk any more.
pub const DIR_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Cursors and ledger are saved this often while they move. After a crash at most the deliveries since the last save
/// are repeated.
pub const STATE_SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// One request to a backend, before compression. Full: the rest goes into the next one.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// All batches of one worker's couriers together. Each courier gets an equal part, at least [`REQUEST_BYTES_MIN`], and
/// one record where that is longer.
pub const BATCH_POOL_BYTES: usize = 24 * 1024 * 1024;
/// Room for a request's head in front of its lines; most heads have 200-300 bytes. Longer: sent in a write of its own.
pub const BATCH_HEAD_BYTES: usize = 1024;
/// A batch's memory grows by at most this much at a time, so that it stays close to the batch's length.
pub const BATCH_GROWTH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes compressed without a pause: some milliseconds of the executor. Then other tasks run.
pub const GZIP_PIECE_BYTES: usize = 128 * 1024;
/// One read of a backend's answer to a write; most answers are shorter. Each lane of a courier has room for one.
pub const BACKEND_ANSWER_READ_BYTES: usize = 1024;
/// Bytes read of a backend's answer to a write. Longer: the rest is ignored and the connection closed.
pub const BACKEND_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Head of a backend's answer, including interim (1xx) heads before it, and its header fields. More: the answer is
/// unreadable, which counts as a cut connection.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
pub const ANSWER_HEADERS_MAX: usize = 64;
/// How soon a courier looks again when a record waits until another log has written what it has stamped. On a slow disk
/// later after a quarter of what it has waited, at most [`ORDER_LOOK_INTERVAL_MAX`].
pub const ORDER_LOOK_INTERVAL: Duration = Duration::from_micros(500);
pub const ORDER_LOOK_INTERVAL_MAX: Duration = Duration::from_millis(10);
/// How often a worker looks, during the start, whether the other workers have come as far.
pub const START_LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How long a worker that stops waits for the couriers of other workers to end. Then it stops all the same: the next
/// start sends again what they may have delivered.
pub const COURIERS_END_WAIT: Duration = Duration::from_secs(1);
/// Counts of refused points that other logs save until their own log has done so, as bytes of each state, over all
/// backends. More than a part for each backend: counted together with older ones, so that a crash just then may count
/// some of them as delivered, or twice.
pub const UNSAVED_REFUSALS_BYTES: usize = 8 * 1024 * 1024;
/// Memory for records on their way from the logs of one worker to the couriers of another one, in the whole process.
/// When its share is used up, a log is read further only as its courier takes records.
pub const FEED_POOL_BYTES: usize = 32 * 1024 * 1024;
/// Records that are offered to a courier together. A longer record is offered alone.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
pub const CHUNK_BYTES_MIN: usize = 16 * 1024;
/// Chunks that wait for a courier; further ones wait in the log.
pub const FEED_CHUNKS: usize = 2;
/// Reports of a courier that wait for the worker of a log. Beyond, the courier keeps them and reports them together.
pub const FEED_REPORTS: usize = 64;
/// Records with lines that another backend has refused, told to a courier that has not looked yet. More: not told, the
/// backend judges for itself.
pub const FEED_REFUSED: usize = 256;
/// First pause after a failed attempt to reach a backend; doubles up to `rewrite_interval`.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// After this many failures (5xx or a cut connection), while the backend otherwise answers, a batch is taken for the
/// cause and bisected. A line is blamed only while others of the same database and policy are taken.
pub const POISON_ATTEMPTS: u32 = 3;
/// A search for refused lines sends at most this many requests in a row, for about this long. Then it rests, and the
/// points of others are fetched and sent meanwhile.
pub const SEARCH_TURN_REQUESTS: u32 = 100;
pub const SEARCH_TURN: Duration = Duration::from_millis(500);
pub const SEARCH_REST: Duration = Duration::from_millis(100);
/// Series that a courier remembers as refused for a limit, or as stored beside such ones: some 2 MiB. At the bound: all
/// are forgotten, and the next searches cost more requests.
pub const SERIES_REMEMBERED_MAX: usize = 64 * 1024;
/// So long after the last such refusal the series are forgotten.
pub const SERIES_REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The points of a database that exists on no backend are held this long, then dead-lettered, so that they do not block
/// the backend's other databases for ever.
pub const MISSING_DB_HOLD: Duration = Duration::from_secs(60);
/// Dead letters of one backend on disk. At the bound: the oldest file is deleted.
pub const DEAD_LETTER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// One worker's dead letters of one backend are spread over this many files, so that the oldest file is a small part.
pub const DEAD_LETTER_FILES: u64 = 8;
/// Disk space of an almost empty file. Smaller files count as this.
pub const DEAD_LETTER_FILE_BYTES_MIN: u64 = 4096;
/// Minimum time between the starts of two windows of a courier, unless the window before was full or something waits
/// for the delivery. Many small appends then share a request.
pub const COURIER_PACE: Duration = Duration::from_millis(5);
/// Requests of one courier in flight, each for another (database, policy). More: they take turns.
pub const COURIER_CONNECTIONS: usize = 4;
/// After a request to a backend has timed out, its connection is watched for this many further `write_timeout`s, and
/// its (database, policy) waits. At the bound: the connection is closed with a reset, and the request sent again.
pub const WATCH_TIMEOUTS: u32 = 2;
/// A backend whose connection has ended behind a whole request may still carry it out. For so long newer points of its
/// (database, policy) wait, also after the start of the proxy. Later: an old value can replace a newer one.
pub const DOUBT: Duration = Duration::from_secs(2);
/// (Database, policy) pairs in one window of a courier. At the bound: the window is full, the next one takes the rest.
pub const COURIER_GROUPS_MAX: usize = 64;
/// While only some groups are held, and there is nothing new for the others, a courier looks at all this often: whether
/// it is to be said that it makes no progress.
pub const HELD_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Groups of a window that are held get this part of its bytes (1/n), so that others go on. At the bound: the next
/// record for a held group stops that backend until one of them is let go.
pub const WINDOW_HELD_SHARE: usize = 2;
/// A (database, policy) that has been held for so long is parked: others of the same backend leave the window, and the
/// cursors go on.
pub const PARK_AFTER: Duration = Duration::from_secs(1);
/// Parked (database, policy)s of all backends together; each backend has an equal part, at least one. More: they are
/// held in the window.
pub const PARKED_MAX: usize = 16;
/// The window of a side courier, which delivers parked points: one request, or one record if that is longer.
pub const SIDE_WINDOW_BYTES: usize = 64 * 1024;
/// How long new points of a key wait for the end of its side courier. Then that one delivers them, too.
pub const SIDE_END_WAIT: Duration = Duration::from_secs(2);
/// A backend that answers 413 gets smaller requests from then on, but never smaller than this.
pub const REQUEST_BYTES_MIN: usize = 64 * 1024;
/// What an operator must act on (401, 403, a wrong address, no disk space for dead letters) is logged again this often.
pub const LOUD_INTERVAL: Duration = Duration::from_secs(60);
/// A backend whose oldest undelivered point has waited this long shows a backlog in `/health`, and the log of the
/// program says how long, whatever the cause.
pub const STALL_AFTER: Duration = Duration::from_secs(10);
/// Pause after a courier could not read the log or write dead letters. Then it tries again.
pub const LOCAL_FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of all accounts in the saved ledger of a log, with room for a line of each kind: it is written anew every
/// second while it changes. From half of it on, settled accounts of databases that the catalog does not know are
/// counted as one. At the bound: databases without an account are counted as one.
pub const LEDGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Reasons per account. More: counted as "(other)".
pub const LEDGER_REASONS_MAX: usize = 16;
/// Backends that have left the configuration and keep their accounts under their names, for each log. More: those that
/// left first are counted as one.
pub const RETIRED_BACKENDS_MAX: usize = 64;

/// Workers, backends over all circles, points of one backend on its ring. More: the configuration is refused.
pub const WORKERS_MAX: usize = 256;
pub const BACKENDS_MAX: usize = 1024;
pub const VNODES_MAX: u32 = 65_536;
/// Addresses on which packets of line protocol are received. More: the configuration is refused.
pub const UDP_LISTENERS_MAX: usize = 16;
/// Longest packet of line protocol, as in InfluxDB; more than UDP has. What is longer is cut off, and its last line
/// refused or changed. Each worker holds one such buffer, and the runtime another one, for each address.
pub const UDP_PACKET_BYTES_MAX: usize = 64 << 10;
/// Longest wait for a packet. Then the task looks whether the worker stops, and waits again.
pub const UDP_WAIT: Duration = Duration::from_secs(1);
/// After so many packets, or a wait, the kernel is asked how many it had no room for: a system call.
pub const UDP_COUNT_LOST_EACH: u32 = 256;
/// Longest wait for the answer to the CREATE DATABASE for packets, and the time from one try to the next. Meanwhile
/// packets are refused.
pub const UDP_CREATE_TIMEOUT: Duration = Duration::from_secs(10);
pub const UDP_CREATE_INTERVAL: Duration = Duration::from_secs(5);
/// Bounds of a configured `read_buffer`. Outside: the configuration is refused.
pub const UDP_READ_BUFFER_MIN: usize = 4 << 10;
pub const UDP_READ_BUFFER_MAX: usize = 1 << 30;
/// A configured `influxdb_version`, which is part of each answer. Longer: the configuration is refused.
pub const INFLUXDB_VERSION_BYTES_MAX: usize = 64;
/// A backend's name is also the name of files. Longer: the configuration is refused.
pub const BACKEND_NAME_BYTES_MAX: usize = 200;
/// Longest `commit_linger_us` and longest of all other configured times. Longer: the configuration is refused.
pub const COMMIT_LINGER_MAX: Duration = Duration::from_secs(1);
pub const SETTING_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Smallest `backlog_max_bytes` of one worker: one segment being read and one being written. Less: the configuration is
/// refused.
pub const BACKLOG_BYTES_PER_WORKER_MIN: u64 = 2 * SEGMENT_BYTES_MIN;

/// Entries of a worker's route cache. At the bound: the cache is emptied and fills again.
pub const ROUTE_CACHE_ENTRIES_MAX: usize = 65_536;
/// Bytes of all keys (database and measurement as written) of a worker's route cache. At the bound: as above.
pub const ROUTE_CACHE_KEY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Slots searched for one key of the route cache. In a half-full table a longer run does not happen by chance. At the
/// bound: the key is not cached, and the rings are asked each time.
pub const ROUTE_CACHE_PROBES_MAX: usize = 64;
/// Requests waiting for the control thread. More: 503.
pub const HANDOFF_TO_CONTROL_MAX: usize = 1024;
/// Messages waiting for one worker. More: the control thread waits for room up to [`HANDOFF_WAIT`], then discards the
/// message and logs it.
pub const HANDOFF_TO_WORKER_MAX: usize = 1024;
pub const HANDOFF_WAIT: Duration = Duration::from_secs(5);
/// Body of an admin request. Larger: 413.
pub const ADMIN_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Longest wait for the control thread's answer to an admin request. Longer: 503.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest CPU profile. Longer: 400. Its request waits this much longer for its answer than others.
pub const PROFILE_MAX: Duration = Duration::from_secs(300);
/// Longest wait for the creation of a database at a backend. Longer: asked again later.
pub const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for a catalog refresh. Longer: the write is accepted and held rather than lost.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
/// Databases and policies remembered as unknown. More: forgotten all at once.
pub const UNKNOWN_DB_ENTRIES_MAX: usize = 10_000;
/// After a refresh that did not find a database, writes to it are refused for this long without another refresh.
pub const UNKNOWN_DB_CACHE: Duration = Duration::from_secs(1);
/// A backend whose oldest undelivered point has waited less than this counts as up to date, since couriers always have
/// something in flight. Longer: other backends are asked first, and an answer carries `X-Fluxgate-Stale`.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// What was acknowledged last is noted for so many groups of databases, in 8 bytes for each worker. More databases:
/// some of them share a note, and a query of one may wait for points of another one.
pub const ACKNOWLEDGED_SLOTS: usize = 256;
/// How long a query waits at most for points that were acknowledged before it began (`read_wait`). Longer: it is
/// answered without them, and the answer carries `X-Fluxgate-Stale`.
pub const READ_WAIT: Duration = Duration::from_millis(250);
/// While a query waits for points it is looked whether they are delivered when something is, and first after this
/// time, then after twice as long each time.
pub const READ_LOOK_MIN: Duration = Duration::from_millis(1);
/// Couriers are held for a change of structure at most this long, from when they have delivered all older points.
/// Longer: newer points are delivered, and may reach a backend before the change does.
pub const HOLD_MAX: Duration = Duration::from_secs(60);
/// While couriers drain, their progress is checked this often, besides at each move of a cursor.
pub const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Characters kept of a backend's text when it refuses points. Longer: cut.
pub const REFUSAL_TEXT_CHARS_MAX: usize = 1024;
/// Characters of such a text that a log line shows. Longer: cut.
pub const LOGGED_TEXT_CHARS_MAX: usize = 300;
/// At a stop, requests in progress get this long, then connections are closed.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Text of a query, all statements of a request together. Longer: 400.
pub const QUERY_BYTES_MAX: usize = 1024 * 1024;
/// Nesting of parentheses, calls and subqueries in a query. More: its trees are looked at on a larger stack. Code that
/// walks the tree recurses this deep.
pub const QUERY_NESTING_MAX: usize = 128;
/// Height of an expression's tree; a chain of operators counts too, so this is also the number of `OR`s in a row. More:
/// as above.
pub const QUERY_EXPR_HEIGHT_MAX: usize = 1024;
/// The same two of queries that several backends answer. More: 400. The time to rewrite them grows with the square, as
/// InfluxDB's own does: it takes seconds for so many calls or subqueries.
pub const QUERY_SEVERAL_NESTING_MAX: usize = 1_000;
pub const QUERY_SEVERAL_EXPR_HEIGHT_MAX: usize = 4_096;
/// The same two of queries that one backend answers alone. More: 400. InfluxDB has no bounds, but its time grows with
/// the square of either.
pub const QUERY_DEEP_NESTING_MAX: usize = 10_000;
pub const QUERY_DEEP_EXPR_HEIGHT_MAX: usize = 30_000;
/// Stack on which a worker looks at such a query, given back at once, and on which control answers one for several
/// backends. A build without optimization uses half of it.
pub const QUERY_DEEP_STACK_BYTES: usize = 256 << 20;

/// Form-encoded query in a request body, Go's own bound. Larger: 413, connection closed.
pub const QUERY_BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// Brackets within brackets in which the measurement of a Flux query is looked for. More: it counts as not named, and
/// the query is refused unless one backend has all data.
pub const FLUX_DEPTH_MAX: usize = 64;
/// Rows of one piece of a chunked answer when `chunk_size` is missing or invalid, as in InfluxDB.
pub const QUERY_CHUNK_ROWS_DEFAULT: usize = 10_000;
/// Bytes held of an answer that is passed on, once as received and once as sent. At the bound: the backend waits until
/// the client has read.
pub const QUERY_BUFFER_BYTES: usize = 64 * 1024;
/// A send looks this often whether its answer has been given up for lack of memory. Then the connection is cut.
pub const GIVEN_UP_CHECK: Duration = Duration::from_millis(500);
/// Longest wait for a connection to a backend for a query. Longer: the next backend is asked.
pub const QUERY_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A query that no backend could be reached for waits so long for another address of one, or for a probe. Then they are
/// asked once more.
pub const QUERY_ADDRESS_WAIT: Duration = Duration::from_secs(1);
/// Idle connections to one backend that a worker keeps for queries, and their age. More or older: closed.
pub const QUERY_KEPT_CONNECTIONS_MAX: usize = 8;
pub const QUERY_KEPT_CONNECTION_AGE_MAX: Duration = Duration::from_secs(30);
/// Bytes of a backend's own text that an error about this backend shows. More: cut.
pub const QUERY_FAILURE_SHOWN_BYTES_MAX: usize = 200;
/// Smallest `query_memory_bytes`. Less: the configuration is refused.
pub const QUERY_MEMORY_BYTES_MIN: usize = 1024 * 1024;
/// The control thread answers within `query_timeout`. After this much longer the worker stops waiting: 503.
pub const QUERY_CONTROL_GRACE: Duration = Duration::from_secs(5);

const _: () = assert!(WHOLE_BODIES_BYTES_MAX + BODY_WHOLE_BYTES_MAX <= BODY_POOL_BYTES, "writes keep a buffer");
const _: () = assert!(
    PROMETHEUS_REQUEST_BYTES_MAX + SCAN_PIECE_BYTES + KEY_BYTES_MAX <= WHOLE_BODIES_BYTES_MAX,
    "a Prometheus write can have all the memory it needs"
);
/// All lines of the accounts that are counted as one, for each backend.
const OTHERS_BYTES_MAX: usize =
    (BACKENDS_MAX + RETIRED_BACKENDS_MAX + 1) * 2 * (LEDGER_REASONS_MAX + 2) * (3 * BACKEND_NAME_BYTES_MAX + 128);
const _: () = assert!(
    LEDGER_BYTES_MAX + OTHERS_BYTES_MAX + UNSAVED_REFUSALS_BYTES <= LOG_STATE_BYTES_MAX / 4 * 3,
    "a state can always be saved"
);
const _: () = assert!(LINE_BYTES_MAX * 2 <= FRAME_BYTES_MAX, "a frame must hold the longest line");
const _: () = assert!(REQUEST_BYTES_MIN <= BATCH_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_MAX);
const _: () = assert!(LINE_BYTES_MAX < RECORD_BYTES_MAX, "a record must hold the longest line");
const _: () = assert!(RECORD_BYTES_MAX <= BATCH_BYTES_MAX, "a batch must hold the longest record");
const _: () = assert!(RECORD_BYTES_MAX + 4 * NAME_BYTES_MAX <= FRAME_BYTES_MAX / 2, "a frame must hold two records");
const _: () = assert!(CONN_BUFFER_BYTES >= HEAD_BYTES_MAX, "a buffer must hold a whole head");
const _: () = assert!(KEY_BYTES_MAX < LINE_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX + NAME_BYTES_MAX <= ROUTE_CACHE_KEY_BYTES_MAX, "an empty cache takes any key");
const _: () = assert!(QUERY_HEAD_BYTES_MAX <= u32::MAX as usize, "places in a head are 32 bits wide");

//! The keys of a file: names, types, defaults and meanings. Not here: how a value is read (`resolve`, `circles`).
//!
//! Each table is written once and gives three things: the serde struct, the list that a tree is checked against before
//! serde sees it, and the table in `docs/configuration.md` (`file_test.rs` compares them). The check exists for its
//! wording: it names the key by its whole path, suggests the nearest known one, and never repeats a value, which might
//! be a password.

use serde::Deserialize;
use serde_json::Value;

use super::document::{KeyStep, path_text};
use super::problem::Problem;

/// What a key holds. The type of the struct field follows from it.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Whole,
    Flag,
    Texts,
    /// A table of its own.
    Table(&'static [KeyDoc]),
    /// A list of tables.
    Tables(&'static [KeyDoc]),
}

/// What the type of a field says about its key.
trait Key {
    const KIND: Kind;
}

impl Key for String {
    const KIND: Kind = Kind::Text;
}

impl Key for i64 {
    const KIND: Kind = Kind::Whole;
}

impl Key for bool {
    const KIND: Kind = Kind::Flag;
}

impl Key for Vec<String> {
    const KIND: Kind = Kind::Texts;
}

/// A key of a table: what `docs/configuration.md` says of it.
pub(super) struct KeyDoc {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// A word or number in backticks is the value itself; anything else is a description.
    #[cfg(test)]
    pub(super) default: &'static str,
    /// Lines of the comment at the key, in Markdown.
    pub(super) meaning: &'static [&'static str],
}

macro_rules! table {
    ($(#[$table_doc:meta])* $table:ident {
        $($(#[doc = $doc:literal])* $key:ident: $type:ty = $default:literal,)*
    }) => {
        $(#[$table_doc])*
        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $table {
            $($(#[doc = $doc])* pub $key: Option<$type>,)*
        }

        impl $table {
            pub(super) const KEYS: &'static [KeyDoc] = &[$(KeyDoc {
                name: stringify!($key),
                kind: <$type as Key>::KIND,
                #[cfg(test)]
                default: $default,
                meaning: &[$($doc),*],
            },)*];
        }

        impl Key for $table {
            const KIND: Kind = Kind::Table($table::KEYS);
        }

        impl Key for Vec<$table> {
            const KIND: Kind = Kind::Tables($table::KEYS);
        }
    };
}

table! {
    /// The whole file. The comment at each key becomes its row of the table in `docs/configuration.md`.
    File {
        /// One or more circles; each one holds a full copy of the data. At most 64.
        circles: Vec<Circle> = "required",
        /// The influx-proxy that this file was written for, `2.4` or `2.5`: keys of the other version are ignored, with
        /// a warning, as that version ignores them. With `none` all keys count
        /// ([keys of one version](configuration.md#keys-of-one-version)).
        influx_proxy: String = "by the keys in the file",
        /// Address to listen on, `host:port`. An empty host means all addresses.
        listen_addr: String = "`:7076`",
        /// Addresses on which line protocol is received in UDP packets ([writes](writes.md#udp)). At most 16.
        udp: Vec<Udp> = "none",
        /// Databases that clients may use. An empty list allows all.
        db_list: Vec<String> = "all",
        /// Directory for the logs, delivery positions and rejected points. It belongs to one running instance.
        data_dir: String = "`data`",
        /// Directory for migration logs. influx-proxy 2.4's name of `tlog_dir`.
        mlog_dir: String = "`log`",
        /// Directory for migration logs. influx-proxy 2.5's name of `mlog_dir`.
        tlog_dir: String = "`log`",
        /// What identifies a backend on the hash ring: `idx`, `exi`, `name`, `url`, or a text that contains `%idx`.
        /// **Changing it moves data.**
        hash_key: String = "`idx`",
        /// Points of each backend on the hash ring, at most 65536. influx-proxy 2.4 only; 2.5 always has 256.
        /// **Changing it moves data.**
        vnode_size: i64 = "`256`",
        /// What is hashed to choose a backend; contains `%db`, `%mm` (the measurement) or both. influx-proxy 2.5.
        /// **Changing it moves data.**
        shard_key: String = "`%db,%mm`",
        /// Points in one batch to a backend.
        flush_size: i64 = "`10000`",
        /// Accepted, but has no effect: a batch is sent as soon as the one before it is done.
        flush_time: i64 = "`1`",
        /// Seconds between two health checks of a backend.
        check_interval: i64 = "`1`",
        /// Longest pause in seconds between two attempts to reach a backend that is down.
        rewrite_interval: i64 = "`10`",
        /// Accepted, but has no effect: the order of points limits what may be in flight. influx-proxy 2.5.
        rewrite_threads: i64 = "`5`",
        /// Accepted, but has no effect, for the same reason. influx-proxy 2.5.
        conn_pool_size: i64 = "`20`",
        /// Timeout in seconds of one write request to a backend, and of the wait that `consistency` asks for.
        write_timeout: i64 = "`10`",
        /// Seconds after which a client connection is closed when it sends nothing or does not read its answer.
        idle_timeout: i64 = "`10`",
        /// User name that clients must give. Without `username` and `password` there is no authentication.
        username: String = "empty",
        /// Password that clients must give.
        password: String = "empty",
        /// All user names and passwords in this file are encrypted. **The encryption key is public**: unless
        /// `cipher_key` is set, everyone who can read the file can decrypt them. influx-proxy 2.4.
        auth_secure: bool = "`false`",
        /// The proxy's own `username` and `password` are encrypted; each backend has its own `auth_encrypt`.
        /// influx-proxy 2.5.
        auth_encrypt: bool = "`false`",
        /// `/ping` requires user name and password, too. influx-proxy 2.5.
        ping_auth_enabled: bool = "`false`",
        /// Version of InfluxDB that clients are told in `X-Influxdb-Version`; some decide by it what they ask for.
        influxdb_version: String = "the lowest of the backends that are up",
        /// Log debug messages. influx-proxy 2.4.
        log_enabled: bool = "`false`",
        /// Log a line for each write. influx-proxy 2.5.
        write_tracing: bool = "`false`",
        /// Log a line for each query. influx-proxy 2.5.
        query_tracing: bool = "`false`",
        /// Serve CPU and memory profiles under `/debug/pprof`. influx-proxy 2.5; always on in 2.4.
        pprof_enabled: bool = "`true`; `false` in a file for influx-proxy 2.5",
        /// Clients connect with TLS, on the port of `listen_addr`.
        https_enabled: bool = "`false`",
        /// PEM file: the server's certificate, followed by the certificates of the authorities that issued it.
        https_cert: String = "required with `https_enabled`",
        /// PEM file: the private key (RSA, ECDSA or Ed25519), without a passphrase.
        https_key: String = "required with `https_enabled`",
        /// TLS versions and cipher suites for clients. influx-proxy 2.5.
        tls: Tls = "none",
        // From here on fluxgate's own.
        /// Ignore the parameter `rp` of `/write`, as influx-proxy 2.4 does: all points go to the default policy.
        /// `/ledger` counts the writes that name one (`rp_ignored`).
        ignore_rp: bool = "`false`; `true` in a file for influx-proxy 2.4",
        /// 16 bytes to use instead of the public encryption key, in this file and for `fluxgate encrypt --key`. The
        /// `/encrypt` and `/decrypt` endpoints always use the public key. It stands in the same file as the
        /// passwords, so the file's permissions protect both.
        cipher_key: String = "the public key",
        /// Threads that serve clients, each pinned to one CPU. At most 256.
        workers: i64 = "CPUs the process may use",
        /// When a write is acknowledged: after its points are synced to disk (`disk`), handed to the operating
        /// system (`os`), or held in memory (`memory`).
        durability: String = "`disk`",
        /// Microseconds to wait after the first point that reaches an idle log, so that more points share its sync.
        /// At most 1000000.
        commit_linger_us: i64 = "`0`",
        /// Bytes of the newest part of the log kept in memory, per worker. At least 4194304.
        hot_tail_bytes: i64 = "`67108864`",
        /// Limit in bytes of all logs together. At least 4194304 per worker.
        backlog_max_bytes: i64 = "80 % of the file system",
        /// What happens at `backlog_max_bytes`: `reject` refuses new writes with 503, `drop_oldest` drops the oldest
        /// points.
        backlog_full: String = "`reject`",
        /// The most that the parameter `consistency` of a write may ask for: `all`, `quorum`, `one` or `any`. With
        /// `any` no write waits for a backend, whatever its client sends.
        consistency_max: String = "`all`",
        /// Compress batches to backends. This costs more CPU than everything else the proxy does.
        backend_gzip: bool = "`false`",
        /// Largest request body in bytes, after decompression. Larger: 413. 0 means no limit.
        max_body_bytes: i64 = "`25000000`",
        /// What to do when a backend does not have the database of a point: `create` it as another backend has it,
        /// `hold` its points until it exists, or `reject` them.
        missing_db: String = "`create`",
        /// Hash function of the ring: `crc32` (influx-proxy's) or `xxh3` (for new deployments).
        /// **Changing it moves data.**
        hash: String = "`crc32`",
        /// Seconds to wait for the beginning of a backend's answer, and between two parts of it; also the longest
        /// time that a query over several backends may take.
        query_timeout: i64 = "`300`",
        /// Queries that one worker runs at a time. More: 503. 0 means no limit.
        max_concurrent_queries: i64 = "`0`",
        /// Bytes that merged queries take, over all queries, until clients have their answers. More: they wait, then
        /// 503. At least 1048576.
        query_memory_bytes: i64 = "`268435456`",
        /// Rows of one merged answer. More: the query is refused, never cut short. 0 means no limit.
        max_result_rows: i64 = "`0`",
        /// A query waits for the points that this proxy acknowledged before it began, until the backends that it asks
        /// have them ([queries](queries.md#read-after-write)).
        read_your_writes: bool = "`true`",
        /// Milliseconds that a query waits at most for such points. Then it is answered without them, and the answer
        /// carries `X-Fluxgate-Stale`.
        read_wait: i64 = "`250`",
        /// PEM file with the certificate authorities to trust for `https` backends, instead of the system's.
        ca_file: String = "the system's",
        /// Backends that have left the circles, and that a rebalance with `operation=rm` may name. Those that left at
        /// the last change of the circles need not be listed.
        former_backends: Vec<FormerBackend> = "none",
        /// The other proxies before the same backends, each as `host:port` or `https://host:port`. Every migration
        /// tells them of itself, and they get this proxy's user and password. The list may contain this proxy.
        peers: Vec<String> = "none",
    }
}

table! {
    Circle {
        /// Name of the circle, for `/health` and the log. A circle should have one of its own.
        name: String = "empty",
        /// One or more backends, which share the circle's data. At most 1024 over all circles.
        backends: Vec<Backend> = "required",
    }
}

table! {
    Backend {
        /// Name of the backend, unique over all circles. Files under `data_dir` use it, so do not change it.
        name: String = "required",
        /// `http://host:port` or `https://host:port`. A path behind the port is not supported.
        url: String = "required",
        /// User name for this backend.
        username: String = "empty",
        /// Password for this backend.
        password: String = "empty",
        /// This backend's user name and password are encrypted. influx-proxy 2.5.
        auth_encrypt: bool = "`false`",
        /// Send no query to this backend while another one can answer it. influx-proxy 2.5.
        write_only: bool = "`false`",
        /// With `false` this backend has no say about databases and policies and gets no statement, only writes and
        /// `/ping`: VictoriaMetrics, QuestDB, InfluxDB 2 or 3 ([other servers](configuration.md#other-servers)).
        catalog: bool = "by what it answers",
        /// Do not verify this backend's certificate (influx-proxy never does). The proxy warns at each start.
        insecure_skip_verify: bool = "`false`",
        /// This backend is being removed: it gets no new measurement, but still gets its points and answers queries
        /// until its data has been moved.
        leaving: bool = "`false`",
    }
}

table! {
    Udp {
        /// Address to receive on, `host:port`. An empty host means all addresses. **UDP has no user**: whoever reaches
        /// the port can write.
        bind: String = "required",
        /// Database of the points. It is created when it is missing.
        database: String = "`udp`",
        /// Retention policy of the points.
        retention_policy: String = "the default policy",
        /// Unit of timestamps: `n`, `u`, `ms`, `s`, `m` or `h`.
        precision: String = "`n`",
        /// Bytes that the system keeps for each worker of packets that have not been read yet, 4096 to 1073741824. The
        /// system's own bound (`net.core.rmem_max`) is above it.
        read_buffer: i64 = "the system's",
    }
}

table! {
    FormerBackend {
        /// Name of the backend.
        name: String = "required",
        /// `http://host:port` or `https://host:port`.
        url: String = "required",
        /// User name for this backend, used when the request gives none. Encrypted if the proxy's own is.
        username: String = "empty",
        /// Password for this backend, as `username`.
        password: String = "empty",
    }
}

table! {
    Tls {
        /// Cipher suites by their Go names: ECDHE with AES-GCM or ChaCha20. Those of TLS 1.3 stay enabled unless the
        /// list names one of them.
        ciphers: Vec<String> = "all that are supported",
        /// `tls1.0` to `tls1.3`. A value below `tls1.2` is taken as `tls1.2`, with a warning.
        min_version: String = "`tls1.2`",
        /// `tls1.2` or `tls1.3`.
        max_version: String = "`tls1.3`",
    }
}

/// Checks names and types of all keys.
pub(super) fn check(tree: &Value) -> Result<(), Problem> {
    check_value(tree, Kind::Table(File::KEYS), &mut Vec::new())
}

/// Takes a checked tree. A failure would mean that [`check`] let something through; it is still an answer.
pub(super) fn read(tree: Value) -> Result<File, Problem> {
    serde_json::from_value(tree)
        .map_err(|_| Problem { path: Vec::new(), what: "the file does not match fluxgate's keys".to_owned() })
}

fn check_value(value: &Value, kind: Kind, path: &mut Vec<KeyStep>) -> Result<(), Problem> {
    match (kind, value) {
        // As missing, but the file itself must be there.
        (_, Value::Null) if !path.is_empty() => Ok(()),
        (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => Ok(()),
        (Kind::Whole, Value::Number(number)) if number.is_i64() => Ok(()),
        (Kind::Texts, Value::Array(items)) => each(items, Kind::Text, path),
        (Kind::Tables(keys), Value::Array(items)) => each(items, Kind::Table(keys), path),
        (Kind::Table(keys), Value::Object(map)) => {
            for (key, value) in map {
                path.push(KeyStep::Key(key.clone()));
                match keys.iter().find(|known| known.name == key) {
                    Some(known) => check_value(value, known.kind, path)?,
                    None => return Err(unknown(path, key, keys)),
                }
                path.pop();
            }
            Ok(())
        }
        _ => {
            let name = if path.is_empty() { "the file".to_owned() } else { path_text(path) };
            let what = format!("{name} must be {}, not {}", wanted(kind), found(value));
            Err(Problem { path: path.clone(), what })
        }
    }
}

fn each(items: &[Value], kind: Kind, path: &mut Vec<KeyStep>) -> Result<(), Problem> {
    for (index, item) in items.iter().enumerate() {
        path.push(KeyStep::Item(index));
        if item.is_null() {
            let what = format!("{} is empty", path_text(path));
            return Err(Problem { path: path.clone(), what });
        }
        check_value(item, kind, path)?;
        path.pop();
    }
    Ok(())
}

fn unknown(path: &[KeyStep], key: &str, keys: &[KeyDoc]) -> Problem {
    let nearest = nearest(key, keys.iter().map(|known| known.name));
    let what = format!("unknown key {}; the nearest known key is {nearest}", path_text(path));
    Problem { path: path.to_vec(), what }
}

/// A candidate that `word` is a part of (`user` of `username`), else the one with the fewest typing mistakes between;
/// capitals and `-` for `_` do not count.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> &'a str {
    let word = word.to_lowercase().replace('-', "_");
    let distance = |candidate: &&str| (!candidate.contains(&word), strsim::damerau_levenshtein(&word, candidate));
    candidates.min_by_key(distance).unwrap_or_default()
}

pub(super) fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Whole => "a whole number",
        Kind::Flag => "true or false",
        Kind::Texts => "a list of texts",
        Kind::Table(_) => "a table of keys",
        Kind::Tables(_) => "a list of tables",
    }
}

pub(super) fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_i64() => "a number",
        Value::Number(number) if number.is_u64() => "one beyond 9223372036854775807",
        Value::Number(_) => "a number with a fraction or beyond 64 bits",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

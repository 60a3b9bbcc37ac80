//! The keys of a file: their names, their types, nothing about their meaning.
//!
//! Each table is written once and gives both the serde struct and the list that a tree is checked against before serde
//! sees it. The check exists for its wording: it names the key by its whole path, suggests the nearest known one, and
//! never repeats a value, which might be a password.

use serde::Deserialize;
use serde_json::Value;

use super::document::{Step, path_text};
use super::problem::Problem;

/// What a key holds. The type of the struct field follows from it.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Whole,
    Flag,
    Texts,
    /// A table of its own.
    Table(&'static [(&'static str, Kind)]),
    /// A list of tables.
    Tables(&'static [(&'static str, Kind)]),
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

macro_rules! table {
    ($(#[$table_doc:meta])* $table:ident { $($(#[$doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$table_doc])*
        #[derive(Deserialize, Default)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $table {
            $($(#[$doc])* pub $key: Option<$type>,)*
        }

        impl $table {
            const KEYS: &'static [(&'static str, Kind)] = &[$((stringify!($key), <$type as Key>::KIND),)*];
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
    /// The whole file. Times are whole seconds unless the name says otherwise.
    File {
        circles: Vec<Circle>,
        listen_addr: String,
        db_list: Vec<String>,
        data_dir: String,
        /// Older generation; `tlog_dir` is the same under its newer name.
        mlog_dir: String,
        tlog_dir: String,
        hash_key: String,
        /// Older generation; the newer one has always 256.
        vnode_size: i64,
        /// Newer generation; the older one has always `%db,%mm`.
        shard_key: String,
        flush_size: i64,
        flush_time: i64,
        check_interval: i64,
        rewrite_interval: i64,
        /// Newer generation.
        rewrite_threads: i64,
        /// Newer generation.
        conn_pool_size: i64,
        write_timeout: i64,
        idle_timeout: i64,
        username: String,
        password: String,
        /// Older generation: all user names and passwords in the file are encrypted.
        auth_secure: bool,
        /// Newer generation: the proxy's own are encrypted; backends have theirs.
        auth_encrypt: bool,
        /// Newer generation.
        ping_auth_enabled: bool,
        /// Older generation.
        log_enabled: bool,
        /// Newer generation.
        write_tracing: bool,
        /// Newer generation.
        query_tracing: bool,
        /// Newer generation; in the older one it is always on.
        pprof_enabled: bool,
        https_enabled: bool,
        https_cert: String,
        https_key: String,
        /// Newer generation.
        tls: Tls,
        // From here on fluxgate's own.
        /// In place of the published key of encrypted user names and passwords.
        cipher_key: String,
        workers: i64,
        durability: String,
        commit_linger_us: i64,
        hot_tail_bytes: i64,
        backlog_max_bytes: i64,
        backlog_full: String,
        backend_gzip: bool,
        max_body_bytes: i64,
        missing_db: String,
        hash: String,
        query_timeout: i64,
        max_concurrent_queries: i64,
        query_memory_bytes: i64,
        max_result_rows: i64,
        /// Instead of the system's certificates of authorities, for backends that speak https.
        ca_file: String,
    }
}

table! {
    Circle {
        name: String,
        backends: Vec<Backend>,
    }
}

table! {
    Backend {
        name: String,
        url: String,
        username: String,
        password: String,
        /// Newer generation.
        auth_encrypt: bool,
        /// Newer generation.
        write_only: bool,
        /// fluxgate's own: its certificate is not verified.
        insecure_skip_verify: bool,
        /// fluxgate's own.
        leaving: bool,
    }
}

table! {
    Tls {
        ciphers: Vec<String>,
        min_version: String,
        max_version: String,
    }
}

/// Checks names and types of all keys.
pub(super) fn check(tree: &Value) -> Result<(), Problem> {
    check_value(tree, Kind::Table(File::KEYS), &mut Vec::new())
}

/// Takes a checked tree. A failure would mean that [`check`] let something through; it is still an answer.
pub(super) fn read(tree: Value) -> Result<File, Problem> {
    serde_json::from_value(tree)
        .map_err(|_| Problem { path: Vec::new(), what: "the file does not hold what fluxgate's keys hold".to_owned() })
}

fn check_value(value: &Value, kind: Kind, path: &mut Vec<Step>) -> Result<(), Problem> {
    match (kind, value) {
        // As missing, but the file itself must be there.
        (_, Value::Null) if !path.is_empty() => Ok(()),
        (Kind::Text, Value::String(_)) | (Kind::Flag, Value::Bool(_)) => Ok(()),
        (Kind::Whole, Value::Number(number)) if number.is_i64() => Ok(()),
        (Kind::Texts, Value::Array(items)) => each(items, Kind::Text, path),
        (Kind::Tables(keys), Value::Array(items)) => each(items, Kind::Table(keys), path),
        (Kind::Table(keys), Value::Object(map)) => {
            for (key, value) in map {
                path.push(Step::Key(key.clone()));
                match keys.iter().find(|known| known.0 == key) {
                    Some(known) => check_value(value, known.1, path)?,
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

fn each(items: &[Value], kind: Kind, path: &mut Vec<Step>) -> Result<(), Problem> {
    for (index, item) in items.iter().enumerate() {
        path.push(Step::Item(index));
        if item.is_null() {
            let what = format!("{} is empty", path_text(path));
            return Err(Problem { path: path.clone(), what });
        }
        check_value(item, kind, path)?;
        path.pop();
    }
    Ok(())
}

fn unknown(path: &[Step], key: &str, keys: &[(&'static str, Kind)]) -> Problem {
    let nearest = nearest(key, keys.iter().map(|known| known.0));
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

fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Whole => "a whole number",
        Kind::Flag => "true or false",
        Kind::Texts => "a list of texts",
        Kind::Table(_) => "a table of keys",
        Kind::Tables(_) => "a list of tables",
    }
}

fn found(value: &Value) -> &'static str {
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

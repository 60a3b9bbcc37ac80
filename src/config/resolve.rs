//! Turns the keys of a file into a [`Config`]: defaults, rules between keys, and the errors. `circles` reads its
//! circles.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fluxgate_control::Dialect;
use fluxgate_control::cipher::Key;
use fluxgate_control::migration;
use fluxgate_dataplane::limits;
use fluxgate_dataplane::placement::{HashKey, PlacementSettings, RingHash};
use fluxgate_dataplane::settings::{
    BacklogFull, Consistency, Credentials, Durability, MissingDb, QuerySettings, Settings,
};
use fluxgate_dataplane::topology::Backend;

use super::Config;
use super::circles;
use super::document::{KeyStep, path_text};
use super::file::{File, nearest};
use super::problem::{Problem, key, problem};
use super::udp;
use super::version::{Decision, Version};
use crate::tls::{self, Https};

// Names of the choices; the first one is the default.
pub(crate) const DURABILITY: [(&str, Durability); 3] =
    [("disk", Durability::Disk), ("os", Durability::Os), ("memory", Durability::Memory)];
pub(crate) const BACKLOG_FULL: [(&str, BacklogFull); 2] =
    [("reject", BacklogFull::Reject), ("drop_oldest", BacklogFull::DropOldest)];
pub(crate) const CONSISTENCY_MAX: [(&str, Consistency); 4] =
    [("all", Consistency::All), ("quorum", Consistency::Quorum), ("one", Consistency::One), ("any", Consistency::Any)];
pub(crate) const MISSING_DB: [(&str, MissingDb); 3] =
    [("create", MissingDb::Create), ("hold", MissingDb::Hold), ("reject", MissingDb::Reject)];
pub(crate) const HASH: [(&str, RingHash); 2] = [("crc32", RingHash::Crc32), ("xxh3", RingHash::Xxh3)];

/// The warnings beside the configuration are about places in the file.
pub(super) fn resolve(path: &Path, file: File, decision: Decision) -> Result<(Config, Vec<Problem>), Problem> {
    let Decision { version, why, warning } = decision;
    let mut in_file = circles::unnamed(&file);
    let (mlog_dir, tlog_dir) = (non_empty(file.mlog_dir.clone()), non_empty(file.tlog_dir.clone()));
    agree(&mlog_dir, &tlog_dir, "mlog_dir", "tlog_dir")?;
    let mlog_key = if mlog_dir.is_some() { "mlog_dir" } else { "tlog_dir" };
    agree(&file.auth_secure, &file.auth_encrypt, "auth_secure", "auth_encrypt")?;

    let own_cipher_key = non_empty(file.cipher_key.clone());
    let cipher_key = cipher_key(own_cipher_key.as_deref())?;

    let topology = circles::topology(&file, cipher_key)?;
    let placement = placement(&file)?;
    let encrypted = file.auth_secure.or(file.auth_encrypt).unwrap_or(false);
    let credentials = Credentials {
        username: circles::secret(&file.username, encrypted, cipher_key, key("username"))?,
        password: circles::secret(&file.password, encrypted, cipher_key, key("password"))?,
    };
    let former_backends = circles::former(&file, encrypted, cipher_key)?;
    let query = query(&file)?;
    let workers = up_to("workers", file.workers, cpus(), limits::WORKERS_MAX)?;
    let dialect = if version == Version::Newer { Dialect::Newer } else { Dialect::Older };
    let pprof_enabled = file.pprof_enabled.unwrap_or(dialect == Dialect::Older);
    let mut warnings = Vec::from_iter(warning);
    let ignore_rp = file.ignore_rp.unwrap_or(version == Version::Older);
    if file.ignore_rp.is_none() && ignore_rp {
        warnings.push(
            "ignore_rp is true, since this file is for influx-proxy 2.4: the parameter rp of /write is ignored, \
             and all points go to the default policy; set ignore_rp to true or false to decide it"
                .to_owned(),
        );
    }
    let https = https(&file)?;
    let tls = https.enabled.then(|| tls::server(&https)).transpose().map_err(|fault| tls_problem(&file, fault))?;
    let tls = tls.map(|(tls, warning)| {
        warnings.extend(warning);
        tls
    });
    let ca_file = absolute_or_empty("ca_file", &text_or(&file.ca_file, ""))?;
    let unverified = circles::unverified(&file, &topology);
    for &id in &unverified {
        let Backend { name, url, .. } = topology.backend(id);
        warnings.push(format!(
            "backend {name}: insecure_skip_verify is set: the certificate of {url} is not verified, so that another \
             server can pretend to be it and read its password"
        ));
    }
    let listen = address(&key("listen_addr"), &text_or(&file.listen_addr, ":7076"))?;
    let udp = udp::listeners(&file)?;
    warnings.extend(udp.iter().filter(|udp| udp.bind.ip().is_unspecified()).map(udp::warning));
    if listen.ip().is_unspecified() && !credentials.required() {
        warnings.push(format!(
            "listen_addr {listen} is all addresses, and no username is set: everybody who reaches this machine may \
             read, write and delete everything"
        ));
    }
    let peers = peers(file.peers.clone().unwrap_or_default())?;
    let db_list = db_list(file.db_list.clone().unwrap_or_default(), &mut in_file)?;
    let of = |name: &str, url: &str| tls::is_https(url).then(|| format!("backend {name}"));
    let verified = topology.backends.iter().filter(|backend| !unverified.contains(&backend.id));
    let needed_by = verified
        .map(|backend| of(&backend.name, &backend.url))
        .chain(former_backends.iter().map(|backend| of(&backend.name, &backend.url)))
        .chain(peers.iter().map(|addr| tls::is_https(addr).then(|| "a proxy of peers".to_owned())))
        .flatten()
        .next();
    let trust = tls::trust(&ca_file, needed_by.as_deref(), unverified).map_err(|fault| tls_problem(&file, fault))?;
    let config = Config {
        file: path.to_owned(),
        data: Settings {
            listen,
            udp,
            workers,
            topology: Arc::new(topology),
            placement,
            db_list,
            data_dir: absolute("data_dir", &text_or(&file.data_dir, "data"))?,
            credentials,
            ping_auth_enabled: file.ping_auth_enabled.unwrap_or(false),
            influxdb_version: influxdb_version(non_empty(file.influxdb_version))?,
            durability: one_of("durability", &file.durability, &DURABILITY)?,
            commit_linger: commit_linger(file.commit_linger_us)?,
            hot_tail_bytes: hot_tail_bytes(file.hot_tail_bytes)?,
            backlog_max_bytes: backlog_max_bytes(file.backlog_max_bytes, workers)?,
            backlog_full: one_of("backlog_full", &file.backlog_full, &BACKLOG_FULL)?,
            consistency_max: one_of("consistency_max", &file.consistency_max, &CONSISTENCY_MAX)?,
            backend_gzip: file.backend_gzip.unwrap_or(false),
            max_body_bytes: max_body_bytes(file.max_body_bytes)?,
            missing_db: one_of("missing_db", &file.missing_db, &MISSING_DB)?,
            flush_size: up_to("flush_size", file.flush_size, 10_000, usize::MAX)?,
            check_interval: seconds("check_interval", file.check_interval, 1)?,
            rewrite_interval: seconds("rewrite_interval", file.rewrite_interval, 10)?,
            write_timeout: seconds("write_timeout", file.write_timeout, 10)?,
            idle_timeout: seconds("idle_timeout", file.idle_timeout, 10)?,
            write_tracing: file.write_tracing.unwrap_or(false),
            query_tracing: file.query_tracing.unwrap_or(false),
            ignore_rp,
            query,
            tls,
            trust,
        },
        mlog_dir: absolute(mlog_key, &text_or(&mlog_dir.or(tlog_dir), "log"))?,
        log_enabled: file.log_enabled.unwrap_or(false),
        own_cipher_key: own_cipher_key.is_some(),
        influx_proxy: version.name(),
        influx_proxy_why: why,
        dialect,
        pprof_enabled,
        flush_time: seconds("flush_time", file.flush_time, 1)?,
        rewrite_threads: up_to("rewrite_threads", file.rewrite_threads, 5, usize::MAX)?,
        conn_pool_size: up_to("conn_pool_size", file.conn_pool_size, 20, usize::MAX)?,
        https,
        ca_file,
        former_backends,
        peers,
        warnings,
    };
    Ok((config, in_file))
}

fn https(file: &File) -> Result<Https, Problem> {
    let tls = file.tls.as_ref();
    let text = |text: Option<&String>| text.cloned().unwrap_or_default();
    Ok(Https {
        enabled: file.https_enabled.unwrap_or(false),
        cert: absolute_or_empty("https_cert", &text(file.https_cert.as_ref()))?,
        key: absolute_or_empty("https_key", &text(file.https_key.as_ref()))?,
        ciphers: tls.and_then(|tls| tls.ciphers.clone()).unwrap_or_default(),
        min_version: text(tls.and_then(|tls| tls.min_version.as_ref())),
        max_version: text(tls.and_then(|tls| tls.max_version.as_ref())),
    })
}

/// The error is reported at its key if that is in the file, else at the key that requires it.
fn tls_problem(file: &File, fault: tls::TlsRefusal) -> Problem {
    let tls = |name: &str| vec![KeyStep::Key("tls".to_owned()), KeyStep::Key(name.to_owned())];
    let path = match fault.key {
        "https_cert" if file.https_cert.is_some() => key("https_cert"),
        "https_key" if file.https_key.is_some() => key("https_key"),
        "tls.ciphers" => tls("ciphers"),
        "tls.min_version" => tls("min_version"),
        "tls.max_version" => tls("max_version"),
        "ca_file" if file.ca_file.is_some() => key("ca_file"),
        "ca_file" => key("circles"),
        _ => key("https_enabled"),
    };
    problem(path, fault.what)
}

fn placement(file: &File) -> Result<PlacementSettings, Problem> {
    let hash_key = text_or(&file.hash_key, "idx");
    let hash_key = HashKey::from_text(&hash_key).ok_or_else(|| {
        let what = format!("hash_key is \"{hash_key}\"; it must be idx, exi, name, url or a text with %idx in it");
        problem(key("hash_key"), what)
    })?;
    let shard_key = text_or(&file.shard_key, "%db,%mm");
    if !shard_key.contains("%db") && !shard_key.contains("%mm") {
        let what = format!("shard_key is \"{shard_key}\"; it must contain %db or %mm, or all points go to one backend");
        return Err(problem(key("shard_key"), what));
    }
    let vnode_size = up_to("vnode_size", file.vnode_size, 256, limits::VNODES_MAX as usize)? as u32;
    let hash = one_of("hash", &file.hash, &HASH)?;
    Ok(PlacementSettings { hash_key, vnode_size, shard_key, hash })
}

/// `host:port`; an empty host means all addresses, of both IP versions where the machine has both.
pub(super) fn address(path: &[KeyStep], text: &str) -> Result<SocketAddr, Problem> {
    let wrong = |what: String| problem(path.to_vec(), format!("{} is \"{text}\"; {what}", path_text(path)));
    let form = || wrong("it must be host:port or :port".to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let port: u16 = port.parse().map_err(|_| wrong("its port must be a number up to 65535".to_owned()))?;
    if host.is_empty() {
        let any_v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        let has_v6 = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
        return Ok(if has_v6 { any_v6 } else { SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port) });
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(wrong("an IPv6 address must be in brackets, as in [::1]:7076".to_owned()));
    }
    let mut found = (bare.unwrap_or(host), port)
        .to_socket_addrs()
        .map_err(|e| wrong(format!("its host cannot be resolved ({e})")))?;
    found.next().ok_or_else(|| wrong("its host has no address".to_owned()))
}

/// An empty name stays in the list, where it allows nothing: without it the list might be empty, and allow all.
fn db_list(names: Vec<String>, warnings: &mut Vec<Problem>) -> Result<Vec<String>, Problem> {
    for (index, name) in names.iter().enumerate() {
        let path = || vec![KeyStep::Key("db_list".to_owned()), KeyStep::Item(index)];
        if name.len() > limits::NAME_BYTES_MAX {
            let what = format!("{} must have at most {} bytes", path_text(&path()), limits::NAME_BYTES_MAX);
            return Err(problem(path(), what));
        }
        if name.is_empty() {
            let what = format!("{} is empty and allows no database; an empty list allows all", path_text(&path()));
            warnings.push(problem(path(), what));
        }
    }
    Ok(names)
}

/// The addresses of other proxies.
fn peers(addrs: Vec<String>) -> Result<Vec<String>, Problem> {
    for (index, addr) in addrs.iter().enumerate() {
        let path = vec![KeyStep::Key("peers".to_owned()), KeyStep::Item(index)];
        let name = path_text(&path);
        if index == migration::PEERS_MAX {
            return Err(problem(path, format!("{name} is one too many; there may be {}", migration::PEERS_MAX)));
        }
        if !migration::is_addr(addr) {
            return Err(problem(path, format!("{name} must be host:port or https://host:port")));
        }
    }
    Ok(addrs)
}

fn commit_linger(micros: Option<i64>) -> Result<Duration, Problem> {
    let micros_max = limits::COMMIT_LINGER_MAX.as_micros() as usize;
    Ok(Duration::from_micros(up_to("commit_linger_us", micros, 0, micros_max)? as u64))
}

fn hot_tail_bytes(bytes: Option<i64>) -> Result<usize, Problem> {
    let bytes = up_to("hot_tail_bytes", bytes, limits::HOT_TAIL_BYTES_DEFAULT, usize::MAX)?;
    at_least("hot_tail_bytes", bytes as u64, limits::HOT_TAIL_BYTES_MIN as u64, "")?;
    Ok(bytes)
}

fn backlog_max_bytes(bytes: Option<i64>, workers: usize) -> Result<Option<u64>, Problem> {
    let bytes = bytes.filter(|&bytes| bytes > 0).map(|bytes| bytes as u64);
    if let Some(bytes) = bytes {
        let least = limits::BACKLOG_BYTES_PER_WORKER_MIN * workers as u64;
        at_least("backlog_max_bytes", bytes, least, &format!(" with {workers} workers"))?;
    }
    Ok(bytes)
}

fn max_body_bytes(bytes: Option<i64>) -> Result<u64, Problem> {
    let Some(bytes) = bytes else { return Ok(limits::BODY_BYTES_MAX_DEFAULT) };
    u64::try_from(bytes).map_err(|_| {
        problem(
            key("max_body_bytes"),
            format!("max_body_bytes is {bytes}; it must be 0 (no limit) or a number of bytes"),
        )
    })
}

/// For concurrent queries and rows, 0 means no limit, as in InfluxDB.
fn query(file: &File) -> Result<QuerySettings, Problem> {
    let default = QuerySettings::default();
    let timeout = seconds("query_timeout", file.query_timeout, default.timeout.as_secs() as usize)?;
    let concurrent_max = number_or_none("max_concurrent_queries", file.max_concurrent_queries, default.concurrent_max)?;
    let memory_bytes_max = up_to("query_memory_bytes", file.query_memory_bytes, default.memory_bytes_max, usize::MAX)?;
    at_least("query_memory_bytes", memory_bytes_max as u64, limits::QUERY_MEMORY_BYTES_MIN as u64, "")?;
    let rows_max = number_or_none("max_result_rows", file.max_result_rows, default.rows_max)?;
    let wait_max = limits::SETTING_TIME_MAX.as_millis() as usize;
    let wait = up_to("read_wait", file.read_wait, limits::READ_WAIT.as_millis() as usize, wait_max)?;
    let read_wait = file.read_your_writes.unwrap_or(true).then(|| Duration::from_millis(wait as u64));
    Ok(QuerySettings { timeout, concurrent_max, memory_bytes_max, rows_max, read_wait })
}

fn number_or_none(name: &str, value: Option<i64>, default: usize) -> Result<usize, Problem> {
    let Some(value) = value else { return Ok(default) };
    usize::try_from(value)
        .map_err(|_| problem(key(name), format!("{name} is {value}; it must be 0 (no limit) or a number")))
}

fn seconds(name: &str, seconds: Option<i64>, default: usize) -> Result<Duration, Problem> {
    let seconds_max = limits::SETTING_TIME_MAX.as_secs() as usize;
    Ok(Duration::from_secs(up_to(name, seconds, default, seconds_max)? as u64))
}

/// A number up to `max`; 0 and below mean the default.
fn up_to(name: &str, value: Option<i64>, default: usize, max: usize) -> Result<usize, Problem> {
    match value.and_then(|value| usize::try_from(value).ok()).filter(|&value| value > 0) {
        None => Ok(default),
        Some(value) if value > max => {
            Err(problem(key(name), format!("{name} is {value}; it must not be more than {max}")))
        }
        Some(value) => Ok(value),
    }
}

fn at_least(name: &str, value: u64, min: u64, why: &str) -> Result<(), Problem> {
    if value < min {
        return Err(problem(key(name), format!("{name} is {value}; it must be at least {min}{why}")));
    }
    Ok(())
}

/// The choice named by `value`.
fn one_of<T: Copy>(name: &str, value: &Option<String>, choices: &[(&str, T)]) -> Result<T, Problem> {
    let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { return Ok(choices[0].1) };
    if let Some(choice) = choices.iter().find(|choice| choice.0 == value) {
        return Ok(choice.1);
    }
    let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
    let near = nearest(value, names.iter().copied());
    let what = format!("{name} is \"{value}\"; it must be one of {} (perhaps {near})", names.join(", "));
    Err(problem(key(name), what))
}

/// Part of the head of each answer.
fn influxdb_version(text: Option<String>) -> Result<Option<String>, Problem> {
    match text {
        Some(text)
            if text.len() > limits::INFLUXDB_VERSION_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            let what = format!(
                "influxdb_version must be at most {} visible ASCII characters without blanks",
                limits::INFLUXDB_VERSION_BYTES_MAX
            );
            Err(problem(key("influxdb_version"), what))
        }
        text => Ok(text),
    }
}

/// The encryption key of user names and passwords: the public one unless the file has its own. No error repeats it.
fn cipher_key(own: Option<&str>) -> Result<Key, Problem> {
    let Some(text) = own else { return Ok(Key::default()) };
    let wrong = || problem(key("cipher_key"), format!("cipher_key must be 16 bytes long, not {}", text.len()));
    Key::new(text).ok_or_else(wrong)
}

/// Two names of one setting must not have different values.
fn agree<T: PartialEq>(older: &Option<T>, newer: &Option<T>, older_key: &str, newer_key: &str) -> Result<(), Problem> {
    match (older, newer) {
        (Some(a), Some(b)) if a != b => {
            let what = format!(
                "{newer_key} and {older_key} are two names of one setting, but their values differ; remove one"
            );
            Err(problem(key(newer_key), what))
        }
        _ => Ok(()),
    }
}

pub(super) fn text_or(value: &Option<String>, default: &str) -> String {
    value.as_deref().filter(|value| !value.is_empty()).unwrap_or(default).to_owned()
}

fn non_empty(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// A path of the file; a relative one starts at the working directory. It is made absolute here, so that nothing
/// depends later on the working directory, or on whether a library takes relative paths.
fn absolute(name: &str, text: &str) -> Result<PathBuf, Problem> {
    let wrong = |e| problem(key(name), format!("{name} is \"{text}\", which cannot be made an absolute path: {e}"));
    std::path::absolute(text).map_err(wrong)
}

/// The same for an optional file.
fn absolute_or_empty(name: &str, text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let path = absolute(name, text)?;
    Ok(path.into_os_string().into_string().unwrap_or_else(|_| text.to_owned()))
}

/// CPUs this process may run on: its affinity, and its share where a control group limits it.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(limits::WORKERS_MAX)
}

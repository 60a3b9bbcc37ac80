//! What a file means in each format and generation, and the exact sentence for each thing that cannot be.

use std::net::{IpAddr, SocketAddr};

use fluxgate_control::cipher::{self, Key};
use fluxgate_dataplane::limits;
use fluxgate_dataplane::placement::{HashKey, PlacementSettings, RingHash};
use fluxgate_dataplane::precision::Precision;
use fluxgate_dataplane::settings::{BacklogFull, Consistency, Durability, MissingDb, QuerySettings, UdpSettings};
use fluxgate_dataplane::topology::BackendId;

use super::*;

pub(super) const EXAMPLE: &str = include_str!("../../tests/golden/proxy.json");

/// One circle of one backend, then `keys` from line 2 on.
pub(super) fn json(keys: &str) -> String {
    let circles = r#"{"circles": [{"name": "c", "backends": [{"name": "b", "url": "http://h:1"}]}],"#;
    format!("{circles}\n{keys}\n}}")
}

pub(super) fn ok(name: &str, text: &str) -> Config {
    parse(Path::new(name), text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

pub(super) fn refusal(name: &str, text: &str) -> String {
    match parse(Path::new(name), text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(e) => e.to_string(),
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn influx_proxys_example_is_taken_unchanged() {
    let config = ok("proxy.json", EXAMPLE);
    let topology = &config.data.topology;
    let names = |circle: usize| -> Vec<_> {
        topology.circles[circle].backends.iter().map(|&id| topology.backend(id).name.as_str()).collect()
    };
    assert_eq!(names(0), ["influxdb-1-1", "influxdb-1-2"]);
    assert_eq!(names(1), ["influxdb-2-1", "influxdb-2-2"]);
    let last = topology.backend(BackendId(3));
    assert_eq!((last.circle, last.index, last.url.as_str()), (1, 1, "http://127.0.0.1:8089"));
    assert_eq!(config.data.placement, PlacementSettings::default());
    assert!(config.pprof_enabled, "2.4.7 always serves /debug/pprof");
}

#[test]
fn every_path_is_absolute_from_here_on() {
    let here = std::env::current_dir().unwrap();
    let text = r#""data_dir": "d/../e", "mlog_dir": "./m", "https_cert": "cc", "https_key": "/k""#;
    let config = ok("f.json", &json(text));
    assert_eq!(config.data.data_dir, here.join("d/../e"));
    assert_eq!(config.mlog_dir, here.join("m"));
    assert_eq!((config.https.cert, config.https.key), (here.join("cc").display().to_string(), "/k".to_owned()));
    let unreadable = refusal("f.json", &json(r#""ca_file": "no-such-ca""#));
    assert!(unreadable.contains(&here.join("no-such-ca").display().to_string()), "{unreadable}");
    let config = ok("f.json", &json(r#""tlog_dir": "t""#));
    assert_eq!(config.mlog_dir, here.join("t"));
    assert_eq!((config.https.cert.as_str(), config.ca_file.as_str()), ("", ""), "what is not named stays so");
}

#[test]
fn what_is_missing_empty_or_not_positive_is_the_default() {
    let zero = r#""listen_addr": "", "data_dir": "", "mlog_dir": "", "tlog_dir": null, "hash_key": "", "vnode_size": 0,
        "shard_key": null, "flush_size": -1, "flush_time": 0, "check_interval": 0, "rewrite_interval": 0,
        "rewrite_threads": 0, "conn_pool_size": -5, "write_timeout": 0, "idle_timeout": 0, "db_list": null,
        "workers": 0, "durability": "", "commit_linger_us": 0, "hot_tail_bytes": 0, "backlog_max_bytes": 0,
        "backlog_full": "", "max_body_bytes": null, "missing_db": "", "hash": "", "https_enabled": false,
        "query_timeout": 0, "max_concurrent_queries": 0,
        "query_memory_bytes": -1, "max_result_rows": 0, "read_wait": 0"#;
    for text in [json(zero), json("").replace("],\n", "]")] {
        let config = ok("f.json", &text);
        let data = &config.data;
        assert_eq!(data.listen.port(), 7076);
        assert!(data.listen.ip().is_unspecified());
        assert_eq!(data.workers, std::thread::available_parallelism().map_or(1, usize::from));
        assert_eq!(data.placement, PlacementSettings::default());
        assert_eq!(data.db_list, [""; 0]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(data.data_dir, here.join("data"));
        assert_eq!(config.mlog_dir, here.join("log"));
        assert!(!data.credentials.required());
        assert_eq!(data.durability, Durability::Disk);
        assert_eq!(data.commit_linger, Duration::ZERO);
        assert_eq!(data.hot_tail_bytes, limits::HOT_TAIL_BYTES_DEFAULT);
        assert_eq!(data.backlog_max_bytes, None);
        assert_eq!(data.backlog_full, BacklogFull::Reject);
        assert_eq!(data.max_body_bytes, 25_000_000);
        assert_eq!(data.missing_db, MissingDb::Create);
        assert_eq!(data.query, QuerySettings::default());
        assert_eq!(data.flush_size, 10_000);
        let times = (data.check_interval, data.rewrite_interval, data.write_timeout, data.idle_timeout);
        assert_eq!(times, (seconds(1), seconds(10), seconds(10), seconds(10)));
        assert_eq!((config.flush_time, config.rewrite_threads, config.conn_pool_size), (seconds(1), 5, 20));
        let flags = [data.ping_auth_enabled, data.backend_gzip, data.write_tracing, data.query_tracing];
        assert_eq!(flags, [false; 4]);
        assert!(!config.log_enabled);
        assert_eq!(config.https, Https::default());
    }
}

/// Every key there is, none at its default, in the words of each format.
pub(super) const EVERY_KEY: [(&str, &str); 3] = [
    (
        "all.json",
        r#"{"circles": [{"name": "c", "backends": [
            {"name": "b", "url": "http://h:1", "username": "bu", "password": "bp", "auth_encrypt": false,
            "write_only": true, "catalog": false}]}], "influx_proxy": "none",
        "udp": [{"bind": "127.0.0.1:8", "database": "d1", "retention_policy": "r", "precision": "s",
            "read_buffer": 5000}],
        "listen_addr": "127.0.0.1:9", "db_list": ["d1", "d2"], "data_dir": "dd", "mlog_dir": "ll", "tlog_dir": "ll",
        "hash_key": "b-%idx", "vnode_size": 256, "shard_key": "%mm", "flush_size": 2, "flush_time": 3,
        "check_interval": 4, "rewrite_interval": 5, "rewrite_threads": 6, "conn_pool_size": 7, "write_timeout": 8,
        "idle_timeout": 9, "username": "u", "password": "p", "auth_secure": false, "auth_encrypt": false,
        "ping_auth_enabled": true, "influxdb_version": "1.8.x",
        "log_enabled": true, "write_tracing": true, "query_tracing": true,
        "pprof_enabled": true, "https_enabled": false, "https_cert": "cc", "https_key": "kk",
        "tls": {"ciphers": ["x", "y"], "min_version": "tls1.2", "max_version": "tls1.3"},
        "workers": 3, "durability": "os", "commit_linger_us": 200, "hot_tail_bytes": 5000000,
        "backlog_max_bytes": 100000000, "backlog_full": "drop_oldest", "consistency_max": "one",
        "backend_gzip": true, "max_body_bytes": 0,
        "missing_db": "hold", "hash": "xxh3", "query_timeout": 10, "max_concurrent_queries": 11,
        "query_memory_bytes": 12000000, "max_result_rows": 13, "read_your_writes": true, "read_wait": 14}"#,
    ),
    (
        "all.toml",
        r#"
        influx_proxy = "none"
        listen_addr = "127.0.0.1:9"
        db_list = ["d1", "d2"]
        data_dir = "dd"
        mlog_dir = "ll"
        tlog_dir = "ll"
        hash_key = "b-%idx"
        vnode_size = 256
        shard_key = "%mm"
        flush_size = 2
        flush_time = 3
        check_interval = 4
        rewrite_interval = 5
        rewrite_threads = 6
        conn_pool_size = 7
        write_timeout = 8
        idle_timeout = 9
        username = "u"
        password = "p"
        auth_secure = false
        auth_encrypt = false
        ping_auth_enabled = true
        influxdb_version = "1.8.x"
        log_enabled = true
        write_tracing = true
        query_tracing = true
        pprof_enabled = true
        https_enabled = false
        https_cert = "cc"
        https_key = "kk"
        tls = { ciphers = ["x", "y"], min_version = "tls1.2", max_version = "tls1.3" }
        workers = 3
        durability = "os"
        commit_linger_us = 200
        hot_tail_bytes = 5_000_000
        backlog_max_bytes = 100_000_000
        backlog_full = "drop_oldest"
consistency_max = "one"
        backend_gzip = true
        max_body_bytes = 0
        missing_db = "hold"
        hash = "xxh3"
        query_timeout = 10
        max_concurrent_queries = 11
        query_memory_bytes = 12_000_000
        max_result_rows = 13
        read_your_writes = true
        read_wait = 14
        [[circles]]
        name = "c"
        [[circles.backends]]
        name = "b"
        url = "http://h:1"
        username = "bu"
        password = "bp"
        auth_encrypt = false
        write_only = true
        catalog = false
        [[udp]]
        bind = "127.0.0.1:8"
        database = "d1"
        retention_policy = "r"
        precision = "s"
        read_buffer = 5000
        "#,
    ),
    (
        "all.yaml",
        r#"
circles:
  - name: c
    backends:
      - {name: b, url: "http://h:1", username: bu, password: bp, auth_encrypt: false, write_only: true,
        catalog: false}
influx_proxy: none
udp:
  - {bind: "127.0.0.1:8", database: d1, retention_policy: r, precision: s, read_buffer: 5000}
listen_addr: 127.0.0.1:9
db_list: [d1, d2]
data_dir: dd
mlog_dir: ll
tlog_dir: ll
hash_key: b-%idx
vnode_size: 256
shard_key: "%mm"
flush_size: 2
flush_time: 3
check_interval: 4
rewrite_interval: 5
rewrite_threads: 6
conn_pool_size: 7
write_timeout: 8
idle_timeout: 9
username: u
password: p
auth_secure: false
auth_encrypt: false
ping_auth_enabled: true
influxdb_version: 1.8.x
log_enabled: true
write_tracing: true
query_tracing: true
pprof_enabled: true
https_enabled: false
https_cert: cc
https_key: kk
tls:
  ciphers: [x, y]
  min_version: tls1.2
  max_version: tls1.3
workers: 3
durability: os
commit_linger_us: 200
hot_tail_bytes: 5000000
backlog_max_bytes: 100000000
backlog_full: drop_oldest
consistency_max: one
backend_gzip: true
max_body_bytes: 0
missing_db: hold
hash: xxh3
query_timeout: 10
max_concurrent_queries: 11
query_memory_bytes: 12000000
max_result_rows: 13
read_your_writes: true
read_wait: 14
"#,
    ),
];

#[test]
fn a_byte_order_mark_is_no_part_of_the_text() {
    for (name, text) in EVERY_KEY {
        assert_eq!(ok(name, &format!("\u{feff}{text}")).data.flush_size, 2, "{name}");
    }
}

#[test]
fn every_key_has_its_meaning_in_every_format() {
    let here = std::env::current_dir().unwrap();
    for (name, text) in EVERY_KEY {
        let config = ok(name, text);
        let data = &config.data;
        let backend = data.topology.backend(BackendId(0));
        assert_eq!((backend.name.as_str(), backend.url.as_str(), backend.write_only), ("b", "http://h:1", true));
        assert_eq!((backend.catalog, backend.takes_statements()), (Some(false), false));
        assert_eq!((backend.username.as_str(), backend.password.as_str()), ("bu", "bp"));
        assert_eq!(data.topology.circles[0].name, "c");
        assert_eq!(data.listen, "127.0.0.1:9".parse().expect("an address"));
        assert_eq!(data.db_list, ["d1", "d2"]);
        assert_eq!((data.data_dir.as_path(), config.mlog_dir.as_path()), (&*here.join("dd"), &*here.join("ll")));
        let placement = PlacementSettings {
            hash_key: HashKey::Template("b-%idx".to_owned()),
            vnode_size: 256,
            shard_key: "%mm".to_owned(),
            hash: RingHash::Xxh3,
        };
        assert_eq!(data.placement, placement);
        assert_eq!((data.flush_size, config.flush_time, data.check_interval), (2, seconds(3), seconds(4)));
        assert_eq!((data.rewrite_interval, config.rewrite_threads, config.conn_pool_size), (seconds(5), 6, 7));
        assert_eq!((data.write_timeout, data.idle_timeout), (seconds(8), seconds(9)));
        let udp = UdpSettings {
            bind: "127.0.0.1:8".parse().unwrap(),
            db: "d1".into(),
            rp: "r".into(),
            precision: Precision::Second,
            read_buffer: Some(5000),
        };
        assert_eq!(data.udp, [udp]);
        assert_eq!(data.influxdb_version.as_deref(), Some("1.8.x"));
        assert_eq!((data.credentials.username.as_str(), data.credentials.password.as_str()), ("u", "p"));
        let flags = [data.ping_auth_enabled, config.log_enabled, data.write_tracing, data.query_tracing];
        assert_eq!(flags, [true; 4]);
        assert!(config.pprof_enabled && data.backend_gzip);
        let https = Https {
            enabled: false,
            cert: here.join("cc").display().to_string(),
            key: here.join("kk").display().to_string(),
            ciphers: vec!["x".to_owned(), "y".to_owned()],
            min_version: "tls1.2".to_owned(),
            max_version: "tls1.3".to_owned(),
        };
        assert_eq!(config.https, https);
        assert_eq!((data.workers, data.durability), (3, Durability::Os));
        assert_eq!((data.commit_linger, data.hot_tail_bytes), (Duration::from_micros(200), 5_000_000));
        assert_eq!((data.backlog_max_bytes, data.backlog_full), (Some(100_000_000), BacklogFull::DropOldest));
        assert_eq!(data.consistency_max, Consistency::One);
        assert_eq!((data.max_body_bytes, data.missing_db), (0, MissingDb::Hold));
        let query = QuerySettings {
            timeout: seconds(10),
            concurrent_max: 11,
            memory_bytes_max: 12_000_000,
            rows_max: 13,
            read_wait: Some(Duration::from_millis(14)),
        };
        assert_eq!(data.query, query);
    }
}

#[test]
fn queries_can_be_told_not_to_wait_for_writes() {
    let read_wait = |keys| ok("f.json", &json(keys)).data.query.read_wait;
    assert_eq!(read_wait(r#""read_your_writes": false, "read_wait": 100"#), None);
    assert_eq!(read_wait(r#""read_wait": 100"#), Some(Duration::from_millis(100)));
}

#[test]
fn encrypted_credentials_are_decrypted_where_each_generation_says_so() {
    let file = |proxy: &str, backend: &str| {
        format!(
            r#"{{"circles": [{{"name": "c", "backends": [{{"name": "b", "url": "http://h", {backend}
            "username": "HNuE5KxI!nNofosmqZR!mw", "password": "7vnwDnX!xzLY_jqHoFX41w"}}]}}], {proxy}
            "username": "YgvEyuPZlDYAH8sGDkC!Ag", "password": "7vnwDnX!xzLY_jqHoFX41w"}}"#
        )
    };
    for (proxy, backend, proxy_plain, backend_plain) in [
        ("", "", false, false),
        (r#""auth_secure": true,"#, "", true, true),
        (r#""auth_secure": true, "influx_proxy": "none","#, r#""auth_encrypt": true,"#, true, true),
        (r#""auth_secure": true, "auth_encrypt": true, "influx_proxy": "none","#, "", true, true),
        (r#""auth_encrypt": true,"#, "", true, false),
        ("", r#""auth_encrypt": true,"#, false, true),
        (r#""auth_encrypt": false,"#, r#""auth_encrypt": true,"#, false, true),
    ] {
        let config = ok("f.json", &file(proxy, backend));
        let user = if proxy_plain { "admin" } else { "YgvEyuPZlDYAH8sGDkC!Ag" };
        assert_eq!(config.data.credentials.username, user, "{proxy} {backend}");
        let user = if backend_plain { "root" } else { "HNuE5KxI!nNofosmqZR!mw" };
        assert_eq!(config.data.topology.backends[0].username, user, "{proxy} {backend}");
        assert_eq!(config.data.credentials.password == "password", proxy_plain);
        assert_eq!(config.data.topology.backends[0].password == "password", backend_plain);
    }
}

#[test]
fn profiling_is_on_and_the_dialect_is_2_4_unless_the_file_is_of_2_5() {
    for (keys, on, dialect) in [
        (r#""vnode_size": 256"#, true, Dialect::Older),
        (r#""workers": 2"#, true, Dialect::Older),
        (r#""tlog_dir": "log""#, false, Dialect::Newer),
        (r#""conn_pool_size": 20"#, false, Dialect::Newer),
        (r#""tlog_dir": "log", "pprof_enabled": true"#, true, Dialect::Newer),
        (r#""pprof_enabled": false"#, false, Dialect::Older),
    ] {
        let config = ok("f.json", &json(keys));
        assert_eq!((config.pprof_enabled, config.dialect), (on, dialect), "{keys}");
    }
}

#[test]
fn listen_addresses() {
    for (text, want) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:7076", "0.0.0.0:7076"),
        ("[::1]:80", "[::1]:80"),
        ("[::]:7076", "[::]:7076"),
    ] {
        let config = ok("f.json", &json(&format!(r#""listen_addr": "{text}""#)));
        assert_eq!(config.data.listen, want.parse::<SocketAddr>().expect(want));
    }
    let named = ok("f.json", &json(r#""listen_addr": "localhost:81""#)).data.listen;
    assert!(named.ip().is_loopback() && named.port() == 81);
    let all = ok("f.json", &json(r#""listen_addr": ":82""#)).data.listen;
    assert!(all.port() == 82 && matches!(all.ip(), IpAddr::V6(ip) if ip.is_unspecified()) || all.is_ipv4());
}

#[test]
fn all_addresses_without_a_user_are_warned_of() {
    for (keys, warned) in [
        (r#""listen_addr": "127.0.0.1:0""#, false),
        (r#""listen_addr": ":0""#, true),
        (r#""listen_addr": "0.0.0.0:0""#, true),
        (r#""listen_addr": "[::]:0""#, true),
        (r#""listen_addr": "0.0.0.0:0", "username": "u", "password": "p""#, false),
    ] {
        let warnings = ok("f.json", &json(keys)).warnings;
        assert_eq!(warnings.iter().any(|w| w.contains("no username is set")), warned, "{keys}: {warnings:?}");
    }
}

#[test]
fn refusals_name_file_line_and_key() {
    for (keys, want) in [
        // Unknown keys.
        ("\n\"flush_sise\": 3", "f.json:3: unknown key flush_sise; the nearest known key is flush_size"),
        (r#""Listen-Addr": "x""#, "f.json:2: unknown key Listen-Addr; the nearest known key is listen_addr"),
        (r#""user": "x""#, "f.json:2: unknown key user; the nearest known key is username"),
        (
            r#""tls": {"min_versoin": "x"}"#,
            "f.json:2: unknown key tls.min_versoin; the nearest known key is min_version",
        ),
        // Wrong types.
        (r#""flush_size": "ten""#, "f.json:2: flush_size must be a whole number, not text"),
        (r#""flush_size": "010""#, "f.json:2: flush_size must be a whole number, not text"),
        (r#""flush_size": "1s""#, "f.json:2: flush_size must be a whole number, not text"),
        (
            r#""flush_size": 1e30"#,
            "f.json:2: flush_size must be a whole number, not a number with a fraction or beyond 64 bits",
        ),
        (
            r#""backlog_max_bytes": 18446744073709551615"#,
            "f.json:2: backlog_max_bytes must be a whole number, not one beyond 9223372036854775807",
        ),
        (r#""auth_secure": "yes""#, "f.json:2: auth_secure must be true or false, not text"),
        ("\"db_list\": [\n\"db1\",\n{}]", "f.json:4: db_list[1] must be text, not a table"),
        (r#""tls": [{}]"#, "f.json:2: tls must be a table of keys, not a list"),
        (r#""password": [12345]"#, "f.json:2: password must be text, not a list"),
        (r#""data_dir": {}"#, "f.json:2: data_dir must be text, not a table"),
        // Impossible values.
        (
            r#""hash_key": "index""#,
            "f.json:2: hash_key is \"index\"; it must be idx, exi, name, url or a text with %idx in it",
        ),
        (
            r#""shard_key": "db""#,
            "f.json:2: shard_key is \"db\"; it must contain %db or %mm, or all points go to one backend",
        ),
        (
            r#""influxdb_version": "1.8 x""#,
            "f.json:2: influxdb_version must be at most 64 visible ASCII characters without blanks",
        ),
        (r#""udp": [{}]"#, "f.json:2: udp[0].bind is missing or empty; it is the address to receive on"),
        (r#""udp": [{"bind": "h"}]"#, "f.json:2: udp[0].bind is \"h\"; it must be host:port or :port"),
        (r#""udp": [{"bind": ":0"}]"#, "f.json:2: udp[0].bind needs a port that is not 0"),
        (r#""udp": [{"bind": ":9"}, {"bind": ":9"}]"#, "f.json:2: udp[1].bind is there twice"),
        (
            r#""db_list": ["a"], "udp": [{"bind": ":9", "database": "b"}]"#,
            "f.json:2: udp[0].database must be in db_list, or its points are refused",
        ),
        (r#""udp": [{"bind": ":9", "precision": "us"}]"#, "f.json:2: udp[0].precision must be n, u, ms, s, m or h"),
        (
            r#""udp": [{"bind": ":9", "read_buffer": 5}]"#,
            "f.json:2: udp[0].read_buffer must be from 4096 to 1073741824",
        ),
        (r#""vnode_size": 65537"#, "f.json:2: vnode_size is 65537; it must not be more than 65536"),
        (r#""workers": 257"#, "f.json:2: workers is 257; it must not be more than 256"),
        (r#""idle_timeout": 31536001"#, "f.json:2: idle_timeout is 31536001; it must not be more than 31536000"),
        (r#""commit_linger_us": 1000001"#, "f.json:2: commit_linger_us is 1000001; it must not be more than 1000000"),
        (r#""hot_tail_bytes": 1000"#, "f.json:2: hot_tail_bytes is 1000; it must be at least 4194304"),
        (
            r#""workers": 2, "backlog_max_bytes": 1000"#,
            "f.json:2: backlog_max_bytes is 1000; it must be at least 8388608 with 2 workers",
        ),
        (r#""max_body_bytes": -1"#, "f.json:2: max_body_bytes is -1; it must be 0 (no limit) or a number of bytes"),
        (
            r#""max_concurrent_queries": -1"#,
            "f.json:2: max_concurrent_queries is -1; it must be 0 (no limit) or a number",
        ),
        (r#""max_result_rows": -2"#, "f.json:2: max_result_rows is -2; it must be 0 (no limit) or a number"),
        (r#""query_memory_bytes": 5"#, "f.json:2: query_memory_bytes is 5; it must be at least 1048576"),
        (r#""query_timeout": "5s""#, "f.json:2: query_timeout must be a whole number, not text"),
        (
            r#""durability": "disc""#,
            "f.json:2: durability is \"disc\"; it must be one of disk, os, memory (perhaps disk)",
        ),
        (
            r#""backlog_full": "drop-oldest""#,
            "f.json:2: backlog_full is \"drop-oldest\"; it must be one of reject, drop_oldest (perhaps drop_oldest)",
        ),
        (
            r#""missing_db": "craete""#,
            "f.json:2: missing_db is \"craete\"; it must be one of create, hold, reject (perhaps create)",
        ),
        (
            r#""hash": "crc"#,
            "f.json:3: this is not JSON: control character (\\u0000-\\u001F) found while parsing a string \
             at line 3 column 0",
        ),
        (r#""hash": "xxh""#, "f.json:2: hash is \"xxh\"; it must be one of crc32, xxh3 (perhaps xxh3)"),
        (r#""listen_addr": "7076""#, "f.json:2: listen_addr is \"7076\"; it must be host:port or :port"),
        (r#""listen_addr": ":http""#, "f.json:2: listen_addr is \":http\"; its port must be a number up to 65535"),
        (
            r#""listen_addr": "::1:80""#,
            "f.json:2: listen_addr is \"::1:80\"; an IPv6 address must be in brackets, as in [::1]:7076",
        ),
        // Keys that contradict each other.
        (
            "\"tlog_dir\": \"a\", \"influx_proxy\": \"none\",\n\"mlog_dir\": \"b\"",
            "f.json:2: tlog_dir and mlog_dir are two names of one setting, but their values differ; remove one",
        ),
        (
            "\"auth_secure\": true, \"influx_proxy\": \"none\",\n\"auth_encrypt\": false",
            "f.json:3: auth_encrypt and auth_secure are two names of one setting, but their values differ; remove one",
        ),
        (
            "\"vnode_size\": 100, \"mlog_dir\": \"a\",\n\"shard_key\": \"%mm\", \"write_tracing\": true",
            "f.json:2: influx-proxy 2.5 ignores mlog_dir, vnode_size, and 2.4 ignores shard_key, write_tracing: set \
             influx_proxy to \"2.4\" or \"2.5\", whichever this file was used with, or to \"none\" to have all keys \
             count",
        ),
        (r#""influx_proxy": "2.6""#, "f.json:2: influx_proxy must be \"2.4\", \"2.5\" or \"none\""),
        // TLS.
        (r#""https_enabled": true"#, "f.json:2: https_enabled is true, but https_cert is missing"),
        (
            r#""https_enabled": true, "https_cert": "/nowhere/x.pem""#,
            "f.json:2: https_cert /nowhere/x.pem cannot be read: No such file or directory (os error 2)",
        ),
        (r#""ca_file": "/dev/null""#, "f.json:2: ca_file /dev/null has no certificate in PEM form"),
        (
            "\"https_enabled\": true,\n\"tls\": {\n\"max_version\": \"tls1.1\"}",
            "f.json:4: tls.max_version is \"tls1.1\", but fluxgate speaks only tls1.2 and tls1.3",
        ),
        (
            r#""https_enabled": true, "tls": {"min_version": "tls1.3", "max_version": "tls1.2"}"#,
            "f.json:2: tls.min_version is \"tls1.3\", above tls.max_version \"tls1.2\"",
        ),
        (
            r#""https_enabled": true, "tls": {"min_version": "ssl3.0"}"#,
            "f.json:2: tls.min_version is \"ssl3.0\"; it must be one of tls1.0, tls1.1, tls1.2, tls1.3",
        ),
        (
            r#""https_enabled": true, "tls": {"ciphers": ["TLS_RSA_WITH_AES_128_CBC_SHA"]}"#,
            "f.json:2: tls.ciphers has \"TLS_RSA_WITH_AES_128_CBC_SHA\", which is not supported; these are: \
             TLS_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, \
             TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, \
             TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, \
             TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ),
        // Ciphers.
        (
            "\"auth_secure\": true,\n\"username\": \"YgvEyuPZlDYAH8sGDkC!Ag\",\n\"password\": \"se-cret\"",
            "f.json:4: password should be encrypted, but cannot be decrypted: illegal base64 data at input byte 2",
        ),
        // Servers that an admin request may name.
        (r#""former_backends": [{"name": "x"}]"#, "f.json:2: former_backends[0] has no url"),
        (
            r#""former_backends": [{"name": "x", "url": "h:1"}]"#,
            "f.json:2: former_backends[0].url must be http://host:port or https://host:port, with nothing behind the \
             port",
        ),
        (r#""peers": ["a:1", "http://b:2"]"#, "f.json:2: peers[1] must be host:port or https://host:port"),
        (r#""cipher_key": "too short""#, "f.json:2: cipher_key must be 16 bytes long, not 9"),
        (
            r#""auth_encrypt": true, "username": "abc""#,
            "f.json:2: username should be encrypted, but cannot be decrypted: crypto/cipher: input not full blocks",
        ),
        (
            r#""auth_encrypt": true, "password": "AAAAAAAAAAAAAAAAAAAAAA""#,
            "f.json:2: password should be encrypted, but cannot be decrypted: the decrypted bytes are not text",
        ),
    ] {
        assert_eq!(refusal("f.json", &json(keys)), want);
    }
}

#[test]
fn toml_and_yaml_refusals_have_lines_too() {
    let toml = "hash_key = 'idx'\nflush_size = 3\n\n[[circles]]\nname = 'c'\n[[circles.backends]]\nname = 'b'\n\
                url = 'http://h'\n[[circles.backends]]\nname = 'b2'\nurl = 'http://h2'\n";
    ok("f.toml", toml);
    for (change, to, want) in [
        ("flush_size", "flush_seize", "f.toml:2: unknown key flush_seize; the nearest known key is flush_size"),
        ("= 3", "= 'x3'", "f.toml:2: flush_size must be a whole number, not text"),
        ("= 3", "= 1979-05-27", "f.toml:2: flush_size must be a whole number, not a table"),
        ("'idx'", "'x'", "f.toml:1: hash_key is \"x\"; it must be idx, exi, name, url or a text with %idx in it"),
        (
            "'b2'",
            "'b'",
            "f.toml:10: circles[0].backends[1].name is \"b\", which another backend has too; \
             names are unique over all circles",
        ),
        ("url = 'http://h2'", "", "f.toml:9: circles[0].backends[1] has no url"),
        ("= 3", "= 3\nflush_size = 4", "f.toml:3: this is not TOML: duplicate key"),
        ("= 3", "= nan", "f.toml:2: this is not TOML: a number must be finite"),
        ("'idx'", "'idx", "f.toml:1: this is not TOML: invalid literal string, expected `'`"),
    ] {
        assert!(toml.contains(change), "{change}");
        assert_eq!(refusal("f.toml", &toml.replace(change, to)), want);
    }
    let yaml = "hash_key: idx\nflush_size: 3\n# x\ncircles:\n- name: c\n  backends:\n  - name: b\n    url: http://h\n\
                \x20 - name: b2\n    url: http://h2\n    password: pw\n";
    ok("f.yaml", yaml);
    for (change, to, want) in [
        ("flush_size", "flush_seize", "f.yml:2: unknown key flush_seize; the nearest known key is flush_size"),
        ("pw", "[12345]", "f.yml:11: circles[0].backends[1].password must be text, not a list"),
        (": idx", ": x", "f.yml:1: hash_key is \"x\"; it must be idx, exi, name, url or a text with %idx in it"),
        ("    url: http://h2\n", "", "f.yml:9: circles[0].backends[1] has no url"),
        (
            "b2",
            "b",
            "f.yml:9: circles[0].backends[1].name is \"b\", which another backend has too; \
             names are unique over all circles",
        ),
        (": 3", ": 3\nflush_size: 4", "f.yml:3: flush_size is there twice"),
    ] {
        assert!(yaml.contains(change), "{change}");
        assert_eq!(refusal("f.yml", &yaml.replace(change, to)), want);
    }
    let broken = refusal("f.yml", "a: [1\nb: 2\n");
    assert!(broken.starts_with("f.yml:2: this is not YAML: "), "{broken}");
}

#[test]
fn files_are_read_by_their_ending_and_say_when_they_cannot_be() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in EVERY_KEY {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        assert_eq!(load(&path).expect(name).file, path);
    }
    let path = dir.path().join("none.json");
    let want = format!("{}: cannot be read: No such file or directory (os error 2)", path.display());
    assert_eq!(load(&path).expect_err("no file").to_string(), want);
    std::fs::write(&path, b"{\n\"data_dir\": \"\xff\"}").expect("a file");
    let want = format!("{}:2: the file must be UTF-8, and this line is not", path.display());
    assert_eq!(load(&path).expect_err("not UTF-8").to_string(), want);
}

#[test]
fn passwords_show_in_no_debug_output_and_in_no_error() {
    let secret = "hunter2-Kiefer";
    let proxy = format!(r#""username": "u", "password": "{secret}""#);
    let good = json(&proxy).replace(r#""url""#, &format!(r#""password": "{secret}", "url""#));
    let shown = format!("{:?}", ok("f.json", &good));
    assert!(!shown.contains(secret), "{shown}");
    for broken in [
        good.replace(&format!("\"{secret}\""), &format!("[\"{secret}\"]")),
        good.replace(&format!("\"u\", \"password\": \"{secret}\""), &format!("\"u\", \"flush_size\": \"{secret}\"")),
        good.replace("\"u\"", "\"\", \"auth_encrypt\": true"),
        good.replace("http://h:1", &format!("http://u:{secret}@h:1")),
        good.replace('}', ""),
    ] {
        for name in ["f.json", "f.yaml", "f.toml"] {
            let sentence = refusal(name, &broken);
            assert!(!sentence.contains(secret), "{sentence}");
        }
    }
    let toml = format!("password = \"{secret}\" x");
    assert!(!refusal("f.toml", &toml).contains(secret));
}

#[test]
fn a_cipher_key_of_ones_own_replaces_the_published_one() {
    let key = "0123456789abcdef";
    let own = cipher::encrypt_with(Key::new(key).unwrap(), "admin");
    let keys =
        |cipher_key: &str| json(&format!(r#""auth_encrypt": true, "username": "{own}", "cipher_key": "{cipher_key}""#));
    let config = ok("f.json", &keys(key));
    assert_eq!((&config.data.credentials.username[..], config.own_cipher_key), ("admin", true));
    assert!(!format!("{config:?}").contains(key));
    let published = super::parse(std::path::Path::new("f.json"), &keys(""));
    assert!(published.is_err() || published.is_ok_and(|config| config.data.credentials.username != "admin"));
}

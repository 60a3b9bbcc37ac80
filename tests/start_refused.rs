//! Promise: what cannot be started is refused with exit status 2 and one sentence that names the file and line, the key
//! or the fact, and leaves nothing behind; influx-proxy's own configuration files start.

mod support;

use std::io::Read as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::die_with_us;
use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::{ProxyConfig, eventually};
use fluxgate::lab::stand_in::StandIn;
use serde_json::{Value, json};

/// The program must end or listen within this.
const TIMEOUT: Duration = Duration::from_secs(20);

fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_fluxgate"))
}

/// A folder with a configuration file in it, where the program is started.
struct StartFolder {
    dir: tempfile::TempDir,
    file: PathBuf,
}

impl StartFolder {
    fn new(name: &str, text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        Self { dir, file }
    }

    /// Runs it to its end: exit status, standard output and standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(executable());
        command.args(args).arg("-config").arg(&self.file).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        let ended = eventually(TIMEOUT, || child.try_wait().unwrap().is_some());
        if !ended {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(ended, "it started, and should not have:\n{err}");
        (status.code().unwrap_or(-1), out, err)
    }

    /// The sentence it refuses to start with.
    fn refusal(&self) -> String {
        let (status, out, err) = self.run(&[]);
        assert_eq!((status, &*out), (2, ""), "{err}");
        // Parts that were started before may have logged something.
        let logged = |line: &&str| line.contains("Z INFO ") || line.contains("Z WARN ");
        let told: Vec<_> = err.lines().filter(|line| !logged(line)).collect();
        let sentence = match told[..] {
            [line] => line.strip_prefix("fluxgate: ").unwrap_or_else(|| panic!("{err}")),
            _ => panic!("not one sentence: {err}"),
        };
        sentence.replace(&self.dir.path().display().to_string(), "DIR")
    }
}

/// A configuration that would start, one key a line, with these keys set or replaced.
fn config(keys: &[(&str, Value)]) -> String {
    let backend = json!({"name": "b", "url": "http://127.0.0.1:1"});
    let mut all = json!({
        "circles": [{"name": "c", "backends": [backend]}], "listen_addr": "127.0.0.1:0",
        "data_dir": "data", "workers": 1,
    });
    keys.iter().for_each(|(key, value)| all[*key] = value.clone());
    let lines: Vec<_> = all.as_object().unwrap().iter().map(|(key, value)| format!("  {key:?}: {value}")).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

fn backend(url: &str) -> Value {
    json!([{"name": "c", "backends": [{"name": "b", "url": url}]}])
}

#[test]
fn a_configuration_that_means_nothing_is_refused_with_its_place() {
    let cases = [
        (
            config(&[("flush_sise", 5.into())]),
            "DIR/proxy.json:6: unknown key flush_sise; the nearest known key is flush_size",
        ),
        (config(&[("flush_size", "five".into())]), "DIR/proxy.json:6: flush_size must be a whole number, not text"),
        (config(&[("db_list", json!({}))]), "DIR/proxy.json:6: db_list must be a list of texts, not a table"),
        (config(&[("log_enabled", "on".into())]), "DIR/proxy.json:6: log_enabled must be true or false, not text"),
    ];
    for (text, sentence) in cases {
        let place = StartFolder::new("proxy.json", &text);
        assert_eq!(place.refusal(), sentence);
        assert!(!place.dir.path().join("data").exists(), "nothing is made before the file is right");
    }
    // The wording of these sentences is tested with the configuration; here they must name what matters.
    for (text, line, named) in [
        (config(&[("https_enabled", true.into())]), 6, &["https_enabled", "https_cert"][..]),
        (config(&[("circles", backend("ftp://127.0.0.1:1"))]), 2, &["https"]),
        (config(&[("circles", backend("127.0.0.1:1"))]), 2, &["url"]),
        (config(&[("circles", json!([]))]), 2, &["circles"]),
        (config(&[("circles", json!([{"name": "c", "backends": []}]))]), 2, &["backends"]),
        (config(&[("durability", "dsik".into())]), 6, &["durability", "disk"]),
        (config(&[("hash_key", "idxx".into())]), 6, &["hash_key", "idx"]),
        (config(&[("listen_addr", "127.0.0.1:99999".into())]), 3, &["listen_addr"]),
        (config(&[("workers", 100_000.into())]), 5, &["workers"]),
        (config(&[("hot_tail_bytes", 1.into())]), 6, &["hot_tail_bytes"]),
        ("{\n  \"circles\": [\n".into(), 0, &[]),
        (String::new(), 0, &[]),
    ] {
        let sentence = StartFolder::new("proxy.json", &text).refusal();
        let place = if line > 0 { format!("DIR/proxy.json:{line}: ") } else { "DIR/proxy.json".to_owned() };
        assert!(sentence.starts_with(&place), "{sentence}");
        assert!(named.iter().all(|named| sentence.contains(named)), "{sentence}");
    }
    let password = config(&[("username", "admin".into()), ("password", "pssst".into()), ("durabilitie", 1.into())]);
    let (_, _, err) = StartFolder::new("proxy.json", &password).run(&[]);
    assert!(!err.contains("pssst"), "a password is never told: {err}");

    let toml = "listen_addr = \"127.0.0.1:0\"\nflush_sise = 5\n[[circles]]\nname = \"c\"\n";
    let sentence = StartFolder::new("proxy.toml", toml).refusal();
    assert!(sentence.starts_with("DIR/proxy.toml:2: unknown key flush_sise"), "{sentence}");
    let yaml = "listen_addr: 127.0.0.1:0\nflush_size: x\n";
    let sentence = StartFolder::new("proxy.yaml", yaml).refusal();
    assert!(sentence.starts_with("DIR/proxy.yaml:2: flush_size must be a whole number"), "{sentence}");

    let place = StartFolder::new("proxy.json", "");
    std::fs::remove_file(&place.file).unwrap();
    assert!(place.refusal().starts_with("DIR/proxy.json: cannot be read: "), "{}", place.refusal());
}

#[test]
fn a_port_that_is_in_use_is_refused() {
    let in_use = |addr: &str| {
        let sentence = StartFolder::new("proxy.json", &config(&[("listen_addr", addr.into())])).refusal();
        assert_eq!(
            sentence,
            format!("listen_addr {addr} is in use by another program, or by another instance of this one")
        );
    };
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    in_use(&other.local_addr().unwrap().to_string());

    // Another instance of this program, which shares its port among its own workers.
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = support::start(&ProxyConfig::new(&[vec![backend.url()]]).set("workers", 2));
    in_use(&proxy.addr().to_string());
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.write("db", "m n=1i 1\n").unwrap().status, 204, "the first one goes on");
}

#[test]
fn a_data_dir_that_cannot_be_used_is_refused() {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = support::start(&ProxyConfig::new(&[vec![backend.url()]]));
    let dir = proxy.data_dir().display().to_string();
    let sentence = StartFolder::new("proxy.json", &config(&[("data_dir", dir.as_str().into())])).refusal();
    assert_eq!(sentence, format!("data_dir {dir} is in use by another instance"));

    let place = StartFolder::new("proxy.json", &config(&[("data_dir", "proxy.json".into())]));
    assert!(place.refusal().starts_with("data_dir DIR/proxy.json cannot be created: "), "{}", place.refusal());
    let place = StartFolder::new("proxy.json", &config(&[("data_dir", "proxy.json/data".into())]));
    assert!(place.refusal().starts_with("data_dir DIR/proxy.json/data cannot be created: "), "{}", place.refusal());

    // Root may write anywhere but in /proc.
    let place = StartFolder::new("proxy.json", &config(&[("data_dir", "/proc/fluxgate".into())]));
    assert!(place.refusal().starts_with("data_dir /proc/fluxgate cannot be created: "), "{}", place.refusal());
    let place = StartFolder::new("proxy.json", &config(&[]));
    let data = place.dir.path().join("data");
    std::fs::create_dir_all(data.join("lock")).unwrap();
    assert!(place.refusal().starts_with("data_dir DIR/data cannot be written: "), "{}", place.refusal());
    std::fs::remove_dir(data.join("lock")).unwrap();

    // Its owner could not use what root leaves there. Others than root may not give it away.
    if std::os::unix::fs::chown(&data, Some(7), None).is_ok() {
        assert!(place.refusal().contains("data_dir DIR/data belongs to the user with the number 7"));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
        std::os::unix::fs::chown(&data, Some(0), None).unwrap();
    }

    // A log that this version cannot have written stays as it is.
    let worker = data.join("worker-0");
    std::fs::write(&worker, "not a folder").unwrap();
    assert!(place.refusal().contains("worker-0"), "{}", place.refusal());
    assert_eq!(std::fs::read(&worker).unwrap(), b"not a folder");
}

/// A file with all keys of influx-proxy 2.4, and the three forms of one of 2.5.
const FILES: [(&str, &str); 4] = [
    ("proxy.json", include_str!("golden/proxy.json")),
    ("proxy-2.5.json", include_str!("golden/proxy-2.5.json")),
    ("proxy-2.5.toml", include_str!("golden/proxy-2.5.toml")),
    ("proxy-2.5.yaml", include_str!("golden/proxy-2.5.yaml")),
];

/// Such a file with the addresses of `backends`.
fn with_addresses(text: &str, backends: &[StandIn], listen: &str) -> String {
    let mut text = text.replace("\":7076\"", &format!("\"{listen}\""));
    for (number, backend) in backends.iter().enumerate() {
        text = text.replace(&format!("http://127.0.0.1:{}", 8086 + number), &backend.url());
    }
    text
}

#[test]
fn the_files_of_influx_proxy_start_and_check_shows_what_they_mean() {
    for (name, text) in FILES {
        let backends: Vec<_> = (0..4).map(|_| StandIn::with_databases(&["db"]).unwrap()).collect();
        let port = Port::of_loopback().unwrap();
        let place = StartFolder::new(name, &with_addresses(text, &backends, &port.addr().to_string()));

        let (status, out, err) = place.run(&["check"]);
        assert_eq!((status, &*err), (0, ""));
        let shares: Vec<f64> =
            out.lines().filter_map(|line| line.strip_suffix(" %")?.rsplit(' ').next()?.parse().ok()).collect();
        assert_eq!(shares.len(), 4, "{out}");
        assert!(shares.chunks(2).all(|circle| (circle[0] + circle[1] - 100.0).abs() < 0.02), "{out}");
        assert!(["circle-1", "circle-2"].iter().all(|name| out.contains(name)), "{out}");
        assert!(backends.iter().all(|backend| out.contains(&backend.url())), "{out}");
        // 2.4 ignores the parameter `rp` of a write, which is told at each start.
        let warnings: Vec<_> = out.lines().filter(|line| line.starts_with("warning: ")).collect();
        let is_older = name == "proxy.json";
        assert!(warnings.len() == usize::from(is_older), "{warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with("warning: ignore_rp is true")), "{warnings:?}");
        assert!(!place.dir.path().join("data").exists(), "check starts nothing");
        starts_and_delivers(&place, name, port.addr(), &backends);
    }
    let (status, out, err) = StartFolder::new("proxy.json", &config(&[("flush_sise", 5.into())])).run(&["check"]);
    assert!(status == 2 && out.is_empty() && err.contains("flush_sise"), "{status} {out} {err}");
}

/// As influx-proxy itself is started: in its folder, with one dash.
fn starts_and_delivers(place: &StartFolder, file: &str, addr: SocketAddr, backends: &[StandIn]) {
    let mut command = Command::new(executable());
    command.arg("-config").arg(file).current_dir(place.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    die_with_us(&mut command);
    let mut child = command.spawn().unwrap();
    let written = eventually(TIMEOUT, || {
        Client::connect(addr).is_ok_and(|mut client| {
            client.write("db", "cpu1 n=1i 1\ncpu2 n=2i 2\n").is_ok_and(|reply| reply.status == 204)
        })
    });
    let delivered = eventually(TIMEOUT, || backends.iter().map(|backend| backend.points("db")).sum::<u64>() == 4);
    let made = place.dir.path().join("data/worker-0").is_dir();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(written && delivered && made, "{file}: written {written}, delivered {delivered}, data_dir {made}");
}

#[test]
fn a_file_as_loose_as_influx_proxy_takes_it_starts_and_is_warned_of() {
    let backends: Vec<_> = (0..4).map(|_| StandIn::with_databases(&["db"]).unwrap()).collect();
    let port = Port::of_loopback().unwrap();
    let mut text = with_addresses(FILES[1].1, &backends, &port.addr().to_string());
    for (strict, loose) in [
        ("\"flush_size\": 10000", "\"FLUSH_SIZE\": \"10000\""),
        ("\"write_tracing\": false", "\"write_tracing\": \"false\""),
        ("\"db_list\": []", "\"db_list\": \"db,other\""),
        ("\"name\": \"circle-2\",", ""),
        ("\"idle_timeout\": 10", "\"idle_timeout\": 5, \"idle_timeout\": 10"),
        ("\"tlog_dir\": \"log\"", "\"tlog_dir\": \"log\", \"mlog_dir\": \"old\", \"vnode_size\": 100"),
    ] {
        assert!(text.contains(strict), "{strict}");
        text = text.replace(strict, loose);
    }
    let place = StartFolder::new("proxy.json", &text);
    let (status, out, err) = place.run(&["check"]);
    assert_eq!((status, &*err), (0, ""));
    let warnings: Vec<_> = out.lines().filter(|line| line.starts_with("warning: ")).collect();
    for name in ["FLUSH_SIZE", "flush_size", "write_tracing", "db_list", "circles[1]", "idle_timeout", "vnode_size"] {
        assert!(warnings.iter().any(|warning| warning.contains(name)), "{name}: {warnings:?}");
    }
    starts_and_delivers(&place, "proxy.json", port.addr(), &backends);
}

#[test]
fn keys_that_a_version_ignores_move_no_measurement() {
    let names: Vec<_> = (0..200).map(|n| format!("m{n}")).collect();
    let placed = |text: &str, key: &str| {
        let text = text.replacen('{', &format!("{{{key}"), 1);
        let arguments = ["hashdist", "--list"].into_iter().chain(names.iter().map(String::as_str));
        let (status, out, err) = StartFolder::new("proxy.json", &text).run(&arguments.collect::<Vec<_>>());
        assert_eq!(status, 0, "{err}");
        out
    };
    let [(_, older), (_, newer), ..] = FILES;
    assert_eq!(placed(newer, "\"vnode_size\": 100,"), placed(newer, ""));
    assert_eq!(placed(older, "\"shard_key\": \"%mm\","), placed(older, ""));
    let counts = "\"influx_proxy\": \"none\",";
    assert_ne!(placed(newer, &format!("\"vnode_size\": 100,{counts}")), placed(newer, ""));
    assert_ne!(placed(older, &format!("\"shard_key\": \"%mm\",{counts}")), placed(older, ""));
}

//! Promise: clients that other people wrote need no change but the address. Each of them writes through the proxy, with
//! the configuration of the quick start and with a user: all circles then hold exactly its points, and what it reads is
//! what it reads from one plain influxd. `docs/clients.md` lists the versions.
//!
//! `tests/clients/install.sh` installs the libraries, `make setup` the programs.

#[path = "../support/mod.rs"]
mod support;

mod agents;
mod fronts;
mod libraries;
mod tools;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fluxgate::lab::influxd::{Influxd, die_with_us};
use fluxgate::lab::proxy::{Proxy, ProxyConfig};
use serde_json::{Value, json};

const DB: &str = "clients";
/// The proxy's user, and no user at all.
const USERS: [(&str, &str); 2] = [("", ""), ("ada", "s3cr&t %+:/")];
/// A client that runs longer hangs.
const PATIENCE: &str = "60";
const DRAINED: Duration = Duration::from_secs(30);
/// Two measurements for the backends of a circle to share, and one with an unusual name.
const MEASUREMENTS: [&str; 3] = ["cpu", "disk space", "été,a=b"];
const HOSTS: [&str; 2] = ["a", "b, c=d"];
const POINTS: i64 = 300;

/// One plain server, and the proxy before two circles of two others.
struct Installation {
    plain: Influxd,
    circles: Vec<Vec<Influxd>>,
    proxy: Proxy,
    user: (&'static str, &'static str),
    /// Removed at the end.
    folder: tempfile::TempDir,
}

impl Installation {
    fn start(user: (&'static str, &'static str)) -> Self {
        Self::start_with(user, None)
    }

    /// Receives UDP packets with times in milliseconds on this address.
    fn start_with(user: (&'static str, &'static str), udp: Option<SocketAddr>) -> Self {
        let plain = Influxd::start().unwrap();
        let circles: Vec<Vec<Influxd>> = (0..2).map(|_| (0..2).map(|_| Influxd::start().unwrap()).collect()).collect();
        let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
        let mut config = ProxyConfig::new(&urls);
        if !user.0.is_empty() {
            config = config.set("username", user.0).set("password", user.1);
        }
        if let Some(bind) = udp {
            config = config.set("udp", json!([{"bind": bind.to_string(), "database": DB, "precision": "ms"}]));
        }
        let proxy = support::start(&config);
        let folder = tempfile::tempdir().unwrap();
        let (in_json, in_lines) = points();
        std::fs::write(folder.path().join("points.json"), in_json).unwrap();
        std::fs::write(folder.path().join("points.lp"), in_lines).unwrap();
        Self { plain, circles, proxy, user, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Whoever writes next finds nothing that somebody wrote before; the plain server has the points.
    fn clear(&self) {
        self.drained();
        for server in self.servers() {
            server.query("", &format!("DROP DATABASE {DB}")).unwrap();
            server.create_database(DB).unwrap();
        }
        let lines = std::fs::read_to_string(self.file("points.lp")).unwrap();
        let url = format!("{}/write?db={DB}&precision=s", self.plain.url());
        run(Command::new("curl").args(["-sSf", "--data-binary", &lines, &url]));
    }

    fn servers(&self) -> impl Iterator<Item = &Influxd> {
        self.circles.iter().flatten().chain([&self.plain])
    }

    /// Waits until all is delivered; nothing may have been refused.
    fn drained(&self) {
        // The accounts need the user, so the client of `Proxy` cannot ask for them.
        let curl = || {
            let url = format!("{}/ledger", self.proxy.url());
            let (user, password) = self.user;
            let text = run(Command::new("curl").args(["-sSf", "-u", &format!("{user}:{password}"), &url]));
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let empty = || curl()["totals"]["queued"] == 0;
        assert!(fluxgate::lab::proxy::eventually(DRAINED, empty), "{}\n{}", curl(), self.proxy.stderr());
        let totals = &curl()["totals"];
        assert!(totals["rejected"] == 0 && totals["dropped"] == 0, "{totals}");
    }

    /// Both circles hold what the plain server holds: all points, with every value, and no other.
    fn all_hold_the_points(&self, who: &str) {
        self.drained();
        let want = contents([&self.plain]);
        assert_eq!(want.len() as i64, POINTS, "{who}");
        for (index, circle) in self.circles.iter().enumerate() {
            let got = contents(circle);
            let (missing, more): (Vec<_>, Vec<_>) = (want.difference(&got).collect(), got.difference(&want).collect());
            assert!(
                missing.is_empty() && more.is_empty(),
                "{who}: circle {index} lacks {} {:?} and has {} more {:?}\n{}",
                missing.len(),
                missing.first(),
                more.len(),
                more.first(),
                self.proxy.stderr()
            );
        }
    }

    /// All circles hold the same, which is not nothing. Returns it.
    fn circles_agree(&self, who: &str) -> BTreeSet<String> {
        self.drained();
        let first = contents(&self.circles[0]);
        assert_eq!(first, contents(&self.circles[1]), "{who}");
        assert!(!first.is_empty(), "{who} wrote nothing: {}", self.proxy.stderr());
        first
    }
}

/// The points that all clients write, in JSON and as lines with seconds.
fn points() -> (String, String) {
    let (mut all, mut lines) = (Vec::new(), String::new());
    for index in 0..POINTS {
        let (measurement, host) = (MEASUREMENTS[index as usize % 3], HOSTS[index as usize % 2]);
        let (time, value, even) = (1_700_000_000 + index, index as f64 + 0.125, index % 4 == 0);
        let text = format!("a \"word\" {index}, é = 1");
        all.push(json!({
            "measurement": measurement,
            "tags": {"host": host},
            "fields": {"n": index, "v": value, "s": text, "b": even},
            "time": time,
        }));
        let escaped = |text: &str, chars: &[char]| {
            text.chars().flat_map(|c| chars.contains(&c).then_some('\\').into_iter().chain([c])).collect::<String>()
        };
        let (measurement, host) = (escaped(measurement, &[',', ' ']), escaped(host, &[',', ' ', '=']));
        let text = escaped(&text, &['"']);
        writeln!(lines, "{measurement},host={host} n={index}i,v={value},s=\"{text}\",b={even} {time}").unwrap();
    }
    (Value::from(all).to_string(), lines)
}

/// Every point of these servers, one text each.
fn contents<'a>(servers: impl IntoIterator<Item = &'a Influxd>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for server in servers {
        let answer = server.query(DB, "SELECT * FROM /.*/ GROUP BY *").unwrap();
        for series in answer["results"][0]["series"].as_array().into_iter().flatten() {
            for row in series["values"].as_array().unwrap() {
                let point = json!([series["name"], series["tags"], series["columns"], row]).to_string();
                assert!(all.insert(point.clone()), "two servers of a circle hold {point}");
            }
        }
    }
    all
}

/// Runs a program to its end and returns what it printed. It must succeed, in reasonable time.
fn run(command: &mut Command) -> String {
    let (success, printed) = try_run(command);
    assert!(success, "{command:?}\n{printed}");
    printed
}

/// As [`run`], also when it fails: then what it printed to stderr follows.
fn try_run(command: &mut Command) -> (bool, String) {
    let mut limited = Command::new("timeout");
    limited.arg(PATIENCE).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    limited.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    die_with_us(&mut limited);
    let output = limited.output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text += &String::from_utf8_lossy(&output.stderr);
    }
    (output.status.success(), text)
}

/// Where `tests/clients/install.sh` puts libraries.
fn installed(path: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("clients").join(path);
    assert!(file.exists(), "{} is missing: run `make clients`", file.display());
    file
}

/// A program of `tests/clients/programs/`, with Python or Node.js before it.
fn program(name: &str) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/programs").join(name);
    let mut command = if name.ends_with(".py") {
        Command::new(installed("python/bin/python"))
    } else {
        let mut node = Command::new("node");
        node.env("NODE_PACKAGES", installed("npm/package.json"));
        node
    };
    command.arg(file);
    command
}

/// Path of an installed program, of which some lie where only administrators look.
fn executable(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `make setup`"))
}

//! The proxy as a child process, for the demo and for tests: a configuration, a start that waits for `/ping`, and what
//! an operator can see and do from outside.
//!
//! The default configuration is that of the README's quick start: circles and `listen_addr`. All else has its default;
//! `data_dir` is relative to the working directory, which is a temporary folder.
//!
//! The kernel kills the child when the *thread* that started it ends, as with [`crate::lab::influxd`].

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::lab::influxd::{agent, die_with_us};
use crate::lab::port::Port;

/// A proxy that does not answer `/ping` within this has not started.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to wait for the port of a killed proxy.
const PORT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds a configuration: circles of backend URLs, and any other keys.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    circles: Vec<Value>,
    extra: Map<String, Value>,
    ip: IpAddr,
    launcher: Vec<String>,
}

impl ProxyConfig {
    /// Circles of backends, named as in influx-proxy's examples: `circle-1` with `influxdb-1-1`, `influxdb-1-2` ...
    pub fn new(circles: &[Vec<String>]) -> Self {
        let backend = |c: usize, (b, url): (usize, &String)| json!({"name": backend_name(c, b), "url": url});
        let circle = |(c, urls): (usize, &Vec<String>)| {
            let backends: Vec<_> = urls.iter().enumerate().map(|entry| backend(c, entry)).collect();
            json!({"name": format!("circle-{}", c + 1), "backends": backends})
        };
        let circles = circles.iter().enumerate().map(circle).collect();
        Self { circles, extra: Map::new(), ip: Ipv4Addr::LOCALHOST.into(), launcher: Vec::new() }
    }

    /// Sets a key of the configuration file.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(key.into(), value.into());
        self
    }

    /// Sets several keys.
    pub fn set_all<K: AsRef<str>>(self, keys: impl IntoIterator<Item = (K, Value)>) -> Self {
        keys.into_iter().fold(self, |config, (key, value)| config.set(key.as_ref(), value))
    }

    /// Listens on a free port of this address instead of 127.0.0.1.
    pub fn listen_on(self, ip: IpAddr) -> Self {
        Self { ip, ..self }
    }

    /// Has this program start the proxy, which must end by replacing itself with its last arguments.
    pub fn launched_by<S: Into<String>>(self, words: impl IntoIterator<Item = S>) -> Self {
        Self { launcher: words.into_iter().map(Into::into).collect(), ..self }
    }

    /// Starts `executable` with this configuration on a free loopback port, and waits until it answers.
    pub fn start(&self, executable: &Path) -> io::Result<Proxy> {
        let dir = tempfile::Builder::new().prefix("fluxgate-proxy-").tempdir()?;
        let scheme = if self.extra.get("https_enabled") == Some(&true.into()) { "https" } else { "http" };
        let port = Port::of(self.ip)?;
        let launcher = self.launcher.clone();
        let mut proxy = Proxy { child: None, port, scheme, executable: executable.into(), launcher, dir };
        std::fs::write(proxy.config_file(), self.text(&proxy))?;
        proxy.restart()?;
        Ok(proxy)
    }

    fn text(&self, proxy: &Proxy) -> String {
        let mut config = json!({"circles": self.circles, "listen_addr": proxy.addr().to_string()});
        for (key, value) in &self.extra {
            config[key] = value.clone();
        }
        format!("{config:#}\n")
    }
}

/// The name [`ProxyConfig::new`] gives to a backend; both indexes count from 0.
pub fn backend_name(circle: usize, backend: usize) -> String {
    format!("influxdb-{}-{}", circle + 1, backend + 1)
}

/// A child proxy. Dropping it kills it and removes its data.
pub struct Proxy {
    child: Option<Child>,
    port: Port,
    scheme: &'static str,
    executable: PathBuf,
    launcher: Vec<String>,
    /// Declared last, so that it is removed after the child has been killed.
    dir: tempfile::TempDir,
}

impl Proxy {
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr())
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("proxy.json")
    }

    /// Starts the proxy through this program from now on, as [`ProxyConfig::launched_by`] does; empty = directly.
    pub fn launch_by<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) {
        self.launcher = words.into_iter().map(Into::into).collect();
    }

    /// Changes the configuration file, for the next start.
    pub fn edit(&self, change: impl FnOnce(&mut Value)) -> io::Result<()> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(self.config_file())?)?;
        change(&mut config);
        std::fs::write(self.config_file(), config.to_string())
    }

    /// Its output to stderr, over all starts.
    pub fn stderr(&self) -> String {
        std::fs::read(self.stderr_file()).map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
    }

    /// Kills it if it runs, starts it on the same port, configuration and data, and waits until it answers.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        // The kernel closes the listeners of a killed io_uring process some time after its end. Until then the port is
        // in use, and the proxy would refuse to start. If the port stays in use, the start reports it.
        eventually(PORT_TIMEOUT, || TcpListener::bind(self.addr()).is_ok());
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(self.stderr_file())?;
        let mut command = match &self.launcher[..] {
            [] => Command::new(&self.executable),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.executable);
                command
            }
        };
        command.arg("--config").arg(self.config_file()).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(stderr.try_clone()?).stderr(stderr);
        die_with_us(&mut command);
        self.child = Some(command.spawn()?);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            // Any status is fine: with `ping_auth_enabled` it is 401.
            if self.get("/ping").is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() >= deadline {
                self.kill();
                return Err(io::Error::other(format!("the proxy did not start:\n{}", self.stderr())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `kill -9`, and waits for the end of the process.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// It runs still.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid as i32));
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the proxy is not running"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGTERM, then waits for the end of the process. Kills it after `timeout`, which is an error.
    pub fn terminate(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(timeout)
    }

    /// Waits until the process ends by itself. Kills it after `timeout`, which is an error.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let child = self.child.as_mut().ok_or_else(|| io::Error::other("the proxy is not running"))?;
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the proxy still ran after {timeout:?}:\n{}", self.stderr()),
        ))
    }

    /// Status and body of a GET.
    pub fn get(&self, target: &str) -> io::Result<(u16, String)> {
        let answer = agent(CALL_TIMEOUT).get(format!("{}{target}", self.url())).call().map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().read_to_string().map_err(io::Error::other)?))
    }

    pub fn ledger(&self) -> io::Result<Ledger> {
        let (status, text) = self.get("/ledger")?;
        match serde_json::from_str(&text) {
            Ok(ledger) if status == 200 => Ok(ledger),
            _ => Err(io::Error::other(format!("/ledger: {status} {text}"))),
        }
    }

    /// Waits until nothing is being imported and no worker has queued points, and returns the ledger. An error contains
    /// the last ledger seen.
    pub fn drained(&self, timeout: Duration) -> io::Result<Ledger> {
        let mut seen = None;
        let empty = eventually(timeout, || {
            let ledger = seen.insert(self.ledger());
            let is_empty = |ledger: &Ledger| ledger.workers_missing.is_empty() && ledger.totals.queued == 0;
            ledger.as_ref().is_ok_and(|ledger| !ledger.importing && is_empty(ledger))
        });
        match seen {
            Some(Ok(ledger)) if empty => Ok(ledger),
            other => Err(io::Error::other(format!("not drained after {timeout:?}: {other:?}\n{}", self.stderr()))),
        }
    }

    pub fn health(&self) -> io::Result<Vec<CircleHealth>> {
        let (status, text) = self.get("/health")?;
        serde_json::from_str(&text).map_err(|e| io::Error::other(format!("/health: {status} {e}: {text}")))
    }

    fn stderr_file(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `/ledger`. A point is accepted once for each backend that should get it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ledger {
    /// Points of influx-proxy's cache files are not all included.
    #[serde(default)]
    pub importing: bool,
    pub totals: LedgerTotals,
    pub balanced: bool,
    pub databases: Vec<LedgerDatabase>,
    /// Workers whose points are not included.
    pub workers_missing: Vec<Value>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct LedgerTotals {
    pub accepted: u64,
    pub delivered: u64,
    pub queued: u64,
    pub rejected: u64,
    pub dropped: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct LedgerDatabase {
    pub db: String,
    pub backends: Vec<LedgerBackend>,
}

/// The points of one backend in one database.
#[derive(Clone, Debug, Deserialize)]
pub struct LedgerBackend {
    pub backend: String,
    /// It is not configured any more.
    #[serde(default)]
    pub retired: bool,
    pub accepted: u64,
    pub delivered: u64,
    pub queued: u64,
    /// By reason.
    pub rejected: BTreeMap<String, u64>,
    pub dropped: BTreeMap<String, u64>,
}

impl LedgerTotals {
    fn balanced(self) -> bool {
        self.accepted == self.delivered + self.queued + self.rejected + self.dropped
    }

    fn add(&mut self, row: &LedgerBackend) {
        self.accepted += row.accepted;
        self.delivered += row.delivered;
        self.queued += row.queued;
        self.rejected += row.rejected.values().sum::<u64>();
        self.dropped += row.dropped.values().sum::<u64>();
    }
}

impl Ledger {
    /// One backend over all databases.
    pub fn backend(&self, name: &str) -> LedgerTotals {
        let mut totals = LedgerTotals::default();
        let rows = self.databases.iter().flat_map(|database| &database.backends);
        rows.filter(|row| row.backend == name).for_each(|row| totals.add(row));
        totals
    }

    /// Whether the ledger claims to balance and really does, row by row and in sum.
    pub fn proven_balanced(&self) -> bool {
        let mut sum = LedgerTotals::default();
        let mut rows = true;
        for row in self.databases.iter().flat_map(|database| &database.backends) {
            let mut one = LedgerTotals::default();
            one.add(row);
            rows &= one.balanced();
            sum.add(row);
        }
        self.balanced && rows && sum == self.totals && self.totals.balanced() && self.workers_missing.is_empty()
    }
}

/// One circle in `/health`, in influx-proxy's form.
#[derive(Clone, Debug, Deserialize)]
pub struct CircleHealth {
    pub circle: String,
    pub backends: Vec<BackendHealth>,
    /// Workers that take no writes until a restart.
    #[serde(default)]
    pub workers_failed: Vec<usize>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct BackendHealth {
    pub name: String,
    pub url: String,
    pub active: bool,
    pub backlog: bool,
    pub rewrite: bool,
}

/// Repeats `condition` until it holds. False if it does not within `timeout`.
pub fn eventually(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: &str = r#"{"totals":{"accepted":30,"delivered":21,"queued":5,"rejected":3,"dropped":1},
        "balanced":true,
        "databases":[{"db":"a","backends":[
            {"backend":"x","accepted":10,"delivered":5,"queued":5,"rejected":{},"dropped":{}},
            {"backend":"y","accepted":10,"delivered":6,"queued":0,"rejected":{"type conflict":2,"old":1},
             "dropped":{"full":1}}]},
          {"db":"b","backends":[{"backend":"x","accepted":10,"delivered":10,"queued":0,"rejected":{},"dropped":{}}]}],
        "workers_missing":[]}"#;

    #[test]
    fn a_balanced_ledger_is_one_that_adds_up() {
        let ledger = |text: &str| serde_json::from_str::<Ledger>(text).unwrap();
        let good = ledger(LEDGER);
        assert!(good.proven_balanced());
        let x = LedgerTotals { accepted: 20, delivered: 15, queued: 5, rejected: 0, dropped: 0 };
        assert_eq!((good.backend("x"), good.backend("z")), (x, LedgerTotals::default()));
        for (from, to) in [
            ("\"balanced\":true", "\"balanced\":false"),
            ("\"full\":1", "\"full\":2"),
            ("\"accepted\":30", "\"accepted\":31"),
            ("\"delivered\":21,\"queued\":5", "\"delivered\":20,\"queued\":6"),
            ("\"workers_missing\":[]", "\"workers_missing\":[1]"),
        ] {
            assert!(LEDGER.contains(from));
            assert!(!ledger(&LEDGER.replacen(from, to, 1)).proven_balanced(), "{to}");
        }
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported_with_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("fluxgate");
        std::fs::write(&program, "#!/bin/sh\necho no luck with $1 >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let Err(error) = ProxyConfig::new(&[]).start(&program) else { panic!("it started") };
        assert!(error.to_string().contains("no luck with --config"), "{error}");
    }

    #[test]
    fn the_configuration_names_circles_and_keys() {
        let config = ProxyConfig::new(&[vec!["http://a".into(), "http://b".into()], vec!["http://c".into()]])
            .set("durability", "os")
            .set("check_interval", 5);
        let dir = tempfile::tempdir().unwrap();
        let port = Port::of_loopback().unwrap();
        let (executable, launcher) = ("x".into(), Vec::new());
        let proxy = Proxy { child: None, port, scheme: "http", executable, launcher, dir };
        let value: Value = serde_json::from_str(&config.text(&proxy)).unwrap();
        assert_eq!(value["circles"][0]["backends"][1], json!({"name": "influxdb-1-2", "url": "http://b"}));
        assert_eq!(value["circles"][1]["name"], "circle-2");
        assert_eq!((&value["durability"], &value["check_interval"]), (&json!("os"), &json!(5)));
        assert_eq!(value["listen_addr"], proxy.addr().to_string());
    }
}

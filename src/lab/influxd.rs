//! A real `influxd` (InfluxDB 1.x) as a child process, for the demo and for tests.
//!
//! It listens on free loopback ports and keeps its data in a temporary directory; the configuration of an installed
//! server is not read. It can be killed, frozen and restarted on the same port and data. The child never outlives this
//! process: dropping kills it, and the kernel kills it when the *thread* that started it ends (`PR_SET_PDEATHSIG`
//! refers to threads). So start it from a thread that lives long enough.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, set_parent_process_death_signal, waitid};
use serde_json::Value;
use ureq::tls::TlsConfig;

use crate::lab::port::Port;

/// A server that does not answer `/ping` within this has not started.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const QUERY_TIMEOUT: Duration = Duration::from_secs(60);

/// A child `influxd`. Dropping it kills it and removes its data.
pub struct Influxd {
    child: Option<Child>,
    /// HTTP, then the port for backups, which influxd requires.
    http: Port,
    backup: Port,
    /// The host name in its URL.
    host: String,
    /// Certificate and key for https.
    tls: Option<(PathBuf, PathBuf)>,
    /// Where it receives UDP packets of line protocol, for which database, in which unit.
    udp: Option<(SocketAddr, String, String)>,
    /// Declared last, so that it is removed after the child has been killed.
    dir: tempfile::TempDir,
}

impl Influxd {
    /// The executable on `PATH`, if InfluxDB is installed.
    pub fn executable() -> Option<PathBuf> {
        find("influxd", &std::env::var_os("PATH")?)
    }

    /// Starts an empty server and waits until it answers. `Err` with `NotFound` if none is installed.
    pub fn start() -> io::Result<Self> {
        Self::start_with(None, Ipv4Addr::LOCALHOST.into())
    }

    /// As [`Influxd::start`], listening on this address of this machine.
    pub fn start_on(ip: IpAddr) -> io::Result<Self> {
        Self::start_with(None, ip)
    }

    /// Starts several empty servers. Every second one has `localhost` in its URL, the others `127.0.0.1`, so that users
    /// of these URLs must resolve names too.
    pub fn start_several(count: usize) -> io::Result<Vec<Self>> {
        let mut servers = (0..count).map(|_| Self::start()).collect::<io::Result<Vec<_>>>()?;
        servers.iter_mut().skip(1).step_by(2).for_each(|server| server.call("localhost"));
        Ok(servers)
    }

    /// From now on its URL names this machine so.
    pub fn call(&mut self, host: &str) {
        self.host = host.into();
    }

    /// As [`Influxd::start`], serving https with this certificate and key, which must stay where they are.
    pub fn start_https(certificate: &Path, key: &Path) -> io::Result<Self> {
        Self::start_with(Some((certificate.into(), key.into())), Ipv4Addr::LOCALHOST.into())
    }

    fn start_with(tls: Option<(PathBuf, PathBuf)>, ip: IpAddr) -> io::Result<Self> {
        let mut server = Self {
            child: None,
            http: Port::of(ip)?,
            backup: Port::of(ip)?,
            host: if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() },
            tls,
            udp: None,
            dir: tempfile::Builder::new().prefix("fluxgate-influxd-").tempdir()?,
        };
        server.restart()?;
        Ok(server)
    }

    /// Starts it again, receiving UDP packets of line protocol for this database in this unit.
    pub fn receive_udp(&mut self, addr: SocketAddr, db: &str, precision: &str) -> io::Result<()> {
        self.udp = Some((addr, db.into(), precision.into()));
        self.restart()
    }

    pub fn addr(&self) -> SocketAddr {
        self.http.addr()
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.addr().port())
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits for the end of the process. Its data stays.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process without ending it: connections stay open and nothing answers. Returns when all its threads are
    /// stopped, which is some time after the signal.
    pub fn freeze(&self) -> io::Result<()> {
        let pid = self.signal(Signal::STOP)?;
        // NOWAIT leaves the status of a child that has ended to `kill`.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options)?;
        Ok(())
    }

    /// Continues a frozen process.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)?;
        Ok(())
    }

    /// Kills it if it runs, starts it on the same ports and data, and waits until it answers.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        let missing = || io::Error::new(io::ErrorKind::NotFound, "influxd is not on PATH: run `make setup`");
        let executable = Self::executable().ok_or_else(missing)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(executable);
        command
            .args(["run", "-config", "/dev/null"])
            .envs(self.environment())
            .env_remove("INFLUXDB_CONFIG_PATH")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        die_with_us(&mut command);
        self.child = Some(command.spawn()?);
        self.wait_until_it_answers()
    }

    /// Kills it if it runs, and starts it on the same ports as a new server that has nothing.
    pub fn lose_data(&mut self) -> io::Result<()> {
        self.kill();
        for folder in ["data", "meta", "wal"] {
            match std::fs::remove_dir_all(self.dir.path().join(folder)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.restart()
    }

    /// Creates a database.
    pub fn create_database(&self, name: &str) -> io::Result<()> {
        self.query("", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Runs a statement (with POST, so any kind is allowed) and returns the whole answer. An `error` in it is an `Err`.
    pub fn query(&self, db: &str, statement: &str) -> io::Result<Value> {
        query(&self.url(), db, statement)
    }

    /// Number of points in which the integer field `n` is set, over all measurements.
    pub fn points(&self, db: &str) -> io::Result<u64> {
        let answer = self.query(db, "SELECT count(n) FROM /.*/")?;
        let series = answer["results"][0]["series"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(series.iter().filter_map(|series| series["values"][0][1].as_u64()).sum())
    }

    /// The file with the server's output.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("influxd.log")
    }

    fn signal(&self, signal: Signal) -> io::Result<Pid> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid as i32));
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "influxd is not running"))?;
        kill_process(pid, signal)?;
        Ok(pid)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let dir = |name: &str| self.dir.path().join(name).display().to_string();
        let mut environment = vec![
            ("INFLUXDB_HTTP_BIND_ADDRESS", self.http.addr().to_string()),
            ("INFLUXDB_BIND_ADDRESS", self.backup.addr().to_string()),
            ("INFLUXDB_META_DIR", dir("meta")),
            ("INFLUXDB_DATA_DIR", dir("data")),
            ("INFLUXDB_DATA_WAL_DIR", dir("wal")),
            ("INFLUXDB_REPORTING_DISABLED", "true".into()),
            ("INFLUXDB_MONITOR_STORE_ENABLED", "false".into()),
            ("INFLUXDB_CONTINUOUS_QUERIES_ENABLED", "false".into()),
            ("INFLUXDB_HTTP_LOG_ENABLED", "false".into()),
            ("INFLUXDB_DATA_QUERY_LOG_ENABLED", "false".into()),
        ];
        if let Some((addr, db, precision)) = &self.udp {
            environment.extend([
                ("INFLUXDB_UDP_0_ENABLED", "true".to_owned()),
                ("INFLUXDB_UDP_0_BIND_ADDRESS", addr.to_string()),
                ("INFLUXDB_UDP_0_DATABASE", db.clone()),
                ("INFLUXDB_UDP_0_PRECISION", precision.clone()),
                ("INFLUXDB_UDP_0_BATCH_TIMEOUT", "10ms".to_owned()),
            ]);
        }
        if let Some((certificate, key)) = &self.tls {
            environment.extend([
                ("INFLUXDB_HTTP_HTTPS_ENABLED", "true".to_owned()),
                ("INFLUXDB_HTTP_HTTPS_CERTIFICATE", certificate.display().to_string()),
                ("INFLUXDB_HTTP_HTTPS_PRIVATE_KEY", key.display().to_string()),
            ]);
        }
        environment
    }

    fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let ping = format!("{}/ping", self.url());
        loop {
            if agent(Duration::from_secs(1)).get(&ping).call().is_ok() {
                return Ok(());
            }
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() >= deadline {
                self.kill();
                return Err(io::Error::other(format!("influxd did not start: {}", last_line(&self.log()))));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a statement at `url` and returns the answer; an `error` in it is an `Err`.
pub fn query(url: &str, db: &str, statement: &str) -> io::Result<Value> {
    let answer = agent(QUERY_TIMEOUT)
        .post(format!("{url}/query"))
        .send_form([("db", db), ("q", statement)])
        .map_err(io::Error::other)?;
    let text = answer.into_body().with_config().limit(u64::MAX).read_to_string().map_err(io::Error::other)?;
    let value: Value = serde_json::from_str(&text)?;
    let failed = value.get("error").or_else(|| value["results"].as_array()?.iter().find_map(|r| r.get("error")));
    match failed {
        Some(error) => Err(io::Error::other(format!("{statement}: {error}"))),
        None => Ok(value),
    }
}

/// Makes the kernel kill the child when the thread that starts it ends, for any reason. The child gets its own process
/// group, so that Ctrl-C in a terminal reaches only this process.
pub fn die_with_us(command: &mut Command) {
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is one prctl(2), and turning its
    // error into an `io::Error` allocates nothing.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
}

/// An HTTP client for one call: 4xx and 5xx are ordinary answers. Certificates are not verified, since it only talks to
/// child processes on this machine.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .disable_verification(true)
        .build();
    let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false);
    config.tls_config(tls).build().into()
}

fn find(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn last_line(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it printed nothing").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("influxd");
        let path = std::env::join_paths([Path::new("/nonexistent"), dir.path()]).unwrap();
        assert_eq!(find("influxd", &path), None);
        std::fs::write(&file, "").unwrap();
        assert_eq!(find("influxd", &path), Some(file));
    }

    #[test]
    fn a_server_can_be_killed_frozen_and_brought_back_with_its_data() {
        let mut server = Influxd::start().unwrap();
        server.create_database("db").unwrap();
        let args = crate::lab::load::LoadArgs {
            points: Some(1_000),
            measurements: 3,
            lines: 100,
            ..crate::lab::load::LoadArgs::new(&server.url(), "db")
        };
        let summary = crate::lab::load::run(&args, &Default::default(), &mut |_| {}).unwrap();
        assert!(summary.succeeded(), "{summary}");
        assert_eq!(server.points("db").unwrap(), 1_000);

        server.freeze().unwrap();
        let ping = format!("{}/ping", server.url());
        assert!(agent(Duration::from_millis(300)).get(&ping).call().is_err());
        server.thaw().unwrap();
        assert!(agent(Duration::from_secs(5)).get(&ping).call().is_ok());

        let addr = server.addr();
        server.kill();
        assert_eq!(server.pid(), None);
        assert!(std::net::TcpStream::connect(addr).is_err());
        server.restart().unwrap();
        assert_eq!((server.addr(), server.points("db").unwrap()), (addr, 1_000));
        assert!(server.query("db", "SELECT x FROM").is_err());

        let (pid, dir) = (server.pid().unwrap(), server.dir.path().to_owned());
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists() && !dir.exists());
    }
}

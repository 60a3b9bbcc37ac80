//! Back to influx-proxy and forward again: what it cannot read is told of, delivered on demand, and never delivered in
//! silence when it may be older than what the backends hold.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::StandIn;

use crate::support::start;

const LINES: [&str; 2] = ["cpu1 n=1i 1000\n", "cpu2,host=a\\ b n=2i 2000\n"];

/// Status, standard output and standard error of a command in the folder of the stopped proxy.
fn command(proxy: &Proxy, arguments: &[&str]) -> (i32, String, String) {
    command_in(proxy.config_file().parent().unwrap(), arguments)
}

fn command_in(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
    command.args(arguments).current_dir(dir);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A proxy that was stopped with two points for the second of its two circles, whose server is down.
fn stopped_with_a_backlog() -> (Proxy, [StandIn; 2]) {
    let mut backends = [0, 1].map(|_| StandIn::with_databases(&["db"]).unwrap());
    let circles = backends.each_ref().map(|backend| vec![backend.url()]);
    let mut proxy = start(&ProxyConfig::new(&circles));
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.write("db", "cpu0 n=9i 9000\n").unwrap().status, 204);
    proxy.drained(Duration::from_secs(10)).unwrap();
    backends[1].stop();
    for line in LINES {
        assert_eq!(client.write("db", line).unwrap().status, 204);
    }
    let queued = || proxy.ledger().is_ok_and(|ledger| ledger.totals.queued == 2);
    assert!(eventually(Duration::from_secs(10), queued), "{:?}", proxy.ledger());
    stop(&mut proxy);
    (proxy, backends)
}

fn stop(proxy: &mut Proxy) {
    assert!(proxy.terminate(Duration::from_secs(5)).unwrap().success());
}

/// The lines of `log cat --pending` that are points, and the comments before them.
fn pending(proxy: &Proxy) -> (Vec<String>, Vec<String>) {
    let (status, out, err) = command(proxy, &["log", "cat", "--pending", "data"]);
    assert_eq!((status, &*err), (0, ""));
    out.lines().map(|line| format!("{line}\n")).partition(|line| !line.starts_with('#'))
}

#[test]
fn what_is_queued_at_the_end_is_told_of_printed_and_drained() {
    let (mut proxy, mut backends) = stopped_with_a_backlog();
    let log = proxy.stderr();
    assert!(
        log.contains("not delivered yet, and kept in data_dir for the next start: 2 points for influxdb-2-1"),
        "{log}"
    );
    let (mut points, comments) = pending(&proxy);
    points.sort();
    assert_eq!(points, LINES);
    let wanted = |comment: &String| comment.starts_with("# db=db ") && comment.ends_with("backends=influxdb-2-1\n");
    assert!(!comments.is_empty() && comments.iter().all(wanted), "{comments:?}");

    let (status, _, err) = command(&proxy, &["drain", "-config", "proxy.json", "--wait", "1"]);
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("not everything has been delivered: 2 points for influxdb-2-1 are left"), "{err}");
    backends[1].restart().unwrap();
    let (status, _, err) = command(&proxy, &["drain", "-config", "proxy.json"]);
    assert_eq!(status, 0, "{err}");
    assert!(err.contains("everything has been delivered"), "{err}");
    assert_eq!((backends[0].points("db"), backends[1].points("db")), (3, 3), "each once");
    assert_eq!(pending(&proxy), (vec![], vec![]));

    // Not where the proxy was, or who it was.
    let elsewhere = tempfile::tempdir().unwrap();
    let config = proxy.config_file().display().to_string();
    let (status, _, err) = command_in(elsewhere.path(), &["drain", "-config", &config]);
    assert!(status == 2 && err.contains("there is no log in data_dir"), "{status}: {err}");
    assert!(!elsewhere.path().join("data").exists());
    let lock = proxy.data_dir().join("lock");
    // Only root can give it away.
    if std::os::unix::fs::chown(&lock, Some(7), None).is_ok() {
        let (status, _, err) = command(&proxy, &["drain", "-config", "proxy.json"]);
        assert!(status == 2 && err.contains("belongs to the user with the number 7"), "{status}: {err}");
        std::os::unix::fs::chown(&lock, Some(0), None).unwrap();
    }

    // There is nothing to wait for.
    let (status, _, err) = command(&proxy, &["drain", "-config", "proxy.json", "--wait", "0"]);
    assert_eq!(status, 0, "{err}");

    // Nothing is queued: nothing is said.
    proxy.restart().unwrap();
    let before = proxy.stderr().len();
    let (status, _, err) = command(&proxy, &["drain", "-config", "proxy.json"]);
    assert!(status == 2 && err.contains("is in use by another instance"), "{status}: {err}");
    stop(&mut proxy);
    assert!(!proxy.stderr()[before..].contains("not delivered yet"), "{}", proxy.stderr());
}

#[test]
fn cache_files_that_cannot_be_imported_are_not_delivered() {
    let (proxy, mut backends) = stopped_with_a_backlog();
    backends[1].restart().unwrap();
    let (gone, written) = (proxy.data_dir().join("gone.dat"), proxy.data_dir().join("influxdb-2-1.dat"));
    std::fs::write(&gone, "x").unwrap();
    std::fs::write(&written, "x").unwrap();
    let drain = || command(&proxy, &["drain", "-config", "proxy.json"]);
    let left = |names: &str| format!("data: {names}; the log above says why");
    let writer = std::fs::File::options().append(true).open(&written).unwrap();
    let (status, _, err) = drain();
    assert!(status == 1 && err.contains(&left("gone.dat, influxdb-2-1.dat")), "{status}: {err}");
    assert!(err.contains("no backend is named gone") && err.contains("may still write to it"), "{err}");
    drop(writer);
    let (status, _, err) = drain();
    assert!(status == 1 && err.contains(&left("gone.dat")) && !written.exists(), "{status}: {err}");
    std::fs::remove_file(gone).unwrap();
    let (status, _, err) = drain();
    assert!(status == 0 && err.contains("everything has been delivered"), "{status}: {err}");
}

#[test]
fn a_proxy_that_drains_serves_nobody() {
    let (proxy, _backends) = stopped_with_a_backlog();
    let mut draining = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
    draining.args(["drain", "-config", "proxy.json", "--wait", "3"]);
    draining.current_dir(proxy.config_file().parent().unwrap()).stderr(std::process::Stdio::null());
    let mut child = draining.spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        assert!(TcpStream::connect(proxy.addr()).is_err(), "somebody listens");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn points_from_before_influx_proxy_ran_again_are_asked_about() {
    let (mut proxy, mut backends) = stopped_with_a_backlog();
    backends[1].restart().unwrap();
    // As influx-proxy does at its start.
    for ending in ["dat", "rec"] {
        std::fs::write(proxy.data_dir().join(format!("influxdb-2-1.{ending}")), "").unwrap();
    }
    let (status, _, err) = command(&proxy, &["-config", "proxy.json"]);
    assert_eq!(status, 2, "{err}");
    for words in ["influx-proxy has run here since", "for influxdb-2-1", "log cat --pending", "fluxgate drain"] {
        assert!(err.contains(words), "{words}: {err}");
    }
    assert_eq!(backends[1].points("db"), 1, "nothing is delivered unasked");
    // As the sentence says, logs that have another name are left out.
    let logs: Vec<_> = (0..2).map(|worker| proxy.data_dir().join(format!("worker-{worker}"))).collect();
    let refused = |proxy: &Proxy| command(proxy, &["check", "-config", "proxy.json"]).1.contains("a start is refused");
    let aside = |log: &PathBuf| log.with_extension("old");
    logs.iter().for_each(|log| std::fs::rename(log, aside(log)).unwrap());
    assert!(!refused(&proxy));
    logs.iter().for_each(|log| std::fs::rename(aside(log), log).unwrap());
    let (status, out, err) = command(&proxy, &["check", "-config", "proxy.json"]);
    assert!(status == 0 && out.contains("\na start is refused: data_dir "), "{out}{err}");
    let (status, _, err) = command(&proxy, &["drain", "-config", "proxy.json"]);
    assert_eq!(status, 0, "{err}");
    assert_eq!(backends[1].points("db"), 3);

    proxy.restart().unwrap();
    assert!(!proxy.data_dir().join("influxdb-2-1.dat").exists(), "the next influx-proxy makes a newer one");
    // Points that wait are no question while influx-proxy has not run.
    backends[1].stop();
    assert_eq!(Client::connect(proxy.addr()).unwrap().write("db", "cpu3 n=1i 1\n").unwrap().status, 204);
    stop(&mut proxy);
    proxy.restart().unwrap();
}

//! Promise: the README's quick start works as it is printed, from any working directory: paths at their defaults, also
//! when a backend refuses a line.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::{Influxd, die_with_us};
use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::eventually;

const README: &str = include_str!("../README.md");
const TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration between `cat > proxy.json` and its end, with these addresses instead of those that it names.
fn configuration(listen: &str, backends: &[Influxd]) -> String {
    let text = README.split_once("cat > proxy.json <<'EOF'\n").expect("the quick start writes a configuration").1;
    let mut text = text.split_once("\nEOF").expect("it ends").0.to_owned();
    assert!(!text.contains("data_dir"), "the quick start leaves data_dir at its default");
    for (index, backend) in backends.iter().enumerate() {
        let printed = format!("http://127.0.0.1:{}", 18086 + index);
        assert!(text.contains(&printed), "{text}");
        text = text.replace(&printed, &backend.url());
    }
    assert!(text.contains("127.0.0.1:7076"), "{text}");
    text.replace("127.0.0.1:7076", listen)
}

/// Kills what it started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(folder: &Path, log: &Path, listen: &str) -> (Running, Client) {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
    command.args(["-config", "../proxy.json"]).current_dir(folder).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    die_with_us(&mut command);
    let running = Running(command.spawn().unwrap());
    let mut client = None;
    // A killed process's socket may still take connections for a moment; only an answer tells that this one listens.
    let up = eventually(TIMEOUT, || {
        client = Client::connect(listen.parse().unwrap()).ok();
        client.as_mut().is_some_and(|client| client.get("/ping").is_ok())
    });
    assert!(up, "the quick start does not listen");
    (running, client.unwrap())
}

fn send(client: &mut Client, line: &str) {
    let reply = client.request("POST", "/write?db=db1", &[], line.as_bytes()).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

fn totals(client: &mut Client) -> serde_json::Value {
    let reply = client.request("GET", "/ledger", &[], b"").unwrap();
    serde_json::from_str::<serde_json::Value>(&reply.text()).unwrap()["totals"].clone()
}

fn count(backend: &Influxd) -> u64 {
    let answer = backend.query("db1", "SELECT count(v) FROM cpu1").unwrap();
    answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
}

#[test]
fn a_refused_line_stops_no_backend_when_data_dir_is_relative() {
    let backends: Vec<_> = (0..4).map(|_| Influxd::start().unwrap()).collect();
    let dir = tempfile::tempdir().unwrap();
    let (folder, log) = (dir.path().join("elsewhere"), dir.path().join("log.txt"));
    std::fs::create_dir(&folder).unwrap();
    let port = Port::of_loopback().unwrap();
    let listen = port.addr().to_string();
    std::fs::write(dir.path().join("proxy.json"), configuration(&listen, &backends)).unwrap();
    let (running, mut client) = start(&folder, &log, &listen);
    let text = || std::fs::read_to_string(&log).unwrap();

    let reply = client.request("POST", "/query?q=CREATE+DATABASE+db1", &[], b"").unwrap();
    assert_eq!(reply.status, 200, "{}\n{}", reply.text(), text());
    send(&mut client, "cpu1,host=a v=1i 1");
    let drained = |client: &mut Client| eventually(TIMEOUT, || totals(client)["queued"] == 0);
    assert!(drained(&mut client), "{}", text());
    send(&mut client, "cpu1,host=a v=\"text\" 2");
    send(&mut client, "cpu1,host=a v=3i 3");
    assert!(drained(&mut client), "{}\n{}", totals(&mut client), text());
    assert_eq!(totals(&mut client)["rejected"], 2, "one line, refused in two circles");
    let letters = |circle: u32| {
        let folders = (1..=2).map(|n| folder.join(format!("data/rejected/influxdb-{circle}-{n}")));
        let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let text: String = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    for circle in [1, 2] {
        assert_eq!(letters(circle), ["cpu1,host=a v=\"text\" 2"], "{}", text());
        let held: u64 = backends[2 * circle as usize - 2..][..2].iter().map(count).sum();
        assert_eq!(held, 2, "circle {circle}");
    }
    drop(running);
    // Started again, it goes on with the same data and has nothing left to do.
    let (_running, mut client) = start(&folder, &log, &listen);
    let whole = eventually(TIMEOUT, || totals(&mut client)["rejected"] == 2);
    assert!(whole && totals(&mut client)["queued"] == 0, "{}\n{}", totals(&mut client), text());
}

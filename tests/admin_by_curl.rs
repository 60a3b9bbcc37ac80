//! Promise: each curl command that influx-proxy 2.4.7's description of its HTTP endpoints prints is answered as printed
//! there, with the same keys in the same order and form, and does what it says.
//!
//! Commands and answers stand in `golden/curl.txt`, which says how it is written. Real servers, real proxies, real
//! curl. Not here: what the description does not show (`endpoints_as_influx_proxy`), and migration under load
//! (`migration`).

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use serde_json::{Value, json};

/// The file has at least so many commands of the description and of InfluxDB's reference.
const PRINTED: usize = 28;
/// A reading command is repeated for this long until its answer is right: measurements are counted every few seconds.
const PATIENCE: Duration = Duration::from_secs(25);
/// Ports as in the description. A server's name says its place in two circles of two.
const SERVERS: [(&str, &str); 4] =
    [("8086", "influxdb-1-1"), ("8087", "influxdb-1-2"), ("8088", "influxdb-2-1"), ("8089", "influxdb-2-2")];

#[derive(Debug)]
enum ScriptStep {
    /// `new`, `restart` or `stop`, the port, and the circles.
    Proxy(String, String, Vec<Vec<String>>),
    Command {
        is_printed: bool,
        command: String,
        want: Vec<String>,
    },
}

/// The steps of the file.
fn steps(text: &str) -> Vec<ScriptStep> {
    let mut steps = Vec::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        if let Some(proxy) = line.strip_prefix("@ ") {
            let (what, circles) = proxy.split_once(": ").unwrap_or((proxy, ""));
            let (what, port) = what.split_once(' ').unwrap();
            let circle = |circle: &str| circle.split_whitespace().map(str::to_owned).collect();
            steps.push(ScriptStep::Proxy(what.into(), port.into(), circles.split('|').map(circle).collect()));
        } else if line.starts_with("$ ") || line.starts_with("> ") {
            let mut command = line[2..].to_owned();
            // A command goes on until all its quotes are closed, as in a shell.
            while command.ends_with('\\') || command.matches('\'').count() % 2 == 1 {
                command = command + "\n" + lines.next().expect("the rest of the command");
            }
            let mut want = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.is_empty()) {
                want.push(line.to_owned());
            }
            steps.push(ScriptStep::Command { is_printed: line.starts_with('$'), command, want });
        } else {
            assert_eq!(line, "", "what is this?");
        }
    }
    steps
}

/// What curl shows: status and content type, the other header fields, and the body.
#[derive(Debug)]
struct CurlOutput {
    head: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Runs one command in a shell.
fn run(command: &str) -> CurlOutput {
    let headers = tempfile::NamedTempFile::new().unwrap();
    let curl = "curl() { command curl --silent --show-error --max-time 60 --dump-header \"$HEADERS\" \"$@\"; }\n";
    let output = Command::new("sh").args(["-c", &(curl.to_owned() + command)]).env("HEADERS", headers.path()).output();
    let output = output.expect("a shell");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let head = std::fs::read_to_string(headers.path()).unwrap();
    // With `-i` and `-I` the head is shown as well.
    let is_headed = output.stdout.starts_with(head.as_bytes());
    let body = String::from_utf8_lossy(&output.stdout[if is_headed { head.len() } else { 0 }..]).into_owned();
    let (status, fields) = head.split_once("\r\n").unwrap();
    let fields = fields.lines().filter_map(|line| line.split_once(": "));
    let headers: Vec<_> = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let kind = headers.iter().find(|(name, _)| name == "Content-Type").map_or("", |(_, value)| value);
    CurlOutput { head: format!("{} {kind}", status.split(' ').nth(1).unwrap()), headers, body }
}

/// Why the output is not the wanted one.
fn fault(shown: &CurlOutput, want: &[String]) -> Option<String> {
    let (head, rest) = want.split_first().expect("an answer stands below each command");
    let (fields, body): (Vec<_>, Vec<_>) = rest.iter().map(String::as_str).partition(|line| line.starts_with("+ "));
    let is_there = |field: &&str| {
        let (name, value) = field[2..].split_once(": ").unwrap();
        shown.headers.iter().any(|(n, v)| n == name && (value == "*" || v == value))
    };
    let is_whole = match &body[..] {
        ["..."] => !shown.body.is_empty(),
        [] => shown.body.is_empty(),
        body => shown.body == body.join("\n") + "\n",
    };
    match fields.into_iter().find(|field| !is_there(field)) {
        _ if shown.head != *head => Some(format!("{} instead of {head}\n{}", shown.head, shown.body)),
        Some(field) => Some(format!("no {field} among {:?}", shown.headers)),
        None if !is_whole => Some(format!("{:?}\ninstead of\n{}", shown.body, body.join("\n"))),
        None => None,
    }
}

/// Servers and proxies by the ports they have in the description.
struct CurlServers {
    servers: BTreeMap<String, Influxd>,
    proxies: BTreeMap<String, Proxy>,
}

impl CurlServers {
    fn start() -> Self {
        let mut servers: Vec<_> = SERVERS.iter().map(|_| Influxd::start().unwrap()).collect();
        // Answers are sorted by url.
        servers.sort_by_key(Influxd::url);
        let servers = SERVERS.iter().map(|(port, _)| (*port).to_owned()).zip(servers).collect();
        Self { servers, proxies: BTreeMap::new() }
    }

    /// The text with the addresses of this run.
    fn here(&self, text: &str) -> String {
        let servers = self.servers.iter().map(|(port, server)| (port, server.addr()));
        let proxies = self.proxies.iter().map(|(port, proxy)| (port, proxy.addr()));
        servers.chain(proxies).fold(text.to_owned(), |text, (port, addr)| {
            // No address of this run looks like one of the description: its ports are not ephemeral.
            text.replace(&format!("127.0.0.1:{port}"), &addr.to_string())
        })
    }

    fn proxy(&mut self, what: &str, port: &str, circles: &[Vec<String>]) {
        let backend = |port: &String| {
            let (_, name) = SERVERS.iter().find(|(known, _)| known == port).unwrap();
            json!({"name": name, "url": self.servers[port].url()})
        };
        let circle = |(c, ports): (usize, &Vec<String>)| {
            let backends: Vec<_> = ports.iter().map(backend).collect();
            json!({"name": format!("circle-{}", c + 1), "backends": backends})
        };
        let circles: Value = circles.iter().enumerate().map(circle).collect();
        match what {
            "new" => {
                // A clear waits for `query_timeout` after the end of a transition. The ring goes by names, which the
                // description knows.
                let config = ProxyConfig::new(&[]).set("query_timeout", 5).set("hash_key", "name");
                let config = config.set("circles", circles);
                self.proxies.insert(port.to_owned(), support::start(&config));
            }
            "restart" => {
                let proxy = self.proxies.get_mut(port).unwrap();
                let mut config: Value = serde_json::from_slice(&std::fs::read(proxy.config_file()).unwrap()).unwrap();
                config["circles"] = circles;
                std::fs::write(proxy.config_file(), config.to_string()).unwrap();
                proxy.terminate(Duration::from_secs(30)).unwrap();
                proxy.restart().unwrap();
            }
            _ => _ = self.proxies.remove(port).expect("stop"),
        }
    }

    /// Waits until no migration runs and every point has been delivered; whether all of them have done what they
    /// should.
    fn settle(&self) {
        for proxy in self.proxies.values() {
            let mut jobs = Value::Null;
            let over = eventually(Duration::from_secs(120), || {
                jobs = serde_json::from_str(&proxy.get("/migrate/jobs").unwrap().1).unwrap();
                let states = jobs.as_array().unwrap().iter().map(|job| job["state"].as_str().unwrap());
                proxy.ledger().unwrap().totals.queued == 0 && states.clone().all(|state| state != "running")
            });
            assert!(over, "{jobs:#}");
            assert!(jobs.as_array().unwrap().iter().all(|job| job["state"] == "done"), "{jobs:#}\n{}", proxy.stderr());
        }
    }
}

#[test]
fn every_printed_command_is_answered_as_printed() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/curl.txt")).unwrap();
    let mut world = CurlServers::start();
    let mut printed = 0;
    for step in steps(&text) {
        let (is_printed, command, want) = match step {
            ScriptStep::Proxy(what, port, circles) => {
                world.proxy(&what, &port, &circles);
                continue;
            }
            ScriptStep::Command { is_printed, command, want } => (is_printed, command, want),
        };
        let (here, want) = (world.here(&command), want.iter().map(|line| world.here(line)).collect::<Vec<_>>());
        let patience = if command.contains("POST") { Duration::ZERO } else { PATIENCE };
        let mut last = None;
        eventually(patience, || {
            last = fault(&run(&here), &want);
            last.is_none()
        });
        if let Some(fault) = last {
            let stderr: String = world.proxies.values().map(Proxy::stderr).collect();
            panic!("{command}\n{fault}\n{stderr}");
        }
        world.settle();
        printed += usize::from(is_printed);
        eprintln!("{} {command}", if is_printed { "as printed:" } else { "ok:" });
    }
    assert_eq!(printed, PRINTED, "commands that are printed");
}

/// Checks the check: wrong answers are found.
#[test]
fn a_wrong_answer_is_noticed() {
    let shown = || CurlOutput {
        head: "200 application/json".into(),
        headers: vec![("A".into(), "b".into())],
        body: "{\n}\n".into(),
    };
    let fault = |want: &str| fault(&shown(), &want.lines().map(str::to_owned).collect::<Vec<_>>());
    for right in
        ["200 application/json\n{\n}", "200 application/json\n+ A: b\n...", "200 application/json\n+ A: *\n{\n}"]
    {
        assert_eq!(fault(right), None);
    }
    for wrong in [
        "201 application/json\n{\n}",
        "200 text/plain\n{\n}",
        "200 application/json\n{}",
        "200 application/json\n{\n  }",
        "200 application/json",
        "200 application/json\n+ B: *\n{\n}",
        "200 application/json\n+ A: c\n...",
    ] {
        assert!(fault(wrong).is_some(), "{wrong}");
    }
    let text = "# x\n\n@ new 1: 2 3 | 4\n$ curl -d \\\n'a\nb'\n204 x\n\n> curl y\n200 z\n{\n}\n";
    let [
        ScriptStep::Proxy(what, port, circles),
        ScriptStep::Command { is_printed: true, command, .. },
        ScriptStep::Command { want, .. },
    ] = &steps(text)[..]
    else {
        panic!("three steps")
    };
    assert_eq!((&what[..], &port[..], circles.len(), circles[0].len()), ("new", "1", 2, 2));
    assert_eq!((&command[..], &want[..]), ("curl -d \\\n'a\nb'", &["200 z".into(), "{".into(), "}".into()][..]));
}

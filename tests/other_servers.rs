//! Promise: a circle can be a server that takes line protocol and is not InfluxDB 1.x. It gets all points, and has no
//! say about databases.
//!
//! VictoriaMetrics is played here: `/write`, `/ping`, and one answer to every query (`lib/influxutils` in its sources).

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::http1::{Request, RequestState};
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{ProxyConfig, eventually};
use serde_json::json;

const DATABASES: &str = concat!(
    r#"{"results":[{"statement_id":0,"series":[{"name":"databases","columns":["name"],"#,
    r#""values":[["_internal"]]}]}]}"#
);

/// What it was sent.
#[derive(Default)]
struct Seen {
    lines: String,
    queries: usize,
}

struct VictoriaMetrics {
    addr: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl VictoriaMetrics {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Seen>>::default());
        let shared = seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let seen = shared.clone();
                std::thread::spawn(move || serve(client, &seen));
            }
        });
        Self { addr, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn has(&self, line: &str) -> bool {
        eventually(Duration::from_secs(20), || self.seen.lock().unwrap().lines.contains(line))
    }

    fn queries(&self) -> usize {
        self.seen.lock().unwrap().queries
    }
}

fn serve(mut client: TcpStream, seen: &Mutex<Seen>) -> io::Result<()> {
    let (mut buffer, mut block) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let Ok(RequestState::Whole(request)) = Request::parse(&buffer) else {
            match client.read(&mut block)? {
                0 => return Ok(()),
                n => buffer.extend_from_slice(&block[..n]),
            }
            continue;
        };
        let body = String::from_utf8_lossy(&request.body(&buffer)).into_owned();
        let answer = match request.path() {
            "/write" => {
                seen.lock().unwrap().lines.push_str(&body);
                "HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.8.0\r\n\r\n".to_owned()
            }
            "/ping" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            _ => {
                seen.lock().unwrap().queries += 1;
                let fields = "Content-Type: application/json\r\nX-Influxdb-Version: 1.8.0";
                format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{DATABASES}", DATABASES.len())
            }
        };
        client.write_all(answer.as_bytes())?;
        buffer.drain(..request.len);
    }
}

#[test]
fn circles_of_other_servers_take_points_of_any_database() {
    let servers = [VictoriaMetrics::start(), VictoriaMetrics::start()];
    let proxy = support::start(&ProxyConfig::new(&servers.each_ref().map(|server| vec![server.url()])));
    assert!(eventually(Duration::from_secs(20), || servers.iter().all(|server| server.queries() > 0)), "listed");
    for n in 0..3 {
        let reply = Client::connect(proxy.addr()).unwrap().write("metrics", &format!("cpu v={n} {n}\n")).unwrap();
        assert_eq!(reply.status, 204, "{}\n{}", reply.text(), proxy.stderr());
        assert!(servers.iter().all(|server| server.has(&format!("cpu v={n} {n}"))), "{}", proxy.stderr());
    }
    assert!(proxy.drained(Duration::from_secs(20)).unwrap().proven_balanced());
}

#[test]
fn a_server_without_a_say_is_written_to_and_sent_no_statement() {
    let (mut influx, other) = (Influxd::start().unwrap(), VictoriaMetrics::start());
    let mut proxy = support::start(&ProxyConfig::new(&[vec![other.url()], vec![influx.url()]]));
    proxy.edit(|config| config["circles"][0]["backends"][0]["catalog"] = json!(false)).unwrap();
    proxy.kill();
    let before = other.queries();
    proxy.restart().unwrap();
    let ask = |q: &str| {
        let target = format!("/query?db=db&q={}", q.replace(' ', "+"));
        let reply = Client::connect(proxy.addr()).unwrap().request("POST", &target, &[], b"").unwrap();
        (reply.status, reply.text())
    };
    assert_eq!(ask("CREATE DATABASE db").0, 200);
    let write = |db: &str, line: &str| Client::connect(proxy.addr()).unwrap().write(db, line).unwrap().status;
    assert_eq!((write("db", "m v=1 1\n"), write("missing", "m v=1 1\n")), (204, 404), "{}", proxy.stderr());
    assert!(other.has("m v=1 1"));
    let (status, text) = ask("SELECT v FROM m");
    assert!(status == 200 && text.contains(r#""values":[["1970-01-01T00:00:00.000000001Z",1]]"#), "{text}");
    for q in
        ["SELECT v FROM /m/", "SHOW DATABASES", "SHOW RETENTION POLICIES", "SHOW DIAGNOSTICS", "DROP SERIES FROM m"]
    {
        let (status, text) = ask(q);
        assert!(status == 200 && !text.contains("error"), "{q}: {text}");
    }
    influx.kill();
    for q in ["SELECT v FROM m", "SELECT v FROM /m/"] {
        let nobody = || ask(q).0 == 503;
        assert!(eventually(Duration::from_secs(20), nobody), "{q}: {:?}", ask(q));
        let (_, text) = ask(q);
        assert!(text.contains("takes only writes"), "{q}: {text}");
    }
    assert_eq!(other.queries(), before, "no statement since then");
}

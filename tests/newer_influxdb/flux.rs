//! Requests to `/api/v2/query`. InfluxDB 1.6 does not know Flux: stand-ins answer here.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::proxy::{Proxy, ProxyConfig, backend_name, eventually};
use serde_json::{Value, json};

use crate::support;

/// A server that answers Flux with its own name, and everything else with an empty result.
struct FluxBackend {
    addr: SocketAddr,
    /// Heads and bodies of the queries.
    asked: Receiver<String>,
}

impl FluxBackend {
    fn start(name: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, name) = (tell.clone(), name.clone());
                std::thread::spawn(move || serve(stream, &name, &tell));
            }
        });
        Self { addr, asked }
    }
}

/// One request, then the connection closes.
fn serve(mut stream: TcpStream, name: &str, tell: &Sender<String>) {
    let (mut got, mut buf) = (Vec::new(), [0; 4096]);
    let request = loop {
        let n = stream.read(&mut buf).unwrap_or(0);
        got.extend_from_slice(&buf[..n]);
        let text = String::from_utf8_lossy(&got).into_owned();
        let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
        match text.split_once("\r\n\r\n") {
            Some((_, body)) if body.len() >= length.unwrap_or(0) => break text,
            _ if n == 0 => return,
            _ => {}
        }
    };
    let answer = if request.starts_with("POST /api/v2/query") {
        let body = format!("#datatype,string\r\n,result\r\n,{name}\r\n");
        _ = tell.send(request);
        format!("200 OK\r\nContent-Type: text/csv; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    } else if request.contains(" /ping") {
        "204 No Content\r\nX-Influxdb-Version: 1.8.10\r\n\r\n".to_owned()
    } else {
        let body = "{\"results\":[{\"statement_id\":0}]}\n";
        format!("200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    _ = stream
        .write_all(format!("HTTP/1.1 {answer}").replace("\r\nContent", "\r\nConnection: close\r\nContent").as_bytes());
}

/// One circle of these many backends.
fn start(backends: usize, keys: &[(&str, Value)]) -> (Proxy, Vec<FluxBackend>) {
    let backends: Vec<_> = (0..backends).map(|b| FluxBackend::start(backend_name(0, b))).collect();
    let urls = backends.iter().map(|backend| format!("http://{}", backend.addr)).collect();
    let proxy = support::start(&ProxyConfig::new(&[urls]).set_all(keys.iter().cloned()));
    (proxy, backends)
}

fn ask(proxy: &Proxy, target: &str, kind: &str, body: &str) -> Reply {
    let headers = [format!("Content-Type: {kind}"), "Accept: application/csv".to_owned()];
    let headers = headers.each_ref().map(String::as_str);
    let ask = || Client::connect(proxy.addr()).unwrap().request("POST", target, &headers, body.as_bytes()).unwrap();
    // The servers may not be known to be up yet.
    assert!(eventually(Duration::from_secs(10), || ask().status != 503));
    ask()
}

const FLUX: &str = "application/vnd.flux";

fn of(measurement: &str) -> String {
    format!(r#"from(bucket: "db") |> range(start: -1h) |> filter(fn: (r) => r._measurement == "{measurement}")"#)
}

#[test]
fn flux_goes_to_the_owner_as_it_came() {
    let (proxy, backends) = start(2, &[("username", "admin".into()), ("password", "secret".into())]);
    let mut owners = [0, 0];
    for n in 0..20 {
        let measurement = format!("m{n}");
        let target = format!("/replica?db=db&meas={measurement}&u=admin&p=secret");
        let replica: Value = serde_json::from_str(&proxy.get(&target).unwrap().1).unwrap();
        let owner = replica[0]["name"].as_str().unwrap();
        owners[usize::from(owner == backend_name(0, 1))] += 1;
        let reply = ask(&proxy, "/api/v2/query?org=o&u=admin&p=secret", FLUX, &of(&measurement));
        assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("text/csv; charset=utf-8")));
        assert!(reply.text().ends_with(&format!(",{owner}\r\n")), "{measurement}: {}", reply.text());
    }
    assert!(owners[0] > 0 && owners[1] > 0, "both are asked");
    let body = json!({"query": of("m1"), "type": "flux", "dialect": {"header": true}}).to_string();
    let reply = ask(&proxy, "/api/v2/query?org=o&u=admin&p=secret", "application/json; charset=utf-8", &body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen: Vec<_> = backends.iter().flat_map(|backend| backend.asked.try_iter()).collect();
    assert!(seen.iter().any(|request| request.ends_with(&body) && request.contains("\r\nAccept: application/csv\r\n")));
    assert!(seen.iter().all(|request| request.starts_with("POST /api/v2/query?org=o HTTP/1.1\r\n")), "{seen:?}");
    assert!(seen.iter().all(|request| !request.contains("secret")), "the proxy's user stays here");
}

#[test]
fn what_no_backend_can_answer_alone_is_refused() {
    let (proxy, _backends) = start(2, &[]);
    let two = r#"from(bucket: "db") |> filter(fn: (r) => r._measurement == "m0" or r._measurement == "m1" or
        r._measurement == "m2" or r._measurement == "m3" or r._measurement == "m4" or r._measurement == "m5")"#;
    for (text, why) in [
        (two, "lie on several backends"),
        (r#"from(bucket: "db") |> range(start: -1h)"#, "can't get measurement"),
        ("buckets()", "can't get bucket"),
        ("", "request body requires either spec or query"),
    ] {
        let reply = ask(&proxy, "/api/v2/query", FLUX, text);
        assert!(reply.status == 400 && reply.text().contains(why), "{text}: {}", reply.text());
        let error: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(reply.header("X-Influxdb-Error"), error["error"].as_str());
    }
}

#[test]
fn the_only_backend_of_a_circle_answers_everything_that_is_allowed() {
    let (proxy, _backends) = start(1, &[]);
    for text in [r#"from(bucket: "db") |> range(start: -1h)"#, "buckets()", &of("m")] {
        assert_eq!(ask(&proxy, "/api/v2/query", FLUX, text).status, 200, "{text}");
    }
    let (proxy, _backends) = start(1, &[("db_list", json!(["db"]))]);
    for (text, want) in [
        (r#"from(bucket: "db") |> range(start: -1h)"#, Ok(())),
        (r#"from(bucket: "other/rp") |> range(start: -1h)"#, Err("database forbidden: other")),
        ("buckets()", Err("can't get bucket")),
        (r#"b = "other" from(bucket: b) |> range(start: -1h)"#, Err("can't get bucket")),
    ] {
        let reply = ask(&proxy, "/api/v2/query", FLUX, text);
        assert_eq!(reply.status, if want.is_ok() { 200 } else { 400 }, "{text}: {}", reply.text());
        assert!(want.err().is_none_or(|why| reply.text().contains(why)), "{text}: {}", reply.text());
    }
}

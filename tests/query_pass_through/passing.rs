//! How answers are passed on: in pieces, with memory that does not grow, over connections that are kept.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};

use crate::backend::{Backend, EMPTY, Then};
use crate::support::start;

const SELECT: &str = "/query?db=db&q=SELECT+n+FROM+cpu";

/// A proxy with one circle for each backend, once it knows that the backends are up.
fn ready(backends: &[&Backend]) -> Proxy {
    let circles: Vec<_> = backends.iter().map(|backend| vec![backend.url()]).collect();
    let proxy = start(&ProxyConfig::new(&circles));
    let known =
        || Client::connect(proxy.addr()).unwrap().get("/query?db=db&q=SHOW+RETENTION+POLICIES").unwrap().status == 200;
    assert!(eventually(Duration::from_secs(10), known), "{}", proxy.stderr());
    proxy
}

fn rss_bytes(proxy: &Proxy, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid().unwrap())).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_answer_takes_little_memory_also_while_the_client_is_slow() {
    const PIECE: usize = 1024 * 1024;
    const PIECES: usize = 200;
    let backend = Backend::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let piece = vec![b'x'; PIECE];
        for _ in 0..PIECES {
            write!(stream, "{PIECE:x}\r\n")?;
            stream.write_all(&piece)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let proxy = ready(&[&backend]);
    let before = rss_bytes(&proxy, "VmHWM");
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.write_all(format!("GET {SELECT} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let (mut block, mut received) = (vec![0; PIECE], 0);
    loop {
        match client.read(&mut block).unwrap() {
            0 => break,
            n => received += n,
        }
    }
    assert!(received > PIECE * PIECES && received < PIECE * PIECES + 4096, "{received}");
    let growth = rss_bytes(&proxy, "VmHWM").saturating_sub(before);
    assert!(growth < 16 * 1024 * 1024, "{growth} bytes for an answer of {received}");
}

#[test]
fn pieces_arrive_as_the_backend_sends_them() {
    let backend = Backend::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Own: 1\r\n\r\n3\r\nabc\r\n")?;
        // The second piece is sent only when the first has been seen to arrive.
        std::thread::sleep(Duration::from_secs(3));
        stream.write_all(b"2\r\nde\r\n0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let proxy = ready(&[&backend]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    client.send(format!("GET {SELECT}&chunked=true HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let early = String::from_utf8_lossy(client.peek(Duration::from_secs(2)).unwrap()).into_owned();
    assert!(early.ends_with("3\r\nabc\r\n"), "{early}");
    let reply = client.receive().unwrap().unwrap();
    assert_eq!((reply.text(), reply.header("X-Own")), ("abcde".into(), Some("1")));
}

#[test]
fn connections_are_kept_on_both_sides() {
    let backend = Backend::saying(EMPTY);
    let proxy = ready(&[&backend]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    let request = format!("GET {SELECT} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send(request.repeat(10).as_bytes()).unwrap();
    for _ in 0..10 {
        assert_eq!(client.receive().unwrap().unwrap().text(), EMPTY);
    }
    assert_eq!((backend.selects(), backend.seen.connections.load(SeqCst)), (10, 1));
}

#[test]
fn the_backend_sees_the_query_and_nothing_of_the_clients_user() {
    let backend = Backend::saying(EMPTY);
    let proxy = ready(&[&backend]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    let headers = ["Authorization: Basic Zm9vOmJhcg==", "Accept: text/csv", "Accept-Encoding: gzip", "X-Foo: 1"];
    let target = format!("{SELECT}&u=a&p=b&pretty=true&epoch=s&rp=r&chunked=true&chunk_size=5&params=%7B%7D");
    assert_eq!(client.request("GET", &target, &headers, b"").unwrap().status, 200);
    let (head, form) = backend.seen.last.lock().unwrap().clone();
    assert!(head.starts_with("POST /query?pretty=true HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nAccept: text/csv\r\nAccept-Encoding: gzip\r\n"), "{head}");
    assert!(!head.contains("Authorization") && !head.contains("X-Foo"), "{head}");
    let want = "q=SELECT%20n%20FROM%20cpu&db=db&rp=r&epoch=s&params=%7B%7D&chunked=true&chunk_size=5";
    assert_eq!(form, want);
}

#[test]
fn an_answer_without_a_length_reaches_clients_of_both_versions() {
    let backend = Backend::start(|stream| {
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"results\":[]}\n")?;
        Ok(Then::Close)
    });
    let proxy = ready(&[&backend]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    for _ in 0..2 {
        assert_eq!(client.get(SELECT).unwrap().text(), "{\"results\":[]}\n");
    }
    let mut old = TcpStream::connect(proxy.addr()).unwrap();
    old.write_all(format!("GET {SELECT} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert!(text.contains("Connection: close\r\n") && text.ends_with("\r\n\r\n{\"results\":[]}\n"), "{text}");
}

#[test]
fn a_backend_that_is_behind_is_asked_last_and_the_answer_says_so() {
    let (late, prompt) = (Backend::saying("late"), Backend::saying("prompt"));
    late.seen.refuses_writes.store(true, SeqCst);
    let proxy = ready(&[&late]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.get(SELECT).unwrap().header("X-Fluxgate-Stale"), None);
    assert_eq!(client.write("db", "cpu n=1").unwrap().status, 204);
    let stale =
        || Client::connect(proxy.addr()).unwrap().get(SELECT).unwrap().header("X-Fluxgate-Stale").map(str::to_owned);
    let is_stale = || stale().is_some_and(|seconds| seconds.parse::<u32>().unwrap() >= 1);
    assert!(eventually(Duration::from_secs(10), is_stale));
    let proxy = ready(&[&late, &prompt]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.get(SELECT).unwrap().text(), "late", "in the order of the configuration");
    assert_eq!(client.write("db", "cpu n=1").unwrap().status, 204);
    let asked = || Client::connect(proxy.addr()).unwrap().get(SELECT).unwrap();
    assert!(eventually(Duration::from_secs(10), || asked().text() == "prompt"));
    assert_eq!(asked().header("X-Fluxgate-Stale"), None);
}

#[test]
fn a_form_beyond_the_bound_is_refused() {
    let backend = Backend::saying(EMPTY);
    let proxy = ready(&[&backend]);
    let form = |q: usize| format!("db=db&q=SELECT+n+FROM+cpu{}", "+".repeat(q));
    let header = ["Content-Type: application/x-www-form-urlencoded"];
    let ask = |body: String| Client::connect(proxy.addr()).unwrap().request("POST", "/query", &header, body.as_bytes());
    assert_eq!(ask(form(100_000)).unwrap().status, 200);
    let large = ask(form(11 * 1024 * 1024));
    // The proxy closes without reading all of it, which may reach the client before the answer does.
    assert!(large.map_or(true, |reply| reply.status == 413));
}

#[test]
fn who_does_not_wait_is_answered_at_once() {
    let backend = Backend::saying(EMPTY);
    let proxy = ready(&[&backend, &Backend::saying(EMPTY)]);
    let mut client = Client::connect(proxy.addr()).unwrap();
    let reply = client.request("POST", "/query?db=db&async=true&q=DROP+MEASUREMENT+m", &[], b"").unwrap();
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    let reply = client.request("POST", "/query?db=db&async=true&q=DROP+MEASUREMENT", &[], b"").unwrap();
    assert_eq!(reply.status, 400, "but errors in the text are told");
}

#[test]
fn tracing_shows_queries_and_no_password() {
    let backend = Backend::saying(EMPTY);
    let proxy = start(&ProxyConfig::new(&[vec![backend.url()]]).set("query_tracing", true));
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert!(client.get("/query?u=a&p=s3cret&q=SHOW+DATABASES").is_ok());
    assert_eq!(client.get("/query?q=CREATE+USER+u+WITH+PASSWORD+'s3cret'").unwrap().status, 400);
    assert_eq!(client.get("/query?q=SET+PASSWORD+FOR+u+'s3cret'").unwrap().status, 400);
    assert!(eventually(Duration::from_secs(5), || proxy.stderr().matches("query:").count() >= 3), "{}", proxy.stderr());
    assert!(proxy.stderr().contains("SHOW DATABASES") && !proxy.stderr().contains("s3cret"), "{}", proxy.stderr());
}

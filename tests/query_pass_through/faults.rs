//! Backends that fail before or in the middle of an answer, and clients that close the connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fluxgate::lab::client::Client;
use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};

use crate::backend::{Backend, EMPTY, Then, whole};
use crate::support::start;

const SELECT: &str = "/query?db=db&q=SELECT+n+FROM+cpu";
const GOOD: &str = "{\"results\":[{\"statement_id\":0,\"series\":[]}]}\n";

/// A circle for each backend.
fn circles(backends: &[&Backend]) -> ProxyConfig {
    let circles: Vec<_> = backends.iter().map(|backend| vec![backend.url()]).collect();
    ProxyConfig::new(&circles).set("query_timeout", 2)
}

/// The proxy, once it knows that its backends are up.
fn ready(config: &ProxyConfig) -> Proxy {
    let proxy = start(config);
    let known =
        || Client::connect(proxy.addr()).unwrap().get("/query?db=db&q=SHOW+RETENTION+POLICIES").unwrap().status == 200;
    assert!(eventually(Duration::from_secs(10), known), "{}", proxy.stderr());
    proxy
}

#[test]
fn another_circle_is_asked_while_no_byte_has_come() {
    let hang = Arc::new(AtomicBool::new(true));
    let held = hang.clone();
    let bad: [(&str, Backend); 6] = [
        ("cut", Backend::start(|_| Ok(Then::Close))),
        ("500", Backend::answering("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n")),
        ("401", Backend::answering("HTTP/1.1 401 x\r\nContent-Length: 0\r\n\r\n")),
        ("garbage", Backend::answering("SMTP\r\n\r\n")),
        ("half a head", Backend::start(|stream| stream.write_all(b"HTTP/1.1 200 OK\r\nCont").map(|()| Then::Close))),
        (
            "hang",
            Backend::start(move |_| {
                while held.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(Then::Close)
            }),
        ),
    ];
    for (what, bad) in &bad {
        let good = Backend::saying(GOOD);
        let proxy = ready(&circles(&[bad, &good]));
        let reply = Client::connect(proxy.addr()).unwrap().get(SELECT).unwrap();
        assert_eq!((reply.status, reply.text()), (200, GOOD.to_owned()), "{what}");
        assert_eq!((bad.selects() > 0, good.selects()), (true, 1), "{what}: the first one had its chance");
    }
    hang.store(false, SeqCst);
}

#[test]
fn when_nobody_answers_the_error_says_who_failed_and_how() {
    let (first, second) = (
        Backend::start(|_| Ok(Then::Close)),
        Backend::answering("HTTP/1.1 502 x\r\nX-Influxdb-Error: sick\r\nContent-Length: 0\r\n\r\n"),
    );
    let proxy = ready(&circles(&[&first, &second]));
    let reply = Client::connect(proxy.addr()).unwrap().get(SELECT).unwrap();
    assert_eq!(reply.status, 503);
    let text =
        "no backend could answer: influxdb-1-1: connection lost before the answer; influxdb-2-1: answered 502: sick";
    assert_eq!(reply.text(), format!("{{\"error\":\"{text}\"}}\n"));
    assert!(!reply.closes(), "the connection is good for another request");
}

#[test]
fn a_backend_that_is_down_is_not_asked() {
    let good = Backend::saying(GOOD);
    let port = Port::of_loopback().unwrap();
    let nobody = port.addr();
    let config = ProxyConfig::new(&[vec![format!("http://{nobody}")], vec![good.url()]]);
    let proxy = ready(&config);
    let mut client = Client::connect(proxy.addr()).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get(SELECT).unwrap().text(), GOOD);
    }
    let alone = start(&ProxyConfig::new(&[vec![format!("http://{nobody}")]]));
    let reply = || Client::connect(alone.addr()).unwrap().get(SELECT).unwrap();
    let down = || {
        (reply().status, reply().text())
            == (503, "{\"error\":\"no backend could answer: influxdb-1-1: down\"}\n".into())
    };
    assert!(eventually(Duration::from_secs(10), down), "{}", reply().text());
}

#[test]
fn an_answer_that_breaks_off_is_never_whole() {
    let length = Backend::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"results\"")?;
        Ok(Then::Close)
    });
    let chunked = Backend::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"res\r\n")?;
        Ok(Then::Close)
    });
    let silent = Backend::start(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"res\r\n")?;
        std::thread::sleep(Duration::from_secs(10));
        Ok(Then::Close)
    });
    for (what, bad) in [("length", &length), ("chunked", &chunked), ("silent", &silent)] {
        let proxy = ready(&circles(&[bad]));
        let cut = Client::connect(proxy.addr()).unwrap().get(SELECT).unwrap_err();
        assert_eq!(cut.kind(), ErrorKind::UnexpectedEof, "{what}");
        assert_eq!(bad.selects(), 1, "{what}: asked once only");
        // A client of HTTP/1.0 takes any normal close for the end of the answer.
        let mut old = TcpStream::connect(proxy.addr()).unwrap();
        old.write_all(format!("GET {SELECT} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut text = Vec::new();
        match old.read_to_end(&mut text) {
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
            Ok(_) => assert!(String::from_utf8_lossy(&text).contains("Content-Length: 1000"), "{what}"),
        }
    }
}

/// Notes when the peer of a connection has ended.
fn until_end(stream: &mut TcpStream, ended: &AtomicBool) {
    let mut block = [0; 64];
    while matches!(stream.read(&mut block), Ok(1..)) {}
    ended.store(true, SeqCst);
}

#[test]
fn a_client_that_goes_ends_the_query_at_the_backend() {
    for begun in [false, true] {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = ended.clone();
        let backend = Backend::start(move |stream| {
            if begun {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")?;
            }
            until_end(stream, &seen);
            Ok(Then::Close)
        });
        let proxy = ready(&circles(&[&backend]).set("query_timeout", 60));
        let mut client = TcpStream::connect(proxy.addr()).unwrap();
        client.write_all(format!("GET {SELECT} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        assert!(eventually(Duration::from_secs(5), || backend.selects() == 1));
        if begun {
            assert!(client.read(&mut [0; 4096]).unwrap() > 0);
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(!ended.load(SeqCst), "not before it goes");
        let went = Instant::now();
        drop(client);
        assert!(eventually(Duration::from_secs(5), || ended.load(SeqCst)), "begun: {begun}");
        assert!(went.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn a_waiting_client_is_not_idle_and_its_next_request_is_kept() {
    let backend = Backend::start(|stream| {
        std::thread::sleep(Duration::from_millis(2500));
        stream.write_all(whole(200, EMPTY).as_bytes())?;
        Ok(Then::Keep)
    });
    let proxy = ready(&circles(&[&backend]).set("query_timeout", 60).set("idle_timeout", 1));
    let mut client = Client::connect(proxy.addr()).unwrap();
    client.send(format!("GET {SELECT} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    client.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\nPOST /write?db=db HT").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    client.send(b"TP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nm v=1").unwrap();
    let statuses: Vec<_> = (0..3).map(|_| client.receive().unwrap().unwrap().status).collect();
    assert_eq!(statuses, [200, 204, 204]);
}

#[test]
fn a_kept_connection_that_has_died_is_replaced() {
    // The backend promises to keep the connection, and closes it.
    let backend = Backend::start(|stream| {
        stream.write_all(whole(200, GOOD).as_bytes())?;
        Ok(Then::Close)
    });
    let proxy = ready(&circles(&[&backend]));
    let mut client = Client::connect(proxy.addr()).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get(SELECT).unwrap().text(), GOOD);
    }
}

#[test]
fn queries_beyond_the_bound_are_refused() {
    let go = Arc::new(AtomicBool::new(false));
    let gone = go.clone();
    let backend = Backend::start(move |stream| {
        while !gone.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stream.write_all(whole(200, GOOD).as_bytes())?;
        Ok(Then::Keep)
    });
    // One worker: the bound is per worker.
    let config = circles(&[&backend]).set("workers", 1).set("query_timeout", 60);
    let proxy = ready(&config.set("max_concurrent_queries", 1));
    let mut first = Client::connect(proxy.addr()).unwrap();
    first.send(format!("GET {SELECT} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    assert!(eventually(Duration::from_secs(5), || backend.selects() == 1));
    let mut second = Client::connect(proxy.addr()).unwrap();
    let refused = second.get(SELECT).unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("max-concurrent-queries limit exceeded"), "{}", refused.text());
    go.store(true, SeqCst);
    assert_eq!(first.receive().unwrap().unwrap().text(), GOOD);
    assert_eq!(second.get(SELECT).unwrap().text(), GOOD, "there is room again");
}

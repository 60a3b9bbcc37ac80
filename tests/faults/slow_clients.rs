//! Promise: a client that sends a request, or takes an answer, too slowly is let go, in whatever part of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};
use fluxgate::lab::stand_in::StandIn;

const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

fn proxy(idle_timeout: u64) -> (StandIn, Proxy) {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let proxy = start(&ProxyConfig::new(&[vec![backend.url()]]).set("idle_timeout", idle_timeout));
    (backend, proxy)
}

/// A write of this body, as its bytes.
fn write(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /write?db=db HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn a_client_that_sends_byte_after_byte_is_let_go() {
    // Later than 10 s: the time of a head, and of a body that does not bring 1 KiB/s.
    const LATEST: Duration = Duration::from_secs(14);
    let (_backend, proxy) = proxy(3);
    let addr = proxy.addr();
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 50000\r\n";
    let head = |request: &str, fields: &str| format!("{request} HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
    let length = "Content-Length: 100000\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let gzip = "Content-Encoding: gzip\r\nContent-Length: 100000\r\n";
    let ways: [(Vec<u8>, &[u8], bool); 11] = [
        (b"G".to_vec(), b"E", true),
        (b"GET /ping HTTP/1.1\r\nX: ".to_vec(), b"a", true),
        (b"\r\n".to_vec(), b"\r\n", true),
        ([write(b"m n=1i 9\n"), b"GET /pi".to_vec()].concat(), b"n", true),
        (head("POST /write?db=db", length), b"m", true),
        (head("POST /write?db=db", chunked), b"1\r\nm\r\n", true),
        (head("POST /write?db=db", gzip), b"\x1f", false),
        (head("POST /write?db=nope", length), b"m", false),
        (head("POST /rebalance?circle_id=0&operation=rm", length), b" ", true),
        (head("POST /query", form), b"q", true),
        (head("GET /ping", length), b"x", false),
    ];
    std::thread::scope(|scope| {
        for (first, byte, told) in ways {
            scope.spawn(move || {
                let way = String::from_utf8_lossy(&first).into_owned();
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                stream.write_all(&first).unwrap();
                let started = Instant::now();
                let (mut answers, mut piece) = (Vec::new(), [0; 4096]);
                loop {
                    assert!(started.elapsed() < LATEST, "still open: {way}");
                    match stream.read(&mut piece) {
                        Ok(0) => break,
                        Ok(n) => answers.extend_from_slice(&piece[..n]),
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                    if stream.write_all(byte).is_err() {
                        break;
                    }
                }
                let answers = String::from_utf8_lossy(&answers);
                assert!(!told || answers.contains("HTTP/1.1 408 "), "{way}: {answers}");
            });
        }
    });
    assert_eq!(proxy.drained(Duration::from_secs(20)).unwrap().totals.delivered, 1);
}

#[test]
fn a_client_that_sends_slowly_enough_is_served() {
    let (_backend, proxy) = proxy(2);
    let mut client = Client::connect(proxy.addr()).unwrap();
    let request = write(&b"m n=1i 1\n".repeat(2_000));
    for piece in request.chunks(1_500) {
        client.send(piece).unwrap();
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(client.receive().unwrap().unwrap().status, 204);
}

#[test]
fn a_client_that_takes_no_answers_is_let_go() {
    answers_are_not_taken(0);
}

#[test]
fn a_client_that_takes_its_answers_byte_by_byte_is_let_go() {
    answers_are_not_taken(1);
}

/// A client that sends requests and reads only a few bytes now and then.
fn answers_are_not_taken(bytes_at_a_time: usize) {
    let (_backend, proxy) = proxy(IDLE_TIMEOUT.as_secs());
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let request = b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n";
    let requests = request.repeat(2_000);
    let mut sent = 0;
    while let Ok(bytes) = stream.write(&requests[sent % request.len()..]) {
        sent += bytes;
        assert!(sent < 100_000_000, "requests are taken without end from a client that takes no answers");
    }
    let mut taken = vec![0; bytes_at_a_time];
    for _ in 0..60 {
        std::thread::sleep(IDLE_TIMEOUT / 20);
        stream.read_exact(&mut taken).unwrap();
    }
    // The answers that were sent can still be read; then the connection ends.
    let mut answers = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let _ = stream.read_to_end(&mut answers);
    let answers = memchr::memmem::find_iter(&answers, b"HTTP/1.1 204 ").count();
    assert!(answers > 0 && answers < sent / request.len(), "{answers} answers to {} requests", sent / request.len());
}

//! Promise: whatever shape an HTTP/1 request has and however its bytes arrive, it gets the answer it deserves, in its
//! turn, and what could be read in two ways is not read at all.

mod support;

use std::io::Write as _;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use fluxgate::lab::client::{Client, Reply, exchange};
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::{Fault, StandIn};
use serde_json::Value;

/// `max_body_bytes` in these tests.
const BODY_BYTES_MAX: usize = 6_000_000;
/// A request with a body up to this size leaves nothing behind if it fails.
const BODY_WHOLE_BYTES_MAX: usize = 4 * 1024 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// One backend in one circle, and the proxy in front of it.
struct OneBackend {
    backend: StandIn,
    proxy: Proxy,
}

fn one_backend(keys: &[(&str, Value)]) -> OneBackend {
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let config = ProxyConfig::new(&[vec![backend.url()]]).set("max_body_bytes", BODY_BYTES_MAX);
    let config = config.set_all(keys.iter().cloned());
    OneBackend { proxy: support::start(&config), backend }
}

impl OneBackend {
    fn connect(&self) -> Client {
        Client::connect(self.proxy.addr()).unwrap()
    }

    /// Waits until everything accepted is delivered, and counts the points of the backend.
    fn points(&self) -> u64 {
        self.proxy.drained(Duration::from_secs(20)).unwrap();
        self.backend.points("db")
    }
}

/// A write of this body, as its bytes.
fn write(headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST /write?db=db HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The same request in chunks of at most `chunk` bytes.
fn write_chunked(headers: &str, body: &[u8], chunk: usize) -> Vec<u8> {
    let head = format!("POST /write?db=db HTTP/1.1\r\nHost: h\r\n{headers}Transfer-Encoding: chunked\r\n\r\n");
    let mut out = head.into_bytes();
    for piece in body.chunks(chunk) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// Lines of exactly `bytes` bytes together, and their number.
fn lines(bytes: usize) -> (Vec<u8>, u64) {
    let mut out = Vec::with_capacity(bytes);
    let mut count = 0;
    while out.len() + 200 < bytes {
        out.extend_from_slice(format!("m{} n={count}i {}\n", count % 7, 1_000 + count).as_bytes());
        count += 1;
    }
    let last = format!("m s=\"\" {}\n", 1_000 + count);
    let text = "x".repeat(bytes - out.len() - last.len());
    out.extend_from_slice(format!("m s=\"{text}\" {}\n", 1_000 + count).as_bytes());
    assert_eq!(out.len(), bytes);
    (out, count + 1)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn receive(client: &mut Client) -> Reply {
    client.receive().unwrap().expect("an answer")
}

/// The proxy has closed the connection and sent nothing more.
fn closed(client: &mut Client) -> bool {
    client.receive().unwrap().is_none()
}

fn error_of(reply: &Reply) -> String {
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("no JSON: {}", reply.text()));
    body["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_connection_lives_as_long_as_its_version_and_the_client_say() {
    let under_test = one_backend(&[]);
    let cases = [
        ("HTTP/1.1", "Host: h\r\n", true),
        ("HTTP/1.1", "Host: h\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.1", "Host: h\r\nConnection: Close\r\n", false),
        ("HTTP/1.1", "Host: h\r\nConnection: x, close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: keep-alive\r\n", true),
    ];
    for (number, (version, headers, stays)) in cases.into_iter().enumerate() {
        let mut client = under_test.connect();
        let request = format!("POST /write?db=db {version}\r\n{headers}Content-Length: 9\r\n\r\nm n=1i {number}\n");
        client.send(request.as_bytes()).unwrap();
        assert_eq!(receive(&mut client).status, 204, "{version} {headers}");
        if stays {
            client.send(request.as_bytes()).unwrap();
            assert_eq!(receive(&mut client).status, 204, "{version} {headers}");
        } else {
            assert!(closed(&mut client), "{version} {headers}");
        }
    }
    assert_eq!(under_test.points(), 9);
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let under_test = one_backend(&[]);
    let mut client = under_test.connect();
    let mut requests = Vec::new();
    for number in 0..100 {
        let id = format!("X-Request-Id: {number}\r\n");
        match number % 10 {
            3 => requests.extend(write(&id, b"m n=x 1\n")),
            6 => requests.extend(format!("GET /ping HTTP/1.1\r\nHost: h\r\n{id}\r\n").bytes()),
            7 => requests.extend(format!("GET /replica?db=db&meas=m HTTP/1.1\r\nHost: h\r\n{id}\r\n").bytes()),
            8 => requests.extend(write_chunked(&id, format!("m n={number}i {number}\n").as_bytes(), 3)),
            9 => requests.extend(write(&format!("{id}Content-Encoding: gzip\r\n"), &gzip(b"m n=1i 1\nbad\n"))),
            _ => requests.extend(write(&id, format!("m n={number}i {number}\n").as_bytes())),
        }
    }
    client.send(&requests).unwrap();
    for number in 0..100 {
        let reply = receive(&mut client);
        assert_eq!(reply.header("X-Request-Id"), Some(number.to_string().as_str()), "{}", reply.text());
        let want = match number % 10 {
            3 | 9 => 400,
            7 => 200,
            _ => 204,
        };
        assert_eq!(reply.status, want, "{number}: {}", reply.text());
    }
    assert_eq!(under_test.points(), 70);
}

#[test]
fn a_head_request_gets_no_body() {
    let under_test = one_backend(&[]);
    for (target, status) in [("/nope", "404"), ("/health", "405"), ("/write?db=db", "405")] {
        let text = exchange(
            under_test.proxy.addr(),
            format!(
                "HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\nGET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            )
            .as_bytes(),
        )
        .unwrap();
        let (first, second) = text.split_once("\r\n\r\n").unwrap();
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")) && first.contains("Content-Length: "), "{text}");
        assert!(second.starts_with("HTTP/1.1 204 ") && second.ends_with("\r\n\r\n"), "{text}");
    }
}

#[test]
fn a_body_is_invited_only_when_it_is_wanted() {
    let under_test = one_backend(&[]);
    let begin = |target: &str, length: usize| {
        let mut client = under_test.connect();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        client
    };
    let mut client = begin("/write?db=db", 9);
    assert_eq!(client.peek(Duration::from_secs(5)).unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"m n=1i 1\n").unwrap();
    assert_eq!(receive(&mut client).status, 204);
    client.send(&write("", b"m n=1i 2\n")).unwrap();
    assert_eq!(receive(&mut client).status, 204);

    let refused = [
        ("/write?db=nope", 9, 404),
        ("/write", 9, 400),
        ("/write?db=db&precision=x", 9, 400),
        ("/write?db=db", BODY_BYTES_MAX + 1, 413),
    ];
    for (target, length, status) in refused {
        let mut client = begin(target, length);
        let got = String::from_utf8_lossy(client.peek(Duration::from_secs(5)).unwrap()).into_owned();
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {got}");
        // The client may send the body or not, so that nobody knows where its next request begins.
        assert!(receive(&mut client).closes() && closed(&mut client), "{target}");
    }
    // No body, so no `100 Continue`.
    let mut client = begin("/write?db=db", 0);
    assert!(client.peek(Duration::from_secs(5)).unwrap().starts_with(b"HTTP/1.1 204 "));
    // A body that does not wait for `100 Continue`.
    let mut client = under_test.connect();
    client.send(&write("Expect: 100-continue\r\n", b"m n=1i 3\n")).unwrap();
    assert_eq!(receive(&mut client).status, 204);
    assert_eq!(under_test.points(), 3);
}

#[test]
fn a_body_may_be_compressed_chunked_and_cut_anywhere() {
    let under_test = one_backend(&[]);
    let (text, count) = lines(30_000);
    let packed = gzip(&text);
    let gzip_header = "Content-Encoding: gzip\r\nUser-Agent: Telegraf/1.14.5\r\n";
    // As Telegraf sends it, and in worse pieces.
    for chunk in [packed.len(), 1000, 7, 1] {
        let mut client = under_test.connect();
        client.send(&write_chunked(gzip_header, &packed, chunk)).unwrap();
        assert_eq!(receive(&mut client).status, 204, "chunks of {chunk}");
    }
    assert_eq!(under_test.points(), 4 * count);

    // Byte by byte, over several requests on one connection.
    let small = b"cpu,host=a n=1i 1\nmem,host=a n=2i 2\n";
    let requests =
        [write("", small), write_chunked("", small, 5), write_chunked(gzip_header, &gzip(small), 9)].concat();
    let mut client = under_test.connect();
    for byte in &requests {
        client.send(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    for _ in 0..3 {
        assert_eq!(receive(&mut client).status, 204);
    }
    assert_eq!(under_test.points(), 4 * count + 6);
    let mut names = under_test.backend.measurements("db");
    names.sort();
    assert_eq!(names, ["cpu", "m", "m0", "m1", "m2", "m3", "m4", "m5", "m6", "mem"]);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let under_test = one_backend(&[]);
    let smuggled = "POST /write?db=db HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nevil n=1i\n";
    let cases = [
        ("Content-Length: 9\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 9\r\n", 400),
        ("Content-Length: 9\r\nContent-Length: 10\r\n", 400),
        ("Content-Length: 9, 9\r\n", 400),
        ("Content-Length: +9\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x9\r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length : 9\r\n", 400),
        ("Content-Length: 9\r\n folded\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding:\u{b}chunked\r\n", 400),
        ("Host: other\r\nContent-Length: 9\r\n", 400),
        ("Expect: 200-ok\r\nContent-Length: 9\r\n", 417),
        ("A: b\0c\r\nContent-Length: 9\r\n", 400),
        ("A: b\rContent-Length: 9\r\n", 400),
    ];
    for (headers, status) in cases {
        let request = format!("POST /write?db=db HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        let answers =
            exchange(under_test.proxy.addr(), format!("{request}9\r\nm n=1i 1\n\r\n0\r\n\r\n{smuggled}").as_bytes())
                .unwrap();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{headers:?}: {answers}");
        assert!(answers.contains("\r\nConnection: close\r\n"), "{headers:?}: {answers}");
    }
    for (request, status) in [
        ("POST /write?db=db HTTP/1.1\r\nContent-Length: 9\r\n\r\n", 400),
        ("POST /write?db=db HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        ("POST /write?db=db HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("POST write?db=db HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
        ("GET /ping\r\n\r\n", 505),
    ] {
        let answers = exchange(under_test.proxy.addr(), format!("{request}{smuggled}").as_bytes()).unwrap();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answers}");
    }
    // Wrong chunks.
    for body in ["g\r\nm n=1i 1\n\r\n0\r\n\r\n", "9\nm n=1i 1\n\n0\n\n", "9\r\nm n=1i 1\nX\r\n0\r\n\r\n", "-1\r\n\r\n"]
    {
        let request =
            format!("POST /write?db=db HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{body}{smuggled}");
        let answers = exchange(under_test.proxy.addr(), request.as_bytes()).unwrap();
        assert!(answers.starts_with("HTTP/1.1 400 "), "{body:?}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{body:?}: {answers}");
    }
    assert_eq!(under_test.points(), 0);
}

#[test]
fn what_is_too_large_is_refused() {
    let under_test = one_backend(&[("max_body_bytes", 100_000.into())]);
    let head = |bytes: usize| {
        let rest = "GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\nA: \r\n\r\n".len();
        format!("GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\nA: {}\r\n\r\n", "x".repeat(bytes - rest))
    };
    let fields = |count: usize| {
        let more = "A: b\r\n".repeat(count - 2);
        format!("GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{more}\r\n")
    };
    for (request, status) in [
        (head(16 * 1024), 204),
        (head(16 * 1024 + 1), 431),
        (head(1_000_000), 431),
        (fields(64), 204),
        (fields(65), 431),
    ] {
        let answers = exchange(under_test.proxy.addr(), request.as_bytes()).unwrap();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{} bytes: {answers}", request.len());
    }

    let (fits, count) = lines(100_000);
    let (exceeds, _) = lines(100_001);
    let zipped = "Content-Encoding: gzip\r\n";
    let bomb = gzip(&vec![b'\n'; 50_000_000]);
    assert!(bomb.len() < 1_000_000, "it should be small on the wire");
    let cases = [
        (write("", &fits), 204),
        (write_chunked("", &fits, 8_000), 204),
        (write(zipped, &gzip(&fits)), 204),
        (write("", &exceeds), 413),
        (write_chunked("", &exceeds, 8_000), 413),
        (write(zipped, &gzip(&exceeds)), 413),
        (write_chunked(zipped, &gzip(&exceeds), 8_000), 413),
        (write_chunked(zipped, &bomb, 8_000), 413),
    ];
    for (number, (request, status)) in cases.into_iter().enumerate() {
        let mut client = under_test.connect();
        client.send(&request).unwrap();
        let reply = receive(&mut client);
        assert_eq!(reply.status, status, "{number}: {}", reply.text());
        if status == 413 {
            assert_eq!(error_of(&reply), "Request Entity Too Large");
        }
    }
    assert_eq!(under_test.points(), 3 * count, "a request that was refused has left something behind");

    let long = format!("m s=\"{}\" 1\nm n=1i 2\n", "x".repeat(256 * 1024));
    let under_test = one_backend(&[]);
    let reply = under_test.connect().write("db", &long).unwrap();
    assert_eq!(reply.status, 400);
    assert!(error_of(&reply).starts_with("partial write: ") && reply.body.len() < 10_000, "{}", error_of(&reply));
    assert_eq!(under_test.points(), 1);
}

#[test]
fn bodies_of_every_size_are_taken_whole() {
    let under_test = one_backend(&[]);
    let mut want = 0;
    let mib = 1024 * 1024;
    for bytes in [32 * 1024 - 1, 32 * 1024, 64 * 1024, mib, BODY_WHOLE_BYTES_MAX, BODY_WHOLE_BYTES_MAX + 1, 5 * mib] {
        let (body, count) = lines(bytes);
        let zipped = write("Content-Encoding: gzip\r\n", &gzip(&body));
        for request in [write("", &body), write_chunked("", &body, 100_003), zipped] {
            let mut client = under_test.connect();
            client.send(&request).unwrap();
            let reply = receive(&mut client);
            assert_eq!(
                (reply.status, reply.header("X-Fluxgate-Ack")),
                (204, Some("disk")),
                "{bytes}: {}",
                reply.text()
            );
            client.send(&write("", b"m n=1i 1\n")).unwrap();
            assert_eq!(receive(&mut client).status, 204, "after {bytes}");
            want += count + 1;
        }
    }
    // A bad line in the middle of a body that is taken in pieces: the others are kept, and its number is right.
    let (body, count) = lines(5 * mib);
    let cut = body.iter().take(4_500_000).rposition(|&byte| byte == b'\n').unwrap() + 1;
    let number = body[..cut].iter().filter(|&&byte| byte == b'\n').count() + 1;
    let mut client = under_test.connect();
    client.send(&write("", &[&body[..cut], b"bad line\n", &body[cut..]].concat())).unwrap();
    let reply = receive(&mut client);
    assert_eq!(
        (reply.status, &*error_of(&reply)),
        (400, "partial write: unable to parse 'bad line': invalid field format dropped=0")
    );
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["refused"]["lines"][0]["line"], number);
    assert_eq!(under_test.points(), want + count);
}

#[test]
fn a_request_that_fails_late_leaves_nothing_behind() {
    let under_test = one_backend(&[]);
    let (body, _) = lines(3_000_000);
    let zipped = "Content-Encoding: gzip\r\n";
    let packed = gzip(&body);
    let mut bad_sum = packed.clone();
    let at = bad_sum.len() - 6;
    bad_sum[at] ^= 1;
    for (packed, error) in [
        (&bad_sum[..], "gzip: invalid checksum"),
        (&packed[..packed.len() - 1], "unexpected EOF"),
        (&[&packed[..], b"more"].concat(), "unexpected EOF"),
    ] {
        let mut client = under_test.connect();
        client.send(&write(zipped, packed)).unwrap();
        let reply = receive(&mut client);
        assert_eq!((reply.status, &*error_of(&reply)), (400, error));
    }
    // The client goes away in the middle, by length and in chunks.
    for request in [write("", &body), write_chunked("", &body, 50_000)] {
        let mut client = under_test.connect();
        client.send(&request[..request.len() - 1]).unwrap();
        client.finish().unwrap();
        assert!(closed(&mut client));
    }
    assert_eq!(under_test.points(), 0);
}

#[test]
fn a_client_that_has_sent_all_still_gets_its_answers() {
    let under_test = one_backend(&[]);
    let mut client = under_test.connect();
    client.send(&[write("", b"m n=1i 1\n"), write("", b"m n=1i 2\n")].concat()).unwrap();
    client.finish().unwrap();
    assert_eq!((receive(&mut client).status, receive(&mut client).status), (204, 204));
    assert!(closed(&mut client));
    // Half a request more: the whole ones are answered.
    let mut client = under_test.connect();
    client.send(&[write("", b"m n=1i 3\n"), b"POST /wr".to_vec()].concat()).unwrap();
    client.finish().unwrap();
    assert_eq!(receive(&mut client).status, 204);
    assert!(closed(&mut client));
    assert_eq!(under_test.points(), 3);
}

#[test]
fn a_silent_client_is_let_go() {
    let under_test = one_backend(&[("idle_timeout", IDLE_TIMEOUT.as_secs().into())]);
    let ends = |bytes: &[u8]| {
        let started = Instant::now();
        let answers = exchange(under_test.proxy.addr(), bytes).unwrap();
        assert!(started.elapsed() > IDLE_TIMEOUT / 2, "after {:?}: {answers}", started.elapsed());
        answers
    };
    assert_eq!(ends(b""), "");
    let answers = ends(&write("", b"m n=1i 1\n"));
    assert!(answers.starts_with("HTTP/1.1 204 ") && answers.ends_with("\r\n\r\n"), "{answers}");
    let whole = write("", b"m n=1i 2\nm n=1i 3\n");
    let chunked = write_chunked("", b"m n=1i 2\nm n=1i 3\n", 9);
    for request in [&whole[..30], &whole[..whole.len() - 9], &chunked[..chunked.len() - 20]] {
        let answers = ends(request);
        assert!(answers.starts_with("HTTP/1.1 408 ") && answers.contains("\r\nConnection: close\r\n"), "{answers}");
    }
    assert_eq!(under_test.points(), 1);
}

#[test]
fn a_connection_goes_on_after_a_refusal() {
    let under_test = one_backend(&[]);
    let mut client = under_test.connect();
    let body = b"m n=1i 1\n".repeat(1_000);
    for (target, body, status, error) in [
        ("/write?db=db", &b"m n=x 1"[..], 400, "unable to parse 'm n=x 1': invalid boolean"),
        ("/write?db=nope", &body, 404, "database not found: \"nope\""),
        ("/write", &body, 400, "database not found"),
        ("/write?db=db&precision=x", &body, 400, "invalid precision \"x\" (use n, ns, u, ms, s, m or h)"),
        ("/write?db=db&rp=nope", &body, 500, "retention policy not found: nope"),
        ("/write?db=db&consistency=two", &body, 400, "invalid consistency level"),
    ] {
        let reply = client.request("POST", target, &[], body).unwrap();
        assert_eq!((reply.status, &*error_of(&reply), reply.closes()), (status, error, false), "{target}");
        assert_eq!(reply.header("X-Influxdb-Error"), Some(error), "{target}");
        let reply = client.write("db", "m n=1i 1\n").unwrap();
        assert_eq!(reply.status, 204, "after {target}");
    }
    for (method, target, status) in [("GET", "/write?db=db", 405), ("POST", "/nope", 404), ("POST", "/health", 405)] {
        let reply = client.request(method, target, &[], &body).unwrap();
        assert_eq!((reply.status, reply.closes()), (status, false), "{target}");
        assert_eq!(client.write("db", "m n=1i 1\n").unwrap().status, 204, "after {target}");
    }
    // The body is too long to be read to its end: the answer arrives, then the connection ends.
    let (body, _) = lines(1_000_000);
    let mut client = under_test.connect();
    let reply = client.request("POST", "/write?db=nope", &[], &body).unwrap();
    assert_eq!((reply.status, reply.closes()), (404, true));
    assert_eq!(under_test.points(), 9);
}

#[test]
fn a_database_created_later_is_found() {
    let under_test = one_backend(&[]);
    let mut client = under_test.connect();
    assert_eq!(client.write("later", "m n=1i 1\n").unwrap().status, 404);
    under_test.backend.create_database("later");
    assert!(eventually(Duration::from_secs(10), || client.write("later", "m n=1i 1\n").unwrap().status == 204));
    assert!(eventually(Duration::from_secs(10), || under_test.backend.points("later") == 1));
}

#[test]
fn the_answer_carries_what_the_request_brought() {
    let under_test = one_backend(&[]);
    let mut client = under_test.connect();
    let ids = |reply: &Reply| {
        (reply.header("Request-Id").unwrap().to_owned(), reply.header("X-Request-Id").unwrap().to_owned())
    };
    for (headers, id) in [
        (&["X-Request-Id: abc"][..], "abc"),
        (&["Request-Id: def"], "def"),
        (&["Request-Id: def", "X-Request-Id: abc"], "abc"),
    ] {
        for (target, body) in [("/write?db=db", &b"m n=1i 1\n"[..]), ("/write?db=db", b"bad"), ("/ping", b"")] {
            let reply = client.request("POST", target, headers, body).unwrap();
            assert_eq!(ids(&reply), (id.to_owned(), id.to_owned()), "{target} {headers:?}");
        }
    }
    let mut own: Vec<_> = (0..20).map(|_| ids(&client.write("db", "m n=1i 1\n").unwrap()).0).collect();
    own.sort();
    own.dedup();
    assert_eq!(own.len(), 20, "ids must differ");
    assert!(own.iter().all(|id| id.len() == 36), "{own:?}");

    for (target, body) in [("/write?db=db", &b"m n=1i 1\n"[..]), ("/write?db=db", b"bad"), ("/ping", b"")] {
        let reply = client.request("POST", target, &["Origin: http://o.example"], body).unwrap();
        assert_eq!(reply.header("Access-Control-Allow-Origin"), Some("http://o.example"), "{target}");
        for name in ["Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Expose-Headers"] {
            assert!(reply.header(name).is_some(), "{target} {name}");
        }
    }
    assert_eq!(client.write("db", "m n=1i 1\n").unwrap().header("Access-Control-Allow-Origin"), None);
}

#[test]
fn a_write_needs_the_user_when_there_is_one() {
    let under_test = one_backend(&[("username", "admin".into()), ("password", "s3cr&t".into())]);
    let mut client = under_test.connect();
    let line = b"m n=1i 1\n";
    // admin:s3cr&t, admin:wrong
    let (good, wrong) = ("Authorization: Basic YWRtaW46czNjciZ0", "Authorization: Basic YWRtaW46d3Jvbmc=");
    let mut accepted = 0;
    for (params, headers, status) in [
        ("", &[][..], 401),
        ("&u=admin&p=s3cr%26t", &[], 204),
        ("&u=admin&p=wrong", &[], 401),
        ("&u=admin", &[], 401),
        ("", &[good], 204),
        ("", &[wrong], 401),
        ("", &["Authorization: Basic !!"], 401),
        ("", &["Authorization: Token admin:s3cr&t"], 204),
        ("", &["Authorization: Token admin:wrong"], 401),
        ("", &["Authorization: Bearer s3cr&t"], 401),
        // One right pair is enough, as in influx-proxy.
        ("&u=admin&p=wrong", &[good], 204),
        ("&u=admin&p=s3cr%26t", &[wrong], 204),
    ] {
        let reply = client.request("POST", &format!("/write?db=db{params}"), headers, line).unwrap();
        assert_eq!((reply.status, reply.closes()), (status, false), "{params} {headers:?}");
        accepted += u64::from(status == 204);
    }
    assert_eq!(client.get("/ping").unwrap().status, 204);
    assert_eq!(client.get("/health?u=admin&p=s3cr%26t").unwrap().status, 200);
    let delivered = || under_test.backend.points("db") == accepted;
    assert!(eventually(Duration::from_secs(10), delivered), "{} of {accepted}", under_test.backend.points("db"));
}

#[test]
fn a_policy_that_exists_is_written_to() {
    let backends = [Influxd::start().unwrap(), Influxd::start().unwrap()];
    backends[0].create_database("db").unwrap();
    let policy = "CREATE RETENTION POLICY \"p 1\" ON db DURATION 9w REPLICATION 1 SHARD DURATION 2d";
    backends[0].query("", policy).unwrap();
    let circles: Vec<_> = backends.iter().map(|backend| vec![backend.url()]).collect();
    let proxy = support::start(&ProxyConfig::new(&circles));
    let mut client = Client::connect(proxy.addr()).unwrap();
    let mut write = |rp: &str| {
        client.request("POST", &format!("/write?db=db&rp={rp}&consistency=all"), &[], b"m n=1i\nbad\n").unwrap()
    };
    let reply = write("p+1");
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert_eq!(error_of(&reply), "partial write: unable to parse 'bad': missing fields dropped=0");
    let reply = write("nope");
    assert_eq!((reply.status, &*error_of(&reply)), (500, "retention policy not found: nope"));
    backends[1].query("", "CREATE RETENTION POLICY nope ON db DURATION INF REPLICATION 1").unwrap();
    assert!(eventually(Duration::from_secs(10), || write("nope").status == 400));
    for backend in &backends {
        for policy in ["p 1", "nope"] {
            let answer = backend.query("db", &format!("SELECT count(n) FROM \"{policy}\".m")).unwrap();
            assert_eq!(answer["results"][0]["series"][0]["values"][0][1], 1, "{policy}: {answer}");
        }
        assert_eq!(backend.points("db").unwrap(), 0, "nothing belongs to the default policy");
        let answer = backend.query("db", "SHOW RETENTION POLICIES").unwrap();
        assert!(answer.to_string().contains("[\"p 1\",\"1512h0m0s\",\"48h0m0s\",1,false]"), "{answer}");
    }
}

#[test]
fn a_level_is_told_and_waited_for() {
    let mut circles: Vec<Influxd> = (0..2).map(|_| Influxd::start().unwrap()).collect();
    circles.iter().for_each(|backend| backend.create_database("db").unwrap());
    let urls: Vec<_> = circles.iter().map(|backend| vec![backend.url()]).collect();
    let proxy = support::start(&ProxyConfig::new(&urls).set("write_timeout", 1).set("rewrite_interval", 1));
    let mut client = Client::connect(proxy.addr()).unwrap();
    let mut sent = 0;
    let mut write = |level: &str| {
        sent += 1;
        let target = format!("/write?db=db&consistency={level}");
        let reply = client.request("POST", &target, &[], format!("m n={sent}i {sent}\n").as_bytes()).unwrap();
        (reply.status, reply.header("X-Fluxgate-Ack").map(str::to_owned), reply)
    };
    for (level, acks) in [
        ("", &["disk"][..]),
        ("any", &["disk"]),
        ("one", &["circles=1/2", "circles=2/2"]),
        ("quorum", &["circles=2/2"]),
        ("ALL", &["circles=2/2"]),
    ] {
        let (status, ack, _) = write(level);
        assert!(status == 204 && acks.contains(&ack.as_deref().unwrap()), "{level}: {status} {ack:?}");
    }
    assert_eq!(circles[1].points("db").unwrap(), 5, "confirmed means stored");

    circles[1].kill();
    for (level, status, ack) in
        [("any", 204, Some("disk")), ("one", 204, Some("circles=1/2")), ("quorum", 504, None), ("all", 504, None)]
    {
        let (got, told, reply) = write(level);
        assert_eq!((got, told.as_deref()), (status, ack), "{level}: {}", reply.text());
        if status == 504 {
            let error = error_of(&reply);
            assert_eq!(error, "timeout: 1 of 2 circles confirmed; points are safe and will be delivered", "{level}");
        }
    }
    circles[1].restart().unwrap();
    assert!(eventually(Duration::from_secs(20), || circles[1].points("db").is_ok_and(|points| points == 9)));
    assert_eq!(circles[0].points("db").unwrap(), 9);
    let ledger = proxy.ledger().unwrap();
    assert!(ledger.proven_balanced() && ledger.totals.delivered == 18, "{ledger:?}");
}

/// For clients that always send a level.
#[test]
fn a_level_above_the_configured_one_is_taken_as_that() {
    let backends: Vec<StandIn> = (0..3).map(|_| StandIn::with_databases(&["db"]).unwrap()).collect();
    let urls: Vec<_> = backends.iter().map(|backend| vec![backend.url()]).collect();
    backends[1..].iter().for_each(|backend| backend.always(Some(Fault::Hang)));
    for (max, acks) in [
        ("any", ["disk"; 4]),
        ("one", ["disk", "circles=1/3", "circles=1/3", "circles=1/3"]),
        ("quorum", ["disk", "circles=1/3", "", ""]),
    ] {
        let proxy = support::start(&ProxyConfig::new(&urls).set("write_timeout", 1).set("consistency_max", max));
        let mut client = Client::connect(proxy.addr()).unwrap();
        for (level, ack) in ["any", "one", "quorum", "all"].into_iter().zip(acks) {
            let target = format!("/write?db=db&consistency={level}");
            let reply = client.request("POST", &target, &[], b"m n=1i\n").unwrap();
            assert_eq!(reply.header("X-Fluxgate-Ack").unwrap_or_default(), ack, "{max} {level}: {}", reply.text());
        }
        let wrong = client.request("POST", "/write?db=db&consistency=two", &[], b"m n=1i\n").unwrap();
        assert_eq!(wrong.status, 400, "{max}");
    }
}

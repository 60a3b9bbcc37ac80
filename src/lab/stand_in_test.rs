//! Tests of the stand-in.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::stand_in::{Fault, StandIn};

const LINES: &str = "cpu,host=a v=1,n=1i 10\nmem n=3i 11\n# note\n\ncpu,host=a v=1,n=2i 12\n";

/// Sends one request on a new connection; `None` = cut without an answer.
fn exchange(standin: &StandIn, request: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(standin.addr()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(request).ok()?;
    let mut answer = Vec::new();
    let mut block = [0; 4096];
    loop {
        let response = crate::lab::http1::Response::parse(&answer, false).unwrap();
        if let Some(response) = response {
            return Some((response.status, String::from_utf8(response.body(&answer).into_owned()).unwrap()));
        }
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return None,
            Ok(got) => answer.extend_from_slice(&block[..got]),
        }
    }
}

fn write(standin: &StandIn, db: &str) -> Option<u16> {
    let head = format!("POST /write?db={db} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{LINES}", LINES.len());
    exchange(standin, head.as_bytes()).map(|(status, _)| status)
}

fn query(standin: &StandIn, q: &str) -> (u16, String) {
    let request = format!("GET /query?q={} HTTP/1.1\r\n\r\n", crate::lab::http1::url_encoded(q));
    exchange(standin, request.as_bytes()).unwrap()
}

#[test]
fn points_are_counted_by_database_and_number() {
    let standin = StandIn::with_databases(&["a", "b"]).unwrap();
    assert_eq!(write(&standin, "a"), Some(204));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"cpu n=9i 1\n").unwrap();
    let gzip = gzip.finish().unwrap();
    let head = format!("POST /write?db=b HTTP/1.1\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", gzip.len());
    assert_eq!(exchange(&standin, &[head.as_bytes(), &gzip].concat()).unwrap().0, 204);
    assert_eq!((standin.points("a"), standin.points("b"), standin.points("c")), (3, 1, 0));
    assert_eq!(standin.serials("a").runs(), [(1, 3)]);
    assert_eq!(standin.serials("b").runs(), [(9, 9)]);
    assert_eq!(standin.measurements("a"), ["cpu", "mem"]);
}

#[test]
fn statements_are_answered_in_influxdbs_form() {
    let standin = StandIn::with_databases(&["a"]).unwrap();
    assert_eq!(query(&standin, "CREATE DATABASE \"b\"").0, 200);
    write(&standin, "b");
    let table = [
        ("SHOW DATABASES", 200, r#""values":[["a"],["b"]]"#),
        ("show measurements on b", 200, r#""values":[["cpu"],["mem"]]"#),
        ("SHOW MEASUREMENTS ON a", 200, r#"{"results":[{"statement_id":0}]}"#),
        ("SHOW RETENTION POLICIES ON \"a\"", 200, r#"["autogen","0s","168h0m0s",1,true]"#),
        ("SHOW MEASUREMENTS ON c", 200, "database not found: c"),
        ("SELECT count(n) FROM /.*/", 400, "does not answer"),
    ];
    for (statement, status, part) in table {
        let (got, text) = query(&standin, statement);
        assert!(got == status && text.contains(part), "{statement}: {got} {text}");
    }
}

#[test]
fn an_unknown_database_is_404() {
    let standin = StandIn::with_databases(&[]).unwrap();
    let request = b"POST /write?db=no HTTP/1.1\r\nContent-Length: 3\r\n\r\nm v";
    assert_eq!(exchange(&standin, request).unwrap(), (404, "{\"error\":\"database not found: \\\"no\\\"\"}\n".into()));
}

#[test]
fn faults_come_in_the_order_of_the_script() {
    let standin = StandIn::with_databases(&["a"]).unwrap();
    standin.script([Fault::Reset, Fault::Answer(500, "x".into()), Fault::StoreAndReset, Fault::Answer(429, "".into())]);
    assert_eq!([None, Some(500), None, Some(429), Some(204)], std::array::from_fn(|_| write(&standin, "a")));
    assert_eq!((standin.points("a"), standin.writes()), (6, 5));
    standin.always(Some(Fault::Answer(503, "".into())));
    assert_eq!([Some(503), Some(503)], std::array::from_fn(|_| write(&standin, "a")));
    standin.always(None);
    assert_eq!(write(&standin, "a"), Some(204));
}

#[test]
fn slow_writes_are_answered_late_and_hanging_ones_never() {
    let mut standin = StandIn::with_databases(&["a"]).unwrap();
    standin.script([Fault::Slow(Duration::from_millis(100)), Fault::Hang]);
    let start = Instant::now();
    assert_eq!(write(&standin, "a"), Some(204));
    assert!(start.elapsed() >= Duration::from_millis(100));
    let head = format!("POST /write?db=a HTTP/1.1\r\nContent-Length: {}\r\n\r\n{LINES}", LINES.len());
    let mut stream = TcpStream::connect(standin.addr()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock);
    standin.stop();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!(stream.read(&mut [0; 10]), Ok(0) | Err(_)));
    assert_eq!(standin.points("a"), 3);
}

#[test]
fn lifting_faults_ends_hanging_requests() {
    let standin = StandIn::with_databases(&["a"]).unwrap();
    standin.always(Some(Fault::Hang));
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| write(&standin, "a"));
        while standin.writes() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        standin.always(None);
        assert_eq!(hanging.join().unwrap(), None);
    });
    assert_eq!((write(&standin, "a"), standin.points("a")), (Some(204), 3));
}

#[test]
fn a_stopped_stand_in_refuses_and_restarts_with_its_data() {
    let mut standin = StandIn::with_databases(&["a"]).unwrap();
    let idle = TcpStream::connect(standin.addr()).unwrap();
    assert_eq!(write(&standin, "a"), Some(204));
    standin.stop();
    assert!(TcpStream::connect(standin.addr()).is_err());
    idle.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(matches!((&idle).read(&mut [0; 10]), Ok(0) | Err(_)));
    let addr = standin.addr();
    standin.restart().unwrap();
    assert_eq!((standin.addr(), write(&standin, "a"), standin.points("a")), (addr, Some(204), 6));
}

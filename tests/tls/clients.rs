//! TLS for clients of the proxy.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::StandIn;
use rustix::process::Signal;
use serde_json::json;

use crate::certificates::{Authority, run, s_client};
use crate::support::start;

/// One backend in one circle, and the proxy in front of it.
struct TlsProxy {
    authority: Authority,
    backend: StandIn,
    proxy: Proxy,
}

fn tls_proxy(keys: &[(&str, serde_json::Value)]) -> TlsProxy {
    let authority = Authority::new("authority");
    let backend = StandIn::with_databases(&["db"]).unwrap();
    let config = authority.https(ProxyConfig::new(&[vec![backend.url()]]));
    let config = config.set_all(keys.iter().cloned());
    TlsProxy { proxy: start(&config), authority, backend }
}

impl TlsProxy {
    /// Waits until everything accepted is delivered, and counts the points of the backend.
    fn points(&self) -> u64 {
        self.proxy.drained(Duration::from_secs(20)).unwrap();
        self.backend.points("db")
    }
}

fn write(headers: &str, body: &str) -> String {
    format!("POST /write?db=db HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn curl_and_openssl_are_served() {
    let under_test = tls_proxy(&[]);
    let ca = under_test.authority.ca();
    for version in ["-tls1_2", "-tls1_3"] {
        let said = s_client(&under_test.proxy, &ca, &[version, "-verify_return_error", "-verify_ip", "127.0.0.1"]);
        assert!(said.contains("HTTP/1.1 204 No Content") && said.contains("Verification: OK"), "{version}: {said}");
        assert!(!said.contains("unexpected eof"), "it ends as TLS wants it: {said}");
    }
    let url = format!("{}/write?db=db", under_test.proxy.url());
    for expect in ["Expect:", "Expect: 100-continue"] {
        let args = ["-sS", "-i", "--cacert", ca.to_str().unwrap(), "-H", expect, "--data-binary", "@-", &url];
        let output = run("curl", &args, "m n=1i\nm n=2i\n");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("204 No Content") && said.contains("X-Fluxgate-Ack: disk"), "{output:?}");
    }
    assert_eq!(under_test.points(), 4);
}

#[test]
fn versions_and_ciphers_are_those_of_the_configuration() {
    let handshakes = |under_test: &TlsProxy, option: &str| {
        let said = s_client(&under_test.proxy, &under_test.authority.ca(), &[option]);
        let served = said.contains("HTTP/1.1 204 No Content");
        assert!(served || said.contains("alert protocol version"), "{said}");
        served
    };
    let newest = tls_proxy(&[("tls", json!({"min_version": "tls1.3"}))]);
    assert_eq!((handshakes(&newest, "-tls1_2"), handshakes(&newest, "-tls1_3")), (false, true));
    let old = tls_proxy(&[("tls", json!({"min_version": "tls1.0", "max_version": "tls1.2"}))]);
    assert_eq!((handshakes(&old, "-tls1_2"), handshakes(&old, "-tls1_3")), (true, false));
    assert!(old.proxy.stderr().contains("tls.min_version is \"tls1.0\""), "{}", old.proxy.stderr());

    let name = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305";
    let one = tls_proxy(&[("tls", json!({"ciphers": [name]}))]);
    let said = s_client(&one.proxy, &one.authority.ca(), &["-tls1_2"]);
    assert!(said.contains("ECDHE-ECDSA-CHACHA20-POLY1305"), "{said}");
    let said = s_client(&one.proxy, &one.authority.ca(), &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]);
    assert!(said.contains("alert handshake failure"), "{said}");
}

#[test]
fn a_new_certificate_comes_with_sighup_and_a_bad_one_changes_nothing() {
    let under_test = tls_proxy(&[]);
    let logged = |text: &str| eventually(Duration::from_secs(10), || under_test.proxy.stderr().contains(text));
    let mut before = under_test.authority.connect(under_test.proxy.addr());
    before.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(before.head().starts_with("HTTP/1.1 204") && before.is_shown("first"));

    let (_, key) = under_test.authority.issue("second", "127.0.0.1");
    under_test.proxy.signal(Signal::HUP).unwrap();
    assert!(logged("new connections use the certificate"), "{}", under_test.proxy.stderr());
    assert!(under_test.authority.connect(under_test.proxy.addr()).is_shown("second"));
    before.send(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(before.head().starts_with("HTTP/1.1 204"), "a connection from before goes on");

    let good_key = std::fs::read(&key).unwrap();
    under_test.authority.issue("third", "127.0.0.1");
    std::fs::write(&key, good_key).unwrap();
    under_test.proxy.signal(Signal::HUP).unwrap();
    assert!(logged("does not belong to the certificate"), "{}", under_test.proxy.stderr());
    assert!(under_test.authority.connect(under_test.proxy.addr()).is_shown("second"));
}

#[test]
fn plain_http_is_told_that_it_is_at_the_wrong_door() {
    let under_test = tls_proxy(&[]);
    for request in [write("", "m n=1i\n"), "GET /ping HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()] {
        let mut plain = TcpStream::connect(under_test.proxy.addr()).unwrap();
        plain.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        plain.read_to_string(&mut answer).unwrap();
        let want = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(answer, want);
    }
    // Bytes that are neither TLS nor HTTP end the connection, with a TLS alert (21) before.
    let mut other = TcpStream::connect(under_test.proxy.addr()).unwrap();
    other.write_all(b"\x00\x01\x02\x03\x04\x05\x06\x07").unwrap();
    let mut answer = Vec::new();
    other.read_to_end(&mut answer).unwrap();
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    assert_eq!(under_test.points(), 0);
}

#[test]
fn a_slow_handshake_delays_nobody_and_does_not_last() {
    let under_test = tls_proxy(&[("idle_timeout", 1.into())]);
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let connect = |len| {
        let mut slow = TcpStream::connect(under_test.proxy.addr()).unwrap();
        slow.write_all(&hello[..len]).unwrap();
        slow
    };
    let slow: Vec<_> = (0..60).map(|i| connect(i % hello.len())).collect();
    let began = Instant::now();
    let mut quick = under_test.authority.connect(under_test.proxy.addr());
    quick.send(write("Connection: close\r\n", "m n=1i\n").as_bytes());
    assert!(quick.rest().starts_with("HTTP/1.1 204"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for mut slow in slow {
        slow.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // An alert may come first.
        let mut rest = Vec::new();
        slow.read_to_end(&mut rest).unwrap();
    }
}

#[test]
fn large_bodies_and_answers_and_many_requests_at_once_pass() {
    let under_test = tls_proxy(&[]);
    let mut client = under_test.authority.connect(under_test.proxy.addr());
    // Larger than any buffer on the way.
    let lines: String = (0..200_000).map(|n| format!("m,t=some_tag_value_{n} n={n}i {}\n", n + 1)).collect();
    assert!(lines.len() > 8_000_000);
    client.send(write("", &lines).as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 204"));
    // 300 requests whose answers are not read before all are sent.
    let one = write("", "m n=1i 1\n").repeat(300);
    client.send(one.as_bytes());
    for _ in 0..300 {
        assert!(client.head().starts_with("HTTP/1.1 204"));
    }
    assert_eq!(under_test.points(), 200_300);
    // Bytes that come one by one, in records of their own.
    client.dribble(write("", "m n=2i 2\n").as_bytes());
    assert!(client.head().starts_with("HTTP/1.1 204"));
    // A long answer.
    let bad = format!("{} n=\n", "x".repeat(900)).repeat(900);
    client.send(write("Connection: close\r\n", &bad).as_bytes());
    let answer = client.rest();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.len() > 500_000, "{} bytes", answer.len());
    assert!(answer.ends_with("}\n"), "{}", &answer[answer.len() - 100..]);
    assert_eq!(under_test.points(), 200_301);
}

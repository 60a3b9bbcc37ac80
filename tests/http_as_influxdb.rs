//! Promise: what HTTP allows is answered as by InfluxDB. What can be read in two ways is in `http_shapes.rs`.

use std::collections::BTreeSet;

use fluxgate::lab::client::exchange;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};

mod support;

/// A server, and the proxy before it; both have the database `db`.
fn both() -> (Influxd, Proxy) {
    let influxd = Influxd::start().unwrap();
    influxd.create_database("db").unwrap();
    let proxy = support::start(&ProxyConfig::new(&[vec![influxd.url()]]));
    (influxd, proxy)
}

#[test]
fn options_of_write_and_equal_lengths_are_answered_as_by_influxdb() {
    let (influxd, proxy) = both();
    let origin = "Origin: http://a.b\r\nAccess-Control-Request-Method: POST\r\n";
    for (method, fields, body) in [
        ("OPTIONS", "", ""),
        ("OPTIONS", origin, ""),
        ("OPTIONS", "Content-Length: 3\r\n", "abc"),
        ("POST", "Content-Length: 9\r\nContent-Length: 9\r\n", "m n=1i 1\n"),
        ("POST", "Content-Length: 9\r\nContent-Length: 10\r\n", "m n=1i 1\n"),
    ] {
        let request = format!("{method} /write?db=db HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n{body}");
        let answers = [proxy.addr(), influxd.addr()].map(|addr| exchange(addr, request.as_bytes()).unwrap());
        let told = |answer: &String| {
            let cors = answer.lines().filter(|line| line.starts_with("Access-Control-")).map(str::to_owned);
            (answer.get(..12).map(str::to_owned), cors.collect::<BTreeSet<_>>())
        };
        assert_eq!(told(&answers[0]), told(&answers[1]), "{request}{answers:?}");
    }
}

#[test]
fn a_query_in_a_target_may_be_as_long_as_for_influxdb() {
    let (influxd, proxy) = both();
    for length in [20_000, 100_000, 1_000_000] {
        let names = (0..length / 8).map(|n| format!("f{n:06}")).collect::<Vec<_>>().join(",");
        let request = format!("GET /query?db=db&q=SELECT+{names}+FROM+m HTTP/1.1\r\nHost: h\r\n\r\n");
        let ping = "GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        // Twice, so that the larger buffer is used again, and a request behind it.
        for addr in [proxy.addr(), influxd.addr()] {
            let answers = exchange(addr, format!("{request}{request}{ping}").as_bytes()).unwrap();
            assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{length}: {answers:.300}");
            assert_eq!(answers.matches("HTTP/1.1 204 ").count(), 1, "{length}: {answers:.300}");
        }
    }
    let request = format!("GET /query?q={} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(1 << 20));
    let answer = exchange(proxy.addr(), request.as_bytes()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 ") && answer.contains("use POST"), "{answer}");
}

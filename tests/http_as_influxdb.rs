//! Promise: what HTTP allows is answered as by InfluxDB. What can be read in two ways is in `http_shapes.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use fluxgate::lab::client::{Client, exchange};
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::{StandIn, VERSION};

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

#[test]
fn a_query_may_nest_as_deep_as_for_influxdb() {
    let servers: Vec<_> = (0..4).map(|_| Influxd::start().unwrap()).collect();
    let url = |index: usize| servers[index].url();
    let proxy = support::start(&ProxyConfig::new(&[vec![url(0), url(1)], vec![url(2), url(3)]]));
    let plain = Influxd::start().unwrap();
    let post = |addr, target: &str, body: String| {
        let form = "Content-Type: application/x-www-form-urlencoded";
        Client::connect(addr).unwrap().request("POST", target, &[form], body.as_bytes()).unwrap()
    };
    let lines = (0..40).map(|n| format!("m{n},h=a v={n}i 1")).collect::<Vec<_>>().join("\n");
    for addr in [proxy.addr(), plain.addr()] {
        assert_eq!(post(addr, "/query", "q=CREATE DATABASE db".into()).status, 200);
        assert_eq!(post(addr, "/write?db=db&consistency=all", lines.clone()).status, 204);
    }
    let ask = |addr, text: &str| {
        let reply = post(addr, "/query?db=db", format!("q={}", url_encoded(text)));
        (reply.status, reply.text())
    };
    let [open, close] = ["(", ")"].map(|one| move |depth: usize| one.repeat(depth));
    for text in [
        format!("SELECT v FROM m1 WHERE {}h = 'a'{}", open(200), close(200)),
        format!("SELECT v FROM m1 WHERE {}h = 'a'{}; SELECT v FROM m1", open(9_990), close(9_990)),
        format!("SELECT {}v{} FROM m1", open(9_990), close(9_990)),
        format!("SELECT {}v{} FROM m1", "abs(".repeat(200), close(200)),
        format!("SELECT v FROM {}m1{}", "(SELECT v FROM ".repeat(200), close(200)),
        format!("SELECT v FROM m1 WHERE h = 'b'{}", " OR h = 'a'".repeat(1_100)),
        // Over several backends.
        format!("SELECT v FROM /m/ WHERE {}h = 'a'{}", open(990), close(990)),
        format!("SELECT v FROM /m/ WHERE {}h = 'a'{}; SELECT v FROM m1", open(990), close(990)),
        format!("SELECT {}v{} FROM /m/", "-(".repeat(200), close(200)),
        format!("SELECT {}v{} FROM /m/", "abs(".repeat(200), close(200)),
        format!("SELECT v FROM {}/m/{}", "(SELECT v FROM ".repeat(200), close(200)),
        format!("SELECT v FROM /m/ WHERE h = 'b'{}", " OR h = 'a'".repeat(1_100)),
        format!("SHOW TAG VALUES WITH KEY = h WHERE {}h = 'a'{}", open(990), close(990)),
        // Neither may be taken for the other's.
        format!("SELECT v FROM m1 WHERE {}h = 'a'{}", open(200), close(199)),
    ] {
        let [want, got] = [plain.addr(), proxy.addr()].map(|addr| ask(addr, &text));
        assert_eq!(got, want, "{text:.200}");
        assert!(want.1.contains("values") || want.0 == 400, "{want:?}");
    }
    let beyond = "the depth of parentheses is beyond the proxy's limit at byte ";
    for (text, end) in [
        (format!("SELECT v FROM m1 WHERE {}h = 'a'{}", open(10_000), close(10_000)), "10023\"}\n"),
        (
            format!("SELECT v FROM /m/ WHERE {}h = 'a'{}", open(1_001), close(1_001)),
            ", since no backend can answer alone\"}\n",
        ),
    ] {
        let (status, answer) = ask(proxy.addr(), &text);
        assert!(status == 400 && answer.contains(beyond) && answer.ends_with(end), "{status} {answer}");
    }
}

#[test]
fn a_deep_query_is_answered_by_several_when_the_only_one_that_could_alone_is_gone() {
    let mut servers: Vec<_> = (0..3).map(|_| Influxd::start().unwrap()).collect();
    let url = |index: usize| servers[index].url();
    let proxy = support::start(&ProxyConfig::new(&[vec![url(0)], vec![url(1), url(2)]]));
    let post = |target: &str, body: String| {
        let form = "Content-Type: application/x-www-form-urlencoded";
        let reply = Client::connect(proxy.addr()).unwrap().request("POST", target, &[form], body.as_bytes()).unwrap();
        (reply.status, reply.text())
    };
    assert_eq!(post("/query", "q=CREATE DATABASE db".into()).0, 200);
    let names: Vec<_> = (0..20).map(|n| format!("m{n}")).collect();
    let lines: Vec<_> = names.iter().map(|name| format!("{name},h=a v=1i 1")).collect();
    assert_eq!(post("/write?db=db&consistency=all", lines.join("\n")).0, 204);
    let ask = |depth: usize| {
        let (open, close) = ("(".repeat(depth), ")".repeat(depth));
        let text = format!("SELECT v FROM {} WHERE {open}h = 'a'{close}", names.join(","));
        post("/query?db=db", format!("q={}", url_encoded(&text)))
    };
    let depths = [1, 200, 900];
    let want = depths.map(ask);
    assert!(want.iter().all(|(status, text)| *status == 200 && text.contains("\"m19\"")), "{want:?}");
    servers[0].kill();
    assert_eq!(depths.map(ask), want);
    // Several backends do not take it. It is not the query's fault.
    let (status, text) = ask(1_500);
    assert!(status == 503 && text.contains("no backend could answer: influxdb-1-1: "), "{status} {text}");
}

#[test]
fn clients_are_told_the_lowest_version_of_the_backends_that_are_up() {
    let (mut older, newer) = (Influxd::start().unwrap(), StandIn::start("127.0.0.1:0".parse().unwrap()).unwrap());
    let config = ProxyConfig::new(&[vec![older.url()], vec![newer.url()]]);
    let named = |proxy: &Proxy, target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let answer = exchange(proxy.addr(), request.as_bytes()).unwrap();
        let ours = concat!("\r\nX-Fluxgate-Version: ", env!("CARGO_PKG_VERSION"), "\r\n");
        assert!(answer.contains(ours), "{answer}");
        let version = answer.split_once("\r\nX-Influxdb-Version: ").unwrap().1.lines().next().unwrap().to_owned();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert!(body.is_empty() || body == format!("{{\"version\":\"{version}\"}}\n"), "{answer}");
        version
    };
    let proxy = support::start(&config);
    assert_eq!(named(&proxy, "/ping"), "1.6.7");
    assert_eq!(named(&proxy, "/ping?verbose=true"), "1.6.7");
    older.kill();
    let patience = Duration::from_secs(20);
    assert!(eventually(patience, || named(&proxy, "/ping?verbose=true") == VERSION));
    assert_eq!(named(&proxy, "/ping"), VERSION, "the prepared answer follows");
    older.restart().unwrap();
    assert!(eventually(patience, || named(&proxy, "/ping") == "1.6.7"));

    let proxy = support::start(&config.set("influxdb_version", "1.8.99-mine"));
    assert_eq!(named(&proxy, "/ping"), "1.8.99-mine");
    assert_eq!(named(&proxy, "/ping?verbose=true"), "1.8.99-mine");
}

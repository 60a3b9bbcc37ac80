//! The same requests to a real server and through the proxy in front of it: the same answers, byte for byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};

use crate::support::start;

/// A circle of one server with data, and the proxy in front of it.
fn server_and_proxy(extra: impl FnOnce(ProxyConfig) -> ProxyConfig) -> (Influxd, Proxy) {
    let influxd = Influxd::start().unwrap();
    influxd.create_database("db").unwrap();
    influxd.query("", "CREATE RETENTION POLICY rp ON db DURATION INF REPLICATION 1").unwrap();
    let mut client = Client::connect(influxd.addr()).unwrap();
    let lines: String = (0..50u32)
        .map(|n| format!("cpu,host=h{} usage={n}.5,n={n}i {}\n", n % 3, 1_000_000_000 * u64::from(n)))
        .collect();
    assert_eq!(client.write("db", &lines).unwrap().status, 204);
    assert_eq!(client.request("POST", "/write?db=db&rp=rp", &[], b"cpu usage=7 7").unwrap().status, 204);
    let proxy = start(&extra(ProxyConfig::new(&[vec![influxd.url()]])));
    let ready = || Client::connect(proxy.addr()).unwrap().get("/query?q=SHOW+DATABASES").unwrap().status == 200;
    assert!(eventually(Duration::from_secs(10), ready), "{}", proxy.stderr());
    (influxd, proxy)
}

/// What must be equal.
fn essence(reply: &Reply) -> (u16, Vec<Option<String>>, Vec<u8>) {
    let header = |name: &&str| reply.header(name).map(str::to_owned);
    let headers = ["Content-Type", "Content-Encoding", "X-Influxdb-Error", "Request-Id", "Access-Control-Allow-Origin"];
    let skip_id = |(name, value): (&str, Option<String>)| {
        if name == "Request-Id" { value.filter(|id| id == "mine") } else { value }
    };
    let headers = headers.iter().map(|name| skip_id((name, header(name)))).collect();
    (reply.status, headers, reply.body.clone())
}

fn ask(addr: SocketAddr, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
    let reply = Client::connect(addr).unwrap().request(method, target, headers, body.as_bytes());
    reply.unwrap_or_else(|error| panic!("{addr}: {method} {target} {headers:?} {body}: {error}"))
}

#[track_caller]
fn same(influxd: &Influxd, proxy: &Proxy, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
    let direct = ask(influxd.addr(), method, target, headers, body);
    let through = ask(proxy.addr(), method, target, headers, body);
    let (a, b) = (essence(&direct), essence(&through));
    assert!(
        a == b,
        "{method} {target} {headers:?} {body}\ndirect {a:?}\n{}\nthrough {b:?}\n{}",
        direct.text(),
        through.text()
    );
    through
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded; charset=utf-8";
const PARTS: &str = "Content-Type: multipart/form-data; boundary=B";

#[test]
fn every_form_of_a_request_is_answered_as_by_influxdb() {
    let (influxd, proxy) = server_and_proxy(|config| config);
    let target = |q: &str, more: &str| format!("/query?db=db&q={}{more}", url_encoded(q));
    let all = "SELECT * FROM cpu";
    for (q, more, headers) in [
        (all, "", &[][..]),
        (all, "&pretty=true", &[]),
        (all, "&epoch=ms", &[]),
        (all, "&epoch=x", &[]),
        (all, "&chunked=true&chunk_size=7", &[]),
        (all, "&chunked=true&chunk_size=x", &[]),
        (all, "&chunked=TRUE&chunk_size=7", &[]),
        (all, "&rp=rp", &[]),
        (all, "", &["Accept: text/csv"]),
        (all, "&epoch=s", &["Accept: application/csv"]),
        (all, "", &["Accept: application/x-msgpack"]),
        (all, "", &["Accept: text/csv, */*"]),
        (all, "", &["Accept-Encoding: gzip"]),
        (all, "&chunked=true", &["Accept-Encoding: deflate, gzip;q=0", "Accept: text/csv"]),
        (all, "", &["X-Request-Id: mine", "Origin: http://o"]),
        (
            "SELECT mean(usage) FROM cpu WHERE host = $h AND time < 60s GROUP BY time(10s)",
            "&params=%7B%22h%22%3A%22h1%22%7D",
            &[],
        ),
        ("SELECT count(n) FROM $m", "&params=%7B%22m%22%3A%7B%22identifier%22%3A%22cpu%22%7D%7D", &[]),
        ("SELECT count(n) FROM /c.*/ GROUP BY host", "", &[]),
        ("SELECT max(m) FROM (SELECT mean(usage) AS m FROM cpu GROUP BY host)", "", &[]),
        ("SELECT nosuch(n) FROM cpu; SELECT n FROM cpu LIMIT 1", "", &[]),
        ("SELECT n FROM nosuch", "", &[]),
        ("SELECT n FROM nosuch..cpu", "", &[]),
        ("SHOW MEASUREMENTS; SHOW TAG KEYS; SHOW FIELD KEYS FROM cpu", "", &[]),
        ("SHOW TAG VALUES WITH KEY = host", "", &[]),
        ("SHOW RETENTION POLICIES", "", &[]),
        ("EXPLAIN SELECT n FROM cpu", "", &[]),
        (";", "", &[]),
        (";", "&chunked=true", &[]),
        (";", "", &["Accept: text/csv"]),
        (";", "", &["Accept: application/x-msgpack"]),
        (all, "&async=true", &[]),
    ] {
        same(&influxd, &proxy, "GET", &target(q, more), headers, "");
        same(&influxd, &proxy, "POST", &target(q, more), headers, "");
    }
    let through = ask(proxy.addr(), "GET", &target(all, ""), &[], "");
    assert_eq!(through.header("X-Influxdb-Build"), Some("fluxgate"));
    let versions = |reply: &Reply| String::from_utf8_lossy(&reply.raw).matches("X-Influxdb-Version").count();
    assert_eq!(versions(&through), 1);
}

#[test]
fn parameters_are_found_where_influxdb_finds_them() {
    let (influxd, proxy) = server_and_proxy(|config| config);
    let part =
        |name: &str, value: &str| format!("--B\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n");
    let file = part("\"q\"; filename=\"f.sql\"", " SELECT n FROM cpu LIMIT 2\n");
    let select = part("q", "SELECT n FROM cpu LIMIT 1");
    for (target, header, body) in [
        ("/query", FORM, "db=db&q=SELECT+n+FROM+cpu+LIMIT+1&epoch=s".to_owned()),
        ("/query?db=nosuch", FORM, "db=db&q=SELECT+n+FROM+cpu+LIMIT+1".to_owned()),
        ("/query?db=db&q=SELECT+n+FROM+cpu", FORM, "q=".to_owned()),
        ("/query?db=db", PARTS, format!("{select}--B--\r\n")),
        ("/query?db=nosuch", PARTS, format!("{}{select}--B--\r\n", part("db", "db"))),
        ("/query", PARTS, format!("{}{file}--B--\r\n", part("\"db\"", "db"))),
        ("/query?db=db", PARTS, format!("{file}{select}--B--\r\n")),
        ("/query?db=db", PARTS, select.clone()),
        ("/query?db=db", "Content-Type: text/plain", "q=SELECT+n+FROM+cpu".to_owned()),
        ("/query?db=db", "Content-Type: application/json", "{\"q\":\"SELECT n FROM cpu\"}".to_owned()),
    ] {
        same(&influxd, &proxy, "POST", target, &[header], &body);
    }
    same(&influxd, &proxy, "GET", "/query?db=db", &[FORM], "q=SELECT+n+FROM+cpu");
}

#[test]
fn errors_are_influxdbs_own() {
    let (influxd, proxy) = server_and_proxy(|config| config);
    for (target, headers) in [
        ("/query", &[][..]),
        ("/query?q=+", &["Accept: text/csv"]),
        ("/query?pretty=true", &[]),
        ("/query?q=nonsense", &[]),
        ("/query?q=nonsense&pretty=true", &["Accept-Encoding: gzip"]),
        ("/query?q=nonsense&async=true", &[]),
        ("/query?q=SELECT+*+FROM", &["Accept: text/csv"]),
        ("/query?q=SELECT+*+FROM+cpu;SHOW", &["Accept: application/x-msgpack"]),
        ("/query?q=SELECT+*+FROM+cpu%3BSHOW", &[]),
        ("/query?q=SELECT+%24x+FROM+cpu", &[]),
        ("/query?q=SELECT+n+FROM+cpu&params=x", &[]),
        ("/query?q=SELECT+n+FROM+cpu&params=%7B%22h%22%3A1e3%7D", &[]),
    ] {
        let reply = same(&influxd, &proxy, "GET", target, headers, "");
        assert_eq!(reply.status, 400, "{target}");
    }
}

#[test]
fn other_methods_are_answered_as_by_influxdb() {
    let (influxd, proxy) = server_and_proxy(|config| config);
    for method in ["PUT", "DELETE", "PATCH"] {
        let reply = same(&influxd, &proxy, method, "/query?q=SHOW+DATABASES&pretty=true", &["Origin: http://o"], "");
        assert_eq!((reply.status, reply.header("Allow").map(|allow| allow.split(", ").count())), (405, Some(3)));
    }
    let reply = same(&influxd, &proxy, "OPTIONS", "/query", &["Origin: http://o"], "");
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    let head = |addr: SocketAddr| {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(b"HEAD /query?q=SHOW+DATABASES HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.ends_with("\r\n\r\n"), "{text}");
    };
    head(influxd.addr());
    head(proxy.addr());
}

#[test]
fn a_text_with_an_error_that_might_change_something_is_sent_nowhere() {
    let (_influxd, proxy) = server_and_proxy(|config| config);
    let reply = ask(proxy.addr(), "GET", "/query?q=DROP+DATABASE+db+nonsense", &[], "");
    assert_eq!(reply.status, 400);
    assert!(reply.text().starts_with("{\"error\":\"error parsing query: "), "{}", reply.text());
    let reply = ask(proxy.addr(), "GET", "/query?q=SELECT+n%00+FROM+cpu", &[], "");
    assert_eq!((reply.status, reply.text()), (400, "{\"error\":\"parameter q has a NUL byte\"}\n".into()));
}

#[test]
fn databases_beyond_the_list_are_forbidden_wherever_they_are_named() {
    let (_influxd, proxy) = server_and_proxy(|config| config.set("db_list", vec!["db", "other"]));
    for (target, forbidden) in [
        ("/query?db=db&q=SELECT+n+FROM+cpu+LIMIT+1", false),
        ("/query?q=SHOW+DATABASES", false),
        ("/query?db=db9&q=SHOW+MEASUREMENTS", true),
        ("/query?db=db&q=SELECT+n+FROM+db9..cpu", true),
        ("/query?db=db&q=SELECT+n+FROM+(SELECT+n+FROM+db9.autogen.cpu)", true),
        ("/query?db=db&q=SHOW+MEASUREMENTS+ON+db9", true),
        ("/query?db=db&q=SHOW+DATABASES%3BDROP+DATABASE+db9", true),
    ] {
        let reply = ask(proxy.addr(), "POST", target, &[], "");
        if forbidden {
            assert_eq!(
                (reply.status, reply.text()),
                (400, "{\"error\":\"database forbidden: db9\"}\n".into()),
                "{target}"
            );
        } else {
            assert_eq!(reply.status, 200, "{target}");
        }
    }
}

#[test]
fn what_belongs_to_single_servers_is_refused_with_the_reason() {
    let (_influxd, proxy) = server_and_proxy(|config| config);
    for (q, words) in [
        ("CREATE USER u WITH PASSWORD 'secret'", "query forbidden: CREATE USER: "),
        ("SELECT n FROM cpu; KILL QUERY 1", "query forbidden: KILL QUERY: "),
        ("SHOW USERS", "query forbidden: SHOW USERS: "),
    ] {
        let reply = ask(proxy.addr(), "POST", &format!("/query?db=db&q={}", url_encoded(q)), &[], "");
        assert!(reply.status == 400 && reply.text().contains(words), "{q}: {}", reply.text());
        assert!(!reply.text().contains("secret"));
    }
}

#[test]
fn the_proxys_user_is_asked_for() {
    let user = |config: ProxyConfig| config.set("username", "admin").set("password", "s3cr&t");
    let influxd = match Influxd::start() {
        Ok(influxd) => influxd,
        Err(_) => return,
    };
    let proxy = start(&user(ProxyConfig::new(&[vec![influxd.url()]])));
    for (method, target, headers, status) in [
        ("GET", "/query?q=SHOW+DATABASES", &[][..], 401),
        ("GET", "/query?q=SHOW+DATABASES&u=admin&p=s3cr%26t", &[], 200),
        ("GET", "/query?q=SHOW+DATABASES&u=admin&p=wrong", &[], 401),
        ("GET", "/query?q=SHOW+DATABASES", &["Authorization: Basic YWRtaW46czNjciZ0"], 200),
        ("GET", "/query?q=SHOW+DATABASES", &["Authorization: Token admin:s3cr&t"], 200),
        ("GET", "/query?q=SHOW+DATABASES", &["Authorization: Token admin:wrong"], 401),
        ("PUT", "/query?q=SHOW+DATABASES", &[], 405),
        ("OPTIONS", "/query", &[], 200),
    ] {
        let asked = || ask(proxy.addr(), method, target, headers, "");
        // The server may not be known to be up yet.
        assert!(eventually(Duration::from_secs(10), || asked().status != 503), "{target}");
        let reply = asked();
        assert_eq!(reply.status, status, "{method} {target} {headers:?} {}", reply.text());
        if status == 401 {
            assert_eq!(reply.text(), "{\"error\":\"authentication failed\"}\n");
        }
    }
}

#[test]
fn each_measurement_is_read_where_it_was_written() {
    let (Ok(first), Ok(second)) = (Influxd::start(), Influxd::start()) else { return };
    first.create_database("db").unwrap();
    second.create_database("db").unwrap();
    let proxy = start(&ProxyConfig::new(&[vec![first.url(), second.url()]]));
    let lines: String = (0..20).map(|n| format!("m{n} n={n}i 1\n")).collect();
    assert_eq!(Client::connect(proxy.addr()).unwrap().write("db", &lines).unwrap().status, 204);
    for n in 0..20 {
        let target = format!("/query?db=db&epoch=s&q=SELECT+n+FROM+m{n}");
        let found = || ask(proxy.addr(), "GET", &target, &[], "").text().contains(&format!("[[0,{n}]]"));
        assert!(eventually(Duration::from_secs(10), found), "m{n}");
    }
    let held = [first.points("db").unwrap(), second.points("db").unwrap()];
    assert!(held[0] > 0 && held[1] > 0 && held[0] + held[1] == 20, "{held:?}");
}

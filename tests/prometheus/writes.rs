//! Write requests: those that InfluxDB takes, those that it refuses, those that only fluxgate refuses, and the largest.

use std::collections::BTreeMap;
use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::ProxyConfig;
use serde_json::Value;

use crate::messages::{Series, field, snappy, varint, write_request};
use crate::{Both, support};

const PATH: &str = "/api/v1/prom/write";
const TIME: i64 = 1_700_000_000_000;

fn up(labels: &[(&str, &str)], value: f64) -> Series {
    Series::new(&[&[("__name__", "up")], labels].concat(), &[(value, TIME)])
}

/// What must be equal of two answers.
fn told(reply: &Reply) -> (u16, Option<String>, Option<String>, String) {
    let header = |name| reply.header(name).map(str::to_owned);
    let body = match serde_json::from_slice::<Value>(&reply.body) {
        Ok(body) => body["error"].to_string(),
        Err(_) => reply.text(),
    };
    (reply.status, header("X-Influxdb-Error"), header("Allow"), body)
}

/// Requests whose answers and points must be the same: name, parameters besides the database, body.
fn same() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let packed = |series: &[Series]| snappy(&write_request(series));
    let one = |labels: &[(&str, &str)]| packed(&[Series::new(labels, &[(1.5, TIME)])]);
    let valued = |value: f64| packed(&[up(&[], value)]);
    let timed = |time: i64| packed(&[Series::new(&[("__name__", "up")], &[(1.5, time)])]);
    let raw = |bytes: &[u8]| snappy(bytes);
    let long = |len: usize| packed(&[up(&[("a", &"x".repeat(len))], 1.5), up(&[], 1.0)]);
    let good = packed(&[up(&[("job", "a")], 1.5)]);
    let infinite = packed(&[up(&[], f64::INFINITY), up(&[("b", "c")], 1.0)]);
    vec![
        ("plain", "", good.clone()),
        ("no name", "", one(&[("job", "a")])),
        ("no label", "", one(&[])),
        ("empty label", "", one(&[("__name__", "up"), ("job", "")])),
        ("label twice", "", one(&[("__name__", "up"), ("job", "x"), ("job", "y")])),
        ("label twice, then empty", "", one(&[("__name__", "up"), ("job", "x"), ("job", "")])),
        ("name last and twice", "", one(&[("job", "a"), ("__name__", "b"), ("__name__", "c")])),
        ("not sorted", "", one(&[("z", "1"), ("a", "2"), ("__name__", "up")])),
        ("escapes", "", one(&[("__name__", "up"), ("a b", "c d"), ("p,q", "r=s"), ("x=y", "t\\,u\\\\v")])),
        ("name with a comma", "", one(&[("__name__", "u,p=x"), ("job", "a")])),
        ("name with a backslash", "", one(&[("__name__", "u\\,p"), ("job", "a")])),
        ("name with a blank", "", one(&[("__name__", " up"), ("job", "a")])),
        ("quotes and control bytes", "", one(&[("__name__", "up"), ("a", "\"c\""), ("b", "\tx\0y\r")])),
        ("system tags", "", one(&[("__name__", "up"), ("_field", "a"), ("_measurement", "x")])),
        ("not ascii", "", one(&[("__name__", "\u{4e2d}"), ("\u{e9}", "\u{1f600}")])),
        ("NaN", "", packed(&[up(&[], f64::NAN), up(&[("b", "c")], 1.0)])),
        ("only NaN", "", valued(f64::NAN)),
        ("infinite", "", infinite.clone()),
        ("minus infinite", "", valued(f64::NEG_INFINITY)),
        ("minus zero", "", valued(-0.0)),
        ("largest", "", valued(f64::MAX)),
        ("smallest", "", valued(5e-324)),
        ("a third", "", valued(1.0 / 3.0)),
        ("1e21", "", valued(1e21)),
        ("before 1970", "", timed(-5)),
        ("in 1970", "", timed(0)),
        ("last time", "", timed(9_223_372_036_854)),
        ("time behind it", "", timed(9_223_372_036_855)),
        ("first time", "", timed(-9_223_372_036_854)),
        ("time before it", "", timed(-9_223_372_036_855)),
        ("time that cannot be", "", timed(1 << 57)),
        ("largest number as time", "", timed(i64::MAX)),
        ("longest key", "", long(65_509)),
        ("too long a key", "", long(65_510)),
        ("empty message", "", raw(b"")),
        ("series without samples", "", raw(&field(1, b""))),
        ("empty sample", "", raw(&field(1, &field(2, b"")))),
        ("samples before labels", "", {
            let [labels, samples] = [Series::new(&[("__name__", "late")], &[]), Series::new(&[], &[(7.0, TIME)])]
                .map(|s| write_request(&[s]));
            raw(&field(1, &[&samples[2..], &labels[2..]].concat()))
        }),
        ("unknown fields", "", raw(b"\x12\x01a\x18\x05\x25abcd\x29abcdefgh\x1b\x08\x01\x1c")),
        ("no body", "", Vec::new()),
        ("not snappy", "", b"hello".to_vec()),
        ("lines", "", b"cpu value=1".to_vec()),
        ("damaged", "", good[..good.len() - 1].to_vec()),
        ("not protobuf", "", raw(b"\xff\xff\xff\xff")),
        ("wrong type", "", raw(b"\x08\x01")),
        ("end of a group", "", raw(b"\x0c")),
        ("tag 0", "", raw(b"\0\0")),
        ("cut", "", raw(b"\x0a\x05ab")),
        ("negative length", "", raw(&[vec![0x0a], varint(u64::MAX)].concat())),
        ("too many bytes", "", raw(&[&b"\x0a"[..], &[0xff; 11]].concat())),
        ("unknown type", "", raw(b"\x16")),
        ("bad label", "", raw(&field(1, &field(1, b"\x08\x01")))),
        ("bad sample", "", raw(&field(1, &field(2, b"\x11abcdefgh")))),
        ("policy", "&rp=other", good.clone()),
        ("no such policy", "&rp=nope", good.clone()),
        ("no such policy, no point", "&rp=nope", raw(b"")),
        ("level", "&consistency=ALL", good.clone()),
        ("no such level", "&consistency=some&rp=nope", good.clone()),
        ("no such level, no point", "&consistency=some", raw(b"")),
        ("no such level and infinite", "&consistency=some&rp=nope", infinite),
        ("precision means nothing", "&precision=x", good.clone()),
        ("refused by the storage", "&consistency=all", packed(&[up(&[("time", "a")], 1.5), up(&[("b", "c")], 1.0)])),
    ]
}

#[test]
fn a_remote_write_through_the_proxy_is_a_remote_write_to_influxdb() {
    let both = Both::start();
    let mut wrong = Vec::new();
    let cases = same();
    let mut statuses = BTreeMap::new();
    for (number, (name, params, body)) in cases.iter().enumerate() {
        let db = format!("db{number}");
        both.query("", &format!("CREATE DATABASE {db}"));
        both.query("", &format!("CREATE RETENTION POLICY other ON {db} DURATION INF REPLICATION 1"));
        let headers = ["Content-Encoding: snappy", "X-Prometheus-Remote-Write-Version: 0.1.0"];
        let [plain, proxy] = both.post(&format!("{PATH}?db={db}{params}"), &headers, body);
        if told(&plain) != told(&proxy) {
            wrong.push(format!("{name}: {:?}, influxd {:?}", told(&proxy), told(&plain)));
        }
        *statuses.entry(plain.status).or_insert(0) += 1;
    }
    for number in 0..cases.len() {
        both.contents(&format!("db{number}"));
    }
    let good = &cases[0].2;
    let headers = ["Content-Encoding: gzip"];
    for (method, target) in [
        ("POST", PATH.to_owned()),
        ("POST", format!("{PATH}?db=")),
        ("POST", format!("{PATH}?db=nowhere")),
        ("POST", format!("{PATH}?db=db0")),
        ("POST", format!("{PATH}/?db=db0")),
        ("GET", format!("{PATH}?db=db0")),
        ("PUT", format!("{PATH}?db=db0")),
        ("OPTIONS", format!("{PATH}?db=db0")),
    ] {
        let [plain, proxy] = [both.plain.addr(), both.proxy.addr()]
            .map(|addr| told(&Client::connect(addr).unwrap().request(method, &target, &headers, good).unwrap()));
        if plain != proxy {
            wrong.push(format!("{method} {target}: {proxy:?}, influxd {plain:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(statuses[&204] > 30 && statuses[&400] > 20 && statuses[&500] == 2, "{statuses:?}");
}

/// A small generator: the same requests in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.roll(all.len())]
    }
}

#[test]
fn generated_requests_leave_the_same_points() {
    let both = Both::start();
    both.query("", "CREATE DATABASE gen");
    let mut dice = Dice(7);
    let names = ["up", "http_requests_total", "go_gc", "a:b:c", "x y", "m,n"];
    let labels = ["job", "le", "path", "instance", "z z", "__meta"];
    let values = ["", "a", "0.5", "+Inf", "/api/v1?q=1,2", "C:\\x", "é", "a\\ b", "\"", "10.0.0.1:9090"];
    let mut taken = 0;
    for _ in 0..300 {
        let series: Vec<_> = (0..dice.roll(6))
            .map(|_| {
                let mut of = vec![("__name__", dice.pick(&names))];
                of.extend((0..dice.roll(5)).map(|_| (dice.pick(&labels), dice.pick(&values))));
                if dice.roll(4) == 0 {
                    of.reverse();
                }
                let samples: Vec<_> = (0..dice.roll(4))
                    .map(|_| {
                        let value = match dice.roll(60) {
                            0 => f64::INFINITY,
                            1..6 => f64::NAN,
                            6..30 => dice.roll(1000) as f64,
                            _ => f64::from_bits((dice.roll(1 << 30) as u64) << 33 | dice.roll(1 << 30) as u64),
                        };
                        (value, TIME + dice.roll(1_000_000) as i64)
                    })
                    .collect();
                Series::new(&of, &samples)
            })
            .collect();
        let answers = both.post(&format!("{PATH}?db=gen"), &[], &snappy(&write_request(&series)));
        assert_eq!(told(&answers[0]), told(&answers[1]), "{series:?}");
        taken += usize::from(answers[0].status == 204);
    }
    assert!((150..300).contains(&taken), "{taken} of 300");
    assert!(both.contents("gen").len() > 10_000);
}

#[test]
fn what_no_line_can_hold_is_refused_and_the_rest_is_kept() {
    let both = Both::start();
    both.query("", "CREATE DATABASE db");
    for labels in [
        &[("a", "c\nd")][..],
        &[("a", "c value=1 1\nup")],
        &[("a", "c\\")],
        &[("a", "c\\"), ("b", "d")],
        &[("", "x")],
        &[("__name__", "")],
        &[("__name__", "#up")],
        &[("__name__", "\tup")],
        &[("__name__", "u\np")],
    ] {
        let bad = Series { samples: vec![(1.0, TIME), (f64::NAN, TIME + 1), (2.0, TIME + 2)], ..up(labels, 1.0) };
        let good = |n: &str| up(&[("good", n)], 1.0);
        let body = snappy(&write_request(&[good("1"), bad.clone(), good("2")]));
        let reply = Client::connect(both.proxy.addr()).unwrap().request("POST", &format!("{PATH}?db=db"), &[], &body);
        let reply = reply.unwrap();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        let text = answer["error"].as_str().unwrap();
        assert!(reply.status == 400 && text.starts_with("partial write: unable to write '"), "{labels:?}: {answer}");
        assert_eq!((&answer["refused"]["total"], &answer["refused"]["lines"][0]["line"]), (&2.into(), &2.into()));
        let alone = snappy(&write_request(&[bad]));
        let [plain, proxy] = both.post(&format!("{PATH}?db=db"), &[], &alone).map(|reply| reply.status);
        assert_eq!((plain, proxy), (204, 400), "{labels:?}: InfluxDB takes it");
    }
    both.proxy.drained(Duration::from_secs(20)).unwrap();
    for circle in &both.circles {
        let counted = circle.iter().map(|server| server.query("db", "SELECT count(value) FROM /.*/").unwrap());
        let counts: Vec<_> = counted.map(|answer| answer["results"][0]["series"][0]["values"][0][1].clone()).collect();
        assert!(counts.contains(&2.into()) && counts.contains(&Value::Null), "only what is good: {counts:?}");
    }
}

#[test]
fn large_requests_are_taken_whole_and_larger_ones_refused() {
    let server = Influxd::start().unwrap();
    server.create_database("db").unwrap();
    let proxy = support::start(&ProxyConfig::new(&[vec![server.url()]]));
    let post = |body: &[u8]| {
        let reply = Client::connect(proxy.addr()).unwrap().request("POST", &format!("{PATH}?db=db"), &[], body);
        reply.unwrap().status
    };
    // Some 24 MB of lines, from a body of 70 kB; and a request of many series.
    let label = "x".repeat(1000);
    let long = Series::new(&[("__name__", "long"), ("a", &label)], &[]);
    let long = Series { samples: (0..20_000).map(|n| (1.0, TIME + n)).collect(), ..long };
    let many: Vec<_> = (0..30_000)
        .map(|n| Series::new(&[("__name__", "many"), ("n", &(n % 1000).to_string())], &[(n as f64, TIME + n)]))
        .collect();
    assert_eq!(post(&snappy(&write_request(std::slice::from_ref(&long)))), 204);
    assert_eq!(post(&snappy(&write_request(&many))), 204);
    // Then too many lines, more than it may be, and lies about the length.
    let too_many = Series { samples: long.samples.iter().cycle().take(80_000).copied().collect(), ..long };
    assert_eq!(post(&snappy(&write_request(&[too_many]))), 413);
    assert_eq!(post(&snappy(&vec![0x12; 13 << 20])), 413);
    assert_eq!(post(b"\xff\xff\xff\xff\x0f"), 413);
    assert_eq!(post(&vec![0; 13 << 20]), 413);
    assert_eq!(post(b"\x80\x80\x80\x05"), 400, "less than it says");
    assert_eq!(proxy.drained(Duration::from_secs(60)).unwrap().totals.accepted, 50_000);
    let answer = server.query("db", "SELECT count(value) FROM long, many").unwrap();
    let count = |n: usize| answer["results"][0]["series"][n]["values"][0][1].as_u64();
    assert_eq!((count(0), count(1)), (Some(20_000), Some(30_000)), "{answer}");

    let proxy =
        support::start(&ProxyConfig::new(&[vec![server.url()]]).set("max_body_bytes", 100).set("username", "u"));
    for (target, status) in [("", 401), ("&u=u&p=", 413), ("&u=u&p=x", 401)] {
        let body = snappy(&write_request(&many[..20]));
        let target = format!("{PATH}?db=db{target}");
        let reply = Client::connect(proxy.addr()).unwrap().request("POST", &target, &[], &body).unwrap();
        assert_eq!(reply.status, status, "{target}");
    }
}

//! Read requests: one measurement and many, with a backend down, with data that is read from another backend, and those
//! that InfluxDB refuses.

use std::time::Duration;

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::proxy::eventually;

use crate::Both;
use crate::messages::{Matcher, Series, answered, field, read_request, snappy, write_request};

const PATH: &str = "/api/v1/prom/read";
const TIME: i64 = 1_700_000_000_000;

/// What must be equal of two answers: the series of one, or the error.
fn told(reply: &Reply) -> (u16, Vec<Series>, String) {
    match reply.status {
        200 => {
            let fields = [reply.header("Content-Type"), reply.header("Content-Encoding")];
            assert_eq!(fields, [Some("application/x-protobuf"), Some("snappy")]);
            (200, answered(&reply.body), String::new())
        }
        status => (status, Vec::new(), reply.text()),
    }
}

/// Twelve measurements with three series each, in both.
fn filled() -> Both {
    fill(Both::start())
}

fn fill(both: Both) -> Both {
    both.query("", "CREATE DATABASE db");
    both.query("", "CREATE RETENTION POLICY other ON db DURATION INF REPLICATION 1");
    let names = ["up", "a", "ab", "b", "c:d", "go_gc", "http_total", "http_errors", "le", "x.y", "z_1", "z_2"];
    let mut all = Vec::new();
    for (n, name) in names.iter().enumerate() {
        for job in ["x", "y", ""] {
            let labels = [("__name__", *name), ("job", job), ("n", if n % 2 == 0 { "even" } else { "odd, 1" })];
            let samples: Vec<_> = (0..50).map(|t| (n as f64 + t as f64 / 7.0, TIME + 1000 * t)).collect();
            all.push(Series::new(&labels, &samples));
        }
    }
    let body = snappy(&write_request(&all));
    for target in ["db=db", "db=db&rp=other"] {
        let statuses = both.post(&format!("/api/v1/prom/write?{target}"), &[], &body).map(|reply| reply.status);
        assert_eq!(statuses, [204, 204]);
    }
    both.proxy.drained(Duration::from_secs(30)).unwrap();
    both
}

const ALL: (i64, i64) = (0, TIME * 2);

fn same_series(both: &Both) {
    let reads: &[&[Matcher<'_>]] = &[
        &[(0, "__name__", "up")],
        &[(0, "__name__", "up"), (0, "job", "x")],
        &[(0, "__name__", "up"), (1, "job", "x")],
        &[(0, "__name__", "up"), (2, "job", "x|y"), (3, "n", "odd")],
        &[(0, "job", "y"), (0, "__name__", "x.y")],
        &[(0, "__name__", "nope")],
        &[(0, "__name__", "")],
        &[(0, "__name__", "a"), (0, "__name__", "b")],
        &[(1, "__name__", "up")],
        &[(2, "__name__", "http_.*")],
        &[(2, "__name__", "^(?:a|z_1|up)$")],
        &[(2, "__name__", "a"), (1, "__name__", "ab"), (0, "job", "x")],
        &[(3, "__name__", "_|a")],
        &[(3, "__name__", ".*")],
        &[(0, "job", "x")],
        &[(2, "job", ".*")],
        &[(2, "job", ".+"), (0, "n", "odd, 1")],
        &[(0, "nope", "x")],
        &[(1, "job", "x")],
        &[(1, "job", "")],
        &[(0, "job", "")],
        &[(1, "nope", "x")],
        &[(3, "job", "x")],
        &[(3, "job", "^$")],
        &[(3, "nope", ".+")],
        &[(2, "job", "^$"), (1, "n", "even")],
        &[(1, "__name__", "up"), (1, "job", "x")],
        &[(1, "__name__", "")],
        &[(0, "__name__", ""), (0, "job", "x")],
    ];
    let mut failed = 0;
    for matchers in reads {
        for (from, to) in [ALL, (TIME + 5000, TIME + 9000), (TIME + 5001, TIME + 5999), (TIME + 100_000, TIME * 2)] {
            for target in ["db=db", "db=db&rp=other", "db=db/other"] {
                let body = snappy(&read_request(from, to, matchers));
                let [plain, proxy] = both.post(&format!("{PATH}?{target}"), &[], &body).map(|reply| told(&reply));
                assert_eq!(plain, proxy, "{target} {matchers:?} {from} {to}");
                assert!(matches!(plain.0, 200 | 500), "{matchers:?}: {plain:?}");
                failed += usize::from(plain.0 == 500);
            }
        }
    }
    // InfluxDB 1.6 fails over a comparison with a label that not all series have.
    assert!((1..reads.len() * 4).contains(&failed), "{failed}");
    let body = snappy(&read_request(ALL.0, ALL.1, &[(2, "job", ".*")]));
    let [plain, _] = both.post(&format!("{PATH}?db=db"), &[], &body);
    assert_eq!(told(&plain).1.len(), 36);
}

#[test]
fn a_remote_read_finds_what_one_influxdb_would_also_with_backends_down() {
    let mut both = filled();
    same_series(&both);
    both.circles[0][0].kill();
    same_series(&both);
    both.circles[1][1].kill();
    let body = snappy(&read_request(ALL.0, ALL.1, &[(2, "job", ".*")]));
    let refused = || {
        let reply = Client::connect(both.proxy.addr()).unwrap().request("POST", &format!("{PATH}?db=db"), &[], &body);
        let reply = reply.unwrap();
        reply.status == 503 && reply.text().contains("no circle can answer")
    };
    assert!(eventually(Duration::from_secs(20), refused), "half of the data is no answer");
}

#[test]
fn a_read_that_one_backend_fails_over_is_answered_as_by_influxdb() {
    let both = fill(Both::of(1));
    let body = snappy(&read_request(ALL.0, ALL.1, &[(1, "job", "x")]));
    let [plain, proxy] = both.post(&format!("{PATH}?db=db"), &[], &body);
    assert_eq!(told(&plain), told(&proxy));
    assert_eq!((plain.status, plain.header("Content-Type")), (500, proxy.header("Content-Type")));
}

#[test]
fn what_a_backend_holds_and_is_not_read_from_it_is_left_out() {
    let both = filled();
    // As a migration leaves it behind: each backend of a circle has the measurements of the other one, too.
    for circle in &both.circles {
        let names: Vec<Vec<String>> = circle
            .iter()
            .map(|server| {
                let answer = server.query("db", "SHOW MEASUREMENTS").unwrap();
                let rows = answer["results"][0]["series"][0]["values"].as_array().unwrap().clone();
                rows.iter().map(|row| row[0].as_str().unwrap().to_owned()).collect()
            })
            .collect();
        assert_eq!(names[0].len() + names[1].len(), 12, "each measurement has one owner");
        for (server, foreign) in [(0, &names[1]), (1, &names[0])] {
            let lines: Vec<_> =
                foreign.iter().map(|name| format!("{name},__name__={name},job=old value=9 {TIME}000000")).collect();
            let written = Client::connect(circle[server].addr()).unwrap().write("db", &lines.join("\n")).unwrap();
            assert_eq!(written.status, 204);
        }
    }
    let matchers: &[Matcher<'_>] = &[(2, "job", ".*")];
    let body = snappy(&read_request(ALL.0, ALL.1, matchers));
    let reply = Client::connect(both.proxy.addr()).unwrap().request("POST", &format!("{PATH}?db=db"), &[], &body);
    let series = told(&reply.unwrap()).1;
    assert_eq!(series.len(), 36, "each series once, and no old one");
    assert!(!series.iter().any(|series| series.labels.contains(&("job".into(), "old".into()))));
}

#[test]
fn what_influxdb_refuses_is_refused_in_its_words() {
    let both = filled();
    let good = read_request(ALL.0, ALL.1, &[(0, "__name__", "up")]);
    let many = read_request(ALL.0, ALL.1, &[(0, "job", "x")]);
    let matching = |kind, value| snappy(&read_request(ALL.0, ALL.1, &[(kind, "job", value)]));
    for (target, body) in [
        ("db=db", snappy(b"")),
        ("db=db", snappy(&good.repeat(2))),
        ("db=db", snappy(&read_request(ALL.0, ALL.1, &[]))),
        ("db=db", matching(7, "x")),
        ("db=db", matching(2, "(")),
        ("db=db", Vec::new()),
        ("db=db", b"hello".to_vec()),
        ("db=db", snappy(b"\x08\x01")),
        ("db=db", snappy(&field(1, b"\x09abcdefgh"))),
        ("db=db", snappy(&field(1, &field(3, b"\x10\x01")))),
        ("", snappy(&good)),
        ("db=nowhere", snappy(&good)),
        ("db=nowhere", snappy(&many)),
        ("db=db&rp=nope", snappy(&good)),
        ("db=db&rp=nope", snappy(&many)),
    ] {
        let [plain, proxy] = both.post(&format!("{PATH}?{target}"), &[], &body).map(|reply| told(&reply));
        assert_eq!(plain, proxy, "{target} {}", body.escape_ascii());
        assert_eq!(plain.0, 400, "{plain:?}");
    }
    for method in ["GET", "PUT", "OPTIONS"] {
        let [plain, proxy] = [both.plain.addr(), both.proxy.addr()].map(|addr| {
            let reply = Client::connect(addr).unwrap().request(method, &format!("{PATH}?db=db"), &[], b"").unwrap();
            (reply.status, reply.header("Allow").map(str::to_owned), reply.text())
        });
        assert_eq!(plain, proxy, "{method}");
    }
    let huge = snappy(&vec![0x12; 1 << 20]);
    let reply = Client::connect(both.proxy.addr()).unwrap().request("POST", &format!("{PATH}?db=db"), &[], &huge);
    assert_eq!(reply.unwrap().status, 413);
}

//! Promise: a statement that changes structure or removes data is carried out everywhere or refused before anything is
//! changed, and is not followed by points that were written before it; SELECT INTO writes what one InfluxDB would.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::{Fault, StandIn};
use serde_json::{Value, json};

/// Two circles, the first one of two backends.
struct TwoCircles {
    servers: [Influxd; 3],
    proxy: Proxy,
}

fn two_circles() -> TwoCircles {
    let servers = std::array::from_fn(|_| Influxd::start().unwrap());
    let [a, b, c] = &servers;
    let config = ProxyConfig::new(&[vec![a.url(), b.url()], vec![c.url()]]).set("workers", 2);
    let proxy = support::start(&config.set("rewrite_interval", 1));
    TwoCircles { servers, proxy }
}

impl TwoCircles {
    fn ask(&self, db: &str, q: &str) -> (u16, Value) {
        query(&self.proxy.url(), db, q)
    }

    /// A statement that must succeed with an empty answer.
    fn run(&self, db: &str, q: &str) {
        assert_eq!(self.ask(db, q), (200, json!({"results": [{"statement_id": 0}]})), "{q}");
    }

    fn write(&self, db: &str, lines: &str) {
        let reply = Client::connect(self.proxy.addr()).unwrap().write(db, lines).unwrap();
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    fn drained(&self) {
        self.proxy.drained(Duration::from_secs(60)).unwrap();
    }

    /// The rows of all backends of a circle for `q`, as text, sorted.
    fn rows(&self, servers: &[Influxd], db: &str, q: &str) -> Vec<String> {
        let mut rows = Vec::new();
        for server in servers {
            let answer = server.query(db, q).unwrap();
            for series in answer["results"][0]["series"].as_array().into_iter().flatten() {
                let head = format!("{} {} {}", series["name"], series["tags"], series["columns"]);
                rows.extend(series["values"].as_array().into_iter().flatten().map(|row| format!("{head} {row}")));
            }
        }
        rows.sort();
        rows
    }
}

fn query(url: &str, db: &str, q: &str) -> (u16, Value) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let answer = agent.post(format!("{url}/query")).send_form([("db", db), ("q", q), ("epoch", "ns")]).unwrap();
    let status = answer.status().as_u16();
    let text = answer.into_body().read_to_string().unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

fn get(url: &str, db: &str, q: &str) -> Value {
    let answer = ureq::get(format!("{url}/query")).query_pairs([("db", db), ("q", q)]).call().unwrap();
    serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap()
}

#[test]
fn a_database_is_there_for_writes_as_soon_as_it_is_created_and_gone_as_soon_as_it_is_dropped() {
    let circles = two_circles();
    circles.run("", "CREATE DATABASE fresh");
    circles.write("fresh", "m v=1 1");
    circles.run("", "CREATE RETENTION POLICY short ON fresh DURATION 2d REPLICATION 1");
    circles.run("", "ALTER RETENTION POLICY short ON fresh DURATION 3d DEFAULT");
    for server in &circles.servers {
        let answer = server.query("fresh", "SHOW RETENTION POLICIES").unwrap();
        let text = answer["results"][0]["series"][0]["values"].to_string();
        assert!(text.contains(r#"["short","72h0m0s","24h0m0s",1,true]"#), "{text}");
    }
    circles.run("", "DROP DATABASE fresh");
    let reply = Client::connect(circles.proxy.addr()).unwrap().write("fresh", "m v=1 2").unwrap();
    assert_eq!(reply.status, 404, "{}", reply.text());
    for server in &circles.servers {
        assert_eq!(server.query("", "SHOW DATABASES").unwrap().to_string().matches("fresh").count(), 0);
    }
    // InfluxDB's own errors.
    let text = |q| circles.ask("", q).1["results"][0]["error"].as_str().map(str::to_owned);
    assert_eq!(
        text("CREATE RETENTION POLICY a ON nowhere DURATION 1d REPLICATION 1").unwrap(),
        "database not found: nowhere"
    );
    assert_eq!(text("DELETE FROM m").unwrap(), "database not found: ");
    assert_eq!(text("DROP DATABASE nowhere"), None);
}

#[test]
fn a_drop_under_writes_is_not_followed_by_older_points_and_replicas_agree() {
    let circles = two_circles();
    let circles = Arc::new(circles);
    circles.run("", "CREATE DATABASE db");
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4u64)
        .map(|w| {
            let (circles, stop, sent) = (circles.clone(), stop.clone(), sent.clone());
            thread::spawn(move || {
                let mut client = Client::connect(circles.proxy.addr()).unwrap();
                let mut acked = 0u64;
                while !stop.load(SeqCst) {
                    let line =
                        |i: u64| format!("{},w={w} n={}i {}\n", ["m", "other"][(i % 2) as usize], acked + i, acked + i);
                    let lines: String = (0..50).map(line).collect();
                    assert_eq!(client.write("db", &lines).unwrap().status, 204);
                    acked += 50;
                    sent.fetch_add(50, SeqCst);
                }
                acked
            })
        })
        .collect();
    for round in 0..5 {
        let enough = sent.load(SeqCst) + 4_000;
        assert!(eventually(Duration::from_secs(60), || sent.load(SeqCst) > enough));
        // One backend answers only after a while, so that there is a backlog.
        circles.servers[round % 3].freeze().unwrap();
        let enough = sent.load(SeqCst) + 2_000;
        assert!(eventually(Duration::from_secs(60), || sent.load(SeqCst) > enough));
        circles.servers[round % 3].thaw().unwrap();
        let (status, answer) = circles.ask("db", if round % 2 == 0 { "DROP MEASUREMENT m" } else { "DELETE FROM m" });
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["results"][0].get("error"), None, "{answer}");
    }
    stop.store(true, SeqCst);
    let acked: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    circles.drained();
    let first = circles.rows(&circles.servers[..2], "db", "SELECT n FROM m GROUP BY w");
    let second = circles.rows(&circles.servers[2..], "db", "SELECT n FROM m GROUP BY w");
    assert_eq!(first, second, "replicas");
    assert!((first.len() as u64) < acked.iter().sum::<u64>() / 2, "something has been dropped");
    let others = circles.rows(&circles.servers[2..], "db", "SELECT count(n) FROM other GROUP BY w");
    let counts: u64 = acked.iter().map(|acked| acked / 2).sum();
    let counted: u64 = others.iter().map(|row| row.rsplit([',', ']']).nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(counted, counts, "nothing of the other measurement: {others:?}");
    // After the last drop each writer's points lie without a gap up to its last one.
    for (w, acked) in acked.iter().enumerate() {
        let tag = format!("{{\"w\":\"{w}\"}}");
        let kept = second.iter().filter(|row| row.contains(&tag)).count() as u64;
        let newest = acked.saturating_sub(2);
        if kept > 0 {
            let oldest = newest - 2 * (kept - 1);
            let rows: Vec<_> = second.iter().filter(|row| row.contains(&tag)).collect();
            assert!(rows.iter().any(|row| row.ends_with(&format!(",{oldest}]"))), "{w}: {oldest}..{newest}: {rows:?}");
        }
    }
}

#[test]
fn with_a_backend_down_nothing_is_changed_and_it_is_named() {
    let mut circles = two_circles();
    circles.run("", "CREATE DATABASE db");
    circles.write("db", "m v=1 1\nn v=1 1");
    circles.drained();
    circles.servers[2].kill();
    for q in ["DROP MEASUREMENT m", "CREATE DATABASE other", "DROP DATABASE db"] {
        let (status, answer) = circles.ask("db", q);
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, 503, "{answer}");
        assert!(error.contains("influxdb-2-1") && error.contains("nothing was changed"), "{error}");
        assert!(!error.contains("influxdb-1-1"), "{error}");
    }
    assert_eq!(circles.rows(&circles.servers[..2], "db", "SELECT * FROM m").len(), 1);
    let databases = circles.servers[0].query("", "SHOW DATABASES").unwrap().to_string();
    assert!(databases.contains(r#"["db"]"#) && !databases.contains("other"), "{databases}");
}

/// The state is saved once a second otherwise, and what was delivered since is delivered again.
#[test]
fn a_kill_right_after_a_drop_brings_nothing_back() {
    let mut circles = two_circles();
    circles.run("", "CREATE DATABASE db");
    for round in 0..5 {
        // New connections, so that both workers have some.
        for n in 0..20 {
            let at = 100 * round + n;
            circles.write("db", &format!("gone,n={n} v=1 {at}\nkept,n={n} v=1 {at}"));
        }
        let q = ["DROP MEASUREMENT gone", "DELETE FROM gone", "DROP SERIES FROM gone"][round % 3];
        circles.run("db", q);
        circles.proxy.restart().unwrap();
        circles.drained();
        let rows = |servers: &[Influxd], q| circles.rows(servers, "db", q).len();
        for servers in [&circles.servers[..2], &circles.servers[2..]] {
            assert_eq!(rows(servers, "SELECT v FROM gone"), 0, "{q}, round {round}");
            assert_eq!(rows(servers, "SELECT v FROM kept"), 20 * (round + 1), "{q}, round {round}");
        }
    }
}

#[test]
fn changes_of_structure_in_a_row_take_the_time_of_the_backends() {
    let circles = two_circles();
    circles.run("", "CREATE DATABASE warm");
    let mut times: Vec<Duration> = (0..20)
        .flat_map(|n| [format!("CREATE DATABASE d{n}"), format!("DROP DATABASE d{n}")])
        .map(|q| {
            let begun = Instant::now();
            circles.run("", &q);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    // Half of them, since other tests keep this machine busy.
    assert!(times[times.len() / 2] < Duration::from_millis(90), "{times:?}");
}

/// Telegraf and others create their database at each start.
#[test]
fn a_creation_that_changes_nothing_succeeds_with_backends_down() {
    let mut circles = two_circles();
    let oracle = Influxd::start().unwrap();
    let week = "CREATE RETENTION POLICY week ON db DURATION 1w REPLICATION 1";
    let declared = ["CREATE DATABASE db", week, "CREATE DATABASE x WITH DURATION 3d REPLICATION 1 NAME days"];
    for q in declared {
        circles.run("", q);
        oracle.query("", q).unwrap();
    }
    circles.servers[2].kill();
    let conflicts = "CREATE RETENTION POLICY week ON db DURATION 2w REPLICATION 1";
    for q in declared.into_iter().chain(declared).chain([conflicts]) {
        assert_eq!(circles.ask("", q), query(&oracle.url(), "", q), "{q}");
    }
    for q in ["CREATE DATABASE y", "CREATE RETENTION POLICY day ON db DURATION 1d REPLICATION 1", "DROP DATABASE db"] {
        let (status, answer) = circles.ask("", q);
        assert_eq!(status, 503, "{q}: {answer}");
        assert!(answer["error"].as_str().unwrap_or_default().contains("influxdb-2-1"), "{q}: {answer}");
    }
    circles.servers[0].kill();
    circles.servers[1].kill();
    circles.run("", "CREATE DATABASE db");
}

#[test]
fn a_removal_that_would_overtake_queued_points_is_refused_and_they_go_on() {
    let (server, slow) = (Influxd::start().unwrap(), StandIn::with_databases(&["db"]).unwrap());
    server.create_database("db").unwrap();
    let config = ProxyConfig::new(&[vec![server.url()], vec![slow.url()]]).set("query_timeout", 4);
    // The backend is up, gets the write, and does not answer.
    let proxy = support::start(&config.set("write_timeout", 60));
    slow.always(Some(Fault::Hang));
    let mut client = Client::connect(proxy.addr()).unwrap();
    assert_eq!(client.write("db", "m v=1 1\n").unwrap().status, 204);
    assert!(eventually(Duration::from_secs(20), || slow.writes() == 1));
    for q in ["DROP MEASUREMENT m", "DELETE FROM m WHERE time < 5", "DROP DATABASE db"] {
        let (status, answer) = query(&proxy.url(), "db", q);
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(status, 503, "{q}: {answer}");
        assert_eq!(error, "earlier points are still queued for influxdb-2-1: nothing was changed", "{q}");
    }
    // No write is held back any more.
    assert_eq!(client.write("db", "m v=2 2\n").unwrap().status, 204);
    let both = || server.query("db", "SELECT count(v) FROM m").unwrap()["results"][0]["series"][0]["values"][0][1] == 2;
    assert!(eventually(Duration::from_secs(20), both), "{:?}", proxy.ledger());
    slow.always(None);
    assert!(eventually(Duration::from_secs(20), || slow.points("db") == 2), "{:?}", proxy.ledger());
}

#[test]
fn a_database_that_is_missing_stops_neither_changes_of_others_nor_their_acks() {
    let here = two_circles();
    for db in ["gone", "db"] {
        here.run("", &format!("CREATE DATABASE {db}"));
        here.write(db, "m v=1 1");
    }
    here.drained();
    here.servers.iter().for_each(|server| drop(server.query("", "DROP DATABASE gone").unwrap()));
    here.write("gone", "m v=2 2\nn v=2 2\no v=2 2");
    let began = Instant::now();
    let mut client = Client::connect(here.proxy.addr()).unwrap();
    for n in 0..5 {
        let ack = client.request("POST", "/write?db=db&consistency=all", &[], format!("m v=3 {}", 10 + n).as_bytes());
        assert_eq!(ack.unwrap().status, 204);
    }
    here.run("db", "CREATE RETENTION POLICY week ON db DURATION 7d REPLICATION 1");
    here.run("db", "DELETE FROM m WHERE time < 10");
    let left = here.rows(&here.servers[2..], "db", "SELECT count(v) FROM m");
    assert_eq!(left, [r#""m" null ["time","count"] ["1970-01-01T00:00:00Z",5]"#]);
    here.run("db", "DROP RETENTION POLICY week ON db");
    here.run("db", "DROP MEASUREMENT m");
    here.run("", "DROP DATABASE db");
    here.run("", "DROP DATABASE never_written");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn delete_by_time_and_series_reaches_every_owner() {
    let circles = two_circles();
    circles.run("", "CREATE DATABASE db");
    let lines: String = (0..20).map(|i| format!("m{i},host=a v=1 1\nm{i},host=b v=1 1\nm{i},host=b v=2\n")).collect();
    circles.write("db", &lines);
    circles.run("db", "DELETE WHERE time < now() - 1h AND host = 'b'");
    circles.run("db", "DROP SERIES FROM m1, /m1./ WHERE host = 'a'");
    for servers in [&circles.servers[..2], &circles.servers[2..]] {
        assert_eq!(circles.rows(servers, "db", "SELECT v FROM /m.*/ WHERE host = 'b'").len(), 20);
        assert_eq!(circles.rows(servers, "db", "SELECT v FROM /m.*/ WHERE host = 'a'").len(), 9);
    }
    let oracle = Influxd::start().unwrap();
    oracle.create_database("db").unwrap();
    oracle.query("db", "DROP MEASUREMENT nosuch").ok();
    for q in [
        "DROP MEASUREMENT nosuch",
        "DELETE FROM m0 WHERE v = 1",
        "DROP SERIES FROM nosuch",
        "DROP SERIES WHERE time > 0",
    ] {
        ureq::post(format!("{}/write?db=db", oracle.url())).send("m0,host=a v=1 1").unwrap();
        let without_numbers = |(status, value): (u16, Value)| {
            (status, value.to_string().chars().filter(|c| !c.is_ascii_digit()).collect::<String>())
        };
        let (here, there) = (circles.ask("db", q), query(&oracle.url(), "db", q));
        assert_eq!(without_numbers(here), without_numbers(there), "{q}");
    }
}

#[test]
fn a_get_that_changes_something_is_warned_of_as_by_influxdb() {
    let circles = two_circles();
    let oracle = Influxd::start().unwrap();
    for url in [circles.proxy.url(), oracle.url()] {
        query(&url, "", "CREATE DATABASE db");
    }
    circles.write("db", "m,host=a v=1 1");
    circles.drained();
    ureq::post(format!("{}/write?db=db", oracle.url())).send("m,host=a v=1 1").unwrap();
    for q in [
        "create database \"made here\" with duration 36h replication 1 shard duration 12h name \"x y\"",
        "create retention policy a on db duration 2d replication 1 shard duration 1d",
        "alter retention policy a on db duration 3d",
        "select v into t from m where host = 'a' and time > 0",
        "select mean(v) as \"from\" into db..:measurement from (select v from autogen.m) where time < 1h group by \
        time(1m), * fill(none)",
        "select v into \"1t\" from \"db\".\"autogen\".\"m\" limit 1",
        "drop retention policy a on db",
        "delete from m where time < 5",
        "drop series from m where host='a'",
        "drop measurement m",
        "drop database \"made here\"",
        "create database bad with name \"x\" ; drop retention policy a on nowhere",
    ] {
        assert_eq!(get(&circles.proxy.url(), "db", q), get(&oracle.url(), "db", q), "{q}");
    }
}

#[test]
fn into_writes_what_influxdb_would() {
    let circles = two_circles();
    let oracle = Influxd::start().unwrap();
    for url in [circles.proxy.url(), oracle.url()] {
        for db in ["db", "copies"] {
            query(&url, "", &format!("CREATE DATABASE {db}"));
        }
        query(&url, "", "CREATE RETENTION POLICY keep ON db DURATION 0s REPLICATION 1");
    }
    let mut lines = String::new();
    for i in 0..12_000 {
        lines += &format!("cpu,host=h{},region=eu usage={}.0,idle={i}i,up={} {i}\n", i % 3, i % 7, i % 2 == 0);
    }
    lines += "str,host=a s=\"a \\\"b\\\" \\\\ c\",n=1i 1\nstr,host=b\\ c\\,d\\=e s=\"\u{e9}<>&\" 2\nodd\\ name,t=x \
        a\\ b=1,f=1e30 1\n";
    lines += "whole f=1,big=9223372036854775807i 1\nmem,host=a usage=1i 1\n";
    circles.write("db", &lines);
    ureq::post(format!("{}/write?db=db", oracle.url())).send(&lines).unwrap();
    circles.drained();
    let statements = [
        "SELECT * INTO cpu_copy FROM cpu GROUP BY *",
        "SELECT * INTO flat FROM str",
        "SELECT * INTO keep.str2 FROM str GROUP BY *",
        "SELECT * INTO copies..:MEASUREMENT FROM str GROUP BY *",
        "SELECT * INTO copies.autogen.:MEASUREMENT FROM whole",
        "SELECT * INTO \"odd, name\" FROM \"odd name\" GROUP BY *",
        "SELECT mean(usage), max(idle), count(up), last(up) INTO hourly FROM cpu WHERE time < 12000 GROUP BY \
        time(1000ns), host",
        "SELECT mean(usage) INTO filled FROM cpu WHERE time < 20000 GROUP BY time(1000ns) fill(0)",
        "SELECT mean(usage) INTO unfilled FROM cpu WHERE time < 20000 GROUP BY time(1000ns)",
        "SELECT usage INTO nothing FROM cpu WHERE host = 'none'",
        "SELECT usage INTO nothing FROM nowhere",
        "SELECT usage + 1 AS usage INTO cpu FROM cpu WHERE time < 100 GROUP BY host",
        // Several owners; `usage` is a float here and an integer there.
        "SELECT * INTO copies..:MEASUREMENT FROM cpu, str, \"odd name\", whole, mem WHERE time < 50 GROUP BY *",
        "SELECT count(usage), max(usage) INTO both FROM cpu, mem WHERE time < 100 GROUP BY host",
        "SELECT usage INTO copies.autogen.all_usage FROM /cpu$|mem/ WHERE time < 10 GROUP BY host",
        "SELECT mean(usage) INTO nested FROM (SELECT usage FROM cpu, mem WHERE time < 100) GROUP BY host",
        "SELECT usage INTO nowhere..x FROM cpu",
        "SELECT usage INTO norp.x FROM cpu",
        "SELECT usage INTO norp.x FROM cpu WHERE host = 'none'",
        "SELECT host INTO bad FROM cpu",
        "SELECT usage INTO mem FROM cpu WHERE time < 5",
    ];
    for q in statements {
        assert_eq!(circles.ask("db", q), query(&oracle.url(), "db", q), "{q}");
    }
    assert_eq!(
        circles.ask("", "SELECT usage INTO x FROM db..cpu"),
        query(&oracle.url(), "", "SELECT usage INTO x FROM db..cpu")
    );
    circles.drained();
    for (db, q) in [
        ("db", "SELECT * FROM /.*/ GROUP BY *"),
        ("db", "SELECT * FROM keep./.*/ GROUP BY *"),
        ("copies", "SELECT * FROM /.*/ GROUP BY *"),
        ("db", "SHOW FIELD KEYS"),
        ("copies", "SHOW FIELD KEYS"),
    ] {
        let want = circles.rows(std::slice::from_ref(&oracle), db, q);
        // Fields that only other measurements have are columns of nulls where all is on one server.
        let counts = |rows: &[String]| rows.len();
        assert_eq!(circles.rows(&circles.servers[2..], db, q), want, "{q}");
        assert_eq!(counts(&circles.rows(&circles.servers[..2], db, q)), counts(&want), "{q}");
    }
}

//! Compares SELECT over several owners with one server that has all data: the whole answers must be equal.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use super::support::{self, Influxd, topology};
use fluxgate_control::influx::answer::Answer;
use fluxgate_control::query::context::{Context, QueryShared, Stop, Times};
use fluxgate_control::query::select;
use fluxgate_dataplane::handoff::{Catalog, QueryRequest};
use fluxgate_dataplane::influxql::ast::Statement;
use fluxgate_dataplane::influxql::{self, Params};
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::reach::{Class, Reach, class};

/// 2023-11-14T22:13:20Z.
const T0: i64 = 1_700_000_000;

/// Measurements of database `p`, escaped as in line protocol, with their points. Names of fields and tags clash on
/// purpose: `usage` is a float, a string, an integer and a tag, `value` has four types.
fn points() -> Vec<(&'static str, &'static str, String)> {
    let mut all = Vec::new();
    let mut add = |target: &'static str, name: &'static str, tags: &str, fields: &str, seconds: i64| {
        all.push((target, name, format!("{name}{tags} {fields} {}\n", (T0 + seconds) * 1_000_000_000)));
    };
    for hour in 0..60_i64 {
        let host = ["a", "b", "c"][(hour % 3) as usize];
        let at = hour * 3600;
        let region = if hour % 2 == 0 { ",region=eu" } else { "" };
        // A gap of ten hours, and sparse fields.
        if !(20..30).contains(&hour) {
            let idle = if hour % 4 == 0 { String::new() } else { format!(",idle={}i", 100 - hour) };
            add(
                "p",
                "cpu",
                &format!(",host={host}{region}"),
                &format!("usage={}.5{idle},b={}", hour % 7, hour % 2 == 0),
                at,
            );
        }
        add(
            "p",
            "mem",
            &format!(",host={host}"),
            &format!("used={}i,usage=\"u{hour}\",value={}", hour * 3, hour as f64 / 8.0),
            at,
        );
        if hour % 5 == 0 {
            add(
                "p",
                "disk",
                &format!(",host={host},path=/d{}", hour % 2),
                &format!("usage={hour}i,value={}i", hour * 2),
                at + 7,
            );
        }
        if hour % 6 == 0 {
            add("p", "net", &format!(",host={host}"), &format!("value={},rx={}", hour % 4 == 0, hour), at);
            add(
                "p",
                "log",
                &format!(",host={host},usage=t{}", hour % 4),
                &format!("value=\"v{hour}\",msg=\"m<{hour}>\""),
                at,
            );
        }
        if hour % 10 == 0 {
            add("p", "Disk", "", &format!("value={hour}"), at);
            add("p", "_x", ",host=a", "value=9223372036854775807i", at);
            add("p", "cpu\\ load", &format!(",host={host}"), &format!("value=1e21,usage={hour}"), at);
            add("p", "cpu!", ",the\\ tag=v", &format!("a\\ b={hour}i,c\"d=\"q\\\"x\""), at);
            add("p", "cpu-total", ",host=a", &format!("usage={hour}.25"), at);
            add("p", "été", ",größe=1", "value=true", at);
        }
    }
    // Another shard group, with fields that the first does not have.
    for day in 20..23_i64 {
        add("p", "cpu", ",host=z,late=1", &format!("usage={day},extra={day}i"), day * 86400);
        add("p", "mem", ",host=z", &format!("used={day}i,extra=\"late\""), day * 86400);
    }
    for minute in 0..30_i64 {
        add("p.long", "cpu", ",host=l", &format!("usage={minute},n={minute}i"), minute * 60);
        add("p.long", "slow", ",host=l", &format!("v={}i", 30 - minute), minute * 60);
        add("q", "only", ",host=q", &format!("v={minute},usage=true"), minute * 60);
        add("q", "mem", ",host=q", &format!("used={minute}i"), minute * 60);
    }
    all
}

/// Servers, and what queries over them share.
struct Site {
    shared: QueryShared,
    servers: Vec<Influxd>,
}

fn site(servers: Vec<Influxd>) -> Site {
    let shared = support::shared(topology(&[servers.iter().map(Influxd::url).collect()]));
    Site { shared, servers }
}

/// One server with all data, and three with their own part.
fn seeded() -> (Site, Site) {
    let oracle = site(vec![Influxd::start()]);
    let shards = site((0..3).map(|_| Influxd::start()).collect());
    for server in oracle.servers.iter().chain(&shards.servers) {
        for statement in
            ["CREATE DATABASE p", "CREATE DATABASE q", "CREATE RETENTION POLICY long ON p DURATION INF REPLICATION 1"]
        {
            server.run(statement);
        }
    }
    let mut owners = BTreeSet::new();
    for target in ["p", "p.long", "q"] {
        let db = target.split('.').next().unwrap();
        let parameter = target.replace(".long", "&rp=long");
        let mut batches = vec![String::new(); 4];
        for (_, name, line) in points().into_iter().filter(|(to, ..)| *to == target) {
            let unescaped = name.replace('\\', "");
            let owner = shards.shared.placement().owner(0, Place::new(db, &*unescaped).bytes());
            owners.insert((owner, db));
            let _ = write!(batches[owner.index()], "{line}");
            let _ = write!(batches[3], "{line}");
        }
        let servers = shards.servers.iter().chain(&oracle.servers);
        for (server, batch) in servers.zip(&batches).filter(|(_, batch)| !batch.is_empty()) {
            server.write(&parameter, batch);
        }
    }
    assert!((0..3).all(|i| owners.iter().any(|(o, db)| o.0 == i && *db == "p")), "a shard without data: {owners:?}");
    (oracle, shards)
}

fn request(epoch: &str) -> QueryRequest {
    QueryRequest { epoch: epoch.to_owned(), ..support::query("p") }
}

/// The answer of fluxgate to a statement, always merged, as if over several owners.
fn merged(shared: &QueryShared, request: &QueryRequest, text: &str) -> Result<Answer, Stop> {
    let failed = |e: influxql::ParseError| Stop::Failed { status: 400, text: format!("{e}") };
    let statement = influxql::parse(text, &Params::default()).map_err(failed)?.remove(0);
    let Class::Read(reach) = class(&statement, "p") else { panic!("{text}") };
    assert!(!matches!(reach, Reach::Any { .. }), "{text}");
    let context = Context::new(shared, request, Arc::new(Catalog::default()), Instant::now());
    context.begin_statement();
    match &statement {
        Statement::Select(select) => select::run(&context, select, &reach),
        Statement::Explain { analyze, select } => select::explain(&context, *analyze, select, &reach),
        other => panic!("{other:?}"),
    }
}

fn asked(shared: &QueryShared, request: &QueryRequest, text: &str) -> Answer {
    let context = Context::new(shared, request, Arc::new(Catalog::default()), Instant::now());
    context.begin_statement();
    context.ask(shared.topology.backends[0].id, text, Times::AsAsked).unwrap().unwrap()
}

fn shown(answer: &Answer) -> String {
    let mut text = answer.error.clone().unwrap_or_default();
    for series in &answer.series {
        let _ = write!(text, "\n  {} {:?} {:?} {} rows", series.name, series.tags, series.columns, series.rows.len());
        for row in series.rows.iter().take(6) {
            let _ = write!(text, "\n    {}", row.text());
        }
    }
    text
}

#[test]
fn several_owners_answer_a_select_as_one_server_does() {
    let (oracle, shards) = seeded();
    let mut wrong = Vec::new();
    let mut count = 0;
    let shapes =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/backends/select.influxql")).unwrap();
    for text in shapes.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        count += 1;
        let request = request(if count % 3 == 0 { "ns" } else { "" });
        let wanted = asked(&oracle.shared, &request, text);
        match merged(&shards.shared, &request, text) {
            Ok(given) if given == wanted => {}
            // A statement on which the single server fails is not compared.
            _ if wanted.error.as_deref().is_some_and(|error| error.contains("[panic:")) => {}
            Ok(given) => wrong.push(format!("{text}\n one server: {}\n merged: {}", shown(&wanted), shown(&given))),
            Err(stop) => wrong.push(format!("{text}\n one server: {}\n merged: {stop:?}", shown(&wanted))),
        }
    }
    assert!(count >= 120, "{count} shapes");
    assert!(wrong.is_empty(), "{} of {count} differ\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn refused(result: Result<Answer, Stop>) -> String {
    match result {
        Err(Stop::Failed { status: 400, text }) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn statements_that_cannot_be_merged_are_refused() {
    let (oracle, mut shards) = seeded();
    let request = request("ns");
    let owner = |db: &str, name: &str| shards.shared.placement().owner(0, Place::new(db, name).bytes());
    let same = (0..).map(|i| format!("twice{i}")).find(|name| owner("p", name) == owner("q", name)).unwrap();
    let other = (0..).map(|i| format!("twice{i}")).find(|name| owner("p", name) != owner("q", name)).unwrap();
    for (db, value) in [("p", 1), ("q", 2)] {
        for name in [&same, &other] {
            let line = format!("{name} v={value} 1700000000000000000");
            shards.servers[owner(db, name).index()].write(db, &line);
            oracle.servers[0].write(db, &line);
        }
    }
    let merged = |text: &str| merged(&shards.shared, &request, text);
    let asked = |text: &str| asked(&oracle.shared, &request, text);
    // One name in two databases.
    for (p, q) in [(format!("p..{other}"), format!("q..{other}")), (format!("/{other}$/"), format!("q../{other}$/"))] {
        for text in [
            format!("select mean(v) from {p}, {q}"),
            format!("select v from {q}, {p}, cpu"),
            format!("select sum(v) from (select v from {p}), (select v from {q})"),
        ] {
            let why = refused(merged(&text));
            assert!(why.contains(&other) && why.contains("p, q"), "{text}: {why}");
        }
    }
    for text in [
        format!("select mean(v) from p..{same}, q..{same}, cpu"),
        format!("select v from p../{same}$/, q../{same}$/"),
        format!("select mean(v) from {other}, q..only"),
    ] {
        assert_eq!(merged(&text).unwrap(), asked(&text), "{text}");
    }
    // Plans.
    let why = refused(merged("explain analyze select mean(usage) from cpu, disk"));
    assert!(why.contains("EXPLAIN ANALYZE"), "{why}");
    let plan = merged("explain select mean(usage), max(nosuch) from cpu, net").unwrap();
    let rows: Vec<_> = plan.series[0].rows.iter().map(|row| row.string(0).unwrap()).collect();
    let of = |part: &str| rows.iter().filter(|row| *row == part).count();
    assert_eq!((of("EXPRESSION: mean(usage::float)"), of("")), (2, 1), "{rows:?}");
    assert_eq!(
        merged("explain select mean(usage), idle from cpu, net"),
        Ok(asked("select mean(usage), idle from cpu"))
    );
    // Regular expressions that only Go accepts.
    let why = refused(merged(r"select /\123/ from cpu, disk"));
    assert!(why.contains("regular expression"), "{why}");
    // Data left behind by a move.
    let elsewhere = shards.servers.iter().enumerate().find(|(i, _)| *i != owner("p", "Disk").index()).unwrap().1;
    elsewhere.write("p", "Disk value=-1 1700000000000000001");
    for text in ["select * from /isk/", "select count(value) from /isk/", "select value from Disk, disk"] {
        assert_eq!(merged(text).unwrap(), asked(text), "{text}");
    }
    // A database that one backend lacks.
    let lacking = owner("q", "only").index() + 1;
    shards.servers[lacking % 3].run("DROP DATABASE q");
    assert_eq!(merged("select v from q../only/"), Ok(asked("select v from q../only/")));
    let why = refused(merged("select v from /cpu/, q../only/"));
    assert!(why.contains("database not found: q"), "{why}");
    // Too many rows.
    shards.shared.settings.rows_max = 10;
    let refusal = self::merged(&shards.shared, &request, "select usage from cpu, disk").unwrap();
    assert!(refusal.series.is_empty() && refusal.error.unwrap().contains("rows"));
}

#[test]
fn another_circle_answers_for_a_backend_that_does_not() {
    let (oracle, mut shards) = seeded();
    let request = request("");
    let urls = |site: &Site| site.servers.iter().map(Influxd::url).collect();
    let both = topology(&[urls(&shards), urls(&oracle)]);
    let shared = support::shared(both);
    let text = "select mean(usage) from (select * from /./) group by host";
    let wanted = asked(&oracle.shared, &request, text);
    assert!(!wanted.series.is_empty());
    assert_eq!(merged(&shared, &request, text), Ok(wanted.clone()));
    let named = "select * from cpu, mem, disk, net, log";
    let wanted_named = asked(&oracle.shared, &request, named);
    shards.servers[1].stop();
    assert_eq!(merged(&shared, &request, text), Ok(wanted));
    assert_eq!(merged(&shared, &request, named), Ok(wanted_named));
    match merged(&shards.shared, &request, named) {
        Err(Stop::Failed { status: 503, text }) => assert!(text.contains("influxdb-1-2"), "{text}"),
        other => panic!("{other:?}"),
    }
}

//! Compares rendered answers with InfluxDB's own, byte for byte: each statement is asked alone in one format, rendered
//! in every format, and compared with InfluxDB's answer in that format.

use std::sync::Arc;

use super::support::{self, Influxd};
use bytes::Bytes;
use fluxgate_control::influx::answer::{Answer, Message};
use fluxgate_control::influx::budget::MemoryBudget;
use fluxgate_control::influx::wire::{WireError, json, msgpack};
use fluxgate_control::query::render::{Chunking, StatementOutcome, render};
use fluxgate_dataplane::handoff::{QueryReply, QueryRequest};
use fluxgate_dataplane::http::error_body::Format;

use Chunking::{Rows, Series, Whole};

/// Data with special cases: numbers at the limits of their encodings, strings that need escapes, missing values and
/// tags.
const LINES: &str = concat!(
    "cpu,host=a,region=e\\,u usage=0.5,idle=1i,up=true 1700000000000000000\n",
    "cpu,host=a,region=e\\,u usage=1.5,idle=2i,up=false 1700000001000000001\n",
    "cpu,host=a usage=2.5 1700000002000000000\n",
    "cpu,host=b,region=us usage=3,idle=-3i 1700000000000000000\n",
    "cpu,host=b,region=us usage=4e15 1700000003000000000\n",
    "cpu idle=7i 1700000004000000000\n",
    "mem used=1e300 1700000009000000000\n",
    "mem used=-1e-300,n=9223372036854775807i,neg=-9223372036854775808i 1700000010000000000\n",
    "mem used=1e21,n=128i,neg=-1i 1700000011000000000\n",
    "mem used=123456789.125,n=127i,neg=-32i 1700000012000000000\n",
    "mem used=1e-7,n=65536i,neg=-33i 1700000013000000000\n",
    "mem used=-0,n=255i,neg=-128i 1700000014000000000\n",
    "mem used=1e20,n=256i,neg=-129i -5\n",
    "mem used=0.1,n=65535i,neg=-32768i -1700000000000000000\n",
    "mem used=0.000001,n=32767i,neg=-32769i -9223372036854775806\n",
    "mem used=9007199254740993,n=32768i,neg=-32769i 1500000000123456789\n",
    "mem used=1.7976931348623157e308,n=4294967295i,neg=-2147483648i 1500000001123456000\n",
    "mem used=5e-324,n=2147483647i,neg=-2147483649i 1500000002100000000\n",
    "mem n=2147483648i 9223372036854775806\n",
    "str s=\"plain\",b=true 1\n",
    "str s=\"a,\\\"b\\\" <&> \\\\ \\\\n é😀\u{2028} end\u{7f}\u{1}\",b=false 2\n",
    "str s=\"two\nlines\tand tab\r\" 3\n",
    "str s=\"\" 4\n",
    "str s=\" lead\" 5\n",
    "str s=\"\u{a0}lead\" 6\n",
    "str s=\"[{}],null\" 7\n",
    "str s=\"1.5\" 8\n",
    "str s=\"\\\\.\" 9\n",
    "odd\\ name\\,m=x\"<,t\\ a\\=g=v\\ a\\,l\\=ue f\\ <=1 1700000000000000000\n",
    "odd\\ name\\,m=x\"<,t\\ a\\=g=\"é v=1i 1700000001000000000\n",
    "wide,a=1,b=\\ 2,c=3 v=1 1\n",
);

/// Statements that are sent alone, and how their answers are cut.
const STATEMENTS: &[(&str, Chunking)] = &[
    ("select * from cpu", Rows),
    ("select * from cpu group by host", Rows),
    ("select * from cpu group by host order by time desc limit 2", Rows),
    ("select usage from cpu, mem, str, nosuch", Rows),
    ("select * from /.*/", Rows),
    ("select * from mem", Rows),
    (r#"select n as "u,\"", used as " x", neg as "null" from mem"#, Rows),
    ("select * from str", Rows),
    ("select * from \"odd name,m=x\\\"<\" group by *", Rows),
    ("select * from wide group by a", Rows),
    ("select * from wide group by *", Rows),
    ("select * from nosuch", Rows),
    (
        "select mean(usage), count(idle) from cpu where time >= 1700000000s and time < 1700000005s group by time(1s), \
        host fill(null)",
        Rows,
    ),
    ("select count(s), last(b) from str", Rows),
    ("select count(usage) into copied from cpu", Rows),
    ("show series", Rows),
    ("show series from cpu where host = 'a'", Rows),
    ("show field keys", Rows),
    ("show tag key cardinality", Rows),
    ("show tag values cardinality with key = host", Rows),
    ("show field key cardinality", Rows),
    ("show series exact cardinality", Rows),
    ("show series cardinality", Rows),
    ("show series cardinality from cpu", Rows),
    ("show measurement cardinality", Rows),
    ("show measurement exact cardinality", Rows),
    ("show measurement exact cardinality group by host", Rows),
    ("show tag keys", Series),
    ("show tag keys from nosuch", Series),
    ("show tag values with key = host", Series),
    ("show tag values with key =~ /./", Series),
    ("show measurements", Whole),
    ("show measurements with measurement = nosuch", Whole),
    ("show databases", Whole),
    ("show continuous queries", Whole),
    ("show subscriptions", Whole),
    ("explain select mean(usage) from cpu", Whole),
    ("create database db", Whole),
    ("create retention policy rp on db duration 1h replication 1", Whole),
    ("select * from nosuchrp.cpu", Rows),
    ("select mean(s) from str", Rows),
    ("show series on nosuchdb", Rows),
];

/// Several statements in one request, all from `STATEMENTS`.
const TOGETHER: &[&[&str]] = &[
    &["select * from cpu", "select * from nosuch", "select * from str", "show measurements"],
    &["select * from nosuch", "create database db", "select * from cpu", "select * from cpu"],
    &["select * from cpu", "select * from nosuchrp.cpu", "select * from mem", "show databases"],
    &["select * from nosuchrp.cpu", "select * from mem"],
    &[
        "show tag keys",
        "select * from cpu group by host",
        "show tag values with key = host",
        "select * from nosuchrp.cpu",
    ],
];

const TYPES: [(Format, &str); 3] =
    [(Format::Json, "application/json"), (Format::Csv, "text/csv"), (Format::Msgpack, "application/x-msgpack")];

fn loaded() -> Influxd {
    let influxd = Influxd::start();
    influxd.run("CREATE DATABASE db");
    influxd.write("db", LINES);
    influxd
}

fn request(format: Format) -> QueryRequest {
    QueryRequest { is_get: true, format, ..support::query("db") }
}

/// InfluxDB's answer to a GET: content type and body.
fn ask(influxd: &Influxd, request: &QueryRequest, q: &str) -> (String, Bytes) {
    let accept = TYPES.iter().find(|(format, _)| *format == request.format).unwrap().1;
    let mut call = ureq::get(format!("{}/query", influxd.url())).query("q", q).header("Accept", accept);
    for (name, value) in [("db", &request.db), ("epoch", &request.epoch)] {
        call = call.query(name, value);
    }
    if request.pretty {
        call = call.query("pretty", "true");
    }
    if request.chunked {
        call = call.query("chunked", "true").query("chunk_size", request.chunk_size.to_string());
    }
    let mut answer = call.call().unwrap();
    let content_type = answer.headers()["Content-Type"].to_str().unwrap().to_owned();
    let body = answer.body_mut().with_config().limit(u64::MAX).read_to_vec().unwrap();
    (content_type, body.into())
}

/// The answer to one statement, requested as fluxgate asks a backend for this client.
fn answer_to(influxd: &Influxd, client: &QueryRequest, q: &str) -> Answer {
    let format = if client.format == Format::Msgpack { Format::Msgpack } else { Format::Json };
    let epoch = match client.format {
        Format::Json => client.epoch.clone(),
        _ if client.epoch.is_empty() => "ns".to_owned(),
        _ => client.epoch.clone(),
    };
    let backend = QueryRequest { epoch, ..request(format) };
    let (_, body) = ask(influxd, &backend, q);
    let answers = if format == Format::Json { json::parse(body) } else { msgpack::parse(body) };
    let mut answers = answers.unwrap();
    assert_eq!((answers.len(), answers[0].statement_id, answers[0].partial), (1, 0, false), "{q}");
    answers.remove(0).answer
}

/// The outcomes of several statements, as in InfluxDB: nothing is executed after the first failure. With chunks, each
/// later statement gets an answer that says so, always with the number of the failed one.
fn outcomes(influxd: &Influxd, client: &QueryRequest, statements: &[&str]) -> Vec<StatementOutcome> {
    let mut outcomes = Vec::new();
    for (index, statement) in statements.iter().enumerate() {
        let chunking = STATEMENTS.iter().find(|(q, _)| q == statement).expect("it is in STATEMENTS").1;
        let statement_id = index as i64;
        let answer = answer_to(influxd, client, statement);
        if answer.error.is_none() {
            outcomes.push(StatementOutcome { statement_id, answer, chunking });
            continue;
        }
        let not_executed = StatementOutcome { statement_id, answer: Answer::failed("not executed"), chunking };
        let others = statements.len() - 1 - index;
        if client.chunked {
            outcomes.push(StatementOutcome { statement_id, answer, chunking });
            outcomes.extend(std::iter::repeat_n(not_executed, others));
        } else {
            outcomes.push(if others > 0 { not_executed } else { StatementOutcome { statement_id, answer, chunking } });
        }
        break;
    }
    outcomes
}

/// With all the memory there is.
fn rendered(request: &QueryRequest, outcomes: &[StatementOutcome]) -> QueryReply {
    render(request, outcomes, &MemoryBudget::new(usize::MAX).hold(Arc::default())).unwrap()
}

fn body_of(reply: QueryReply) -> (String, Vec<u8>) {
    let QueryReply::Answer { fields, body } = reply else { panic!("not an answer") };
    let content_type = fields.iter().find(|(name, _)| *name == "Content-Type").unwrap().1.clone();
    (content_type, body.collect::<Vec<_>>().concat())
}

/// In msgpack InfluxDB shuffles the tags of each series, so bytes can differ.
fn tags_are_shuffled(client: &QueryRequest, outcomes: &[StatementOutcome]) -> bool {
    client.format == Format::Msgpack
        && outcomes.iter().any(|outcome| outcome.answer.series.iter().any(|series| series.tags.len() > 1))
}

#[track_caller]
fn assert_same(influxd: &Influxd, client: &QueryRequest, statements: &[&str]) {
    let q = statements.join("; ");
    let outcomes = outcomes(influxd, client, statements);
    let ours = body_of(rendered(client, &outcomes));
    let mut theirs = ask(influxd, client, &q);
    if tags_are_shuffled(client, &outcomes) {
        // There are at most six orders, so the sorted one comes soon.
        for _ in 0..500 {
            if theirs.1 == ours.1 {
                break;
            }
            theirs = ask(influxd, client, &q);
        }
    }
    assert_eq!(ours.0, theirs.0);
    assert!(
        ours.1 == theirs.1,
        "{q}\n{client:?}\nours:   {}\ntheirs: {}",
        ours.1.escape_ascii(),
        theirs.1.escape_ascii()
    );
}

#[test]
fn answers_in_every_format_equal_influxdbs() {
    let influxd = loaded();
    let alone = STATEMENTS.iter().map(|(q, _)| vec![*q]);
    let together = TOGETHER.iter().map(|statements| statements.to_vec());
    for statements in alone.chain(together) {
        for (format, _) in TYPES {
            let plain = request(format);
            assert_same(&influxd, &plain, &statements);
            assert_same(&influxd, &QueryRequest { epoch: "ms".to_owned(), ..plain.clone() }, &statements);
            for chunk_size in [1, 2, 3, 1000] {
                assert_same(&influxd, &QueryRequest { chunked: true, chunk_size, ..plain.clone() }, &statements);
            }
        }
        let pretty = QueryRequest { pretty: true, ..request(Format::Json) };
        assert_same(&influxd, &pretty, &statements);
        assert_same(&influxd, &QueryRequest { chunked: true, chunk_size: 2, ..pretty }, &statements);
    }
}

#[test]
fn a_request_without_statements_is_answered_as_by_influxdb() {
    let influxd = Influxd::start();
    for (format, _) in TYPES {
        for chunked in [false, true] {
            for pretty in [false, true] {
                let client = QueryRequest { chunked, pretty, ..request(format) };
                let ours = body_of(rendered(&client, &[]));
                assert_eq!(ours.1, ask(&influxd, &client, ";").1, "{format:?} {chunked} {pretty}");
            }
        }
    }
}

#[test]
fn a_long_series_is_marked_as_influxdb_marks_it() {
    let influxd = Influxd::start();
    influxd.run("CREATE DATABASE db");
    let mut lines = String::new();
    for i in 0..10_001 {
        lines += &format!("m,t=x{i:05} v={i}i {i}\n");
    }
    influxd.write("db", &lines);
    for (q, chunking, marked) in [
        ("select v from m", Rows, true),
        ("select v from m limit 10000", Rows, false),
        ("show series", Rows, true),
        ("show tag values with key = t", Series, false),
    ] {
        let client = request(Format::Json);
        // As if merged from two backends: neither marks it as long.
        let mut answer = answer_to(&influxd, &client, q);
        assert_eq!(answer.series[0].partial, marked, "{q}");
        answer.series[0].partial = false;
        let outcome = StatementOutcome { statement_id: 0, answer, chunking };
        let ours = body_of(rendered(&client, std::slice::from_ref(&outcome)));
        assert!(ours.1 == ask(&influxd, &client, q).1, "{q}");
        for chunk_size in [5_000, 10_000, 10_001, 100_000] {
            let client = QueryRequest { chunked: true, chunk_size, ..client.clone() };
            let ours = body_of(rendered(&client, std::slice::from_ref(&outcome)));
            assert!(ours.1 == ask(&influxd, &client, q).1, "{q} in pieces of {chunk_size}");
        }
    }
}

#[test]
fn a_refused_request_is_recognised_in_both_formats() {
    let influxd = Influxd::start();
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let ask = |accept: &str| -> Bytes {
        let call = agent.get(format!("{}/query?q=nonsense", influxd.url())).header("Accept", accept);
        call.call().unwrap().body_mut().read_to_vec().unwrap().into()
    };
    let refusal = json::parse(ask("application/json")).unwrap_err();
    assert!(matches!(&refusal, WireError::Refused(text) if text.starts_with("error parsing query: found nonsense")));
    assert_eq!(msgpack::parse(ask("application/x-msgpack")).unwrap_err(), refusal);
}

#[test]
fn json_and_msgpack_give_the_same_answer_except_for_number_types() {
    let influxd = loaded();
    for (q, _) in STATEMENTS {
        let both = [Format::Csv, Format::Msgpack].map(|format| answer_to(&influxd, &request(format), q));
        let [json, msgpack] = &both;
        let shape = |answer: &Answer| -> (Vec<Message>, Option<String>, Vec<_>) {
            let heads = answer.series.iter().map(|s| (s.name.clone(), s.tags.clone(), s.columns.clone(), s.partial));
            (answer.messages.clone(), answer.error.clone(), heads.collect())
        };
        assert_eq!(shape(json), shape(msgpack), "{q}");
        let rows = |answer: &Answer| answer.series.iter().flat_map(|s| s.rows.clone()).collect::<Vec<_>>();
        for (json, msgpack) in rows(json).iter().zip(rows(msgpack)) {
            let pairs: Vec<_> = json.values().zip(msgpack.values()).collect();
            assert_eq!((pairs.len(), pairs.len()), (json.values().count(), msgpack.values().count()));
            for (json, msgpack) in pairs {
                let float = msgpack.parse::<i64>().is_err().then(|| msgpack.parse::<f64>().ok()).flatten();
                let same = float.map_or(json == msgpack, |float| json.parse() == Ok(float));
                assert!(same, "{q}: {json} {msgpack}");
            }
        }
        assert_eq!(rows(json).len(), rows(msgpack).len(), "{q}");
    }
}

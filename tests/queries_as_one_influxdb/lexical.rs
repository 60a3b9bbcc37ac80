//! Promise: what InfluxDB was recorded to accept and to refuse, of all the shapes of its language, it gets from the
//! cluster as well, word for word.
//!
//! `tests/golden/influxql.jsonl`: one query per line with what InfluxDB said. Both sides are asked again, so that whole
//! answers are compared; the records tell whether the oracle still is what it was. Not here: statements that change
//! something (`changes.rs`), and those that depart as a class (`departures.rs`).

use fluxgate::lab::influxd::Influxd;
use serde_json::{Map, Value, json};

use crate::ask::Request;
use crate::compare::documents;
use crate::corpus::{self, Kind, Query};
use crate::data::{Batch, START};
use crate::golden;
use crate::pair::Pair;
use crate::world::OracleAndCluster;

/// At least so many are compared. Fewer means that records were lost.
const QUERIES_MIN: usize = 730;

/// Each changes something, is about one server, or is answered by chance. If accepted, it is not compared here.
const WORDS_NOT_HERE: &[&str] = &[
    "create",
    "drop",
    "delete",
    "into",
    "alter",
    "grant",
    "grants",
    "revoke",
    "set",
    "kill",
    "users",
    "continuous",
    "subscriptions",
    "stats",
    "diagnostics",
    "shard",
    "shards",
    "queries",
    "analyze",
    "sample",
];

pub const DECLARATIONS: &[&str] = &["CREATE DATABASE p", "CREATE RETENTION POLICY rp ON p DURATION INF REPLICATION 1"];

/// What `p` held when the records were made: these measurements with these tags and fields.
pub fn batches() -> [Batch; 2] {
    let (mut lines, mut others) = (String::new(), String::new());
    for n in 0..20 {
        let at = (START + 166_400 + n * 60) * 1_000_000_000;
        for (host, region) in [("a", "eu"), ("b", "us")] {
            lines += &format!("cpu,host={host},region={region} usage={n}.5,idle={} {at}\n", 100 - n);
            lines += &format!("mem,host={host} used={n} {at}\nstr,host={host} s=\"text {n}\",b={} {at}\n", n % 2 == 0);
            others += &format!("cpu,host={host} usage={n} {at}\n");
        }
    }
    [("", lines), ("rp", others)].map(|(rp, lines)| Batch { db: "p", rp, precision: "ns", lines })
}

/// The records that can be asked again.
fn queries() -> Vec<(Value, Query)> {
    let here = |record: &Value| {
        let text = record["q"].as_str().unwrap().to_ascii_lowercase();
        let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        record["status"] == 400 || !words.any(|word| WORDS_NOT_HERE.contains(&word))
    };
    let query = |record: Value| {
        // Times of aggregates since now() are those of the call: in hours they are the same for both sides.
        let mut options: Map<String, Value> = [("db", json!("p")), ("as", json!("form")), ("epoch", json!("h"))]
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect();
        options.extend(record.get("params").map(|params| ("params".to_owned(), params.clone())));
        let kind = if record["status"] == 400 { Some(Kind::Refused) } else { None };
        let text = record["q"].as_str().unwrap();
        let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
        let departs = match () {
            () if text.contains('\0') => Some("a NUL in the text"),
            () if record["error"].as_str().is_some_and(|error| error.contains(is_control)) => {
                Some("a control character in the error")
            }
            () => None,
        };
        options.extend(departs.map(|name| ("departs".to_owned(), json!(name))));
        let query = corpus::made_with("lexical", options, text, kind);
        (record, query)
    };
    golden::records("influxql.jsonl").into_iter().filter(here).map(query).collect()
}

/// What is wrong if the oracle's answer has not the recorded status and errors.
fn moved(pair: &mut Pair, record: &Value, request: &Request) -> Option<String> {
    let answer = pair.ask_oracle(request);
    let documents = documents(&answer.body)?;
    let first = documents.first()?;
    let inner = first.list("results").iter().find_map(|result| result.text("error"));
    let recorded = [&record["error"], &record["stmt_error"]].map(Value::as_str);
    let same = record["status"] == answer.status && [first.text("error"), inner] == recorded;
    (!same).then(|| format!("{record}: now {}", answer.short()))
}

#[test]
fn every_recorded_shape_of_the_language_is_read_as_influxdb_reads_it() {
    let mut world = OracleAndCluster::start(false);
    world.pair.give(DECLARATIONS, &batches());
    world.drain();
    let queries = queries();
    assert!(world.pair.agree("lexical", queries.iter().map(|(_, query)| query)) >= QUERIES_MIN);
}

#[test]
fn two_single_servers_read_it_alike_and_as_recorded() {
    let (oracle, other) = (Influxd::start().unwrap(), Influxd::start().unwrap());
    let mut pair = Pair::new(oracle.addr(), other.addr());
    pair.give(DECLARATIONS, &batches());
    pair.alike = true;
    let queries = queries();
    let moved: Vec<_> = queries.iter().filter_map(|(record, query)| moved(&mut pair, record, &query.request)).collect();
    assert!(moved.is_empty(), "{} are not what was recorded:\n{}", moved.len(), moved.join("\n"));
    pair.agree("lexical, two single servers", queries.iter().map(|(_, query)| query));
}

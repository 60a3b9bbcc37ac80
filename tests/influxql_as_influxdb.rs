//! Promise: our parser accepts what InfluxDB accepts, and what we print InfluxDB reads with the same meaning.
//!
//! The recorded texts of `tests/golden/influxql.jsonl` go to a real influxd: reading statements as they are and
//! printed, for equal answers; and all of them with words changed, for equal verdicts.
//!
//! Not here: the recorded verdicts themselves (`dataplane/src/influxql/golden_test.rs`), what the proxy answers.

use fluxgate::lab::client::Client;
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate_dataplane::influxql::ast::{ServerFact, Statement};
use fluxgate_dataplane::influxql::{ErrorKind, Params, parse};
use serde_json::Value;

/// Points as in the recording.
const SEED: &str = "cpu,host=a,region=eu usage=1,idle=9 1700000000000000000\n\
                    cpu,host=b,region=us usage=2,idle=8 1700000060000000000\n\
                    mem,host=a used=5i 1700000000000000000\n\
                    str,host=a s=\"x\",b=true 1700000000000000000\n";

/// Changed texts in an ordinary run; `INFLUXQL_TEXTS` asks for more.
const CHANGED: u64 = 2_000;

struct RecordedText {
    q: String,
    params: Option<String>,
    accepted: bool,
}

fn rows() -> Vec<RecordedText> {
    let lines = include_str!("golden/influxql.jsonl").lines();
    let rows = lines.map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        let accepted = row["status"] == 200;
        RecordedText { q: row["q"].as_str().unwrap().into(), params: row["params"].as_str().map(Into::into), accepted }
    });
    rows.filter(|row| !row.q.contains('\0')).collect()
}

struct OracleServer {
    influxd: Influxd,
    client: Client,
}

impl OracleServer {
    fn start() -> Self {
        let influxd = Influxd::start().unwrap();
        let client = Client::connect(influxd.addr()).unwrap();
        let mut server = Self { influxd, client };
        server.seed();
        server
    }

    /// Again after a statement that may have removed it.
    fn seed(&mut self) {
        self.query("create database p", None);
        self.query("create retention policy rp on p duration inf replication 1", None);
        for target in ["/write?db=p&rp=autogen", "/write?db=p&rp=rp"] {
            let reply = self.client.request("POST", target, &[], SEED.as_bytes()).unwrap();
            assert_eq!(reply.status, 204, "{}", reply.text());
        }
    }

    /// None: the connection was closed without an answer, as when InfluxDB's handler panics.
    fn query(&mut self, q: &str, params: Option<&str>) -> Option<(u16, String)> {
        let mut body = format!("db=p&q={}", url_encoded(q));
        if let Some(params) = params {
            body += &format!("&params={}", url_encoded(params));
        }
        let form = "Content-Type: application/x-www-form-urlencoded";
        match self.client.request("POST", "/query", &[form], body.as_bytes()) {
            Ok(reply) => Some((reply.status, reply.text())),
            Err(_) => {
                self.client = Client::connect(self.influxd.addr()).unwrap();
                None
            }
        }
    }
}

/// Whether the answer is always the same while nothing is written.
fn reads(statement: &Statement) -> bool {
    match statement {
        Statement::Select(select) => select.into.is_none(),
        Statement::Explain { analyze, .. } => !analyze,
        Statement::Show(_)
        | Statement::ShowDatabases
        | Statement::ShowRetentionPolicies { .. }
        | Statement::ShowContinuousQueries
        | Statement::ShowSubscriptions
        | Statement::ShowServer { what: ServerFact::Shards | ServerFact::ShardGroups, .. } => true,
        _ => false,
    }
}

#[test]
fn printed_statements_are_answered_as_the_sent_ones() {
    let mut server = OracleServer::start();
    let mut compared = 0;
    for row in rows() {
        let params = row.params.as_deref().map_or(Ok(Params::default()), Params::from_json);
        let Ok(statements) = params.map_err(drop).and_then(|params| parse(&row.q, &params).map_err(drop)) else {
            continue;
        };
        // Never the same twice: windows that start now, random rows.
        let varies = ["(5m, now())", "sample("].iter().any(|varying| row.q.contains(varying));
        if varies || statements.is_empty() || !statements.iter().all(reads) {
            continue;
        }
        let printed: Vec<_> = statements.iter().map(ToString::to_string).collect();
        let printed = printed.join("; ");
        let want = server.query(&row.q, row.params.as_deref());
        assert_eq!(server.query(&printed, None), want, "{} as {printed}", row.q);
        compared += 1;
    }
    assert!(compared > 300, "{compared}");
}

/// What a change puts in.
const WORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "group by",
    "time(1m)",
    "fill(0)",
    "order by time desc",
    "limit 1",
    "tz('UTC')",
    "into",
    "as",
    "distinct",
    "*",
    "*::field",
    "/c.*/",
    "/",
    "//",
    "'a'",
    "\"a\"",
    "a",
    "cpu",
    "host",
    "a.b",
    ".",
    "..",
    ",",
    ";",
    "(",
    ")",
    ":",
    "::",
    "::float",
    "::tag",
    ":MEASUREMENT",
    "1",
    "1.5",
    ".5",
    "1.",
    "1h",
    "1h30m",
    "-1",
    "+1",
    "-a",
    "+",
    "-",
    "--",
    "/* c */",
    "=",
    "!=",
    "=~ /a/",
    "!~",
    "<",
    ">",
    "and",
    "or",
    "not",
    "in",
    "true",
    "show",
    "tag",
    "key",
    "keys",
    "values",
    "with key = host",
    "with key in (a)",
    "cardinality",
    "exact",
    "on p",
    "analyze",
    "$p",
    "\\",
    "\n",
    "\r\n",
    "\t",
    "\u{b5}",
    "é",
    "18446744073709551615",
    "9223372036854775808",
    "99999999999999999999",
    "9999999999w",
    "106751d23h47m",
    "duration",
    "replication",
    "shard duration",
    "inf",
    "default",
    "name",
    "for",
    "any",
    "end",
    "\"",
    "'",
    "''",
    "\"\"",
    "desc",
    "asc",
    "offset 1",
    "slimit",
    "soffset 2",
    "time",
    "fill",
];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// `text` with a few pieces removed, doubled or put in, at ends of words or anywhere.
fn changed(text: &str, random: &mut Random) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for _ in 0..1 + random.below(2) {
        let ends = |at: &usize| {
            *at == 0 || *at == text.len() || !text[*at].is_alphanumeric() || !text[*at - 1].is_alphanumeric()
        };
        let places: Vec<usize> = (0..=text.len()).filter(ends).collect();
        let place = |random: &mut Random| match random.below(5) {
            0 => random.below(text.len() + 1),
            _ => places[random.below(places.len())],
        };
        let (one, other) = (place(random), place(random));
        let range = one.min(other)..one.max(other).min(one.min(other) + 12);
        match random.below(4) {
            0 => drop(text.drain(range)),
            1 => {
                let copy: Vec<char> = text[range].to_vec();
                text.splice(one..one, copy);
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                let space = if random.below(3) > 0 { " " } else { "" };
                text.splice(one..one, format!("{space}{word}{space}").chars());
            }
        }
    }
    text.into_iter().collect()
}

#[test]
fn changed_texts_get_influxdbs_verdict() {
    let count = std::env::var("INFLUXQL_TEXTS").map_or(CHANGED, |count| count.parse().unwrap());
    let seed = std::env::var("INFLUXQL_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
    let mut server = OracleServer::start();
    // A changed text is seldom a statement if the text itself is none.
    let rows: Vec<_> = rows().into_iter().filter(|row| random.below(4) == 0 || row.accepted).collect();
    let (mut wrong, mut accepted) = (String::new(), 0);
    for _ in 0..count {
        let row = &rows[random.below(rows.len())];
        let text = changed(&row.q, &mut random);
        let params = row.params.as_deref().map_or(Ok(Params::default()), Params::from_json);
        let Ok(params) = params else { continue };
        let ours = parse(&text, &params);
        let Some((_, answer)) = server.query(&text, row.params.as_deref()) else { continue };
        let refused = answer.starts_with("{\"error\":\"error parsing query: ");
        let left_to_backends = answer.contains("unable to find time zone") || answer.contains("error parsing regexp");
        let ours_only = ours.as_ref().is_err_and(|e| matches!(e.kind, ErrorKind::Unsafe(_)));
        if ours.is_err() != refused && !(refused && left_to_backends) && !ours_only {
            wrong += &format!("{text:?} {:?}: {:?}, InfluxDB: {answer}\n", row.params, ours.map_err(|e| e.to_string()));
        } else if let Ok(statements) = ours
            && !refused
        {
            accepted += 1;
            for statement in statements.iter().filter(|statement| reads(statement)) {
                let want = server.query(&statement.to_string(), None);
                let again = want.as_ref().is_some_and(|(_, text)| text.contains("error parsing query"));
                if again {
                    wrong += &format!("{text:?} printed as {statement}: {want:?}\n");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(accepted * 20 > count, "{accepted}");
}

//! Promise: `/query` answers the requests recorded from influx-proxy 2.4.7 as that did, but where it was wrong or could
//! not.
//!
//! Two circles of two influxd with the recorded contents. Compared are status, content type and body; rows and series
//! that the original puts in an order by chance are compared in any order. What differs on purpose is in
//! [`DEPARTURES`], and must go on differing. Not here: what the backends held afterwards (`changes.rs`), and records
//! made during a migration.

use std::collections::BTreeSet;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use serde_json::{Value, json};

use crate::ask::{ComparedAnswer, Request, Side};
use crate::compare::{Form, difference};
use crate::golden;
use crate::world::DRAIN;

/// At least so many are compared. Fewer means that records were lost.
const ANSWERS_MIN: usize = 190;

/// Records that are answered differently on purpose.
struct RecordedDeparture {
    why: &'static str,
    /// The status fluxgate gives.
    status: u16,
    ids: &'static [u64],
}

const DEPARTURES: &[RecordedDeparture] = &[
    RecordedDeparture {
        why: "db..m, subqueries, regexes and several statements are answered whole; the original asks one backend",
        status: 200,
        ids: &[150, 163, 164, 172, 173, 174, 366, 368],
    },
    RecordedDeparture {
        why: "a database in the statement is enough; the original wants the parameter as well",
        status: 200,
        ids: &[365, 367],
    },
    RecordedDeparture {
        why: "a change by GET is warned of, as InfluxDB does; the original sends it on as POST",
        status: 200,
        ids: &[24],
    },
    RecordedDeparture {
        why: "LIMIT and OFFSET count over all backends, policies are listed once, chunk_size is honoured",
        status: 200,
        ids: &[199, 233, 296, 305, 306, 371],
    },
    RecordedDeparture {
        why: "a parse error has InfluxDB's status and text",
        status: 400,
        ids: &[
            30, 159, 178, 179, 180, 181, 182, 184, 185, 186, 187, 231, 248, 265, 267, 271, 272, 273, 275, 363, 364,
            384, 395, 401, 407,
        ],
    },
    RecordedDeparture { why: "what is missing is told in InfluxDB's words", status: 400, ids: &[335, 346] },
    RecordedDeparture {
        why: "a missing database is the statement's error, as in InfluxDB",
        status: 200,
        ids: &[349, 350, 357, 358, 359, 361],
    },
    RecordedDeparture {
        why: "SELECT INTO, EXPLAIN, cardinalities, policies, continuous queries, subscriptions, DELETE and DROP \
            SERIES without FROM \
              are carried out",
        status: 200,
        ids: &[176, 210, 222, 244, 246, 247, 249, 250, 268, 337, 380, 381, 382, 383, 385, 386, 387, 388, 389, 394, 400],
    },
    RecordedDeparture { why: "the text says why", status: 400, ids: &[251, 255, 256, 258, 260, 262] },
    RecordedDeparture { why: "merged answers come in CSV and msgpack as well", status: 200, ids: &[319, 327, 328] },
    RecordedDeparture {
        why: "every database that a statement names is checked against `db_list`",
        status: 400,
        ids: &[510, 513],
    },
    RecordedDeparture {
        why: "the original forbids the statement, here it is its database that is forbidden",
        status: 400,
        ids: &[521],
    },
    RecordedDeparture {
        why: "a method that /query does not take is refused as by InfluxDB: plain text and what is allowed",
        status: 405,
        ids: &[338, 343, 554],
    },
    RecordedDeparture { why: "OPTIONS tells what is allowed, as in InfluxDB", status: 200, ids: &[342] },
    RecordedDeparture {
        why: "ciphers are padded with zero bytes, which are no part of a name",
        status: 401,
        ids: &[755],
    },
];

/// Made during a migration; a HEAD, whose answer our client cannot read; a body of which only the shape is kept;
/// databases of other groups of records.
const NOT_REPEATED: &[u64] = &[808, 809, 340, 236, 238];

/// What the original refused and is carried out here is undone after these, so that later records find what they found
/// then.
const UNDO: &[(u64, &str)] = &[
    (176, "DROP MEASUREMENT cpu9"),
    (337, "DROP RETENTION POLICY rpf ON db1"),
    (381, "ALTER RETENTION POLICY autogen ON db1 DEFAULT"),
];

/// A point of each measurement of `db1` when the queries were recorded, `cpu1` with one that has no tags.
fn contents() -> String {
    let mut lines = String::from("cpu1 value=1 1600000000000000000\ndupdb value=1 1600000000000000000\n");
    lines += "my\\ meas,tag\\ k=tag\\ v v=1 1600000000000000000\n温度,城市=北京 值=21.5 1600000000000000000\n";
    for cpu in 1..=8 {
        for n in 0..3 {
            lines += &format!(
                "cpu{cpu},host=h{},region=r{} value={cpu}.{n},count={n}i,msg=\"m {n}\",ok={} {}\n",
                n % 2,
                cpu % 2,
                n % 2 == 1,
                1_600_000_000_000_000_000_i64 + n * 1_000_000_000
            );
        }
    }
    lines
}

fn write(proxy: &Proxy, credentials: &str) {
    let mut client = Client::connect(proxy.addr()).unwrap();
    let reply = client.request("POST", &format!("/write?db=db1{credentials}"), &[], contents().as_bytes()).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
    let nothing_queued = || {
        let (status, text) = proxy.get(&format!("/ledger?{credentials}")).unwrap();
        status == 200 && serde_json::from_str::<Value>(&text).unwrap()["totals"]["queued"] == 0
    };
    assert!(eventually(DRAIN, nothing_queued), "{}", proxy.stderr());
}

fn request(record: &Value) -> Request {
    let recorded = &record["request"];
    let headers = recorded["headers"].as_object().into_iter().flatten();
    Request {
        method: recorded["method"].as_str().unwrap().into(),
        target: recorded["path"].as_str().unwrap().into(),
        headers: headers.map(|(name, value)| format!("{name}: {}", value.as_str().unwrap())).collect(),
        body: golden::bytes(&recorded["body"]),
    }
}

/// The recorded answer; `None` if the original closed the connection, or only the shape of its answer is kept.
fn recorded(record: &Value) -> Option<ComparedAnswer> {
    let response = &record["response"];
    let body = response.get("body_decoded").or_else(|| response.get("body"))?;
    let headers = response["headers"].as_array()?;
    let header = |wanted: &str| headers.iter().find(|pair| pair[0] == wanted).and_then(|pair| pair[1].as_str());
    Some(ComparedAnswer {
        status: response["status"].as_u64()? as u16,
        content_type: header("Content-Type").unwrap_or_default().into(),
        headers: Vec::new(),
        body: golden::bytes(body),
    })
}

fn form(record: &Value) -> Form {
    let json = record["response"]["headers"].as_array().into_iter().flatten().any(|pair| pair[1] == "application/json");
    let target = record["request"]["path"].as_str().unwrap().to_ascii_lowercase();
    // influx-proxy puts the answers of several backends in a random order.
    let by_chance = record["variants"].is_array() || target.contains("q=show");
    match () {
        () if json && by_chance => Form::AnyRows,
        () if json && !target.contains("pretty=true") => Form::Lines,
        () => Form::Bytes,
    }
}

/// What the comparison has found so far.
#[derive(Default)]
struct RecordedFindings {
    seen: BTreeSet<u64>,
    wrong: Vec<String>,
}

impl RecordedFindings {
    fn note(&mut self, record: &Value, got: &ComparedAnswer) {
        let id = record["id"].as_u64().unwrap();
        self.seen.insert(id);
        let found = match recorded(record) {
            Some(want) => difference(form(record), &want, &ComparedAnswer { headers: Vec::new(), ..got.clone() }),
            None => Some("there was no answer".into()),
        };
        let text = |found: &str| format!("{id} {}: {found}\n    {}", record["request"], got.short());
        match (DEPARTURES.iter().find(|departure| departure.ids.contains(&id)), found) {
            (None, None) => {}
            (None, Some(found)) => self.wrong.push(text(&found)),
            (Some(_), None) => self.wrong.push(text("departs no more")),
            (Some(departure), Some(_)) if departure.status == got.status => {}
            (Some(departure), Some(_)) => self.wrong.push(text(&format!("departs, but not as {}", departure.why))),
        }
    }
}

/// Empties the servers and declares the databases of a group of records.
fn prepare(servers: &[Influxd], databases: &[&str]) {
    for server in servers {
        let answer = server.query("", "SHOW DATABASES").unwrap();
        for row in answer["results"][0]["series"][0]["values"].as_array().into_iter().flatten() {
            server.query("", &format!("DROP DATABASE {}", row[0])).unwrap();
        }
        databases.iter().for_each(|db| server.create_database(db).unwrap());
    }
}

#[test]
fn recorded_queries_are_answered_as_recorded() {
    let records = golden::records("v2.4.7.jsonl");
    let is_query = |record: &&Value| {
        let path = record["request"]["path"].as_str().unwrap_or_default();
        path.split('?').next() == Some("/query") && !NOT_REPEATED.contains(&record["id"].as_u64().unwrap())
    };
    let records: Vec<_> = records.iter().filter(is_query).collect();
    let of = |config: &str| records.iter().filter(|record| record["config"] == config).collect::<Vec<_>>();
    let servers: Vec<_> = (0..4).map(|_| Influxd::start().unwrap()).collect();
    let urls: Vec<Vec<_>> = servers.chunks(2).map(|circle| circle.iter().map(Influxd::url).collect()).collect();
    let start =
        |keys: &Value| crate::support::start(&ProxyConfig::new(&urls).set_all(keys.as_object().unwrap().clone()));
    let mut findings = RecordedFindings::default();

    // The first group makes the databases that the others use.
    prepare(&servers, &["db2"]);
    let proxy = start(&json!({}));
    let mut side = Side::new(proxy.addr());
    let (first, others): (Vec<&&Value>, Vec<_>) =
        of("open").into_iter().partition(|record| record["group"] == "query-admin");
    for record in &first {
        findings.note(record, &side.ask(&request(record)));
    }
    write(&proxy, "");
    for record in &others {
        findings.note(record, &side.ask(&request(record)));
        for (_, statement) in UNDO.iter().filter(|(id, _)| record["id"] == *id) {
            servers.iter().for_each(|server| server.query("db1", statement).map(drop).unwrap());
        }
    }
    drop(proxy);

    let admin = json!({"username": "admin", "password": "s3cr&t", "db_list": ["db1"]});
    let ciphered =
        json!({"username": CIPHERED_ADMIN, "password": CIPHERED_ADMIN, "auth_secure": true, "db_list": ["db1"]});
    for (config, keys) in [
        ("dblist", json!({"db_list": ["db1", "db2"]})),
        ("auth", admin),
        ("auth-encrypted", ciphered),
        ("auth-user-only", json!({"username": "admin", "password": ""})),
    ] {
        prepare(&servers, &["db1"]);
        let proxy = start(&keys);
        let mut side = Side::new(proxy.addr());
        for record in of(config) {
            findings.note(record, &side.ask(&request(record)));
        }
    }

    let unseen = DEPARTURES.iter().flat_map(|departure| departure.ids).filter(|id| !findings.seen.contains(id));
    findings.wrong.extend(unseen.map(|id| format!("{id} is not among the records compared any more")));
    eprintln!("{} answers", findings.seen.len());
    assert!(findings.wrong.is_empty(), "{} differences:\n{}", findings.wrong.len(), findings.wrong.join("\n"));
    assert!(findings.seen.len() >= ANSWERS_MIN, "too few were compared");
    assert!(DEPARTURES.iter().all(|departure| !departure.why.is_empty()));
}

/// "admin" as `/encrypt` gives it.
const CIPHERED_ADMIN: &str = "YgvEyuPZlDYAH8sGDkC!Ag";

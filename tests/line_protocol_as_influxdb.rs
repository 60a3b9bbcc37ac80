//! Promise: `/write` answers as InfluxDB does, and each circle then holds what one InfluxDB would hold.
//!
//! The recorded requests are sent to one plain influxd and through fluxgate over 2 circles of 2 influxd. Compared are
//! status, error text and `X-Influxdb-Error`, and after the drain every point and field type: those of a circle's two
//! backends together against those of the one server. What differs on purpose is in [`DEPARTURES`], and must go on
//! differing.
//!
//! Not here: requests that are not a plain POST to `/write` (`endpoints_as_influx_proxy`), size limits (`http_shapes`),
//! and what depends on earlier requests or on the age of points (the storage's answers, which come after the ack).

#[path = "support/golden.rs"]
mod golden;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluxgate::lab::client::{Client, Reply};
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::ProxyConfig;
use serde_json::{Value, json};

/// At least so many requests are compared. Fewer means that records were lost.
const COMPARED_MIN: usize = 1_600;

/// Requests that are answered, or stored, differently on purpose.
struct LineDeparture {
    why: &'static str,
    /// The status fluxgate gives.
    status: u16,
    /// Whether the circles hold something else than the one server; None = either.
    stored: Option<bool>,
    ids: &'static [&'static str],
}

const DEPARTURES: &[LineDeparture] = &[
    LineDeparture {
        why: "InfluxDB takes an unknown precision silently for nanoseconds, which stores points at a wrong time",
        status: 400,
        stored: Some(true),
        ids: &[
            "prec-099", "prec-100", "prec-101", "prec-102", "prec-103", "prec-104", "prec-105", "prec-106", "prec-107",
            "prec-108", "prec-109", "prec-110", "prec-111", "prec-112", "prec-113", "prec-114", "prec-115", "prec-117",
            "prec-118", "prec-119",
        ],
    },
    LineDeparture {
        why: "the same beside a bad line: the precision is told of first, nothing is stored either way",
        status: 400,
        stored: Some(false),
        ids: &["prec-123"],
    },
    LineDeparture {
        why: "good only as the end of a body: the line would run into the next one of another client",
        status: 400,
        stored: Some(true),
        ids: &["line-046", "line-047", "line-048"],
    },
    LineDeparture {
        why: "the storage's answer, which comes after the ack; the lines are dead-lettered and the rest is stored \
            alike",
        status: 204,
        stored: Some(false),
        ids: &["form-117", "form-118", "form-120", "form-122", "form-123", "form-124"],
    },
    LineDeparture {
        why: "the same, and influxd lists a field without points; a backend that has just got the database is not sent \
            what another circle has refused already, and has no such field",
        status: 204,
        stored: None,
        ids: &["dup-020", "dup-021"],
    },
    LineDeparture {
        why: "exactly 100, 200, 400, 800 tags: influxd panics and loses the request",
        status: 400,
        stored: Some(false),
        ids: &["tags-005", "tags-009", "tags-013", "tags-015", "tags-016", "tags-020"],
    },
    LineDeparture {
        why: "the same, and the good line beside it is kept",
        status: 400,
        stored: Some(true),
        ids: &["tags-019"],
    },
    LineDeparture {
        why: "names that are no UTF-8: influxd could not open the shard again after a restart, and lists a field \
            without points; good lines beside them are kept",
        status: 400,
        stored: Some(true),
        ids: &[
            "utf8-001", "utf8-004", "utf8-006", "utf8-009", "utf8-011", "utf8-014", "utf8-016", "utf8-019", "utf8-021",
            "utf8-024", "utf8-026", "utf8-029", "utf8-031", "utf8-034", "utf8-036", "utf8-039", "utf8-045", "utf8-046",
            "utf8-047",
        ],
    },
    LineDeparture {
        why: "values that influxd cannot store: 500 for the whole batch, and a field without points is left behind",
        status: 400,
        stored: Some(true),
        ids: &["poison-001", "poison-002", "poison-003", "poison-004", "poison-005"],
    },
    LineDeparture {
        why: "a value of one lone quote ends influxd",
        status: 400,
        stored: Some(false),
        ids: &["poison-007", "poison-008"],
    },
    LineDeparture {
        why: "no database given: influx-proxy's text",
        status: 400,
        stored: Some(false),
        ids: &["http-007", "http-008", "http-016", "http-019", "http-021"],
    },
];

/// One recorded request and the database it goes to.
struct Case {
    id: String,
    db: String,
    target: String,
    headers: Vec<String>,
    chunked: bool,
    body: Vec<u8>,
    /// Recorded to have ended the server: not sent to the plain one.
    deadly: bool,
}

impl Case {
    fn new(record: &Value, db: &str) -> Self {
        let query = match record["query"].as_str() {
            Some(query) => query.to_owned(),
            None => {
                let params = record["params"].as_object().unwrap().iter();
                let params = params.map(|(key, value)| format!("&{key}={}", url_encoded(value.as_str().unwrap())));
                format!("db={}{}", url_encoded(db), params.collect::<String>())
            }
        };
        let headers = record["headers"].as_object().into_iter().flatten();
        Self {
            id: record["id"].as_str().unwrap().to_owned(),
            db: db.to_owned(),
            target: format!("/write?{query}"),
            headers: headers.map(|(name, value)| format!("{name}: {}", value.as_str().unwrap())).collect(),
            chunked: record["chunked"] == true,
            body: line_protocol(record),
            deadly: record["server_ended"] == true,
        }
    }

    fn send(&self, client: &mut Client) -> Reply {
        let mut head = format!("POST {} HTTP/1.1\r\nHost: test\r\n", self.target);
        self.headers.iter().for_each(|header| head += &format!("{header}\r\n"));
        let body = if self.chunked {
            head += "Transfer-Encoding: chunked\r\n\r\n";
            let size = format!("{:x}\r\n", self.body.len());
            let data = [size.as_bytes(), &self.body, b"\r\n"].concat();
            [if self.body.is_empty() { &[] } else { data.as_slice() }, b"0\r\n\r\n"].concat()
        } else {
            head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
            self.body.clone()
        };
        client.send(&[head.as_bytes(), &body].concat()).unwrap();
        client.receive().unwrap().unwrap_or_else(|| panic!("{}: closed without an answer", self.id))
    }
}

/// What must be equal of two answers: status, `X-Influxdb-Error`, and the error of a JSON body or another body as it
/// is. InfluxDB sends control bytes in the header as they are, which no HTTP parser takes; here they are blanks.
fn answer(reply: &Reply) -> (u16, Option<String>, String) {
    // The header may hold bytes that are no UTF-8, so not by `Reply::header`.
    let head = reply.raw.split(|&byte| byte == b'\n').take_while(|line| *line != b"\r");
    let header = head.filter_map(|line| line.strip_prefix(b"X-Influxdb-Error: ")?.strip_suffix(b"\r")).next();
    let blanked = |text: &[u8]| {
        let blanked: Vec<_> =
            text.trim_ascii_end().iter().map(|&byte| if byte.is_ascii_control() { b' ' } else { byte }).collect();
        blanked.escape_ascii().to_string()
    };
    let body = match serde_json::from_slice::<Value>(&reply.body) {
        Ok(Value::Object(body)) => body["error"].to_string(),
        _ => String::from_utf8_lossy(&reply.body).into_owned(),
    };
    (reply.status, header.map(blanked), body)
}

/// The body of the request of a record.
fn line_protocol(record: &Value) -> Vec<u8> {
    match (&record["body_base64"], &record["body_parts"]) {
        (Value::String(text), _) => golden::bytes(&json!({ "base64": text })),
        (_, parts @ Value::Array(_)) => golden::bytes(parts),
        _ => golden::bytes(&record["body"]),
    }
}

/// Whether the record is one of those compared here.
fn applies(record: &Value) -> bool {
    let has = |key: &str| record.get(key).is_some_and(|value| !value.is_null());
    let family = record["id"].as_str().unwrap().split('-').next().unwrap();
    let short = record["create"].to_string().contains("DURATION 1h NAME") || record["params"]["rp"] == "short";
    !["method", "path", "server", "setup"].iter().any(|key| has(key)) && family != "type" && !short
}

/// Two backslashes before a byte that needs one: which other measurements a server has decides whether InfluxDB finds
/// such a name again.
fn hardly_readable(body: &[u8]) -> bool {
    body.windows(3).any(|bytes| bytes.starts_with(b"\\\\") && b" ,=\"".contains(&bytes[2]))
}

/// Databases shared by records that cannot disturb each other: no point, no spelling of a series and no type of a
/// field of one meets another.
#[derive(Default)]
struct SharedDatabases {
    databases: Vec<Tenants>,
}

#[derive(Default)]
struct Tenants {
    points: BTreeSet<String>,
    series: BTreeSet<String>,
    types: BTreeMap<String, String>,
}

impl SharedDatabases {
    /// The number of a database that can take this record.
    fn place(&mut self, record: &Value) -> usize {
        let points = record["stored"].as_array().unwrap();
        let mut mine = Tenants::default();
        for point in points {
            let series = format!("{} {}", point["m"], point["t"]);
            let plain = series.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" \"[],".contains(&byte));
            if plain && point["ts"].is_i64() {
                mine.points.insert(format!("{series} {}", point["ts"]));
            } else {
                mine.series.insert(series.clone());
            }
            mine.points.insert(format!("{series} exists"));
            for field in point["f"].as_array().unwrap() {
                mine.types.insert(format!("{} {}", point["m"], field[0]), field[1].to_string());
            }
        }
        let free = |there: &Tenants| {
            let met = |point: &String| there.points.contains(point) && !point.ends_with(" exists");
            let alone = |series: &String| there.points.contains(&format!("{series} exists"));
            let taken = |point: &String| point.strip_suffix(" exists").is_some_and(|s| there.series.contains(s));
            let other = |(field, kind): (&String, &String)| there.types.get(field).is_some_and(|there| there != kind);
            !mine.points.iter().any(|point| met(point) || taken(point))
                && !mine.series.iter().any(alone)
                && !mine.types.iter().any(other)
        };
        let number = self.databases.iter().position(free).unwrap_or(self.databases.len());
        if number == self.databases.len() {
            self.databases.push(Tenants::default());
        }
        let there = &mut self.databases[number];
        there.points.append(&mut mine.points);
        there.series.append(&mut mine.series);
        there.types.append(&mut mine.types);
        number
    }
}

/// Everything a server holds in a database, a text per point and field. A time since `start` is `now`.
fn contents(client: &mut Client, db: &str, policies: &[&str], start: i64) -> Vec<String> {
    let named = ask(client, db, &["SHOW MEASUREMENTS".to_owned()]);
    let rows = named[0].iter().flat_map(|series| series["values"].as_array().unwrap());
    let names: BTreeSet<_> = rows.map(|row| row[0].as_str().unwrap()).collect();
    // One by one: a type of a field in one measurement would hide the other type in another.
    // As expressions, since a quoted name cannot hold every byte.
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:x}}}", c as u32) };
    let sources = names.iter().map(|name| format!("/^{}$/", name.chars().map(letter).collect::<String>()));
    let with_policies = |source: String| {
        let named = policies.iter().map(|policy| format!("\"{policy}\".{source}")).collect::<Vec<_>>();
        if named.is_empty() { vec![source] } else { named }
    };
    let statement = |source: String| format!("SELECT * FROM {source} GROUP BY *");
    let mut statements = vec!["SHOW FIELD KEYS".to_owned()];
    statements.extend(sources.flat_map(with_policies).map(statement));
    let mut found = Vec::new();
    for (statement, series) in statements.iter().zip(ask(client, db, &statements)) {
        for series in series {
            let tags = series["tags"].as_object().into_iter().flatten();
            let tags = tags.map(|(key, value)| format!(",{key:?}={value}")).collect::<String>();
            let columns = series["columns"].as_array().unwrap();
            for row in series["values"].as_array().unwrap() {
                let cells = columns.iter().zip(row.as_array().unwrap()).filter(|(_, value)| !value.is_null());
                let cells = cells.map(|(column, value)| match value.as_i64() {
                    Some(time) if column == "time" && time >= start => " now".to_owned(),
                    _ => format!(" {column}={value}"),
                });
                found.push(format!("{statement}: {}{tags}{}", series["name"], cells.collect::<String>()));
            }
        }
    }
    found
}

/// The series each statement finds.
fn ask(client: &mut Client, db: &str, statements: &[String]) -> Vec<Vec<Value>> {
    let target = format!("/query?epoch=ns&db={}", url_encoded(db));
    let form = format!("q={}", url_encoded(&statements.join(";")));
    let headers = ["Content-Type: application/x-www-form-urlencoded"];
    let reply = client.request("POST", &target, &headers, form.as_bytes()).unwrap();
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{db}: {statements:?}: {answer}"));
    let mut found = Vec::new();
    for result in results {
        if let Some(error) = result.get("error") {
            // The other backend of the circle has no part of this database.
            let absent = ["database not found", "retention policy not found"];
            assert!(absent.iter().any(|text| error.to_string().contains(text)), "{db}: {statements:?}: {error}");
        }
        found.push(result["series"].as_array().cloned().unwrap_or_default());
    }
    // After an error the rest is not executed.
    found.resize(statements.len(), Vec::new());
    found
}

fn sorted(parts: Vec<Vec<String>>) -> Vec<String> {
    let mut all = parts.concat();
    all.sort();
    all
}

#[test]
fn a_write_through_the_proxy_is_a_write_to_influxdb() {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    let departing: BTreeMap<&str, &LineDeparture> =
        DEPARTURES.iter().flat_map(|departure| departure.ids.iter().map(move |id| (*id, departure))).collect();

    // Which request goes to which database.
    let mut shared = SharedDatabases::default();
    let mut databases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut cases = Vec::new();
    for record in golden::records("lineproto.jsonl").iter().filter(|record| applies(record)) {
        let keys = ["query", "create", "fields_without_points", "server_ended"];
        let own = keys.iter().any(|key| record.get(key).is_some())
            || departing.contains_key(record["id"].as_str().unwrap())
            || hardly_readable(&line_protocol(record));
        let db = match own {
            true => record["db"].as_str().unwrap().to_owned(),
            false => format!("shared_{}", shared.place(record)),
        };
        let create = record["create"].as_array().cloned().unwrap_or_else(|| vec!["CREATE DATABASE \"$db\"".into()]);
        let statements = create.iter().map(|statement| statement.as_str().unwrap().replace("$db", &db)).collect();
        databases.insert(db.clone(), statements);
        cases.push(Case::new(record, &db));
    }

    let plain = Influxd::start().unwrap();
    let circles: Vec<Vec<Influxd>> = (0..2).map(|_| (0..2).map(|_| Influxd::start().unwrap()).collect()).collect();
    for statement in databases.values().flatten() {
        // On one backend only; the proxy brings it to the others.
        plain.query("", statement).unwrap();
        circles[0][0].query("", statement).unwrap();
    }
    let urls: Vec<Vec<_>> = circles.iter().map(|circle| circle.iter().map(Influxd::url).collect()).collect();
    // One worker: which of two conflicting points comes first must not depend on the connection.
    // Longer than a disk under all these databases stalls: an answer in time is not what is compared here.
    let proxy = support::start(&ProxyConfig::new(&urls).set("workers", 1).set("write_timeout", 60));

    let mut to_plain = Client::connect(plain.addr()).unwrap();
    let mut to_proxy = Client::connect(proxy.addr()).unwrap();
    let mut wrong = Vec::new();
    let mut answered_otherwise = BTreeMap::new();
    for case in &cases {
        let through = case.send(&mut to_proxy);
        let direct = (!case.deadly).then(|| case.send(&mut to_plain));
        if through.closes() {
            to_proxy = Client::connect(proxy.addr()).unwrap();
        }
        if direct.as_ref().is_none_or(Reply::closes) {
            to_plain = Client::connect(plain.addr()).unwrap();
        }
        let (through, direct) = (answer(&through), direct.as_ref().map(answer));
        if Some(&through) != direct.as_ref() {
            answered_otherwise.insert(case.id.as_str(), (direct, through));
        }
    }

    let ledger = proxy.drained(Duration::from_secs(60)).unwrap();
    assert!(ledger.proven_balanced(), "{ledger:?}\n{}", proxy.stderr());

    // What each database holds.
    let mut to_plain = Client::connect(plain.addr()).unwrap();
    let mut to_backends: Vec<Vec<Client>> = circles
        .iter()
        .map(|circle| circle.iter().map(|backend| Client::connect(backend.addr()).unwrap()).collect())
        .collect();
    let mut stored_otherwise = BTreeMap::new();
    let mut series = 0;
    // Points without a time may have been cut down to the hour.
    let start = started - 3_600_000_000_000;
    for (db, create) in &databases {
        let policies: &[&str] = if create.len() > 1 { &["autogen", "other", "short"] } else { &[] };
        let want = sorted(vec![contents(&mut to_plain, db, policies, start)]);
        series += want.len();
        for (number, circle) in to_backends.iter_mut().enumerate() {
            let got = sorted(circle.iter_mut().map(|backend| contents(backend, db, policies, start)).collect());
            if got != want {
                stored_otherwise.insert(db.as_str(), (number, want.clone(), got));
            }
        }
    }

    for case in &cases {
        let id = case.id.as_str();
        let (answered, stored) = (answered_otherwise.get(id), stored_otherwise.get(case.db.as_str()));
        match departing.get(id) {
            Some(departure) => {
                let status = answered.map(|(_, through)| through.0);
                if status != Some(departure.status)
                    || departure.stored.is_some_and(|differs| stored.is_some() != differs)
                {
                    wrong.push(format!(
                        "{id} departs, but not so: {:?} {:?}",
                        answered.map(|(direct, through)| (direct.as_ref().map(|d| d.0), through)),
                        stored
                    ));
                }
            }
            None => {
                if let Some((direct, through)) = answered {
                    wrong.push(format!("{id} answer\n   influxdb {direct:?}\n   fluxgate {through:?}"));
                }
            }
        }
    }
    for (db, (circle, want, got)) in &stored_otherwise {
        let tenants: Vec<_> = cases.iter().filter(|case| case.db == *db).map(|case| case.id.as_str()).collect();
        if !tenants.iter().all(|id| departing.get(id).is_some_and(|departure| departure.stored != Some(false))) {
            let lacks: Vec<_> = want.iter().filter(|text| !got.contains(text)).collect();
            let has: Vec<_> = got.iter().filter(|text| !want.contains(text)).collect();
            wrong.push(format!("{db} of {tenants:?} in circle {circle}\n   lacks {lacks:?}\n   has {has:?}"));
        }
    }
    let gone = departing.keys().filter(|id| !cases.iter().any(|case| case.id == **id));
    wrong.extend(gone.map(|id| format!("{id} is not among the records any more")));
    eprintln!(
        "{} requests, {} databases, {series} series and fields, ledger {:?}",
        cases.len(),
        databases.len(),
        ledger.totals
    );
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases.len() >= COMPARED_MIN, "only {} requests compared", cases.len());
    for departure in DEPARTURES {
        assert!(!departure.why.is_empty() && !departure.ids.is_empty());
    }
}

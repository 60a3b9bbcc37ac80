//! Promise: the simulator's model of InfluxDB says and keeps what a real one does. Generated writes and statements are
//! given to both. After each: same status, same text, same points, same types of fields.

#![cfg(feature = "sim")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluxgate_machine::Rng;
use fluxgate_sim::hosts::{Place, database, measurement};
use fluxgate_sim::influx::{Influx, POLICY, Policy};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Exchanges with each server.
const EXCHANGES: usize = 1500;
const DATABASES: usize = 3;
const MEASUREMENTS: usize = 3;
const SECOND: i64 = 1_000_000_000;
/// The policy that keeps an hour.
const SHORT: &str = "short";

/// A real server.
struct RealServer {
    process: Child,
    http: SocketAddr,
    dir: PathBuf,
    _kept: [Socket; 2],
}

/// Two free ports. The server may listen there; nobody else is given them while the sockets live.
fn free_ports() -> ([SocketAddr; 2], [Socket; 2]) {
    let kept = [(); 2].map(|()| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket
    });
    (kept.each_ref().map(|socket| socket.local_addr().unwrap().as_socket().unwrap()), kept)
}

impl RealServer {
    fn start(settings: &[(&str, usize)]) -> Self {
        let ([backup, http], kept) = free_ports();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("influxd-{}", http.port()));
        let path = |name: &str| dir.join(name);
        let process = Command::new("influxd")
            .env("INFLUXDB_HTTP_BIND_ADDRESS", http.to_string())
            .env("INFLUXDB_BIND_ADDRESS", backup.to_string())
            .env("INFLUXDB_META_DIR", path("meta"))
            .env("INFLUXDB_DATA_DIR", path("data"))
            .env("INFLUXDB_DATA_WAL_DIR", path("wal"))
            .env("INFLUXDB_REPORTING_DISABLED", "true")
            .env("INFLUXDB_MONITOR_STORE_ENABLED", "false")
            .envs(settings.iter().map(|(name, value)| (name, value.to_string())))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("influxd is installed by `make setup`");
        let server = Self { process, http, dir, _kept: kept };
        for _ in 0..1500 {
            if TcpStream::connect(http).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("influxd does not start");
    }

    /// Status and body of an answer.
    fn ask(&self, target: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let length = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut answer = String::new();
        // It may close the connection of a request that it has not read to the end.
        let _ = stream.read_to_string(&mut answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} to {target}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("{head}")), body.to_owned())
    }

    fn write(&self, db: &str, rp: &str, lines: &str) -> (u16, String) {
        let rp = if rp.is_empty() { String::new() } else { format!("&rp={rp}") };
        let (status, body) = self.ask(&format!("/write?db={db}{rp}"), lines);
        let error = serde_json::from_str::<Value>(&body).map_or(Value::Null, |body| body["error"].clone());
        (status, error.as_str().unwrap_or_default().to_owned())
    }

    fn query(&self, text: &str) -> Value {
        let q: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        // Answers of several thousand bytes come in chunks, unless the client is older.
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.write_all(format!("POST /query?epoch=ns&q={q} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?} to {text}")).1;
        serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer} to {text}"))
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// What is stored in a policy: values by (measurement, number, time), and the types of each measurement's field.
type Stored = (BTreeMap<(usize, usize, i64), usize>, BTreeMap<usize, BTreeSet<bool>>);

fn stored_by_model(model: &Influx, db: usize, policy: usize) -> Stored {
    let values = model.history.iter().filter(|((place, rp, _), _)| (place.db, *rp) == (db, policy));
    let values = values.map(|(&(Place { measurement, number, .. }, _, time), history)| {
        ((measurement, number, time), history.last().expect("what is there was written").1)
    });
    let types = (0..MEASUREMENTS).map(|measurement| (measurement, model.types(db, policy, measurement)));
    (values.collect(), types.filter(|(_, types)| !types.is_empty()).collect())
}

fn stored_by_influxd(server: &RealServer, db: usize, rp: &str) -> Stored {
    let db = database(db);
    let answer =
        server.query(&format!("SELECT v FROM {db}.{rp}./.*/ GROUP BY p; SHOW FIELD KEYS ON {db} FROM {rp}./.*/"));
    let series = |statement: usize| answer["results"][statement]["series"].as_array().cloned().unwrap_or_default();
    let number = |name: &Value| name.as_str().unwrap()[1..].parse::<usize>().unwrap();
    let mut stored = Stored::default();
    for series in series(0) {
        let point = series["tags"]["p"].as_str().unwrap().parse().unwrap();
        for row in series["values"].as_array().unwrap() {
            let value = row[1].as_f64().unwrap() as usize;
            stored.0.insert((number(&series["name"]), point, row[0].as_i64().unwrap()), value);
        }
    }
    for series in series(1) {
        let fields = series["values"].as_array().unwrap().iter().filter(|field| field[0] == "v");
        let types = fields.map(|field| match field[1].as_str() {
            Some("float") => true,
            Some("integer") => false,
            other => panic!("{other:?}"),
        });
        let types: BTreeSet<bool> = types.collect();
        if !types.is_empty() {
            stored.1.insert(number(&series["name"]), types);
        }
    }
    stored
}

/// The policies that each database has when it has been created, the default first.
fn policies(db: usize) -> Vec<Policy> {
    let short = Policy { name: SHORT.into(), keeps_hours: Some(1) };
    match db {
        0 => vec![Policy::autogen(), short],
        1 => vec![short],
        _ => vec![Policy::autogen(), Policy { name: "days".into(), keeps_hours: Some(30_000 * 24) }],
    }
}

fn create(server: &RealServer, model: &mut Influx, db: usize) {
    let name = database(db);
    let policies = policies(db);
    let made = match db {
        1 => format!("CREATE DATABASE {name} WITH DURATION 1h NAME {SHORT}"),
        _ => {
            let (policy, days) = (&policies[1].name, policies[1].keeps_hours.expect("not for ever"));
            let of = format!("CREATE RETENTION POLICY {policy} ON {name} DURATION {days}h REPLICATION 1");
            format!("CREATE DATABASE {name}; {of}")
        }
    };
    let answer = server.query(&made).to_string();
    assert!(!answer.contains("error"), "{answer}");
    model.databases.insert(db, policies);
}

fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// A request: what it is sent to, and its lines. `value` is that of the first line.
fn request(rng: &mut Rng, value: usize) -> (String, &'static str, String) {
    let db = if rng.one_in(40) { 7 } else { rng.below(DATABASES as u64) as usize };
    let rp = match db {
        _ if rng.one_in(10) => *rng.pick(&[POLICY, SHORT, "days", "nowhere"]),
        0 => *rng.pick(&["", POLICY, SHORT]),
        1 => *rng.pick(&["", SHORT]),
        _ => *rng.pick(&["", POLICY, "days"]),
    };
    let short = rp == SHORT || (db == 1 && rp.is_empty());
    let now = clock();
    // The newest hour of which some has passed. All lines are of one shard or too old: shards are written side by side,
    // so that which of two errors is told is a matter of luck.
    let hour = (now - 60 * SECOND).div_euclid(3600 * SECOND) * 3600 * SECOND;
    let newest = hour.max(now - 3500 * SECOND) / SECOND * SECOND;
    let week = *rng.pick(&[1_700_000_000, 1_700_000_000, 1_700_100_000, 1_600_000_000]) * SECOND;
    let mut lines = String::new();
    let several = if rng.one_in(3) { 1 } else { 1 + rng.below(12) };
    for line in 0..several as usize {
        let time = match short {
            true if rng.one_in(4) => *rng.pick(&[now - 2 * 3600 * SECOND, 1_500_000_000 * SECOND]),
            true => newest + rng.below(3) as i64,
            false => week + rng.below(3) as i64,
        };
        let kind = if rng.one_in(2) { "i" } else { "" };
        let long = if rng.one_in(20) { format!(",s=\"{}\"", "s".repeat(300)) } else { String::new() };
        let (measurement, number) = (measurement(rng.below(MEASUREMENTS as u64) as usize), rng.below(6));
        lines += &format!("{measurement},p={number} v={}{kind}{long} {time}\n", value + line);
    }
    (database(db), rp, lines)
}

/// How often each answer was given, digits left out.
type Answers = BTreeMap<String, usize>;

/// Gives both the same, and compares what they say and what they have then.
fn compare(seed: u64, settings: &[(&str, usize)], model: &mut Influx) -> Answers {
    let server = RealServer::start(settings);
    let rng = &mut Rng::new(seed);
    let mut answers = Answers::new();
    (0..DATABASES).for_each(|db| create(&server, model, db));
    let mut value = 0;
    for exchange in 0..EXCHANGES {
        let db = rng.below(DATABASES as u64) as usize;
        let what = match rng.below(60) {
            0 => {
                let answer = server.query(&format!("DROP DATABASE {}", database(db))).to_string();
                assert!(!answer.contains("error"), "{answer}");
                model.drop_database(db);
                "DROP DATABASE".to_owned()
            }
            1 | 2 => {
                let of = rng.below(MEASUREMENTS as u64) as usize;
                let target = format!("/query?db={}&q=DROP%20MEASUREMENT%20{}", database(db), measurement(of));
                assert_eq!(server.ask(&target, "").0, 200);
                model.drop_measurement(db, of);
                "DROP MEASUREMENT".to_owned()
            }
            _ => {
                let (db, rp, lines) = request(rng, value);
                value += lines.lines().count();
                let clock = clock();
                let (status, text) = server.write(&db, rp, &lines);
                let said = match model.write(Duration::from_millis(exchange as u64), clock, &db, rp, lines.as_bytes()) {
                    Ok(()) => (204, String::new()),
                    Err(refusal) => (refusal.status, refusal.text),
                };
                let of = format!("seed {seed}, exchange {exchange}: {db} {rp:?}\n{lines}");
                if std::env::var("TALK").is_ok() {
                    println!("{of} => {status} {text}");
                }
                assert_eq!(said, (status, text.clone()), "the model and influxd: {of}");
                let class: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
                *answers.entry(format!("{status} {class}")).or_default() += 1;
                of
            }
        };
        for (db, policies) in &model.databases {
            for (policy, rp) in policies.iter().enumerate() {
                let (said, stored) = (stored_by_model(model, *db, policy), stored_by_influxd(&server, *db, &rp.name));
                assert_eq!(said, stored, "the model and influxd, {} {}: {what}", database(*db), rp.name);
            }
        }
        if rng.one_in(5) {
            let missing = (0..DATABASES).find(|db| !model.databases.contains_key(db));
            missing.into_iter().for_each(|db| create(&server, model, db));
        }
    }
    let writes: usize = answers.values().sum();
    println!("{EXCHANGES} exchanges, {writes} writes: {answers:#?}");
    answers
}

#[track_caller]
fn has(answers: &Answers, texts: &[&str]) {
    for text in texts {
        assert!(answers.keys().any(|answer| answer.starts_with(text)), "nothing was answered {text}: {answers:?}");
    }
}

#[test]
fn writes_are_answered_and_kept_as_by_a_real_influxdb() {
    let answers = compare(1, &[], &mut Influx::default());
    has(
        &answers,
        &[
            "204",
            "400 field type conflict",
            "400 partial write: field type conflict",
            "400 partial write: points beyond retention policy",
            "404 database not found",
            "500 retention policy not found",
        ],
    );
}

#[test]
fn limits_are_those_of_a_real_influxdb() {
    let (series, body) = (9, 400);
    let mut model = Influx::default();
    (model.series_max, model.body_max) = (Some(series), Some(body));
    let settings = [("INFLUXDB_DATA_MAX_SERIES_PER_DATABASE", series), ("INFLUXDB_HTTP_MAX_BODY_SIZE", body)];
    let answers = compare(2, &settings, &mut model);
    has(
        &answers,
        &["204", "400 partial write: max-series-per-database limit exceeded: ()", "413 Request Entity Too Large"],
    );
}

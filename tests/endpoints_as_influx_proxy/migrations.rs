//! Promise: `/migrate/state`, `/migrate/stats`, `/rebalance`, `/recovery`, `/resync` and `/clear` answer as
//! influx-proxy 2.4.7 was recorded to, `/transfer/state`, `/transfer/stats` and `/cleanup` as 2.5.12, before
//! migrations, after them and while a flag is set; and these leave the same measurements, row by row, at the same
//! servers. Paths that both generations have answer in the words of the one that the configuration is of.
//!
//! The recorder changed servers by hand between records; [`BY_HAND`] does the same. Not here: whether anything is lost
//! under load (`tests/migration`).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluxgate::lab::proxy::{Proxy, backend_name, eventually};
use serde_json::{Value, json};

use crate::answers::{differences, send};
use crate::servers::{Servers, plain, write_to};
use crate::{USER, auth, golden, newer, path};

/// Whether a path is asked here.
pub fn is_of_migration(path: &str) -> bool {
    ["/migrate/state", "/migrate/stats", "/transfer/state", "/transfer/stats"].contains(&path)
        || ["/rebalance", "/recovery", "/resync", "/clear", "/cleanup"].contains(&path)
}

/// Records that are answered differently on purpose, and how.
struct MigrationDeparture {
    why: &'static str,
    ids: &'static [u64],
    /// None: the recorded status.
    status: Option<u16>,
    /// Makes the body from the recorded one.
    body: fn(&str) -> String,
}

const DEPARTURES: &[MigrationDeparture] = &[
    MigrationDeparture {
        why: "a token is taken wherever Basic credentials are, as in 2.5",
        ids: &[622],
        status: Some(200),
        body: |_| recorded("v2.4.7", 619),
    },
    MigrationDeparture {
        why: "the same; the answer is that to the right user",
        ids: &[668],
        status: Some(400),
        body: |_| recorded("v2.4.7", 667),
    },
    MigrationDeparture { why: "the same", ids: &[679], status: Some(400), body: |_| recorded("v2.4.7", 672) },
    MigrationDeparture {
        why: "paths that only 2.5 has are there as well",
        ids: &[765],
        status: Some(200),
        body: |_| recorded("v2.5.12", 766),
    },
    MigrationDeparture {
        why: "a removed backend is in the counters of the run that removed it, not in those of all later runs",
        ids: &[926, 929, 931, 933, 936],
        status: None,
        body: without_removed,
    },
];

const DEPARTURES_2_5: &[MigrationDeparture] = &[
    MigrationDeparture { why: "a path of 2.4.7", ids: &[769], status: Some(200), body: |_| recorded("v2.4.7", 762) },
    MigrationDeparture { why: "a path of 2.4.7", ids: &[832], status: Some(200), body: |_| recorded("v2.4.7", 812) },
    MigrationDeparture {
        why: "a removed backend is in the counters of the run that removed it, not in those of all later runs",
        ids: &[940, 943, 945, 947, 950],
        status: None,
        body: without_removed,
    },
    MigrationDeparture {
        why: "2.5 was still trying to reach the stopped server; here the resync has been ended by hand",
        ids: &[977, 979],
        status: None,
        body: |recorded| recorded.replace("\"resyncing\":true", "\"resyncing\":false"),
    },
    MigrationDeparture {
        why: "and so a rebalance may begin",
        ids: &[978],
        status: Some(202),
        body: |_| "accepted\n".to_owned(),
    },
    MigrationDeparture {
        why: "counters of a rebalance, where 2.5 shows those of the resync: it does not look at `type`",
        ids: &[980],
        status: None,
        body: |recorded| {
            recorded.replace("\"transfer_count\":13,\"inplace_count\":0", "\"transfer_count\":0,\"inplace_count\":13")
        },
    },
];

/// The body of another record.
fn recorded(version: &str, id: u64) -> String {
    let records = golden::records(&format!("{version}.jsonl"));
    let record = records.iter().find(|record| record["id"] == id).unwrap();
    String::from_utf8(golden::bytes(&record["response"]["body"])).unwrap()
}

/// The counters without the backend that an earlier run removed.
fn without_removed(recorded: &str) -> String {
    let (rest, removed) = recorded.split_once(",\"http://127.0.0.1:18089\":").expect("the last one");
    assert!(removed.starts_with("{\"database_total\":0,") && removed.ends_with("}}\n"), "{removed}");
    format!("{rest}}}\n")
}

/// What was done before a record, which is named by its number or its note: to the server (circle, number in it) the
/// statements of a database.
const BY_HAND: &[(&str, (usize, usize), &str, &str)] = &[
    ("databases dropped on influxdb-2-2", (1, 1), "", "DROP DATABASE db1; DROP DATABASE db2"),
    // What is in db2 comes back, what is in db1 does not.
    ("928", (1, 1), "db1", "DROP MEASUREMENT cpu1"),
    ("928", (1, 1), "db2", "DROP MEASUREMENT cpu2"),
    ("932", (0, 1), "db1", "DROP MEASUREMENT cpu1"),
    ("935", (1, 0), "db1", "DROP MEASUREMENT cpu3"),
];

/// Records of 2.5.12 have the numbers of 2.4.7 plus this, from 924 on; before that, plus one.
const LATER: u64 = 14;

/// To a server that is stopped. influx-proxy gives up by itself; here the test cancels the migration.
const CANCELLED: [u64; 2] = [962, 976];

/// Which columns of the recorded points are tags or integers; the records do not say.
const TAGS: [&str; 4] = ["host", "region", "tag k", "城市"];
const INTEGERS: [&str; 2] = ["count", "i"];

/// Points of one measurement.
fn lines(name: &str, table: &Value) -> Vec<String> {
    let escaped = |text: &str| text.replace(' ', "\\ ");
    let columns: Vec<_> = table["columns"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    let line = |row: &Value| {
        let cells: Vec<_> = columns.iter().zip(row.as_array().unwrap()).filter(|(_, value)| !value.is_null()).collect();
        let tag = |(column, value): &&(&&str, &Value)| {
            let text = TAGS.contains(*column).then(|| value.as_str().unwrap())?;
            Some(format!(",{}={}", escaped(column), escaped(text)))
        };
        let field = |(column, value): &&(&&str, &Value)| {
            let suffix = if INTEGERS.contains(*column) { "i" } else { "" };
            let is_field = **column != "time" && !TAGS.contains(*column);
            is_field.then(|| format!("{}={value}{suffix}", escaped(column)))
        };
        let tags: String = cells.iter().filter_map(|cell| tag(&cell)).collect();
        let fields: Vec<_> = cells.iter().filter_map(|cell| field(&cell)).collect();
        format!("{}{tags} {} {}", escaped(name), fields.join(","), row[0])
    };
    table["values"].as_array().unwrap().iter().map(line).collect()
}

/// Another proxy that only listens: method and target of what it is asked.
struct Peer {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = Self { addr: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&peer.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head: Vec<_> =
                    BufReader::new(&stream).lines().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
                let target =
                    head.first().and_then(|line| line.strip_suffix(" HTTP/1.1")).unwrap_or_default().to_owned();
                asked.lock().unwrap().push(target);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        peer
    }

    /// What it has been told since the last time, without what only fluxgate says and asks. It is told again and again,
    /// in case it has forgotten.
    fn told(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        let told = asked.into_iter().filter(|asked| asked.starts_with("POST "));
        let mut told: Vec<_> = told.map(|told| told.replace("&moved=true", "")).collect();
        told.dedup();
        told
    }
}

/// One generation's records, and what is compared with them.
struct Replay {
    version: &'static str,
    departures: &'static [MigrationDeparture],
    records: Vec<Value>,
    servers: Servers,
    peer: Peer,
    answers: usize,
    effects: usize,
    wrong: Vec<String>,
}

impl Replay {
    /// The record with this note.
    fn noted(&self, note: &str) -> &Value {
        self.records.iter().find(|record| record["note"] == note).unwrap()
    }

    /// The servers as they were at the beginning of a part, and a proxy before them.
    fn begin(&mut self, part: &str) -> Proxy {
        self.servers.circles.iter_mut().flatten().filter(|s| s.pid().is_none()).for_each(|s| s.restart().unwrap());
        self.servers.empty();
        let rows = &self.noted("rows of db1 in every backend after the runs")["effect"];
        let mut tables: BTreeMap<_, _> =
            rows.as_object().unwrap().values().flat_map(|t| t.as_object().unwrap()).collect();
        let mut placed = self.noted("placement before the runs")["effect"].clone();
        if part == "down" {
            // The measurements of the earlier runs are gone, and there are others.
            let written = &self.noted("write with a backend down")["effect"];
            let one = json!({"columns": ["time", "value"], "values": [[1_600_000_000_000_000_000_i64, 1]]});
            for (c, b, _) in self.servers.all() {
                let like = if written[backend_name(c, b)].is_array() { backend_name(c, b) } else { backend_name(1, b) };
                placed["db1"][backend_name(c, b)] = written[like].clone();
            }
            let names = ["dn0", "dn1", "dn2", "dn3", "dn4", "dn5", "dn6", "dn7"].map(str::to_owned);
            let new: BTreeMap<_, _> = names.iter().map(|name| (name, &one)).collect();
            tables.extend(new);
            self.load(&placed, &tables);
        } else if part != "auth" {
            self.load(&placed, &tables);
        }
        if part == "down" {
            self.servers.circles[0][1].kill();
        }
        let mut keys = if part == "auth" { auth().to_vec() } else { Vec::new() };
        if self.version == "v2.5.12" {
            keys.extend(newer());
        }
        self.servers.proxy(&keys)
    }

    fn load(&self, placed: &Value, tables: &BTreeMap<&String, &Value>) {
        for (c, b, server) in self.servers.all() {
            for db in ["db1", "db2"] {
                server.create_database(db).unwrap();
                for name in placed[db][backend_name(c, b)].as_array().unwrap().iter().map(|name| name.as_str().unwrap())
                {
                    write_to(server, db, &lines(name, tables[&name.to_owned()]).join("\n"));
                }
            }
        }
    }

    /// Does to the servers what was done before the record was made.
    fn by_hand(&self, record: &Value) {
        let id = record["id"].as_u64();
        let older = id.map(|id| if self.version == "v2.4.7" { id } else { id - LATER });
        if older == Some(913) || id == Some(928) && self.version != "v2.4.7" {
            let table = &self.noted("mis1 rows after rebalance")["effect"]["influxdb-1-2"];
            write_to(&self.servers.circles[0][1], "db1", &lines("mis1", table).join("\n"));
        }
        for (name, (c, b), db, statement) in BY_HAND {
            if older.is_some_and(|id| id.to_string() == *name) || record["note"] == *name {
                self.servers.circles[*c][*b].query(db, statement).unwrap();
            }
        }
    }

    /// Sets the flags that were set when the record was made.
    fn set_flags(&self, record: &Value, proxy: &Proxy) {
        if !["state", "auth", "stats", "params"].contains(&record["group"].as_str().unwrap()) {
            return;
        }
        let set = |query: &str| {
            let request = json!({"method": "POST", "path": format!("/migrate/state?{query}&{USER}")});
            assert_eq!(send(proxy.addr(), &request).status, 200, "{query}");
        };
        let note = record["note"].as_str().unwrap_or_default();
        let is_state = path(record).ends_with("/state");
        if is_state && record["request"]["method"] == "GET" && record["response"]["status"] == 200 {
            let recorded: Value = serde_json::from_slice(&golden::bytes(&record["response"]["body"])).unwrap();
            let flag = |value: &Value, names: [&str; 2]| names.iter().find_map(|name| value[*name].as_bool()).unwrap();
            for circle in 0..2 {
                let is_set = flag(&recorded["circles"][circle], ["is_migrating", "transferring"]);
                set(&format!("circle_id={circle}&migrating={is_set}"));
            }
            set(&format!("resyncing={}", flag(&recorded, ["is_resyncing", "resyncing"])));
        } else if !is_state {
            set(&format!("circle_id=0&migrating={}", note.contains("while circle 0")));
            set("circle_id=1&migrating=false");
            set(&format!("resyncing={}", note.contains("while resyncing")));
        }
    }

    /// The request with the addresses of this run.
    fn request(&self, record: &Value, proxy: &Proxy) -> Value {
        let text = record["request"].to_string();
        let text = text.replace("127.0.0.1:18500", &proxy.addr().to_string());
        let text = text.replace("127.0.0.1:18590", &self.peer.addr.to_string());
        serde_json::from_slice(&self.servers.here(text.into_bytes())).unwrap()
    }

    fn ask(&mut self, record: &Value, proxy: &Proxy) {
        self.by_hand(record);
        self.set_flags(record, proxy);
        let id = record["id"].as_u64().unwrap();
        let got = send(proxy.addr(), &self.request(record, proxy));
        if got.status == 202 && got.body == b"accepted\n" {
            wait(proxy, CANCELLED.contains(&id));
        }
        let mut want = record.clone();
        let departure = self.departures.iter().find(|departure| departure.ids.contains(&id));
        let found = differences(&self.servers, record, &got);
        if let Some(departure) = departure {
            let recorded = String::from_utf8(golden::bytes(&record["response"]["body"])).unwrap();
            let body = (departure.body)(&recorded);
            let kind = if body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
            if let Some(status) = departure.status {
                want["response"]["status"] = status.into();
            }
            want["response"]["headers"] = json!([["Content-Type", kind]]);
            want["response"]["body"] = body.into();
            if found.is_empty() {
                self.wrong.push(format!("{id} does not depart any more"));
            }
        }
        let found = differences(&self.servers, &want, &got);
        if !found.is_empty() {
            self.wrong.push(format!("{id} {}: {found:?}", record["request"]));
        }
        self.answers += 1;
        if let Some(effect) = record.get("effect") {
            self.compare(&format!("after {id}"), &self.lying(), effect);
        }
    }

    /// Which measurements lie where.
    fn lying(&self) -> Value {
        json!({"db1": self.servers.measurements("db1"), "db2": self.servers.measurements("db2")})
    }

    fn compare(&mut self, what: &str, got: &Value, want: &Value) {
        self.effects += 1;
        if got != want {
            self.wrong.push(format!("{what}: {got}, recorded {want}"));
        }
    }

    /// A record of what was there, or what another proxy was told.
    fn look(&mut self, record: &Value) {
        self.by_hand(record);
        let (note, effect) = (record["note"].as_str().unwrap(), &record["effect"]);
        match note {
            // influx-proxy writes nothing where a database is missing, and says that it has. Here everything is back.
            "after recovery into absent databases" => {
                let back = self.records.iter().find(|record| record["id"] == 926).unwrap()["effect"].clone();
                assert_ne!(back, *effect);
                self.compare(note, &self.lying(), &back);
            }
            "mis1 rows after rebalance" => {
                let of = |table: &Value| if table.is_null() { json!({}) } else { json!({"mis1": table}) };
                let all = self.servers.contents("db1");
                let names = effect.as_object().unwrap().iter();
                let want: Value = names.clone().map(|(name, table)| (name.clone(), of(table))).collect();
                let got: Value = names.map(|(name, _)| (name.clone(), of(&all[name]["mis1"]))).collect();
                self.compare(note, &got, &plain(&want));
            }
            "rows of db1 in every backend after the runs" => {
                self.compare(note, &self.servers.contents("db1"), &plain(effect));
            }
            // The peer was named in the `ha_addrs` of an earlier call, not of this one.
            "what the other address received for a later resync without ha_addrs" => {
                self.compare(note, &json!(self.peer.told()), &json!([]));
            }
            _ if note.starts_with("what the other address of ha_addrs received") => {
                // Other proxies get the requests of 2.4.7.
                let older = |path: &str| path.replace("/transfer/", "/migrate/").replace("transferring", "migrating");
                let told = |told: &Value| format!("POST {}", older(told["path"].as_str().unwrap()));
                let want: Vec<_> = effect.as_array().unwrap().iter().map(told).collect();
                self.compare(note, &json!(self.peer.told()), &json!(want));
            }
            _ => self.compare(note, &self.lying(), effect),
        }
    }
}

/// Waits for the end of all migrations; with `cancel`, ends them.
fn wait(proxy: &Proxy, cancel: bool) {
    let mut jobs = Value::Null;
    let over = eventually(Duration::from_secs(120), || {
        jobs = serde_json::from_str(&proxy.get(&format!("/migrate/jobs?{USER}")).unwrap().1).unwrap();
        let is_running = |job: &&Value| ["running", "cancelling"].contains(&job["state"].as_str().unwrap());
        let running = jobs.as_array().unwrap().iter().filter(is_running);
        if cancel {
            for job in running.clone() {
                let target = format!("/migrate/jobs/{}?{USER}", job["id"]);
                send(proxy.addr(), &json!({"method": "DELETE", "path": target}));
            }
        }
        running.count() == 0
    });
    assert!(over, "{jobs:#}\n{}", proxy.stderr());
}

/// Which part of the recording a record belongs to; None: it is not asked here.
fn part(record: &Value) -> Option<&'static str> {
    let is_asked = if record["request"].is_object() {
        is_of_migration(path(record))
    } else {
        record["effect"].is_object() || record["group"] == "ha"
    };
    match (record["config"].as_str(), record["group"].as_str()?) {
        _ if !is_asked => None,
        (_, "run" | "ha") => Some("runs"),
        (Some("auth"), _) => Some("auth"),
        (Some("open, influxdb-1-2 stopped"), _) => Some("down"),
        (Some("open"), _) => Some("open"),
        _ => None,
    }
}

/// Whether a record is among those that are repeated here.
pub fn is_repeated(record: &Value) -> bool {
    record["request"].is_object() && part(record).is_some()
}

fn repeat(version: &'static str, departures: &'static [MigrationDeparture], counts: (usize, usize)) {
    let records = golden::records(&format!("{version}.jsonl"));
    let (servers, peer) = (Servers::start(), Peer::start());
    let mut replay = Replay {
        version,
        departures,
        records: records.clone(),
        servers,
        peer,
        answers: 0,
        effects: 0,
        wrong: Vec::new(),
    };
    let mut proxy = None;
    for record in &records {
        let Some(part) = part(record) else { continue };
        if proxy.as_ref().is_none_or(|(of, _)| *of != part) {
            proxy = Some((part, replay.begin(part)));
        }
        let (_, proxy) = proxy.as_ref().expect("just started");
        if record["request"].is_object() { replay.ask(record, proxy) } else { replay.look(record) }
    }
    let Replay { answers, effects, wrong, .. } = replay;
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!((answers, effects), counts, "the records have changed");
    let ids = departures.iter().flat_map(|departure| departure.ids);
    let strays: Vec<_> =
        ids.filter(|id| !records.iter().any(|record| record["id"] == **id && is_repeated(record))).collect();
    assert!(strays.is_empty() && departures.iter().all(|departure| !departure.why.is_empty()), "{strays:?}");
}

#[test]
fn migrations_are_told_of_as_by_2_4_7() {
    repeat("v2.4.7", DEPARTURES, (149, 16));
}

#[test]
fn migrations_are_told_of_as_by_2_5_12() {
    repeat("v2.5.12", DEPARTURES_2_5, (154, 15));
}

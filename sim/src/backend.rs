//! A model of InfluxDB 1.x: the last write of a point wins, a measurement has one type per field, databases have
//! policies. It says what InfluxDB says, as far as the proxy looks at it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use fluxgate_machine::{Group, exec, net};
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::hosts::{self, Place};

pub const POLICY: &str = "autogen";

/// What a backend says instead of its own answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// 503 to everything.
    Unavailable,
    /// 500 with a text of the storage.
    Broken,
    Forbidden,
    /// 200 with a page: somebody else answers in its place.
    Page,
}

#[derive(Default)]
pub struct Influx {
    pub databases: BTreeSet<usize>,
    /// The type of the one field: true = float.
    types: BTreeMap<(usize, usize), bool>,
    /// What a point was given, in order: the last one counts.
    pub history: BTreeMap<Place, Vec<(Duration, usize)>>,
    /// When each write was applied first.
    pub applied: BTreeMap<usize, Duration>,
    /// Writes refused for their own sake.
    pub refused: BTreeMap<usize, &'static str>,
    /// Writes that found no database.
    pub homeless: BTreeSet<usize>,
    says: Vec<(Duration, Option<usize>, Says)>,
    slow: Option<(Duration, Duration)>,
    pub group: Option<Group>,
}

/// What it answers.
enum Answer {
    NoContent,
    Error(u16, String),
    Page,
}

impl Influx {
    pub fn new() -> Self {
        Self { databases: BTreeSet::from([0, 1]), ..Self::default() }
    }

    pub fn is_up(&self) -> bool {
        self.group.is_some()
    }

    pub fn says(&mut self, until: Duration, db: Option<usize>, what: Says) {
        self.says.push((until, db, what));
    }

    pub fn slow(&mut self, until: Duration, by: Duration) {
        self.slow = Some((until, by));
    }

    pub fn heal(&mut self) {
        self.says.clear();
        self.slow = None;
    }

    /// What it says now instead of what it should: to writes of `db`, or to anything when that is None.
    pub fn said(&self, db: Option<usize>) -> Option<Says> {
        let now = exec::now();
        let of = |(until, which, what): &(Duration, Option<usize>, Says)| {
            (*until > now && (which.is_none() || *which == db)).then_some(*what)
        };
        self.says.iter().find_map(of)
    }

    pub fn drop_database(&mut self, db: usize) {
        self.databases.remove(&db);
        self.types.retain(|(of, _), _| *of != db);
        self.history.retain(|place, _| place.db != db);
    }

    fn write(&mut self, db: &str, rp: &str, body: &str) -> Answer {
        let number = db.strip_prefix("db").and_then(|n| n.parse().ok());
        if let Some(said) = self.said(number) {
            return match said {
                Says::Unavailable => Answer::Error(503, "timeout".into()),
                Says::Broken => Answer::Error(500, "engine: error opening new segment file for wal (1)".into()),
                Says::Forbidden => {
                    Answer::Error(403, format!("\"u\" user is not authorized to write to database \"{db}\""))
                }
                Says::Page => Answer::Page,
            };
        }
        let lines = body.lines().filter_map(parse);
        let Some(number) = number.filter(|n| self.databases.contains(n)) else {
            self.homeless.extend(lines.map(|line| line.value));
            return Answer::Error(404, format!("database not found: \"{db}\""));
        };
        if !rp.is_empty() && rp != POLICY {
            return Answer::Error(500, format!("retention policy not found: {rp}"));
        }
        let (now, mut dropped) = (exec::now(), Vec::new());
        for line in lines {
            let place = Place { db: number, measurement: line.measurement, number: line.number };
            let float = *self.types.entry((number, line.measurement)).or_insert(line.float);
            if float != line.float {
                self.refused.insert(line.value, "field type conflict");
                dropped.push(line);
                continue;
            }
            self.history.entry(place).or_default().push((now, line.value));
            self.applied.entry(line.value).or_insert(now);
        }
        match dropped.first() {
            None => Answer::NoContent,
            Some(line) => {
                let name = |float| if float { "float" } else { "integer" };
                Answer::Error(
                    400,
                    format!(
                        "partial write: field type conflict: input field \"v\" on measurement \"{}\" is type {}, \
                         already exists as type {} dropped={}",
                        hosts::measurement(line.measurement),
                        name(line.float),
                        name(!line.float),
                        dropped.len()
                    ),
                )
            }
        }
    }
}

struct Line {
    measurement: usize,
    number: usize,
    value: usize,
    float: bool,
}

/// `m1,p=103 v=77i 1700000000000000000`, as the clients write it; a long line has a string behind the value.
fn parse(line: &str) -> Option<Line> {
    let (key, rest) = line.split_once(' ')?;
    let (measurement, point) = key.split_once(",p=")?;
    let value = rest.split([' ', ',']).next()?.strip_prefix("v=")?;
    let (value, float) = match value.strip_suffix('i') {
        Some(integer) => (integer, false),
        None => (value, true),
    };
    Some(Line {
        measurement: measurement.strip_prefix('m')?.parse().ok()?,
        number: point.parse().ok()?,
        value: value.parse().ok()?,
        float,
    })
}

/// Starts its process.
pub fn start(influx: &Rc<RefCell<Influx>>, number: usize) {
    let group = exec::group(hosts::backend_host(number), format!("b{number}"));
    influx.borrow_mut().group = Some(group);
    let influx = influx.clone();
    exec::spawn_in(group, async move {
        let listener = net::listen(hosts::backend_addr(number));
        while let Ok(stream) = listener.accept().await {
            exec::spawn(serve(influx.clone(), stream));
        }
    });
}

/// Ends it; what it has confirmed stays.
pub fn stop(influx: &Rc<RefCell<Influx>>) {
    let group = influx.borrow_mut().group.take();
    if let Some(group) = group {
        exec::kill(group);
    }
}

async fn serve(influx: Rc<RefCell<Influx>>, mut stream: net::Stream) {
    let mut input = Vec::new();
    while let Some((head, body)) = read_message(&mut stream, &mut input).await {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let param = |name: &str| {
            let found = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
            found.map_or("", |(_, value)| value)
        };
        let (mut think, slow) = (exec::random(|rng| rng.duration(us(50), us(3000))), influx.borrow().slow);
        if let Some((until, by)) = slow
            && path == "/write"
            && until > exec::now()
        {
            think += exec::random(|rng| rng.duration(Duration::ZERO, by));
        }
        exec::sleep(think).await;
        let answer = match (method, path) {
            ("POST", "/write") => {
                let answer = influx.borrow_mut().write(param("db"), param("rp"), &String::from_utf8_lossy(&body));
                exec::trace(|| {
                    let said = match &answer {
                        Answer::NoContent => "204".into(),
                        Answer::Error(status, text) => format!("{status} {text}"),
                        Answer::Page => "200 of somebody else".into(),
                    };
                    let lines = String::from_utf8_lossy(&body).replace("ssssssssss", "").replace('\n', "; ");
                    format!("write {} {lines} => {said}", param("db"))
                });
                answer
            }
            _ => match influx.borrow().said(None) {
                Some(Says::Page) => Answer::Page,
                _ => Answer::NoContent,
            },
        };
        let text = match answer {
            Answer::NoContent => "HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.8.10\r\n\r\n".to_owned(),
            Answer::Error(status, text) => {
                let body = format!("{{\"error\":\"{}\"}}\n", text.replace('"', "\\\""));
                format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nX-Influxdb-Version: 1.8.10\r\n\
                     Content-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
            Answer::Page => "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>".to_owned(),
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// The next request or answer: its head, and a body of the length it names. `input` keeps what follows.
pub async fn read_message(stream: &mut net::Stream, input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = input.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let whole = end + 4 + length.unwrap_or(0);
            if input.len() >= whole {
                let body = input[end + 4..whole].to_vec();
                input.drain(..whole);
                return Some((head, body));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => input.extend_from_slice(&buffer[..n]),
        }
    }
}

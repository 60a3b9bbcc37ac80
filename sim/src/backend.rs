//! A server of InfluxDB: its process and what it says. What it stores is `influx.rs`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use fluxgate_machine::{Group, clock, exec, net};
use futures_lite::AsyncWriteExt;

use crate::hosts;
use crate::influx::Influx;
use crate::setup::DATABASES;

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

/// Bytes taken from the network at a time.
const READ_BYTES: usize = 4096;

pub struct Server {
    /// What it keeps, also when its process ends.
    pub influx: Influx,
    says: Vec<(Duration, Option<usize>, Says)>,
    slow: Option<(Duration, Duration)>,
    pub group: Option<Group>,
    /// Where it listens when it is started next, or since then.
    pub addr: SocketAddr,
    /// What its name is known to mean until then.
    before: (Duration, SocketAddr),
}

/// What it answers.
enum Answer {
    NoContent,
    Error(u16, String),
    Page,
}

impl Server {
    pub fn new(number: usize) -> Self {
        let addr = hosts::backend_addr(number);
        let (influx, before) = (Influx::new(DATABASES), (Duration::ZERO, addr));
        Self { influx, says: Vec::new(), slow: None, group: None, addr, before }
    }

    /// It gets another address, which its name means only from then on.
    pub fn moves(&mut self, known: Duration) {
        self.before = (known, self.resolved());
        self.addr.set_port(self.addr.port() + 1);
    }

    /// What its name means now.
    pub fn resolved(&self) -> SocketAddr {
        let (known, before) = self.before;
        if exec::now() < known { before } else { self.addr }
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
        self.before.0 = Duration::ZERO;
        self.influx.series_max = None;
    }

    /// What it says now instead of what it should: to writes of `db`, or to anything when that is None.
    pub fn said(&self, db: Option<usize>) -> Option<Says> {
        let now = exec::now();
        let of = |(until, which, what): &(Duration, Option<usize>, Says)| {
            (*until > now && (which.is_none() || *which == db)).then_some(*what)
        };
        self.says.iter().find_map(of)
    }

    fn write(&mut self, db: &str, rp: &str, body: &[u8]) -> Answer {
        let number = db.strip_prefix("db").and_then(|n| n.parse().ok());
        match self.said(number) {
            Some(Says::Unavailable) => Answer::Error(503, "timeout".into()),
            Some(Says::Broken) => Answer::Error(500, "engine: error opening new segment file for wal (1)".into()),
            Some(Says::Forbidden) => {
                Answer::Error(403, format!("\"u\" user is not authorized to write to database \"{db}\""))
            }
            Some(Says::Page) => Answer::Page,
            None => {
                let clock = clock::system_time().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
                match self.influx.write(exec::now(), clock, db, rp, body) {
                    Ok(()) => Answer::NoContent,
                    Err(refusal) => Answer::Error(refusal.status, refusal.text),
                }
            }
        }
    }
}

/// Starts its process.
pub fn start(server: &Rc<RefCell<Server>>, number: usize) {
    let group = exec::group(hosts::backend_host(number), format!("b{number}"));
    server.borrow_mut().group = Some(group);
    let (server, addr) = (server.clone(), server.borrow().addr);
    exec::spawn_in(group, async move {
        let listener = net::listen(addr);
        while let Ok(stream) = listener.accept().await {
            exec::spawn(serve(server.clone(), stream));
        }
    });
}

/// Ends it; what it has confirmed stays.
pub fn stop(server: &Rc<RefCell<Server>>) {
    let group = server.borrow_mut().group.take();
    if let Some(group) = group {
        exec::kill(group);
    }
}

async fn serve(server: Rc<RefCell<Server>>, mut stream: net::Stream) {
    let mut input = Vec::new();
    while let Some((head, body)) = read_message(&stream, &mut input).await {
        let mut words = head.splitn(3, ' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (mut db, mut rp) = ("", "");
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "db" => db = value,
                "rp" => rp = value,
                _ => {}
            }
        }
        let (mut think, slow) = (exec::random(|rng| rng.duration(us(50), us(3000))), server.borrow().slow);
        if let Some((until, by)) = slow
            && path == "/write"
            && until > exec::now()
        {
            think += exec::random(|rng| rng.duration(Duration::ZERO, by));
        }
        exec::sleep(think).await;
        let answer = match (method, path) {
            ("POST", "/write") => {
                let answer = server.borrow_mut().write(db, rp, &body);
                exec::trace(|| {
                    let said = match &answer {
                        Answer::NoContent => "204".into(),
                        Answer::Error(status, text) => format!("{status} {text}"),
                        Answer::Page => "200 of somebody else".into(),
                    };
                    let lines = text(&body).replace("ssssssssss", "").replace('\n', "; ");
                    format!("write {db} {lines} => {said}")
                });
                answer
            }
            _ => match server.borrow().said(None) {
                Some(Says::Page) => Answer::Page,
                _ => Answer::NoContent,
            },
        };
        let reply = match answer {
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
        if stream.write_all(reply.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// As `String::from_utf8_lossy`, and quick when it is UTF-8.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let starts = memchr::memchr_iter(b'\n', head).map(|end| end + 1);
    let value = starts.filter_map(|start| head[start..].split_at_checked(NAME.len())).find_map(|(name, value)| {
        let end = memchr::memchr(b'\r', value).unwrap_or(value.len());
        name.eq_ignore_ascii_case(NAME).then_some(&value[..end])
    })?;
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The next request or answer: its head, and a body of the length it names. `input` keeps what follows.
pub async fn read_message(stream: &net::Stream, input: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") {
            let length = content_length(&input[..end]);
            let whole = end + 4 + length.unwrap_or(0);
            if input.len() >= whole {
                let head = text(&input[..end]).into_owned();
                let body = input[end + 4..whole].to_vec();
                input.drain(..whole);
                return Some((head, body));
            }
        }
        if !matches!(stream.read_more(input, READ_BYTES).await, Ok(1..)) {
            return None;
        }
    }
}

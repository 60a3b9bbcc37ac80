//! An in-memory stand-in for an InfluxDB 1.x server, for tests and for the demo on machines without InfluxDB.
//!
//! It answers `/ping`, `/write` and the few statements of the proxy's catalog in InfluxDB's form, counts the points of
//! each database, and stores the integer field `n` with which the load generator numbers points. It can misbehave on
//! request ([`Fault`]), and can be stopped and restarted on its port with its data.
//!
//! Threads and blocking sockets, one thread per connection: simple, not fast. Lines are counted, not checked. A line
//! ends at each LF, so a string value with a line feed counts as two lines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::http1::{Request, RequestState, form_value};
use crate::lab::port::Port;
use crate::lab::serials::Serials;

/// The value of `X-Influxdb-Version`.
pub const VERSION: &str = "1.8.10";
/// Largest request. More: the connection is closed.
const REQUEST_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What happens to a write instead of being stored. `/ping` and `/query` are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No answer; the connection stays open until [`StandIn::stop`] or [`StandIn::always`]`(None)` cuts it.
    Hang,
    /// The connection is cut without an answer. Nothing is stored.
    Reset,
    /// Stored, and the connection cut without an answer.
    StoreAndReset,
    /// This status and body. Nothing is stored.
    Answer(u16, String),
    /// This status and body for writes that contain the first text; nothing of them is stored. Other writes succeed.
    /// Bodies are searched as they come, compressed or not.
    Poison(String, u16, String),
    /// Stored, and answered after this time.
    Slow(Duration),
}

/// What one database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct StoredDatabase {
    points: u64,
    serials: Serials,
    measurements: BTreeSet<Vec<u8>>,
}

#[derive(Default)]
struct StandInState {
    databases: BTreeMap<String, StoredDatabase>,
    /// Faults of the next writes, in order.
    script: VecDeque<Fault>,
    /// The fault of all writes after the script.
    always: Option<Fault>,
    /// Writes received, whatever their result.
    writes: u64,
    /// Open connections, so that stopping can cut them.
    streams: BTreeMap<u64, TcpStream>,
    streams_made: u64,
    /// Number of stops. Connections of an earlier life are not served any more.
    life: u64,
    /// Number of times faults were lifted; each ends hanging requests.
    lifted: u64,
}

#[derive(Default)]
struct StandInShared {
    state: Mutex<StandInState>,
    /// `life` or `lifted` has changed: wakes hanging and slow requests.
    changed: Condvar,
}

impl StandInShared {
    fn state(&self) -> MutexGuard<'_, StandInState> {
        self.state.lock().expect("a stand-in thread panicked")
    }
}

/// A running (or stopped) stand-in. Dropping it ends its threads.
pub struct StandIn {
    port: Port,
    shared: Arc<StandInShared>,
    accepting: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Listens on `addr` (`127.0.0.1:0` picks a port) with no databases.
    pub fn start(addr: SocketAddr) -> io::Result<Self> {
        let mut standin = Self { port: Port::keep(addr)?, shared: Arc::default(), accepting: None };
        standin.listen()?;
        Ok(standin)
    }

    /// Starts on a free loopback port with these databases.
    pub fn with_databases(names: &[&str]) -> io::Result<Self> {
        let standin = Self::start(([127, 0, 0, 1], 0).into())?;
        names.iter().for_each(|name| standin.create_database(name));
        Ok(standin)
    }

    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    pub fn create_database(&self, name: &str) {
        self.shared.state().databases.entry(name.into()).or_default();
    }

    /// Points stored in a database; repeated points count again. InfluxDB would hold [`Self::serials`]`.len()` of them.
    pub fn points(&self, db: &str) -> u64 {
        self.shared.state().databases.get(db).map_or(0, |d| d.points)
    }

    /// The numbers of the points stored in a database.
    pub fn serials(&self, db: &str) -> Serials {
        self.shared.state().databases.get(db).map_or_else(Serials::default, |d| d.serials.clone())
    }

    pub fn measurements(&self, db: &str) -> Vec<String> {
        let state = self.shared.state();
        let names = state.databases.get(db).map(|d| &d.measurements);
        names.into_iter().flatten().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// Writes received so far, also those that met a fault.
    pub fn writes(&self) -> u64 {
        self.shared.state().writes
    }

    /// The next writes get these faults, one each, after those already scripted.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state().script.extend(faults);
    }

    /// All writes after the script get this fault. `None` lifts it, empties the script and ends hanging requests.
    pub fn always(&self, fault: Option<Fault>) {
        let mut state = self.shared.state();
        if fault.is_none() {
            state.script.clear();
            state.lifted += 1;
        }
        state.always = fault;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Closes the port and cuts every connection, like a killed server. The data stays. Returns when the port refuses
    /// connections.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.state().life += 1;
        self.shared.changed.notify_all();
        // Accepting blocks; this connection wakes it, and it sees that its life is over.
        drop(TcpStream::connect(self.addr()));
        accepting.join().expect("the accepting thread panicked");
        for stream in std::mem::take(&mut self.shared.state().streams).into_values() {
            // The client may have closed it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again on the same port with the same data.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop();
        self.listen()
    }

    fn listen(&mut self) -> io::Result<()> {
        // std sets SO_REUSEADDR, so connections in TIME_WAIT do not block the port.
        let listener = TcpListener::bind(self.addr())?;
        let shared = self.shared.clone();
        let life = shared.state().life;
        self.accepting = Some(std::thread::spawn(move || accept(&listener, life, &shared)));
        Ok(())
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(listener: &TcpListener, life: u64, shared: &Arc<StandInShared>) {
    for stream in listener.incoming() {
        let mut state = shared.state();
        if state.life != life {
            return;
        }
        let Some((stream, clone)) = stream.ok().and_then(|s| s.try_clone().ok().map(|clone| (s, clone))) else {
            continue;
        };
        let id = state.streams_made;
        state.streams_made += 1;
        state.streams.insert(id, clone);
        drop(state);
        let shared = shared.clone();
        std::thread::spawn(move || {
            // Only the client of a failed connection is affected, and it sees the failure.
            let _ = serve(stream, life, &shared);
            if let Some(clone) = shared.state().streams.remove(&id) {
                let _ = clone.shutdown(Shutdown::Both);
            }
        });
    }
}

/// One connection, until either side ends it.
fn serve(mut stream: TcpStream, life: u64, shared: &StandInShared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut block) = (Vec::new(), vec![0; 256 * 1024]);
    loop {
        let request = match Request::parse(&buffer) {
            Ok(RequestState::Whole(request)) => request,
            Ok(state) => {
                if state == RequestState::WantsContinue {
                    stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                match stream.read(&mut block)? {
                    0 => return Ok(()),
                    got => buffer.extend_from_slice(&block[..got]),
                }
                if buffer.len() > REQUEST_BYTES_MAX {
                    return Err(ErrorKind::InvalidData.into());
                }
                continue;
            }
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        };
        let body = request.body(&buffer);
        let Some((status, answer)) = answer(&request, &body, life, shared) else { return Ok(()) };
        stream.write_all(&response(status, &answer))?;
        if request.close {
            return Ok(());
        }
        buffer.drain(..request.len);
    }
}

/// Status and body; `None` = cut the connection.
fn answer(request: &Request, body: &[u8], life: u64, shared: &StandInShared) -> Option<(u16, String)> {
    Some(match request.path() {
        "/ping" => (204, String::new()),
        "/write" => return write(request, body, life, shared),
        "/query" => {
            let form = String::from_utf8_lossy(body);
            match request.parameter("q").or_else(|| form_value(&form, "q")) {
                Some(statement) => query(statement.trim().trim_end_matches(';'), shared),
                None => (400, error("missing required parameter \"q\"")),
            }
        }
        _ => (404, "404 page not found\n".into()),
    })
}

fn write(request: &Request, body: &[u8], life: u64, shared: &StandInShared) -> Option<(u16, String)> {
    let mut state = shared.state();
    state.writes += 1;
    let lifted = state.lifted;
    let fault = state.script.pop_front().or_else(|| state.always.clone());
    let poisoned = "a stand-in thread panicked";
    match fault {
        None => {}
        Some(Fault::Reset) => return None,
        Some(Fault::Answer(status, text)) => return Some((status, text)),
        Some(Fault::Poison(poison, status, text)) if memchr::memmem::find(body, poison.as_bytes()).is_some() => {
            return Some((status, text));
        }
        Some(Fault::Poison(..)) => {}
        Some(Fault::Hang) => {
            let hangs = |state: &mut StandInState| state.life == life && state.lifted == lifted;
            drop(shared.changed.wait_while(state, hangs).expect(poisoned));
            return None;
        }
        Some(Fault::StoreAndReset) => {
            drop(state);
            store(request, body, life, shared);
            return None;
        }
        Some(Fault::Slow(pause)) => {
            let slow = |state: &mut StandInState| state.life == life;
            (state, _) = shared.changed.wait_timeout_while(state, pause, slow).expect(poisoned);
        }
    }
    drop(state);
    store(request, body, life, shared)
}

/// Stores and answers; `None` if the server has been stopped meanwhile.
fn store(request: &Request, body: &[u8], life: u64, shared: &StandInShared) -> Option<(u16, String)> {
    let Some(db) = request.parameter("db").filter(|db| !db.is_empty()) else {
        return Some((400, error("database is required")));
    };
    let mut inflated = Vec::new();
    let lines = if request.gzip {
        if flate2::read::MultiGzDecoder::new(body).read_to_end(&mut inflated).is_err() {
            return Some((400, error("gzip: invalid header")));
        }
        &inflated[..]
    } else {
        body
    };
    let mut state = shared.state();
    if state.life != life {
        return None;
    }
    let Some(database) = state.databases.get_mut(&db) else {
        return Some((404, error(&format!("database not found: {}", serde_json::Value::from(db)))));
    };
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#') {
        database.points += 1;
        if let Some(n) = serial(line) {
            database.serials.insert(n);
        }
        let measurement = line.split(|byte| matches!(byte, b',' | b' ')).next().unwrap_or_default();
        if !database.measurements.contains(measurement) {
            database.measurements.insert(measurement.into());
        }
    }
    Some((204, String::new()))
}

/// The value of the integer field `n`.
fn serial(line: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(line, b",n=").or_else(|| memchr::memmem::find(line, b" n="))? + 3;
    let digits = &line[start..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    (digits[end] == b'i').then(|| std::str::from_utf8(&digits[..end]).ok()?.parse().ok())?
}

/// Answers statements, split at each `;`. Names that contain one are not supported.
fn query(statements: &str, shared: &StandInShared) -> (u16, String) {
    let mut results = Vec::new();
    for (id, statement) in statements.split(';').enumerate() {
        let Some(mut result) = answer_to(statement, shared) else {
            return (400, error(&format!("this stand-in for InfluxDB does not answer: {statement}")));
        };
        result["statement_id"] = id.into();
        results.push(result);
    }
    (200, format!("{}\n", json!({ "results": results })))
}

/// The result of one statement; None if it is not supported.
fn answer_to(statement: &str, shared: &StandInShared) -> Option<Value> {
    let words: Vec<_> = statement.split_whitespace().collect();
    let upper: Vec<_> = words.iter().map(|word| word.to_ascii_uppercase()).collect();
    let upper: Vec<_> = upper.iter().map(String::as_str).collect();
    let name = || words.last().map_or("", |word| word.trim_matches('"'));
    let mut state = shared.state();
    let series = match upper[..] {
        ["SHOW", "DATABASES"] => {
            let names: Vec<_> = state.databases.keys().map(|name| json!([name])).collect();
            json!({"name": "databases", "columns": ["name"], "values": names})
        }
        ["CREATE", "DATABASE", _] => {
            state.databases.entry(name().into()).or_default();
            return Some(json!({}));
        }
        ["SHOW", "RETENTION", "POLICIES", "ON", _] if state.databases.contains_key(name()) => json!({
            "columns": ["name", "duration", "shardGroupDuration", "replicaN", "default"],
            "values": [["autogen", "0s", "168h0m0s", 1, true]],
        }),
        ["SHOW", "MEASUREMENTS", "ON", _] if state.databases.contains_key(name()) => {
            let names = &state.databases[name()].measurements;
            let values: Vec<_> = names.iter().map(|name| json!([String::from_utf8_lossy(name)])).collect();
            if values.is_empty() {
                return Some(json!({}));
            }
            json!({"name": "measurements", "columns": ["name"], "values": values})
        }
        ["SHOW", "RETENTION", "POLICIES", "ON", _] | ["SHOW", "MEASUREMENTS", "ON", _] => {
            return Some(json!({"error": format!("database not found: {}", name())}));
        }
        _ => return None,
    };
    Some(json!({ "series": [series] }))
}

fn error(text: &str) -> String {
    format!("{}\n", json!({"error": text}))
}

fn response(status: u16, body: &str) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        404 => "Not Found",
        _ => "Scripted",
    };
    let mut head = format!("HTTP/1.1 {status} {reason}\r\nX-Influxdb-Build: OSS\r\nX-Influxdb-Version: {VERSION}\r\n");
    if status != 204 {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    if status != 204 {
        head += body;
    }
    head.into_bytes()
}

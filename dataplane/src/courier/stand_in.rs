//! Stand-ins for the courier's tests: a scripted backend (blocking threads on port 0), a log in memory, and recorded
//! reports.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::group::{RefusedPoints, RejectedPoints};
use super::source::{DeliveryState, Fetched, Parking, RecordSource, Reports, SourceError, UnsettledPart};
use super::window::PartlySettled;
use crate::disklog::{RecordView, Seq};
use crate::handoff::Created;
use crate::io::{self, Event};
use crate::parked::ParkedKey;
use crate::precision::Precision;

/// Waits until the condition is true.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        io::sleep(Duration::from_millis(2)).await;
    }
    panic!("never: {what}");
}

/// A request as the backend received it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Number of its connection.
    pub connection: usize,
    pub query: String,
    pub head: String,
    /// Decompressed.
    pub body: String,
}

impl Asked {
    pub fn lines(&self) -> Vec<&str> {
        self.body.lines().collect()
    }
}

/// What the backend does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    Answer(u16, &'static str),
    /// An error in InfluxDB's form.
    Error(u16, String),
    /// Answers 204 and closes the connection without notice.
    AnswerAndClose,
    /// Closes without an answer.
    Cut,
    /// Closes in the middle of the answer.
    CutInAnswer,
    /// Never answers on this connection.
    Hang,
    /// Does the other thing only after this time.
    After(Duration, Box<Act>),
}

type Behaviour = dyn FnMut(&Asked) -> Act + Send;

/// A scripted backend.
pub struct StandIn {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    behaviour: Arc<Mutex<Box<Behaviour>>>,
    stopping: Arc<AtomicBool>,
    resets: Arc<AtomicUsize>,
}

impl StandIn {
    pub fn start(behaviour: impl FnMut(&Asked) -> Act + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            behaviour: Arc::new(Mutex::new(Box::new(behaviour))),
            stopping: Arc::default(),
            resets: Arc::default(),
        };
        let (asked, behaviour, stopping) = (server.asked.clone(), server.behaviour.clone(), server.stopping.clone());
        let resets = server.resets.clone();
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                if stopping.load(SeqCst) {
                    return;
                }
                let (asked, behaviour, resets) = (asked.clone(), behaviour.clone(), resets.clone());
                std::thread::spawn(move || serve(connection, stream.unwrap(), &asked, &behaviour, &resets));
            }
        });
        server
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How many connections on which it hung were ended with a reset.
    pub fn resets(&self) -> usize {
        self.resets.load(SeqCst)
    }

    /// All lines the backend received for `db`, request by request.
    pub fn lines(&self) -> Vec<Vec<String>> {
        self.asked().iter().map(|a| a.lines().iter().map(ToString::to_string).collect()).collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        _ = TcpStream::connect(self.address);
    }
}

fn serve(
    connection: usize,
    mut stream: TcpStream,
    asked: &Mutex<Vec<Asked>>,
    behaviour: &Mutex<Box<Behaviour>>,
    resets: &AtomicUsize,
) {
    while let Some(request) = read_request(connection, &mut stream) {
        asked.lock().unwrap().push(request.clone());
        let mut act = (behaviour.lock().unwrap())(&request);
        while let Act::After(time, then) = act {
            std::thread::sleep(time);
            act = *then;
        }
        let (answer, close) = match act {
            Act::Answer(204, _) => ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), false),
            Act::Answer(status, text) => {
                (format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}", text.len()), false)
            }
            Act::Error(status, text) => {
                let body = format!("{{\"error\":\"{}\"}}\n", text.replace('"', "\\\""));
                (format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len()), false)
            }
            Act::AnswerAndClose => ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), true),
            Act::Cut => return,
            Act::CutInAnswer => ("HTTP/1.1 400 X\r\nContent-Length: 100\r\n\r\n{\"err".to_owned(), true),
            Act::Hang => {
                // Until the courier closes the connection.
                if stream.read(&mut [0]).is_err_and(|e| e.kind() == ErrorKind::ConnectionReset) {
                    resets.fetch_add(1, SeqCst);
                }
                return;
            }
            Act::After(..) => unreachable!("done above"),
        };
        if stream.write_all(answer.as_bytes()).is_err() || close {
            return;
        }
    }
}

fn read_request(connection: usize, stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut piece = [0; 65536];
    let head_end = loop {
        if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length: usize = head.split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse().unwrap();
    while bytes.len() < head_end + length {
        let n = stream.read(&mut piece).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&piece[..n]);
    }
    let mut body = bytes[head_end..].to_vec();
    if head.contains("Content-Encoding: gzip") {
        let packed = std::mem::take(&mut body);
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut body).unwrap();
    }
    let query = head.split(['?', ' ']).nth(2).unwrap_or_default().to_owned();
    Some(Asked { connection, query, head, body: String::from_utf8(body).unwrap() })
}

#[derive(Clone, Debug)]
struct Record {
    db: &'static str,
    rp: &'static str,
    precision: Precision,
    stamp: u64,
    bytes: String,
}

/// A worker's log in memory. Record `i` has sequence `i + 1`.
#[derive(Clone, Default)]
pub struct Log {
    inner: Rc<LogState>,
}

#[derive(Default)]
struct LogState {
    records: RefCell<VecDeque<Record>>,
    fetched: Cell<usize>,
    fetches: Cell<usize>,
    confirmed: Cell<u64>,
    closed: Cell<bool>,
    began: Cell<u64>,
    event: Event,
}

impl Log {
    pub fn append(&self, db: &'static str, lines: &[&str]) {
        self.append_with(db, "", Precision::Nanosecond, lines);
    }

    pub fn append_with(&self, db: &'static str, rp: &'static str, precision: Precision, lines: &[&str]) {
        let bytes = lines.iter().map(|l| format!("{l}\n")).collect();
        let mut records = self.inner.records.borrow_mut();
        let stamp = records.len() as u64 + 1;
        records.push_back(Record { db, rp, precision, stamp, bytes });
        self.inner.event.notify();
    }

    /// Records with smaller stamps are from a former process.
    pub fn began(&self, stamp: u64) {
        self.inner.began.set(stamp);
    }

    pub fn close(&self) {
        self.inner.closed.set(true);
        self.inner.event.notify();
    }

    /// How often the courier has looked for records.
    pub fn fetches(&self) -> usize {
        self.inner.fetches.get()
    }

    /// Number of records before the cursor.
    pub fn confirmed(&self) -> u64 {
        self.inner.confirmed.get()
    }

    pub fn is_served(&self) -> bool {
        self.confirmed() == self.inner.records.borrow().len() as u64
    }
}

impl RecordSource for Log {
    async fn fetch(&mut self, sink: &mut dyn FnMut(usize, RecordView<'_>) -> bool) -> Result<Fetched, SourceError> {
        let state = &self.inner;
        state.fetches.set(state.fetches.get() + 1);
        if state.closed.get() {
            return Err(SourceError::Closed);
        }
        let mut got = Fetched { below: state.records.borrow().len() as u64 + 1, ..Fetched::default() };
        for (i, record) in state.records.borrow().iter().enumerate().skip(state.fetched.get()) {
            let count = record.bytes.bytes().filter(|b| *b == b'\n').count() as u32;
            let view = RecordView {
                seq: Seq(i as u64 + 1),
                db: record.db.as_bytes(),
                rp: record.rp.as_bytes(),
                precision: record.precision,
                stamp: record.stamp,
                lines: count,
                bytes: record.bytes.as_bytes(),
            };
            if !sink(0, view) {
                got.below = record.stamp;
                break;
            }
            got.lines += u64::from(count);
            state.fetched.set(i + 1);
        }
        Ok(got)
    }

    async fn ready(&mut self) {
        let state = &self.inner;
        loop {
            let waiting = state.event.wait();
            if state.closed.get() || self.behind() {
                return;
            }
            waiting.await;
        }
    }

    fn behind(&self) -> bool {
        self.inner.fetched.get() < self.inner.records.borrow().len()
    }

    fn began(&self) -> u64 {
        self.inner.began.get()
    }

    fn positions(&self) -> Vec<Seq> {
        vec![Seq(self.inner.fetched.get() as u64 + 1)]
    }

    fn confirm(&mut self) {
        let next = self.inner.fetched.get() as u64;
        assert!(next > self.inner.confirmed.get(), "the cursor never goes back");
        self.inner.confirmed.set(next);
    }

    fn has_reported(&mut self) -> bool {
        true
    }

    fn rest(&mut self) {}
}

/// It parks nothing: held points stay in the window.
impl Parking<RecordedReports> for Log {
    fn parked_before(&self) -> Vec<ParkedKey> {
        Vec::new()
    }

    fn floors(&self, _key: &ParkedKey) -> (u64, u64) {
        (0, 0)
    }

    fn park(&self, _key: &ParkedKey, _part: Option<&UnsettledPart>) -> Option<(Self, RecordedReports)> {
        None
    }

    fn unpark(&self, _key: &ParkedKey) -> bool {
        false
    }
}

/// Records what a courier reports.
#[derive(Clone, Default)]
pub struct RecordedReports {
    inner: Rc<Recorded>,
}

#[derive(Default)]
struct Recorded {
    delivered: RefCell<Vec<(String, u64)>>,
    rejected: RefCell<Vec<(String, &'static str, u64)>>,
    refused: RefCell<Vec<RefusedPoints>>,
    known: RefCell<HashMap<Seq, Vec<u32>>>,
    others_below: Cell<Option<u64>>,
    partly: RefCell<Option<Arc<PartlySettled>>>,
    states: RefCell<Vec<DeliveryState>>,
    rewriting: RefCell<Vec<bool>>,
    stuck: Cell<(bool, bool)>,
    /// Counts that are told from now on are of another window.
    window_ended: Cell<bool>,
    failing: Cell<bool>,
    answered: RefCell<String>,
    held: Cell<Option<u64>>,
    below: Cell<u64>,
    create: RefCell<VecDeque<Created>>,
    asked_to_create: RefCell<Vec<String>>,
}

impl RecordedReports {
    pub fn delivered(&self, db: &str) -> u64 {
        self.inner.delivered.borrow().iter().filter(|(d, _)| d == db).map(|(_, n)| n).sum()
    }

    pub fn rejected(&self, db: &str) -> Vec<(&'static str, u64)> {
        self.inner.rejected.borrow().iter().filter(|(d, ..)| d == db).map(|(_, r, n)| (*r, *n)).collect()
    }

    pub fn refused(&self) -> Vec<RefusedPoints> {
        self.inner.refused.borrow().clone()
    }

    /// The first record of `db` that is not settled, and the end of the window, as last told.
    pub fn partly_settled(&self, db: &str) -> Option<(Option<Seq>, Seq)> {
        let partly = self.inner.partly.borrow();
        let of = |p: &PartlySettled| p.groups.iter().find(|g| *g.db == *db.as_bytes()).and_then(|g| g.first[0]);
        partly.as_ref().map(|p| (of(p), p.next[0]))
    }

    pub fn states(&self) -> Vec<DeliveryState> {
        self.inner.states.borrow().clone()
    }

    pub fn is_failing(&self) -> bool {
        self.inner.failing.get()
    }

    /// What the backend said to the last write.
    pub fn answered(&self) -> String {
        self.inner.answered.borrow().clone()
    }

    /// Whether a log cannot be read, and whether dead letters cannot be written.
    pub fn stuck(&self) -> (bool, bool) {
        self.inner.stuck.get()
    }

    pub fn rewriting(&self) -> Vec<bool> {
        self.inner.rewriting.borrow().clone()
    }

    /// Another backend has refused these lines of a record.
    pub fn knows_refused(&self, record: u64, lines: &[u32]) {
        self.inner.known.borrow_mut().insert(Seq(record), lines.to_vec());
    }

    /// Other backends have received what lies below this stamp.
    pub fn others_are_at(&self, below: u64) {
        self.inner.others_below.set(Some(below));
    }

    /// Stamp of the oldest record that the courier has reported as held.
    pub fn held(&self) -> Option<u64> {
        self.inner.held.get()
    }

    /// Everything below this stamp is settled.
    pub fn below(&self) -> u64 {
        self.inner.below.get()
    }

    /// Sets the next answer to `create_database`; without one it is [`Created::NowhereElse`].
    pub fn will_create(&self, created: Created) {
        self.inner.create.borrow_mut().push_back(created);
    }

    pub fn asked_to_create(&self) -> Vec<String> {
        self.inner.asked_to_create.borrow().clone()
    }
}

impl Reports for RecordedReports {
    fn holds(&self, oldest: Option<u64>) {
        self.inner.held.set(oldest);
    }

    fn failing(&self, on: bool) {
        self.inner.failing.set(on);
    }

    fn answered(&self, text: &str) {
        self.inner.answered.replace(text.to_owned());
    }

    fn settled_below(&self, stamp: u64) {
        assert!(stamp == 0 || stamp >= self.inner.below.get(), "it never goes back");
        self.inner.below.set(stamp.max(self.inner.below.get()));
        self.inner.window_ended.set(true);
    }

    fn delivered(&self, _log: usize, db: &[u8], lines: u64) {
        self.inner.delivered.borrow_mut().push((String::from_utf8_lossy(db).into_owned(), lines));
    }

    fn rejected(&self, db: &[u8], rejected: &RejectedPoints) {
        let (db, reason) = (String::from_utf8_lossy(db).into_owned(), rejected.reason);
        let mut all = self.inner.rejected.borrow_mut();
        let of_window = all.last_mut().filter(|_| !self.inner.window_ended.take());
        match of_window.filter(|last| (&last.0, last.1) == (&db, reason)) {
            Some(last) => last.2 += rejected.points,
            None => all.push((db, reason, rejected.points)),
        }
    }

    fn partly_settled(&self, settled: Arc<PartlySettled>) {
        self.inner.partly.replace(Some(settled));
    }

    fn refused(&self, _log: usize, refused: RefusedPoints) {
        self.inner.refused.borrow_mut().push(refused);
    }

    fn refused_lines(&self, _log: usize, record: Seq) -> Vec<u32> {
        self.inner.known.borrow().get(&record).cloned().unwrap_or_default()
    }

    fn others_are_past(&self, _db: &[u8], stamp: u64) -> bool {
        self.inner.others_below.get().is_none_or(|below| stamp < below)
    }

    fn state(&self, state: DeliveryState, _reason: &str) {
        self.inner.states.borrow_mut().push(state);
    }

    fn rewriting(&self, on: bool) {
        self.inner.rewriting.borrow_mut().push(on);
    }

    fn stuck(&self, log: bool, letters: bool) {
        self.inner.stuck.set((log, letters));
    }

    fn default_policy(&self, _db: &[u8]) -> Option<String> {
        Some("autogen".to_owned())
    }

    async fn create_database(&self, db: &str, rp: &str) -> Created {
        self.inner.asked_to_create.borrow_mut().push(format!("{db}/{rp}"));
        self.inner.create.borrow_mut().pop_front().unwrap_or(Created::NowhereElse)
    }
}

//! Sends one query to one backend and passes the answer on as it arrives. The answer is never held as a whole and never
//! cut without notice.
//!
//! Until the head of the answer has arrived another backend may be asked. Later a failure closes the client's
//! connection in the middle of the answer, which HTTP clients detect. While an answer is awaited the client is watched:
//! when it disconnects, the connection to the backend is dropped, so that InfluxDB stops the query. Not here: which
//! backends are asked in which order (`mod.rs`).

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::courier::{AttemptFailure, ExchangeFailure, exchange};
use crate::handoff::ToControl;
use crate::http::answer::{self, AnswerBody, AnswerHead};
use crate::http::chunked::{Decoded, Decoder};
use crate::http::query::percent_encode;
use crate::http::response::{LAST_CHUNK, ReplyTo, push_chunk};
use crate::http::{Span, Status};
use crate::io::{self, Stream};
use crate::limits::{QUERY_BUFFER_BYTES, QUERY_CONNECT_TIMEOUT, QUERY_FAILURE_SHOWN_BYTES_MAX};
use crate::prometheus::read::PANICKED;
use crate::query::AfterAnswer;
use crate::query::request::Query;
use crate::request::inbox::Inbox;
use crate::topology::BackendId;
use crate::worker::Worker;

/// Why a backend has not answered a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AskFailure {
    /// Not asked, because the last probe failed.
    Down,
    /// Not asked, because it takes only writes.
    TakesOnlyWrites,
    Failed(ExchangeFailure),
    /// A status that is not about the query (5xx, 401, 403), with its text.
    Answered(u16, String),
    /// InfluxDB has failed over the request. One with the same data would, too.
    Panicked,
    /// Not an answer that InfluxDB gives, such as a page of a server in between.
    NotInflux(u16),
}

impl AskFailure {
    /// There was no connection: the backend may be at another address now.
    pub fn is_unreached(&self) -> bool {
        matches!(self, Self::Failed(ExchangeFailure::NoAddress | ExchangeFailure::Refused(_)))
    }
}

impl fmt::Display for AskFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::TakesOnlyWrites => f.write_str("takes only writes (catalog is false)"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Answered(status, text) if text.is_empty() => write!(f, "answered {status}"),
            Self::Answered(status, text) => write!(f, "answered {status}: {text}"),
            Self::Panicked => write!(f, "answered 500: {PANICKED}"),
            Self::NotInflux(status) => write!(f, "answered {status}, but not as InfluxDB does"),
        }
    }
}

/// A query as it is sent: the target, and all that follows the backend's own fields.
pub struct Outgoing {
    target: Cow<'static, str>,
    rest: Vec<u8>,
}

impl Outgoing {
    pub fn new(query: &Query) -> Self {
        let mut form = Vec::with_capacity(query.q.len() + 128);
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                let and = if form.is_empty() { "" } else { "&" };
                form.extend_from_slice([and, name, "="].concat().as_bytes());
                percent_encode(&mut form, value.as_bytes());
            }
        };
        put("q", &query.q);
        put("db", &query.db);
        put("rp", &query.rp);
        put("epoch", &query.epoch);
        put("params", &query.params);
        if query.chunked {
            put("chunked", "true");
            put("chunk_size", &query.chunk_size.to_string());
        }
        if query.is_async {
            put("async", "true");
        }
        let target = if query.pretty { "/query?pretty=true" } else { "/query" };
        let kind = b"application/x-www-form-urlencoded";
        Self::with_body(target.into(), kind, query.accept.as_deref(), query.accept_encoding.as_deref(), form)
    }

    /// A request of any kind. Nothing but these fields is passed on.
    pub fn with_body(
        target: Cow<'static, str>,
        content_type: &[u8],
        accept: Option<&[u8]>,
        accept_encoding: Option<&[u8]>,
        mut body: Vec<u8>,
    ) -> Self {
        let mut rest = Vec::with_capacity(body.len() + 256);
        let fields = [("Accept", accept), ("Accept-Encoding", accept_encoding), ("Content-Type", Some(content_type))];
        for (name, value) in fields {
            if let Some(value) = value {
                rest.extend_from_slice(format!("{name}: ").as_bytes());
                rest.extend_from_slice(value);
                rest.extend_from_slice(b"\r\n");
            }
        }
        write!(rest, "Content-Length: {}\r\n\r\n", body.len()).expect("a Vec takes everything");
        rest.append(&mut body);
        Self { target, rest }
    }
}

/// An answer whose head has been read. Dropping it tells the backend to stop.
pub struct BackendReply<'a> {
    worker: &'a Worker,
    backend: BackendId,
    address: SocketAddr,
    stream: Stream,
    pub answer: AnswerHead,
    /// `buf[..len]` has been received, with the head.
    buf: Box<[u8]>,
    len: usize,
    _running: Running<'a>,
}

/// Counts a running query at a backend; dropping it ends the count.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn new(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Asks one backend and reads the head of its answer. None: the client has disconnected.
///
/// # Errors
/// [`AskFailure`] another backend should be asked: no answer, or a status that is the backend's fault.
pub async fn ask<'a>(
    worker: &'a Worker,
    backend: BackendId,
    outgoing: &Outgoing,
    inbox: &mut Inbox,
) -> Option<Result<BackendReply<'a>, AskFailure>> {
    let running = Running::new(&worker.all_stats.reads[backend.index()].running);
    let asked = io::timeout(worker.settings.query.timeout, open(worker, backend, outgoing));
    let opened = io::unless(asked, inbox.gone()).await.ok()?.unwrap_or(Err(ExchangeFailure::TimedOut));
    let Opened { address, stream, answer, buf, len } = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            worker.link.tell(|_| ToControl::Unanswered { backend });
            return Some(Err(AskFailure::Failed(failure)));
        }
    };
    if answer.status >= 500 || matches!(answer.status, 401 | 403) {
        let text = answer.error.map(|span| String::from_utf8_lossy(span.of(&buf)).into_owned()).unwrap_or_default();
        // InfluxDB says so when it has failed over the request; it fits into one packet with the head.
        let is_end = |end: &str| buf[..len].ends_with(end.as_bytes());
        if answer.status == 500 && text.is_empty() && is_end(&format!("\r\n\r\n{PANICKED}\n")) {
            return Some(Err(AskFailure::Panicked));
        }
        let text = text.chars().take(QUERY_FAILURE_SHOWN_BYTES_MAX).collect();
        return Some(Err(AskFailure::Answered(answer.status, text)));
    }
    if !may_be_influx(&answer, &buf) {
        return Some(Err(AskFailure::NotInflux(answer.status)));
    }
    Some(Ok(BackendReply { worker, backend, address, stream, answer, buf, len, _running: running }))
}

/// InfluxDB answers a query with 200 and one of four formats, an asynchronous one with 204, or with an error.
fn may_be_influx(answer: &AnswerHead, buf: &[u8]) -> bool {
    let format = |span: Span| {
        let kind = String::from_utf8_lossy(span.of(buf)).to_ascii_lowercase();
        ["json", "csv", "msgpack", "protobuf"].iter().any(|format| kind.contains(format))
    };
    match answer.status {
        200 => answer.content_type.is_none_or(format),
        status => status == 204 || status >= 400,
    }
}

struct Opened {
    address: SocketAddr,
    stream: Stream,
    answer: AnswerHead,
    buf: Box<[u8]>,
    len: usize,
}

async fn open(worker: &Worker, backend: BackendId, outgoing: &Outgoing) -> Result<Opened, ExchangeFailure> {
    let reader = worker.queries.readers.of(backend);
    let endpoint = reader.endpoint.as_ref().ok_or(ExchangeFailure::NoAddress)?;
    let address = endpoint.address().ok_or(ExchangeFailure::NoAddress)?;
    let mut request = endpoint.begin_request(&outgoing.target);
    request.extend_from_slice(&outgoing.rest);
    let kept = reader.take(address);
    let was_kept = kept.is_some();
    let connect = async {
        if was_kept {
            reader.forget();
        }
        endpoint.connect(address, QUERY_CONNECT_TIMEOUT).await
    };
    exchange(kept, connect, async |stream| attempt(address, stream, &request).await).await
}

async fn attempt(address: SocketAddr, mut stream: Stream, request: &[u8]) -> Result<Opened, AttemptFailure> {
    // The backend may answer and close without reading everything. Such an answer counts if it arrives.
    let sent = stream.write_all(request).await;
    let mut buf = vec![0; QUERY_BUFFER_BYTES].into_boxed_slice();
    let mut len = 0;
    loop {
        match stream.read(&mut buf[len..]).await {
            Ok(n @ 1..) => len += n,
            _ if len == 0 => return Err(AttemptFailure::Silent),
            _ => return Err(AttemptFailure::Failed(ExchangeFailure::Cut)),
        }
        match answer::parse(&buf[..len], false) {
            Ok(Status::Complete(mut answer)) => {
                answer.keep_alive &= sent.is_ok();
                return Ok(Opened { address, stream, answer, buf, len });
            }
            Ok(Status::Partial) => {}
            Err(_) => return Err(AttemptFailure::Failed(ExchangeFailure::Garbled)),
        }
    }
}

/// How the end of the body is recognised.
enum PassFrame {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

/// A failure in the middle of an answer.
struct Broken(&'static str);

impl PassFrame {
    /// Decodes received bytes in place. The data is moved to the front.
    fn decode(&mut self, received: &mut [u8]) -> Result<Decoded, Broken> {
        match self {
            Self::Length(left) => {
                let data_len = received.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data_len as u64;
                Ok(Decoded { consumed: data_len, data_len, done: *left == 0 })
            }
            Self::Chunked(decoder) => decoder.decode(received).map_err(|error| Broken(error.text())),
            Self::UntilClose => Ok(Decoded { consumed: received.len(), data_len: received.len(), done: false }),
        }
    }
}

impl BackendReply<'_> {
    /// The text of an error from the answer's head, where InfluxDB cuts it at 1024 bytes.
    pub fn error_text(&self) -> Option<String> {
        self.answer.error.map(|span| String::from_utf8_lossy(span.of(&self.buf[..self.len])).into_owned())
    }

    /// Passes the whole answer to the client. `stale_ms` is that of `choose::Rank`.
    pub async fn pass(mut self, inbox: &mut Inbox, to: ReplyTo<'_>, stale_ms: u64) -> AfterAnswer {
        let mut frame = match self.answer.body {
            AnswerBody::None => PassFrame::Length(0),
            AnswerBody::Length(length) => PassFrame::Length(length),
            AnswerBody::Chunked => PassFrame::Chunked(Decoder::new()),
            AnswerBody::UntilClose => PassFrame::UntilClose,
        };
        let mut out = Vec::with_capacity(QUERY_BUFFER_BYTES);
        let chunked = self.begin(&mut out, to, stale_ms);
        // For this client only the close of the connection marks the end of the answer.
        let end_is_close = !chunked && !matches!(self.answer.body, AnswerBody::None | AnswerBody::Length(_));
        let mut received = self.answer.head_len..self.len;
        loop {
            let decoded = match frame.decode(&mut self.buf[received.clone()]) {
                Ok(decoded) => decoded,
                Err(broken) => return self.broken(broken, end_is_close),
            };
            let data = &self.buf[received.start..received.start + decoded.data_len];
            if chunked {
                push_chunk(&mut out, data);
            } else {
                out.extend_from_slice(data);
            }
            if decoded.done {
                // Bytes behind the answer: the connection cannot be reused.
                self.answer.keep_alive &= decoded.consumed == received.len();
                if chunked {
                    out.extend_from_slice(LAST_CHUNK);
                }
                return self.end(inbox, &out, to.keep_alive && !end_is_close).await;
            }
            if !out.is_empty() && inbox.send(&out).await.is_err() {
                return AfterAnswer::Close;
            }
            out.clear();
            io::yield_if_needed().await;
            let next = io::timeout(self.worker.settings.query.timeout, self.stream.read(&mut self.buf));
            received = match io::unless(next, inbox.gone()).await {
                Err(()) => return AfterAnswer::Close,
                Ok(Ok(Ok(n @ 1..))) => 0..n,
                Ok(Ok(Ok(0))) if matches!(frame, PassFrame::UntilClose) => {
                    if chunked {
                        out.extend_from_slice(LAST_CHUNK);
                    }
                    return self.end(inbox, &out, to.keep_alive && !end_is_close).await;
                }
                Ok(Ok(_)) => return self.broken(Broken("connection lost"), end_is_close),
                Ok(Err(_)) => return self.broken(Broken("no data in time"), end_is_close),
            };
        }
    }

    /// Writes the head of our answer: the backend's fields, without those of the connection and those we set ourselves.
    fn begin(&self, out: &mut Vec<u8>, to: ReplyTo<'_>, stale_ms: u64) -> bool {
        const OURS: [&str; 9] = [
            "connection",
            "keep-alive",
            "transfer-encoding",
            "content-length",
            "date",
            "request-id",
            "x-request-id",
            "x-influxdb-version",
            "x-influxdb-build",
        ];
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kept = |name: &[u8]| !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()));
        let fields = self.answer.fields(&self.buf).filter(|(name, _)| kept(name));
        let mut fields: Vec<_> = fields.map(|(name, value)| (text(name), text(value))).collect();
        if stale_ms > 0 {
            fields.push(("X-Fluxgate-Stale".into(), stale_ms.div_ceil(1000).to_string()));
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut responder = self.worker.responder.borrow_mut();
        match self.answer.body {
            AnswerBody::None => {
                responder.send(out, to, self.answer.status, &fields, b"");
                false
            }
            AnswerBody::Length(length) => responder.stream(out, to, self.answer.status, &fields, Some(length)),
            AnswerBody::Chunked | AnswerBody::UntilClose => {
                responder.stream(out, to, self.answer.status, &fields, None)
            }
        }
    }

    async fn end(self, inbox: &mut Inbox, last: &[u8], keep_alive: bool) -> AfterAnswer {
        if self.answer.keep_alive {
            self.worker.queries.readers.of(self.backend).give(self.address, self.stream);
        }
        match inbox.send(last).await {
            Ok(()) if keep_alive => AfterAnswer::Answered,
            _ => AfterAnswer::Close,
        }
    }

    fn broken(&self, Broken(why): Broken, end_is_close: bool) -> AfterAnswer {
        let name = &self.worker.settings.topology.backend(self.backend).name;
        log::warn!("backend {name}: the answer to a query was cut off: {why}");
        if end_is_close { AfterAnswer::Reset } else { AfterAnswer::Close }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query {
            is_get: true,
            q: "SELECT a FROM \"b c\"".into(),
            db: String::new(),
            rp: String::new(),
            epoch: String::new(),
            params: String::new(),
            pretty: false,
            chunked: false,
            chunk_size: 10_000,
            is_async: false,
            accept: None,
            accept_encoding: None,
        }
    }

    #[test]
    fn what_is_given_is_sent_on_and_nothing_else() {
        let text = |query: &Query| {
            let outgoing = Outgoing::new(query);
            (outgoing.target.into_owned(), String::from_utf8(outgoing.rest).unwrap())
        };
        let form = "q=SELECT%20a%20FROM%20%22b%20c%22";
        let (target, rest) = text(&query());
        let fields = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 33\r\n\r\n";
        assert_eq!((&target[..], rest), ("/query", format!("{fields}{form}")));
        let all = Query {
            db: "d&".into(),
            rp: "r".into(),
            epoch: "ms".into(),
            params: "{\"x\":1}".into(),
            pretty: true,
            chunked: true,
            chunk_size: 7,
            is_async: true,
            accept: Some(b"text/csv"[..].into()),
            accept_encoding: Some(b"gzip"[..].into()),
            ..query()
        };
        let (target, rest) = text(&all);
        assert_eq!(target, "/query?pretty=true");
        assert!(rest.starts_with("Accept: text/csv\r\nAccept-Encoding: gzip\r\nContent-Type: "), "{rest}");
        let want = "&db=d%26&rp=r&epoch=ms&params=%7B%22x%22%3A1%7D&chunked=true&chunk_size=7&async=true";
        assert!(rest.ends_with(&format!("\r\n\r\n{form}{want}")), "{rest}");
    }

    #[test]
    fn a_page_of_something_in_between_is_not_an_answer() {
        let f = |head: &str, want: bool| {
            let text = format!("HTTP/1.1 {head}\r\n\r\n");
            let Ok(Status::Complete(answer)) = answer::parse(text.as_bytes(), false) else { panic!("{text}") };
            assert_eq!(may_be_influx(&answer, text.as_bytes()), want, "{head}");
        };
        for format in ["application/json", "text/csv", "application/csv", "application/x-msgpack", "Application/JSON"] {
            f(&format!("200 OK\r\nContent-Type: {format}"), true);
        }
        f("200 OK\r\nContent-Length: 0", true);
        f("200 OK\r\nContent-Type: text/html", false);
        f("204 No Content", true);
        f("400 Bad Request\r\nContent-Type: text/plain", true);
        for status in [201, 202, 301, 302] {
            f(&format!("{status} Other\r\nContent-Type: application/json"), false);
        }
    }

    #[test]
    fn a_backend_that_does_not_answer_is_described_without_its_password() {
        let refused = AskFailure::Failed(ExchangeFailure::Refused(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(refused.to_string(), "no connection: connection refused");
        assert_eq!(AskFailure::Answered(500, "x".into()).to_string(), "answered 500: x");
        assert_eq!(AskFailure::Answered(502, String::new()).to_string(), "answered 502");
        assert_eq!(AskFailure::Panicked.to_string(), "answered 500: Internal Server Error");
        assert_eq!(AskFailure::Down.to_string(), "down");
        assert_eq!(AskFailure::NotInflux(200).to_string(), "answered 200, but not as InfluxDB does");
    }
}

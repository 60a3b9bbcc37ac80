//! A keep-alive connection to one backend: sends `POST /write`, reads the answer.
//!
//! Not here: when to send and what an answer means (`deliver.rs`, `verdict.rs`), name resolution (the control thread).

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use flate2::{Compress, Compression, FlushCompress};
use futures_lite::future::poll_once;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::answer::{self, Progress, WriteAnswer};
use super::body::RequestBody;
use super::exchange::{AttemptFailure, ExchangeFailure, exchange};
use super::verdict;
use crate::http::query::percent_encode;
use crate::io::{self, Stream};
use crate::limits::{BACKEND_ANSWER_BYTES_MAX, BACKEND_ANSWER_READ_BYTES, GZIP_PIECE_BYTES, HEAD_BYTES_MAX};
use crate::precision::Precision;
use crate::tls::TlsFault;

/// The current address of a backend, set by the control thread. None: its name has not been resolved yet.
pub type Address = Rc<Cell<Option<SocketAddr>>>;

/// What all requests to one backend have in common.
#[derive(Clone)]
pub struct Endpoint {
    address: Address,
    /// The head between the query string and the length.
    fields: String,
    /// The path before `/write`.
    prefix: String,
    gzip: bool,
    timeout: Duration,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Endpoint {
    /// `url` is `http[s]://host[:port][/path]`. User and password become an `Authorization: Basic` field unless both
    /// are empty. `timeout` bounds a request from connecting to the last byte of the answer. None: another scheme, or
    /// `https` with a host that cannot be a name in a certificate.
    pub fn new(
        url: &str,
        username: &str,
        password: &str,
        address: Address,
        gzip: bool,
        timeout: Duration,
        tls: Arc<ClientConfig>,
    ) -> Option<Self> {
        let (is_tls, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some(_) => return None,
            None => (false, url),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let tls = if is_tls { Some((tls, server_name(host)?)) } else { None };
        let path = path.trim_end_matches('/');
        let prefix = if path.is_empty() { String::new() } else { format!("/{path}") };
        let mut fields = format!(" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: fluxgate/{}\r\n", env!("CARGO_PKG_VERSION"));
        if !username.is_empty() || !password.is_empty() {
            let token = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            _ = write!(fields, "Authorization: Basic {token}\r\n");
        }
        if gzip {
            fields.push_str("Content-Encoding: gzip\r\n");
        }
        Some(Self { address, fields, prefix, gzip, timeout, tls })
    }

    /// Opens a connection to `address`, with TLS for https. `timeout` bounds both steps.
    ///
    /// # Errors
    /// [`ExchangeFailure::Refused`] and [`ExchangeFailure::Handshake`].
    pub async fn connect(&self, address: SocketAddr, timeout: Duration) -> Result<Stream, ExchangeFailure> {
        let connected = match &self.tls {
            None => Stream::connect(address, timeout).await,
            Some((config, name)) => Stream::connect_tls(address, timeout, config.clone(), name.clone()).await,
        };
        connected.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => ExchangeFailure::Handshake(TlsFault::of(error)),
            None => ExchangeFailure::Refused(error.kind()),
        })
    }

    /// The current address. None: the name has not been resolved yet.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get()
    }

    /// Begins a request `POST <prefix><target>`. The caller adds more fields and the empty line.
    pub fn begin_request(&self, target: &str) -> Vec<u8> {
        ["POST ", &self.prefix, target, &self.fields].concat().into_bytes()
    }
}

/// The name or IP address in `host[:port]` as a name for a certificate.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    ServerName::try_from(name.to_owned()).ok()
}

impl fmt::Debug for Endpoint {
    /// Leaves out the fields, since they contain the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address.get()).finish_non_exhaustive()
    }
}

/// Where lines go in the backend, and the unit of their timestamps.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub db: &'a [u8],
    /// Empty = the default policy.
    pub rp: &'a [u8],
    pub precision: Precision,
}

/// What came of one attempt.
#[derive(Debug)]
pub struct Attempt {
    pub outcome: Result<WriteAnswer, ExchangeFailure>,
    /// A connection has ended behind the whole request without a final answer: the backend may carry it out later.
    pub doubtful: bool,
    /// The time is up, and the answer may still come here.
    pub unanswered: Option<Unanswered>,
}

impl From<WriteAnswer> for Attempt {
    fn from(answer: WriteAnswer) -> Self {
        let doubtful = !verdict::is_final(&answer);
        Self { outcome: Ok(answer), doubtful, unanswered: None }
    }
}

/// The connection of a request without an answer, and what has come of the answer.
#[derive(Debug)]
pub struct Unanswered {
    pub stream: Stream,
    pub input: Vec<u8>,
}

/// The connection of the request in flight.
#[derive(Debug)]
struct InFlight {
    stream: Stream,
    /// The kernel has taken the whole request.
    sent: bool,
}

/// One connection, opened when needed and kept as long as the backend keeps it. It ends with a reset, so that the
/// kernel drops what it has not sent yet: also when this process is killed.
#[derive(Debug)]
pub struct WriteClient {
    endpoint: Rc<Endpoint>,
    connection: Option<(SocketAddr, Stream)>,
    in_flight: Option<InFlight>,
    doubtful: bool,
    head: Vec<u8>,
    input: Vec<u8>,
    gzip: Option<Gzip>,
}

impl WriteClient {
    pub fn new(endpoint: Rc<Endpoint>) -> Self {
        let gzip = endpoint.gzip.then(Gzip::new);
        let (connection, in_flight, doubtful) = (None, None, false);
        Self { endpoint, connection, in_flight, doubtful, head: Vec::new(), input: Vec::new(), gzip }
    }

    /// Closes the connection. The next write opens a new one.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Frees the memory of large requests.
    pub fn release(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            gzip.packed.release();
        }
    }

    /// The time for one request.
    pub fn timeout(&self) -> Duration {
        self.endpoint.timeout
    }

    /// Sends `body` and reads the answer, both within the endpoint's timeout. A kept connection that ends before the
    /// first byte of the answer is replaced once. After a failure the connection is closed.
    pub async fn write(&mut self, target: Target<'_>, body: &mut RequestBody) -> Attempt {
        self.doubtful = false;
        let timed = io::timeout(self.endpoint.timeout, self.exchange(target, body)).await;
        let outcome = timed.unwrap_or(Err(ExchangeFailure::TimedOut));
        // What was sent in part ends with a reset, and cannot be carried out.
        let in_flight = self.in_flight.take().filter(|in_flight| in_flight.sent);
        let is_late = matches!(outcome, Err(ExchangeFailure::TimedOut));
        let unanswered = in_flight
            .filter(|_| is_late)
            .map(|in_flight| Unanswered { stream: in_flight.stream, input: std::mem::take(&mut self.input) });
        Attempt { outcome, doubtful: self.doubtful, unanswered }
    }

    /// The connection of the request in flight lies in `self`, since it may be needed after this future is dropped.
    async fn exchange(&mut self, target: Target<'_>, body: &mut RequestBody) -> Result<WriteAnswer, ExchangeFailure> {
        let Self { endpoint, connection, in_flight, doubtful, head, input, gzip } = self;
        let address = endpoint.address.get().ok_or(ExchangeFailure::NoAddress)?;
        let body = match gzip {
            Some(gzip) => gzip.pack(body.bytes()).await,
            None => body,
        };
        write_head(head, endpoint, target, body.len());
        let mut kept = connection.take().filter(|(to, _)| *to == address).map(|(_, stream)| stream);
        let was_kept = kept.is_some();
        if let Some(stream) = &mut kept
            && poll_once(stream.read(&mut [0])).await.is_some()
        {
            // It has ended already: nothing that is sent on it can be carried out.
            kept = None;
        }
        let connect = async {
            let connected = endpoint.connect(address, endpoint.timeout).await;
            if let Ok(stream) = &connected {
                stream.reset_at_end();
            }
            // The kept connection may have ended because of this batch, so the batch must count as suspect.
            connected.map_err(|failure| if was_kept { ExchangeFailure::Cut } else { failure })
        };
        let answered = exchange(kept, connect, async |stream| {
            let in_flight = in_flight.insert(InFlight { stream, sent: false });
            let attempted = attempt(in_flight, head, body, input).await;
            let is_final = attempted.as_ref().is_ok_and(|(answer, _)| verdict::is_final(answer));
            *doubtful |= in_flight.sent && !is_final;
            attempted
        });
        let (answer, reusable) = answered.await?;
        *connection = in_flight.take().filter(|_| reusable).map(|in_flight| (address, in_flight.stream));
        Ok(answer)
    }
}

/// Sends one request on one connection. Returns whether the connection can be reused.
async fn attempt(
    connection: &mut InFlight,
    head: &[u8],
    body: &mut RequestBody,
    input: &mut Vec<u8>,
) -> Result<(WriteAnswer, bool), AttemptFailure> {
    let stream = &mut connection.stream;
    // A backend may answer (401, 413) and close without reading everything. Such an answer counts if it arrives.
    let sent = match body.framed(head) {
        Some(whole) => stream.write_all(whole).await,
        None => match stream.write_all(head).await {
            Ok(()) => stream.write_all(body.bytes()).await,
            failed => failed,
        },
    };
    connection.sent = sent.is_ok();
    input.clear();
    let (answer, reusable) = read_answer(stream, input).await?;
    Ok((answer, reusable && sent.is_ok()))
}

/// Reads on until `input` holds an answer. Returns whether the connection can be reused.
///
/// # Errors
/// [`AttemptFailure`]. When the future is dropped, `input` holds what has come.
pub async fn read_answer(stream: &mut Stream, input: &mut Vec<u8>) -> Result<(WriteAnswer, bool), AttemptFailure> {
    let mut piece = [0; BACKEND_ANSWER_READ_BYTES];
    loop {
        let read = stream.read(&mut piece).await;
        let ended = !matches!(read, Ok(n) if n > 0);
        input.extend_from_slice(&piece[..read.unwrap_or(0)]);
        match answer::parse(input, ended) {
            Ok(Progress::Complete { answer, reusable }) => return Ok((answer, reusable && !ended)),
            Ok(Progress::Partial) if input.len() > HEAD_BYTES_MAX + BACKEND_ANSWER_BYTES_MAX => {
                return Err(AttemptFailure::Failed(ExchangeFailure::Garbled));
            }
            Ok(Progress::Partial) if ended && input.is_empty() => return Err(AttemptFailure::Silent),
            Ok(Progress::Partial) if ended => return Err(AttemptFailure::Failed(ExchangeFailure::Cut)),
            Ok(Progress::Partial) => {}
            Err(answer::Garbled) => return Err(AttemptFailure::Failed(ExchangeFailure::Garbled)),
        }
    }
}

fn write_head(head: &mut Vec<u8>, endpoint: &Endpoint, target: Target<'_>, length: usize) {
    use std::io::Write as _;
    head.clear();
    head.extend_from_slice(b"POST ");
    head.extend_from_slice(endpoint.prefix.as_bytes());
    head.extend_from_slice(b"/write?db=");
    percent_encode(head, target.db);
    if !target.rp.is_empty() {
        head.extend_from_slice(b"&rp=");
        percent_encode(head, target.rp);
    }
    head.extend_from_slice(b"&precision=");
    head.extend_from_slice(target.precision.as_param().as_bytes());
    head.extend_from_slice(endpoint.fields.as_bytes());
    write!(head, "Content-Length: {length}\r\n\r\n").expect("a Vec takes everything");
}

/// A compressor and its output buffer, reused for each request.
struct Gzip {
    state: Compress,
    packed: RequestBody,
}

impl Gzip {
    fn new() -> Self {
        Self { state: Compress::new_gzip(Compression::fast(), 15), packed: RequestBody::default() }
    }

    async fn pack(&mut self, bytes: &[u8]) -> &mut RequestBody {
        self.state.reset();
        self.packed.clear();
        for (i, piece) in bytes.chunks(GZIP_PIECE_BYTES).enumerate() {
            if i > 0 {
                io::yield_if_needed().await;
            }
            self.deflate(piece, FlushCompress::None);
        }
        self.deflate(&[], FlushCompress::Finish);
        &mut self.packed
    }

    fn deflate(&mut self, piece: &[u8], flush: FlushCompress) {
        let start = self.state.total_in();
        loop {
            self.packed.reserve(GZIP_PIECE_BYTES / 4);
            let done = usize::try_from(self.state.total_in() - start).expect("no more than the piece");
            let status = self
                .state
                .compress_vec(&piece[done..], self.packed.tail(), flush)
                .expect("compressing fails only on misuse of the stream");
            let done = usize::try_from(self.state.total_in() - start).expect("no more than the piece");
            let finished = match flush {
                FlushCompress::Finish => status == flate2::Status::StreamEnd,
                _ => done == piece.len(),
            };
            if finished {
                return;
            }
        }
    }
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gzip(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, user: &str, password: &str) -> Option<Endpoint> {
        let tls = crate::tls::Trust::default().client_config(crate::topology::BackendId(0));
        Endpoint::new(url, user, password, Address::default(), false, Duration::from_secs(1), tls)
    }

    fn head(url: &str, user: &str, password: &str, db: &[u8], rp: &[u8]) -> String {
        let endpoint = endpoint(url, user, password).expect("a url");
        let mut head = Vec::new();
        write_head(&mut head, &endpoint, Target { db, rp, precision: Precision::Second }, 7);
        String::from_utf8(head).unwrap()
    }

    #[test]
    fn a_request_names_database_policy_and_precision() {
        assert_eq!(
            head("http://h:8086", "", "", b"a b&\xff", b"one/two"),
            format!(
                "POST /write?db=a%20b%26%FF&rp=one%2Ftwo&precision=s HTTP/1.1\r\nHost: h:8086\r\n\
                 User-Agent: fluxgate/{}\r\nContent-Length: 7\r\n\r\n",
                env!("CARGO_PKG_VERSION")
            )
        );
        let with_user = head("http://x:y@h/insert/0/", "u", "p", b"d", b"");
        assert!(with_user.starts_with("POST /insert/0/write?db=d&precision=s HTTP/1.1\r\nHost: h\r\n"), "{with_user}");
        assert!(with_user.contains("\r\nAuthorization: Basic dTpw\r\n"), "{with_user}");
    }

    #[test]
    fn only_http_is_spoken_and_no_secret_is_shown() {
        assert!(endpoint("udp://h:8086", "", "").is_none());
        let shown = format!("{:?}", endpoint("http://h:8086", "u", "secret"));
        assert!(!shown.contains("secret") && !shown.contains("Basic"), "{shown}");
    }

    #[test]
    fn a_certificate_is_asked_for_the_host_of_the_url() {
        for (url, want) in [
            ("http://h:1", None),
            ("https://h.example:8086", Some("DnsName(\"h.example\")")),
            ("https://H", Some("DnsName(\"H\")")),
            ("https://127.0.0.1:8086", Some("IpAddress(V4(Ipv4Addr([127, 0, 0, 1])))")),
            ("https://[::1]:8086", Some("IpAddress(V6")),
        ] {
            let name = endpoint(url, "", "").expect(url).tls.map(|(_, name)| format!("{name:?}"));
            assert_eq!(name.is_some(), want.is_some(), "{url}");
            let name = name.unwrap_or_default();
            assert!(name.starts_with(want.unwrap_or_default()), "{url}: {name}");
        }
        assert!(endpoint("https://-.-:8086", "", "").is_none());
    }

    #[test]
    fn packed_bodies_inflate_to_what_went_in_also_with_a_used_state() {
        use std::io::Read as _;
        crate::io::block_on(|| async {
            let mut gzip = Gzip::new();
            for len in [0, 1, 1000, GZIP_PIECE_BYTES, 3 * GZIP_PIECE_BYTES + 17] {
                let mut seed = 7u32;
                let bytes: Vec<u8> = (0..len)
                    .map(|_| {
                        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (seed >> 24) as u8
                    })
                    .collect();
                let mut back = Vec::new();
                let packed = gzip.pack(&bytes).await;
                flate2::read::GzDecoder::new(packed.bytes()).read_to_end(&mut back).unwrap();
                assert_eq!(back, bytes, "{len}");
            }
        });
    }
}

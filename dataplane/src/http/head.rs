//! The head of a request: one pass with httparse, then each field is examined once.
//!
//! [`parse`] reads only the first `HEAD_BYTES_MAX` bytes (of a query `QUERY_HEAD_BYTES_MAX`), allocates nothing, and
//! its result does not depend on how the bytes were split: every prefix of a head gives `Partial` or the same error as
//! the whole. Every error closes the connection, since the start of the next request is unknown. A head whose body
//! length two servers could read differently is an error (request smuggling, RFC 9112 section 11.2).
//!
//! httparse's behaviour: a line may end in LF alone, empty lines before the request line are skipped, and folded lines,
//! blanks before the colon, CR without LF and NUL are refused. Not here: what a path means (`conn`), the body itself
//! (`chunked`, `gzip`).

use std::mem::MaybeUninit;

use crate::http::{Span, Status, connection_options, content_length};
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, QUERY_HEAD_BYTES_MAX};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Other,
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    None,
    Length(u64),
    Chunked,
}

/// A request head. Of repeated fields the first counts, as in Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub method: Method,
    path: Span,
    query: Span,
    /// 0 or 1.
    pub minor: u8,
    /// The client wants to keep this connection.
    pub keep_alive: bool,
    pub body: BodyKind,
    /// `Content-Encoding` is exactly `gzip`; InfluxDB ignores every other value.
    pub gzip: bool,
    /// The client waits for `100 Continue` before it sends a body.
    pub expect_continue: bool,
    pub authorization: Option<Span>,
    pub x_request_id: Option<Span>,
    pub request_id: Option<Span>,
    pub origin: Option<Span>,
    pub accept: Option<Span>,
    pub accept_encoding: Option<Span>,
    pub content_type: Option<Span>,
    pub user_agent: Option<Span>,
    /// Bytes up to and including the empty line; the body begins there.
    pub head_len: usize,
}

impl Head {
    /// The path as sent, not percent-decoded. `buf` as in [`Span::of`].
    pub fn path<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        // An absolute-form target may have no path, which means the root (RFC 9110 section 4.2.3).
        if self.path.is_empty() { b"/" } else { self.path.of(buf) }
    }

    /// The bytes after the first `?`; empty without one.
    pub fn query<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        self.query.of(buf)
    }
}

/// Why a head is refused. Always an error of the client that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    TooLong,
    QueryTooLong,
    TooManyFields,
    Malformed,
    /// HTTP/0.9, HTTP/2 or an unknown version.
    Version,
    /// Not `/path`, not `http://host/path`, not `*`.
    Target,
    /// Missing in HTTP/1.1, or repeated.
    Host,
    /// Not a plain number, or too large.
    Length,
    LengthTwice,
    LengthAndChunked,
    /// Anything but one `chunked` in HTTP/1.1.
    TransferEncoding,
    /// An Expect other than `100-continue`.
    Expectation,
}

impl HeadError {
    pub fn status(self) -> u16 {
        match self {
            Self::TooLong | Self::QueryTooLong | Self::TooManyFields => 431,
            Self::Version => 505,
            Self::TransferEncoding => 501,
            Self::Expectation => 417,
            Self::Malformed | Self::Target | Self::Host | Self::Length | Self::LengthTwice | Self::LengthAndChunked => {
                400
            }
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "request head too large",
            Self::QueryTooLong => "request head too large: use POST for a query of this length",
            Self::TooManyFields => "too many header fields",
            Self::Malformed => "malformed request",
            Self::Version => "unsupported HTTP version",
            Self::Target => "invalid request target",
            Self::Host => "missing or repeated Host header",
            Self::Length => "bad Content-Length",
            Self::LengthTwice => "two different Content-Lengths",
            Self::LengthAndChunked => "Content-Length with Transfer-Encoding",
            Self::TransferEncoding => "unsupported Transfer-Encoding",
            Self::Expectation => "unsupported Expect",
        }
    }
}

/// The longest head that may begin so.
fn bytes_max(buf: &[u8]) -> usize {
    if buf.starts_with(b"GET /query?") { QUERY_HEAD_BYTES_MAX } else { HEAD_BYTES_MAX }
}

/// Whether a head may end in `buf[from..]`. A caller that waits for the end of a long head need not parse it again and
/// again.
pub fn may_end(buf: &[u8], from: usize) -> bool {
    let tail = &buf[from.saturating_sub(3)..];
    memchr::memchr_iter(b'\n', tail).any(|at| matches!(tail[at + 1..], [b'\n', ..] | [b'\r', b'\n', ..]))
}

/// Parses the head at the front of `buf`; the bytes after it are not examined.
pub fn parse(buf: &[u8]) -> Result<Status<Head>, HeadError> {
    let bytes_max = bytes_max(buf);
    let window = &buf[..buf.len().min(bytes_max)];
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let head_len = match request.parse_with_uninit_headers(window, &mut slots) {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) if buf.len() < bytes_max => return Ok(Status::Partial),
        Ok(httparse::Status::Partial) if bytes_max > HEAD_BYTES_MAX => return Err(HeadError::QueryTooLong),
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLong),
        Err(error) => return Err(refusal(error, window)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    let (path, query) = split_target(target.as_bytes())?;

    let mut head = Head {
        method: method_of(method.as_bytes()),
        path: Span::within(window, path),
        query: Span::within(window, query),
        minor,
        keep_alive: minor == 1,
        body: BodyKind::None,
        gzip: false,
        expect_continue: false,
        authorization: None,
        x_request_id: None,
        request_id: None,
        origin: None,
        accept: None,
        accept_encoding: None,
        content_type: None,
        user_agent: None,
        head_len,
    };
    let mut seen = Seen::default();
    for field in request.headers.iter() {
        seen.take(&mut head, window, field.name.as_bytes(), field.value)?;
    }
    seen.settle(&mut head)?;
    Ok(Status::Complete(head))
}

/// State that several fields decide together.
#[derive(Default)]
struct Seen {
    hosts: u32,
    length: Option<u64>,
    chunked: bool,
    encoding: bool,
    expect: bool,
    close: bool,
    keep_alive: bool,
}

impl Seen {
    /// The length of the name selects at most a few candidates to compare.
    fn take(&mut self, head: &mut Head, window: &[u8], name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        let is = |want: &[u8]| name.eq_ignore_ascii_case(want);
        let keep = |place: &mut Option<Span>| {
            place.get_or_insert(Span::within(window, value));
        };
        match name.len() {
            4 if is(b"host") => self.hosts += 1,
            6 if is(b"accept") => keep(&mut head.accept),
            6 if is(b"origin") => keep(&mut head.origin),
            6 if is(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::Expectation);
                }
                self.expect = true;
            }
            10 if is(b"connection") => {
                let (close, keep_alive) = connection_options(value);
                self.close |= close;
                self.keep_alive |= keep_alive;
            }
            10 if is(b"request-id") => keep(&mut head.request_id),
            10 if is(b"user-agent") => keep(&mut head.user_agent),
            12 if is(b"content-type") => keep(&mut head.content_type),
            12 if is(b"x-request-id") => keep(&mut head.x_request_id),
            13 if is(b"authorization") => keep(&mut head.authorization),
            14 if is(b"content-length") => {
                let length = content_length(value).ok_or(HeadError::Length)?;
                // Twice the same can be read in one way only, as in InfluxDB.
                if self.length.replace(length).is_some_and(|before| before != length) {
                    return Err(HeadError::LengthTwice);
                }
            }
            15 if is(b"accept-encoding") => keep(&mut head.accept_encoding),
            16 if is(b"content-encoding") => {
                head.gzip |= !self.encoding && value == b"gzip";
                self.encoding = true;
            }
            17 if is(b"transfer-encoding") => {
                // HTTP/1.0 has no chunks. If a client sends them, an older proxy before us may not see them.
                if self.chunked || head.minor == 0 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::TransferEncoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn settle(self, head: &mut Head) -> Result<(), HeadError> {
        if self.hosts > 1 || (self.hosts == 0 && head.minor == 1) {
            return Err(HeadError::Host);
        }
        head.body = match (self.length, self.chunked) {
            (Some(_), true) => return Err(HeadError::LengthAndChunked),
            (Some(length), false) => BodyKind::Length(length),
            (None, true) => BodyKind::Chunked,
            (None, false) => BodyKind::None,
        };
        // An HTTP/1.0 client does not understand an interim answer (RFC 9110 section 10.1.1).
        head.expect_continue =
            self.expect && head.minor == 1 && !matches!(head.body, BodyKind::None | BodyKind::Length(0));
        head.keep_alive = !self.close && (head.minor == 1 || self.keep_alive);
        Ok(())
    }
}

fn method_of(name: &[u8]) -> Method {
    match name {
        b"POST" => Method::Post,
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        _ => Method::Other,
    }
}

/// Path and query of a request target (RFC 9112 section 3.2): origin form, absolute form or `*`. Both are parts of
/// `target`, empty if absent.
fn split_target(target: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    let from_path = match target {
        [b'/', ..] | [b'*'] => target,
        _ => {
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
                .ok_or(HeadError::Target)?;
            let rest = &target[scheme.len()..];
            let authority_len = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
            if authority_len == 0 {
                return Err(HeadError::Target);
            }
            &rest[authority_len..]
        }
    };
    Ok(match memchr::memchr(b'?', from_path) {
        Some(at) => (&from_path[..at], &from_path[at + 1..]),
        None => (from_path, &from_path[from_path.len()..]),
    })
}

/// Tells another version of HTTP from garbage. Uses only bytes before the place of the error, so that the result does
/// not depend on how much has arrived.
#[cold]
fn refusal(error: httparse::Error, window: &[u8]) -> HeadError {
    let ends_line = |b: &u8| matches!(b, b'\r' | b'\n');
    // Empty lines before the head are skipped (RFC 9112 section 2.2), spaces are not.
    let rest = &window[window.iter().position(|b| !ends_line(b)).unwrap_or(window.len())..];
    let line_end = rest.iter().position(ends_line);
    let line = &rest[..line_end.unwrap_or(rest.len())];
    let mut words = line.split(|&b| b == b' ');
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version if words.nth(2).is_some_and(|version| version.starts_with(b"HTTP/")) => {
            HeadError::Version
        }
        // HTTP/0.9: `GET /path` and the end of the line.
        httparse::Error::Token
            if line_end.is_some()
                && words.next() == Some(b"GET")
                && words.next().is_some_and(|target| target.iter().all(u8::is_ascii_graphic))
                && words.next().is_none() =>
        {
            HeadError::Version
        }
        _ => HeadError::Malformed,
    }
}

#[cfg(test)]
#[path = "head_test.rs"]
mod tests;

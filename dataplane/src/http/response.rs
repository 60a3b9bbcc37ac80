//! Writes responses in InfluxDB's form into a buffer of the caller.
//!
//! Any text gives one well-formed response: control bytes in header values become blanks, so that no text can end a
//! header. Every response has `Date`, `X-Influxdb-Build`, `X-Influxdb-Version`, `X-Fluxgate-Version` and twice the
//! request's id; with `Origin` also the four CORS fields. Every 401 names the scheme that is asked for, as InfluxDB
//! does. The 204 of a write is a copy of a prepared response with a new id. Not here: which status an error gets, the
//! formats of error bodies (`error_body`), the request ids themselves (`request_id`), JSON of admin answers (control).

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use crate::http::error_body::{Format, RefusedLines, error_body, refused_body};
use crate::http::head::{Head, Method};
use crate::http::request_id::{ID_LEN, RequestIds};
use crate::http::version::OLDEST;
use crate::http::{Span, push_decimal};
use crate::limits::ERROR_HEADER_BYTES_MAX;

/// The proxy's own. Shown in `X-Fluxgate-Version` and by the command line.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The answer to plain HTTP where TLS was expected, as in Go's `net/http`. Then the connection is closed.
pub const PLAIN_HTTP_TO_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Ends a body that [`Responder::stream`] sends in chunks.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

pub const PLAIN: &str = "text/plain; charset=utf-8";

/// What follows `X-Influxdb-Version: `, and ends with the line.
const OWN_VERSION: &str = concat!("\r\nX-Fluxgate-Version: ", env!("CARGO_PKG_VERSION"), "\r\n");
const CORS: &str = "Access-Control-Allow-Headers: Accept, Accept-Encoding, Authorization, Content-Length, \
     Content-Type, X-CSRF-Token, X-HTTP-Method-Override\r\n\
     Access-Control-Allow-Methods: DELETE, GET, OPTIONS, POST, PUT\r\n\
     Access-Control-Expose-Headers: Date, X-InfluxDB-Version, X-InfluxDB-Build\r\nAccess-Control-Allow-Origin: ";

/// What an answer depends on in its request.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo<'a> {
    /// HTTP/1.`minor`.
    pub minor: u8,
    /// A HEAD request: the answer has no body.
    pub head_only: bool,
    /// The connection stays open afterwards. Set to false to close it.
    pub keep_alive: bool,
    /// The id that the client sent.
    pub request_id: Option<&'a [u8]>,
    pub origin: Option<&'a [u8]>,
    pub format: Format,
}

impl<'a> ReplyTo<'a> {
    /// `buf` as in `Span::of`.
    pub fn new(head: &Head, buf: &'a [u8]) -> Self {
        let field = |span: Option<Span>| span.filter(|span| !span.is_empty()).map(|span| span.of(buf));
        Self {
            minor: head.minor,
            head_only: head.method == Method::Head,
            keep_alive: head.keep_alive,
            request_id: field(head.x_request_id).or(field(head.request_id)),
            origin: field(head.origin),
            format: Format::of(field(head.accept)),
        }
    }

    /// For bytes that are not a valid request; closes the connection.
    pub fn unreadable() -> Self {
        Self { minor: 1, head_only: false, keep_alive: false, request_id: None, origin: None, format: Format::Json }
    }
}

/// One worker's writer of responses.
#[derive(Debug, Clone)]
pub struct Responder {
    date: String,
    /// Of InfluxDB, as clients are told.
    version: String,
    ids: RequestIds,
    hot: HotReply,
}

/// The prepared 204 to a plain HTTP/1.1 write.
#[derive(Debug, Clone)]
struct HotReply {
    ack: Option<&'static str>,
    bytes: Vec<u8>,
    date_at: usize,
    ids_at: [usize; 2],
}

impl Responder {
    /// `hot_ack` is the level that nearly all writes ask for (`X-Fluxgate-Ack`), or None.
    pub fn new(ids: RequestIds, hot_ack: Option<&'static str>) -> Self {
        let date = httpdate::fmt_http_date(UNIX_EPOCH);
        let hot = HotReply { ack: hot_ack, bytes: Vec::new(), date_at: 0, ids_at: [0; 2] };
        let mut this = Self { date, version: OLDEST.to_string(), ids, hot };
        this.prepare();
        this
    }

    fn prepare(&mut self) {
        // Made by the general code, so that the two cannot differ. The marks show where the ids go.
        let mark = [b'#'; ID_LEN];
        let to = ReplyTo { keep_alive: true, request_id: Some(&mark), ..ReplyTo::unreadable() };
        let mut bytes = Vec::new();
        self.write_no_content(&mut bytes, to, self.hot.ack);
        let place = |part: &[u8]| memchr::memmem::find(&bytes, part).expect("it has just been written");
        let first = place(&mark);
        let second = first + ID_LEN + memchr::memmem::find(&bytes[first + ID_LEN..], &mark).expect("written twice");
        let date_at = place(self.date.as_bytes());
        self.hot = HotReply { ack: self.hot.ack, date_at, ids_at: [first, second], bytes };
    }

    /// The version of InfluxDB that answers name from now on.
    pub fn set_version(&mut self, version: &str) {
        if self.version != version {
            version.clone_into(&mut self.version);
            self.prepare();
        }
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// Sets the time since 1970; about once a second is enough.
    pub fn set_time(&mut self, unix: Duration) {
        self.date = httpdate::fmt_http_date(UNIX_EPOCH + unix);
        let at = self.hot.date_at;
        self.hot.bytes[at..at + self.date.len()].copy_from_slice(self.date.as_bytes());
        self.ids.set_time(unix);
    }

    /// 204, the answer to a successful write and to `/ping`. `ack` is the durability reached.
    #[inline]
    pub fn no_content(&mut self, out: &mut Vec<u8>, to: ReplyTo<'_>, ack: Option<&str>) {
        let plain = to.keep_alive && to.minor == 1 && to.format == Format::Json;
        if plain && to.request_id.is_none() && to.origin.is_none() && ack == self.hot.ack {
            let start = out.len();
            out.extend_from_slice(&self.hot.bytes);
            let id = self.ids.next_id();
            for at in self.hot.ids_at {
                out[start + at..start + at + ID_LEN].copy_from_slice(id);
            }
        } else {
            self.write_no_content(out, to, ack);
        }
    }

    fn write_no_content(&mut self, out: &mut Vec<u8>, to: ReplyTo<'_>, ack: Option<&str>) {
        self.start(out, to, 204);
        field(out, "Content-Type", to.format.content_type().as_bytes());
        if let Some(ack) = ack {
            field(out, "X-Fluxgate-Ack", ack.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// A whole response. `fields` may contain Content-Type, but neither Content-Length nor Connection. `body` must be
    /// empty with 204 and 304.
    pub fn send(&mut self, out: &mut Vec<u8>, to: ReplyTo<'_>, status: u16, fields: &[(&str, &str)], body: &[u8]) {
        self.start(out, to, status);
        fields.iter().for_each(|(name, value)| field(out, name, value.as_bytes()));
        finish(out, to, status, body);
    }

    /// The head of a body that is sent in pieces. True: send each piece with [`push_chunk`] and [`LAST_CHUNK`] at the
    /// end. False: send the pieces unchanged; the body ends after `length` bytes or with the connection. For a HEAD
    /// request nothing may follow.
    pub fn stream(
        &mut self,
        out: &mut Vec<u8>,
        to: ReplyTo<'_>,
        status: u16,
        fields: &[(&str, &str)],
        length: Option<u64>,
    ) -> bool {
        // HTTP/1.0 has no chunks.
        let chunked = length.is_none() && to.minor == 1;
        let keep_alive = to.keep_alive && (length.is_some() || chunked);
        self.start(out, ReplyTo { keep_alive, ..to }, status);
        fields.iter().for_each(|(name, value)| field(out, name, value.as_bytes()));
        if let Some(length) = length {
            length_field(out, length);
        } else if chunked {
            field(out, "Transfer-Encoding", b"chunked");
        }
        out.extend_from_slice(b"\r\n");
        chunked
    }

    /// An error in the format the client asked for, with the text also in `X-Influxdb-Error` (but not on 401).
    pub fn error(
        &mut self,
        out: &mut Vec<u8>,
        to: ReplyTo<'_>,
        status: u16,
        text: &[u8],
        pretty: bool,
        fields: &[(&str, &str)],
    ) {
        let body = error_body(to.format, text, pretty);
        self.error_with_body(out, to, status, (status != 401).then_some(text), fields, &body);
    }

    /// 400 to a write with refused lines: `text` is InfluxDB's, `refused` lists the lines.
    pub fn refused_lines<R: fmt::Display>(
        &mut self,
        out: &mut Vec<u8>,
        to: ReplyTo<'_>,
        text: &[u8],
        pretty: bool,
        refused: RefusedLines<impl IntoIterator<Item = (u64, R)>>,
        fields: &[(&str, &str)],
    ) {
        let body = match to.format {
            Format::Json => refused_body(text, pretty, refused),
            format => error_body(format, text, pretty),
        };
        self.error_with_body(out, to, 400, Some(text), fields, &body);
    }

    /// An error with a body of the caller's, in the format of `to`. `text` is for `X-Influxdb-Error`.
    pub fn error_with_body(
        &mut self,
        out: &mut Vec<u8>,
        to: ReplyTo<'_>,
        status: u16,
        text: Option<&[u8]>,
        fields: &[(&str, &str)],
        body: &[u8],
    ) {
        self.start(out, to, status);
        field(out, "Content-Type", to.format.content_type().as_bytes());
        if let Some(text) = text {
            field(out, "X-Influxdb-Error", &text[..text.len().min(ERROR_HEADER_BYTES_MAX)]);
        }
        fields.iter().for_each(|(name, value)| field(out, name, value.as_bytes()));
        finish(out, to, status, body);
    }

    /// A plain text and a line end, as Go's own handlers answer 404 and 405.
    pub fn plain(&mut self, out: &mut Vec<u8>, to: ReplyTo<'_>, status: u16, text: &str, fields: &[(&str, &str)]) {
        self.start(out, to, status);
        field(out, "Content-Type", PLAIN.as_bytes());
        field(out, "X-Content-Type-Options", b"nosniff");
        fields.iter().for_each(|(name, value)| field(out, name, value.as_bytes()));
        finish(out, to, status, format!("{text}\n").as_bytes());
    }

    /// Status line and the fields of every response.
    fn start(&mut self, out: &mut Vec<u8>, to: ReplyTo<'_>, status: u16) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(&[b'0' + (status / 100 % 10) as u8, b'0' + (status / 10 % 10) as u8]);
        out.extend_from_slice(&[b'0' + (status % 10) as u8, b' ']);
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(b"X-Influxdb-Build: fluxgate\r\nX-Influxdb-Version: ");
        push_value(out, self.version.as_bytes());
        out.extend_from_slice(OWN_VERSION.as_bytes());
        field(out, "Date", self.date.as_bytes());
        let id = match to.request_id {
            Some(id) => id,
            None => self.ids.next_id(),
        };
        field(out, "Request-Id", id);
        field(out, "X-Request-Id", id);
        if status == 401 {
            field(out, "WWW-Authenticate", b"Basic realm=\"InfluxDB\"");
        }
        if let Some(origin) = to.origin {
            out.extend_from_slice(CORS.as_bytes());
            push_value(out, origin);
            out.extend_from_slice(b"\r\n");
        }
        // The status line says HTTP/1.1 also to a 1.0 client, so this client must be told that the connection stays
        // open.
        match (to.keep_alive, to.minor) {
            (false, _) => field(out, "Connection", b"close"),
            (true, 0) => field(out, "Connection", b"keep-alive"),
            (true, _) => {}
        }
    }
}

/// One chunk; nothing for no data, since an empty chunk would end the body.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Content-Length if the status allows it, the end of the head, and the body except for HEAD.
fn finish(out: &mut Vec<u8>, to: ReplyTo<'_>, status: u16, body: &[u8]) {
    let bodyless = matches!(status, 100..=199 | 204 | 304);
    debug_assert!(!bodyless || body.is_empty(), "a {status} has no body");
    if !bodyless {
        length_field(out, body.len() as u64);
    }
    out.extend_from_slice(b"\r\n");
    if !bodyless && !to.head_only {
        out.extend_from_slice(body);
    }
}

fn length_field(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    push_decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    push_value(out, value);
    out.extend_from_slice(b"\r\n");
}

/// InfluxDB replaces only LF and CR by blanks. Other control bytes are harmless, but many clients refuse the whole
/// answer because of them, and would not see which line was bad.
fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    let start = out.len();
    out.extend_from_slice(value);
    for byte in &mut out[start..] {
        if (*byte < b' ' && *byte != b'\t') || *byte == 0x7f {
            *byte = b' ';
        }
    }
}

/// The reason phrases of RFC 9110; clients ignore them.
fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Status",
    }
}

#[cfg(test)]
#[path = "response_test.rs"]
mod tests;

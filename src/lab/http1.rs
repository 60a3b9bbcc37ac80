//! A minimal HTTP/1.1 parser for the load generator, the stand-in backend and the tests: where a message in a growing
//! buffer ends, and its body.
//!
//! The caller owns the buffer and calls again with more bytes while the answer is `None`; nothing is kept between
//! calls. Not here: sockets, limits, and the proxy's own parser (`fluxgate_dataplane::http`), which works on streams.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Header fields of one message. More: malformed.
const HEADERS_MAX: usize = 64;

/// The peer does not speak HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The range of a whole body in the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BodyRange {
    range: Range<usize>,
    chunked: bool,
    /// First byte after the message.
    end: usize,
}

/// One whole response in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Length of the message with its head: the next message starts there.
    pub len: usize,
    /// The peer will close the connection.
    pub close: bool,
    head_len: usize,
    body: BodyRange,
}

impl Response {
    /// The first whole final response in `buffer` (1xx are skipped); `None` while bytes are missing. `eof`: no more
    /// bytes will come, which ends a body without a length.
    pub fn parse(buffer: &[u8], eof: bool) -> Result<Option<Self>, Malformed> {
        let mut start = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            let mut head = httparse::Response::new(&mut headers);
            let head_len = match head.parse(&buffer[start..]) {
                Ok(httparse::Status::Complete(len)) => len,
                Ok(httparse::Status::Partial) => return Ok(None),
                Err(_) => return Err(Malformed),
            };
            let status = head.code.ok_or(Malformed)?;
            let (framing, mut close) = framing(head.headers)?;
            close |= head.version == Some(0);
            if (100..200).contains(&status) {
                start += head_len;
                continue;
            }
            let framing = match (status, framing) {
                (204 | 304, _) => Framing::Length(0),
                (_, Some(framing)) => framing,
                (_, None) => Framing::UntilClose,
            };
            let Some(body) = body(framing, buffer, start + head_len, eof)? else { return Ok(None) };
            close |= framing == Framing::UntilClose;
            return Ok(Some(Self { status, len: body.end, close, head_len: start + head_len, body }));
        }
    }

    /// The body without chunk framing. `buffer` must be the parsed one.
    pub fn body<'a>(&self, buffer: &'a [u8]) -> Cow<'a, [u8]> {
        decoded(&self.body, buffer)
    }

    /// The value of the first header field called `name` (any case).
    pub fn header<'a>(&self, buffer: &'a [u8], name: &str) -> Option<&'a str> {
        header(&buffer[..self.head_len], name)
    }
}

/// One whole request in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    pub gzip: bool,
    pub len: usize,
    pub close: bool,
    body: BodyRange,
}

/// The state of a request in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestState {
    Partial,
    /// The head is complete, the body is not, and the client waits for `100 Continue`.
    WantsContinue,
    Whole(Request),
}

impl Request {
    pub fn parse(buffer: &[u8]) -> Result<RequestState, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        let head_len = match head.parse(buffer) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(RequestState::Partial),
            Err(_) => return Err(Malformed),
        };
        let (framing, mut close) = framing(head.headers)?;
        close |= head.version == Some(0);
        let is = |name: &str, value: &str| {
            head.headers.iter().any(|h| {
                h.name.eq_ignore_ascii_case(name) && h.value.trim_ascii().eq_ignore_ascii_case(value.as_bytes())
            })
        };
        let Some(body) = body(framing.unwrap_or(Framing::Length(0)), buffer, head_len, false)? else {
            let waits = is("expect", "100-continue") && buffer.len() == head_len;
            return Ok(if waits { RequestState::WantsContinue } else { RequestState::Partial });
        };
        Ok(RequestState::Whole(Self {
            method: head.method.unwrap_or_default().into(),
            target: head.path.unwrap_or_default().into(),
            gzip: is("content-encoding", "gzip"),
            len: body.end,
            close,
            body,
        }))
    }

    pub fn body<'a>(&self, buffer: &'a [u8]) -> Cow<'a, [u8]> {
        decoded(&self.body, buffer)
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first value of `name` in the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        form_value(self.target.split_once('?')?.1, name)
    }
}

/// The first value of `name` in an `application/x-www-form-urlencoded` text.
pub fn form_value(form: &str, name: &str) -> Option<String> {
    form.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (url_decoded(key) == name).then(|| url_decoded(value))
    })
}

/// All bytes except the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub fn url_encoded(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The inverse of [`url_encoded`]; also reads `+` as a space, as in forms. A `%` without two hex digits stays.
fn url_decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

fn framing(headers: &[httparse::Header<'_>]) -> Result<(Option<Framing>, bool), Malformed> {
    let (mut framing, mut close) = (None, false);
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| Malformed)?;
            framing = Some(Framing::Length(text.trim().parse().map_err(|_| Malformed)?));
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Some(Framing::Chunked);
        } else if header.name.eq_ignore_ascii_case("connection") {
            close |= header.value.trim_ascii().eq_ignore_ascii_case(b"close");
        }
    }
    Ok((framing, close))
}

fn body(framing: Framing, buffer: &[u8], start: usize, eof: bool) -> Result<Option<BodyRange>, Malformed> {
    match framing {
        Framing::Length(length) => {
            let end = start.checked_add(length).ok_or(Malformed)?;
            Ok((end <= buffer.len()).then_some(BodyRange { range: start..end, chunked: false, end }))
        }
        Framing::Chunked => {
            let mut at = start;
            while let Some((data, next)) = chunk(buffer, at)? {
                if data.is_empty() {
                    return Ok(Some(BodyRange { range: start..at, chunked: true, end: next }));
                }
                at = next;
            }
            Ok(None)
        }
        Framing::UntilClose => {
            Ok(eof.then_some(BodyRange { range: start..buffer.len(), chunked: false, end: buffer.len() }))
        }
    }
}

/// The chunk at `at`: its data, and where the next one starts. The last chunk has no data; its trailers are skipped.
fn chunk(buffer: &[u8], at: usize) -> Result<Option<(Range<usize>, usize)>, Malformed> {
    let (skip, size) = match httparse::parse_chunk_size(&buffer[at..]) {
        Ok(httparse::Status::Complete(found)) => found,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    let start = at + skip;
    if size == 0 {
        let mut line = start;
        while let Some(len) = buffer[line..].windows(2).position(|pair| pair == b"\r\n") {
            line += len + 2;
            if len == 0 {
                return Ok(Some((start..start, line)));
            }
        }
        return Ok(None);
    }
    let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size)).ok_or(Malformed)?;
    match buffer.get(end..end + 2) {
        Some(b"\r\n") => Ok(Some((start..end, end + 2))),
        Some(_) => Err(Malformed),
        None => Ok(None),
    }
}

fn decoded<'a>(body: &BodyRange, buffer: &'a [u8]) -> Cow<'a, [u8]> {
    if !body.chunked {
        return Cow::Borrowed(&buffer[body.range.clone()]);
    }
    let (mut out, mut at) = (Vec::new(), body.range.start);
    while at < body.range.end {
        let Ok(Some((data, next))) = chunk(buffer, at) else { break };
        out.extend_from_slice(&buffer[data]);
        at = next;
    }
    Cow::Owned(out)
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head).ok()?.split("\r\n").skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_ends_with_its_framing() {
        let cases: &[(&[u8], u16, &[u8], bool)] = &[
            (b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", 204, b"", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", false),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                200,
                b"abc",
                false,
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nc\r\n0\r\nTrailer: x\r\n\r\n",
                200,
                b"c",
                false,
            ),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 204, b"", true),
        ];
        for (bytes, status, body, close) in cases {
            // Every prefix is partial, and bytes after the message are ignored.
            for cut in 0..bytes.len() {
                assert_eq!(Response::parse(&bytes[..cut], false), Ok(None), "{cut} of {:?}", bytes.escape_ascii());
            }
            let more = [bytes, b"HTTP/1.1 200".as_slice()].concat();
            let response = Response::parse(&more, false).unwrap().unwrap();
            assert_eq!((response.status, response.len, response.close), (*status, bytes.len(), *close));
            assert_eq!(&*response.body(&more), *body);
        }
    }

    #[test]
    fn a_body_without_length_ends_with_the_connection() {
        let bytes = b"HTTP/1.0 500 Oops\r\n\r\nsorry";
        assert_eq!(Response::parse(bytes, false), Ok(None));
        let response = Response::parse(bytes, true).unwrap().unwrap();
        assert_eq!((&*response.body(bytes), response.close), (b"sorry".as_slice(), true));
    }

    #[test]
    fn malformed_http_is_refused() {
        for bytes in [
            b"SSH-2.0-x\r\n".as_slice(),
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabcd",
        ] {
            assert_eq!(Response::parse(bytes, false), Err(Malformed), "{:?}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_request_is_whole_only_with_its_body() {
        let bytes = b"POST /write?db=a%20b&p=x+y HTTP/1.1\r\nContent-Encoding: GZIP\r\n\
            Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(Request::parse(&bytes[..cut]), Ok(RequestState::Partial), "{cut}");
        }
        let Ok(RequestState::Whole(request)) = Request::parse(bytes) else { panic!("not whole") };
        assert_eq!((request.path(), request.gzip, request.len), ("/write", true, bytes.len()));
        assert_eq!(request.parameter("db").as_deref(), Some("a b"));
        assert_eq!(request.parameter("p").as_deref(), Some("x y"));
        assert_eq!(request.parameter("q"), None);
        assert_eq!(&*request.body(bytes), b"ab");
    }

    #[test]
    fn a_waiting_client_is_told_to_continue() {
        let head = b"POST /write HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(Request::parse(head), Ok(RequestState::WantsContinue));
        assert!(matches!(Request::parse(&[head.as_slice(), b"ab"].concat()), Ok(RequestState::Whole(_))));
    }

    #[test]
    fn encoding_and_decoding_are_inverse() {
        let text = "SELECT count(n) FROM /.*/ + 1% é&=";
        assert_eq!(form_value(&format!("a=1&q={}", url_encoded(text)), "q").as_deref(), Some(text));
    }
}

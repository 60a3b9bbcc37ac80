//! A backend's answer to a write, parsed from the bytes that have arrived so far.
//!
//! Not here: reading them (`client.rs`), what an answer means for the batch (`verdict.rs`).

use std::borrow::Cow;

use crate::limits::{BACKEND_ANSWER_BYTES_MAX, HEADERS_MAX};

/// What counts of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// The error text; empty when the status is 2xx.
    pub error: String,
    /// The error came in InfluxDB's own form (header or JSON), not from something in between.
    pub named: bool,
}

/// The bytes are no HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

/// An answer as far as it has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// All there is to know. `reusable`: the connection may carry the next request.
    Complete { answer: Answer, reusable: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    ToTheEnd,
}

/// Parses what has arrived since the request was sent; `ended` = the backend has closed its side. Interim answers (1xx)
/// are skipped. Parsing again from the start at each read is cheap: an answer to a write has a few hundred bytes.
///
/// # Errors
/// [`Garbled`].
pub fn parse(mut bytes: &[u8], ended: bool) -> Result<Progress, Garbled> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let head_len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(n)) => n,
            Ok(httparse::Status::Partial) => return Ok(Progress::Partial),
            Err(_) => return Err(Garbled),
        };
        let status = response.code.ok_or(Garbled)?;
        let rest = &bytes[head_len..];
        if (100..200).contains(&status) && status != 101 {
            bytes = rest;
            continue;
        }
        let mut keep_alive = response.version == Some(1);
        let mut framing = Framing::ToTheEnd;
        let mut named = None;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).map_err(|_| Garbled)?;
                let length = text.trim().parse().map_err(|_| Garbled)?;
                if framing == Framing::ToTheEnd {
                    framing = Framing::Length(length);
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            } else if header.name.eq_ignore_ascii_case("connection") {
                keep_alive &= !header.value.eq_ignore_ascii_case(b"close");
            } else if header.name.eq_ignore_ascii_case("x-influxdb-error") {
                named = Some(String::from_utf8_lossy(header.value).into_owned());
            }
        }
        if status == 204 || status == 304 {
            framing = Framing::Length(0);
        }
        let Some(content) = content(rest, framing, ended)? else { return Ok(Progress::Partial) };
        let answer = Answer { status, error: String::new(), named: named.is_some() };
        let answer = if status / 100 == 2 { answer } else { with_error(answer, named, &content.bytes) };
        return Ok(Progress::Complete { answer, reusable: keep_alive && content.whole });
    }
}

struct Content<'a> {
    bytes: Cow<'a, [u8]>,
    /// It ended exactly with the bytes that have arrived.
    whole: bool,
}

/// The body once it is complete or long enough; None before.
fn content(rest: &[u8], framing: Framing, ended: bool) -> Result<Option<Content<'_>>, Garbled> {
    let cut = || Content { bytes: Cow::Borrowed(&rest[..rest.len().min(BACKEND_ANSWER_BYTES_MAX)]), whole: false };
    let enough = rest.len() >= BACKEND_ANSWER_BYTES_MAX;
    Ok(match framing {
        Framing::Length(n) if rest.len() >= n => {
            Some(Content { bytes: Cow::Borrowed(&rest[..n]), whole: rest.len() == n })
        }
        Framing::ToTheEnd if ended => Some(cut()),
        Framing::Chunked => match dechunk(rest)? {
            Some((body, used)) => Some(Content { bytes: Cow::Owned(body), whole: used == rest.len() }),
            None => enough.then(cut),
        },
        _ => enough.then(cut),
    })
}

/// The chunks' content and the length of all of it on the wire; None while the last chunk is missing. Trailers, which no
/// backend sends on a write, are not understood: the empty line must follow at once.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Garbled> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (start, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((n, size))) => (at + n, usize::try_from(size).map_err(|_| Garbled)?),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Garbled),
        };
        let end = start.checked_add(size).ok_or(Garbled)?;
        let Some(chunk) = bytes.get(start..end) else { return Ok(None) };
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(Garbled),
            None => return Ok(None),
        }
        if size == 0 {
            return Ok(Some((body, end + 2)));
        }
        body.extend_from_slice(chunk);
        at = end + 2;
    }
}

/// The error text: the whole of a JSON error, else the header (which InfluxDB cuts at 1024 bytes), else the body as it is.
fn with_error(answer: Answer, header: Option<String>, body: &[u8]) -> Answer {
    let json = json_error(body);
    let named = answer.named || json.is_some();
    let error = json.or(header).unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    Answer { error, named, ..answer }
}

/// The string of `{"error":"..."}`. Only what InfluxDB writes there is understood; anything else is None.
fn json_error(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim_start().strip_prefix('{')?.trim_start();
    let text = text.strip_prefix("\"error\"")?.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let mut error = String::with_capacity(text.len());
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some(error),
            '\\' => error.push(match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'u' => {
                    let digits = chars.as_str().get(..4)?;
                    let code = u32::from_str_radix(digits, 16).ok()?;
                    chars = chars.as_str()[4..].chars();
                    char::from_u32(code).unwrap_or('\u{fffd}')
                }
                plain => plain,
            }),
            plain => error.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(bytes: &[u8], ended: bool) -> (u16, String, bool, bool) {
        match parse(bytes, ended) {
            Ok(Progress::Complete { answer, reusable }) => (answer.status, answer.error, answer.named, reusable),
            other => panic!("{other:?} for {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn answers_are_read_in_every_framing() {
        let f = |bytes: &str, ended: bool, want: (u16, &str, bool, bool)| {
            let (status, error, named, reusable) = complete(bytes.as_bytes(), ended);
            assert_eq!((status, error.as_str(), named, reusable), want, "{bytes:?}");
        };
        f("HTTP/1.1 204 No Content\r\nX: y\r\n\r\n", false, (204, "", false, true));
        f("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", false, (204, "", false, true));
        f("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", false, (204, "", false, false));
        f("HTTP/1.0 204 No Content\r\n\r\n", false, (204, "", false, false));
        f("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200", false, (204, "", false, false));
        f("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, (200, "", false, true));
        f(
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 25\r\n\r\n{\"error\":\"a \\\"b\\\" \\u003c\"}",
            true,
            (400, "a \"b\" <", true, false),
        );
        f(
            "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"err\r\n8\r\nor\":\"x\"}\r\n0\r\n\r\n",
            false,
            (400, "x", true, true),
        );
        f("HTTP/1.1 502 Bad Gateway\r\n\r\n<html> \n", true, (502, "<html>", false, false));
        f(
            "HTTP/1.1 500 Oh\r\nX-InfluxDB-Error: engine: x\r\nContent-Length: 0\r\n\r\n",
            false,
            (500, "engine: x", true, true),
        );
    }

    #[test]
    fn every_prefix_of_an_answer_is_partial_and_never_garbled() {
        for whole in [
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 13\r\n\r\n{\"error\":\"x\"}",
            "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"err\r\n8\r\nor\":\"x\"}\r\n0\r\n\r\n",
        ] {
            for n in 0..whole.len() {
                assert_eq!(parse(&whole.as_bytes()[..n], false), Ok(Progress::Partial), "{n}");
            }
            assert_eq!(complete(whole.as_bytes(), false).1, "x");
        }
    }

    #[test]
    fn what_is_no_answer_is_garbled() {
        for bytes in [
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 400 B\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 400 B\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert_eq!(parse(bytes.as_bytes(), false), Err(Garbled), "{bytes:?}");
        }
    }

    #[test]
    fn a_longer_answer_is_cut_and_its_connection_not_used_again() {
        let mut bytes = b"HTTP/1.1 500 Oh\r\nContent-Length: 10000000\r\n\r\n".to_vec();
        bytes.resize(bytes.len() + BACKEND_ANSWER_BYTES_MAX, b'x');
        let (status, error, _, reusable) = complete(&bytes, false);
        assert_eq!((status, error.len(), reusable), (500, BACKEND_ANSWER_BYTES_MAX, false));
    }
}

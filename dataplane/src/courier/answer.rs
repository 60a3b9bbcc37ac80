//! Parses a backend's answer to a write, from the bytes received so far.
//!
//! Not here: reading heads, chunks and JSON errors (`http`), receiving the bytes (`client.rs`), what an answer means
//! for the batch (`verdict.rs`).

use crate::http::answer::{self, AnswerBody};
use crate::http::chunked::Decoder;
use crate::http::{Status, go_json};
use crate::limits::BACKEND_ANSWER_BYTES_MAX;

/// The parts of an answer that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteAnswer {
    pub status: u16,
    /// The error text; empty when the status is 204.
    pub error: String,
    /// The error is in InfluxDB's own form (header or JSON), so it does not come from a proxy in between.
    pub named: bool,
}

/// The bytes are not an HTTP answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbled;

/// Result of parsing.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The answer is complete. `reusable`: the connection can carry the next request.
    Complete { answer: WriteAnswer, reusable: bool },
}

/// Parses the bytes received since the request was sent. `ended`: the backend has closed its side. Parsing starts over
/// at each read, which is cheap: an answer to a write has a few hundred bytes.
///
/// # Errors
/// [`Garbled`].
pub fn parse(bytes: &[u8], ended: bool) -> Result<Progress, Garbled> {
    let head = match answer::parse(bytes, false) {
        Ok(Status::Complete(head)) => head,
        Ok(Status::Partial) => return Ok(Progress::Partial),
        Err(_) => return Err(Garbled),
    };
    let rest = &bytes[head.head_len..];
    let Some((body, whole)) = body(rest, head.body, ended)? else { return Ok(Progress::Partial) };
    let header = head.error.map(|span| String::from_utf8_lossy(span.of(bytes)).into_owned());
    let mut answer = WriteAnswer { status: head.status, error: String::new(), named: header.is_some() };
    if head.status != 204 {
        // The JSON text if there is one; else the header, which InfluxDB cuts at 1024 bytes; else the body as it is.
        let json = go_json::error_text(&body);
        answer.named |= json.is_some();
        answer.error = json.or(header).unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
    }
    Ok(Progress::Complete { answer, reusable: head.keep_alive && whole })
}

/// The body, and whether it ended exactly with the received bytes. None: the body is neither complete nor long enough
/// yet.
fn body(rest: &[u8], kind: AnswerBody, ended: bool) -> Result<Option<(Vec<u8>, bool)>, Garbled> {
    let cut = || Some((rest[..rest.len().min(BACKEND_ANSWER_BYTES_MAX)].to_vec(), false));
    let enough = rest.len() >= BACKEND_ANSWER_BYTES_MAX;
    Ok(match kind {
        AnswerBody::None => Some((Vec::new(), rest.is_empty())),
        AnswerBody::Length(n) if rest.len() as u64 >= n => Some((rest[..n as usize].to_vec(), rest.len() as u64 == n)),
        AnswerBody::UntilClose if ended => cut(),
        AnswerBody::Chunked => {
            let mut data = rest.to_vec();
            let decoded = Decoder::new().decode(&mut data).map_err(|_| Garbled)?;
            data.truncate(decoded.data_len);
            if decoded.done { Some((data, decoded.consumed == rest.len())) } else { enough.then(cut).flatten() }
        }
        _ => enough.then(cut).flatten(),
    })
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
        f("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, (200, "ok", false, true));
        f(
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 25\r\n\r\n{\"error\":\"a \\\"b\\\" \\u003c\"}",
            true,
            (400, "a \"b\" <", true, false),
        );
        f(
            "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\n{\"err\r\n8\r\nor\":\"x\"}\r\n0\r\n\r\n",
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
            "HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\n{\"err\r\n8\r\nor\":\"x\"}\r\n0\r\n\r\n",
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

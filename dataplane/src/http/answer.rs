//! The head of a backend's answer, for couriers and queries.
//!
//! As in `head`: pure, no allocation, at most `ANSWER_HEAD_BYTES_MAX` bytes, and the result does not depend on how the
//! bytes were split. Interim answers (1xx) are skipped. When a body length can be read in two ways the answer is
//! unreadable, since the end of the body is unknown. Not here: what a status means for a batch (`courier`), the text of
//! an error body (`go_json::error_text`).

use std::mem::MaybeUninit;

use crate::http::{Span, Status, connection_options, content_length};
use crate::limits::{ANSWER_HEAD_BYTES_MAX, ANSWER_HEADERS_MAX};

/// How the end of the body is found (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    None,
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerHead {
    pub status: u16,
    /// The connection can take another request once the body has been read.
    pub keep_alive: bool,
    pub body: AnswerBody,
    /// `Content-Encoding` is `gzip`.
    pub gzip: bool,
    /// `X-Influxdb-Error`: the error text, cut at 1024 bytes and without line ends.
    pub error: Option<Span>,
    pub influxdb_version: Option<Span>,
    pub content_type: Option<Span>,
    fields: Span,
    /// Bytes up to the body, including interim answers.
    pub head_len: usize,
}

impl AnswerHead {
    /// All fields in the order sent, for an answer that is passed on. `buf` as in `Span::of`.
    pub fn fields<'a>(&self, buf: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.of(buf).split(|&b| b == b'\n').filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }
}

/// An error of the backend: the connection cannot be used again, and whether the request took effect is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    TooLong,
    TooManyFields,
    /// Not an HTTP/1.x answer.
    Malformed,
    /// An invalid length, two different ones, one together with chunks, or an unknown transfer coding.
    Length,
}

/// Parses the head of the answer to a request; `head_request`: the method was HEAD.
pub fn parse(buf: &[u8], head_request: bool) -> Result<Status<AnswerHead>, AnswerError> {
    let window = &buf[..buf.len().min(ANSWER_HEAD_BYTES_MAX)];
    let mut start = 0;
    loop {
        match parse_one(window, start, head_request)? {
            // 101 switches to another protocol, which was not requested.
            Status::Complete(answer) if answer.status == 101 => return Err(AnswerError::Malformed),
            Status::Complete(answer) if answer.status < 200 => start = answer.head_len,
            Status::Partial if buf.len() >= ANSWER_HEAD_BYTES_MAX => return Err(AnswerError::TooLong),
            status => return Ok(status),
        }
    }
}

fn parse_one(window: &[u8], start: usize, head_request: bool) -> Result<Status<AnswerHead>, AnswerError> {
    let mut slots = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; ANSWER_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        &window[start..],
        &mut slots,
    );
    let head_len = match parsed {
        Ok(httparse::Status::Complete(head_len)) => start + head_len,
        Ok(httparse::Status::Partial) => return Ok(Status::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::TooManyFields),
        Err(_) => return Err(AnswerError::Malformed),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else { return Err(AnswerError::Malformed) };
    if status < 100 {
        return Err(AnswerError::Malformed);
    }
    let first_field = response.headers.first().map_or(&window[head_len..head_len], |field| field.name.as_bytes());
    let first = Span::within(window, first_field);
    let mut answer = AnswerHead {
        status,
        keep_alive: false,
        body: AnswerBody::None,
        gzip: false,
        error: None,
        influxdb_version: None,
        content_type: None,
        fields: Span { start: first.start, end: head_len as u32 },
        head_len,
    };
    let (mut length, mut chunked, mut close, mut keep_alive) = (None, false, false, minor == 1);
    for field in response.headers.iter() {
        let is = |want: &str| field.name.eq_ignore_ascii_case(want);
        let place = || Some(Span::within(window, field.value));
        match field.name.len() {
            10 if is("connection") => {
                let options = connection_options(field.value);
                close |= options.0;
                keep_alive |= options.1;
            }
            12 if is("content-type") => answer.content_type = answer.content_type.or_else(place),
            14 if is("content-length") => {
                let this = content_length(field.value).ok_or(AnswerError::Length)?;
                if length.replace(this).is_some_and(|other| other != this) {
                    return Err(AnswerError::Length);
                }
            }
            16 if is("x-influxdb-error") => answer.error = answer.error.or_else(place),
            16 if is("content-encoding") => answer.gzip = field.value.eq_ignore_ascii_case(b"gzip"),
            17 if is("transfer-encoding") => {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(AnswerError::Length);
                }
                chunked = true;
            }
            18 if is("x-influxdb-version") => answer.influxdb_version = answer.influxdb_version.or_else(place),
            _ => {}
        }
    }
    answer.body = match (length, chunked) {
        _ if head_request || matches!(status, 100..=199 | 204 | 304) => AnswerBody::None,
        (Some(_), true) => return Err(AnswerError::Length),
        (Some(length), false) => AnswerBody::Length(length),
        (None, true) => AnswerBody::Chunked,
        (None, false) => AnswerBody::UntilClose,
    };
    answer.keep_alive = keep_alive && !close && answer.body != AnswerBody::UntilClose;
    Ok(Status::Complete(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> AnswerHead {
        match parse(text.as_bytes(), false) {
            Ok(Status::Complete(answer)) => answer,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn an_error_of_influxdb_is_read() {
        let text = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nX-Influxdb-Error:  bad line \r\n\
             X-Influxdb-Version: 1.6.7~rc0\r\nContent-Length: 19\r\n\r\n{\"error\":\"bad line\"}";
        let answer = answer(text);
        assert_eq!((answer.status, answer.keep_alive, answer.body), (400, true, AnswerBody::Length(19)));
        assert_eq!(answer.error.map(|span| span.of(text.as_bytes())), Some(&b"bad line"[..]));
        assert_eq!(answer.influxdb_version.map(|span| span.of(text.as_bytes())), Some(&b"1.6.7~rc0"[..]));
        assert_eq!(&text[answer.head_len..], "{\"error\":\"bad line\"}");
        let fields: Vec<_> = answer.fields(text.as_bytes()).collect();
        assert_eq!(fields.len(), 4);
        assert_eq!(fields[1], (&b"X-Influxdb-Error"[..], &b"bad line"[..]));
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_rfc_says() {
        use AnswerBody::*;
        for (text, body, keep_alive) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", None, true),
            ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", None, true),
            ("HTTP/1.1 304 x\r\nTransfer-Encoding: chunked\r\n\r\n", None, true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", Length(5), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", Chunked, true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: foo, Close\r\n\r\n", Length(5), false),
            ("HTTP/1.1 200 OK\r\n\r\n", UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Length(5), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Length(5), true),
        ] {
            let answer = answer(text);
            assert_eq!((answer.body, answer.keep_alive), (body, keep_alive), "{text}");
        }
        let head = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true);
        assert!(matches!(head, Ok(Status::Complete(AnswerHead { body: None, .. }))));
    }

    #[test]
    fn interim_answers_are_skipped() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        let answer = answer(text);
        assert_eq!((answer.status, answer.head_len), (204, text.len()));
        assert_eq!(parse(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", false), Err(AnswerError::Malformed));
    }

    #[test]
    fn what_cannot_be_read_in_one_way_is_refused() {
        for (text, error) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", AnswerError::Length),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", AnswerError::Length),
            ("HTTP/2 200\r\n\r\n", AnswerError::Malformed),
            ("SSH-2.0-OpenSSH\r\n", AnswerError::Malformed),
            ("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", AnswerError::Malformed),
            ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", AnswerError::Malformed),
            ("HTTP/1.1 099 x\r\n\r\n", AnswerError::Malformed),
        ] {
            assert_eq!(parse(text.as_bytes(), false), Err(error), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(ANSWER_HEAD_BYTES_MAX));
        assert_eq!(parse(long.as_bytes(), false), Err(AnswerError::TooLong));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(ANSWER_HEADERS_MAX + 1));
        assert_eq!(parse(many.as_bytes(), false), Err(AnswerError::TooManyFields));
    }

    #[test]
    fn every_part_of_an_answer_is_partial() {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 Bad Request\r\nX-Influxdb-Error: x\r\nContent-Length: 3\r\n\r\n";
        for cut in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..cut], false), Ok(Status::Partial), "cut at {cut}");
        }
    }
}

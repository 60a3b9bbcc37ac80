//! The parameters of a query, read like InfluxDB 1.x from the URL and from a form in the body.
//!
//! A parameter in an urlencoded body has precedence over one in the URL; in a multipart body it is the reverse (Go's
//! `Request.FormValue`, checked with influxd 1.6.7). The first of repeated parameters counts. A file `q` counts if
//! there is no other `q`. User and password (`u`, `p`) and `pretty` are read from the URL only. Not here: what `q`
//! means (`influxql`), whether it is allowed (`access`).

use std::borrow::Cow;

use crate::http::Span;
use crate::http::error_body::Format;
use crate::http::head::{Head, Method};
use crate::http::multipart::{self, FormPart, FormValue};
use crate::http::query;
use crate::limits::QUERY_CHUNK_ROWS_DEFAULT;
use crate::routing::access::Refusal;

/// What is kept of the head while the body is read.
#[derive(Clone, Debug)]
pub struct QueryHead {
    is_get: bool,
    url: Box<[u8]>,
    content_type: Option<FormValue>,
    /// Has a Content-Encoding. InfluxDB decodes bodies of writes only.
    packed: bool,
    accept: Option<Box<[u8]>>,
    accept_encoding: Option<Box<[u8]>>,
}

/// The decoded parameters. Texts are UTF-8 without NUL; empty = not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub is_get: bool,
    /// Trimmed, not empty.
    pub q: String,
    pub db: String,
    pub rp: String,
    pub epoch: String,
    pub params: String,
    pub pretty: bool,
    pub chunked: bool,
    /// At least 1.
    pub chunk_size: usize,
    pub is_async: bool,
    pub accept: Option<Box<[u8]>>,
    pub accept_encoding: Option<Box<[u8]>>,
}

impl QueryHead {
    /// `buf`: see [`Span::of`].
    pub fn new(head: &Head, buf: &[u8]) -> Self {
        let field = |span: Option<Span>| span.map(|span| span.of(buf));
        Self {
            is_get: head.method == Method::Get,
            url: head.query(buf).into(),
            content_type: field(head.content_type).map(FormValue::new),
            packed: head.gzip,
            accept: field(head.accept).map(Into::into),
            accept_encoding: field(head.accept_encoding).map(Into::into),
        }
    }

    /// Whether the body may hold parameters. Otherwise it is read and discarded.
    pub fn body_counts(&self) -> bool {
        let is_form = |value: &FormValue| matches!(&value.main[..], URLENCODED | MULTIPART);
        !self.is_get && !self.packed && self.content_type.as_ref().is_some_and(is_form)
    }

    /// Decodes the parameters. `body` is empty unless [`QueryHead::body_counts`].
    ///
    /// # Errors
    /// 400: `q` is missing, or a parameter is not UTF-8 or has a NUL.
    pub fn decode(self, body: &[u8]) -> Result<Query, Refusal> {
        let is_multipart = self.content_type.as_ref().is_some_and(|value| value.main == MULTIPART);
        let parts = match &self.content_type {
            Some(value) if is_multipart => value.parameter("boundary").and_then(|b| multipart::parts(body, b)),
            _ => None,
        }
        .unwrap_or_default();
        let form = if is_multipart { &[][..] } else { body };
        let value = |name: &str| -> Option<Cow<'_, [u8]>> {
            query::first(form, name).or_else(|| query::first(&self.url, name)).or_else(|| part(&parts, name, false))
        };
        let text = |name: &'static str| match value(name) {
            Some(bytes) => to_text(name, &bytes),
            None => Ok(String::new()),
        };
        let mut q = text("q")?;
        if q.trim().is_empty()
            && let Some(file) = part(&parts, "q", true)
        {
            q = to_text("q", &file)?;
        }
        let q = q.trim();
        if q.is_empty() {
            return Err(Refusal::new(400, "missing required parameter \"q\""));
        }
        let is = |name: &str| value(name).is_some_and(|value| *value == *b"true");
        let chunk_size = value("chunk_size").and_then(|size| std::str::from_utf8(&size).ok()?.parse().ok());
        Ok(Query {
            is_get: self.is_get,
            q: q.to_owned(),
            db: text("db")?,
            rp: text("rp")?,
            epoch: text("epoch")?.trim().to_owned(),
            params: text("params")?,
            pretty: query::first(&self.url, "pretty").is_some_and(|value| *value == *b"true"),
            chunked: is("chunked"),
            chunk_size: chunk_size.filter(|&size| size > 0).unwrap_or(QUERY_CHUNK_ROWS_DEFAULT),
            is_async: is("async"),
            accept: self.accept,
            accept_encoding: self.accept_encoding,
        })
    }
}

impl Query {
    pub fn format(&self) -> Format {
        Format::of(self.accept.as_deref())
    }

    /// Like InfluxDB, looks only for the word `gzip`.
    pub fn takes_gzip(&self) -> bool {
        self.accept_encoding.as_deref().is_some_and(|value| memchr::memmem::find(value, b"gzip").is_some())
    }

    /// The text of `q` for the log; hidden if it may contain a password.
    pub fn shown(&self) -> Cow<'_, str> {
        if self.q.to_ascii_lowercase().contains("password") {
            Cow::Owned(format!("({} bytes, not shown: they may hold a password)", self.q.len()))
        } else {
            Cow::Borrowed(&self.q)
        }
    }
}

const URLENCODED: &[u8] = b"application/x-www-form-urlencoded";
const MULTIPART: &[u8] = b"multipart/form-data";

fn part<'a>(parts: &[FormPart<'a>], name: &str, is_file: bool) -> Option<Cow<'a, [u8]>> {
    let found = parts.iter().find(|part| part.is_file == is_file && part.name == name.as_bytes());
    found.map(|part| Cow::Borrowed(part.data))
}

/// Refuses other bytes: InfluxDB reads them in surprising ways (a NUL ends a statement or vanishes).
pub fn to_text(name: &str, bytes: &[u8]) -> Result<String, Refusal> {
    let why = match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => return Ok(text.to_owned()),
        Ok(_) => "has a NUL byte",
        Err(_) => "is not UTF-8",
    };
    Err(Refusal::new(400, format!("parameter {name} {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Status, head};

    fn decoded(target: &str, fields: &str, body: &str) -> Result<Query, Refusal> {
        let text = format!("{target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        let Ok(Status::Complete(head)) = head::parse(text.as_bytes()) else { panic!("{text}") };
        let arrived = QueryHead::new(&head, text.as_bytes());
        let body = if arrived.body_counts() { body } else { "" };
        arrived.decode(body.as_bytes())
    }

    fn q(target: &str, fields: &str, body: &str) -> Option<String> {
        decoded(target, fields, body).ok().map(|query| query.q)
    }

    const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
    const PARTS: &str = "Content-Type: multipart/form-data; boundary=B\r\n";

    fn parts(list: &[(&str, &str)]) -> String {
        let part =
            |(head, data): &(&str, &str)| format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n{data}\r\n");
        list.iter().map(part).collect::<String>() + "--B--\r\n"
    }

    #[test]
    fn q_is_found_where_influxdb_finds_it() {
        let (value, file) = ("name=\"q\"", "name=\"q\"; filename=\"f\"");
        for (target, fields, body, want) in [
            ("GET /query?q=a", "", String::new(), Some("a")),
            ("GET /query?q=+a%0a", "", String::new(), Some("a")),
            ("GET /query?q=a&q=b", "", String::new(), Some("a")),
            ("GET /query?q=+", "", String::new(), None),
            ("GET /query", FORM, "q=a".into(), None),
            ("POST /query?q=a", "", String::new(), Some("a")),
            ("POST /query", FORM, "q=a".into(), Some("a")),
            ("POST /query", "Content-Type: Application/X-WWW-form-urlencoded; charset=x\r\n", "q=a".into(), Some("a")),
            ("POST /query?q=a", FORM, "q=b".into(), Some("b")),
            ("POST /query?q=a", FORM, "q=".into(), None),
            ("POST /query", "Content-Type: text/plain\r\n", "q=a".into(), None),
            ("POST /query", "Content-Type: application/json\r\n", "{\"q\":\"a\"}".into(), None),
            ("POST /query", "", "q=a".into(), None),
            ("POST /query", &format!("{FORM}Content-Encoding: gzip\r\n"), "q=a".into(), None),
            ("POST /query", PARTS, parts(&[(value, "a")]), Some("a")),
            ("POST /query?q=u", PARTS, parts(&[(value, "a")]), Some("u")),
            ("POST /query", PARTS, parts(&[(value, "a"), (value, "b")]), Some("a")),
            ("POST /query", PARTS, parts(&[(file, " f\n")]), Some("f")),
            ("POST /query?q=u", PARTS, parts(&[(file, "f")]), Some("u")),
            ("POST /query", PARTS, parts(&[(value, " "), (file, "f")]), Some("f")),
            ("POST /query", PARTS, parts(&[(value, "a")]).replace("--B--", ""), None),
            ("POST /query", "Content-Type: multipart/form-data\r\n", parts(&[(value, "a")]), None),
            ("POST /query", "Content-Type: multipart/mixed; boundary=B\r\n", parts(&[(value, "a")]), None),
        ] {
            assert_eq!(q(target, fields, &body).as_deref(), want, "{target} {fields} {body}");
        }
    }

    #[test]
    fn the_other_parameters_are_read_as_influxdb_reads_them() {
        let plain = decoded("GET /query?q=a", "", "").unwrap();
        assert!(!plain.pretty && !plain.chunked && !plain.is_async && plain.is_get && !plain.takes_gzip());
        assert_eq!((plain.chunk_size, &plain.db[..], plain.format()), (10_000, "", Format::Json));
        let fields = format!("{FORM}Accept: text/csv\r\nAccept-Encoding: br, gzip;q=0\r\n");
        let url = "POST /query?pretty=true&db=u&rp=r&epoch=+ms&chunk_size=3&async=TRUE&params=x";
        let full = decoded(url, &fields, "q=a&db=d&chunked=true&pretty=false&params=%7B%7D").unwrap();
        assert!(full.pretty && full.chunked && !full.is_async && !full.is_get && full.takes_gzip());
        assert_eq!((&full.db[..], &full.rp[..], &full.epoch[..], &full.params[..]), ("d", "r", "ms", "{}"));
        assert_eq!((full.chunk_size, full.format()), (3, Format::Csv));
        for size in ["0", "-1", "x", "1.5", "", "99999999999999999999"] {
            let query = decoded(&format!("GET /query?q=a&chunk_size={size}"), "", "").unwrap();
            assert_eq!(query.chunk_size, 10_000, "{size}");
        }
        assert!(!decoded("POST /query?q=a", FORM, "pretty=true").unwrap().pretty, "in the URL only");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for target in ["q=a%00b", "q=%ff", "q=a&db=%00", "q=a&rp=%ff", "q=a&params=%00"] {
            let refusal = decoded(&format!("GET /query?{target}"), "", "").unwrap_err();
            assert_eq!(refusal.status, 400, "{target}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let shown = |q: &str| decoded(&format!("GET /query?q={q}"), "", "").unwrap().shown().into_owned();
        assert_eq!(shown("select+1"), "select 1");
        assert!(!shown("SET+PASSWORD+FOR+u='s3cret'").contains("s3cret"));
        assert!(!shown("create+user+u+with+pass%77ord+'s3cret'").contains("s3cret"));
    }
}

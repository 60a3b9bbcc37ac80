//! The corpus: `tests/golden/queries.txt` and `tests/golden/changes.txt`.
//!
//! `## name` opens a category, `#` is a comment, every other line is one query. It may begin with a JSON object: the
//! parameters `db` (otherwise that of the category, see below), `rp`, `epoch`, `chunked`, `chunk_size`, `pretty`,
//! `order` (`any`: one server itself puts series in an order by chance), `params`, `q` (for a text with line ends),
//! `accept`, `gzip`; `as`, the way it is sent (`get`, `post`, `form`, `multipart`, `file`); `raw` with `method`,
//! `target`, `type` and `body` for all other requests; `is`, what the oracle must answer, so that a query cannot come
//! to ask for nothing: `rows` (status 200, no error, a series), `empty` (200, no error, no series), `error` (200, an
//! error in it), `refused` (400), `bytes` (200, not JSON); `departs`, the name of a departure. A JSON object after the
//! name of a category gives what holds for all its lines.

use fluxgate::lab::http1::url_encoded;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::ask::{ComparedAnswer, Request};
use crate::compare::Form;

/// One query.
#[derive(Clone, Debug)]
pub struct Query {
    pub category: String,
    /// File and line.
    pub place: String,
    /// The query text, or the raw target.
    pub text: String,
    pub db: String,
    pub request: Request,
    pub form: Form,
    /// What the oracle must answer, if that is known.
    pub kind: Option<Kind>,
    pub departs: Option<String>,
}

/// What the oracle must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rows,
    Empty,
    Error,
    Refused,
    /// Not JSON, and not empty.
    Bytes,
}

impl Kind {
    /// The kind of an answer.
    pub fn of(answer: &ComparedAnswer) -> Option<Self> {
        match answer.status {
            400 => return Some(Self::Refused),
            200 => {}
            _ => return None,
        }
        if answer.content_type == "text/csv" && answer.body.is_empty() {
            return Some(Self::Empty);
        }
        let documents = serde_json::Deserializer::from_slice(&answer.body).into_iter::<CorpusDocument>();
        let Ok(documents) = documents.collect::<Result<Vec<_>, _>>() else { return Some(Self::Bytes) };
        let results = || documents.iter().flat_map(|document| &document.results);
        if results().any(|result| result.error.is_some()) {
            return Some(Self::Error);
        }
        Some(if results().any(|result| !result.series.is_empty()) { Self::Rows } else { Self::Empty })
    }
}

/// As much of an answer as tells its kind.
#[derive(Deserialize)]
struct CorpusDocument {
    #[serde(default)]
    results: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    error: Option<IgnoredAny>,
    #[serde(default)]
    series: Vec<IgnoredAny>,
}

/// Reads a file of `tests/golden`.
pub fn read(file: &str) -> Vec<Query> {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (mut queries, mut category, mut defaults) = (Vec::new(), String::new(), Map::new());
    for (index, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", index + 1);
        if let Some(name) = line.strip_prefix("## ") {
            let (name, options) = name.split_once('{').map_or((name, String::new()), |(a, b)| (a, format!("{{{b}")));
            category = name.trim().to_owned();
            defaults = options_of(&place, &options).0;
        } else if !line.starts_with('#') && !line.trim().is_empty() {
            let (own, q) = options_of(&place, line);
            let mut options = defaults.clone();
            options.extend(own);
            queries.push(query(&category, place, options, q));
        }
    }
    queries
}

/// A query that is in no file.
pub fn made(category: &str, db: &str, text: &str, kind: Kind) -> Query {
    let options = [("db".to_owned(), Value::from(db))].into_iter().collect();
    made_with(category, options, text, Some(kind))
}

/// The same with options as in the files; `kind` if it is known.
pub fn made_with(category: &str, options: Map<String, Value>, text: &str, kind: Option<Kind>) -> Query {
    Query { kind, ..query(category, "made".into(), options, text) }
}

/// The JSON object that a line begins with, and the rest.
fn options_of<'a>(place: &str, line: &'a str) -> (Map<String, Value>, &'a str) {
    if !line.starts_with('{') {
        return (Map::new(), line);
    }
    let mut values = serde_json::Deserializer::from_str(line).into_iter::<Map<String, Value>>();
    let options = values.next().expect("an object").unwrap_or_else(|e| panic!("{place}: {e}"));
    (options, line[values.byte_offset()..].trim_start())
}

fn query(category: &str, place: String, mut options: Map<String, Value>, q: &str) -> Query {
    let mut take = |name: &str| match options.remove(name) {
        None => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let (text, written) = (take("q"), q.to_owned());
    let text = if text.is_empty() { written } else { text };
    let (pretty, accept, gzip, sent_as, raw) = (take("pretty"), take("accept"), take("gzip"), take("as"), take("raw"));
    let (is, departs, db, order) = (take("is"), take("departs"), take("db"), take("order"));
    let mut pairs = vec![("db", db.clone()), ("q", text.clone())];
    pairs.extend(["rp", "epoch", "chunked", "chunk_size", "params"].map(|name| (name, take(name))));
    assert!(options.is_empty(), "{place}: unknown options {options:?}");
    pairs.retain(|(_, value)| !value.is_empty());
    let chunked = pairs.iter().any(|pair| *pair == ("chunked", "true".into()));
    let mut request = if raw.is_empty() { sent(&sent_as, &pairs, &pretty) } else { raw_request(&raw) };
    if !accept.is_empty() {
        request.headers.push(format!("Accept: {accept}"));
    }
    if gzip == "true" {
        request.headers.push("Accept-Encoding: gzip".into());
    }
    let form = match () {
        () if accept == "application/x-msgpack" => Form::Msgpack,
        () if !accept.is_empty() || !pretty.is_empty() => Form::Bytes,
        () if chunked => Form::Lines,
        () if order == "any" => Form::AnyOrder,
        () => Form::Json,
    };
    let kind = match is.as_str() {
        "" | "rows" => Kind::Rows,
        "empty" => Kind::Empty,
        "error" => Kind::Error,
        "refused" => Kind::Refused,
        "bytes" => Kind::Bytes,
        other => panic!("{place}: unknown kind {other}"),
    };
    Query {
        category: category.to_owned(),
        text: if raw.is_empty() { text } else { raw },
        place,
        db,
        request,
        form,
        kind: Some(kind),
        departs: (!departs.is_empty()).then_some(departs),
    }
}

/// The request with these parameters, sent in one of the ways InfluxDB takes. `pretty` counts in the URL only.
fn sent(way: &str, pairs: &[(&str, String)], pretty: &str) -> Request {
    let encoded = |pairs: &[(&str, String)]| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={}", url_encoded(value))).collect();
        pairs.join("&")
    };
    let mut in_url = pairs.to_vec();
    let (mut headers, mut body, mut method) = (Vec::new(), Vec::new(), "POST");
    const BOUNDARY: &str = "------boundary";
    match way {
        "" | "get" => method = "GET",
        "post" => {}
        "form" => {
            headers.push("Content-Type: application/x-www-form-urlencoded".into());
            body = encoded(pairs).into_bytes();
            in_url.clear();
        }
        "multipart" | "file" => {
            headers.push(format!("Content-Type: multipart/form-data; boundary={BOUNDARY}"));
            in_url.retain(|(name, _)| way == "file" && *name != "q");
            for (name, value) in pairs.iter().filter(|(name, _)| way == "multipart" || *name == "q") {
                let file = if way == "file" { "; filename=\"queries.txt\"\r\nContent-Type: text/plain" } else { "" };
                let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
                body.extend_from_slice(format!("{head}{value}\r\n").as_bytes());
            }
            body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        }
        other => panic!("unknown way {other}"),
    }
    if !pretty.is_empty() {
        in_url.push(("pretty", pretty.to_owned()));
    }
    Request { method: method.into(), target: format!("/query?{}", encoded(&in_url)), headers, body }
}

fn raw_request(raw: &str) -> Request {
    let raw: Value = serde_json::from_str(raw).expect("an object");
    let text = |name: &str| raw[name].as_str().unwrap_or_default().to_owned();
    let headers = raw["type"].as_str().map(|kind| format!("Content-Type: {kind}"));
    Request {
        method: raw["method"].as_str().unwrap_or("GET").to_owned(),
        target: text("target"),
        headers: headers.into_iter().collect(),
        body: text("body").into_bytes(),
    }
}

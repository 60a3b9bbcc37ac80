//! `/api/v2/query`: Flux goes, as it came, to a backend that holds all data it names, if there is one.
//!
//! Texts and order of checks are those of influx-proxy 2.5.12. Several backends cannot answer one Flux query together:
//! that is refused. Not here: where the data lies (`routing::flux`).

use std::rc::Rc;

use serde_json::Value;

use super::forward::Outgoing;
use super::fresh::{self, Choice};
use super::{AfterAnswer, Permit, ask_alone, no_backend_answered};
use crate::http::Span;
use crate::http::auth::{self, AuthVerdict};
use crate::http::error_body::{Format, error_body};
use crate::http::head::{Head, Method};
use crate::http::multipart::FormValue;
use crate::http::query;
use crate::http::query::percent_encode;
use crate::http::response::ReplyTo;
use crate::request::inbox::Inbox;
use crate::routing::access::Refusal;
use crate::routing::flux::{self, FluxReach, FluxUnknown};
use crate::routing::reach::Reach;
use crate::routing::route;
use crate::worker::Worker;

/// What is kept of the head while the body is read.
#[derive(Debug)]
pub struct FluxHead {
    target: String,
    content_type: Option<Box<[u8]>>,
    accept: Option<Box<[u8]>>,
    accept_encoding: Option<Box<[u8]>>,
}

/// Checks a head: the method, then the user.
///
/// # Errors
/// The refusal, whatever the body is.
pub fn admit(worker: &Worker, head: &Head, buf: &[u8]) -> Result<FluxHead, Refusal> {
    if head.method != Method::Post {
        return Err(Refusal::new(405, "method not allow"));
    }
    let params = head.query(buf);
    let field = |span: Option<Span>| span.map(|span| span.of(buf));
    if worker.guard.judge(params, field(head.authorization)) != AuthVerdict::Ok {
        return Err(Refusal::new(401, auth::FAILED));
    }
    let owned = |span| field(span).map(Into::into);
    Ok(FluxHead {
        target: target(params),
        content_type: owned(head.content_type),
        accept: owned(head.accept),
        accept_encoding: owned(head.accept_encoding),
    })
}

/// The path with the organization. User and password are the proxy's own and stay here.
fn target(params: &[u8]) -> String {
    let mut target = b"/api/v2/query".to_vec();
    let mut joint = b'?';
    for name in ["org", "orgID"] {
        if let Some(value) = query::first(params, name) {
            target.push(std::mem::replace(&mut joint, b'&'));
            target.extend_from_slice(name.as_bytes());
            target.push(b'=');
            percent_encode(&mut target, &value);
        }
    }
    String::from_utf8(target).expect("all of it is ASCII")
}

/// Answers a query. All earlier requests of the connection have been answered.
pub async fn serve(
    worker: &Rc<Worker>,
    head: FluxHead,
    body: Vec<u8>,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
    pretty: bool,
) -> AfterAnswer {
    match answer(worker, head, body, inbox, to).await {
        Ok(ended) => ended,
        Err(refusal) => {
            let mut out = Vec::new();
            refuse(worker, &refusal, &mut out, to, pretty);
            super::sent(inbox.send(&out).await, to)
        }
    }
}

/// Writes an error, always as JSON.
pub fn refuse(worker: &Worker, refusal: &Refusal, out: &mut Vec<u8>, to: ReplyTo<'_>, pretty: bool) {
    let to = ReplyTo { format: Format::Json, ..to };
    let text = refusal.text.as_bytes();
    let body = error_body(to.format, text, pretty);
    worker.responder.borrow_mut().error_with_body(out, to, refusal.status, Some(text), &[], &body);
}

async fn answer(
    worker: &Rc<Worker>,
    head: FluxHead,
    body: Vec<u8>,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
) -> Result<AfterAnswer, Refusal> {
    let content_type = head.content_type.as_deref().unwrap_or(b"application/json");
    let text = if FormValue::new(content_type).main == b"application/vnd.flux" {
        String::from_utf8_lossy(&body).into_owned()
    } else {
        query_of_json(&body)?
    };
    if text.is_empty() {
        return Err(Refusal::new(400, "request body requires either spec or query"));
    }
    if worker.settings.query_tracing {
        log::info!("flux: {}", crate::one_line::one_line(&text));
    }
    let _place = Permit::take(worker)?;
    let FluxReach { dbs, reach } = flux::reach(&text);
    let has_list = !worker.settings.db_list.is_empty();
    if let Some(db) = dbs.iter().find(|db| !worker.settings.db_allowed(db.as_bytes())) {
        return Err(Refusal::new(400, format!("database forbidden: {db}")));
    }
    // Where `db_list` is set, what is not known may be forbidden.
    if let Err(unknown @ FluxUnknown::Bucket) = reach
        && has_list
    {
        return Err(Refusal::new(400, unknown.text()));
    }
    // A backend that is its circle's only one has all data.
    let reaches = [reach.clone().unwrap_or(Reach::Circle)];
    let candidates = route::alone(&reaches, &worker.settings.topology, &worker.placement());
    if candidates.is_empty() {
        let several = "the measurements of this query lie on several backends, which cannot answer Flux together";
        return Err(Refusal::new(400, reach.err().map_or(several, FluxUnknown::text)));
    }
    let (accept, encoding) = (head.accept.as_deref(), head.accept_encoding.as_deref());
    let outgoing = Outgoing::with_body(head.target.into(), content_type, accept, encoding, body);
    let must_see = fresh::must_see(worker, dbs.iter().map(String::as_str));
    Choice { must_see: &must_see, alone: &candidates, together: &[] }.wait(worker).await;
    let asked = ask_alone(worker, &outgoing, &candidates, &must_see, inbox, to, |_| false).await;
    asked.map_err(|failures| no_backend_answered(worker, &failures))
}

/// The text of the field `query`; empty if there is none.
fn query_of_json(body: &[u8]) -> Result<String, Refusal> {
    let failed = |why: String| Refusal::new(400, format!("failed parsing request body as JSON: {why}"));
    let value: Value = serde_json::from_slice(body).map_err(|error| failed(in_words_of_go(&error, body)))?;
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match value {
        Value::Null => Ok(String::new()),
        Value::Object(mut fields) => match fields.remove("query") {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(failed(format!("the field query is of type {}, not string", kind(&other)))),
        },
        other => Err(failed(format!("it is of type {}, not object", kind(&other)))),
    }
}

/// What Go's JSON reader says about a syntax error, in the common cases.
fn in_words_of_go(error: &serde_json::Error, body: &[u8]) -> String {
    let text = error.to_string();
    if error.is_eof() || body.is_empty() {
        return "unexpected end of JSON input".to_owned();
    }
    let line_start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', body).nth(line - 2).map_or(0, |lf| lf + 1),
    };
    let at = (line_start + error.column()).saturating_sub(1).min(body.len() - 1);
    let found = String::from_utf8_lossy(&body[at..]).chars().next().unwrap_or_default();
    let context = if text.starts_with("expected ident") {
        let start = body[..at].iter().rposition(|byte| !byte.is_ascii_lowercase()).map_or(0, |before| before + 1);
        let word = ["null", "true", "false"].into_iter().find(|word| word.as_bytes().first() == body.get(start));
        let expected = word.and_then(|word| Some((word, word.get(at - start..=at - start)?)));
        expected.map(|(word, letter)| format!("in literal {word} (expecting '{letter}')"))
    } else {
        let known = [
            ("expected value", "looking for beginning of value"),
            ("key must be a string", "looking for beginning of object key string"),
            ("expected `:`", "after object key"),
            ("expected `,` or `}`", "after object key:value pair"),
            ("expected `,` or `]`", "after array element"),
            ("trailing characters", "after top-level value"),
            ("trailing comma", "looking for beginning of value"),
        ];
        known.iter().find(|(ours, _)| text.starts_with(ours)).map(|(_, go)| (*go).to_owned())
    };
    context.map_or(text, |context| format!("invalid character '{found}' {context}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_json_body_is_found() {
        for (body, want) in [
            (r#"{"query":"from()","type":"flux","dialect":{"header":true}}"#, Ok("from()")),
            (r#"{"query":""}"#, Ok("")),
            ("{}", Ok("")),
            ("null", Ok("")),
            ("", Err("unexpected end of JSON input")),
            (r#"{"query":"#, Err("unexpected end of JSON input")),
            ("not json", Err("invalid character 'o' in literal null (expecting 'u')")),
            ("{\n\"query\": fals }", Err("invalid character ' ' in literal false (expecting 'e')")),
            ("x", Err("invalid character 'x' looking for beginning of value")),
            ("{x}", Err("invalid character 'x' looking for beginning of object key string")),
            (r#"{"a" 1}"#, Err("invalid character '1' after object key")),
            (r#"{"a":1 "b":2}"#, Err("invalid character '\"' after object key:value pair")),
            ("[1 2]", Err("invalid character '2' after array element")),
            ("{} x", Err("invalid character 'x' after top-level value")),
            ("[]", Err("it is of type array, not object")),
            (r#"{"query":7}"#, Err("the field query is of type number, not string")),
        ] {
            let got = query_of_json(body.as_bytes());
            let want = want
                .map(str::to_owned)
                .map_err(|why| Refusal::new(400, format!("failed parsing request body as JSON: {why}")));
            assert_eq!(got, want, "{body}");
        }
    }

    #[test]
    fn the_proxys_user_is_not_passed_on() {
        assert_eq!(target(b"u=admin&p=secret&org=a%26b+c"), "/api/v2/query?org=a%26b%20c");
        assert_eq!(target(b"orgID=1&org=x&db=y"), "/api/v2/query?org=x&orgID=1");
        assert_eq!(target(b""), "/api/v2/query");
    }
}

//! Answers, byte for byte: heads, InfluxDB's error bodies, and the golden answers of influx-proxy.

use super::*;
use crate::http::error_body::JSON;
use crate::http::{Status, answer, head};
use crate::limits::REFUSED_LISTED_MAX;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

fn responder() -> Responder {
    let mut responder = Responder::new(RequestIds::new(7, [0; 6]), Some("disk"));
    responder.set_time(Duration::from_secs(784_111_777));
    responder
}

fn to(request: &str) -> ReplyTo<'_> {
    match head::parse(request.as_bytes()) {
        Ok(Status::Complete(head)) => ReplyTo::new(&head, request.as_bytes()),
        other => panic!("{other:?}"),
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn written(write: impl FnOnce(&mut Responder, &mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut responder(), &mut out);
    String::from_utf8(out).unwrap()
}

type Parts = (u16, Vec<(String, Vec<u8>)>, Vec<u8>);

/// The fields, sorted, without those that differ from run to run, and the body.
fn parts(response: &[u8], head_request: bool) -> Parts {
    let Ok(Status::Complete(answer)) = answer::parse(response, head_request) else {
        panic!("unreadable: {}", response.escape_ascii())
    };
    let mut fields: Vec<_> = answer
        .fields(response)
        .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
        .filter(|(name, _)| {
            !["Date", "X-Influxdb-Version", "X-Influxdb-Build", "X-Fluxgate-Version"].contains(&name.as_str())
        })
        .collect();
    fields.sort();
    (answer.status, fields, response[answer.head_len..].to_vec())
}

#[test]
fn the_hot_answer_is_written_byte_for_byte() {
    let mut responder = responder();
    let mut out = b"before".to_vec();
    responder.no_content(&mut out, to(GET), Some("disk"));
    let want = format!(
        "beforeHTTP/1.1 204 No Content\r\nX-Influxdb-Build: fluxgate\r\nX-Influxdb-Version: 1.6.7\r\n\
         X-Fluxgate-Version: {VERSION}\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nRequest-Id: ID\r\nX-Request-Id: ID\r\n\
         Content-Type: application/json\r\nX-Fluxgate-Ack: disk\r\n\r\n"
    );
    let text = String::from_utf8(out).unwrap();
    let id = &text[text.find("Request-Id: ").unwrap() + 12..][..ID_LEN];
    assert_eq!(text, want.replace("ID", id));
    assert_eq!(id.len() - id.replace('-', "").len(), 4);

    let mut again = Vec::new();
    responder.no_content(&mut again, to(GET), Some("disk"));
    assert!(!String::from_utf8(again).unwrap().contains(id), "each answer has an id of its own");
}

#[test]
fn both_ways_to_204_agree() {
    let ids = "GET / HTTP/1.1\r\nHost: h\r\nRequest-Id: 0000000-0000-0000-0000-000000000000#\r\n\r\n";
    let hot = written(|r, out| r.no_content(out, to(GET), Some("disk")));
    let cold = written(|r, out| r.no_content(out, to(ids), Some("disk")));
    let id = &hot[hot.find("Request-Id: ").unwrap() + 12..][..ID_LEN];
    assert_eq!(hot.replace(id, "0000000-0000-0000-0000-000000000000#"), cold);
    let other = written(|r, out| r.no_content(out, to(GET), Some("circles=2/2")));
    assert!(other.contains("\r\nX-Fluxgate-Ack: circles=2/2\r\n") && !other.contains("disk"));
    let none = written(|r, out| r.no_content(out, to(GET), None));
    assert!(!none.contains("Ack"));
}

#[test]
fn ids_are_echoed_as_influxdb_does() {
    for (fields, id) in [
        ("X-Request-Id: a\r\nRequest-Id: b\r\n", "a"),
        ("Request-Id: b\r\n", "b"),
        ("X-Request-Id:\r\nRequest-Id: b\r\n", "b"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        let text = written(|r, out| r.no_content(out, to(&request), None));
        assert!(text.contains(&format!("\r\nRequest-Id: {id}\r\nX-Request-Id: {id}\r\n")), "{text}");
    }
}

#[test]
fn recorded_answers_are_written_alike() {
    let records =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/lineproto.jsonl")).unwrap();
    let mut compared = 0;
    for record in records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let (Some(want), Some(status)) = (record["answer_headers"].as_object(), record["status"].as_u64()) else {
            continue;
        };
        let method = record["method"].as_str().unwrap_or("POST");
        let mut request = format!("{method} / HTTP/1.1\r\nHost: h\r\n");
        for (name, value) in record["headers"].as_object().into_iter().flatten() {
            request += &format!("{name}: {}\r\n", value.as_str().unwrap());
        }
        request += "\r\n";
        let to = to(&request);
        let pretty = record["query"].as_str().is_some_and(|query| query.ends_with("pretty=true"));
        let bytes = |value: &Value| match value["base64"].as_str() {
            Some(base64) => STANDARD.decode(base64).unwrap(),
            None => value.as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        // The text itself if it is not UTF-8 or the body is not JSON.
        let text = match (record["header_error_base64"].as_str(), record["error"].as_str()) {
            (Some(base64), _) => Some(STANDARD.decode(base64).unwrap()),
            (None, Some(error)) => Some(error.as_bytes().to_vec()),
            (None, None) => None,
        };
        let mut out = Vec::new();
        match (status, text) {
            (204, _) => responder().no_content(&mut out, to, None),
            (200, _) => responder().send(&mut out, to, 200, &[], b""),
            (_, None) => {
                let text = if status == 404 { "404 page not found" } else { "Method Not Allowed" };
                let allow = want.get("Allow").map(|allow| ("Allow", allow.as_str().unwrap()));
                responder().plain(&mut out, to, status as u16, text, allow.as_slice());
            }
            (_, Some(text)) => responder().error(&mut out, to, status as u16, &text, pretty, &[]),
        }
        let (got_status, mut fields, body) = parts(&out, method == "HEAD");
        let generated = |(name, value): &(String, Vec<u8>)| {
            name.ends_with("Request-Id") && want.get(name).is_none_or(|want| want == "<uuid>") && value.len() == ID_LEN
        };
        fields.retain(|field| !generated(field));
        let mut wanted: Vec<_> = want
            .iter()
            .filter(|(name, value)| *value != "<uuid>" && *name != "X-Influxdb-Version" && *name != "X-Influxdb-Build")
            .map(|(name, value)| {
                // Recorded as Latin-1, and with control bytes, which we replace by blanks.
                let value = value.as_str().unwrap().chars().map(|c| if c < ' ' { b' ' } else { c as u8 });
                (name.clone(), value.collect::<Vec<_>>().trim_ascii().to_vec())
            })
            .collect();
        wanted.sort();
        assert_eq!(u64::from(got_status), status, "{}", record["id"]);
        assert_eq!(fields, wanted, "{}", record["id"]);
        assert_eq!(body, bytes(&record["answer_body"]), "{}", record["id"]);
        compared += 1;
    }
    assert!(compared > 100, "only {compared} records had headers");
}

#[test]
fn refused_lines_stand_in_a_field_of_their_own() {
    let refused = || RefusedLines { total: 7, lines: [(3, "missing fields"), (9, "a \"<b>\"")] };
    let text = b"partial write: x dropped=0";
    let compact = written(|r, out| r.refused_lines(out, to(GET), text, false, refused(), &[]));
    let (status, _, body) = parts(compact.as_bytes(), false);
    assert_eq!(status, 400);
    assert_eq!(
        String::from_utf8(body.clone()).unwrap(),
        "{\"error\":\"partial write: x dropped=0\",\"refused\":{\"total\":7,\"lines\":[\
         {\"line\":3,\"reason\":\"missing fields\"},\
         {\"line\":9,\"reason\":\"a \\\"\\u003cb\\u003e\\\"\"}]}}\n"
    );
    let pretty = written(|r, out| r.refused_lines(out, to(GET), text, true, refused(), &[]));
    let (_, _, pretty_body) = parts(pretty.as_bytes(), false);
    let value: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&pretty_body).unwrap(), value);
    let spread = serde_json::to_string_pretty(&value).unwrap().replace("  ", "    ");
    let unescaped = String::from_utf8(pretty_body).unwrap().replace("\\u003c", "<").replace("\\u003e", ">");
    assert_eq!(unescaped, spread + "\n");

    let csv = "GET / HTTP/1.1\r\nHost: h\r\nAccept: text/csv\r\n\r\n";
    let text = written(|r, out| r.refused_lines(out, to(csv), text, false, refused(), &[]));
    assert!(text.ends_with("\r\n\r\nerror\npartial write: x dropped=0\n"));
}

#[test]
fn the_list_of_refused_lines_is_bounded() {
    let refused = RefusedLines { total: 1_000_000, lines: (1u64..).map(|line| (line, "bad")) };
    let text = written(|r, out| r.refused_lines(out, to(GET), b"x", false, refused, &[]));
    assert_eq!(text.matches("\"line\":").count(), REFUSED_LISTED_MAX);
    assert!(text.contains("\"total\":1000000"));
}

#[test]
fn no_text_can_end_a_header() {
    let evil = b"a\r\nX-Evil: 1\n\0\x0b\x7f\xffb\r\n\r\nbody";
    let mut out = Vec::new();
    responder().error(&mut out, to(GET), 400, evil, false, &[("Allow", "GET\r\nX-Evil: 2")]);
    let (_, fields, _) = parts(&out, false);
    assert!(fields.iter().all(|(name, _)| name != "X-Evil"));
    let error = &fields.iter().find(|(name, _)| name == "X-Influxdb-Error").unwrap().1;
    assert_eq!(error, b"a  X-Evil: 1    \xffb    body");
}

#[test]
fn the_error_header_is_cut_and_absent_on_401() {
    let long = "x".repeat(ERROR_HEADER_BYTES_MAX + 1);
    let text = written(|r, out| r.error(out, to(GET), 400, long.as_bytes(), false, &[]));
    let (_, fields, body) = parts(text.as_bytes(), false);
    let error = &fields.iter().find(|(name, _)| name == "X-Influxdb-Error").unwrap().1;
    assert_eq!((error.len(), body.len()), (ERROR_HEADER_BYTES_MAX, long.len() + 13));
    let text = written(|r, out| r.error(out, to(GET), 401, b"authentication failed", false, &[]));
    assert!(!text.contains("X-Influxdb-Error"));
    assert_eq!(text.matches("\r\nWWW-Authenticate: Basic realm=\"InfluxDB\"\r\n").count(), 1);
    assert!(text.ends_with("\r\nContent-Length: 34\r\n\r\n{\"error\":\"authentication failed\"}\n"));
}

#[test]
fn the_connection_field_says_what_will_happen() {
    for (request, field) in [
        (GET, None),
        ("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", Some("close")),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("keep-alive")),
        ("GET / HTTP/1.0\r\n\r\n", Some("close")),
    ] {
        let text = written(|r, out| r.no_content(out, to(request), Some("disk")));
        let want = field.map(|value| format!("\r\nConnection: {value}\r\n"));
        assert_eq!(text.contains("Connection:"), want.is_some(), "{request}");
        assert!(want.is_none_or(|want| text.contains(&want)), "{request}");
    }
}

#[test]
fn a_stream_is_chunked_unless_the_client_is_too_old() {
    let mut out = Vec::new();
    assert!(responder().stream(&mut out, to(GET), 200, &[("Content-Type", JSON)], None));
    push_chunk(&mut out, b"");
    push_chunk(&mut out, b"0123456789abcdef");
    out.extend_from_slice(LAST_CHUNK);
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"));

    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut out = Vec::new();
    assert!(!responder().stream(&mut out, to(old), 200, &[], None));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("Connection: close") && !text.contains("Transfer-Encoding"));

    let mut out = Vec::new();
    assert!(!responder().stream(&mut out, to(old), 200, &[], Some(5)));
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("Connection: keep-alive") && text.ends_with("Content-Length: 5\r\n\r\n"));
}

#[test]
fn every_status_has_three_digits_and_a_phrase() {
    for status in [200u16, 204, 301, 400, 401, 403, 404, 405, 408, 413, 415, 417, 431, 500, 501, 503, 504, 505, 599] {
        let text = written(|r, out| r.send(out, to(GET), status, &[], b""));
        let Ok(Status::Complete(answer)) = answer::parse(text.as_bytes(), false) else { panic!("{text}") };
        assert_eq!(answer.status, status);
        assert_eq!(text.contains("Content-Length: 0"), status != 204);
    }
    assert!(matches!(answer::parse(&[CONTINUE, b"HTTP/1.1 204 x\r\n\r\n"].concat(), false), Ok(Status::Complete(_))));
}

//! Compares the scanner with recorded results of influxd 1.6.7.
//!
//! Left out, since parsing does not decide them: requests that are not a plain `POST /write` (other methods, paths,
//! headers, chunked or compressed bodies, server settings, several databases), and answers that come from the storage
//! (type conflicts, retention policies, a tag or field named `time`). Records that damage a server must be refused.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fuzz::{agrees_with_naive, keeps_its_meaning, scan_whole, survives_cuts};
use super::{Item, Line, unescape_measurement};
use crate::precision::Precision;

/// Valid only at the end of a body, where a backslash escapes nothing; fluxgate refuses them.
const NOT_SELF_CONTAINED: &[&str] = &["line-046", "line-047", "line-048"];

/// One series in two spellings. InfluxDB shows only the first one until it is restarted.
const SPELT_TWICE: &[&str] = &["dup-032", "dup-033", "dup-034", "dup-036"];

fn records() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/lineproto.jsonl");
    let text = std::fs::read_to_string(path).expect("golden records");
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// A text in the form the records have it: as it is, in base64, or as repeated parts.
fn bytes(value: &Value) -> Vec<u8> {
    use base64::Engine;
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(parts) => {
            parts.iter().flat_map(|part| bytes(&part[0]).repeat(part[1].as_u64().expect("times") as usize)).collect()
        }
        _ if value["parts"].is_array() => bytes(&value["parts"]),
        _ => {
            base64::engine::general_purpose::STANDARD.decode(value["base64"].as_str().expect("base64")).expect("base64")
        }
    }
}

fn body(record: &Value) -> Vec<u8> {
    if let Some(text) = record["body_base64"].as_str() {
        return bytes(&serde_json::json!({ "base64": text }));
    }
    bytes(if record["body_parts"].is_array() { &record["body_parts"] } else { &record["body"] })
}

fn precision(record: &Value) -> Precision {
    // InfluxDB takes any other value as nanoseconds; fluxgate refuses such a request elsewhere.
    let param = record["params"]["precision"].as_str().unwrap_or_default();
    Precision::from_param(param.as_bytes()).unwrap_or(Precision::Nanosecond)
}

/// Why parsing alone does not decide this record.
fn left_out(record: &Value) -> Option<&'static str> {
    let has = |key: &str| record.get(key).is_some();
    let error = bytes_or_empty(&record["error"]);
    let storage = [
        "field type conflict",
        "points beyond retention policy",
        "invalid field name:",
        "invalid tag key:",
        "retention policy not found",
        "database",
        "partial write: field",
        "invalid consistency",
    ];
    if ["method", "path", "query", "headers", "chunked", "server"].iter().any(|key| has(key)) {
        return Some("http");
    }
    let error = error.strip_prefix("partial write: ").unwrap_or(&error);
    storage.iter().any(|text| error.starts_with(text)).then_some("storage")
}

fn bytes_or_empty(value: &Value) -> String {
    if value.is_null() { String::new() } else { String::from_utf8(bytes(value)).expect("error text is UTF-8") }
}

/// Measurement and time of a line, as `stored` has them.
fn key(line: &Line, body: &[u8], record: &Value) -> (Vec<u8>, String) {
    let name = unescape_measurement(&body[line.start as usize..line.measurement_end as usize]).into_owned();
    let time = if line.has_timestamp {
        let text = std::str::from_utf8(&body[line.fields_end as usize..line.end as usize]).expect("digits");
        let text = text.trim_matches([' ', '\t', '\0']);
        (text.parse::<i64>().expect("in range") * precision(record).nanos()).to_string()
    } else {
        "now".to_owned()
    };
    (name, time)
}

fn stored(record: &Value) -> BTreeSet<(Vec<u8>, String)> {
    let points = record["stored"].as_array().expect("stored").iter();
    let time = |ts: &Value| ts.as_str().map_or(ts.to_string(), |_| "now".to_owned());
    points.map(|point| (bytes(&point["m"]), time(&point["ts"]))).collect()
}

#[test]
fn recorded_verdicts_are_repeated() {
    let records = records();
    let mut checked = 0;
    let mut compared_with_stored = 0;
    let mut not_self_contained = Vec::new();
    let mut spelt_twice = Vec::new();
    let mut left = std::collections::BTreeMap::<_, usize>::new();
    for record in &records {
        let id = record["id"].as_str().expect("id");
        if let Some(why) = left_out(record) {
            *left.entry(why).or_default() += 1;
            continue;
        }
        checked += 1;
        let body = body(record);
        let items = scan_whole(&body, precision(record));
        let refused: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Item::Refused(refused) => Some(refused),
                _ => None,
            })
            .collect();
        let lines: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Item::Line(line) => Some(line),
                _ => None,
            })
            .collect();

        if refused.iter().any(|refused| refused.reason == super::Reason::NotSelfContained) {
            not_self_contained.push(id);
            continue;
        }
        // Exactly those that damaged the server must be refused with a text of ours. The utf8 ones damage only some
        // builds and databases at once, but all of them after a restart.
        let status = record["status"].as_u64();
        let harmful = status.is_none_or(|status| status == 500)
            || (id.starts_with("utf8") && status == Some(204) && stored_invalid_name(record));
        assert_eq!(refused.iter().any(|refused| refused.reason.is_ours()), harmful, "{id}");
        if harmful {
            continue;
        }

        let texts: Vec<_> = refused
            .iter()
            .map(|refused| {
                let mut text = Vec::new();
                refused.describe(&body, &mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
            .collect();
        let error = bytes_or_empty(&record["error"]);
        let want = match (refused.is_empty(), lines.is_empty()) {
            (true, _) => String::new(),
            (false, true) => texts.join("\n"),
            (false, false) => format!("partial write: {} dropped=0", texts.join("\n")),
        };
        assert_eq!(want, error, "{id}");
        assert_eq!(status, Some(if refused.is_empty() { 204 } else { 400 }), "{id}");

        if record.get("setup").is_some() || id.starts_with("rp") {
            continue;
        }
        compared_with_stored += 1;
        let found: BTreeSet<_> = lines.iter().map(|line| key(line, &body, record)).collect();
        let readable: BTreeSet<_> = found.iter().filter(|(name, _)| !is_unreadable(name)).cloned().collect();
        let stored = stored(record);
        assert!(stored.is_subset(&found), "{id}: {found:?} {stored:?}");
        if !readable.is_subset(&stored) {
            spelt_twice.push(id);
        }
    }
    assert_eq!(not_self_contained, NOT_SELF_CONTAINED);
    assert_eq!(spelt_twice, SPELT_TWICE);
    assert!(checked >= 1716, "{checked} records checked, left out: {left:?}");
    assert!(compared_with_stored >= 1661, "{compared_with_stored} compared with what was stored");
}

/// Two backslashes before a byte that needs one: InfluxDB stores the point and cannot find it any more.
fn is_unreadable(name: &[u8]) -> bool {
    name.windows(2).any(|pair| pair[0] == b'\\' && b", =\"".contains(&pair[1]))
}

fn stored_invalid_name(record: &Value) -> bool {
    let body = body(record);
    naive_names(&body).iter().any(|name| std::str::from_utf8(name).is_err())
}

/// Measurements and field keys of bodies as simple as those of the `utf8` records.
fn naive_names(body: &[u8]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    for line in body.split(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#")) {
        let mut words = line.split(|&byte| byte == b' ');
        let series = words.next().unwrap_or_default();
        names.extend(series.split(|&byte| byte == b',').next().map(<[u8]>::to_vec));
        names.extend(words.next().and_then(|fields| fields.split(|&byte| byte == b'=').next()).map(<[u8]>::to_vec));
    }
    names
}

#[test]
fn recorded_bodies_keep_every_property() {
    for record in &records() {
        let body = body(record);
        for precision in Precision::ALL {
            agrees_with_naive(&body, precision);
            keeps_its_meaning(&body, precision);
        }
        if body.len() < 300 {
            for cut in 0..=body.len() {
                survives_cuts(&body, Precision::Nanosecond, &[cut]);
            }
        }
    }
}

//! Compares the parser with the recorded answers of InfluxDB 1.6.7 (`tests/golden/influxql.jsonl`): the same texts are
//! errors, and an accepted text keeps its meaning when printed.

use serde_json::Value;

use super::ast::Statement;
use super::{ErrorKind, Params, ParseError, may_change, parse};

struct RecordedQuery {
    q: String,
    params: Params,
    /// InfluxDB's error text, if it refused the request.
    error: Option<String>,
}

/// Texts for which our parser differs on purpose.
const OTHERWISE: [(&str, &str); 4] = [
    ("select usage from cpu tz('No/Where')", "time zones are the backend's business"),
    ("select usage from cpu TZ('utc')", "time zones are the backend's business"),
    ("show databases\0", "NUL bytes are refused"),
    ("show \0 databases", "NUL bytes are refused"),
];

/// All rows whose `params` can be read.
fn rows() -> Vec<RecordedQuery> {
    let text = include_str!("../../../tests/golden/influxql.jsonl");
    let mut rows = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let error = row["error"].as_str().map(String::from);
        assert_eq!(error.is_some(), row["status"] == 400, "{line}");
        match row["params"].as_str().map_or(Ok(Params::default()), Params::from_json) {
            Ok(params) => rows.push(RecordedQuery { q: row["q"].as_str().unwrap().into(), params, error }),
            Err(e) => assert_eq!(Some(e.to_string()), error, "{line}"),
        }
    }
    assert!(rows.len() > 850);
    rows
}

/// The accepted rows, with their trees.
fn accepted() -> impl Iterator<Item = (RecordedQuery, Vec<Statement>)> {
    rows().into_iter().filter_map(|row| {
        let statements = parse(&row.q, &row.params).ok()?;
        Some((row, statements))
    })
}

#[test]
fn parse_errors_are_influxdbs() {
    let mut wrong = String::new();
    for row in rows() {
        let refused = row.error.as_ref().is_some_and(|error| error.starts_with("error parsing query: "));
        let ours = parse(&row.q, &row.params);
        let otherwise = OTHERWISE.iter().any(|(q, _)| *q == row.q);
        if (ours.is_err() == refused) == otherwise {
            wrong += &format!("{:?}: {:?}, InfluxDB: {:?}\n", row.q, ours.map_err(|e| e.to_string()), row.error);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_influxdb_refuses_is_not_our_bound() {
    for row in rows().iter().filter(|row| !row.q.contains('\0')) {
        if let Err(e) = parse(&row.q, &row.params) {
            assert!(!e.ours(), "{}: {e}", row.q);
            assert!(e.at as usize <= row.q.len(), "{}: {e}", row.q);
        }
    }
}

#[test]
fn printed_statements_mean_the_same() {
    let mut compared = 0;
    for (row, statements) in accepted() {
        for statement in statements {
            let text = statement.to_string();
            let again = parse(&text, &Params::default());
            if text.contains("[REDACTED]") {
                assert!(again.is_err());
                continue;
            }
            assert_eq!(again, Ok(vec![statement]), "{} as {text}", row.q);
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared}");
}

#[test]
fn what_writes_is_known_by_its_words() {
    let mut writing = 0;
    for (row, statements) in accepted() {
        if statements.iter().any(super::fuzz::writes) {
            assert!(may_change(&row.q), "{}", row.q);
            writing += 1;
        }
    }
    assert!(writing > 80, "{writing}");
}

#[test]
fn missing_parameters_are_told_apart() {
    let error = parse("select usage from cpu where host = $h", &Params::default()).unwrap_err();
    assert_eq!(error, ParseError { at: 35, kind: ErrorKind::Parameter });
    assert_eq!(error.to_string(), "missing parameter at byte 35");
}

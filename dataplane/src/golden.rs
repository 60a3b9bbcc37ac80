//! For tests: what servers are known to answer, one table for all that is decided by it (`tests/golden/servers.jsonl`).

use serde_json::Value;

/// The rows about one thing. `seen` says where the source was looked up.
pub fn servers(about: &str) -> Vec<Value> {
    let all = include_str!("../../tests/golden/servers.jsonl").lines();
    let rows = all.map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|row| row["about"] == about);
    let rows: Vec<_> = rows.collect();
    assert!(!rows.is_empty(), "nothing is known about {about}");
    for row in &rows {
        let known = |key: &str| row[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(known("server") && known("from") && row["seen"].is_array(), "who, and where: {row}");
    }
    rows
}

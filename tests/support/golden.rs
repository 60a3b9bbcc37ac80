//! Recorded requests and answers: the files of `tests/golden`, one JSON object per line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// All records of a file.
pub fn records(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// A text as the records hold it: as it is, as `text`, in base64, or as parts to be repeated; empty where it is
/// missing.
pub fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(parts) => {
            let repeated = |part: &Value| bytes(&part[0]).repeat(part[1].as_u64().expect("times") as usize);
            parts.iter().flat_map(repeated).collect()
        }
        _ if value["text"].is_string() => bytes(&value["text"]),
        _ => STANDARD.decode(value["base64"].as_str().expect("base64")).expect("base64"),
    }
}

//! CSV: a header per statement, and again where columns change. Statements without series, also failed ones, write
//! nothing.

use std::io::Write;

use fluxgate_dataplane::http::error_body::push_csv_field;

use super::part::ResultPart;
use super::pieces::Pieces;
use crate::influx::answer::{Series, decoded};

/// The header of the current table. It outlives a document: a chunked answer is one table per statement.
#[derive(Default)]
pub(super) struct Table<'a> {
    header: Option<(i64, &'a [String])>,
}

impl<'a> Table<'a> {
    /// Writes the rows of the parts.
    pub(super) fn document(&mut self, out: &mut Pieces<'_>, parts: &[ResultPart<'a>]) {
        for part in parts {
            for series in part.series() {
                let header = (part.statement_id, &series.series.columns[..]);
                if self.header != Some(header) {
                    if self.header.is_some() {
                        out.buf.push(b'\n');
                    }
                    self.header = Some(header);
                    push_header(&mut out.buf, header.1);
                }
                let prefix = prefix(series.series);
                for row in series.rows {
                    out.buf.extend_from_slice(&prefix);
                    for value in row.values() {
                        out.buf.push(b',');
                        push_value(&mut out.buf, value);
                    }
                    out.buf.push(b'\n');
                    out.settle();
                }
            }
        }
    }
}

fn push_header(out: &mut Vec<u8>, columns: &[String]) {
    out.extend_from_slice(b"name,tags");
    for column in columns {
        out.push(b',');
        push_csv_field(out, column.as_bytes());
    }
    out.push(b'\n');
}

/// The first two fields of each row: the name, and the non-empty tags as in line protocol.
fn prefix(series: &Series) -> Vec<u8> {
    let mut tags = Vec::new();
    for (key, value) in series.tags.iter().filter(|(_, value)| !value.is_empty()) {
        if !tags.is_empty() {
            tags.push(b',');
        }
        push_tag(&mut tags, key);
        tags.push(b'=');
        push_tag(&mut tags, value);
    }
    let mut prefix = Vec::new();
    push_csv_field(&mut prefix, series.name.as_bytes());
    prefix.push(b',');
    push_csv_field(&mut prefix, &tags);
    prefix
}

fn push_tag(out: &mut Vec<u8>, text: &str) {
    for &byte in text.as_bytes() {
        if matches!(byte, b',' | b'=' | b' ') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// The field for the JSON text of a scalar.
fn push_value(out: &mut Vec<u8>, value: &str) {
    match value.as_bytes() {
        b"null" => {}
        [b'"', ..] => push_csv_field(out, decoded(value).as_bytes()),
        // Go writes floats without exponent here, and without `.0`; so does `{}`. Integers stay as they are: a float
        // may not hold them exactly.
        [b'-' | b'0'..=b'9', ..] if is_rewritten(value) => match value.parse::<f64>() {
            Ok(float) => write!(out, "{float}").expect("memory takes everything"),
            Err(_) => out.extend_from_slice(value.as_bytes()),
        },
        bytes => out.extend_from_slice(bytes),
    }
}

fn is_rewritten(number: &str) -> bool {
    number.ends_with(".0") || number.bytes().any(|byte| matches!(byte, b'e' | b'E'))
}

//! Bodies of error answers in the three formats a client can ask for: JSON, CSV, msgpack.

use std::fmt;

use crate::http::{go_json, push_decimal};
use crate::limits::REFUSED_LISTED_MAX;

pub const JSON: &str = "application/json";

/// The format of an error body, chosen by `Accept`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
    Msgpack,
}

impl Format {
    /// InfluxDB compares the whole field; an unknown value means JSON.
    pub fn of(accept: Option<&[u8]>) -> Self {
        match accept {
            Some(b"text/csv" | b"application/csv") => Self::Csv,
            Some(b"application/x-msgpack") => Self::Msgpack,
            _ => Self::Json,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Csv => "text/csv",
            Self::Msgpack => "application/x-msgpack",
        }
    }
}

/// The refused lines of a write, for the JSON field `refused` beside InfluxDB's `error`.
pub struct RefusedLines<I> {
    /// Number of all refused lines; at most `REFUSED_LISTED_MAX` are listed.
    pub total: u64,
    /// Number of the line in the body, from 1, and the reason.
    pub lines: I,
}

/// The body of an error; also used for the error of one statement of several.
pub fn error_body(format: Format, text: &[u8], pretty: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(text.len() + 32);
    match format {
        Format::Json => {
            body.extend_from_slice(if pretty { b"{\n    \"error\": " } else { b"{\"error\":" });
            go_json::push_string(&mut body, text);
            body.extend_from_slice(if pretty { b"\n}\n" } else { b"}\n" });
        }
        Format::Csv => {
            body.extend_from_slice(b"error\n");
            push_csv_field(&mut body, text);
            body.push(b'\n');
        }
        Format::Msgpack => {
            body.extend_from_slice(b"\x81\xa5error");
            push_msgpack_string(&mut body, text);
        }
    }
    body
}

/// The JSON answer to a write with refused lines.
pub(crate) fn refused_body<R: fmt::Display>(
    text: &[u8],
    pretty: bool,
    refused: RefusedLines<impl IntoIterator<Item = (u64, R)>>,
) -> Vec<u8> {
    /// The text in compact and in pretty form.
    type Both = (&'static str, &'static str);
    const OPEN: Both = ("{\"error\":", "{\n    \"error\": ");
    const TOTAL: Both = (",\"refused\":{\"total\":", ",\n    \"refused\": {\n        \"total\": ");
    const LINES: Both = (",\"lines\":[", ",\n        \"lines\": [");
    const LINE: Both = ("{\"line\":", "\n            {\n                \"line\": ");
    const REASON: Both = (",\"reason\":", ",\n                \"reason\": ");
    const LINE_END: Both = ("}", "\n            }");
    const LINES_END: Both = ("]", "\n        ]");
    const END: Both = ("}}\n", "\n    }\n}\n");

    let mut body = Vec::with_capacity(text.len() + 1024);
    let put = |body: &mut Vec<u8>, (compact, spread): Both| {
        body.extend_from_slice(if pretty { spread } else { compact }.as_bytes());
    };
    put(&mut body, OPEN);
    go_json::push_string(&mut body, text);
    put(&mut body, TOTAL);
    push_decimal(&mut body, refused.total);
    put(&mut body, LINES);
    let mut any = false;
    for (line, reason) in refused.lines.into_iter().take(REFUSED_LISTED_MAX) {
        if any {
            body.push(b',');
        }
        any = true;
        put(&mut body, LINE);
        push_decimal(&mut body, line);
        put(&mut body, REASON);
        go_json::push_display(&mut body, reason);
        put(&mut body, LINE_END);
    }
    // Go writes an empty list without a line end inside.
    put(&mut body, if any { LINES_END } else { ("]", "]") });
    put(&mut body, END);
    body
}

/// Quotes as Go's `encoding/csv`: with a comma, a quote, a line end, a leading blank, or for `\.`.
pub fn push_csv_field(out: &mut Vec<u8>, text: &[u8]) {
    let blank_first = text.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    let quote = text == b"\\."
        || text.iter().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'))
        || blank_first.is_some_and(char::is_whitespace);
    if !quote {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    for &byte in text {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// The shortest `str` format for this length.
pub fn push_msgpack_string(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        len @ ..32 => out.push(0xa0 | len as u8),
        len @ ..256 => out.extend_from_slice(&[0xd9, len as u8]),
        len @ ..65_536 => {
            out.push(0xda);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0xdb);
            out.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_fields_are_quoted_where_go_quotes() {
        for (text, want) in [
            ("plain text", "plain text"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            (" blank", "\" blank\""),
            ("\\.", "\"\\.\""),
        ] {
            assert_eq!(error_body(Format::Csv, text.as_bytes(), true), format!("error\n{want}\n").as_bytes());
        }
    }

    #[test]
    fn msgpack_strings_take_their_shortest_form() {
        for (len, prefix) in [
            (31, &[0xbf][..]),
            (32, &[0xd9, 32]),
            (255, &[0xd9, 255]),
            (256, &[0xda, 1, 0]),
            (65_535, &[0xda, 255, 255]),
            (65_536, &[0xdb, 0, 1, 0, 0]),
        ] {
            let body = error_body(Format::Msgpack, &vec![b'x'; len], false);
            assert!(body.starts_with(&[b"\x81\xa5error", prefix].concat()));
            assert_eq!(body.len(), 7 + prefix.len() + len);
        }
    }
}

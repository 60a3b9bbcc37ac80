//! msgpack documents as InfluxDB writes them: times as extension 5, the smallest signed form for integers, every float
//! as 64 bits. The documents of a chunked answer follow each other directly.

use fluxgate_dataplane::http::error_body::push_msgpack_string;

use super::part::{ResultPart, SeriesPart};
use super::pieces::Pieces;
use crate::influx::answer::{Row, decoded};

const NANOSECONDS_PER_SECOND: i64 = 1_000_000_000;

/// Writes one document. `times`: write a first column `time` as times, not integers.
pub(super) fn document(out: &mut Pieces<'_>, parts: &[ResultPart<'_>], times: bool) {
    push_map(&mut out.buf, 1);
    push_text(&mut out.buf, "results");
    push_array(&mut out.buf, parts.len());
    for part in parts {
        push_part(out, part, times);
    }
    out.settle();
}

fn push_part(out: &mut Pieces<'_>, part: &ResultPart<'_>, times: bool) {
    let buf = &mut out.buf;
    if let Some(error) = part.error {
        // Nothing else, not even the statement's number.
        push_map(buf, 1);
        push_text(buf, "error");
        return push_text(buf, error);
    }
    push_map(buf, 2 + usize::from(!part.messages.is_empty()) + usize::from(part.partial));
    push_text(buf, "statement_id");
    push_integer(buf, part.statement_id);
    if !part.messages.is_empty() {
        push_text(buf, "messages");
        push_array(buf, part.messages.len());
        for message in part.messages {
            push_map(buf, 2);
            [("level", &message.level), ("text", &message.text)].iter().for_each(|(name, text)| {
                push_text(buf, name);
                push_text(buf, text);
            });
        }
    }
    push_text(buf, "series");
    push_array(buf, part.series_count());
    for part in part.series() {
        push_series(out, &part, times);
    }
    push_mark(&mut out.buf, part.partial);
}

fn push_series(out: &mut Pieces<'_>, part: &SeriesPart<'_>, times: bool) {
    let series = part.series;
    let buf = &mut out.buf;
    let (named, tagged) = (!series.name.is_empty(), !series.tags.is_empty());
    push_map(buf, 2 + usize::from(named) + usize::from(tagged) + usize::from(part.partial));
    if named {
        push_text(buf, "name");
        push_text(buf, &series.name);
    }
    if tagged {
        push_text(buf, "tags");
        push_map(buf, series.tags.len());
        for (key, value) in &series.tags {
            push_text(buf, key);
            push_text(buf, value);
        }
    }
    push_text(buf, "columns");
    push_array(buf, series.columns.len());
    series.columns.iter().for_each(|column| push_text(buf, column));
    push_text(buf, "values");
    push_array(buf, part.rows.len());
    let times = times && series.columns.first().is_some_and(|column| column == "time");
    for row in part.rows {
        push_row(&mut out.buf, row, series.columns.len(), times);
        out.settle();
    }
    push_mark(&mut out.buf, part.partial);
}

/// A row has as many values as columns; missing ones are written as null.
fn push_row(buf: &mut Vec<u8>, row: &Row, columns: usize, times: bool) {
    push_array(buf, columns);
    let values = row.values().chain(std::iter::repeat("null"));
    for (column, value) in values.take(columns).enumerate() {
        match value.parse() {
            Ok(nanoseconds) if times && column == 0 => push_time(buf, nanoseconds),
            Ok(integer) => push_integer(buf, integer),
            Err(_) => push_other(buf, value),
        }
    }
}

/// Any scalar except an int64.
fn push_other(buf: &mut Vec<u8>, value: &str) {
    match value.as_bytes() {
        b"null" => buf.push(0xc0),
        b"false" => buf.push(0xc2),
        b"true" => buf.push(0xc3),
        [b'"', ..] => push_text(buf, &decoded(value)),
        _ => match (value.parse::<u64>(), value.parse::<f64>()) {
            (Ok(unsigned), _) => {
                buf.push(0xcf);
                buf.extend_from_slice(&unsigned.to_be_bytes());
            }
            (_, Ok(float)) => {
                buf.push(0xcb);
                buf.extend_from_slice(&float.to_be_bytes());
            }
            // Not a scalar; InfluxDB does not send such values.
            _ => push_text(buf, value),
        },
    }
}

fn push_time(buf: &mut Vec<u8>, nanoseconds: i64) {
    let seconds = nanoseconds.div_euclid(NANOSECONDS_PER_SECOND);
    let rest = nanoseconds.rem_euclid(NANOSECONDS_PER_SECOND) as i32;
    buf.extend_from_slice(&[0xc7, 12, 5]);
    buf.extend_from_slice(&seconds.to_be_bytes());
    buf.extend_from_slice(&rest.to_be_bytes());
}

fn push_integer(buf: &mut Vec<u8>, n: i64) {
    if (-32..=127).contains(&n) {
        buf.push(n as u8);
    } else if let Ok(n) = i8::try_from(n) {
        buf.push(0xd0);
        buf.extend_from_slice(&n.to_be_bytes());
    } else if let Ok(n) = i16::try_from(n) {
        buf.push(0xd1);
        buf.extend_from_slice(&n.to_be_bytes());
    } else if let Ok(n) = i32::try_from(n) {
        buf.push(0xd2);
        buf.extend_from_slice(&n.to_be_bytes());
    } else {
        buf.push(0xd3);
        buf.extend_from_slice(&n.to_be_bytes());
    }
}

fn push_mark(buf: &mut Vec<u8>, partial: bool) {
    if partial {
        push_text(buf, "partial");
        buf.push(0xc3);
    }
}

fn push_text(buf: &mut Vec<u8>, text: &str) {
    push_msgpack_string(buf, text.as_bytes());
}

fn push_map(buf: &mut Vec<u8>, len: usize) {
    push_len(buf, len, 0x80, [0xde, 0xdf]);
}

fn push_array(buf: &mut Vec<u8>, len: usize) {
    push_len(buf, len, 0x90, [0xdc, 0xdd]);
}

/// Lengths up to 15 are in the first byte; larger ones follow it in 16 or 32 bits.
fn push_len(buf: &mut Vec<u8>, len: usize, short: u8, [bits16, bits32]: [u8; 2]) {
    match len {
        0..16 => buf.push(short | len as u8),
        16..0x1_0000 => {
            buf.push(bits16);
            buf.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            buf.push(bits32);
            buf.extend_from_slice(&(len as u32).to_be_bytes());
        }
    }
}

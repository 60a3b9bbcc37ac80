//! Line protocol as InfluxDB reads it, written to be easy to check. The fast parsers are compared with it. It takes
//! whole bodies, allocates freely and shares no code with the others.

use super::{Item, Line, Reason, Refused};
use crate::limits;
use crate::precision::Precision;

/// All items of a whole body.
pub(super) fn scan(body: &[u8], precision: Precision) -> Vec<Item> {
    let mut items = Vec::new();
    for (raw_start, raw_end) in lines(body) {
        let start = (raw_start..raw_end).find(|&i| !blank(body[i])).unwrap_or(raw_end);
        if raw_end - raw_start > limits::LINE_BYTES_MAX {
            let cut = raw_start + limits::LINE_BYTES_MAX;
            let start = start.min(cut);
            if body[start] != b'#' {
                let end = cut.min(start + limits::LINE_SHOWN_BYTES_MAX);
                items.push(refused(start, end, Reason::LineTooLong));
            }
            continue;
        }
        if start == raw_end || body[start] == b'#' {
            continue;
        }
        let end = if body[raw_end - 1] == b'\n' { raw_end - 1 } else { raw_end };
        items.push(match point(body, start, end, precision) {
            Ok(line) if !splits_off(body, &line, precision) => refused(start, end, Reason::NotSelfContained),
            Ok(line) => Item::Line(line),
            Err(reason) => refused(start, end, reason),
        });
    }
    items
}

fn refused(start: usize, end: usize, reason: Reason) -> Item {
    Item::Refused(Refused { start: start as u32, end: end as u32, reason })
}

/// Ranges of the lines, without the LF that ends each.
pub(super) fn lines(body: &[u8]) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < body.len() {
        let (mut fields, mut quoted, mut equals, mut commas) = (false, false, 0, 0);
        let mut i = start;
        while i < body.len() {
            if body[i] == b'\\' && i + 2 < body.len() {
                i += 2;
                continue;
            }
            if body[i] == b' ' {
                fields = true;
            }
            if fields && body[i] == b'=' && !quoted {
                equals += 1;
            } else if fields && body[i] == b',' && !quoted {
                commas += 1;
            } else if fields && body[i] == b'"' && equals > commas {
                quoted = !quoted;
            } else if body[i] == b'\n' && !quoted {
                break;
            }
            i += 1;
        }
        ranges.push((start, i.min(body.len())));
        start = i + 1;
    }
    ranges
}

/// Whether the line, as it is sent, is one line whatever follows, with its parts at the same places.
fn splits_off(body: &[u8], line: &Line, precision: Precision) -> bool {
    let mut sent = body[line.start as usize..line.end as usize].to_vec();
    if !line.has_timestamp {
        sent = body[line.start as usize..line.fields_end as usize].to_vec();
        sent.extend_from_slice(b" 0");
    }
    let bytes = sent.len();
    sent.extend_from_slice(b"\nm v=1\n");
    let again = point(&sent, 0, bytes, precision);
    lines(&sent) == [(0, bytes), (bytes + 1, bytes + 6)]
        && again.is_ok_and(|again| {
            again.has_timestamp
                && again.measurement_end == line.measurement_end - line.start
                && again.fields_end == line.fields_end - line.start
        })
}

fn blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t' || byte == 0
}

fn point(body: &[u8], start: usize, end: usize, precision: Precision) -> Result<Line, Reason> {
    let at = |i: usize| if i < end { Some(body[i]) } else { None };
    let after_backslash = |i: usize| body[i - 1] == b'\\';

    // Measurement.
    let mut i = start;
    if at(i) == Some(b',') {
        return Err(Reason::MissingMeasurement);
    }
    loop {
        i += 1;
        match at(i) {
            None => return Err(Reason::MissingFields),
            Some(b',' | b' ') if !after_backslash(i) => break,
            _ => {}
        }
    }
    let measurement_end = i;

    // Tags.
    let mut keys: Vec<&[u8]> = Vec::new();
    while at(i) == Some(b',') {
        i += 1;
        let key = i;
        if matches!(at(i), None | Some(b' ' | b',' | b'=')) {
            return Err(Reason::MissingTagKey);
        }
        loop {
            i += 1;
            match at(i) {
                None => return Err(Reason::MissingTagValue),
                Some(b' ' | b',') if !after_backslash(i) => return Err(Reason::MissingTagValue),
                Some(b'=') if !after_backslash(i) => break,
                _ => {}
            }
        }
        keys.push(&body[key..i]);
        i += 1;
        if matches!(at(i), None | Some(b' ' | b',')) {
            return Err(Reason::MissingTagValue);
        }
        loop {
            i += 1;
            match at(i) {
                None => return Err(Reason::MissingFields),
                Some(b'=') if !after_backslash(i) => return Err(Reason::InvalidTagFormat),
                Some(b',' | b' ') if !after_backslash(i) => break,
                _ => {}
            }
        }
    }
    let tags = keys.len();
    keys.sort();
    keys.dedup();
    if keys.len() < tags {
        return Err(Reason::DuplicateTags);
    }
    let key_bytes = i - start;
    if key_bytes > limits::KEY_BYTES_MAX {
        return Err(Reason::KeyTooLong { bytes: key_bytes as u32 });
    }

    // Fields, first pass.
    while at(i).is_some_and(blank) {
        i += 1;
    }
    let fields = i;
    let (mut quoted, mut equals, mut commas) = (false, 0, 0);
    while let Some(byte) = at(i) {
        if byte == b'\\' && i + 1 < end {
            i += 2;
        } else if byte == b'"' && equals > commas {
            quoted = !quoted;
            i += 1;
        } else if byte == b'=' && !quoted {
            equals += 1;
            if (body[i - 1] == b' ' || body[i - 1] == b',') && body[i - 2] != b'\\' {
                return Err(Reason::MissingFieldKey);
            }
            i += 1;
            let value = i;
            match at(i) {
                None | Some(b',' | b' ') => return Err(Reason::MissingFieldValue),
                Some(b'"') => continue,
                _ => {}
            }
            while !matches!(at(i), None | Some(b',' | b' ')) {
                i += 1;
            }
            if matches!(body[value], b'0'..=b'9' | b'.' | b'-' | b'n' | b'N') {
                number(&body[value..i], value)?;
            } else if !boolean(&body[value..i]) {
                return Err(Reason::InvalidBoolean);
            }
        } else if byte == b' ' && !quoted {
            break;
        } else {
            if byte == b',' && !quoted {
                commas += 1;
            }
            i += 1;
        }
    }
    if quoted {
        return Err(Reason::UnbalancedQuotes);
    }
    if equals == 0 || commas != equals - 1 {
        return Err(Reason::InvalidFieldFormat);
    }
    let fields_end = i;

    // Fields, second pass.
    let mut values = Vec::new();
    let mut i = fields;
    while i < fields_end {
        let key = i;
        while i < fields_end && !(body[i] == b'=' && (i == key || body[i - 1] != b'\\')) {
            i += 1;
        }
        if i + 1 >= fields_end {
            return Err(Reason::InvalidValue { start: key as u32, end: i.min(fields_end) as u32 });
        }
        let bytes = key_bytes + 4 + (i - key);
        if bytes > limits::KEY_BYTES_MAX {
            return Err(Reason::KeyTooLong { bytes: bytes as u32 });
        }
        let key = &body[key..i];
        i += 1;
        let value = i;
        let mut quoted = false;
        while i < fields_end {
            if body[i] == b'\\' && i + 1 < fields_end && (body[i + 1] == b'"' || body[i + 1] == b'\\') {
                i += 2;
                continue;
            }
            if body[i] == b'"' {
                quoted = !quoted;
            }
            if body[i] == b',' && !quoted {
                break;
            }
            i += 1;
        }
        values.push((key, &body[value..i]));
        i += 1;
    }

    // Timestamp.
    let mut i = fields_end;
    while at(i).is_some_and(blank) {
        i += 1;
    }
    let time = i;
    while let Some(byte) = at(i) {
        if byte == b'\n' || byte == b' ' {
            break;
        }
        if !(byte.is_ascii_digit() || (byte == b'-' && i == time)) {
            return Err(Reason::BadTimestamp);
        }
        i += 1;
    }
    let has_timestamp = i > time;
    if has_timestamp {
        timestamp(&body[time..i], time, precision)?;
        if body[i..end].iter().any(|&byte| byte != b' ') {
            return Err(Reason::PointInvalid);
        }
    }

    // Lines that InfluxDB accepts and that damage it.
    if [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102400].contains(&tags) {
        return Err(Reason::TagCount { tags: tags as u32 });
    }
    for (key, value) in values {
        if value == b"\"" {
            return Err(Reason::LoneQuote);
        }
        let storable = match value.first() {
            Some(b'"') => true,
            Some(b'0'..=b'9' | b'.' | b'-') => number(value, 0).is_ok(),
            _ => boolean(value),
        };
        if !storable {
            return Err(Reason::Unstorable);
        }
        if String::from_utf8(key.to_vec()).is_err() {
            return Err(Reason::FieldKeyNotUtf8);
        }
    }
    if String::from_utf8(body[start..measurement_end].to_vec()).is_err() {
        return Err(Reason::MeasurementNotUtf8);
    }
    Ok(Line {
        start: start as u32,
        end: end as u32,
        measurement_end: measurement_end as u32,
        fields_end: fields_end as u32,
        has_timestamp,
    })
}

fn boolean(text: &[u8]) -> bool {
    ["t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"].iter().any(|word| word.as_bytes() == text)
}

fn number(text: &[u8], at: usize) -> Result<(), Reason> {
    let mut i = if text[0] == b'-' { 1 } else { 0 };
    let (mut integer, mut decimal, mut scientific) = (false, false, false);
    while i < text.len() {
        match text[i] {
            b'i' if i > 0 && !integer => integer = true,
            b'.' if decimal => return Err(Reason::InvalidNumber),
            b'.' => decimal = true,
            b'e' | b'E' if i > 0 => scientific = true,
            b'+' | b'-' if text[i - 1] == b'e' || text[i - 1] == b'E' => {}
            b'0'..=b'9' => {}
            _ => return Err(Reason::InvalidNumber),
        }
        i += 1;
    }
    let has_digit = text.iter().any(u8::is_ascii_digit);
    if integer {
        if decimal || scientific || !has_digit || text[text.len() - 1] != b'i' {
            return Err(Reason::InvalidNumber);
        }
        let digits = String::from_utf8(text[..text.len() - 1].to_vec()).expect("ASCII");
        if digits.parse::<i64>().is_err() {
            return Err(Reason::IntegerRange { start: at as u32, end: (at + digits.len()) as u32 });
        }
        return Ok(());
    }
    if !scientific && !has_digit {
        return Err(Reason::InvalidNumber);
    }
    let text = String::from_utf8(text.to_vec()).expect("ASCII");
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(()),
        _ => Err(Reason::InvalidFloat),
    }
}

fn timestamp(text: &[u8], at: usize, precision: Precision) -> Result<(), Reason> {
    let digits = String::from_utf8(text.to_vec()).expect("ASCII");
    if digits == "-" {
        return Err(Reason::TimestampSyntax);
    }
    let Ok(value) = digits.parse::<i64>() else {
        return Err(Reason::TimestampRange { start: at as u32, end: (at + text.len()) as u32 });
    };
    match value.checked_mul(precision.nanos()) {
        Some(nanos) if (-9223372036854775806..=9223372036854775806).contains(&nanos) => Ok(()),
        _ => Err(Reason::TimeOutsideRange),
    }
}

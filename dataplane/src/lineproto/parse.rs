//! Parses one line as InfluxDB does, including its oddities. Used for every line that is not plain.
//!
//! The order of the checks is part of the contract: the first error found is reported. Fields are parsed twice, as in
//! InfluxDB: the first pass accepts or refuses, the second decides what would be stored. The two disagree on a few
//! lines, which then crash the server. Not here: where the line ends (`split`), values (`number`).

use super::number::{is_boolean, number, timestamp};
use super::{Line, Reason};
use crate::limits::KEY_BYTES_MAX;
use crate::precision::Precision;

/// Tags that are compared without allocating. A line with more needs a sorted list.
const TAGS_INLINE: usize = 32;

/// Parses `body[start..end]`, which begins with a byte that is not blank and excludes its final LF.
pub(super) fn parse(body: &[u8], start: usize, end: usize, precision: Precision) -> Result<Line, Reason> {
    let line = &body[start..end];
    let key = series_key(line)?;
    if key.end > KEY_BYTES_MAX {
        return Err(Reason::KeyTooLong { bytes: key.end as u32 });
    }
    let fields = skip_blanks(line, key.end);
    let fields_end = first_reading(line, fields).map_err(|reason| shift(reason, start))?;
    let stored = second_reading(line, fields, fields_end, key.end).map_err(|reason| shift(reason, start))?;
    let has_timestamp = time(line, fields_end, precision).map_err(|reason| shift(reason, start))?;

    // InfluxDB accepts the line. The checks below protect the servers.
    if key.tags >= 100 && key.tags % 100 == 0 && (key.tags / 100).is_power_of_two() {
        return Err(Reason::TagCount { tags: key.tags as u32 });
    }
    if let Some(reason) = stored {
        return Err(reason);
    }
    if std::str::from_utf8(&line[..key.measurement_end]).is_err() {
        return Err(Reason::MeasurementNotUtf8);
    }
    Ok(Line {
        start: start as u32,
        end: end as u32,
        measurement_end: (start + key.measurement_end) as u32,
        fields_end: (start + fields_end) as u32,
        has_timestamp,
    })
}

/// Moves the offsets in `reason` from the line to the body.
fn shift(reason: Reason, by: usize) -> Reason {
    let by = by as u32;
    match reason {
        Reason::IntegerRange { start, end } => Reason::IntegerRange { start: start + by, end: end + by },
        Reason::InvalidValue { start, end } => Reason::InvalidValue { start: start + by, end: end + by },
        Reason::TimestampRange { start, end } => Reason::TimestampRange { start: start + by, end: end + by },
        other => other,
    }
}

struct SeriesKey {
    measurement_end: usize,
    /// At the space before the fields.
    end: usize,
    tags: usize,
}

/// Measurement and tags. Here a byte is escaped when the byte before it is a backslash, even an escaped backslash.
fn series_key(line: &[u8]) -> Result<SeriesKey, Reason> {
    if line.first().is_none_or(|&byte| byte == b',') {
        return Err(Reason::MissingMeasurement);
    }
    let measurement_end = find(line, 1, *b",, ").ok_or(Reason::MissingFields)?;
    let mut keys = TagKeys::new();
    let mut at = measurement_end;
    while line[at] == b',' {
        let key = at + 1;
        if line.get(key).is_none_or(|byte| b" ,=".contains(byte)) {
            return Err(Reason::MissingTagKey);
        }
        let equals = find(line, key + 1, *b" ,=").ok_or(Reason::MissingTagValue)?;
        if line[equals] != b'=' || line.get(equals + 1).is_none_or(|byte| b" ,".contains(byte)) {
            return Err(Reason::MissingTagValue);
        }
        keys.push(&line[key..equals]);
        // The first byte of a value is not checked for `=`.
        at = find(line, equals + 2, *b" ,=").ok_or(Reason::MissingFields)?;
        if line[at] == b'=' {
            return Err(Reason::InvalidTagFormat);
        }
    }
    if keys.any_equal() {
        return Err(Reason::DuplicateTags);
    }
    Ok(SeriesKey { measurement_end, end: at, tags: keys.count })
}

/// The first byte from `at`, which is not 0, that is one of `stops` and has no backslash before it.
fn find(line: &[u8], mut at: usize, stops: [u8; 3]) -> Option<usize> {
    loop {
        at += memchr::memchr3(stops[0], stops[1], stops[2], line.get(at..)?)?;
        if line[at - 1] != b'\\' {
            return Some(at);
        }
        at += 1;
    }
}

/// The raw tag keys of one line.
struct TagKeys<'a> {
    inline: [&'a [u8]; TAGS_INLINE],
    /// All keys, once there are more than `inline` holds.
    spilled: Vec<&'a [u8]>,
    count: usize,
    ascending: bool,
}

impl<'a> TagKeys<'a> {
    fn new() -> Self {
        Self { inline: [&[]; TAGS_INLINE], spilled: Vec::new(), count: 0, ascending: true }
    }

    fn push(&mut self, key: &'a [u8]) {
        if self.count < TAGS_INLINE {
            self.ascending &= self.count == 0 || self.inline[self.count - 1] < key;
            self.inline[self.count] = key;
        } else {
            if self.count == TAGS_INLINE {
                self.spilled.extend_from_slice(&self.inline);
            }
            self.spilled.push(key);
        }
        self.count += 1;
    }

    fn any_equal(&mut self) -> bool {
        if self.count > TAGS_INLINE {
            self.spilled.sort_unstable();
            return self.spilled.windows(2).any(|pair| pair[0] == pair[1]);
        }
        let keys = &self.inline[..self.count];
        !self.ascending && keys.iter().enumerate().any(|(i, key)| keys[..i].contains(key))
    }
}

fn skip_blanks(line: &[u8], at: usize) -> usize {
    at + line[at..].iter().take_while(|&&byte| is_blank(byte)).count()
}

/// The bytes InfluxDB skips before a line, the fields and the timestamp.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0)
}

/// The end of a number or boolean that begins at `at`.
fn value_end(line: &[u8], at: usize) -> usize {
    at + line[at..].iter().take_while(|&&byte| byte != b',' && byte != b' ').count()
}

/// The next byte from `at` on that can mean something within a string.
fn string_goes_to(line: &[u8], at: usize) -> usize {
    memchr::memchr2(b'"', b'\\', &line[at..]).map_or(line.len(), |n| at + n)
}

/// Returns where the fields end. Here two backslashes do cancel each other.
fn first_reading(line: &[u8], start: usize) -> Result<usize, Reason> {
    let (mut equals, mut commas, mut quoted) = (0u32, 0u32, false);
    let mut at = start;
    while let Some(&byte) = line.get(at) {
        match byte {
            b'\\' if at + 1 < line.len() => at += 1,
            b'"' if equals > commas => {
                quoted = !quoted;
                if quoted {
                    at = string_goes_to(line, at + 1);
                    continue;
                }
            }
            b'=' if !quoted => {
                equals += 1;
                if matches!(line[at - 1], b' ' | b',') && line[at - 2] != b'\\' {
                    return Err(Reason::MissingFieldKey);
                }
                match line.get(at + 1) {
                    None | Some(b',' | b' ') => return Err(Reason::MissingFieldValue),
                    Some(b'0'..=b'9' | b'.' | b'-' | b'N' | b'n') => {
                        let end = value_end(line, at + 1);
                        number(&line[at + 1..end], at + 1)?;
                        at = end;
                        continue;
                    }
                    Some(b'"') => {}
                    Some(_) => {
                        let end = value_end(line, at + 1);
                        if !is_boolean(&line[at + 1..end]) {
                            return Err(Reason::InvalidBoolean);
                        }
                        at = end;
                        continue;
                    }
                }
            }
            b',' if !quoted => commas += 1,
            b' ' if !quoted => break,
            _ => {}
        }
        at += 1;
    }
    if quoted {
        return Err(Reason::UnbalancedQuotes);
    }
    if equals == 0 || commas != equals - 1 {
        return Err(Reason::InvalidFieldFormat);
    }
    Ok(at)
}

/// Parses the fields as the storage would. An error is InfluxDB's own. `Some` is a reason of ours, reported only if
/// nothing else is wrong with the line.
fn second_reading(line: &[u8], start: usize, end: usize, series_key_bytes: usize) -> Result<Option<Reason>, Reason> {
    let fields = &line[..end];
    let mut ours = None;
    let mut at = start;
    while at < end {
        // Here a byte is escaped when the byte before it is a backslash, but the first byte of a key never is.
        let equals = (at..end).find(|&i| fields[i] == b'=' && (i == at || fields[i - 1] != b'\\')).unwrap_or(end);
        if equals + 1 >= end {
            return Err(Reason::InvalidValue { start: at as u32, end: equals as u32 });
        }
        let key = &fields[at..equals];
        let key_bytes = series_key_bytes + 4 + key.len();
        if key_bytes > KEY_BYTES_MAX {
            return Err(Reason::KeyTooLong { bytes: key_bytes as u32 });
        }
        let value_end = stored_value_end(fields, equals + 1);
        if ours.is_none() {
            ours = stored_value(&fields[equals + 1..value_end]);
            if ours.is_none() && std::str::from_utf8(key).is_err() {
                ours = Some(Reason::FieldKeyNotUtf8);
            }
        }
        at = value_end + 1;
    }
    Ok(ours)
}

fn stored_value_end(fields: &[u8], mut at: usize) -> usize {
    let mut quoted = false;
    while at < fields.len() {
        match fields[at] {
            b'\\' if matches!(fields.get(at + 1), Some(b'"' | b'\\')) => at += 1,
            b'"' => {
                quoted = !quoted;
                if quoted {
                    at = string_goes_to(fields, at + 1);
                    continue;
                }
            }
            b',' if !quoted => break,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Whether the storage can take this value; fails only for lines that the two passes read differently.
fn stored_value(value: &[u8]) -> Option<Reason> {
    match value {
        b"\"" => Some(Reason::LoneQuote),
        [b'"', ..] => None,
        [b'0'..=b'9' | b'-' | b'.', ..] => number(value, 0).err().map(|_| Reason::Unstorable),
        _ => (!is_boolean(value)).then_some(Reason::Unstorable),
    }
}

/// Whether a timestamp follows the fields.
fn time(line: &[u8], fields_end: usize, precision: Precision) -> Result<bool, Reason> {
    let start = skip_blanks(line, fields_end);
    let mut at = start;
    while let Some(&byte) = line.get(at) {
        match byte {
            b'\n' | b' ' => break,
            b'0'..=b'9' => {}
            b'-' if at == start => {}
            _ => return Err(Reason::BadTimestamp),
        }
        at += 1;
    }
    if at == start {
        // The end of the line, or an LF: InfluxDB ignores the rest.
        return Ok(false);
    }
    timestamp(&line[start..at], start, precision)?;
    if line[at..].iter().any(|&byte| byte != b' ') {
        return Err(Reason::PointInvalid);
    }
    Ok(true)
}

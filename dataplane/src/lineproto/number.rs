//! Checks values and timestamps as InfluxDB does: syntax and range, not the value itself.
//!
//! Not here: where a value ends (`parse`, `plain`).

use super::Reason;
use crate::precision::Precision;

/// Longest run of digits that always fits an `i64`.
pub(super) const SAFE_DIGITS: usize = 18;
/// InfluxDB reserves both ends of the 64-bit range.
const NANOS_MAX: i128 = 9_223_372_036_854_775_806;

/// Checks that `text`, a value up to its `,` or space, is a number; `at` is its offset in the body.
///
/// InfluxDB's syntax is tolerant: `e` may occur anywhere after the first byte. Only with an `e`, or to check the range,
/// is the text parsed as a float.
pub(super) fn number(text: &[u8], at: usize) -> Result<(), Reason> {
    let negative = text.first() == Some(&b'-');
    let (mut digits, mut points, mut scientific, mut integer) = (0usize, 0usize, false, false);
    for (i, &byte) in text.iter().enumerate().skip(usize::from(negative)) {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' if points == 0 => points = 1,
            b'i' if i > 0 && !integer => integer = true,
            b'e' | b'E' if i > 0 => scientific = true,
            b'+' | b'-' if i > 0 && matches!(text[i - 1], b'e' | b'E') => {}
            _ => return Err(Reason::InvalidNumber),
        }
    }
    if integer {
        if points > 0 || scientific || digits == 0 || text.last() != Some(&b'i') {
            return Err(Reason::InvalidNumber);
        }
        let text = &text[..text.len() - 1];
        if digits > SAFE_DIGITS && signed(text).is_none() {
            return Err(Reason::IntegerRange { start: at as u32, end: (at + text.len()) as u32 });
        }
    } else if scientific || digits > 300 {
        let finite = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok()).map(f64::is_finite);
        if finite != Some(true) {
            return Err(Reason::InvalidFloat);
        }
    } else if digits == 0 {
        return Err(Reason::InvalidNumber);
    }
    Ok(())
}

/// Whether `text` is one of the ten spellings of a boolean.
pub(super) fn is_boolean(text: &[u8]) -> bool {
    matches!(text, b"t" | b"T" | b"f" | b"F" | b"true" | b"True" | b"TRUE" | b"false" | b"False" | b"FALSE")
}

/// Checks that a timestamp, `-` and digits only, is a time that InfluxDB can store; `at` is its offset in the body.
pub(super) fn timestamp(text: &[u8], at: usize, precision: Precision) -> Result<(), Reason> {
    if text == b"-" {
        return Err(Reason::TimestampSyntax);
    }
    let range = Reason::TimestampRange { start: at as u32, end: (at + text.len()) as u32 };
    let value = signed(text).ok_or(range)?;
    let nanos = i128::from(value) * i128::from(precision.nanos());
    if nanos.abs() > NANOS_MAX { Err(Reason::TimeOutsideRange) } else { Ok(()) }
}

/// Number of digits and largest first digit of the longest timestamps that are in range whatever their other digits
/// are. Timestamps with fewer digits are in range too. From 9223372036854775806 ns divided by the unit.
pub(super) fn timestamp_safe(precision: Precision) -> (usize, u8) {
    match precision {
        Precision::Nanosecond => (19, b'8'),
        Precision::Microsecond => (16, b'8'),
        Precision::Millisecond => (13, b'8'),
        Precision::Second => (10, b'8'),
        Precision::Minute => (9, b'0'),
        Precision::Hour => (7, b'1'),
    }
}

/// The value of `-` and digits, if it fits 64 bits.
fn signed(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

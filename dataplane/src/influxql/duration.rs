//! Durations in InfluxQL's notation (`1h30m`), as nanoseconds.

use std::fmt;

const UNITS: [(&str, i64); 8] = [
    ("w", 7 * 24 * 3600 * 1_000_000_000),
    ("d", 24 * 3600 * 1_000_000_000),
    ("h", 3600 * 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("u", 1_000),
    ("ns", 1),
];

/// Parses numbers with units, after an optional sign (only a bound value has one; elsewhere the sign is an operator).
/// None: not a duration, or too long. Like InfluxDB it allows an overflow if the result is not negative.
pub(super) fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_i64;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let count: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, width) = match rest.as_bytes() {
            [b'm', b's', ..] => (1_000_000, 2),
            [b'n', b's', ..] => (1, 2),
            _ if rest.starts_with('\u{b5}') => (1_000, 2),
            [byte, ..] => {
                let unit = UNITS.iter().find(|(name, _)| name.as_bytes() == [*byte])?;
                (unit.1, 1)
            }
            [] => return None,
        };
        rest = &rest[width..];
        sum = sum.wrapping_add(count.wrapping_mul(unit));
    }
    if sum < 0 && !negative {
        return None;
    }
    let signed = if negative { sum.wrapping_neg() } else { sum };
    // The smallest value has no text.
    (signed != i64::MIN).then_some(signed)
}

/// Prints a duration exactly, in the largest unit that divides it.
pub(super) struct Text(pub i64);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (name, unit) = UNITS.iter().find(|(_, unit)| self.0 % unit == 0).expect("1 ns divides all");
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_influxdb_does() {
        for (text, want) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("10u", Some(10_000)),
            ("10\u{b5}", Some(10_000)),
            ("7ns", Some(7)),
            ("2ms3s", Some(3_002_000_000)),
            ("-1w", Some(-604_800_000_000_000)),
            ("0s", Some(0)),
            ("1", None),
            ("", None),
            ("-", None),
            ("s", None),
            ("1m2", None),
            ("1us", None),
            ("1\u{b5}s", None),
            ("1y", None),
            ("1n", None),
            ("9999999999w", None),
            ("99999999999999999999s", None),
            ("-9223372036854775808ns", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }

    #[test]
    fn a_printed_duration_is_the_same_duration() {
        for value in
            [0, 1, 1_000, 90_000_000_000, 604_800_000_000_000, 604_800_000_000_001, i64::MAX, -5, -60_000_000_000]
        {
            assert_eq!(parse(&Text(value).to_string()), Some(value));
        }
    }
}

//! Gives rows that were read as msgpack the texts that they have in JSON: Go's floats, and times as text.
//!
//! It is for answers that InfluxDB cannot write as JSON, since some value is infinite or no number: it then writes the
//! text of an error in the place of the whole document, and says all only in other formats.

use std::fmt::Write as _;

use crate::influx::answer::{Answer, Row, Series};

/// Whether a document is the text of that error.
pub fn is_unwritable(document: &[u8]) -> bool {
    document.starts_with(b"json: ")
}

/// Whether no JSON can hold a value of [`Series::beyond_json`].
pub fn is_beyond(value: &str) -> bool {
    matches!(value, "NaN" | "+Inf" | "-Inf")
}

/// Rewrites all rows. `as_text`: the column `time` has integer nanoseconds, which become text.
pub fn rewrite(answer: &mut Answer, as_text: bool) {
    for series in &mut answer.series {
        let time = if as_text { series.column("time") } else { None };
        let rows: Vec<Row> = series.rows.iter().map(|row| self::row(row, time)).collect();
        let beyond_json = rows.iter().any(|row| row.values().any(is_beyond));
        *series = Series { rows, beyond_json, ..std::mem::take(series) };
    }
}

fn row(row: &Row, time: Option<usize>) -> Row {
    let mut text = String::from("[");
    for (at, value) in row.values().enumerate() {
        if at > 0 {
            text.push(',');
        }
        match value.parse::<i64>() {
            Ok(nanoseconds) if Some(at) == time => push_time(&mut text, nanoseconds),
            Ok(_) => text.push_str(value),
            Err(_) => push(&mut text, value),
        }
    }
    text.push(']');
    Row(text.into())
}

fn push(text: &mut String, value: &str) {
    let number = if value.starts_with(['"', 't', 'f', 'n']) { None } else { value.parse::<f64>().ok() };
    match number {
        None => text.push_str(value),
        Some(float) if float.is_nan() => text.push_str("NaN"),
        Some(float) if float.is_infinite() => text.push_str(if float > 0.0 { "+Inf" } else { "-Inf" }),
        // Beyond 64 bits of a sign: it was an integer.
        Some(_) if !value.contains(['.', 'e']) => text.push_str(value),
        Some(float) if float != 0.0 && !(1e-6..1e21).contains(&float.abs()) => {
            text.push_str(&format!("{float:e}").replace('e', if float.abs() < 1.0 { "e" } else { "e+" }));
        }
        Some(float) => write!(text, "{float}").expect("memory takes everything"),
    }
}

/// RFC 3339 in UTC, without zeros at the end of a fraction. Days become a date as in H. Hinnant's `civil_from_days`.
fn push_time(text: &mut String, nanoseconds: i64) {
    const DAY: i64 = 86_400;
    let (seconds, fraction) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Days since 1 March of the year 0, in eras of 400 years.
    let (era, day) = ((days + 719_468).div_euclid(146_097), (days + 719_468).rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (of_month, month) =
        (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(text, "\"{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}").expect("as above");
    if fraction > 0 {
        text.push_str(format!(".{fraction:09}").trim_end_matches('0'));
    }
    text.push_str("Z\"");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_texts_of_go() {
        for (given, want) in [
            ("1.0", "1"),
            ("-0.0", "-0"),
            ("0.000001", "0.000001"),
            ("9.5e-7", "9.5e-7"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("-1.5e300", "-1.5e+300"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("18446744073709551615", "18446744073709551615"),
            ("NaN", "NaN"),
            ("inf", "+Inf"),
            ("-inf", "-Inf"),
            ("null", "null"),
            ("true", "true"),
            (r#""1.0""#, r#""1.0""#),
        ] {
            assert_eq!(row(&Row::of([given]), None).text(), format!("[{want}]"), "{given}");
        }
    }

    #[test]
    fn times_become_texts() {
        for (given, want) in [
            ("0", "1970-01-01T00:00:00Z"),
            ("1", "1970-01-01T00:00:00.000000001Z"),
            ("1709210096500000000", "2024-02-29T12:34:56.5Z"),
            ("-9223372036854775806", "1677-09-21T00:12:43.145224194Z"),
            ("9223372036854775806", "2262-04-11T23:47:16.854775806Z"),
        ] {
            assert_eq!(row(&Row::of([given, given]), Some(0)).text(), format!("[\"{want}\",{given}]"));
        }
    }
}

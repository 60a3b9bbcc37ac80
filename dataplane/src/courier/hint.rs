//! Guesses from the text of a refusal which lines it is about. A guess only decides what is sent next: a wrong one
//! costs requests, never a point.
//!
//! The texts are InfluxDB 1.x's. Names in them are neither escaped nor quoted further:
//! `field type conflict: input field "F" on measurement "M" is type T, already exists as type U`,
//! `points beyond retention policy dropped=N`, `invalid tag key: input tag "time" on measurement "M" is invalid`.

use std::ops::Range;

use memchr::memmem;

/// `N` of a trailing `dropped=N`: the storage dropped at least N points of the request.
pub fn dropped(text: &str) -> Option<usize> {
    text.trim_end().rsplit_once(" dropped=")?.1.parse().ok()
}

/// For lines that another backend has refused for the type of a field.
pub const REFUSED_ELSEWHERE: &str = "field type conflict: another backend has refused this line";

/// The line does not fit the types of fields, which are the same on all backends.
pub fn is_type_conflict(text: &str) -> bool {
    text.contains("field type conflict")
}

/// The limit that the text names keeps whole series out: all lines of one are refused, or none.
pub fn is_series_limit(text: &str) -> bool {
    text.contains("max-series-per-database limit exceeded") || text.contains("max-values-per-tag limit exceeded")
}

/// The series key of a line, as written.
pub fn series(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let is_end = |&at: &usize| at == 0 || line[at - 1] != b'\\';
    let end = memchr::memchr_iter(b' ', line).find(is_end);
    &line[..end.unwrap_or(line.len())]
}

/// Whether every line of `piece` was dropped. A storage error counts each point once, but InfluxDB may count a point
/// with a key `time` twice.
pub fn all_dropped(text: &str, body: &[u8], lines: &[Range<usize>], piece: &[u32]) -> bool {
    let names_time = |line: &[u8]| memmem::find(line, b",time=").or(memmem::find(line, b" time=")).is_some();
    dropped(text).is_some_and(|n| n >= piece.len())
        && !piece.iter().any(|&i| names_time(&body[lines[i as usize].clone()]))
}

/// The lines of `piece` that the text seems to be about, in order. None: the text does not distinguish between the
/// lines.
pub fn suspects(text: &str, body: &[u8], lines: &[Range<usize>], piece: &[u32]) -> Option<Vec<u32>> {
    let line = |i: u32| &body[lines[i as usize].clone()];
    let pick = |test: &dyn Fn(&[u8]) -> bool| {
        let picked: Vec<u32> = piece.iter().copied().filter(|&i| test(line(i))).collect();
        (!picked.is_empty() && picked.len() < piece.len()).then_some(picked)
    };
    if text.contains("points beyond retention policy") {
        return oldest(dropped(text)?, piece, &line);
    }
    if let Some(conflict) = Conflict::parse(text) {
        let by_type = pick(&|l| is_of(l, conflict.measurement) && has_field(l, conflict.field, conflict.kind));
        return by_type.or_else(|| pick(&|l| is_of(l, conflict.measurement)));
    }
    let measurement = between(text, " on measurement \"", "\" is invalid")?;
    pick(&|l| is_of(l, measurement))
}

/// The `n` lines with the oldest timestamps: they are the ones beyond the retention policy.
fn oldest<'a>(n: usize, piece: &[u32], line: &dyn Fn(u32) -> &'a [u8]) -> Option<Vec<u32>> {
    if n == 0 || n >= piece.len() {
        return None;
    }
    let timestamp = |i: u32| {
        let line = line(i).trim_ascii_end();
        let last = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
        // The backend gives a line without a timestamp the current time.
        std::str::from_utf8(last).ok().and_then(|t| t.parse().ok()).unwrap_or(i64::MAX)
    };
    let mut by_age: Vec<(i64, u32)> = piece.iter().map(|&i| (timestamp(i), i)).collect();
    by_age.sort_unstable();
    let mut picked: Vec<u32> = by_age[..n].iter().map(|&(_, i)| i).collect();
    picked.sort_unstable();
    Some(picked)
}

struct Conflict<'a> {
    field: &'a str,
    measurement: &'a str,
    kind: &'a str,
}

impl<'a> Conflict<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.split_once("field type conflict: input field \"")?.1;
        let (field, rest) = text.split_once("\" on measurement \"")?;
        let (measurement, rest) = rest.rsplit_once("\" is type ")?;
        Some(Self { field, measurement, kind: rest.split(',').next()? })
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

/// Whether the line's measurement equals `measurement` once the backslashes before separators are removed.
fn is_of(line: &[u8], measurement: &str) -> bool {
    let line = line.trim_ascii_start();
    let mut at = 0;
    for &want in measurement.as_bytes() {
        if line.get(at) == Some(&b'\\') && line.get(at + 1) == Some(&want) && matches!(want, b',' | b' ' | b'=') {
            at += 1;
        }
        if line.get(at) != Some(&want) {
            return false;
        }
        at += 1;
    }
    matches!(line.get(at), Some(b',' | b' '))
}

/// Whether the line seems to have `field=` with a value of type `kind` (float, integer, unsigned, string, boolean).
fn has_field(line: &[u8], field: &str, kind: &str) -> bool {
    let of_kind = |value: &[u8]| {
        let end = value.iter().position(|b| matches!(b, b',' | b' ')).unwrap_or(value.len());
        let got = match (value.first(), value[..end].last()) {
            (Some(b'"'), _) => "string",
            (Some(b't' | b'T' | b'f' | b'F'), _) => "boolean",
            (_, Some(b'i')) => "integer",
            (_, Some(b'u')) => "unsigned",
            _ => "float",
        };
        got == kind
    };
    memmem::find_iter(line, field.as_bytes()).any(|at| {
        at > 0
            && matches!(line[at - 1], b',' | b' ')
            && line[at + field.len()..].strip_prefix(b"=").is_some_and(|value| of_kind(value.trim_ascii_end()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::bisect_test::split;
    use super::super::verdict::reason;
    use super::*;
    use crate::golden::servers;

    fn guessed(text: &str, body: &str) -> Option<Vec<u32>> {
        let lines = split(body.as_bytes());
        let piece: Vec<u32> = (0..lines.len() as u32).collect();
        suspects(text, body.as_bytes(), &lines, &piece)
    }

    #[test]
    fn recorded_refusals_of_servers_give_their_hints() {
        for recorded in servers("refusal") {
            let text = recorded["text"].as_str().unwrap();
            let lines =
                recorded["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned() + "\n");
            let suspects: Option<Vec<u32>> = serde_json::from_value(recorded["suspects"].clone()).unwrap();
            assert_eq!(guessed(text, &lines.collect::<String>()), suspects, "{text}");
            assert_eq!(reason(text), recorded["reason"], "{text}");
            assert_eq!(is_series_limit(text), recorded["whole_series"], "{text}");
            assert_eq!(is_type_conflict(text), recorded["reason"] == "field type conflict", "{text}");
            let count = text.rsplit_once("dropped=").map(|(_, count)| count.parse().unwrap());
            assert_eq!(dropped(text), count, "{text}");
        }
    }

    #[test]
    fn a_type_conflict_points_at_the_field_of_that_type() {
        let text = "partial write: field type conflict: input field \"f\" on measurement \"m\" is type integer, \
                    already exists as type float dropped=2";
        assert_eq!(guessed(text, "m f=1 1\nm f=1i 1\nm,t=f g=2i,f=3i\nmm f=1i\nn f=1i\n"), Some(vec![1, 2]));
        assert_eq!(guessed(text, "m f=1 1\nm f=1 2\nn f=1\n"), Some(vec![0, 1]), "else the measurement");
        assert_eq!(guessed(text, "m f=1i 1\nm f=2i 2\n"), None, "nothing to tell apart");
        let string = text.replace("integer", "string");
        assert_eq!(guessed(&string, "m f=\"a b\" 1\nm f=true\nm f=t\n"), Some(vec![0]));
        let odd = "field type conflict: input field \"f\" on measurement \"a \"b\", c\" is type boolean, \
                   already exists as type float";
        assert_eq!(guessed(odd, "a\\ \"b\"\\,\\ c f=T 1\nx f=t\n"), Some(vec![0]));
    }

    #[test]
    fn beyond_retention_points_at_the_oldest() {
        let text = "partial write: points beyond retention policy dropped=2";
        assert_eq!(guessed(text, "m v=1 50\nm v=1 7\nm v=1 60\nm v=1 -9\nm v=1\n"), Some(vec![1, 3]));
        assert_eq!(guessed("points beyond retention policy dropped=0", "m v=1 50\nm v=1 7\n"), None);
    }

    #[test]
    fn the_series_key_ends_at_the_first_space_that_is_not_escaped() {
        let of = |line: &str| String::from_utf8(series(line.as_bytes()).to_vec()).unwrap();
        assert_eq!(of("cpu,host=a v=1 1"), "cpu,host=a");
        assert_eq!(of(" c\\ pu,host=a\\ b v=\"x y\" 1"), "c\\ pu,host=a\\ b");
        assert_eq!(of("cpu"), "cpu");
        assert_eq!(of(""), "");
    }

    #[test]
    fn all_are_dropped_when_as_many_are_counted_as_were_sent() {
        let f = |text: &str, body: &str, want: bool| {
            let lines = split(body.as_bytes());
            let piece: Vec<u32> = (0..lines.len() as u32).collect();
            assert_eq!(all_dropped(text, body.as_bytes(), &lines, &piece), want, "{text} {body}");
        };
        f("partial write: x dropped=2", "m v=1\nm v=2\n", true);
        f("partial write: x dropped=1", "m v=1\nm v=2\n", false);
        f("partial write: x dropped=2", "m v=1\nm,time=1 v=2\n", false);
        f("unable to parse 'm': missing fields", "m v=1\n", false);
    }
}

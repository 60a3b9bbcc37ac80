//! Line protocol: writes points with the tags, fields, types and times of a backend's answer.
//!
//! Names are escaped as InfluxDB's own `models.Point` does: a backslash stands for itself unless a special character
//! follows, so backslashes are not doubled. A name or tag value that ends with a backslash cannot be written; InfluxDB
//! accepts none.
//!
//! Not here: reading rows, cutting lines into writes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use crate::influx::answer::{Row, Series, decoded};

/// Writes measurement and tags. Tags with an empty value are left out.
pub fn push_key<'a>(out: &mut Vec<u8>, measurement: &[u8], tags: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    escape(out, measurement, b", ");
    for (tag, value) in tags.into_iter().filter(|(_, value)| !value.is_empty()) {
        out.push(b',');
        escape(out, tag, b",= ");
        out.push(b'=');
        escape(out, value, b",= ");
    }
}

/// Writes the name of a field. A quote needs an escape only after a backslash, because InfluxDB would take the pair as
/// an escape. It does so only in names of fields.
pub fn push_field_name(out: &mut Vec<u8>, name: &[u8]) {
    escape(out, name, b",= \"");
}

/// Writes a string as a field value. Only `"` and `\` are escaped.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    push(out, format_args!("{value}i"));
}

/// Writes the shortest text that gives the same bits again. False for values that InfluxDB cannot store (NaN,
/// infinity).
pub fn push_float(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    }
    value.is_finite()
}

/// Writes the time and the end of a line.
pub fn push_time(out: &mut Vec<u8>, time_ns: i64) {
    push(out, format_args!(" {time_ns}\n"));
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes everything");
}

fn escape(out: &mut Vec<u8>, text: &[u8], special: &[u8]) {
    for &byte in text {
        if special.contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// How the rows of one series are written.
#[derive(Debug)]
pub struct Layout<'a> {
    measurement: &'a str,
    series: &'a Series,
    /// Names of tags whose values are the last columns.
    tags: &'a [String],
    /// Measurement and tags, as far as all rows have the same.
    key: Vec<u8>,
    time: Option<usize>,
    /// By column; None = not a field.
    fields: Vec<Option<Vec<u8>>>,
}

impl<'a> Layout<'a> {
    /// The layout for the rows of `series`, as points of `measurement`. The last columns are values of `tags`.
    pub fn of(measurement: &'a str, series: &'a Series, tags: &'a [String]) -> Self {
        let mut key = Vec::new();
        let of_all = series.tags.iter().map(|(tag, value)| (tag.as_bytes(), value.as_bytes()));
        push_key(&mut key, measurement.as_bytes(), of_all);
        let columns = &series.columns[..series.columns.len().saturating_sub(tags.len())];
        let field = |(at, name): (usize, &String)| {
            // Of two columns with the same name the last one counts.
            let last = columns.iter().rposition(|other| other == name) == Some(at);
            (last && name != "time").then(|| {
                let mut escaped = Vec::new();
                push_field_name(&mut escaped, name.as_bytes());
                escaped
            })
        };
        let fields = columns.iter().enumerate().map(field).collect();
        Self { measurement, series, tags, key, time: columns.iter().position(|name| name == "time"), fields }
    }

    /// Measurement and tags of a row.
    pub fn key(&self, row: &Row) -> Cow<'_, [u8]> {
        if self.tags.is_empty() {
            return Cow::Borrowed(&self.key);
        }
        let pair = |(tag, value): &'a (String, String)| (tag.as_bytes(), Cow::Borrowed(value.as_bytes()));
        let mut all: BTreeMap<&[u8], Cow<'_, [u8]>> = self.series.tags.iter().map(pair).collect();
        let values = row.values().skip(self.fields.len());
        // What is no string is a field of a subquery, which has the name of no tag.
        for (tag, value) in self.tags.iter().zip(values).filter(|(_, value)| value.starts_with('"')) {
            all.insert(tag.as_bytes(), decoded(value).into_owned().into_bytes().into());
        }
        let mut key = Vec::new();
        push_key(&mut key, self.measurement.as_bytes(), all.iter().map(|(tag, value)| (*tag, &value[..])));
        Cow::Owned(key)
    }

    /// Appends one line with this [`Layout::key`] to `out`. False, with nothing written, when the row is not a point.
    pub fn line(&self, key: &[u8], row: &Row, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        out.extend_from_slice(key);
        let mut separator = b' ';
        let mut time = None;
        for (at, value) in row.values().enumerate() {
            if Some(at) == self.time {
                time = Some(value);
            }
            let Some(Some(name)) = self.fields.get(at) else { continue };
            if value == "null" {
                continue;
            }
            out.push(separator);
            separator = b',';
            out.extend_from_slice(name);
            out.push(b'=');
            if !push_value(value, out) {
                out.truncate(begin);
                return false;
            }
        }
        let Some(time) = time.filter(|_| separator == b',') else {
            out.truncate(begin);
            return false;
        };
        out.push(b' ');
        out.extend_from_slice(time.as_bytes());
        out.push(b'\n');
        true
    }
}

/// Writes a JSON text as a field value. False for values that InfluxDB cannot store.
fn push_value(value: &str, out: &mut Vec<u8>) -> bool {
    match value.as_bytes() {
        [b'"', ..] => {
            let Ok(text) = serde_json::from_str::<String>(value) else { return false };
            push_string(out, text.as_bytes());
        }
        b"true" | b"false" => out.extend_from_slice(value.as_bytes()),
        // NaN or infinity.
        bytes if bytes.iter().any(|byte| matches!(byte, b'N' | b'n')) => return false,
        bytes => {
            out.extend_from_slice(bytes);
            if !bytes.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                out.push(b'i');
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(measurement: &str, tags: &[(&str, &str)], columns: &[&str], rows: &[&[&str]]) -> (String, usize) {
        let series = Series {
            name: "m".to_owned(),
            tags: tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
            rows: rows.iter().map(|row| Row::of(row.iter().copied())).collect(),
            partial: false,
            ..Series::default()
        };
        let layout = Layout::of(measurement, &series, &[]);
        let mut out = Vec::new();
        let count = series.rows.iter().filter(|row| layout.line(&layout.key(row), row, &mut out)).count();
        (String::from_utf8(out).unwrap(), count)
    }

    #[test]
    fn a_row_becomes_a_line_with_its_types() {
        let columns = ["time", "f", "i", "s", "b"];
        let row: &[&str] = &["1700", "1.0", "-9223372036854775808", r#""a \"b\" \\ \u003c""#, "true"];
        let (text, count) = lines("m", &[], &columns, &[row]);
        assert_eq!(text, "m f=1.0,i=-9223372036854775808i,s=\"a \\\"b\\\" \\\\ <\",b=true 1700\n");
        assert_eq!(count, 1);
    }

    #[test]
    fn nulls_are_left_out_and_a_row_of_nulls_is_not_a_point() {
        let rows: &[&[&str]] = &[&["1", "null", "2.5"], &["2", "null", "null"], &["3", "1e+21", "null"]];
        let (text, count) = lines("m", &[], &["time", "a", "b"], rows);
        assert_eq!((text.as_str(), count), ("m b=2.5 1\nm a=1e+21 3\n", 2));
        assert_eq!(lines("m", &[], &["time", "a"], &[&["1", "NaN"], &["2", "-inf"]]).1, 0);
    }

    #[test]
    fn names_are_escaped_and_empty_tags_left_out() {
        let tags = [("a b", "x=y"), ("empty", ""), ("z", "é,")];
        let (text, _) = lines("cpu load,1", &tags, &["time", "f,=g h\""], &[&["1", "1"]]);
        assert_eq!(text, "cpu\\ load\\,1,a\\ b=x\\=y,z=é\\, f\\,\\=g\\ h\\\"=1i 1\n");
    }

    #[test]
    fn last_columns_may_be_tags_of_their_row() {
        let series = Series {
            tags: vec![("dc".to_owned(), "x".to_owned())],
            columns: ["time", "top", "1", "2"].map(str::to_owned).into(),
            rows: vec![Row::of(["1", "2", r#""a\u003cb""#, "null"])],
            ..Series::default()
        };
        let tags = ["a".to_owned(), "none".to_owned()];
        let layout = Layout::of("m", &series, &tags);
        let mut out = Vec::new();
        assert!(layout.line(&layout.key(&series.rows[0]), &series.rows[0], &mut out));
        assert_eq!(out, b"m,a=a<b,dc=x top=2i 1\n");
    }

    #[test]
    fn of_two_columns_of_one_name_the_last_counts() {
        assert_eq!(lines("m", &[], &["time", "a", "a"], &[&["1", "1", "2"]]).0, "m a=2i 1\n");
    }
}

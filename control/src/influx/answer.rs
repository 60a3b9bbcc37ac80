//! The answer to a statement, for queries, migrations and the catalog.
//!
//! Values stay the JSON text that a backend sent: integers beyond 2^53, floats as Go prints them and escapes pass
//! through unchanged. Names, tags and columns are decoded, since merging compares them.

use std::borrow::Cow;

use bytes::Bytes;

/// The answer to one statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub series: Vec<Series>,
    pub messages: Vec<Message>,
    /// The statement's error; InfluxDB sends it inside a 200.
    pub error: Option<String>,
}

impl Answer {
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }

    /// The memory that it takes. `with_texts`: the texts of rows are its own, no slices of a body that counts anyway.
    pub fn memory_bytes(&self, with_texts: bool) -> usize {
        let text = |text: &String| size_of::<String>() + text.len();
        let series = |series: &Series| {
            let tags: usize = series.tags.iter().map(|(key, value)| text(key) + text(value)).sum();
            let columns: usize = series.columns.iter().map(text).sum();
            let texts = if with_texts { series.rows.iter().map(|row| row.0.len()).sum() } else { 0 };
            size_of::<Series>() + series.name.len() + tags + columns + size_of::<Row>() * series.rows.len() + texts
        };
        self.series.iter().map(series).sum()
    }
}

/// A message that InfluxDB adds to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub level: String,
    pub text: String,
}

/// Rows of one measurement (and one combination of tags).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// Empty = a series without a name.
    pub name: String,
    /// Sorted by key, as backends send them; empty = none.
    pub tags: Vec<(String, String)>,
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    /// More rows follow elsewhere, or (InfluxDB 1.6) there are more than 10,000.
    pub partial: bool,
    /// Some value is `NaN`, `+Inf` or `-Inf`, which JSON cannot hold; floats are as in JSON all the same.
    pub beyond_json: bool,
}

impl Series {
    /// The strings of a column, decoded, in order. Other values are left out.
    pub fn strings(&self, column: usize) -> impl Iterator<Item = String> {
        self.rows.iter().filter_map(move |row| row.string(column))
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }
}

/// One row: the JSON text of an array of scalars, without line ends. A number with `.`, `e` or `E` is a float, any
/// other an integer; rows made from msgpack follow this too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(pub Bytes);

impl Row {
    /// A row of these JSON texts.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut text = String::from("[");
        for value in values {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(value);
        }
        text.push(']');
        Self(Bytes::from(text))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).expect("rows are cut from JSON text, which is UTF-8")
    }

    /// The JSON text of each value.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let text = self.text();
        let mut rest = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or_default();
        std::iter::from_fn(move || {
            rest = rest.trim_start_matches([',', ' ']);
            let end = value_end(rest);
            let (value, tail) = rest.split_at(end);
            rest = tail;
            (end > 0).then(|| value.trim_end())
        })
    }

    /// The value at `column`; None beyond the end.
    pub fn value(&self, column: usize) -> Option<&str> {
        self.values().nth(column)
    }

    /// The string at `column`, decoded; None if it is another value.
    pub fn string(&self, column: usize) -> Option<String> {
        serde_json::from_str(self.value(column)?).ok()
    }
}

/// The string of a JSON text in quotes, borrowed unless it has escapes. Other values stay unchanged.
pub fn decoded(value: &str) -> Cow<'_, str> {
    match value.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Cow::Borrowed(plain),
        _ => serde_json::from_str(value).map_or(Cow::Borrowed(value), Cow::Owned),
    }
}

/// The end of the scalar at the front.
fn value_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'"') {
        return bytes.iter().position(|&b| b == b',').unwrap_or(bytes.len());
    }
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_its_values_as_they_were_written() {
        let row = Row(Bytes::from_static(br#"["a,\"]b\\",-1e+21,null,9223372036854775807,true,""]"#));
        let values: Vec<_> = row.values().collect();
        assert_eq!(values, [r#""a,\"]b\\""#, "-1e+21", "null", "9223372036854775807", "true", r#""""#]);
        assert_eq!(Row::of(values.iter().copied()), row);
        assert_eq!(row.string(0).as_deref(), Some(r#"a,"]b\"#));
        assert_eq!(Row(Bytes::from_static(b"[]")).values().count(), 0);
    }
}

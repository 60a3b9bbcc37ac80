//! The messages of Prometheus' remote read, as far as a proxy looks into them: what a request is about, and the series
//! of an answer.
//!
//! Not here: which backends are asked (`query`), how answers of several become one (control).

use super::wire::{Reader, WireError, push_message, push_number};
use super::{Label, NAME_LABEL, read_label};

/// The types of a matcher. InfluxDB matches a regular expression anywhere, Prometheus the whole value.
const EQUAL: i32 = 0;
const NOT_REGEX: i32 = 3;

/// The text of InfluxDB's answer 500 when it has failed over a request: InfluxDB 1.6 does so for a matcher that its
/// storage does not expect. All servers with such data answer so.
pub const PANICKED: &str = "Internal Server Error";

/// What a read request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest<'a> {
    /// Its only query, as the bytes of its message.
    query: &'a [u8],
    /// The one measurement that the answer can be about; None: any number of them.
    pub measurement: Option<&'a [u8]>,
}

impl<'a> ReadRequest<'a> {
    /// Reads an uncompressed request.
    ///
    /// # Errors
    /// InfluxDB's text for a request that it does not answer, whatever its data is.
    pub fn parse(message: &'a [u8]) -> Result<Self, String> {
        let mut queries = Vec::new();
        let mut reader = Reader::new(message);
        let error = |error: WireError| error.to_string();
        while let Some(tag) = reader.tag("ReadRequest").map_err(error)? {
            match tag.number {
                1 => {
                    let query = reader.bytes(tag, "Queries").map_err(error)?;
                    queries.push((query, read_matchers(query).map_err(error)?));
                }
                _ => reader.skip(tag).map_err(error)?,
            }
        }
        let [(query, matchers)] = &queries[..] else {
            return Err("Prometheus read endpoint currently only supports one query at a time".into());
        };
        if matchers.is_empty() {
            return Err("expected matcher".into());
        }
        if let Some(unknown) = matchers.iter().find(|matcher| !(EQUAL..=NOT_REGEX).contains(&matcher.kind)) {
            return Err(format!("unknown match type {}", unknown.kind));
        }
        let names = |matcher: &&Matcher<'_>| matcher.kind == EQUAL && matcher.label.name == NAME_LABEL;
        let measurement = matchers.iter().find(names).map(|matcher| matcher.label.value);
        Ok(Self { query, measurement })
    }

    /// The same request without what is in these measurements.
    pub fn without<'b>(&self, measurements: impl IntoIterator<Item = &'b str>) -> Vec<u8> {
        let names: Vec<_> = measurements.into_iter().map(literal).collect();
        let mut query = self.query.to_vec();
        if !names.is_empty() {
            let mut matcher = Vec::new();
            push_number(&mut matcher, 1, NOT_REGEX as u64);
            push_message(&mut matcher, 2, NAME_LABEL);
            push_message(&mut matcher, 3, format!("^(?:{})$", names.join("|")).as_bytes());
            push_message(&mut query, 3, &matcher);
        }
        let mut request = Vec::with_capacity(query.len() + 8);
        push_message(&mut request, 1, &query);
        request
    }
}

/// A regular expression, as Go reads it, that matches this name only.
fn literal(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\x{{{:x}}}", c as u32) };
    name.chars().map(letter).collect()
}

struct Matcher<'a> {
    kind: i32,
    label: Label<'a>,
}

fn read_matchers(query: &[u8]) -> Result<Vec<Matcher<'_>>, WireError> {
    let mut matchers = Vec::new();
    let mut reader = Reader::new(query);
    while let Some(tag) = reader.tag("Query")? {
        match tag.number {
            1 => _ = reader.integer(tag, "StartTimestampMs")?,
            2 => _ = reader.integer(tag, "EndTimestampMs")?,
            3 => matchers.push(read_matcher(reader.bytes(tag, "Matchers")?)?),
            _ => reader.skip(tag)?,
        }
    }
    Ok(matchers)
}

fn read_matcher(message: &[u8]) -> Result<Matcher<'_>, WireError> {
    let mut matcher = Matcher { kind: EQUAL, label: Label { name: b"", value: b"" } };
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag("LabelMatcher")? {
        match tag.number {
            1 => matcher.kind = reader.integer(tag, "Type")? as i32,
            2 => matcher.label.name = reader.bytes(tag, "Name")?,
            3 => matcher.label.value = reader.bytes(tag, "Value")?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(matcher)
}

/// A series of an answer, as the bytes of its message, and the measurement it belongs to. Only series that Prometheus
/// has written say which; another one stands where its backend had it, behind the last that did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredSeries<'a> {
    pub measurement: &'a [u8],
    pub message: &'a [u8],
}

/// The series of an uncompressed answer.
///
/// # Errors
/// It is no answer to a read request.
pub fn series(answer: &[u8]) -> Result<Vec<AnsweredSeries<'_>>, WireError> {
    let mut all = Vec::new();
    let mut measurement: &[u8] = b"";
    let mut reader = Reader::new(answer);
    while let Some(tag) = reader.tag("ReadResponse")? {
        if tag.number != 1 {
            reader.skip(tag)?;
            continue;
        }
        let mut result = Reader::new(reader.bytes(tag, "Results")?);
        while let Some(tag) = result.tag("QueryResult")? {
            if tag.number != 1 {
                result.skip(tag)?;
                continue;
            }
            let message = result.bytes(tag, "Timeseries")?;
            measurement = measurement_of(message)?.unwrap_or(measurement);
            all.push(AnsweredSeries { measurement, message });
        }
    }
    Ok(all)
}

/// InfluxDB writes the labels first.
fn measurement_of(series: &[u8]) -> Result<Option<&[u8]>, WireError> {
    let mut reader = Reader::new(series);
    while let Some(tag) = reader.tag("TimeSeries")? {
        if tag.number != 1 {
            break;
        }
        let label = read_label(reader.bytes(tag, "Labels")?)?;
        if label.name == NAME_LABEL {
            return Ok(Some(label.value));
        }
    }
    Ok(None)
}

/// One answer of these series, uncompressed.
pub fn answer<'a>(series: impl IntoIterator<Item = AnsweredSeries<'a>>, bytes: usize) -> Vec<u8> {
    let mut result = Vec::with_capacity(bytes);
    series.into_iter().for_each(|series| push_message(&mut result, 1, series.message));
    let mut answer = Vec::with_capacity(result.len() + 16);
    push_message(&mut answer, 1, &result);
    answer
}

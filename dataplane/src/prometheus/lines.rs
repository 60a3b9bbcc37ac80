//! Series and samples as line protocol, mapped as InfluxDB 1.6.7 maps them.
//!
//! The measurement is the label `__name__`, which is a tag, too; the field is `value`; times are nanoseconds. Of labels
//! with one name the last one counts. NaN is left out: it is Prometheus' mark for a series that has ended.
//!
//! InfluxDB stores such points without a line of line protocol, so it takes some that no line can hold: see
//! [`SeriesKey::is_a_line`].

use std::fmt;

use super::wire::WireError;
use super::{Label, Labels, NAME_LABEL, Sample, read_series};
use crate::limits::{KEY_BYTES_MAX, PROMETHEUS_LABELS_MAX};
use crate::lineproto::{Item, Scanner};
use crate::precision::Precision;

/// The unit of the times in lines.
pub const PRECISION: Precision = Precision::Nanosecond;

const MEASUREMENT_WITHOUT_NAME: &[u8] = b"prom_metric_not_specified";
/// What InfluxDB counts of a point besides its key: four bytes, and the name of the field.
const KEY_REST: usize = 4 + "value".len();
/// Longest rest of a line behind its key: ` value=`, 24 digits and signs, a blank, 20, LF.
pub const LINE_REST_BYTES: usize = 7 + 24 + 1 + 20 + 1;

/// Why InfluxDB takes nothing of a request. The texts are InfluxDB's, but for the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    Time,
    Infinite,
    KeyTooLong { bytes: usize },
    TooManyLabels,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time => write!(f, "time outside range {TIME_MIN} - {TIME_MAX}"),
            Self::Infinite => f.write_str("+/-Inf is an unsupported value for field value"),
            Self::KeyTooLong { bytes } => write!(f, "max key length exceeded: {bytes} > {KEY_BYTES_MAX}"),
            Self::TooManyLabels => write!(f, "a series has more than {PROMETHEUS_LABELS_MAX} labels"),
        }
    }
}

/// The times that InfluxDB can store.
const TIME_MIN: i64 = i64::MIN + 2;
const TIME_MAX: i64 = i64::MAX - 1;

/// The time of a sample in nanoseconds. One that does not fit wraps around, as in InfluxDB.
fn time_ns(sample: Sample) -> i64 {
    sample.time_ms.wrapping_mul(1_000_000)
}

fn judge(sample: Sample) -> Result<(), Unsupported> {
    if !(TIME_MIN..=TIME_MAX).contains(&time_ns(sample)) {
        Err(Unsupported::Time)
    } else if sample.value.is_infinite() {
        Err(Unsupported::Infinite)
    } else {
        Ok(())
    }
}

/// Whether a sample becomes a point.
pub fn is_point(sample: &Sample) -> bool {
    !sample.value.is_nan()
}

/// What a request needs, and whether InfluxDB would take it.
#[derive(Debug, Default)]
pub struct Survey {
    /// At least the bytes of all lines.
    pub lines_bytes: u64,
    /// The first point that InfluxDB refuses; then it takes none.
    pub unsupported: Option<Unsupported>,
}

impl Survey {
    /// Adds one series. `labels` and `key` are memory that is used again.
    ///
    /// # Errors
    /// The series is no message of this kind.
    pub fn add<'a>(&mut self, series: &'a [u8], labels: &mut Labels<'a>, key: &mut SeriesKey) -> Result<(), WireError> {
        let mut points = 0_u64;
        // A key that is too long is found with the first point.
        let mut verdicts = (Ok(()), Ok(()));
        read_series(series, labels, |sample| {
            if !is_point(&sample) {
                return;
            }
            points += 1;
            if points == 1 {
                verdicts.0 = judge(sample);
            } else if verdicts.1.is_ok() {
                verdicts.1 = judge(sample);
            }
        })?;
        if self.unsupported.is_some() || points == 0 {
            return Ok(());
        }
        self.unsupported = verdicts.0.and_then(|()| key.set(labels)).and(verdicts.1).err();
        self.lines_bytes += points * (key.bytes.len() + LINE_REST_BYTES) as u64;
        Ok(())
    }
}

/// Measurement and tags of a series as they stand in a line.
#[derive(Debug, Default)]
pub struct SeriesKey {
    bytes: Vec<u8>,
    measurement_end: usize,
}

impl SeriesKey {
    /// Makes the key of a series.
    ///
    /// # Errors
    /// InfluxDB does not take such a key.
    pub fn set(&mut self, labels: &mut Labels<'_>) -> Result<(), Unsupported> {
        self.bytes.clear();
        if labels.too_many {
            return Err(Unsupported::TooManyLabels);
        }
        sort(&mut labels.list);
        let name = labels.list.iter().find(|label| label.name == NAME_LABEL).map(|label| label.value);
        self.push_measurement(name.unwrap_or(MEASUREMENT_WITHOUT_NAME));
        for label in labels.list.iter().filter(|label| !label.value.is_empty()) {
            self.bytes.push(b',');
            self.push_escaped(label.name);
            self.bytes.push(b'=');
            self.push_escaped(label.value);
        }
        match self.bytes.len() + KEY_REST {
            ..=KEY_BYTES_MAX => Ok(()),
            bytes => Err(Unsupported::KeyTooLong { bytes }),
        }
    }

    /// A comma or a blank that has a backslash already gets no other.
    fn push_measurement(&mut self, name: &[u8]) {
        let mut before = 0;
        for &byte in name {
            if matches!(byte, b',' | b' ') && before != b'\\' {
                self.bytes.push(b'\\');
            }
            self.bytes.push(byte);
            before = byte;
        }
        self.measurement_end = self.bytes.len();
    }

    fn push_escaped(&mut self, text: &[u8]) {
        for &byte in text {
            if matches!(byte, b',' | b' ' | b'=') {
                self.bytes.push(b'\\');
            }
            self.bytes.push(byte);
        }
    }

    /// Whether a line with this key is read as what it was made of: not with a line end in a name or value, with a
    /// backslash at the end of a value, or with a name that is empty or makes the line a comment.
    ///
    /// # Errors
    /// The reason why not.
    pub fn is_a_line(&mut self) -> Result<(), String> {
        if memchr::memchr(b'\n', &self.bytes).is_some() {
            return Err("line protocol cannot hold a line end in a label".into());
        }
        let key_len = self.bytes.len();
        self.bytes.extend_from_slice(b" value=0 0");
        let mut found =
            Err(String::from("line protocol cannot hold these names, or a label that ends with a backslash"));
        Scanner::new(PRECISION).scan(&self.bytes, true, |item| match item {
            Item::Line(line) => {
                let same = (line.start, line.end as usize) == (0, self.bytes.len())
                    && line.measurement_end as usize == self.measurement_end
                    && line.fields_end as usize == key_len + " value=0".len();
                if same {
                    found = Ok(());
                }
            }
            Item::Refused(refused) => {
                // InfluxDB's own reasons are about the line, which the client did not write.
                if refused.reason.is_ours() {
                    let mut reason = Vec::new();
                    refused.reason.describe(&self.bytes, &mut reason);
                    found = Err(String::from_utf8_lossy(&reason).into_owned());
                }
            }
        });
        self.bytes.truncate(key_len);
        found
    }

    /// Appends the line of one point.
    pub fn push_line(&self, sample: Sample, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        let (value, time) = (sample.value, time_ns(sample));
        out.extend_from_slice(format!(" value={value:?} {time}\n").as_bytes());
    }

    /// The key for an error text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Sorts by name and keeps the last label of each name.
fn sort(labels: &mut Vec<Label<'_>>) {
    if labels.is_sorted_by(|a, b| a.name < b.name) {
        return;
    }
    labels.reverse();
    labels.sort_by_key(|label| label.name);
    labels.dedup_by_key(|label| label.name);
}

//! Writes the rows of a slice to the target: as lines, in bounded batches, within the rate limit, with retries. It
//! writes all values, or only the missing ones.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::progress::Progress;
use super::rows::PointSink;
use super::side::{CopySide, SliceWindow};
use super::steering::{CallLost, Halt, Steering};
use super::verify::{MissingValues, PointKeys};
use crate::influx::client::CallFailure;
use crate::influx::line;
use crate::influx::wire::msgpack::MsgpackValue;
use crate::limits;

/// A sink that writes points to the target.
#[derive(Debug)]
pub struct Pour<'a> {
    target: &'a CopySide,
    window: &'a SliceWindow<'a>,
    steering: &'a Steering,
    progress: &'a Progress,
    retry_for: Duration,
    /// None = all values.
    only: Option<&'a MissingValues>,
    keys: PointKeys,
    /// Measurement and tags of the current series, as in a line.
    key: Vec<u8>,
    fields: Vec<Vec<u8>>,
    lines: Vec<u8>,
    /// Points in `lines`.
    points: u64,
    /// Points that the target refused, and its first reason.
    pub refused: Option<(u64, String)>,
}

/// Why writing ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PourEnd {
    Halt(Halt),
    /// The target does not take writes.
    Gone(String),
    /// A value that InfluxDB cannot have.
    NoPoint,
}

impl From<Halt> for PourEnd {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

impl<'a> Pour<'a> {
    pub fn new(
        target: &'a CopySide,
        window: &'a SliceWindow<'a>,
        steering: &'a Steering,
        progress: &'a Progress,
        retry_for: Duration,
        only: Option<&'a MissingValues>,
    ) -> Self {
        Self {
            target,
            window,
            steering,
            progress,
            retry_for,
            only,
            keys: PointKeys::default(),
            key: Vec::new(),
            fields: Vec::new(),
            lines: Vec::new(),
            points: 0,
            refused: None,
        }
    }

    /// Writes the remaining lines.
    pub fn flush(&mut self) -> Result<(), PourEnd> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.steering.admit(self.lines.len())?;
        let points = std::mem::take(&mut self.points);
        let Self { target, window, lines, .. } = &*self;
        let write = || target.client.write(window.db, window.rp, lines, limits::MIGRATION_WRITE_TIMEOUT);
        match self.steering.retry(self.retry_for, self.progress, write) {
            Ok(()) => {
                self.progress.points.fetch_add(points, Relaxed);
                self.progress.bytes.fetch_add(self.lines.len() as u64, Relaxed);
            }
            Err(CallLost::Cancelled) => return Err(PourEnd::Halt(Halt::Cancelled)),
            Err(CallLost::Gone(why)) => return Err(PourEnd::Gone(why)),
            Err(CallLost::Refused(failure @ CallFailure::Status(400 | 413, _))) => self.note_refused(points, &failure),
            // Wrong user, missing database: other batches would fail too.
            Err(CallLost::Refused(failure)) => return Err(PourEnd::Gone(failure.to_string())),
        }
        self.lines.clear();
        Ok(())
    }

    /// The target may have taken other points of the batch. The copy goes on; verification finds what is missing.
    fn note_refused(&mut self, points: u64, failure: &CallFailure) {
        let text = failure.to_string();
        // These points expired between reading and writing; points that still live are verified.
        if text.contains("points beyond retention policy") && matches!(failure, CallFailure::Status(400, _)) {
            self.progress.points.fetch_add(points.saturating_sub(dropped(&text).unwrap_or(points)), Relaxed);
            return;
        }
        let refused = match failure {
            CallFailure::Status(400, text) if text.contains("partial write") => {
                dropped(text).filter(|&dropped| dropped > 0).unwrap_or(1).min(points)
            }
            _ => points,
        };
        self.progress.points.fetch_add(points - refused, Relaxed);
        self.progress.points_refused.fetch_add(refused, Relaxed);
        self.refused.get_or_insert((0, text)).0 += refused;
    }
}

/// The number of dropped points in the text of a partial write.
fn dropped(text: &str) -> Option<u64> {
    let digits = text.rsplit_once("dropped=")?.1;
    digits[..digits.bytes().take_while(u8::is_ascii_digit).count()].parse().ok()
}

impl PointSink for Pour<'_> {
    type Error = PourEnd;

    fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]) {
        if self.only.is_some() {
            self.keys.series(tags, fields);
        }
        self.key.clear();
        line::push_key(&mut self.key, self.window.measurement.as_bytes(), tags.iter().copied());
        self.fields.clear();
        self.fields.extend(fields.iter().map(|field| {
            let mut name = Vec::with_capacity(field.len() + 1);
            line::push_field_name(&mut name, field);
            name.push(b'=');
            name
        }));
    }

    fn row(&mut self, time_ns: i64, values: &[MsgpackValue<'_>]) -> Result<(), PourEnd> {
        let begin = self.lines.len();
        self.lines.extend_from_slice(&self.key);
        let mut separator = b' ';
        for (at, (field, value)) in self.fields.iter().zip(values).enumerate() {
            if matches!(value, MsgpackValue::Nil)
                || self.only.is_some_and(|only| !only.has(self.keys.key(at, time_ns, value)))
            {
                continue;
            }
            self.lines.push(separator);
            separator = b',';
            self.lines.extend_from_slice(field);
            let is_value = match *value {
                MsgpackValue::Float(value) => line::push_float(&mut self.lines, value),
                MsgpackValue::Int(value) => {
                    line::push_integer(&mut self.lines, value);
                    true
                }
                MsgpackValue::Unsigned(value) => {
                    self.lines.extend_from_slice(format!("{value}u").as_bytes());
                    true
                }
                MsgpackValue::Bool(value) => {
                    self.lines.extend_from_slice(if value { b"true" } else { b"false" });
                    true
                }
                MsgpackValue::String(text) => {
                    line::push_string(&mut self.lines, text);
                    true
                }
                MsgpackValue::Nil | MsgpackValue::Array(_) | MsgpackValue::Map(_) | MsgpackValue::Extension(..) => {
                    false
                }
            };
            if !is_value {
                return Err(PourEnd::NoPoint);
            }
        }
        if separator == b' ' {
            self.lines.truncate(begin);
            return if self.only.is_some() { Ok(()) } else { Err(PourEnd::NoPoint) };
        }
        line::push_time(&mut self.lines, time_ns);
        self.points += 1;
        if self.points as usize >= limits::MIGRATION_WRITE_LINES || self.lines.len() >= limits::MIGRATION_WRITE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn document(&mut self, bytes: usize) {
        self.progress.held_bytes_max.fetch_max((bytes + self.lines.capacity()) as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_dropped_points_is_read() {
        for (text, want) in [
            ("partial write: field type conflict: dropped=12", Some(12)),
            ("partial write: points beyond retention policy dropped=3 ", Some(3)),
            ("unable to parse", None),
            ("dropped=", None),
        ] {
            assert_eq!(dropped(text), want, "{text}");
        }
    }
}

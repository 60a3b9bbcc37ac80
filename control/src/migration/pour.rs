//! Writes the rows of a slice to the target: as lines, in bounded batches, within the rate limit, with retries. It
//! writes all values, or only the missing ones.
//!
//! One thread reads rows and makes lines of them, another one writes what is made: the source reads while the target
//! writes.

use std::panic::resume_unwind;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use super::progress::Progress;
use super::rows::{self, PointSink, ReadError};
use super::side::{CopySide, SliceWindow};
use super::steering::{CallLost, Halt, Steering};
use super::verify::{MissingValues, PointKeys};
use crate::influx::client::CallFailure;
use crate::influx::line;
use crate::influx::wire::msgpack::MsgpackValue;
use crate::limits;

/// What is written, and how.
#[derive(Debug, Clone, Copy)]
pub struct Pour<'a> {
    pub source: &'a CopySide,
    pub target: &'a CopySide,
    pub window: &'a SliceWindow<'a>,
    pub piece_rows: usize,
    /// Values that are read.
    pub values_max: u64,
    /// None = all values.
    pub only: Option<&'a MissingValues>,
    pub retry_for: Duration,
    pub steering: &'a Steering,
    pub progress: &'a Progress,
}

/// Why some rows may not be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PourEnd {
    Halt(Halt),
    /// The target does not take writes.
    Gone(String),
    /// The target has refused so many points; its first reason.
    Refused(u64, String),
    /// The source has a value that InfluxDB cannot have.
    NoPoint,
    /// The source has more values than `values_max`.
    TooMany,
    /// The source refuses the statement.
    SourceRefuses(String),
    /// The source's answer was cut or malformed.
    Cut(String),
}

impl Pour<'_> {
    /// Reads all rows and writes them. Returns the number of values that were read.
    ///
    /// # Errors
    /// Some rows may be written.
    pub fn run(&self) -> Result<u64, PourEnd> {
        let (full, to_write) = bounded(limits::MIGRATION_WRITES_AHEAD);
        let mut writer = Writer { pour: *self, refused: None };
        let (read, written) = thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut lines = LineMaker::new(self, full);
                let read = rows::read(self.source, self.window, self.piece_rows, &self.steering.cancelled, &mut lines);
                read.and_then(|()| lines.pass_on().map_err(ReadError::Sink)).map(|()| lines.values)
            });
            // The receiver is dropped at the end: a reader that waits for room ends, too.
            let written = writer.write_all(to_write);
            (reader.join().unwrap_or_else(|panic| resume_unwind(panic)), written)
        });
        written?;
        match read {
            Ok(values) => writer.refused.map_or(Ok(values), |(points, why)| Err(PourEnd::Refused(points, why))),
            Err(ReadError::Sink(end)) => Err(end),
            Err(ReadError::Cancelled) => Err(PourEnd::Halt(Halt::Cancelled)),
            Err(ReadError::Refused(why)) => Err(PourEnd::SourceRefuses(why)),
            Err(ReadError::Cut(why)) => Err(PourEnd::Cut(why)),
        }
    }
}

/// Lines of one write.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    points: u64,
}

struct Writer<'a> {
    pour: Pour<'a>,
    /// Points that the target refused, and its first reason.
    refused: Option<(u64, String)>,
}

impl Writer<'_> {
    fn write_all(&mut self, batches: Receiver<Batch>) -> Result<(), PourEnd> {
        batches.into_iter().try_for_each(|batch| self.write(&batch))
    }

    fn write(&mut self, Batch { lines, points }: &Batch) -> Result<(), PourEnd> {
        let Pour { target, window, steering, progress, retry_for, .. } = self.pour;
        steering.admit(lines.len()).map_err(PourEnd::Halt)?;
        let write = || target.client.write(window.db, window.rp, lines, limits::MIGRATION_WRITE_TIMEOUT);
        match steering.retry(retry_for, progress, write) {
            Ok(()) => {
                progress.points.fetch_add(*points, Relaxed);
                progress.bytes.fetch_add(lines.len() as u64, Relaxed);
            }
            Err(CallLost::Cancelled) => return Err(PourEnd::Halt(Halt::Cancelled)),
            Err(CallLost::Gone(why)) => return Err(PourEnd::Gone(why)),
            Err(CallLost::Refused(failure @ CallFailure::Status(400 | 413, _))) => self.note_refused(*points, &failure),
            // Wrong user, missing database: other batches would fail too.
            Err(CallLost::Refused(failure)) => return Err(PourEnd::Gone(failure.to_string())),
        }
        Ok(())
    }

    /// The target may have taken other points of the batch. The copy goes on; verification finds what is missing.
    fn note_refused(&mut self, points: u64, failure: &CallFailure) {
        let progress = self.pour.progress;
        let text = failure.to_string();
        // These points expired between reading and writing; points that still live are verified.
        if text.contains("points beyond retention policy") && matches!(failure, CallFailure::Status(400, _)) {
            progress.points.fetch_add(points.saturating_sub(dropped(&text).unwrap_or(points)), Relaxed);
            return;
        }
        let refused = match failure {
            CallFailure::Status(400, text) if text.contains("partial write") => {
                dropped(text).filter(|&dropped| dropped > 0).unwrap_or(1).min(points)
            }
            _ => points,
        };
        progress.points.fetch_add(points - refused, Relaxed);
        progress.points_refused.fetch_add(refused, Relaxed);
        self.refused.get_or_insert((0, text)).0 += refused;
    }
}

/// The number of dropped points in the text of a partial write.
fn dropped(text: &str) -> Option<u64> {
    let digits = text.rsplit_once("dropped=")?.1;
    digits[..digits.bytes().take_while(u8::is_ascii_digit).count()].parse().ok()
}

/// A sink that makes lines of points.
struct LineMaker<'a> {
    window: &'a SliceWindow<'a>,
    values: u64,
    values_max: u64,
    progress: &'a Progress,
    only: Option<&'a MissingValues>,
    full: Sender<Batch>,
    keys: PointKeys,
    /// Measurement and tags of the current series, as in a line.
    key: Vec<u8>,
    fields: Vec<Vec<u8>>,
    batch: Batch,
}

impl<'a> LineMaker<'a> {
    fn new(pour: &Pour<'a>, full: Sender<Batch>) -> Self {
        Self {
            window: pour.window,
            values: 0,
            values_max: pour.values_max,
            progress: pour.progress,
            only: pour.only,
            full,
            keys: PointKeys::default(),
            key: Vec::new(),
            fields: Vec::new(),
            batch: Batch::default(),
        }
    }

    /// Has the lines written that are made.
    fn pass_on(&mut self) -> Result<(), PourEnd> {
        let batch = std::mem::take(&mut self.batch);
        // When nobody writes any more, the writer has said why.
        let nobody = |_| PourEnd::Halt(Halt::Cancelled);
        if batch.lines.is_empty() { Ok(()) } else { self.full.send(batch).map_err(nobody) }
    }
}

impl PointSink for LineMaker<'_> {
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
        let lines = &mut self.batch.lines;
        let begin = lines.len();
        lines.extend_from_slice(&self.key);
        let mut separator = b' ';
        for (at, (field, value)) in self.fields.iter().zip(values).enumerate() {
            if matches!(value, MsgpackValue::Nil) {
                continue;
            }
            self.values += 1;
            if self.only.is_some_and(|only| !only.has(self.keys.key(at, time_ns, value))) {
                continue;
            }
            lines.push(separator);
            separator = b',';
            lines.extend_from_slice(field);
            let is_value = match *value {
                MsgpackValue::Float(value) => line::push_float(lines, value),
                MsgpackValue::Int(value) => {
                    line::push_integer(lines, value);
                    true
                }
                MsgpackValue::Unsigned(value) => {
                    lines.extend_from_slice(format!("{value}u").as_bytes());
                    true
                }
                MsgpackValue::Bool(value) => {
                    lines.extend_from_slice(if value { b"true" } else { b"false" });
                    true
                }
                MsgpackValue::String(text) => {
                    line::push_string(lines, text);
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
            lines.truncate(begin);
            return if self.only.is_some() { Ok(()) } else { Err(PourEnd::NoPoint) };
        }
        line::push_time(lines, time_ns);
        self.batch.points += 1;
        if self.values > self.values_max {
            return Err(PourEnd::TooMany);
        }
        if self.batch.points as usize >= limits::MIGRATION_WRITE_LINES
            || self.batch.lines.len() >= limits::MIGRATION_WRITE_BYTES
        {
            self.pass_on()?;
        }
        Ok(())
    }

    fn document(&mut self, bytes: usize) {
        // This batch, those that wait, and the one that is being written.
        let lines = self.batch.lines.capacity() * (limits::MIGRATION_WRITES_AHEAD + 2);
        self.progress.held_bytes_max.fetch_max((bytes + lines) as u64, Relaxed);
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

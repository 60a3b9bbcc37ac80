//! Reads the points of a slice from the source in msgpack: integers in full range, floats bit for bit, strings and
//! names byte for byte, even where they are not UTF-8.
//!
//! A document has rows of one or more series. They go to a [`PointSink`]; nothing is kept.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::side::{CopySide, SliceWindow};
use crate::influx::budget::Interrupted;
use crate::influx::reader::Unread;
use crate::influx::wire::WireError;
use crate::influx::wire::msgpack::{MsgpackReader, MsgpackValue, Read, TIME_EXTENSION, nanoseconds};

/// Takes the points that are read.
pub trait PointSink {
    type Error;

    /// A series begins or continues: its tags (empty = none) and its fields. Each row has a value or nil for each
    /// field.
    fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]);

    fn row(&mut self, time_ns: i64, values: &[MsgpackValue<'_>]) -> Result<(), Self::Error>;

    /// A document has ended; `bytes` were held for it.
    fn document(&mut self, bytes: usize);
}

/// Why the read ended before the last point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError<E> {
    Cancelled,
    /// The source refuses the statement.
    Refused(String),
    /// The answer was cut or malformed. A retry may succeed.
    Cut(String),
    /// The sink stopped.
    Sink(E),
}

/// Passes all points of `window` to `sink`, in pieces of `piece_rows` rows.
pub fn read<S: PointSink>(
    side: &CopySide,
    window: &SliceWindow<'_>,
    piece_rows: usize,
    cancelled: &Arc<AtomicBool>,
    sink: &mut S,
) -> Result<(), ReadError<S::Error>> {
    let mut ended = None;
    let read = side.documents(window, piece_rows, cancelled, &mut |body| {
        let result = document(&body, sink);
        sink.document(body.len());
        Ok(match result {
            Ok(()) => Ok(()),
            Err(error) => {
                ended = Some(error);
                // Only ends the loop; the error itself is in `ended`.
                Err(String::new())
            }
        })
    });
    match (ended, read) {
        (Some(ReadError::Refused(why)), _) => Err(ReadError::Refused(side.client.shown(why))),
        (Some(ended), _) => Err(ended),
        (None, Ok(Ok(()))) => Ok(()),
        // A cancel also cuts the answer.
        (None, Ok(Err(_))) if cancelled.load(Relaxed) => Err(ReadError::Cancelled),
        (None, Ok(Err(Unread::Refused(error)))) => Err(ReadError::Refused(side.client.shown(error))),
        (None, Ok(Err(Unread::Cut(why)))) => Err(ReadError::Cut(why)),
        (None, Err(Interrupted::Cancelled | Interrupted::OverBudget { .. })) => Err(ReadError::Cancelled),
    }
}

impl<E> From<WireError> for ReadError<E> {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Malformed => Self::Cut(error.to_string()),
            WireError::Refused(text) => Self::Refused(text),
        }
    }
}

fn document<S: PointSink>(body: &[u8], sink: &mut S) -> Result<(), ReadError<S::Error>> {
    let mut reader = MsgpackReader::new(body);
    for _ in 0..reader.map()? {
        match reader.string()? {
            b"error" => return Err(ReadError::Refused(reader.text()?)),
            b"results" => {
                for _ in 0..reader.array()? {
                    statement(&mut reader, sink)?;
                }
            }
            _ => reader.skip(0)?,
        }
    }
    if reader.is_at_end() { Ok(()) } else { Err(WireError::Malformed.into()) }
}

fn statement<S: PointSink>(reader: &mut MsgpackReader<'_>, sink: &mut S) -> Result<(), ReadError<S::Error>> {
    for _ in 0..reader.map()? {
        match reader.string()? {
            b"error" => return Err(ReadError::Refused(reader.text()?)),
            b"series" => {
                for _ in 0..reader.array()? {
                    series(reader, sink)?;
                }
            }
            _ => reader.skip(0)?,
        }
    }
    Ok(())
}

fn series<'a, S: PointSink>(reader: &mut MsgpackReader<'a>, sink: &mut S) -> Result<(), ReadError<S::Error>> {
    let mut tags: Vec<(&[u8], &[u8])> = Vec::new();
    let mut columns: Vec<&[u8]> = Vec::new();
    let mut values: Vec<MsgpackValue<'a>> = Vec::new();
    for _ in 0..reader.map()? {
        match reader.string()? {
            b"tags" => {
                for _ in 0..reader.map()? {
                    tags.push((reader.string()?, reader.string()?));
                }
                // In msgpack tags come in any order.
                tags.sort_unstable();
            }
            b"columns" => columns = reader.list(MsgpackReader::string)?,
            b"values" => {
                // InfluxDB writes the columns before the values, with `time` first.
                let Some((&b"time", fields)) = columns.split_first() else { return Err(WireError::Malformed.into()) };
                sink.series(&tags, fields);
                for _ in 0..reader.array()? {
                    let len = reader.array()?;
                    if len != columns.len() {
                        return Err(WireError::Malformed.into());
                    }
                    let time_ns = time(reader)?;
                    values.clear();
                    for _ in 1..len {
                        values.push(reader.value()?);
                    }
                    sink.row(time_ns, &values).map_err(ReadError::Sink)?;
                }
            }
            _ => reader.skip(0)?,
        }
    }
    Ok(())
}

fn time(reader: &mut MsgpackReader<'_>) -> Read<i64> {
    match reader.value()? {
        MsgpackValue::Extension(TIME_EXTENSION, bytes) => nanoseconds(bytes),
        MsgpackValue::Int(time_ns) => Ok(time_ns),
        _ => Err(WireError::Malformed),
    }
}

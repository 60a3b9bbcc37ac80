//! The messages of Prometheus' remote write, and the points that InfluxDB 1.6.7 makes of them; and those of its remote
//! read (`read`).
//!
//! ```text
//! snappy block ─> wire (protobuf fields) ─> series: labels and samples ─> lines (keys, values, times)
//! ```
//!
//! Nothing is copied but keys: names and values are slices of the uncompressed request. Metadata, exemplars and native
//! histograms are passed over, as InfluxDB does.
//!
//! Not here: where points go, memory, answers (`write`).

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod lines;
#[cfg(any(test, feature = "fuzzing"))]
mod naive;
#[cfg(test)]
mod prometheus_test;
pub mod read;
pub mod wire;

use wire::{Reader, WireError};

use crate::limits::PROMETHEUS_LABELS_MAX;

const NAME_LABEL: &[u8] = b"__name__";

/// InfluxDB's text for bytes that are no snappy block.
pub const NOT_SNAPPY: &str = "snappy: corrupt input";

/// The number of bytes that a snappy block says it has when uncompressed. None: it is none.
pub fn uncompressed_len(block: &[u8]) -> Option<usize> {
    // Go wants at least the length; the library takes no bytes for an empty block.
    if block.is_empty() { None } else { snap::raw::decompress_len(block).ok() }
}

/// Uncompresses a block into `out`, which has the block's [`uncompressed_len`]. False: the block is damaged.
pub fn uncompress(block: &[u8], out: &mut [u8]) -> bool {
    snap::raw::Decoder::new().decompress(block, out) == Ok(out.len())
}

/// The most bytes of a block that holds `bytes`.
pub fn compressed_len_max(bytes: usize) -> usize {
    snap::raw::max_compress_len(bytes)
}

/// A snappy block that holds `bytes`. None: it would hold 4 GiB or more.
pub fn compress(bytes: &[u8]) -> Option<Vec<u8>> {
    snap::raw::Encoder::new().compress_vec(bytes).ok()
}

/// A name and a value, as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub value: f64,
    pub time_ms: i64,
}

/// The labels of one series, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Labels<'a> {
    pub list: Vec<Label<'a>>,
    /// There are more than [`PROMETHEUS_LABELS_MAX`], which are not in the list.
    pub too_many: bool,
}

/// The series of a write request one after the other, each as the bytes of its message. Ends with an error or when all
/// of the request has been read.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    reader: Reader<'a>,
}

impl<'a> WriteRequest<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { reader: Reader::new(message) }
    }

    /// The next series; None: there is no other.
    ///
    /// # Errors
    /// The request is no message of this kind.
    pub fn next_series(&mut self) -> Result<Option<&'a [u8]>, WireError> {
        while let Some(tag) = self.reader.tag("WriteRequest")? {
            match tag.number {
                1 => return self.reader.bytes(tag, "Timeseries").map(Some),
                _ => self.reader.skip(tag)?,
            }
        }
        Ok(None)
    }
}

/// Reads all of one series: its labels replace those in `labels`, its samples go to `sink`.
///
/// # Errors
/// The series is no message of this kind.
pub fn read_series<'a>(
    message: &'a [u8],
    labels: &mut Labels<'a>,
    mut sink: impl FnMut(Sample),
) -> Result<(), WireError> {
    labels.list.clear();
    labels.too_many = false;
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag("TimeSeries")? {
        match tag.number {
            1 => {
                let label = read_label(reader.bytes(tag, "Labels")?)?;
                labels.too_many |= labels.list.len() == PROMETHEUS_LABELS_MAX;
                if !labels.too_many {
                    labels.list.push(label);
                }
            }
            2 => sink(read_sample(reader.bytes(tag, "Samples")?)?),
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

/// The samples of a series that [`read_series`] has read without an error.
#[derive(Debug)]
pub struct Samples<'a> {
    reader: Reader<'a>,
}

impl<'a> Samples<'a> {
    pub fn new(series: &'a [u8]) -> Self {
        Self { reader: Reader::new(series) }
    }

    fn next_sample(&mut self) -> Result<Option<Sample>, WireError> {
        while let Some(tag) = self.reader.tag("TimeSeries")? {
            match tag.number {
                2 => return read_sample(self.reader.bytes(tag, "Samples")?).map(Some),
                _ => self.reader.skip(tag)?,
            }
        }
        Ok(None)
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        self.next_sample().expect("the series has been read before")
    }
}

fn read_label(message: &[u8]) -> Result<Label<'_>, WireError> {
    let mut label = Label { name: b"", value: b"" };
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag("LabelPair")? {
        match tag.number {
            1 => label.name = reader.bytes(tag, "Name")?,
            2 => label.value = reader.bytes(tag, "Value")?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(label)
}

fn read_sample(message: &[u8]) -> Result<Sample, WireError> {
    let mut sample = Sample { value: 0.0, time_ms: 0 };
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag("Sample")? {
        match tag.number {
            1 => sample.value = reader.double(tag, "Value")?,
            2 => sample.time_ms = reader.integer(tag, "TimestampMs")?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(sample)
}

//! The same in the simplest form, as InfluxDB's own code does it: everything is copied, nothing is fast. Tests and
//! fuzzing compare the other form with this one.

use std::collections::BTreeMap;

/// One point: its key as it stands in a line, value, and time in nanoseconds.
#[derive(Debug)]
pub struct NaivePoint {
    pub key: Vec<u8>,
    pub value: f64,
    pub time: i64,
}

#[derive(Default)]
struct NaiveSeries {
    labels: Vec<(Vec<u8>, Vec<u8>)>,
    samples: Vec<(f64, i64)>,
}

/// The points of a request.
///
/// # Errors
/// InfluxDB's text when it takes nothing of it.
pub fn points(message: &[u8]) -> Result<Vec<NaivePoint>, String> {
    let mut all = Vec::new();
    fields(message, "WriteRequest", &mut |number, value| {
        if number == 1 {
            all.push(series(value.bytes("Timeseries")?)?);
        }
        Ok(number == 1)
    })?;
    let mut points = Vec::new();
    for series in all {
        let mut tags = BTreeMap::new();
        let mut measurement = b"prom_metric_not_specified".to_vec();
        for (name, value) in series.labels {
            if name == b"__name__" {
                measurement.clone_from(&value);
            }
            tags.insert(name, value);
        }
        for (value, time_ms) in series.samples {
            if value.is_nan() {
                continue;
            }
            let time = time_ms.wrapping_mul(1_000_000);
            if [i64::MIN, i64::MIN + 1, i64::MAX].contains(&time) {
                return Err("time outside range -9223372036854775806 - 9223372036854775806".into());
            }
            if value.is_infinite() {
                return Err("+/-Inf is an unsupported value for field value".into());
            }
            let mut key = escaped(unescaped(measurement.clone()), b", ");
            for (name, value) in tags.iter().filter(|(_, value)| !value.is_empty()) {
                key = [&key[..], b",", &escaped(name.clone(), b",= "), b"=", &escaped(value.clone(), b",= ")].concat();
            }
            let bytes = key.len() + "#!~#value".len();
            if bytes > 65_535 {
                return Err(format!("max key length exceeded: {bytes} > 65535"));
            }
            points.push(NaivePoint { key, value, time });
        }
    }
    Ok(points)
}

/// As Go's `bytes.Replace`, one special byte after the other.
fn escaped(mut text: Vec<u8>, special: &[u8]) -> Vec<u8> {
    for &byte in special {
        text = text.iter().flat_map(|&b| if b == byte { vec![b'\\', b] } else { vec![b] }).collect();
    }
    text
}

fn unescaped(mut text: Vec<u8>) -> Vec<u8> {
    for byte in [b',', b' '] {
        let mut shorter = Vec::new();
        let mut at = 0;
        while at < text.len() {
            at += usize::from(text[at..].starts_with(&[b'\\', byte]));
            shorter.push(text[at]);
            at += 1;
        }
        text = shorter;
    }
    text
}

fn series(message: &[u8]) -> Result<NaiveSeries, String> {
    let mut series = NaiveSeries::default();
    fields(message, "TimeSeries", &mut |number, value| {
        match number {
            1 => {
                let mut label = (Vec::new(), Vec::new());
                fields(value.bytes("Labels")?, "LabelPair", &mut |number, value| {
                    match number {
                        1 => label.0 = value.bytes("Name")?.to_vec(),
                        2 => label.1 = value.bytes("Value")?.to_vec(),
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                series.labels.push(label);
            }
            2 => {
                let mut sample = (0.0, 0);
                fields(value.bytes("Samples")?, "Sample", &mut |number, value| {
                    match number {
                        1 => sample.0 = value.double("Value")?,
                        2 => sample.1 = value.integer("TimestampMs")?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?;
                series.samples.push(sample);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(series)
}

/// What stands behind a tag, read when its field asks for it.
struct Value<'a, 'b> {
    wire_type: u64,
    rest: &'b mut &'a [u8],
}

impl<'a> Value<'a, '_> {
    fn is(&self, wire_type: u64, field: &str) -> Result<(), String> {
        match self.wire_type == wire_type {
            true => Ok(()),
            false => Err(format!("proto: wrong wireType = {} for field {field}", self.wire_type)),
        }
    }

    fn bytes(&mut self, field: &str) -> Result<&'a [u8], String> {
        self.is(2, field)?;
        counted(self.rest)
    }

    fn integer(&mut self, field: &str) -> Result<i64, String> {
        self.is(0, field)?;
        Ok(varint(self.rest)? as i64)
    }

    fn double(&mut self, field: &str) -> Result<f64, String> {
        self.is(1, field)?;
        Ok(f64::from_le_bytes(cut(self.rest, 8)?.try_into().unwrap()))
    }
}

/// Calls `known` for each field; false: it does not know the field.
fn fields<'a>(
    message: &'a [u8],
    name: &str,
    known: &mut dyn FnMut(i32, &mut Value<'a, '_>) -> Result<bool, String>,
) -> Result<(), String> {
    let mut rest = message;
    while !rest.is_empty() {
        let before = rest;
        let tag = varint(&mut rest)?;
        let (number, wire_type) = ((tag >> 3) as i32, tag & 7);
        if wire_type == 4 {
            return Err(format!("proto: {name}: wiretype end group for non-group"));
        }
        if number <= 0 {
            return Err(format!("proto: {name}: illegal tag {number} (wire type {tag})"));
        }
        if !known(number, &mut Value { wire_type, rest: &mut rest })? {
            rest = before;
            skip(&mut rest)?;
        }
    }
    Ok(())
}

/// Recursive, as InfluxDB's. The depth is bounded by the length of what is tried.
fn skip(rest: &mut &[u8]) -> Result<(), String> {
    match varint(rest)? & 7 {
        0 => varint(rest).map(drop),
        1 => cut(rest, 8).map(drop),
        2 => counted(rest).map(drop),
        3 => loop {
            let before = *rest;
            if varint(rest)? & 7 == 4 {
                return Ok(());
            }
            *rest = before;
            skip(rest)?;
        },
        4 => Ok(()),
        5 => cut(rest, 4).map(drop),
        other => Err(format!("proto: illegal wireType {other}")),
    }
}

fn counted<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = varint(rest)? as i64;
    if length < 0 {
        return Err("proto: negative length found during unmarshaling".into());
    }
    cut(rest, length as usize)
}

fn cut<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    if length > rest.len() {
        return Err("unexpected EOF".into());
    }
    let (taken, left) = rest.split_at(length);
    *rest = left;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    let mut shift = 0;
    loop {
        if shift >= 64 {
            return Err("proto: integer overflow".into());
        }
        let byte = cut(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
        shift += 7;
    }
}

/// A snappy block uncompressed, as Go's library does it; None: it is damaged, or has more than `bytes_max`.
pub fn uncompressed(block: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let mut rest = block;
    let length = usize::try_from(varint(&mut rest).ok()?).ok().filter(|&length| length <= bytes_max)?;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let tag = usize::from(cut(&mut rest, 1).ok()?[0]);
        let mut number = |bytes: usize| {
            let bytes = cut(&mut rest, bytes).ok()?;
            Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
        };
        let (offset, count) = match tag & 3 {
            0 => {
                let count = if tag >> 2 < 60 { tag >> 2 } else { number((tag >> 2) - 59)? };
                out.extend_from_slice(cut(&mut rest, count + 1).ok()?);
                continue;
            }
            1 => ((tag >> 5) << 8 | number(1)?, 4 + (tag >> 2 & 7)),
            2 => (number(2)?, 1 + (tag >> 2)),
            _ => (number(4)?, 1 + (tag >> 2)),
        };
        if offset == 0 || offset > out.len() || out.len() + count > length {
            return None;
        }
        for _ in 0..count {
            out.push(out[out.len() - offset]);
        }
    }
    (out.len() == length).then_some(out)
}

//! Promises that must hold for any bytes, as functions for the fuzz target and the property tests.

use super::lines::{SeriesKey, Survey, is_point};
use super::{Labels, Samples, WriteRequest, naive, uncompress, uncompressed_len};
use crate::lineproto::fuzz::scan_whole;
use crate::lineproto::{Item, unescape_measurement};

/// Largest block that is uncompressed here.
const UNCOMPRESSED_MAX: usize = 1 << 20;

/// The bytes are tried as a request, and as a snappy block with a request in it.
///
/// Panics if this and the naive form differ, or if a point's line is read as something else.
pub fn fuzz(data: &[u8]) {
    agrees_with_naive(data);
    let block = uncompressed_len(data).filter(|&length| length <= UNCOMPRESSED_MAX).and_then(|length| {
        let mut out = vec![0; length];
        uncompress(data, &mut out).then_some(out)
    });
    assert_eq!(block, naive::uncompressed(data, UNCOMPRESSED_MAX), "{}", data.escape_ascii());
    if let Some(request) = block {
        agrees_with_naive(&request);
    }
}

/// The points are those of the naive form, or the error is the same.
pub fn agrees_with_naive(message: &[u8]) {
    let shown = message.escape_ascii();
    let naive = naive::points(message);
    let ours = points(message);
    let ours = match (&naive, ours) {
        (Err(text), ours) => return assert_eq!(Err(text.clone()), ours.map(drop), "{shown}"),
        (Ok(_), ours) => ours.unwrap_or_else(|error| panic!("{error}: {shown}")),
    };
    let naive: Vec<_> = naive.expect("as above").iter().map(|p| (p.key.clone(), p.value.to_bits(), p.time)).collect();
    assert_eq!(naive, ours, "{shown}");
}

/// Key, bits of the value, and time of each point.
fn points(message: &[u8]) -> Result<Vec<(Vec<u8>, u64, i64)>, String> {
    let (mut labels, mut key) = (Labels::default(), SeriesKey::default());
    let mut survey = Survey::default();
    let mut request = WriteRequest::new(message);
    while let Some(series) = request.next_series().map_err(|error| error.to_string())? {
        survey.add(series, &mut labels, &mut key).map_err(|error| error.to_string())?;
    }
    if let Some(unsupported) = survey.unsupported {
        return Err(unsupported.to_string());
    }
    let (mut points, mut lines_bytes) = (Vec::new(), 0);
    let mut request = WriteRequest::new(message);
    while let Ok(Some(series)) = request.next_series() {
        super::read_series(series, &mut labels, |_| ()).expect("it has been read before");
        let is_supported = key.set(&mut labels).is_ok();
        let is_a_line = key.is_a_line().is_ok();
        for sample in Samples::new(series).filter(is_point) {
            assert!(is_supported, "points with such a key are refused");
            let mut line = Vec::new();
            key.push_line(sample, &mut line);
            lines_bytes += line.len() as u64;
            let time = sample.time_ms.wrapping_mul(1_000_000);
            if is_a_line {
                reads_back(&line, key.as_bytes(), sample.value, time);
            }
            points.push((key.as_bytes().to_vec(), sample.value.to_bits(), time));
        }
    }
    assert!(lines_bytes <= survey.lines_bytes, "the survey promised room for {}", survey.lines_bytes);
    Ok(points)
}

fn reads_back(line: &[u8], key: &[u8], value: f64, time: i64) {
    let items = scan_whole(line, super::lines::PRECISION);
    let [Item::Line(read)] = items[..] else { panic!("{}: {items:?}", line.escape_ascii()) };
    let rest = std::str::from_utf8(&line[key.len()..]).expect("numbers");
    let (field, timestamp) = rest.trim().split_once(' ').expect("two parts");
    let read_value: f64 = field.strip_prefix("value=").expect("the field").parse().expect("a number");
    assert_eq!((read_value.to_bits(), timestamp.parse()), (value.to_bits(), Ok(time)), "{rest}");
    assert_eq!((read.start, read.end as usize), (0, line.len() - 1));
    assert_eq!(read.fields_end as usize, key.len() + 1 + field.len());
    assert!(read.has_timestamp);
    assert!(!unescape_measurement(&line[..read.measurement_end as usize]).is_empty());
}

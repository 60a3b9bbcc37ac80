//! Requests of all kinds become the points, or are refused in the words, that InfluxDB 1.6.7 has for them. What is here
//! as text was asked of the real one; `tests/prometheus` asks it again.

use proptest::prelude::*;

use super::fuzz::{agrees_with_naive, fuzz};
use super::lines::{SeriesKey, Survey, is_point};
use super::{Labels, Samples, WriteRequest, read_series, uncompressed_len};

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn part(field: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![field << 3 | 2], varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn label(name: &[u8], value: &[u8]) -> Vec<u8> {
    part(1, &[part(1, name), part(2, value)].concat())
}

fn sample(value: f64, time_ms: i64) -> Vec<u8> {
    part(2, &[&[0x09], &value.to_le_bytes()[..], &[0x10], &varint(time_ms as u64)].concat())
}

fn series(labels: &[(&str, &str)], samples: &[(f64, i64)]) -> Vec<u8> {
    let labels = labels.iter().map(|(name, value)| label(name.as_bytes(), value.as_bytes()));
    let samples = samples.iter().map(|&(value, time)| sample(value, time));
    part(1, &labels.chain(samples).collect::<Vec<_>>().concat())
}

/// The lines of a request, with what is no line in brackets; or why InfluxDB takes nothing of it.
fn lines(request: &[u8]) -> Result<String, String> {
    agrees_with_naive(request);
    let (mut labels, mut key, mut survey) = (Labels::default(), SeriesKey::default(), Survey::default());
    let mut all = WriteRequest::new(request);
    while let Some(series) = all.next_series().map_err(|error| error.to_string())? {
        survey.add(series, &mut labels, &mut key).map_err(|error| error.to_string())?;
    }
    if let Some(unsupported) = survey.unsupported {
        return Err(unsupported.to_string());
    }
    let mut out = Vec::new();
    let mut all = WriteRequest::new(request);
    while let Ok(Some(series)) = all.next_series() {
        read_series(series, &mut labels, |_| ()).unwrap();
        key.set(&mut labels).unwrap();
        match key.is_a_line() {
            Ok(()) => Samples::new(series).filter(is_point).for_each(|sample| key.push_line(sample, &mut out)),
            Err(reason) => out.extend_from_slice(format!("[{reason}]\n").as_bytes()),
        }
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

#[test]
fn series_become_lines_as_influxdb_maps_them() {
    for (labels, want) in [
        (&[("__name__", "up"), ("job", "a")][..], "up,__name__=up,job=a"),
        (&[("job", "a")], "prom_metric_not_specified,job=a"),
        (&[], "prom_metric_not_specified"),
        (&[("__name__", "up"), ("job", "")], "up,__name__=up"),
        (&[("__name__", "up"), ("job", "x"), ("job", "y")], "up,__name__=up,job=y"),
        (&[("__name__", "up"), ("job", "x"), ("job", "")], "up,__name__=up"),
        (&[("job", "a"), ("__name__", "b"), ("__name__", "c")], "c,__name__=c,job=a"),
        (&[("z", "1"), ("a", "2"), ("__name__", "up")], "up,__name__=up,a=2,z=1"),
        (&[("__name__", "up"), ("a b", "c d"), ("p,q", "r=s")], r"up,__name__=up,a\ b=c\ d,p\,q=r\=s"),
        (&[("__name__", "u,p=x")], r"u\,p=x,__name__=u\,p\=x"),
        (&[("__name__", "u\\,p")], r"u\,p,__name__=u\\,p"),
        (&[("__name__", " up")], r"\ up,__name__=\ up"),
        (&[("__name__", "up"), ("a", "\"c\""), ("b", "x\r\ty")], "up,__name__=up,a=\"c\",b=x\r\ty"),
        (&[("__name__", "up"), ("a", "c\\d\\\\e"), ("b", "d")], r"up,__name__=up,a=c\d\\e,b=d"),
    ] {
        let got = lines(&series(labels, &[(1.5, 1_700_000_000_000)]));
        assert_eq!(got.as_deref(), Ok(&format!("{want} value=1.5 1700000000000000000\n")[..]), "{labels:?}");
    }
}

#[test]
fn what_no_line_can_hold_is_told() {
    let (line_end, names) = (
        "line protocol cannot hold a line end in a label",
        "line protocol cannot hold these names, or a label that ends with a backslash",
    );
    for (labels, why) in [
        (&[("__name__", "up"), ("a", "c\nd")][..], line_end),
        (&[("__name__", "up"), ("a", "c value=1 1\nup")], line_end),
        (&[("__name__", "u\np")], line_end),
        (&[("__name__", "up"), ("a", "c\\")], names),
        (&[("__name__", "up"), ("a", "c\\"), ("b", "d")], names),
        (&[("__name__", "")], names),
        (&[("__name__", ""), ("a", "b")], names),
        (&[("__name__", "#up")], names),
        (&[("__name__", "\tup")], names),
        (&[("__name__", "up"), ("", "x")], names),
    ] {
        let got = lines(&series(labels, &[(1.5, 1)]));
        assert_eq!(got.as_deref(), Ok(&format!("[{why}]\n")[..]), "{labels:?}");
    }
    let many: Vec<_> = (0..99).map(|n| format!("l{n:02}")).collect();
    let labels: Vec<_> = [("__name__", "up")].into_iter().chain(many.iter().map(|name| (&name[..], "x"))).collect();
    assert!(lines(&series(&labels, &[(1.5, 1)])).unwrap().contains("100 tags"), "such a line ends the server");
}

#[test]
fn values_and_times_are_those_of_influxdb() {
    for (value, time_ms, want) in [
        (3.0, 0, "3.0 0"),
        (-0.0, -5, "-0.0 -5000000"),
        (1.0 / 3.0, 1, "0.3333333333333333 1000000"),
        (f64::MAX, 9_223_372_036_854, "1.7976931348623157e308 9223372036854000000"),
        (f64::MIN, -9_223_372_036_854, "-1.7976931348623157e308 -9223372036854000000"),
        (5e-324, 9_223_372_036_855, "5e-324 -9223372036854551616"),
        (-2.2250738585072014e-308, i64::MAX, "-2.2250738585072014e-308 -1000000"),
    ] {
        let got = lines(&series(&[("__name__", "m")], &[(value, time_ms)]));
        assert_eq!(got.as_deref(), Ok(&format!("m,__name__=m value={want}\n")[..]));
    }
    assert_eq!(lines(&series(&[], &[(f64::NAN, 1 << 57), (1.0, 1)])).unwrap().lines().count(), 1);
    assert_eq!(lines(&[]).as_deref(), Ok(""));
    assert_eq!(lines(&part(1, &part(2, b""))).as_deref(), Ok("prom_metric_not_specified value=0.0 0\n"));
}

#[test]
fn the_first_point_that_influxdb_does_not_take_refuses_all() {
    let (time, inf) = ("time outside range -9223372036854775806 - 9223372036854775806", f64::INFINITY);
    let infinite = "+/-Inf is an unsupported value for field value";
    let long = "x".repeat(65_510);
    let long = &[("__name__", "up"), ("a", &long[..])][..];
    let too_long = "max key length exceeded: 65536 > 65535";
    for (labels, samples, want) in [
        (&[][..], &[(1.0, 1), (inf, 1)][..], infinite),
        (&[], &[(-inf, 1)], infinite),
        (&[], &[(f64::NAN, 1), (-inf, 1)], infinite),
        (&[], &[(1.0, 1 << 57)], time),
        (&[], &[(inf, 1 << 57)], time),
        (&[], &[(inf, 1), (1.0, 1 << 57)], infinite),
        (long, &[(1.0, 1)], too_long),
        (long, &[(1.0, 1), (inf, 1)], too_long),
        (long, &[(inf, 1), (1.0, 1)], infinite),
    ] {
        let good = series(&[("__name__", "good")], &[(1.0, 1)]);
        let request = [&good[..], &series(labels, samples), &good].concat();
        assert_eq!(lines(&request), Err(want.to_owned()), "{samples:?}");
    }
    assert!(lines(&series(&[("__name__", "up"), ("a", &"x".repeat(65_509))], &[(1.0, 1)])).is_ok());
    agrees_with_naive(&series(long, &[(f64::NAN, 1)]));
    let many: Vec<u8> = label(b"a", b"").repeat(crate::limits::PROMETHEUS_LABELS_MAX + 1);
    let request = part(1, &[many, sample(1.0, 1)].concat());
    let mut survey = Survey::default();
    let series = WriteRequest::new(&request).next_series().unwrap().unwrap();
    survey.add(series, &mut Labels::default(), &mut SeriesKey::default()).unwrap();
    assert_eq!(survey.unsupported.unwrap().to_string(), "a series has more than 65536 labels");
}

#[test]
fn what_is_no_message_is_refused_in_influxdbs_words() {
    let in_series = |bytes: &[u8]| part(1, bytes);
    for (request, want) in [
        (b"\xff\xff\xff\xff".to_vec(), "unexpected EOF"),
        (b"\x08\x01".to_vec(), "proto: wrong wireType = 0 for field Timeseries"),
        (b"\x0c".to_vec(), "proto: WriteRequest: wiretype end group for non-group"),
        (b"\x00\x00".to_vec(), "proto: WriteRequest: illegal tag 0 (wire type 0)"),
        (
            [varint((1 << 31) << 3), vec![1]].concat(),
            "proto: WriteRequest: illegal tag -2147483648 (wire type 17179869184)",
        ),
        (b"\x0a\x05ab".to_vec(), "unexpected EOF"),
        ([vec![0x0a], varint(u64::MAX)].concat(), "proto: negative length found during unmarshaling"),
        ([vec![0x12], varint(u64::MAX)].concat(), "proto: negative length found during unmarshaling"),
        ([&b"\x0a"[..], &[0xff; 11]].concat(), "proto: integer overflow"),
        (b"\x16".to_vec(), "proto: illegal wireType 6"),
        (b"\x29abc".to_vec(), "unexpected EOF"),
        (b"\x1b\x08\x01".to_vec(), "unexpected EOF"),
        (in_series(b"\x08\x01"), "proto: wrong wireType = 0 for field Labels"),
        (in_series(&part(1, b"\x08\x01")), "proto: wrong wireType = 0 for field Name"),
        (in_series(&part(2, b"\x11abcdefgh")), "proto: wrong wireType = 1 for field TimestampMs"),
        (in_series(&part(2, b"\x08\x01")), "proto: wrong wireType = 0 for field Value"),
        (in_series(&part(2, b"\x09abc")), "unexpected EOF"),
        (in_series(b"\x00\x00"), "proto: TimeSeries: illegal tag 0 (wire type 0)"),
    ] {
        // What InfluxDB would not store does not count before all has been read.
        let request = [series(&[], &[(f64::INFINITY, 1)]), request].concat();
        assert_eq!(lines(&request), Err(want.to_owned()), "{}", request.escape_ascii());
    }
    let unknown = b"\x12\x01a\x18\x05\x25abcd\x29abcdefgh\x1b\x08\x01\x13\x14\x1c";
    assert_eq!(lines(unknown).as_deref(), Ok(""), "what nobody knows is passed over");
    // Nested far deeper than a stack would bear.
    agrees_with_naive(&[vec![0x1b; 2000], vec![0x1c; 2000]].concat());
    let mut reader = super::wire::Reader::new(&[0x1b; 1 << 20]);
    let tag = reader.tag("X").unwrap().unwrap();
    assert!(reader.skip(tag).is_err());
}

#[test]
fn a_block_says_how_long_it_is_before_it_is_uncompressed() {
    assert_eq!(uncompressed_len(b""), None);
    assert_eq!(uncompressed_len(b"\0"), Some(0));
    assert_eq!(uncompressed_len(b"\xff\xff\xff\xff\x0f"), Some(u32::MAX as usize));
    assert_eq!(uncompressed_len(b"\xff\xff\xff\xff\x1f"), None);
    assert_eq!(uncompressed_len(b"\xff"), None);
}

proptest! {
    #[test]
    fn any_bytes_and_any_request_are_read_as_by_the_naive_form(
        noise in proptest::collection::vec(any::<u8>(), 0..64),
        all in proptest::collection::vec(
            (
                proptest::collection::vec(("(__name__|a|b|[ab,= \\\\\"#\n]{0,3})", "[ab,= \\\\\"#\n\t]{0,4}"), 0..5),
                proptest::collection::vec((any::<f64>(), any::<i64>()), 0..3),
            ),
            0..4,
        ),
        damage in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
    ) {
        fuzz(&noise);
        let text = |pair: &(String, String)| label(pair.0.as_bytes(), pair.1.as_bytes());
        let one = |labels: &[(String, String)], samples: &[(f64, i64)]| {
            let labels = labels.iter().map(text);
            part(1, &labels.chain(samples.iter().map(|s| sample(s.0, s.1))).collect::<Vec<_>>().concat())
        };
        let mut request = all.iter().map(|(labels, samples)| one(labels, samples)).collect::<Vec<_>>().concat();
        if let (Some((at, byte)), false) = (damage, request.is_empty()) {
            let at = at.index(request.len());
            request[at] = byte;
        }
        agrees_with_naive(&request);
        let mut block = snap::raw::Encoder::new().compress_vec(&request).unwrap();
        fuzz(&block);
        if let Some((at, byte)) = damage {
            let at = at.index(block.len());
            block[at] = byte;
            fuzz(&block);
        }
    }
}

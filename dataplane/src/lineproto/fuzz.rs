//! Promises that must hold for any bytes, as functions for the fuzz targets and the property tests.

use super::{Item, Line, Scanner, naive};
use crate::precision::Precision;

/// The first byte chooses the precision, the second where the body is split; the rest is the body.
///
/// Panics if the fast and the naive parser differ, if a split changes the result, or if a line means something else
/// once it is sent among others.
pub fn fuzz(data: &[u8]) {
    let [precision, cut, body @ ..] = data else { return };
    let precision = Precision::ALL[usize::from(*precision) % Precision::ALL.len()];
    agrees_with_naive(body, precision);
    let first = usize::from(*cut) % (body.len() + 1);
    survives_cuts(body, precision, &[first, (first + body.len()) / 2]);
    keeps_its_meaning(body, precision);
}

/// All items of a whole body.
pub fn scan_whole(body: &[u8], precision: Precision) -> Vec<Item> {
    let mut items = Vec::new();
    let done = Scanner::new(precision).scan(body, true, |item| items.push(item));
    assert_eq!(done, body.len(), "the last call leaves nothing");
    items
}

pub fn agrees_with_naive(body: &[u8], precision: Precision) {
    assert_eq!(scan_whole(body, precision), naive::scan(body, precision), "{}", body.escape_ascii());
}

/// `cuts` are ascending offsets into `body`: where pieces of it arrive. Texts are compared too, since they are made
/// from the piece.
pub fn survives_cuts(body: &[u8], precision: Precision, cuts: &[usize]) {
    let whole: Vec<_> = scan_whole(body, precision).iter().map(|item| texts(item, body)).collect();
    let mut pieces = Vec::new();
    let mut scanner = Scanner::new(precision);
    let mut done = 0;
    for &arrived in cuts {
        let seen = &body[done..arrived];
        done += scanner.scan(seen, false, |item| pieces.push(texts(&item, seen)));
    }
    let seen = &body[done..];
    done += scanner.scan(seen, true, |item| pieces.push(texts(&item, seen)));
    assert_eq!(done, body.len());
    assert_eq!(pieces, whole, "cut at {cuts:?}: {}", body.escape_ascii());
}

/// Sends the valid lines, between others, and parses the result again.
pub fn keeps_its_meaning(body: &[u8], precision: Precision) {
    const NEIGHBOUR: &[u8] = b"n v=\"x\" 1\n";
    const TIMESTAMP: &[u8] = b"-7";
    let lines: Vec<Line> = scan_whole(body, precision)
        .into_iter()
        .filter_map(|item| match item {
            Item::Line(line) => Some(line),
            Item::Refused(_) => None,
        })
        .collect();
    let mut sent = NEIGHBOUR.to_vec();
    for line in &lines {
        let at = sent.len();
        sent.resize(at + line.encoded_len(TIMESTAMP.len()), 0);
        let written = line.encode(body, TIMESTAMP, &mut sent[at..]);
        assert_eq!(at + written, sent.len(), "encode writes what encoded_len says");
        sent.extend_from_slice(NEIGHBOUR);
    }
    let again = naive::scan(&sent, precision);
    assert_eq!(again.len(), 2 * lines.len() + 1, "{}", sent.escape_ascii());
    for (line, item) in lines.iter().zip(again.iter().skip(1).step_by(2)) {
        let Item::Line(item) = item else { panic!("refused now: {}", sent.escape_ascii()) };
        assert!(item.has_timestamp);
        assert_eq!(point(line, body, TIMESTAMP), point(item, &sent, TIMESTAMP), "{}", body.escape_ascii());
    }
}

/// Measurement, measurement to fields, and the rest.
fn point<'a>(line: &Line, body: &'a [u8], timestamp: &'a [u8]) -> (&'a [u8], &'a [u8], &'a [u8]) {
    let part = |start: u32, end: u32| &body[start as usize..end as usize];
    let time = if line.has_timestamp { part(line.fields_end, line.end).trim_ascii() } else { timestamp };
    (part(line.start, line.measurement_end), part(line.start, line.fields_end), time.trim_ascii_start())
}

/// An item with the bytes it refers to, instead of offsets.
fn texts(item: &Item, body: &[u8]) -> String {
    let part = |start: u32, end: u32| body[start as usize..end as usize].escape_ascii().to_string();
    match item {
        Item::Line(line) => format!(
            "{} | {} | {} | {}",
            part(line.start, line.end),
            part(line.start, line.measurement_end),
            part(line.start, line.fields_end),
            line.has_timestamp
        ),
        Item::Refused(refused) => {
            let mut text = Vec::new();
            refused.describe(body, &mut text);
            text.escape_ascii().to_string()
        }
    }
}

//! Whether a target has every value that the source has, in one window.
//!
//! The rule: equal counts of every field, the source counted first. Where they differ, points are compared: every value of the source (its
//! series, time, field and type) must be at the target, which may have more. It may: it got new points while the source, a place that
//! nothing is written to any more, did not; or it got them a moment earlier, while writes go to both. So neither a slice that is being
//! written to nor one with other points at the target is held to be wrong, and one that lacks a point never to be right.
//!
//! Before anything is deleted ([`missing`]) points are compared in any case: two places may have as many points, and other ones.
//!
//! Values themselves are not compared: a newer write may have replaced one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::rows::{self, ReadError, Sink};
use super::side::{Side, Window};
use crate::limits;
use crate::query::wire::msgpack::Value;

/// How many values each field has.
pub type Counts = BTreeMap<String, u64>;

/// Rows of a piece where each has so many fields.
pub fn piece_rows(fields: usize) -> usize {
    let rows = limits::MIGRATION_PIECE_VALUES / fields.max(1) as u64;
    (rows as usize).clamp(1, limits::QUERY_PIECE_ROWS)
}

/// What a target lacks, for people: fields with their counts on both sides.
pub fn difference(source: &Counts, target: &Counts) -> String {
    let mut text = String::new();
    for field in source.keys().chain(target.keys().filter(|field| !source.contains_key(*field))) {
        let (there, here) = (source.get(field).unwrap_or(&0), target.get(field).unwrap_or(&0));
        if there != here {
            let separator = if text.is_empty() { "" } else { ", " };
            text += &format!("{separator}{field}: {here} of {there}");
        }
    }
    text
}

/// How many values of `source` are not at `target`. Holds 9 bytes for each value of the source in the window.
///
/// # Errors
/// (true, _) for the source's, (false, _) for the target's.
pub fn missing(
    source: &Side,
    target: &Side,
    window: &Window<'_>,
    piece_rows: usize,
    cancelled: &Arc<AtomicBool>,
) -> Result<u64, (bool, ReadError<Infallible>)> {
    let mut wanted = Values::new(|values: &mut Vec<u64>, value| values.push(value), Vec::new());
    rows::read(source, window, piece_rows, cancelled, &mut wanted).map_err(|error| (true, error))?;
    let mut wanted = wanted.state;
    wanted.sort_unstable();
    // Where shard groups overlap a point may come twice.
    wanted.dedup();
    let found = vec![false; wanted.len()];
    let find = |state: &mut (Vec<u64>, Vec<bool>), value| {
        if let Ok(at) = state.0.binary_search(&value) {
            state.1[at] = true;
        }
    };
    let mut seen = Values::new(find, (wanted, found));
    rows::read(target, window, piece_rows, cancelled, &mut seen).map_err(|error| (false, error))?;
    Ok(seen.state.1.iter().filter(|found| !**found).count() as u64)
}

/// Turns points into one number per value.
struct Values<S, F> {
    take: F,
    state: S,
    series: u64,
    fields: Vec<u64>,
}

impl<S, F: Fn(&mut S, u64)> Values<S, F> {
    fn new(take: F, state: S) -> Self {
        Self { take, state, series: 0, fields: Vec::new() }
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl<S, F: Fn(&mut S, u64)> Sink for Values<S, F> {
    type Error = Infallible;

    fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]) {
        // One side may know tags that no point of the other one has.
        let there: Vec<_> = tags.iter().filter(|(_, value)| !value.is_empty()).collect();
        self.series = hash(there);
        self.fields.clear();
        self.fields.extend(fields.iter().map(hash));
    }

    fn row(&mut self, time_ns: i64, values: &[Value<'_>]) -> Result<(), Infallible> {
        for (field, value) in self.fields.iter().zip(values).filter(|(_, value)| !matches!(value, Value::Nil)) {
            (self.take)(&mut self.state, hash((self.series, field, time_ns, discriminant(value))));
        }
        Ok(())
    }

    fn document(&mut self, _bytes: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_every_field_with_both_numbers() {
        let source = Counts::from([("a".into(), 3), ("b".into(), 2), ("c".into(), 1)]);
        let target = Counts::from([("a".into(), 3), ("b".into(), 1), ("d".into(), 4)]);
        assert_eq!(difference(&source, &target), "b: 1 of 2, c: 0 of 1, d: 4 of 0");
        assert_eq!(difference(&source, &source), "");
    }

    #[test]
    fn wide_rows_make_small_pieces() {
        assert_eq!([0, 1, 2, 200, 1_000_000].map(piece_rows), [10_000, 10_000, 10_000, 100, 1]);
    }
}

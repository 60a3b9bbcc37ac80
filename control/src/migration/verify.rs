//! Compares what a target and a source have in one window, value by value.
//!
//! A *value* is one field of one point: its key is series, time, field and type; its content is the bits. Both are
//! compared as 64-bit hashes. The target may have more: the source may be a place without new writes, or get the same
//! writes a moment later. So a point that is removed (DELETE, DROP SERIES) after the copy has read it, and before the
//! copy writes it, comes back at the target.
//!
//! # Why it is sound to look at two servers at two moments
//!
//! While couriers write to source A and target B, a copy can undo a write: it reads v1 at A, a client's v2 reaches A
//! and B, then the copy writes v1 to B. The proof relies on three facts: both get all writes of clients, in the same
//! order ([`crate::migration`] ensures the first, couriers the second); besides clients only the copy writes to B;
//! nothing else writes to A.
//!
//! Let E be the end of the copy's last write of a value. A *look* begins after E with a barrier: all points accepted
//! before the barrier are delivered to A. Then it reads A and B, in any order. The value stays right for ever if
//!
//! * **it is equal in a look.** Let w be the clients' last write of it, ever. If w is delivered to B after the look, B
//!   ends with w, as A does. If w is delivered to B before the look, and to A before A is read, the look reads w at A;
//!   B is equal, and keeps w. If w is delivered to B before the look, and to A only after A is read, w was accepted
//!   after E (because of the barrier), so the copy has not overwritten it at B.
//! * **or B changes between two looks.** After E only clients write. So a client's write has come after the copy's, and
//!   B ends with the clients' last write, as A does. This settles a value that is overwritten all the time and so is
//!   never equal in a look.
//!
//! So the set of open values only shrinks, from look to look and from copy to copy: only open values are copied again,
//! and a settled value is never written again. Clients need not pause.
//!
//! A source without new writes has nothing newer than B. From such a source only missing values are copied
//! ([`MissingValues::lacking`]), and verification only checks that they are there.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use crossbeam::channel::{Receiver, bounded};
use twox_hash::XxHash3_64;

use super::rows::{self, PointSink, ReadError};
use super::side::{CopySide, SliceWindow};
use crate::influx::wire::msgpack::MsgpackValue;
use crate::limits;

/// Rows of a piece, for rows with this many fields.
pub fn piece_rows(fields: usize) -> usize {
    let rows = limits::MIGRATION_PIECE_VALUES / fields.max(1) as u64;
    (rows as usize).clamp(1, limits::QUERY_PIECE_ROWS)
}

/// Values of the source that differ at the target in a look: by key, with the target's content (None = it is missing).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingValues(Vec<(u64, Option<u64>)>);

impl MissingValues {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn has(&self, key: u64) -> bool {
        self.at(key).is_some()
    }

    fn at(&self, key: u64) -> Option<Option<u64>> {
        self.0.binary_search_by_key(&key, |(key, _)| *key).ok().map(|at| self.0[at].1)
    }

    /// Only the values that are missing at the target.
    pub fn lacking(mut self) -> Self {
        self.0.retain(|(_, there)| there.is_none());
        self
    }

    /// Without the values that have changed at the target since `earlier`, a look after the same copy.
    pub fn unchanged_since(mut self, earlier: &Self) -> Self {
        self.0.retain(|(key, there)| !matches!((earlier.at(*key).flatten(), there), (Some(x), Some(y)) if x != *y));
        self
    }
}

impl std::fmt::Display for MissingValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let missing = self.0.iter().filter(|(_, there)| there.is_none()).count();
        match (missing, self.len() - missing) {
            (missing, 0) => write!(f, "{missing} values are missing"),
            (0, other) => write!(f, "{other} values differ"),
            (missing, other) => write!(f, "{missing} values are missing, {other} differ"),
        }
    }
}

/// One look, which reads both sides at the same time: the values of `source` (of `among`; None = all) that are missing
/// or different at `target`. Holds 21 bytes for each value of the source in the window, 24 for each that differs, and
/// 16 for each of at most `LOOK_EARLY_MAX` values of the target.
///
/// # Errors
/// (true, _) from the source, (false, _) from the target.
pub fn look(
    source: &CopySide,
    target: &CopySide,
    window: &SliceWindow<'_>,
    piece_rows: usize,
    among: Option<&MissingValues>,
    cancelled: &Arc<AtomicBool>,
) -> Result<MissingValues, (bool, ReadError<Infallible>)> {
    let is_wanted = |key| among.is_none_or(|among| among.has(key));
    let gather = |wanted: &mut Vec<(u64, u64)>, value: (u64, u64)| {
        if is_wanted(value.0) {
            wanted.push(value);
        }
    };
    let (tell, told) = bounded(1);
    let (read, met) = thread::scope(|scope| {
        let source = scope.spawn(move || {
            let mut wanted = Values::new(gather, Vec::new());
            let read = rows::read(source, window, piece_rows, cancelled, &mut wanted);
            // Closed = the target has failed.
            let _ = tell.send(wanted.state);
            read
        });
        let meeting = Meeting { source: told, early: Vec::new(), early_max: limits::LOOK_EARLY_MAX, seen: None };
        let mut there = Values::new(Meeting::note, meeting);
        let read = rows::read(target, window, piece_rows, cancelled, &mut there);
        let met = read.map(|()| there.state.end());
        (source.join().unwrap_or_else(|panic| resume_unwind(panic)), met)
    });
    read.map_err(|error| (true, error))?;
    met.map_err(|error| (false, error))
}

/// The number of points of `side` that have any of these values.
pub fn points_with(
    side: &CopySide,
    window: &SliceWindow<'_>,
    piece_rows: usize,
    values: &MissingValues,
    cancelled: &Arc<AtomicBool>,
) -> Result<u64, ReadError<Infallible>> {
    let mut points = PointsWith { values, keys: PointKeys::default(), points: 0 };
    rows::read(side, window, piece_rows, cancelled, &mut points).map(|()| points.points)
}

/// A sink that counts points.
struct PointsWith<'a> {
    values: &'a MissingValues,
    keys: PointKeys,
    points: u64,
}

impl PointSink for PointsWith<'_> {
    type Error = Infallible;

    fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]) {
        self.keys.series(tags, fields);
    }

    fn row(&mut self, time_ns: i64, values: &[MsgpackValue<'_>]) -> Result<(), Infallible> {
        let has = |(field, value)| self.values.has(self.keys.key(field, time_ns, value));
        self.points += u64::from(values.iter().enumerate().any(has));
        Ok(())
    }

    fn document(&mut self, _bytes: usize) {}
}

/// Compares the target's values, of any number, with the source's, which are read at the same time. Values of the
/// target that come before the source is read are kept, up to a bound.
struct Meeting {
    source: Receiver<Vec<(u64, u64)>>,
    early: Vec<(u64, u64)>,
    early_max: usize,
    seen: Option<SourceValues>,
}

impl Meeting {
    fn note(&mut self, value: (u64, u64)) {
        match &mut self.seen {
            Some(seen) => seen.note(value),
            None => {
                self.early.push(value);
                if self.early.len() >= self.early_max {
                    self.meet();
                }
            }
        }
    }

    fn meet(&mut self) -> &mut SourceValues {
        let (source, early) = (&self.source, &mut self.early);
        self.seen.get_or_insert_with(|| {
            // Without a message the source's thread has panicked; `look` passes the panic on.
            let mut seen = SourceValues::new(source.recv().unwrap_or_default());
            std::mem::take(early).into_iter().for_each(|value| seen.note(value));
            seen
        })
    }

    fn end(mut self) -> MissingValues {
        std::mem::take(self.meet()).open()
    }
}

/// The source's values, and which of them the target has.
#[derive(Default)]
struct SourceValues {
    /// Key and content, as they came. Where shard groups overlap a point may appear twice; any of its contents counts
    /// as equal.
    wanted: Vec<(u64, u64)>,
    is_found: Vec<bool>,
    /// Servers give their points in the same order, so the next value of the target is probably this one.
    next: usize,
    /// Positions in `wanted`, by key. Made when a value comes that is not the next one.
    by_key: Vec<u32>,
    others: Vec<(u64, u64)>,
}

impl SourceValues {
    fn new(wanted: Vec<(u64, u64)>) -> Self {
        Self { is_found: vec![false; wanted.len()], wanted, ..Self::default() }
    }

    fn note(&mut self, value: (u64, u64)) {
        if self.wanted.get(self.next) == Some(&value) {
            self.is_found[self.next] = true;
            self.next += 1;
            return;
        }
        self.sort();
        let (key, content) = value;
        let first = self.by_key.partition_point(|&at| self.wanted[at as usize].0 < key);
        let same = self.by_key[first..].iter().map(|&at| at as usize).take_while(|&at| self.wanted[at].0 == key);
        let (mut is_wanted, mut equal) = (false, None);
        for at in same {
            is_wanted = true;
            equal = equal.or((self.wanted[at].1 == content).then_some(at));
        }
        if let Some(at) = equal {
            self.is_found[at] = true;
            self.next = at + 1;
        } else if is_wanted {
            self.others.push(value);
        }
    }

    fn sort(&mut self) {
        if self.by_key.is_empty() {
            self.by_key.extend(0..self.wanted.len() as u32);
            self.by_key.sort_unstable_by_key(|&at| self.wanted[at as usize].0);
        }
    }

    fn open(mut self) -> MissingValues {
        if self.is_found.iter().all(|is_found| *is_found) {
            return MissingValues::default();
        }
        self.sort();
        self.others.sort_unstable();
        let of_one_key = self.by_key.chunk_by(|&a, &b| self.wanted[a as usize].0 == self.wanted[b as usize].0);
        let open = of_one_key.filter(|same| !same.iter().any(|&at| self.is_found[at as usize]));
        let content = |key: u64| {
            let at = self.others.partition_point(|(other, _)| *other < key);
            self.others.get(at).filter(|(other, _)| *other == key).map(|(_, content)| *content)
        };
        let open = open.map(|same| self.wanted[same[0] as usize].0).map(|key| (key, content(key)));
        MissingValues(open.collect())
    }
}

/// Hashes points to keys.
#[derive(Debug, Default)]
pub struct PointKeys {
    series: u64,
    fields: Vec<u64>,
}

impl PointKeys {
    /// Sets the series, as [`PointSink::series`].
    pub fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]) {
        // A side may know tags that no point of the other side has.
        let there: Vec<_> = tags.iter().filter(|(_, value)| !value.is_empty()).collect();
        let mut hasher = DefaultHasher::new();
        there.hash(&mut hasher);
        self.series = hasher.finish();
        self.fields.clear();
        self.fields.extend(fields.iter().map(|field| XxHash3_64::oneshot(field)));
    }

    /// The key of a value of field number `field`.
    pub fn key(&self, field: usize, time_ns: i64, value: &MsgpackValue<'_>) -> u64 {
        let mut bytes = [0; 25];
        bytes[..8].copy_from_slice(&self.series.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.fields[field].to_le_bytes());
        bytes[16..24].copy_from_slice(&time_ns.to_le_bytes());
        bytes[24] = kind(value);
        XxHash3_64::oneshot(&bytes)
    }
}

/// A sink that passes keys and contents on.
struct Values<S, F> {
    take: F,
    state: S,
    keys: PointKeys,
}

impl<S, F: Fn(&mut S, (u64, u64))> Values<S, F> {
    fn new(take: F, state: S) -> Self {
        Self { take, state, keys: PointKeys::default() }
    }
}

/// Types are part of the key.
fn kind(value: &MsgpackValue<'_>) -> u8 {
    match value {
        MsgpackValue::Float(_) => 1,
        MsgpackValue::Int(_) => 2,
        MsgpackValue::Unsigned(_) => 3,
        MsgpackValue::Bool(_) => 4,
        MsgpackValue::String(_) => 5,
        // Fields have no such values, and the copy refuses them.
        MsgpackValue::Nil | MsgpackValue::Array(_) | MsgpackValue::Map(_) | MsgpackValue::Extension(..) => 0,
    }
}

fn content(value: &MsgpackValue<'_>) -> u64 {
    match *value {
        MsgpackValue::Float(value) => value.to_bits(),
        MsgpackValue::Int(value) => value.cast_unsigned(),
        MsgpackValue::Unsigned(value) => value,
        MsgpackValue::Bool(value) => u64::from(value),
        MsgpackValue::String(text) => XxHash3_64::oneshot(text),
        MsgpackValue::Nil | MsgpackValue::Array(_) | MsgpackValue::Map(_) | MsgpackValue::Extension(..) => 0,
    }
}

impl<S, F: Fn(&mut S, (u64, u64))> PointSink for Values<S, F> {
    type Error = Infallible;

    fn series(&mut self, tags: &[(&[u8], &[u8])], fields: &[&[u8]]) {
        self.keys.series(tags, fields);
    }

    fn row(&mut self, time_ns: i64, values: &[MsgpackValue<'_>]) -> Result<(), Infallible> {
        for (field, value) in values.iter().enumerate().filter(|(_, value)| !matches!(value, MsgpackValue::Nil)) {
            (self.take)(&mut self.state, (self.keys.key(field, time_ns, value), content(value)));
        }
        Ok(())
    }

    fn document(&mut self, _bytes: usize) {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wide_rows_make_small_pieces() {
        assert_eq!([0, 1, 2, 200, 1_000_000].map(piece_rows), [10_000, 10_000, 10_000, 100, 1]);
    }

    /// The result of a look at a source and a target with these (key, content) pairs.
    fn seen(source: &[(u64, u64)], target: &[(u64, u64)]) -> MissingValues {
        let mut seen = SourceValues::new(source.to_vec());
        target.iter().for_each(|value| seen.note(*value));
        seen.open()
    }

    #[test]
    fn missing_and_different_values_are_open_and_extra_ones_at_the_target_are_not() {
        let open = seen(&[(1, 10), (2, 20), (3, 30)], &[(9, 9), (3, 31), (2, 20)]);
        assert_eq!(open, MissingValues(vec![(1, None), (3, Some(31))]));
        assert_eq!(open.to_string(), "1 values are missing, 1 differ");
        assert_eq!(open.lacking(), MissingValues(vec![(1, None)]));
        assert!(seen(&[(1, 10)], &[(1, 10), (2, 5)]).is_empty());
        // A point that appears twice, where shard groups overlap.
        assert!(seen(&[(1, 10), (1, 11)], &[(1, 11)]).is_empty());
        assert!(seen(&[(1, 10)], &[(1, 9), (1, 10)]).is_empty());
        assert_eq!(seen(&[(1, 10), (1, 11)], &[(1, 9)]).len(), 1);
    }

    proptest! {
        /// In whatever order the two sides give their values.
        #[test]
        fn the_order_of_values_does_not_matter(
            source in proptest::collection::vec((0..6_u64, 0..3_u64), 0..12),
            target in proptest::collection::vec((0..6_u64, 0..3_u64), 0..12),
        ) {
            let at_target = |key| target.iter().filter(move |(other, _)| *other == key).map(|(_, content)| *content);
            let is_open = |key: &u64| {
                let of_source = |content| source.contains(&(*key, content));
                source.iter().any(|(other, _)| other == key) && !at_target(*key).any(of_source)
            };
            let wanted = (0..6).filter(is_open).map(|key| (key, at_target(key).min()));
            prop_assert_eq!(seen(&source, &target), MissingValues(wanted.collect()));
        }
    }

    #[test]
    fn values_of_the_target_that_come_first_count() {
        for early_max in [1, 2, 3, 100] {
            let (tell, source) = bounded(1);
            tell.send(vec![(1, 10), (2, 20), (3, 30), (4, 40)]).unwrap();
            let mut meeting = Meeting { source, early: Vec::new(), early_max, seen: None };
            [(1, 10), (2, 21), (3, 30), (7, 70)].into_iter().for_each(|value| meeting.note(value));
            assert_eq!(meeting.end(), MissingValues(vec![(2, Some(21)), (4, None)]), "{early_max}");
        }
    }

    #[test]
    fn only_a_changed_value_proves_a_later_write() {
        let earlier = MissingValues(vec![(1, Some(5)), (2, Some(6)), (3, None)]);
        let later = MissingValues(vec![(1, Some(5)), (2, Some(7)), (3, Some(8)), (4, Some(9))]);
        // A value that is now there at all may be the copy's own write, seen late.
        assert_eq!(later.unchanged_since(&earlier), MissingValues(vec![(1, Some(5)), (3, Some(8)), (4, Some(9))]));
    }

    /// Steps in the life of one value. Writes of clients reach A and B in the same order, each side at its own pace;
    /// copies and looks happen at any point between.
    #[derive(Clone, Copy, Debug)]
    enum WriteStep {
        Taken,
        ToA,
        ToB,
        CopyReads,
        CopyWrites,
        Barrier,
        LookAtA,
        LookAtB,
    }

    const STEPS: [WriteStep; 8] = [
        WriteStep::Taken,
        WriteStep::ToA,
        WriteStep::ToB,
        WriteStep::CopyReads,
        WriteStep::CopyWrites,
        WriteStep::Barrier,
        WriteStep::LookAtA,
        WriteStep::LookAtB,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// The proof above, over any order of events: once a value counts as settled, B ends like A.
        #[test]
        fn a_settled_value_stays_right(
            steps in proptest::collection::vec(0..STEPS.len(), 1..40),
            // Few values, so that the same one is written again.
            values in proptest::array::uniform8(0..3_u64),
            before in proptest::option::of(Just(8_u64)),
        ) {
            let mut taken = vec![];
            // Number of writes delivered, and the content: A had a value before, B another one or none.
            let (mut to_a, mut a) = (0, 7);
            let (mut to_b, mut b) = (0, before);
            let (mut read, mut waited, mut at_a, mut at_b) = (None, false, None, None);
            let (mut earlier, mut settled) = (None::<MissingValues>, false);
            for step in steps {
                match STEPS[step] {
                    WriteStep::Taken if taken.len() < values.len() => taken.push(values[taken.len()]),
                    WriteStep::ToA if to_a < taken.len() => (to_a, a) = (to_a + 1, taken[to_a]),
                    WriteStep::ToB if to_b < taken.len() => (to_b, b) = (to_b + 1, Some(taken[to_b])),
                    WriteStep::CopyReads if !settled => {
                        (read, waited, at_a, at_b, earlier) = (Some(a), false, None, None, None);
                    }
                    WriteStep::CopyWrites if !settled && read.is_some() => b = read.take(),
                    // All writes accepted until now reach A; later ones may or may not, until A is read.
                    WriteStep::Barrier if !settled && read.is_none() => {
                        (to_a, a) = (taken.len(), taken.last().copied().unwrap_or(a));
                        (waited, at_a, at_b) = (true, None, None);
                    }
                    WriteStep::LookAtA if !settled && waited => at_a = Some(a),
                    WriteStep::LookAtB if !settled && waited => at_b = Some(b),
                    _ => {}
                }
                // In either order.
                if let (Some(a), Some(b)) = (at_a, at_b) {
                    let there: Vec<_> = b.into_iter().map(|b| (1, b)).collect();
                    let open = earlier.iter().fold(seen(&[(1, a)], &there), MissingValues::unchanged_since);
                    settled = open.is_empty();
                    (earlier, waited, at_a, at_b) = (Some(open), false, None, None);
                }
            }
            if settled {
                let ends_a = taken[to_a..].last().copied().unwrap_or(a);
                prop_assert_eq!(taken[to_b..].last().copied().or(b), Some(ends_a));
            }
        }
    }
}

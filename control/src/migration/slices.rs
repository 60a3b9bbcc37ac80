//! The slices of a retention policy. A slice is copied, verified and noted as done as a whole.
//!
//! A slice never spans shard groups, because a field may have another type in each, and a SELECT over both would cast
//! one of them. Where shard groups overlap (their duration was altered), each part of time is a slice of its own. A
//! slice with many values is cut.
//!
//! The newest slice comes first: most queries want new points, and new points do not expire while older ones are
//! copied.

use serde::{Deserialize, Serialize};

use super::side::CopySide;
use crate::influx::client::CallFailure;
use crate::influx::policy::Policy;
use crate::limits;

/// Part of one shard group's time, as noted in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slice {
    pub rp: String,
    pub begin_ns: i64,
    /// Exclusive.
    pub end_ns: i64,
}

/// Begin (inclusive) and end (exclusive) in nanoseconds.
pub type Interval = (i64, i64);

/// The earliest time that InfluxDB stores.
pub(super) const TIME_MIN: i64 = i64::MIN + 2;
/// Exclusive. InfluxDB prints the end of the last shard group without its fraction.
const TIME_END: i64 = i64::MAX;

/// The times of all shard groups of a policy at `source`, not before `from_ns`; newest first, disjoint.
pub fn intervals(source: &CopySide, db: &str, rp: &str, from_ns: i64) -> Result<Vec<Interval>, CallFailure> {
    let answer = source.statement("", "SHOW SHARD GROUPS")?;
    let mut groups = Vec::new();
    for series in &answer.series {
        let column = |name| series.column(name).ok_or(CallFailure::NotInflux);
        let (db_at, rp_at) = (column("database")?, column("retention_policy")?);
        let (begin_at, end_at) = (column("start_time")?, column("end_time")?);
        for row in &series.rows {
            let text = |at: usize| row.string(at).ok_or(CallFailure::NotInflux);
            if text(db_at)? == db && text(rp_at)? == rp {
                let time = |at| nanoseconds(&text(at)?).ok_or(CallFailure::NotInflux);
                groups.push((time(begin_at)?, time(end_at)?));
            }
        }
    }
    Ok(disjoint(&groups, from_ns))
}

/// The earliest time that has not expired at `now_ns`. None when the policy's duration is malformed.
pub fn living_from(policy: &Policy, now_ns: i64) -> Option<i64> {
    match duration_ns(&policy.duration)? {
        0 => Some(TIME_MIN),
        duration => Some(now_ns.saturating_sub(duration).max(TIME_MIN)),
    }
}

/// An interval without the slices in `done`; newest first.
pub fn without(interval: Interval, rp: &str, done: &[Slice]) -> Vec<Interval> {
    let mut left = vec![interval];
    for slice in done.iter().filter(|slice| slice.rp == rp) {
        left = left
            .into_iter()
            .flat_map(|(begin, end)| [(begin.max(slice.end_ns), end), (begin, end.min(slice.begin_ns))])
            .filter(|(begin, end)| begin < end)
            .collect();
    }
    left
}

/// Cuts an interval into equal parts, newest first, so many that each is small if its values are spread evenly. None
/// when it needs no cut, or cannot be cut.
pub fn parts((begin, end): Interval, values: u64) -> Option<Vec<Interval>> {
    let wanted = values.div_ceil(limits::SLICE_VALUES_MAX).min(limits::SLICE_PARTS_MAX);
    let width = end.abs_diff(begin).div_ceil(wanted.max(1));
    if wanted < 2 || width == end.abs_diff(begin) {
        return None;
    }
    let mut parts = Vec::new();
    let mut at = begin;
    while at < end {
        let next = at.saturating_add_unsigned(width).min(end);
        parts.push((at, next));
        at = next;
    }
    parts.reverse();
    Some(parts)
}

fn disjoint(groups: &[Interval], from_ns: i64) -> Vec<Interval> {
    let mut bounds: Vec<i64> = groups.iter().flat_map(|&(begin, end)| [begin, end]).chain([from_ns]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let is_covered = |&(begin, end): &Interval| {
        begin >= from_ns && groups.iter().any(|&(group_begin, group_end)| group_begin <= begin && end <= group_end)
    };
    bounds.windows(2).rev().map(|pair| (pair[0], pair[1])).filter(is_covered).collect()
}

/// Parses an RFC 3339 time in UTC to nanoseconds since 1970, clamped to the times that InfluxDB stores.
fn nanoseconds(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let number = |text: Option<&str>| text?.parse::<i64>().ok();
    let mut parts = date.split('-');
    let (year, month, day) = (number(parts.next())?, number(parts.next())?, number(parts.next())?);
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next())?, number(parts.next())?, number(parts.next())?);
    if !(1..=12).contains(&month) || fraction.len() > 9 {
        return None;
    }
    let fraction_ns: i128 = format!("{fraction:0<9}").parse().ok()?;
    // Days before the month in a year that begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (153 * month + 2) / 5 + day
            - 1
            - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    if seconds >= TIME_END / 1_000_000_000 {
        return Some(TIME_END);
    }
    let whole = i128::from(seconds) * 1_000_000_000 + fraction_ns;
    Some(i64::try_from(whole).unwrap_or(TIME_MIN).max(TIME_MIN))
}

/// Parses a duration as Go prints it: `168h0m0s`, `0s`.
fn duration_ns(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let (unit_ns, tail) =
            [("ms", 1_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)]
                .iter()
                .find_map(|(unit, unit_ns)| Some((*unit_ns, tail.strip_prefix(unit)?)))?;
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(unit_ns)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(begin_ns: i64, end_ns: i64) -> Slice {
        Slice { rp: "a".into(), begin_ns, end_ns }
    }

    #[test]
    fn times_are_read_as_influxdb_prints_them() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-29T00:00:00Z", -3 * 86_400_000_000_000),
            ("2026-02-28T23:59:59.5Z", 1_772_323_199_500_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000),
            ("1677-09-20T00:00:00Z", TIME_MIN),
            ("2262-04-11T23:47:16Z", TIME_END),
        ] {
            assert_eq!(nanoseconds(text), Some(want), "{text}");
        }
        for text in ["", "2026-02-28", "2026-13-01T00:00:00Z", "2026-01-01T00:00Z"] {
            assert_eq!(nanoseconds(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_influxdb_prints_them() {
        let cases = [("0s", Some(0)), ("168h0m0s", Some(604_800_000_000_000)), ("1h30m1s", Some(5_401_000_000_000))];
        for (text, want) in cases.into_iter().chain([("", None), ("1d", None), ("h", None), ("9999999999h", None)]) {
            assert_eq!(duration_ns(text), want, "{text}");
        }
    }

    #[test]
    fn overlapping_groups_become_disjoint_slices_from_the_newest_on() {
        assert_eq!(disjoint(&[(0, 10), (10, 20), (30, 40)], i64::MIN), [(30, 40), (10, 20), (0, 10)]);
        assert_eq!(disjoint(&[(0, 10), (8, 12)], i64::MIN), [(10, 12), (8, 10), (0, 8)]);
        assert_eq!(disjoint(&[(0, 10), (10, 20)], 15), [(15, 20)]);
        assert_eq!(disjoint(&[], 15), []);
    }

    #[test]
    fn finished_slices_are_left_out_of_an_interval() {
        assert_eq!(without((0, 10), "a", &[slice(3, 5)]), [(5, 10), (0, 3)]);
        assert_eq!(without((0, 10), "a", &[slice(5, 10), slice(-3, 2)]), [(2, 5)]);
        assert_eq!(without((0, 10), "a", &[slice(0, 10)]), []);
        assert_eq!(without((0, 10), "b", &[slice(0, 10)]), [(0, 10)]);
    }

    #[test]
    fn parts_meet_and_are_small() {
        let max = limits::SLICE_VALUES_MAX;
        assert_eq!(parts((0, 10), max), None);
        assert_eq!(parts((0, 10), max + 1), Some(vec![(5, 10), (0, 5)]));
        assert_eq!(parts((0, 10), 3 * max), Some(vec![(8, 10), (4, 8), (0, 4)]));
        assert_eq!(parts((7, 8), 3 * max), None, "a nanosecond");
        assert_eq!(parts((7, 9), u64::MAX), Some(vec![(8, 9), (7, 8)]));
        let whole = parts((TIME_MIN, TIME_END), u64::MAX).unwrap();
        assert_eq!(whole.len() as u64, limits::SLICE_PARTS_MAX);
        assert!(whole.windows(2).all(|pair| pair[0].0 == pair[1].1));
        assert_eq!((whole[0].1, whole[whole.len() - 1].0), (TIME_END, TIME_MIN));
    }
}

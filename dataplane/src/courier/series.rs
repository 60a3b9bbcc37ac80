//! Which lines a database that is at its limit of series is likely to refuse. A guess only decides how a search divides
//! a request: a wrong one costs requests, never a point.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use twox_hash::XxHash3_64;

use super::hint;
use crate::limits::{SERIES_REMEMBERED_FOR, SERIES_REMEMBERED_MAX};

/// What is known of a series; the likeliest to be refused first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Refused,
    Unknown,
    Stored,
}

/// The series that searches have found refused or stored, by a hash of database and series key.
#[derive(Debug, Default)]
pub struct SeriesMemory {
    refused: HashMap<u64, bool>,
    used: Option<Instant>,
}

impl SeriesMemory {
    pub fn fate(&self, db: &[u8], series: &[u8]) -> Fate {
        match self.refused.get(&hash(db, series)) {
            Some(true) => Fate::Refused,
            Some(false) => Fate::Stored,
            None => Fate::Unknown,
        }
    }

    /// Notes what a search has found; `found` gives series and whether they were refused.
    pub fn learn<'a>(&mut self, db: &[u8], found: impl Iterator<Item = (&'a [u8], bool)>, now: Instant) {
        self.used = Some(now);
        for (series, refused) in found {
            if self.refused.len() >= SERIES_REMEMBERED_MAX {
                self.refused.clear();
            }
            self.refused.insert(hash(db, series), refused);
        }
    }

    /// Forgets everything when nothing has been learned for some time.
    pub fn release(&mut self, now: Instant) {
        let is_old = |used: Instant| now.saturating_duration_since(used) > SERIES_REMEMBERED_FOR;
        if self.used.is_some_and(is_old) {
            *self = Self::default();
        }
    }
}

fn hash(db: &[u8], series: &[u8]) -> u64 {
    XxHash3_64::oneshot(db).rotate_left(1) ^ XxHash3_64::oneshot(series)
}

/// Numbers the series of a request, the likeliest to be refused first, and returns for each line the number of its
/// series.
///
/// What is not remembered is ordered by experience: series that a limit keeps out are made anew all the time, so they
/// have few lines, and their keys lie close together.
pub fn ranks(body: &[u8], lines: &[Range<usize>], fate: &dyn Fn(&[u8]) -> Fate) -> Vec<u32> {
    let series = |line: u32| hint::series(&body[lines[line as usize].clone()]);
    let mut by_hash: Vec<(u64, u32)> = (0..).zip(lines).map(|(i, _)| (XxHash3_64::oneshot(series(i)), i)).collect();
    by_hash.sort_unstable();
    let one_series = by_hash.chunk_by(|a, b| a.0 == b.0);
    let mut all: Vec<_> = one_series.map(|lines| (fate(series(lines[0].1)), lines.len(), lines)).collect();
    all.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| series(a.2[0].1).cmp(series(b.2[0].1))));
    let mut ranks = vec![0; lines.len()];
    for (rank, (_, _, lines)) in (0..).zip(all) {
        lines.iter().for_each(|&(_, line)| ranks[line as usize] = rank);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::courier::bisect_test::split;

    #[test]
    fn the_likeliest_come_first_refused_then_unknown_then_stored() {
        let body = b"known,h=1 v=1 1\nb v=1\nb v=2\nnew,h=2 v=1\nnew,h=1 v=1\nold v=1\nknown,h=1 v=2 2\nb v=3\n";
        let fate = |series: &[u8]| match series {
            b"known,h=1" => Fate::Stored,
            b"b" => Fate::Refused,
            _ => Fate::Unknown,
        };
        // b, new,h=1, new,h=2, old, known
        assert_eq!(ranks(body, &split(body), &fate), [4, 0, 0, 2, 1, 3, 4, 0]);
        let unknown = |_: &[u8]| Fate::Unknown;
        // new,h=1, new,h=2, old, known, b: of few lines first.
        assert_eq!(ranks(body, &split(body), &unknown), [3, 4, 4, 1, 0, 2, 3, 4]);
    }

    #[test]
    fn what_was_found_is_remembered_by_database_and_not_for_ever() {
        let now = Instant::now();
        let mut memory = SeriesMemory::default();
        memory.learn(b"db", [(&b"a"[..], true), (b"b", false)].into_iter(), now);
        let fates = |m: &SeriesMemory| [b"a", b"b", b"c"].map(|series| m.fate(b"db", series));
        assert_eq!(fates(&memory), [Fate::Refused, Fate::Stored, Fate::Unknown]);
        assert_eq!(memory.fate(b"other", b"a"), Fate::Unknown);
        memory.learn(b"db", [(&b"a"[..], false)].into_iter(), now);
        assert_eq!(fates(&memory), [Fate::Stored, Fate::Stored, Fate::Unknown]);
        memory.release(now + SERIES_REMEMBERED_FOR);
        assert_eq!(memory.fate(b"db", b"a"), Fate::Stored);
        memory.release(now + SERIES_REMEMBERED_FOR + Duration::from_nanos(1));
        assert_eq!(fates(&memory), [Fate::Unknown; 3]);
        for i in 0..SERIES_REMEMBERED_MAX as u64 + 10 {
            memory.learn(b"db", [(&i.to_le_bytes()[..], true)].into_iter(), now);
            assert!(memory.refused.len() <= SERIES_REMEMBERED_MAX);
        }
    }
}

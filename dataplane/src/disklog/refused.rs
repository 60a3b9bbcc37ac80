//! Lines of a log that a backend has refused for the type of a field.
//!
//! All backends apply a log in the same order, so healthy ones refuse the same lines. One that was replaced by an empty
//! server is not healthy in this sense: of a backlog it would take such a line first, and then refuse the good ones. So
//! what one backend has refused is remembered as long as another one has not received it, also across restarts.
//!
//! Not here: who asks (`courier/deliver.rs`).

use std::collections::BTreeMap;

use super::Seq;
use crate::limits::REFUSED_LINES_MAX;

/// The refused lines of one log.
#[derive(Debug, Default)]
pub struct RefusedLines {
    /// By record: numbers of lines in it, ascending.
    records: BTreeMap<Seq, Vec<u32>>,
    lines: usize,
}

impl RefusedLines {
    /// A backend has refused these lines of a record. Beyond [`REFUSED_LINES_MAX`] they are not remembered.
    pub fn add(&mut self, record: Seq, lines: &[u32]) {
        let known = self.records.entry(record).or_default();
        for &line in lines {
            if self.lines < REFUSED_LINES_MAX
                && let Err(at) = known.binary_search(&line)
            {
                known.insert(at, line);
                self.lines += 1;
            }
        }
        if known.is_empty() {
            self.records.remove(&record);
        }
    }

    /// The lines of this record that a backend has refused.
    pub fn of(&self, record: Seq) -> &[u32] {
        self.records.get(&record).map(Vec::as_slice).unwrap_or_default()
    }

    /// Forgets what lies before this record: nobody needs it any more.
    pub fn forget_before(&mut self, first: Seq) {
        if self.records.first_key_value().is_some_and(|(record, _)| *record < first) {
            self.records = self.records.split_off(&first);
            self.lines = self.records.values().map(Vec::len).sum();
        }
    }

    /// All, by record.
    pub fn list(&self) -> Vec<(Seq, Vec<u32>)> {
        self.records.iter().map(|(record, lines)| (*record, lines.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_until_all_backends_have_passed_their_record() {
        let mut refused = RefusedLines::default();
        refused.add(Seq(7), &[2, 5]);
        refused.add(Seq(9), &[0]);
        refused.add(Seq(7), &[3, 5]);
        assert_eq!((refused.of(Seq(7)), refused.of(Seq(8))), (&[2, 3, 5][..], &[][..]));
        refused.forget_before(Seq(7));
        assert_eq!(refused.list(), [(Seq(7), vec![2, 3, 5]), (Seq(9), vec![0])]);
        refused.forget_before(Seq(8));
        assert_eq!(refused.list(), [(Seq(9), vec![0])]);
    }

    #[test]
    fn beyond_the_bound_the_first_ones_are_kept() {
        let mut refused = RefusedLines::default();
        let lines: Vec<u32> = (0..REFUSED_LINES_MAX as u32 - 1).collect();
        refused.add(Seq(1), &lines);
        refused.add(Seq(2), &[4, 5]);
        refused.add(Seq(3), &[1]);
        refused.forget_before(Seq(2));
        assert_eq!(refused.list(), [(Seq(2), vec![4])]);
        refused.add(Seq(3), &[1]);
        assert_eq!(refused.of(Seq(3)), [1], "there is room again");
    }
}

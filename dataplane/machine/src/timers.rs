//! What is due when: a queue for times that only grow. What is due at the same time leaves in the order it came in.
//!
//! An entry lies in the row of the highest bit in which its time differs from that of the last entry taken (a radix
//! heap). Whenever it moves, it moves to a lower row, so an entry costs a few steps however many others wait: most are
//! timeouts that nobody waits for any more.

use std::collections::VecDeque;

const ROWS: usize = u64::BITS as usize;

pub(crate) struct Timers<T> {
    /// The time of the last entry taken.
    last: u64,
    /// What is due at that time.
    due: VecDeque<T>,
    rows: [Vec<(u64, T)>; ROWS],
    /// The earliest time in each row that has entries.
    earliest: [u64; ROWS],
    /// A bit for each row that has entries.
    used: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        let rows = [const { Vec::new() }; ROWS];
        Self { last: 0, due: VecDeque::new(), rows, earliest: [u64::MAX; ROWS], used: 0 }
    }
}

impl<T> Timers<T> {
    /// The earliest time.
    pub(crate) fn next(&self) -> Option<u64> {
        if !self.due.is_empty() {
            return Some(self.last);
        }
        (self.used != 0).then(|| self.earliest[self.used.trailing_zeros() as usize])
    }

    /// Takes an entry whose time is not before that of the last one taken.
    pub(crate) fn put(&mut self, at: u64, what: T) {
        assert!(at >= self.last, "{at} is over at {}", self.last);
        let Some(row) = (at ^ self.last).checked_ilog2() else { return self.due.push_back(what) };
        self.rows[row as usize].push((at, what));
        self.earliest[row as usize] = self.earliest[row as usize].min(at);
        self.used |= 1 << row;
    }

    /// The earliest entry, if it is due at `now`. Entries that are `over` may be left out.
    pub(crate) fn take(&mut self, now: u64, over: impl Fn(&T) -> bool) -> Option<T> {
        while self.due.is_empty() {
            self.last = self.next().filter(|next| *next <= now)?;
            let row = self.used.trailing_zeros() as usize;
            self.used &= !(1 << row);
            self.earliest[row] = u64::MAX;
            if self.rows[row].len() == 1 {
                return self.rows[row].pop().map(|(_, what)| what);
            }
            let mut entries = std::mem::take(&mut self.rows[row]);
            entries.drain(..).filter(|(_, what)| !over(what)).for_each(|(at, what)| self.put(at, what));
            // Its memory is used again.
            self.rows[row] = entries;
        }
        self.due.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn entries_leave_by_time_and_then_in_the_order_they_came_in() {
        let (mut rng, mut timers, mut now, mut number) = (Rng::new(1), Timers::default(), 0, 0);
        let mut waiting = BTreeSet::new();
        for _ in 0..5_000 {
            for _ in 0..rng.below(4) {
                let spread = [1, 3, 1_000, 1 << 20][rng.below(4) as usize];
                let at = now + rng.below(spread);
                timers.put(at, (at, number));
                waiting.insert((at, number));
                number += 1;
            }
            assert_eq!(timers.next(), waiting.first().map(|(at, _)| *at));
            while let Some(entry) = timers.take(now, |_| false) {
                assert_eq!(Some(entry), waiting.pop_first());
            }
            assert!(waiting.first().is_none_or(|(at, _)| *at > now));
            now += rng.below(2_000);
        }
    }

    #[test]
    fn what_is_over_hides_nothing_that_is_due() {
        let mut timers = Timers::default();
        [(9, 1), (9, 3), (11, 2), (700, 4)].into_iter().for_each(|(at, what)| timers.put(at, what));
        let left: Vec<_> = std::iter::from_fn(|| timers.take(1_000, |what| what % 2 == 1)).collect();
        assert_eq!(left, [2, 4]);
    }
}

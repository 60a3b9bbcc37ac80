//! A set of point numbers, as the load generator assigns them.

use std::collections::BTreeMap;

/// Numbers in one block of [`Serials`].
const BLOCK: u64 = 64 * 64;

/// A set of point numbers, in blocks of bits: a backend's part of a load is dense, but not consecutive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Serials {
    blocks: BTreeMap<u64, Box<[u64; 64]>>,
    len: u64,
}

impl Serials {
    /// False if it was in the set already.
    pub fn insert(&mut self, n: u64) -> bool {
        let word = &mut self.blocks.entry(n / BLOCK).or_insert_with(|| Box::new([0; 64]))[(n % BLOCK / 64) as usize];
        let new = *word & (1 << (n % 64)) == 0;
        *word |= 1 << (n % 64);
        self.len += u64::from(new);
        new
    }

    pub fn contains(&self, n: u64) -> bool {
        self.blocks.get(&(n / BLOCK)).is_some_and(|block| block[(n % BLOCK / 64) as usize] & (1 << (n % 64)) != 0)
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.blocks.iter().flat_map(|(block, words)| (block * BLOCK..).step_by(64).zip(**words));
        words.flat_map(|(start, word)| (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| start + bit))
    }

    /// First and last of each run of consecutive numbers, in order.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for n in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == n => *last = n,
                _ => runs.push((n, n)),
            }
        }
        runs
    }

    /// Adds all numbers of `other`.
    pub fn merge(&mut self, other: &Serials) {
        for n in other.iter() {
            self.insert(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn serials_agree_with_a_plain_set(
            numbers in prop::collection::vec(prop_oneof![0u64..40, 4050u64..4150], 0..90)
        ) {
            let (mut serials, mut plain) = (Serials::default(), BTreeSet::new());
            for n in numbers {
                prop_assert_eq!(serials.insert(n), plain.insert(n));
            }
            prop_assert_eq!(serials.len(), plain.len() as u64);
            for n in (0..41).chain(4049..4151) {
                prop_assert_eq!(serials.contains(n), plain.contains(&n));
            }
            let mut merged = Serials::default();
            merged.insert(7);
            merged.merge(&serials);
            prop_assert_eq!(merged.len(), plain.len() as u64 + u64::from(!plain.contains(&7)));
            let runs = serials.runs();
            prop_assert!(runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let numbers: Vec<_> = runs.iter().flat_map(|(a, b)| *a..=*b).collect();
            prop_assert_eq!(numbers, plain.into_iter().collect::<Vec<_>>());
        }
    }
}

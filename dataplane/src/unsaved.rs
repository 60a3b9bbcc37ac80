//! Points that a backend has refused and that are settled, as long as their own log has not saved that. Another log may
//! have saved that everything below a stamp is settled; after a crash these counts tell which of it was refused.
//!
//! Not here: who keeps them (`order.rs`), how they are saved (`disklog/state.rs`), who counts them (`serve/offer.rs`).

use std::borrow::Cow;

use crate::limits::BACKEND_NAME_BYTES_MAX;

/// Refused points of some records of one log, of one database and policy, that are settled together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsavedRefusal {
    /// N of the log's directory `worker-N`.
    pub worker: usize,
    /// The sequence of the last one of these records.
    pub record: u64,
    pub db: Box<[u8]>,
    pub rp: Box<[u8]>,
    pub reason: Cow<'static, str>,
    pub points: u64,
}

impl UnsavedRefusal {
    fn is_like(&self, other: &Self) -> bool {
        (self.worker, &self.db, &self.rp, &self.reason) == (other.worker, &other.db, &other.rp, &other.reason)
    }

    fn join(&mut self, new: &Self) {
        self.record = self.record.max(new.record);
        self.points += new.points;
    }

    /// Bytes in a saved state, at most.
    fn bytes(&self) -> usize {
        3 * (self.db.len() + self.rp.len() + self.reason.len()) + 2 * BACKEND_NAME_BYTES_MAX + 80
    }
}

/// Those of one backend, over all logs.
#[derive(Debug)]
pub struct UnsavedRefusals {
    all: Vec<UnsavedRefusal>,
    bytes: usize,
    bytes_max: usize,
}

impl UnsavedRefusals {
    pub fn new(bytes_max: usize) -> Self {
        Self { all: Vec::new(), bytes: 0, bytes_max }
    }

    /// Adds what is settled together, each with the stamp of its last record. `below`: everything below this stamp will
    /// count as settled in all logs. What lies above is kept apart from it.
    pub fn add(&mut self, refused: Vec<(u64, UnsavedRefusal)>, below: u64) {
        let (mut covered, mut uncovered) = (Vec::<UnsavedRefusal>::new(), Vec::new());
        for (stamp, new) in refused {
            let part = if stamp < below { &mut covered } else { &mut uncovered };
            match part.iter_mut().find(|old| old.is_like(&new)) {
                Some(old) => old.join(&new),
                None => part.push(new),
            }
        }
        covered.into_iter().chain(uncovered).for_each(|new| self.push(new));
    }

    fn push(&mut self, new: UnsavedRefusal) {
        if self.bytes + new.bytes() <= self.bytes_max {
            self.bytes += new.bytes();
            self.all.push(new);
        } else if let Some(old) = self.all.iter_mut().rfind(|old| old.is_like(&new)) {
            // Not exact if the log saves one of them and not the other.
            old.join(&new);
        }
    }

    /// Adds what another log's state says of the same moment.
    pub fn unite(&mut self, others: &[UnsavedRefusal]) {
        for other in others {
            if !self.all.contains(other) {
                self.push(other.clone());
            }
        }
    }

    /// Forgets those of a log that are not to be kept.
    pub fn retain(&mut self, worker: usize, keep: impl Fn(&UnsavedRefusal) -> bool) {
        self.all.retain(|refusal| refusal.worker != worker || keep(refusal));
        self.bytes = self.all.iter().map(UnsavedRefusal::bytes).sum();
    }

    pub fn clear(&mut self) {
        self.all.clear();
        self.bytes = 0;
    }

    pub fn list(&self) -> &[UnsavedRefusal] {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(worker: usize, record: u64, points: u64) -> UnsavedRefusal {
        let (db, rp) = (b"db"[..].into(), b""[..].into());
        UnsavedRefusal { worker, record, db, rp, reason: "refused".into(), points }
    }

    #[test]
    fn what_is_settled_together_is_one_but_for_what_no_other_log_counts_as_settled() {
        let mut all = UnsavedRefusals::new(1 << 20);
        let other = UnsavedRefusal { rp: b"week"[..].into(), ..refusal(1, 4, 1) };
        let refused = vec![(7, refusal(1, 3, 1)), (8, refusal(1, 5, 2)), (8, other.clone()), (9, refusal(1, 6, 4))];
        all.add([refused, vec![(9, refusal(1, 7, 1)), (8, refusal(2, 1, 1))]].concat(), 9);
        assert_eq!(all.list(), [refusal(1, 5, 3), other.clone(), refusal(2, 1, 1), refusal(1, 7, 5)]);
        all.add(vec![(10, refusal(1, 9, 1))], 11);
        assert_eq!(all.list().last(), Some(&refusal(1, 9, 1)), "the log may save in between");
        all.unite(&[refusal(2, 1, 1), refusal(3, 1, 1)]);
        assert_eq!(all.list().len(), 6);
        all.retain(1, |refusal| refusal.record >= 7);
        assert_eq!(all.list(), [refusal(2, 1, 1), refusal(1, 7, 5), refusal(1, 9, 1), refusal(3, 1, 1)]);
    }

    #[test]
    fn beyond_the_bound_they_are_counted_together() {
        let mut all = UnsavedRefusals::new(2 * refusal(1, 1, 1).bytes());
        for record in 1..10 {
            all.add(vec![(record, refusal(1, record, 1))], record + 1);
        }
        assert_eq!(all.list(), [refusal(1, 1, 1), refusal(1, 9, 8)]);
        all.retain(1, |refusal| refusal.record > 1);
        all.add(vec![(10, refusal(1, 10, 1))], 11);
        assert_eq!(all.list(), [refusal(1, 9, 8), refusal(1, 10, 1)], "there is room again");
    }
}

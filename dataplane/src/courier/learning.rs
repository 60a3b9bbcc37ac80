//! Databases that this backend has lacked: it was replaced by an empty server, or somebody has dropped them there. It
//! does not know the types of their fields, so other circles judge lines first.

use std::time::{Duration, Instant};

use crate::limits::{COURIER_GROUPS_MAX, LEARNING_LOOK_INTERVAL, LEARNING_WAIT};

/// The databases, at most [`COURIER_GROUPS_MAX`]. Beyond that the oldest is forgotten.
#[derive(Debug, Default)]
pub struct Learning(Vec<LearningDatabase>);

#[derive(Debug)]
struct LearningDatabase {
    db: Box<[u8]>,
    /// Since when its next lines wait for others.
    waits_since: Option<Instant>,
}

impl Learning {
    /// The backend lacks the database.
    pub fn begin(&mut self, db: &[u8]) {
        if self.is_on(db) {
            return;
        }
        if self.0.len() >= COURIER_GROUPS_MAX {
            self.0.remove(0);
        }
        self.0.push(LearningDatabase { db: db.into(), waits_since: None });
    }

    /// Whether the backend may not know the types of this database.
    pub fn is_on(&self, db: &[u8]) -> bool {
        self.0.iter().any(|learning| *learning.db == *db)
    }

    /// After which time lines of this database that must wait are looked at again: the longer they have waited, the
    /// later. None: they need not wait. `judged`: others have them already. Who has waited in vain for
    /// [`LEARNING_WAIT`] waits no more.
    pub fn must_wait(&mut self, db: &[u8], judged: bool, now: Instant) -> Option<Duration> {
        let at = self.0.iter().position(|learning| *learning.db == *db)?;
        if judged {
            self.0[at].waits_since = None;
            return None;
        }
        let since = *self.0[at].waits_since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        if waited >= LEARNING_WAIT {
            self.0.remove(at);
            return None;
        }
        Some((waited / 4).max(LEARNING_LOOK_INTERVAL).min(LEARNING_WAIT - waited))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_new_database_wait_until_others_have_them_but_not_for_ever() {
        let (mut learning, now) = (Learning::default(), Instant::now());
        assert_eq!(learning.must_wait(b"db", false, now), None, "a database that was always there");
        learning.begin(b"db");
        learning.begin(b"db");
        assert_eq!(learning.must_wait(b"db", false, now), Some(LEARNING_LOOK_INTERVAL));
        assert_eq!(learning.must_wait(b"other", false, now), None);
        assert_eq!(learning.must_wait(b"db", true, now + LEARNING_WAIT), None);
        assert_eq!(learning.must_wait(b"db", false, now + LEARNING_WAIT), Some(LEARNING_LOOK_INTERVAL), "anew");
        let (mut at, mut looks) = (now + LEARNING_WAIT, 0);
        while let Some(rest) = learning.must_wait(b"db", false, at) {
            (at, looks) = (at + rest, looks + 1);
        }
        assert_eq!(at, now + 2 * LEARNING_WAIT);
        assert!(looks < 30, "{looks}");
        assert!(!learning.is_on(b"db"), "others do not judge");
        (0..=COURIER_GROUPS_MAX).for_each(|n| learning.begin(&n.to_be_bytes()));
        assert!(!learning.is_on(&0_usize.to_be_bytes()) && learning.is_on(&COURIER_GROUPS_MAX.to_be_bytes()));
    }
}

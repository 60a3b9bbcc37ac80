//! Databases that this backend has lacked: it was replaced by an empty server, or somebody has dropped them there. It
//! does not know the types of their fields, so other circles judge lines first.

use std::time::Instant;

use crate::limits::{COURIER_GROUPS_MAX, LEARNING_WAIT};

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

    /// Whether lines of this database must wait. `judged`: others have them already. Who has waited in vain for
    /// [`LEARNING_WAIT`] waits no more.
    pub fn must_wait(&mut self, db: &[u8], judged: bool, now: Instant) -> bool {
        let Some(at) = self.0.iter().position(|learning| *learning.db == *db) else { return false };
        if judged {
            self.0[at].waits_since = None;
            return false;
        }
        let since = *self.0[at].waits_since.get_or_insert(now);
        let waits = now.saturating_duration_since(since) < LEARNING_WAIT;
        if !waits {
            self.0.remove(at);
        }
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_new_database_wait_until_others_have_them_but_not_for_ever() {
        let (mut learning, now) = (Learning::default(), Instant::now());
        assert!(!learning.must_wait(b"db", false, now), "a database that was always there");
        learning.begin(b"db");
        learning.begin(b"db");
        assert!(learning.must_wait(b"db", false, now) && !learning.must_wait(b"other", false, now));
        assert!(!learning.must_wait(b"db", true, now + LEARNING_WAIT));
        assert!(learning.must_wait(b"db", false, now + LEARNING_WAIT), "each time anew");
        assert!(!learning.must_wait(b"db", false, now + 2 * LEARNING_WAIT));
        assert!(!learning.is_on(b"db"), "others do not judge");
        (0..=COURIER_GROUPS_MAX).for_each(|n| learning.begin(&n.to_be_bytes()));
        assert!(!learning.is_on(&0_usize.to_be_bytes()) && learning.is_on(&COURIER_GROUPS_MAX.to_be_bytes()));
    }
}

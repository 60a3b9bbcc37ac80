//! Decides about points whose database or policy the backend does not have.
//!
//! The points of one (database, policy) are held for a while. The start of this time is remembered across windows, so
//! that a database that exists nowhere holds up other points only once, not with every window.

use std::time::Instant;

use crate::handoff::Created;
use crate::limits::{COURIER_GROUPS_MAX, MISSING_DB_HOLD, UNKNOWN_DB_CACHE};
use crate::settings::MissingDb;

/// A database and a policy, as the writers named it.
type Named<'a> = (&'a [u8], &'a [u8]);

/// What happens to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreationStep {
    /// The database or policy exists now: send the request again.
    Again,
    /// Keep the request and try again after a pause.
    Hold,
    /// Make the lines dead letters, with this reason.
    Reject(&'static str),
}

#[derive(Debug)]
struct MissingEntry {
    db: Box<[u8]>,
    rp: Box<[u8]>,
    /// Since when no backend is known to have it.
    nowhere_since: Option<Instant>,
    asked: Option<Instant>,
    /// The control thread has reported that it was created.
    created: bool,
    /// The last reason written to the program's log.
    said: String,
}

/// The databases and policies that this backend lacks, at most [`COURIER_GROUPS_MAX`]. Beyond that the oldest is
/// forgotten, and its points are held for the full time again.
#[derive(Debug)]
pub struct Missing {
    rule: MissingDb,
    entries: Vec<MissingEntry>,
}

impl Missing {
    pub fn new(rule: MissingDb) -> Self {
        Self { rule, entries: Vec::new() }
    }

    /// A write to this database and policy has succeeded.
    pub fn found(&mut self, db: &[u8], rp: &[u8]) {
        self.entries.retain(|e| *e.db != *db || *e.rp != *rp);
    }

    /// The backend has just refused points because it lacks their database or policy; `text` is its error. None: ask
    /// the control thread to create it, and pass the answer to [`Missing::answered`].
    pub fn lacked(&mut self, label: &str, named: Named<'_>, text: &str, now: Instant) -> Option<CreationStep> {
        match self.rule {
            MissingDb::Reject => Some(CreationStep::Reject(reason(text))),
            MissingDb::Hold => Some(self.answered(label, named, text, Created::NowhereElse, now)),
            MissingDb::Create => {
                // The answer "nowhere" is reused for a moment: to ask makes the control thread query every backend.
                let entry = self.entry(named);
                let recent = |at: Instant| now.saturating_duration_since(at) < UNKNOWN_DB_CACHE;
                if entry.nowhere_since.is_some() && entry.asked.is_some_and(recent) {
                    return Some(self.answered(label, named, text, Created::NowhereElse, now));
                }
                entry.asked = Some(now);
                None
            }
        }
    }

    /// What to do with the request after the control thread's answer.
    pub fn answered(
        &mut self,
        label: &str,
        named: Named<'_>,
        text: &str,
        created: Created,
        now: Instant,
    ) -> CreationStep {
        let entry = self.entry(named);
        match created {
            Created::Done if !entry.created => {
                entry.created = true;
                log::info!("{label}: {text}: created on this backend as it is on another");
                CreationStep::Again
            }
            // It was created, but the backend still lacks it: do not create it again at once.
            Created::Done => CreationStep::Hold,
            Created::NowhereElse => {
                let since = *entry.nowhere_since.get_or_insert(now);
                entry.say(label, text, "no other backend has it; held for a while");
                if now.saturating_duration_since(since) >= MISSING_DB_HOLD {
                    CreationStep::Reject(reason(text))
                } else {
                    CreationStep::Hold
                }
            }
            Created::Failed(why) => {
                entry.say(label, text, &why);
                CreationStep::Hold
            }
        }
    }

    fn entry(&mut self, (db, rp): Named<'_>) -> &mut MissingEntry {
        let index = match self.entries.iter().position(|e| *e.db == *db && *e.rp == *rp) {
            Some(index) => index,
            None => {
                if self.entries.len() >= COURIER_GROUPS_MAX {
                    self.entries.remove(0);
                }
                self.entries.push(MissingEntry {
                    db: db.into(),
                    rp: rp.into(),
                    nowhere_since: None,
                    asked: None,
                    created: false,
                    said: String::new(),
                });
                self.entries.len() - 1
            }
        };
        &mut self.entries[index]
    }
}

impl MissingEntry {
    /// Logs each new reason once.
    fn say(&mut self, label: &str, text: &str, why: &str) {
        if self.said != why {
            log::warn!("{label}: {text}; points are kept: {why}");
            why.clone_into(&mut self.said);
        }
    }
}

fn reason(text: &str) -> &'static str {
    if text.contains("retention policy") { "retention policy not found" } else { "database not found" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TEXT: &str = "database not found: \"d\"";

    const GROUP: Named<'static> = (b"d", b"");
    const OTHER: Named<'static> = (b"e", b"");

    #[test]
    fn points_of_a_database_that_is_nowhere_are_held_once_and_then_rejected() {
        let start = Instant::now();
        let mut missing = Missing::new(MissingDb::Create);
        assert_eq!(missing.lacked("b", GROUP, TEXT, start), None);
        assert_eq!(missing.answered("b", GROUP, TEXT, Created::NowhereElse, start), CreationStep::Hold);
        assert_eq!(missing.lacked("b", GROUP, TEXT, start), Some(CreationStep::Hold), "not asked again at once");
        let later = start + MISSING_DB_HOLD;
        assert_eq!(missing.lacked("b", GROUP, TEXT, later), None, "asked again later");
        let rejected = CreationStep::Reject("database not found");
        assert_eq!(missing.answered("b", GROUP, TEXT, Created::NowhereElse, later), rejected);
        assert_eq!(missing.lacked("b", GROUP, TEXT, later), Some(rejected), "the next window is not held");
        assert_eq!(missing.lacked("b", OTHER, TEXT, later), None, "another database is held for the full time");
        missing.found(b"d", b"");
        assert_eq!(missing.lacked("b", GROUP, TEXT, later), None);
        assert_eq!(missing.answered("b", GROUP, TEXT, Created::NowhereElse, later), CreationStep::Hold);
    }

    #[test]
    fn while_others_cannot_be_asked_points_are_held_without_bound() {
        let mut missing = Missing::new(MissingDb::Create);
        let mut now = Instant::now();
        for _ in 0..10 {
            assert_eq!(missing.lacked("b", GROUP, TEXT, now), None);
            assert_eq!(
                missing.answered("b", GROUP, TEXT, Created::Failed("b2 is down".into()), now),
                CreationStep::Hold
            );
            now += MISSING_DB_HOLD;
        }
        assert_eq!(missing.answered("b", GROUP, TEXT, Created::Done, now), CreationStep::Again);
        assert_eq!(
            missing.answered("b", GROUP, TEXT, Created::Done, now),
            CreationStep::Hold,
            "it says so and it is not so"
        );
    }

    #[test]
    fn the_settings_decide() {
        let now = Instant::now();
        let text = "retention policy not found: x";
        let reject = Missing::new(MissingDb::Reject).lacked("b", GROUP, text, now);
        assert_eq!(reject, Some(CreationStep::Reject("retention policy not found")));
        let mut hold = Missing::new(MissingDb::Hold);
        assert_eq!(hold.lacked("b", GROUP, text, now), Some(CreationStep::Hold));
        let almost = now + MISSING_DB_HOLD - Duration::from_millis(1);
        assert_eq!(hold.lacked("b", GROUP, text, almost), Some(CreationStep::Hold));
        assert_eq!(hold.lacked("b", GROUP, text, now + MISSING_DB_HOLD), reject);
    }
}

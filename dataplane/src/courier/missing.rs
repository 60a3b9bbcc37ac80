//! What to do about a database or policy the backend does not have.
//!
//! Held points are those of one (database, policy); how long they have been held is remembered beyond a window, so that
//! a database that exists nowhere holds the others up once and not with every window.

use std::time::Instant;

use super::window::Group;
use crate::handoff::Created;
use crate::limits::{COURIER_GROUPS_MAX, MISSING_DB_HOLD, UNKNOWN_DB_CACHE};
use crate::settings::MissingDb;

/// What becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreationStep {
    /// It exists now: send it again.
    Again,
    /// Keep it, try again after a pause.
    Hold,
    /// Dead-letter it, under this reason.
    Reject(&'static str),
}

#[derive(Debug)]
struct MissingEntry {
    db: Box<[u8]>,
    rp: Box<[u8]>,
    /// Since when it is known to be nowhere.
    nowhere_since: Option<Instant>,
    asked: Option<Instant>,
    /// It was created, they say.
    created: bool,
    /// The last thing said in the program's log.
    said: String,
}

/// The databases and policies this backend lacks, at most [`COURIER_GROUPS_MAX`] (the oldest is forgotten: its points
/// are held anew).
#[derive(Debug)]
pub struct Missing {
    rule: MissingDb,
    entries: Vec<MissingEntry>,
}

impl Missing {
    pub fn new(rule: MissingDb) -> Self {
        Self { rule, entries: Vec::new() }
    }

    /// A write to it has succeeded.
    pub fn found(&mut self, db: &[u8], rp: &[u8]) {
        self.entries.retain(|e| *e.db != *db || *e.rp != *rp);
    }

    /// The backend has just said that it lacks the group's database or policy (`text`: its words). None: the control
    /// thread must be asked to create it, and its answer given to [`Missing::answered`].
    pub fn lacked(&mut self, label: &str, group: &Group, text: &str, now: Instant) -> Option<CreationStep> {
        match self.rule {
            MissingDb::Reject => Some(CreationStep::Reject(reason(text))),
            MissingDb::Hold => Some(self.answered(label, group, text, Created::NowhereElse, now)),
            MissingDb::Create => {
                // The answer "nowhere" is good for a moment; asking costs the control thread a look at every backend.
                let entry = self.entry(group);
                let recent = |at: Instant| now.saturating_duration_since(at) < UNKNOWN_DB_CACHE;
                if entry.nowhere_since.is_some() && entry.asked.is_some_and(recent) {
                    return Some(self.answered(label, group, text, Created::NowhereElse, now));
                }
                entry.asked = Some(now);
                None
            }
        }
    }

    /// What the control thread's answer means for the request.
    pub fn answered(&mut self, label: &str, group: &Group, text: &str, created: Created, now: Instant) -> CreationStep {
        let entry = self.entry(group);
        match created {
            Created::Done if !entry.created => {
                entry.created = true;
                log::info!("{label}: {text}: created there as another backend has it");
                CreationStep::Again
            }
            // Created, and yet the backend lacks it: not again at once.
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

    fn entry(&mut self, group: &Group) -> &mut MissingEntry {
        let index = match self.entries.iter().position(|e| e.db == group.db && e.rp == group.rp) {
            Some(index) => index,
            None => {
                if self.entries.len() >= COURIER_GROUPS_MAX {
                    self.entries.remove(0);
                }
                self.entries.push(MissingEntry {
                    db: group.db.clone(),
                    rp: group.rp.clone(),
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
    /// Once for each new reason.
    fn say(&mut self, label: &str, text: &str, why: &str) {
        if self.said != why {
            log::warn!("{label}: {text}; its points are kept: {why}");
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
    use crate::courier::window::{Bounds, Window};
    use crate::disklog::{RecordView, Seq};
    use crate::precision::Precision;

    const TEXT: &str = "database not found: \"d\"";

    fn window() -> Window {
        let mut window = Window::new(Bounds { lines: 10, bytes: 1000 });
        for db in [b"d", b"e"] {
            let record = RecordView {
                seq: Seq(1),
                db,
                rp: b"",
                precision: Precision::Second,
                appended_ms: 0,
                lines: 1,
                bytes: b"m v=1\n",
            };
            assert!(window.take(&record));
        }
        window
    }

    #[test]
    fn points_of_a_database_that_is_nowhere_are_held_once_and_then_rejected() {
        let window = window();
        let (group, other) = (&window.groups[0], &window.groups[1]);
        let start = Instant::now();
        let mut missing = Missing::new(MissingDb::Create);
        assert_eq!(missing.lacked("b", group, TEXT, start), None);
        assert_eq!(missing.answered("b", group, TEXT, Created::NowhereElse, start), CreationStep::Hold);
        assert_eq!(missing.lacked("b", group, TEXT, start), Some(CreationStep::Hold), "not asked again at once");
        let later = start + MISSING_DB_HOLD;
        assert_eq!(missing.lacked("b", group, TEXT, later), None, "asked again later");
        let rejected = CreationStep::Reject("database not found");
        assert_eq!(missing.answered("b", group, TEXT, Created::NowhereElse, later), rejected);
        assert_eq!(missing.lacked("b", group, TEXT, later), Some(rejected), "the next window is not held");
        assert_eq!(missing.lacked("b", other, TEXT, later), None, "another database begins anew");
        missing.found(b"d", b"");
        assert_eq!(missing.lacked("b", group, TEXT, later), None);
        assert_eq!(missing.answered("b", group, TEXT, Created::NowhereElse, later), CreationStep::Hold);
    }

    #[test]
    fn while_others_cannot_be_asked_points_are_held_without_bound() {
        let window = window();
        let group = &window.groups[0];
        let mut missing = Missing::new(MissingDb::Create);
        let mut now = Instant::now();
        for _ in 0..10 {
            assert_eq!(missing.lacked("b", group, TEXT, now), None);
            assert_eq!(
                missing.answered("b", group, TEXT, Created::Failed("b2 is down".into()), now),
                CreationStep::Hold
            );
            now += MISSING_DB_HOLD;
        }
        assert_eq!(missing.answered("b", group, TEXT, Created::Done, now), CreationStep::Again);
        assert_eq!(
            missing.answered("b", group, TEXT, Created::Done, now),
            CreationStep::Hold,
            "it says so and it is not so"
        );
    }

    #[test]
    fn the_settings_decide() {
        let window = window();
        let group = &window.groups[0];
        let now = Instant::now();
        let text = "retention policy not found: x";
        let reject = Missing::new(MissingDb::Reject).lacked("b", group, text, now);
        assert_eq!(reject, Some(CreationStep::Reject("retention policy not found")));
        let mut hold = Missing::new(MissingDb::Hold);
        assert_eq!(hold.lacked("b", group, text, now), Some(CreationStep::Hold));
        let almost = now + MISSING_DB_HOLD - Duration::from_millis(1);
        assert_eq!(hold.lacked("b", group, text, almost), Some(CreationStep::Hold));
        assert_eq!(hold.lacked("b", group, text, now + MISSING_DB_HOLD), reject);
    }
}

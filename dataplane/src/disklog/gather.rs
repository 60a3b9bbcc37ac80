//! How long a commit waits for company.
//!
//! A commit costs about as much CPU as several small requests, and clients that wait for acks come back soon after they
//! got them. So when many have just been acknowledged together, the next frame waits until most of them are in it, for
//! at most [`COMMIT_GATHER_MAX`]. A lone client never waits: there is nobody to wait for. Clients that do not come back
//! in time (open-loop senders) are found out at once, and the next commits go without waiting.
//!
//! Pure: times are given, nothing is awaited here.

use std::time::{Duration, Instant};

use crate::limits::{COMMIT_GATHER_FORGET, COMMIT_GATHER_MAX};

/// Fewer than this are no crowd.
const CROWD_MIN: u32 = 4;
/// Commits without a wait after one that was in vain.
const PATIENCE_LOST: u32 = 64;

/// What the commit task has seen of its callers.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Appends that are expected to come together: acknowledged by the last commit, or waiting when it ended.
    crowd: u32,
    last: Option<Instant>,
    skip: u32,
}

impl Gather {
    /// A frame of `appends` has been written, and `waiting` more have come meanwhile.
    pub(super) fn committed(&mut self, appends: u32, waiting: u32, now: Instant) {
        self.crowd = appends + waiting;
        self.last = Some(now);
        self.skip = self.skip.saturating_sub(1);
    }

    /// How many appends the open frame, which has `waiting`, should wait for; None = write it now.
    pub(super) fn target(&self, waiting: u32, now: Instant) -> Option<u32> {
        let fresh = self.last.is_some_and(|last| now.saturating_duration_since(last) < COMMIT_GATHER_FORGET);
        let target = self.crowd - self.crowd / 4;
        (fresh && self.skip == 0 && self.crowd >= CROWD_MIN && waiting < target).then_some(target)
    }

    /// A wait for `target` has ended with `came` appends in the frame.
    pub(super) fn waited(&mut self, target: u32, came: u32) {
        if came < target {
            self.skip = PATIENCE_LOST;
        }
    }

    /// The longest wait.
    pub(super) fn bound() -> Duration {
        COMMIT_GATHER_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_client_never_waits() {
        let (mut gather, now) = (Gather::default(), Instant::now());
        assert_eq!(gather.target(1, now), None, "nothing is known yet");
        gather.committed(1, 0, now);
        assert_eq!(gather.target(1, now), None);
    }

    #[test]
    fn a_crowd_that_was_acknowledged_is_waited_for() {
        let (mut gather, now) = (Gather::default(), Instant::now());
        gather.committed(20, 12, now);
        assert_eq!(gather.target(12, now), Some(24));
        assert_eq!(gather.target(24, now), None, "most are here");
        assert_eq!(gather.target(12, now + COMMIT_GATHER_FORGET), None, "they have gone");
    }

    #[test]
    fn who_does_not_come_back_is_not_waited_for_again_soon() {
        let (mut gather, now) = (Gather::default(), Instant::now());
        gather.committed(20, 12, now);
        gather.waited(24, 13);
        for _ in 0..PATIENCE_LOST {
            assert_eq!(gather.target(1, now), None);
            gather.committed(20, 12, now);
        }
        assert_eq!(gather.target(1, now), Some(24));
    }
}

//! How long a commit waits for more appends.
//!
//! A commit costs about as much CPU as several small requests, and clients that wait for acks soon send the next
//! request. So after many have been acknowledged together, the next frame waits until most of them are in it, for at
//! most [`COMMIT_GATHER_MAX`]. A single client never waits. When the clients do not return in time (open-loop senders),
//! the next commits do not wait.
//!
//! Pure: the caller passes the time and does the waiting.

use std::time::{Duration, Instant};

use crate::limits::{COMMIT_GATHER_FORGET, COMMIT_GATHER_MAX};

/// With fewer appends than this a commit does not wait.
const EXPECTED_MIN: u32 = 4;
/// Commits without a wait after a wait that did not pay.
const COMMITS_WITHOUT_WAIT: u32 = 64;

/// What the commit task has seen of recent appends.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Appends expected to come together: those acknowledged by the last commit and those waiting when it ended.
    expected: u32,
    last: Option<Instant>,
    skip: u32,
}

impl Gather {
    /// A frame of `appends` has been written, and `waiting` more have arrived since it was sealed.
    pub(super) fn committed(&mut self, appends: u32, waiting: u32, now: Instant) {
        self.expected = appends + waiting;
        self.last = Some(now);
        self.skip = self.skip.saturating_sub(1);
    }

    /// How many appends the open frame, which has `waiting`, should wait for; None = write it now.
    pub(super) fn target(&self, waiting: u32, now: Instant) -> Option<u32> {
        let fresh = self.last.is_some_and(|last| now.saturating_duration_since(last) < COMMIT_GATHER_FORGET);
        let target = self.expected - self.expected / 4;
        (fresh && self.skip == 0 && self.expected >= EXPECTED_MIN && waiting < target).then_some(target)
    }

    /// A wait for `target` has ended with `came` appends in the frame.
    pub(super) fn waited(&mut self, target: u32, came: u32) {
        if came < target {
            self.skip = COMMITS_WITHOUT_WAIT;
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
    fn a_commit_waits_for_clients_that_were_acknowledged_together() {
        let (mut gather, now) = (Gather::default(), Instant::now());
        gather.committed(20, 12, now);
        assert_eq!(gather.target(12, now), Some(24));
        assert_eq!(gather.target(24, now), None, "most have arrived");
        assert_eq!(gather.target(12, now + COMMIT_GATHER_FORGET), None, "too long ago");
    }

    #[test]
    fn after_a_wait_in_vain_the_next_commits_do_not_wait() {
        let (mut gather, now) = (Gather::default(), Instant::now());
        gather.committed(20, 12, now);
        gather.waited(24, 13);
        for _ in 0..COMMITS_WITHOUT_WAIT {
            assert_eq!(gather.target(1, now), None);
            gather.committed(20, 12, now);
        }
        assert_eq!(gather.target(1, now), Some(24));
    }
}

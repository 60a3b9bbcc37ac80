//! Keeps order across workers: their couriers serve one backend from different logs, and a point that was written again
//! later through another worker must not arrive before the older one.
//!
//! Each courier publishes the time of the oldest record it has not settled. A record may be sent unless another courier
//! holds one that is older by more than [`ORDER_SLACK`]; closer writes have no defined order. The courier with the
//! oldest record never waits, so one always makes progress. If it does not (its database is missing), the others wait
//! for at most [`ORDER_WAIT`].

use std::time::Instant;

use crate::limits::{ORDER_SLACK, ORDER_WAIT};

/// What one courier waits for. Times are milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Turn {
    /// The older record of another worker that is waited for, and since when.
    waiting: Option<(u64, Instant)>,
    /// The record that has been waited for long enough.
    passed: Option<u64>,
}

impl Turn {
    /// Whether a record appended at `at` may be sent while the oldest record of other workers is from `elsewhere`.
    pub fn may_send(&self, at: u64, elsewhere: u64) -> bool {
        let slack = u64::try_from(ORDER_SLACK.as_millis()).unwrap_or(u64::MAX);
        self.passed == Some(elsewhere) || at <= elsewhere.saturating_add(slack)
    }

    /// A record must wait for the one from `elsewhere`.
    pub fn wait_for(&mut self, elsewhere: u64, now: Instant) {
        match self.waiting {
            Some((same, since)) if same == elsewhere => {
                if now.saturating_duration_since(since) >= ORDER_WAIT {
                    self.passed = Some(elsewhere);
                }
            }
            _ => self.waiting = Some((elsewhere, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_newer_record_waits_for_an_older_one_elsewhere() {
        let turn = Turn::default();
        let slack = ORDER_SLACK.as_millis() as u64;
        assert!(turn.may_send(50_000, u64::MAX), "no other worker holds a record");
        assert!(turn.may_send(50_000, 50_000 - slack));
        assert!(!turn.may_send(50_000, 50_000 - slack - 1));
        assert!(!turn.may_send(50_000, 0), "a worker that has not looked yet may hold anything");
    }

    #[test]
    fn a_worker_that_does_not_move_is_passed_after_a_while_and_waited_for_again_when_it_does() {
        let (mut turn, start) = (Turn::default(), Instant::now());
        turn.wait_for(100, start);
        turn.wait_for(100, start + ORDER_WAIT / 2);
        assert!(!turn.may_send(50_000, 100));
        turn.wait_for(100, start + ORDER_WAIT);
        assert!(turn.may_send(50_000, 100));
        assert!(!turn.may_send(50_000, 200), "it has moved");
        turn.wait_for(200, start + ORDER_WAIT + Duration::from_millis(1));
        assert!(!turn.may_send(50_000, 200));
    }
}

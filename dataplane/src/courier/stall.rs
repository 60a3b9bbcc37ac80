//! Detects a courier that makes no progress, for any reason, and logs it.
//!
//! `/health` detects the same by the age of the oldest point, and does not depend on the courier.

use std::time::Instant;

use super::source::DeliveryState;
use crate::limits::{LOUD_INTERVAL, STALL_AFTER};

#[derive(Debug, Default)]
pub struct Stall {
    /// When the held points were fetched, or when the cursor last moved.
    since: Option<Instant>,
    told_at: Option<Instant>,
}

impl Stall {
    /// The courier has points that are not settled.
    pub fn holds_points(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// The cursor has moved, and the courier holds no points.
    pub fn progressed(&mut self, label: &str, now: Instant) {
        if let (Some(since), Some(_)) = (self.since.take(), self.told_at.take()) {
            log::info!("{label}: makes progress again after {} s", now.saturating_duration_since(since).as_secs());
        }
    }

    /// Logs that the cursor has not moved for `STALL_AFTER`, and again every `LOUD_INTERVAL`.
    pub fn tell(&mut self, label: &str, state: DeliveryState, now: Instant) {
        if let Some(seconds) = self.due(now) {
            let why = match state {
                DeliveryState::Up => "the backend answers, but takes or refuses only some of the points",
                DeliveryState::Down => "the backend is down",
                DeliveryState::Refusing => "the backend refuses all writes",
            };
            log::warn!("{label}: the cursor has not moved for {seconds} s, points wait in the log: {why}");
        }
    }

    /// Seconds without progress, if it is time to log them.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let stalled = now.saturating_duration_since(self.since?);
        let quiet = self.told_at.is_some_and(|at| now.saturating_duration_since(at) < LOUD_INTERVAL);
        if stalled < STALL_AFTER || quiet {
            return None;
        }
        self.told_at = Some(now);
        Some(stalled.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stall_is_told_after_a_while_again_at_intervals_and_not_once_it_has_ended() {
        let (mut stall, start) = (Stall::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(stall.due(at(1000)), None, "nothing is held");
        stall.holds_points(at(0));
        stall.holds_points(at(9));
        assert_eq!([9, 10, 11, 69, 70, 71].map(|s| stall.due(at(s))), [None, Some(10), None, None, Some(70), None]);
        stall.progressed("b", at(72));
        assert_eq!(stall.due(at(500)), None);
        stall.holds_points(at(500));
        assert_eq!([509, 510].map(|s| stall.due(at(s))), [None, Some(10)], "a new stall is counted from its start");
    }
}

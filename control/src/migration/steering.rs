//! The controls of a running migration: cancel, pause, rate limit, and how long a failing call is repeated.
//!
//! All threads of a migration share one. Threads check for a pause between batches and finish the current one first. A
//! cancel also ends running calls.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::influx::client::CallFailure;
use crate::limits;

/// A request to control a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    Cancel,
    Pause,
    Resume,
}

#[derive(Debug)]
pub struct Steering {
    pub(super) cancelled: Arc<AtomicBool>,
    paused: AtomicBool,
    /// Line protocol per second, over all threads; 0 = unlimited.
    bytes_per_second: AtomicU64,
    bucket: Mutex<Bucket>,
    calls: Mutex<Calls>,
}

/// Running calls, which a cancel ends.
#[derive(Debug, Default)]
struct Calls {
    last: u64,
    agents: BTreeMap<u64, Vec<ureq::Agent>>,
}

/// While it lives, a cancel ends the calls of these agents at once.
#[derive(Debug)]
pub struct Interrupts<'a> {
    steering: &'a Steering,
    number: u64,
}

impl Drop for Interrupts<'_> {
    fn drop(&mut self) {
        self.steering.calls().agents.remove(&self.number);
    }
}

/// Why a thread must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    Cancelled,
    /// Open connections must be closed, since a pause may be long.
    Paused,
}

/// Why a call failed, after all retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallLost {
    Cancelled,
    /// It failed until the end of the retries.
    Gone(String),
    /// It failed in a way that a retry does not change.
    Refused(CallFailure),
}

impl Steering {
    /// `bytes_per_second` of line protocol over all threads; 0 = unlimited.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            cancelled: Arc::default(),
            paused: AtomicBool::new(false),
            bytes_per_second: AtomicU64::new(bytes_per_second),
            bucket: Mutex::new(Bucket { tokens: 0.0, filled: Instant::now() }),
            calls: Mutex::default(),
        }
    }

    /// Cancels for good.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
        let agents = std::mem::take(&mut self.calls().agents);
        agents.into_values().flatten().for_each(ureq::Agent::shutdown);
    }

    /// From now on a cancel ends the calls of `agents`. They must not be shared with others.
    pub(super) fn interrupts(&self, agents: impl IntoIterator<Item = ureq::Agent>) -> Interrupts<'_> {
        let agents: Vec<_> = agents.into_iter().collect();
        let mut calls = self.calls();
        calls.last += 1;
        let number = calls.last;
        calls.agents.insert(number, agents);
        drop(calls);
        if self.is_cancelled() {
            self.cancel();
        }
        Interrupts { steering: self, number }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Slices that are being read are read again after a pause.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    /// Sets the rate limit; 0 = unlimited.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), Halt> {
        match (self.is_cancelled(), self.is_paused()) {
            (true, _) => Err(Halt::Cancelled),
            (false, true) => Err(Halt::Paused),
            (false, false) => Ok(()),
        }
    }

    /// Returns when there is no pause; false when cancelled.
    pub(super) fn wait_while_paused(&self) -> bool {
        while self.check() == Err(Halt::Paused) {
            thread::sleep(limits::MIGRATION_NAP);
        }
        !self.is_cancelled()
    }

    /// False when cancelled meanwhile.
    pub(super) fn sleep(&self, duration: Duration) -> bool {
        let end = Instant::now() + duration;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_cancelled() {
                return !self.is_cancelled();
            }
            thread::sleep(left.min(limits::MIGRATION_NAP));
        }
    }

    /// Waits until `bytes` may be written.
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Halt> {
        loop {
            self.check()?;
            let rate = self.bytes_per_second.load(Relaxed);
            if rate == 0 {
                return Ok(());
            }
            let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(wait) = bucket.take(bytes as f64, rate as f64, Instant::now()) else { return Ok(()) };
            drop(bucket);
            thread::sleep(wait.min(limits::MIGRATION_NAP));
        }
    }

    /// Repeats a call with growing pauses while its failure may pass, for at most `retry_for`.
    pub(super) fn retry<T>(
        &self,
        retry_for: Duration,
        progress: &Progress,
        mut call: impl FnMut() -> Result<T, CallFailure>,
    ) -> Result<T, CallLost> {
        let begin = Instant::now();
        let mut back_off = limits::BACK_OFF_MIN;
        loop {
            let failure = match call() {
                Ok(value) => return Ok(value),
                Err(_) if self.is_cancelled() => return Err(CallLost::Cancelled),
                Err(failure) => failure,
            };
            if !may_pass(&failure) {
                return Err(CallLost::Refused(failure));
            }
            if begin.elapsed() + back_off > retry_for {
                return Err(CallLost::Gone(failure.to_string()));
            }
            progress.retries.fetch_add(1, Relaxed);
            if !self.sleep(back_off) {
                return Err(CallLost::Cancelled);
            }
            back_off = (back_off * 2).min(limits::BACK_OFF_MAX);
        }
    }
}

fn may_pass(failure: &CallFailure) -> bool {
    match failure {
        CallFailure::Unreachable(_) => true,
        CallFailure::Status(status, _) => matches!(status, 408 | 429 | 500..),
        CallFailure::Unauthorized | CallFailure::NotInflux | CallFailure::Refused(_) => false,
    }
}

/// A token bucket that holds at most the tokens of one second. A larger batch leaves a debt.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Takes `bytes`. Some = not yet; ask again after this time.
    fn take(&mut self, bytes: f64, rate: f64, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * rate).min(rate);
        self.filled = now;
        if self.tokens < 0.0 {
            let wait = (-self.tokens / rate).min(limits::RATE_WAIT_MAX.as_secs_f64());
            return Some(Duration::from_secs_f64(wait));
        }
        self.tokens -= bytes;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_goes_through_than_the_rate_allows() {
        let begin = Instant::now();
        let mut bucket = Bucket { tokens: 0.0, filled: begin };
        let (mut passed, mut now) = (0.0, begin);
        while now < begin + Duration::from_secs(100) {
            if bucket.take(700.0, 1000.0, now).is_none() {
                passed += 700.0;
            }
            now += Duration::from_millis(10);
        }
        assert!((98_000.0..=101_400.0).contains(&passed), "{passed}");
    }

    #[test]
    fn only_failures_that_may_pass_are_tried_again() {
        let (steering, progress) = (Steering::new(0), Progress::default());
        let mut left = 2;
        let mut fails = |failure: CallFailure| {
            left = 2;
            steering.retry(Duration::from_secs(5), &progress, || {
                left -= 1;
                if left == 0 { Ok(()) } else { Err(failure.clone()) }
            })
        };
        assert_eq!(fails(CallFailure::Unreachable("reset".into())), Ok(()));
        assert_eq!(fails(CallFailure::Status(503, String::new())), Ok(()));
        let refused = CallFailure::Status(400, "partial write".into());
        assert_eq!(fails(refused.clone()), Err(CallLost::Refused(refused)));
        let gone = steering.retry(Duration::ZERO, &progress, || Err::<(), _>(CallFailure::Unreachable("no".into())));
        assert_eq!(gone, Err(CallLost::Gone("no".into())));
        steering.cancel();
        let cancelled =
            steering.retry(Duration::from_secs(5), &progress, || Err::<(), _>(CallFailure::Unreachable("no".into())));
        assert_eq!(cancelled, Err(CallLost::Cancelled));
    }
}

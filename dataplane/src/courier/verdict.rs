//! What the result of an attempt means for a batch, and how long a backend gets a pause. Pure: time is an argument.
//!
//! | result | verdict |
//! |---|---|
//! | an answer | as the table in `known` says |
//! | no connection, not HTTP | unavailable: wait, everything is kept |
//! | no answer in time | timed out: the same, but a batch that does so again and again is halved |
//! | connection cut | suspect: the backend may fail over this very batch |

use std::time::{Duration, Instant};

use super::answer::WriteAnswer;
use super::exchange::ExchangeFailure;
use super::known;
use crate::limits::BACKOFF_MIN;

/// The result of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVerdict {
    Delivered,
    /// Wait: everything is kept.
    Unavailable,
    TimedOut,
    /// Points for this database wait until an operator acts.
    Unauthorized,
    /// Everything waits until an operator acts.
    Misdirected,
    /// Points for this database wait: the server says why it does not take them now, and no line is at fault.
    NotNow,
    /// The database or policy is missing.
    Missing,
    TooLarge,
    /// `certain`: the backend's own storage or parser has refused. Otherwise a proxy in between may have answered.
    Refused {
        certain: bool,
    },
    /// The backend may fail over this very batch.
    Suspect,
}

impl WriteVerdict {
    /// InfluxDB 1.x distinguishes some cases only by the text.
    pub fn of(attempt: &Result<WriteAnswer, ExchangeFailure>) -> Self {
        let answer = match attempt {
            Ok(answer) => answer,
            Err(ExchangeFailure::TimedOut) => return Self::TimedOut,
            Err(ExchangeFailure::Cut) => return Self::Suspect,
            Err(
                ExchangeFailure::NoAddress
                | ExchangeFailure::Refused(_)
                | ExchangeFailure::Handshake(_)
                | ExchangeFailure::Garbled,
            ) => {
                return Self::Unavailable;
            }
        };
        known::verdict(answer)
    }
}

/// Whether the backend is done with the request. InfluxDB says "timeout" when its storage takes long and still goes on,
/// and a proxy in between does not know.
pub fn is_final(answer: &WriteAnswer) -> bool {
    !(matches!(answer.status, 502 | 504) || answer.status == 500 && answer.error == "timeout")
}

/// The few reasons under which refused points are counted. The full text is in each dead letter.
pub fn reason(text: &str) -> &'static str {
    const REASONS: [&str; 8] = [
        "field type conflict",
        "points beyond retention policy",
        "max-series-per-database limit exceeded",
        "max-values-per-tag limit exceeded",
        "unable to parse",
        "invalid tag key",
        "invalid field name",
        "key contains invalid unicode",
    ];
    REASONS.into_iter().find(|r| text.contains(r)).unwrap_or("refused")
}

/// Small deterministic noise (xorshift64*), so that couriers do not retry at the same moment.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Returns `whole` or up to a quarter less.
    fn shorten(&mut self, whole: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let noise = (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u32;
        whole - whole / 4 * noise / 256
    }
}

/// Pauses that double from [`BACKOFF_MIN`] up to a maximum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    attempts: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Another attempt has failed.
    pub fn failed(&mut self, now: Instant, longest: Duration, jitter: &mut Jitter) {
        let pause = BACKOFF_MIN.saturating_mul(1 << self.attempts.min(20)).min(longest.max(BACKOFF_MIN));
        self.attempts += 1;
        self.until = Some(now + jitter.shorten(pause));
    }

    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// A pause without a failure.
    pub fn rest(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// Ends this pause. The next one is still longer.
    pub fn cut_short(&mut self) {
        self.until = None;
    }

    /// There was a failure since the last success.
    pub fn is_running(&self) -> bool {
        self.attempts > 0
    }

    pub fn due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// The state of a backend as one courier sees it.
#[derive(Debug)]
pub struct Health {
    backoff: Backoff,
    jitter: Jitter,
    longest: Duration,
    /// First failure since the last success.
    down_since: Option<Instant>,
    /// The last failure was of a kind that a good probe disproves.
    unreachable: bool,
    last_success: Option<Instant>,
    probe_up: bool,
}

impl Health {
    /// `longest`: the maximum of a pause (`rewrite_interval`).
    pub fn new(longest: Duration, jitter: Jitter) -> Self {
        Self {
            backoff: Backoff::default(),
            jitter,
            longest,
            down_since: None,
            unreachable: false,
            last_success: None,
            probe_up: true,
        }
    }

    /// Notes a failure of the backend, not of the batch: nothing is sent during a pause. True: it was up before.
    /// `unreachable`: a good probe ends the pause.
    pub fn failed(&mut self, now: Instant, unreachable: bool) -> bool {
        self.backoff.failed(now, self.longest, &mut self.jitter);
        self.unreachable = unreachable;
        self.suspected(now)
    }

    /// Notes a failure that may be the batch's own: the backend counts as down, but other batches are sent. True: it
    /// was up before.
    pub fn suspected(&mut self, now: Instant) -> bool {
        self.down_since.replace(self.down_since.unwrap_or(now)).is_none()
    }

    /// Notes an answer that shows a working backend. Returns how long the backend had been down, if it was. `taken`:
    /// the answer confirmed a write.
    pub fn succeeded(&mut self, now: Instant, taken: bool) -> Option<Duration> {
        self.backoff.reset();
        if taken {
            self.last_success = Some(now);
        }
        self.down_since.take().map(|since| now.saturating_duration_since(since))
    }

    /// Notes the result of a probe. True: it ends a pause, since the backend answers again. After an answer like 401 or
    /// 429 a good probe proves nothing, so the pause goes on.
    pub fn probed(&mut self, up: bool) -> bool {
        self.probe_up = up;
        let cut = up && self.unreachable && self.backoff.until().is_some();
        if cut {
            self.backoff.cut_short();
        }
        cut
    }

    /// Whether something may be sent now.
    pub fn open(&self, now: Instant) -> bool {
        self.backoff.due(now)
    }

    /// The end of the pause.
    pub fn until(&self) -> Option<Instant> {
        self.backoff.until()
    }

    /// The backend itself has not failed since the last success.
    pub fn reachable(&self) -> bool {
        self.backoff.attempts == 0
    }

    /// The last probe found the backend up.
    pub fn probe_up(&self) -> bool {
        self.probe_up
    }

    /// The backend has taken a write at or after `since`.
    pub fn succeeded_since(&self, since: Instant) -> bool {
        self.last_success.is_some_and(|at| at >= since)
    }

    /// Sets a pause for one batch, with the same rules.
    pub fn pause(&mut self, backoff: &mut Backoff, now: Instant) {
        backoff.failed(now, self.longest, &mut self.jitter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_verdict() {
        use WriteVerdict::*;
        let f = |status: u16, error: &str, named: bool, want: WriteVerdict| {
            let attempt = Ok(WriteAnswer { status, error: error.into(), named });
            assert_eq!(WriteVerdict::of(&attempt), want, "{status} {error}");
        };
        f(204, "", false, Delivered);
        for other in [200, 201, 202, 205, 206, 299] {
            f(other, "", false, Misdirected);
            f(other, "timeout", true, Misdirected);
        }
        f(400, "partial write: field type conflict: ... dropped=1", true, Refused { certain: true });
        f(422, "", false, Refused { certain: false });
        f(401, "authorization failed", true, Unauthorized);
        f(403, "\"r\" user is not authorized", true, Unauthorized);
        f(404, "database not found: \"d\"", true, Missing);
        f(404, "404 page not found", false, Misdirected);
        f(405, "Method Not Allowed", false, Misdirected);
        f(400, "Client sent an HTTP request to an HTTPS server.", false, Misdirected);
        f(301, "", false, Misdirected);
        f(413, "Request Entity Too Large", true, TooLarge);
        f(429, "", false, Unavailable);
        f(500, "retention policy not found: x", true, Missing);
        f(500, "engine: unable to parse value", true, Suspect);
        f(500, "Internal Server Error", false, Suspect);
        f(502, "", false, Suspect);
        f(503, "request throttled", false, Unavailable);
        f(504, "", false, Unavailable);
        assert_eq!(WriteVerdict::of(&Err(ExchangeFailure::Cut)), Suspect);
        assert_eq!(WriteVerdict::of(&Err(ExchangeFailure::TimedOut)), TimedOut);
        assert_eq!(WriteVerdict::of(&Err(ExchangeFailure::NoAddress)), Unavailable);
        assert_eq!(WriteVerdict::of(&Err(ExchangeFailure::Garbled)), Unavailable);
        assert_eq!(
            WriteVerdict::of(&Err(ExchangeFailure::Refused(std::io::ErrorKind::ConnectionRefused))),
            Unavailable
        );
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again_after_a_success() {
        let longest = Duration::from_secs(10);
        let mut health = Health::new(longest, Jitter::new(42));
        let mut now = Instant::now();
        assert!(health.open(now));
        let mut want = BACKOFF_MIN;
        for attempt in 0..12 {
            assert_eq!(health.failed(now, true), attempt == 0, "only the first failure is a change");
            let until = health.until().unwrap();
            assert!(until >= now + want * 3 / 4 && until <= now + want, "{attempt}: {:?}", until - now);
            assert!(!health.open(until - Duration::from_nanos(1)));
            assert!(health.open(until));
            now = until;
            want = (want * 2).min(longest);
        }
        assert!(health.succeeded(now, true).is_some());
        assert!(health.succeeded(now, true).is_none());
        health.failed(now, true);
        assert!(health.until().unwrap() <= now + BACKOFF_MIN);
    }

    #[test]
    fn a_good_probe_ends_the_pause_of_an_unreachable_backend_only() {
        let now = Instant::now();
        let mut health = Health::new(Duration::from_secs(10), Jitter::new(1));
        assert!(!health.probed(true), "nothing to end");
        health.failed(now, true);
        assert!(!health.probed(false));
        assert!(!health.open(now));
        assert!(health.probed(true));
        assert!(health.open(now));
        assert!(!health.reachable(), "up is said by a write");
        health.failed(now, false);
        assert!(!health.probed(true), "a ping knows nothing of authorization");
        assert!(!health.open(now));
    }

    #[test]
    fn a_suspect_batch_does_not_stop_other_batches() {
        let now = Instant::now();
        let mut health = Health::new(Duration::from_secs(10), Jitter::new(1));
        assert!(health.suspected(now));
        assert!(!health.suspected(now));
        assert!(health.open(now) && health.reachable());
        assert_eq!(health.succeeded(now + Duration::from_secs(3), true), Some(Duration::from_secs(3)));
    }

    #[test]
    fn refusals_are_counted_under_few_names() {
        assert_eq!(reason("partial write: field type conflict: input field \"a\" ..."), "field type conflict");
        assert_eq!(reason("partial write: points beyond retention policy dropped=3"), "points beyond retention policy");
        assert_eq!(reason("what ever"), "refused");
    }
}

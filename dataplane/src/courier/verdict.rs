//! What an answer means for a batch, and how long a backend is left alone. Pure: time comes in as an argument.
//!
//! | backend says | verdict |
//! |---|---|
//! | 2xx | delivered |
//! | no connection, 408, 429, 503, 504, not HTTP | unavailable: wait, everything is kept |
//! | no answer in time | timed out: the same, but a batch that does so again and again is halved |
//! | 401, 403, 407 | unauthorized: wait, an operator must act |
//! | 1xx, 3xx, 404 and 405 without an InfluxDB error | misdirected: the same; no InfluxDB answers there |
//! | 404 `database not found`, 500 `retention policy not found` | missing |
//! | 413 | too large |
//! | 400, other 4xx | refused: some of the lines |
//! | other 5xx, connection cut | suspect: the backend may fail over this very batch |

use std::time::{Duration, Instant};

use super::answer::WriteAnswer;
use super::exchange::ExchangeFailure;
use crate::limits::BACKOFF_MIN;

/// What one attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteVerdict {
    Delivered,
    Unavailable,
    TimedOut,
    Unauthorized,
    Misdirected,
    Missing,
    TooLarge,
    /// `certain`: the backend's own storage or parser has said so. Otherwise something in between may have answered.
    Refused {
        certain: bool,
    },
    Suspect,
}

impl WriteVerdict {
    /// The texts that are looked at are the only way InfluxDB 1.x tells these cases apart.
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
        match answer.status {
            200..300 => Self::Delivered,
            401 | 403 | 407 => Self::Unauthorized,
            404 if answer.error.contains("database not found") => Self::Missing,
            500 if answer.error.contains("retention policy not found") => Self::Missing,
            404 | 405 if !answer.named => Self::Misdirected,
            // Go's server to those who forget the `s`: the url in the configuration is wrong, not the lines.
            400 if !answer.named && answer.error.contains("HTTP request to an HTTPS server") => Self::Misdirected,
            408 | 429 | 503 | 504 => Self::Unavailable,
            413 => Self::TooLarge,
            400..500 => Self::Refused { certain: answer.named },
            500.. => Self::Suspect,
            _ => Self::Misdirected,
        }
    }
}

/// The few names under which refused points are counted; the full text stands beside each dead letter.
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

/// Small deterministic noise (xorshift64*), so that couriers do not knock in step.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// `whole`, or up to a quarter less.
    fn shorten(&mut self, whole: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let noise = (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 56) as u32;
        whole - whole / 4 * noise / 256
    }
}

/// Pauses that double from [`BACKOFF_MIN`] to a longest one.
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

    /// Ends the pause, not the series.
    pub fn cut_short(&mut self) {
        self.until = None;
    }

    pub fn due(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    pub fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// A backend as one courier sees it.
#[derive(Debug)]
pub struct Health {
    backoff: Backoff,
    jitter: Jitter,
    longest: Duration,
    /// First failure since the last success.
    down_since: Option<Instant>,
    /// The last failure was one a good probe speaks against.
    unreachable: bool,
    last_success: Option<Instant>,
    probe_up: bool,
}

impl Health {
    /// `longest`: bound of a pause (`rewrite_interval`).
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

    /// A failure that is the backend's, not the batch's: nothing is sent for a while. True when it went down just now.
    /// `unreachable`: a good probe speaks against it.
    pub fn failed(&mut self, now: Instant, unreachable: bool) -> bool {
        self.backoff.failed(now, self.longest, &mut self.jitter);
        self.unreachable = unreachable;
        self.suspected(now)
    }

    /// A failure that may be the batch's: the backend counts as down, but other batches are tried. True when it went
    /// down just now.
    pub fn suspected(&mut self, now: Instant) -> bool {
        self.down_since.replace(self.down_since.unwrap_or(now)).is_none()
    }

    /// The backend has answered like one that works. Some(how long it had been down) when it came up just now.
    /// `taken`: it has taken a write.
    pub fn succeeded(&mut self, now: Instant, taken: bool) -> Option<Duration> {
        self.backoff.reset();
        if taken {
            self.last_success = Some(now);
        }
        self.down_since.take().map(|since| now.saturating_duration_since(since))
    }

    /// A probe's result. True when it ends a pause: the backend answers again. After an answer like 401 or 429 a probe
    /// says nothing new, so the pause goes on.
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

    /// Until when nothing may be sent.
    pub fn until(&self) -> Option<Instant> {
        self.backoff.until()
    }

    /// No failure of the backend's own since the last success.
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

    /// A pause for one batch, by the backend's rules.
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
        f(200, "", false, Delivered);
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
    fn pauses_double_up_to_the_longest_and_start_anew_after_a_success() {
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
    fn a_suspect_batch_closes_the_backend_for_nobody() {
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

//! Clocks and timers of the executor.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::timer::Timer;

pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, which may be set back.
pub fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A number that no other call, in this process or another one, is likely to have got.
pub fn unlike() -> u64 {
    // Keyed by the operating system's randomness; the time makes two calls differ.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u128(UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos()));
    hasher.finish()
}

/// The first sleep of an executor takes about 10 ms whatever is asked (glommio 0.9); workers warm up with one.
pub async fn sleep(duration: Duration) {
    Timer::new(duration).await;
}

/// Lets others run when this task has had its share; a socket with data always ready never yields by itself.
pub async fn yield_if_needed() {
    glommio::executor().yield_if_needed().await;
}

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

/// A number that no other call, in this process or another one, is likely to return.
pub fn unlike() -> u64 {
    // The hasher's keys are random; the time makes two calls differ.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u128(UNIX_EPOCH.elapsed().map_or(0, |d| d.as_nanos()));
    hasher.finish()
}

/// The first sleep of an executor takes about 10 ms, however short it should be (glommio 0.9). Workers do one at start.
pub async fn sleep(duration: Duration) {
    Timer::new(duration).await;
}

/// Lets other tasks run when this task has used its time slice; a socket that always has data never yields by itself.
pub async fn yield_if_needed() {
    glommio::executor().yield_if_needed().await;
}

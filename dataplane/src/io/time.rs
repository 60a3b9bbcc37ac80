//! Clock and timers of the executor.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;
use glommio::timer::Timer;

/// The time was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

pub fn now() -> Instant {
    Instant::now()
}

/// The first sleep of an executor takes about 10 ms whatever is asked (glommio 0.9); workers warm up with one.
pub async fn sleep(duration: Duration) {
    Timer::new(duration).await;
}

/// Drops `task` when `duration` has passed first.
///
/// # Errors
/// [`Elapsed`].
pub async fn timeout<T>(duration: Duration, task: impl Future<Output = T>) -> Result<T, Elapsed> {
    future::or(async { Ok(task.await) }, async {
        sleep(duration).await;
        Err(Elapsed)
    })
    .await
}

/// Lets others run when this task has had its share; a socket with data always ready never yields by itself.
pub async fn yield_if_needed() {
    glommio::executor().yield_if_needed().await;
}

//! Timeouts and elapsed times, made from the runtime's clock and timer.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;

use super::runtime::{now, sleep};

/// The timeout expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Time since `then`; zero for a time in the future.
pub fn elapsed(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// Runs `task`, but drops it when `duration` has passed.
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

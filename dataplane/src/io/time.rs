//! What follows from a clock and a timer.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;

use super::runtime::{now, sleep};

/// The time was up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Since `then`; nothing for a time to come.
pub fn elapsed(then: Instant) -> Duration {
    now().saturating_duration_since(then)
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

//! Timeouts and elapsed times, made from the runtime's clock and timer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

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
pub fn timeout<T>(duration: Duration, task: impl Future<Output = T>) -> impl Future<Output = Result<T, Elapsed>> {
    unless(task, async move {
        sleep(duration).await;
        Elapsed
    })
}

/// Runs `task`, but drops it when `end` has a value first.
///
/// # Errors
/// The value of `end`.
pub fn unless<T, E>(task: impl Future<Output = T>, end: impl Future<Output = E>) -> impl Future<Output = Result<T, E>> {
    Unless { task, end }
}

pin_project! {
    // By hand: an async function or block that awaits its argument has room for it twice, and each wait around it
    // doubles that again. Every connection and every courier would hold tens of KiB.
    struct Unless<F, E> {
        #[pin]
        task: F,
        #[pin]
        end: E,
    }
}

impl<F: Future, E: Future> Future for Unless<F, E> {
    type Output = Result<F::Output, E::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(value) = this.task.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        this.end.poll(cx).map(Err)
    }
}

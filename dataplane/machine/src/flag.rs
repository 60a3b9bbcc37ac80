//! A flag that one task waits for: raised once or often, it is lowered when that task goes on.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};
use std::task::{Poll, Waker};

/// Down at first. It may be sent to another thread, but all tasks of a machine are in one.
#[derive(Debug, Default)]
pub struct Flag {
    is_up: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Flag {
    pub fn raise(&self) {
        self.is_up.store(true, Relaxed);
        let waiting = self.waiting().take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Resolves when it has been raised, now or before, and lowers it.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.is_up.swap(false, Relaxed) {
                return Poll::Ready(());
            }
            self.waiting().replace(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().expect("nobody panics holding it")
    }
}

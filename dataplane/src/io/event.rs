//! "Something changed": many waiters on one executor, no value, no memory of the past.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes everybody who waits. A waiter must look at its condition again: the event carries no value.
#[derive(Debug, Default)]
pub struct Event {
    epoch: Cell<u64>,
    waiters: RefCell<Vec<Waker>>,
}

impl Event {
    pub fn notify(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        // Taken out first: a woken task may wait again at once.
        let waiters = std::mem::take(&mut *self.waiters.borrow_mut());
        for waker in waiters {
            waker.wake();
        }
    }

    /// Resolves at the next [`Event::notify`] after this call (not after the first poll), so that a condition checked
    /// before the call cannot be missed.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.epoch.get();
        poll_fn(move |cx| {
            if self.epoch.get() != seen {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|w| w.will_wake(cx.waker())) {
                waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_notify_between_call_and_poll_is_not_missed() {
        block_on(async {
            let event = Event::default();
            let waiting = event.wait();
            event.notify();
            assert_eq!(poll_once(waiting).await, Some(()));
            assert_eq!(poll_once(event.wait()).await, None, "the past is not remembered");
        });
    }
}

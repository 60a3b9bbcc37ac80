//! Waits for an event on the same executor. The event carries no value; the waiting task reads it elsewhere.
//!
//! A [`Wait`] made before the state is read cannot miss a later [`Event::notify`]: there is one thread, and a wait
//! stores how often the event had happened when it was made. A waiting task holds exactly one waker here (the runtime
//! counts wakers per task in 16 bits), and a dropped wait frees its slot.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// "Something changed": many waiters, no value; past events are not stored.
#[derive(Debug, Default)]
pub struct Event {
    happened: Cell<u64>,
    slots: RefCell<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Event {
    /// Wakes all tasks that wait now.
    pub fn notify(&self) {
        self.happened.set(self.happened.get() + 1);
        let mut wakers = {
            let mut slots = self.slots.borrow_mut();
            slots.free.clear();
            std::mem::take(&mut slots.wakers)
        };
        for waker in wakers.drain(..).flatten() {
            waker.wake();
        }
        let mut slots = self.slots.borrow_mut();
        if slots.wakers.is_empty() {
            slots.wakers = wakers; // keeps its capacity
        }
    }

    /// Resolves at the next [`Event::notify`] after this call (not after the first poll).
    pub fn wait(&self) -> Wait<'_> {
        Wait { event: self, since: self.happened.get(), slot: None }
    }
}

/// See [`Event::wait`].
#[derive(Debug)]
pub struct Wait<'a> {
    event: &'a Event,
    since: u64,
    slot: Option<usize>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.event.happened.get() != self.since {
            return Poll::Ready(());
        }
        let mut slots = self.event.slots.borrow_mut();
        match self.slot {
            Some(slot) => slots.wakers[slot] = Some(cx.waker().clone()),
            None => {
                let slot = slots.free.pop().unwrap_or_else(|| {
                    slots.wakers.push(None);
                    slots.wakers.len() - 1
                });
                slots.wakers[slot] = Some(cx.waker().clone());
                drop(slots);
                self.slot = Some(slot);
            }
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot
            && self.event.happened.get() == self.since
        {
            let mut slots = self.event.slots.borrow_mut();
            slots.wakers[slot] = None;
            slots.free.push(slot);
        }
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

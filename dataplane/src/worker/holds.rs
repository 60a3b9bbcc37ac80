//! Holds: stamps at which couriers stop. Several changes of structure may hold at the same time.
//!
//! The earliest stamp counts. Records behind it wait for all changes that begin meanwhile, too.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::handoff::Ticket;
use crate::io::Event;

#[derive(Debug, Default)]
pub struct Holds {
    marks: RefCell<HashMap<Ticket, u64>>,
    changed: Event,
}

impl Holds {
    /// Holds back records from the stamp `from` on. Returns the earliest hold.
    pub fn add(&self, ticket: Ticket, from: u64) -> Option<u64> {
        self.marks.borrow_mut().insert(ticket, from);
        self.first()
    }

    /// Removes a hold and returns the earliest one left (`Some(None)`: none is left). None: there was no such hold.
    #[allow(clippy::option_option)]
    pub fn remove(&self, ticket: Ticket) -> Option<Option<u64>> {
        self.marks.borrow_mut().remove(&ticket)?;
        self.changed.notify();
        Some(self.first())
    }

    /// Resolves when the hold does not exist.
    pub async fn removed(&self, ticket: Ticket) {
        loop {
            let changed = self.changed.wait();
            if !self.marks.borrow().contains_key(&ticket) {
                return;
            }
            changed.await;
        }
    }

    /// Whether a hold begins above `before` and not above `now`.
    pub fn any_within(&self, before: u64, now: u64) -> bool {
        self.marks.borrow().values().any(|&from| before < from && from <= now)
    }

    fn first(&self) -> Option<u64> {
        self.marks.borrow().values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn the_earliest_of_overlapping_holds_counts_in_whatever_order_they_end() {
        let holds = Holds::default();
        assert_eq!(holds.add(1, 10), Some(10));
        assert_eq!(holds.add(2, 20), Some(10));
        assert_eq!(holds.add(3, 20), Some(10));
        assert_eq!(holds.remove(2), Some(Some(10)), "the first one still wants it");
        assert_eq!(holds.remove(1), Some(Some(20)), "the third one still wants it");
        assert_eq!(holds.remove(1), None, "given up twice");
        assert_eq!(holds.remove(3), Some(None));
    }

    #[test]
    fn waiters_are_woken_at_the_end_of_a_hold() {
        block_on(async {
            let holds = Holds::default();
            holds.add(1, 10);
            let mut first = Box::pin(holds.removed(1));
            assert_eq!(poll_once(&mut first).await, None);
            holds.add(2, 10);
            holds.remove(1);
            assert_eq!(poll_once(first).await, Some(()));
            assert_eq!(poll_once(holds.removed(2)).await, None);
        });
    }
}

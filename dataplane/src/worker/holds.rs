//! Holds: places in the log at which couriers stop. Several changes of structure may hold at the same time.
//!
//! The earliest place counts. Records behind it wait for all changes that begin meanwhile, too.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::disklog::Seq;
use crate::handoff::Ticket;
use crate::io::Event;

#[derive(Debug, Default)]
pub struct Holds {
    marks: RefCell<HashMap<Ticket, Seq>>,
    changed: Event,
}

impl Holds {
    /// Holds back records from `mark` on. Returns the earliest hold.
    pub fn add(&self, ticket: Ticket, mark: Seq) -> Option<Seq> {
        self.marks.borrow_mut().insert(ticket, mark);
        self.first()
    }

    /// Removes a hold and returns the earliest one left (`Some(None)`: none is left). None: there was no such hold.
    #[allow(clippy::option_option)]
    pub fn remove(&self, ticket: Ticket) -> Option<Option<Seq>> {
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

    fn first(&self) -> Option<Seq> {
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
        assert_eq!(holds.add(1, Seq(10)), Some(Seq(10)));
        assert_eq!(holds.add(2, Seq(20)), Some(Seq(10)));
        assert_eq!(holds.add(3, Seq(20)), Some(Seq(10)));
        assert_eq!(holds.remove(2), Some(Some(Seq(10))), "the first one still wants it");
        assert_eq!(holds.remove(1), Some(Some(Seq(20))), "the third one still wants it");
        assert_eq!(holds.remove(1), None, "given up twice");
        assert_eq!(holds.remove(3), Some(None));
    }

    #[test]
    fn waiters_are_woken_at_the_end_of_a_hold() {
        block_on(async {
            let holds = Holds::default();
            holds.add(1, Seq(10));
            let mut first = Box::pin(holds.removed(1));
            assert_eq!(poll_once(&mut first).await, None);
            holds.add(2, Seq(10));
            holds.remove(1);
            assert_eq!(poll_once(first).await, Some(()));
            assert_eq!(poll_once(holds.removed(2)).await, None);
        });
    }
}

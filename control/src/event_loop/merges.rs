//! The queries that need a thread of their own: those that run, and those that wait for their turn.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use fluxgate_dataplane::handoff::QueryRequest;

use super::report::Asker;
use crate::limits::{MERGES_MAX, MERGES_WAITING_BYTES_MAX, MERGES_WAITING_MAX};

/// A query, and whom to answer.
#[derive(Debug)]
pub struct Merge {
    pub asker: Asker,
    pub request: Box<QueryRequest>,
    /// Its time runs from here on, also while it waits.
    pub asked: Instant,
}

impl Merge {
    fn bytes(&self) -> usize {
        let request = &self.request;
        let prometheus = request.prometheus.as_ref().map_or(0, Vec::len);
        request.q.len() + request.params.as_ref().map_or(0, String::len) + prometheus
    }
}

/// First come, first served.
#[derive(Debug, Default)]
pub struct Merges {
    running: usize,
    waiting: VecDeque<Merge>,
    waiting_bytes: usize,
}

/// What becomes of a query that has just come.
#[derive(Debug)]
pub enum Turn {
    /// To be started; [`Merges::ended`] follows.
    Now(Merge),
    /// [`Merges::ended`] returns it later.
    Later,
    Refused(Merge),
}

impl Merges {
    pub fn come(&mut self, merge: Merge) -> Turn {
        if self.running < MERGES_MAX {
            self.running += 1;
            return Turn::Now(merge);
        }
        // Those whose clients have gone make room.
        if self.is_full(&merge) {
            self.waiting.retain(|waiting| !waiting.request.cancelled.load(Relaxed));
            self.waiting_bytes = self.waiting.iter().map(Merge::bytes).sum();
        }
        if self.is_full(&merge) {
            return Turn::Refused(merge);
        }
        self.waiting_bytes += merge.bytes();
        self.waiting.push_back(merge);
        Turn::Later
    }

    fn is_full(&self, more: &Merge) -> bool {
        self.waiting.len() >= MERGES_WAITING_MAX || self.waiting_bytes + more.bytes() > MERGES_WAITING_BYTES_MAX
    }

    /// One has ended. Returns the next one, to be started.
    pub fn ended(&mut self) -> Option<Merge> {
        self.running -= 1;
        let next = self.waiting.pop_front()?;
        self.waiting_bytes -= next.bytes();
        self.running += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn merge(ticket: u64, text_bytes: usize) -> Merge {
        let request = QueryRequest { q: "x".repeat(text_bytes), ..QueryRequest::default() };
        Merge { asker: (0, ticket), request: Box::new(request), asked: Instant::now() }
    }

    #[test]
    fn more_queries_than_run_wait_in_order_and_are_bounded_by_number_and_bytes() {
        let mut merges = Merges::default();
        for ticket in 0..MERGES_MAX as u64 {
            assert!(matches!(merges.come(merge(ticket, 1)), Turn::Now(_)));
        }
        for ticket in 0..MERGES_WAITING_MAX as u64 {
            assert!(matches!(merges.come(merge(ticket, 1)), Turn::Later));
        }
        assert!(matches!(merges.come(merge(9, 1)), Turn::Refused(_)));
        merges.waiting[5].request.cancelled.store(true, Relaxed);
        assert!(matches!(merges.come(merge(9, 1)), Turn::Later), "in the place of one whose client has gone");
        assert_eq!(merges.ended().unwrap().asker.1, 0);
        assert_eq!(merges.ended().unwrap().asker.1, 1);
        let rest = MERGES_WAITING_BYTES_MAX - merges.waiting.len();
        assert!(matches!(merges.come(merge(9, rest + 1)), Turn::Refused(_)));
        assert!(matches!(merges.come(merge(9, rest)), Turn::Later));
        let mut last = 0;
        while let Some(next) = merges.ended() {
            last = next.request.q.len();
        }
        assert_eq!((last, merges.waiting_bytes), (rest, 0));
    }
}

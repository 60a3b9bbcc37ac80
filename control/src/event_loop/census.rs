//! Questions to all workers for their ledgers: which workers have answered, and when to stop waiting.
//!
//! Pure: the time is an argument, and the caller (`event_loop`) sends the messages.

use std::time::Instant;

use fluxgate_dataplane::handoff::{LedgerRow, Ticket};

use crate::endpoint::ledger::LedgerAsked;
use crate::event_loop::report::Asker;
use crate::limits;

/// All open questions.
#[derive(Debug, Default)]
pub struct Census {
    open: Vec<Question>,
    last_ticket: Ticket,
}

/// One question, and the answers so far.
#[derive(Debug)]
pub struct Question {
    pub asker: Asker,
    pub asked: LedgerAsked,
    pub rows: Vec<LedgerRow>,
    /// Workers that have not answered, by number.
    pub missing: Vec<usize>,
    ticket: Ticket,
    deadline: Instant,
}

impl Census {
    /// Opens a question to `workers` workers, to be sent with the returned ticket. None when too many are open.
    pub fn open(&mut self, asker: Asker, asked: LedgerAsked, workers: usize, now: Instant) -> Option<Ticket> {
        if self.open.len() >= limits::LEDGERS_MAX {
            return None;
        }
        self.last_ticket += 1;
        let (ticket, deadline) = (self.last_ticket, now + limits::LEDGER_DEADLINE);
        self.open.push(Question { asker, asked, rows: Vec::new(), missing: (0..workers).collect(), ticket, deadline });
        Some(ticket)
    }

    /// Takes a worker's answer. A second or late answer is dropped.
    pub fn answered(&mut self, worker: usize, ticket: Ticket, rows: Vec<LedgerRow>) {
        if let Some(question) = self.open.iter_mut().find(|question| question.ticket == ticket)
            && let Some(at) = question.missing.iter().position(|&missing| missing == worker)
        {
            question.missing.remove(at);
            question.rows.extend(rows);
        }
    }

    /// Removes and returns a question that all workers have answered, or whose deadline has passed.
    pub fn close(&mut self, now: Instant) -> Option<Question> {
        let over = |question: &Question| question.missing.is_empty() || now >= question.deadline;
        let at = self.open.iter().position(over)?;
        Some(self.open.remove(at))
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.open.iter().map(|question| question.deadline).min()
    }
}

#[cfg(test)]
mod tests {
    use fluxgate_dataplane::handoff::LedgerBackend;
    use fluxgate_dataplane::topology::BackendId;

    use super::*;

    fn rows(db: &str) -> Vec<LedgerRow> {
        let (rejected, dropped) = (Vec::new(), Vec::new());
        vec![LedgerRow {
            db: db.into(),
            backend: LedgerBackend::Configured(BackendId(0)),
            accepted: 1,
            delivered: 1,
            queued: 0,
            rejected,
            dropped,
        }]
    }

    #[test]
    fn a_question_ends_with_the_last_answer_or_at_its_deadline() {
        let now = Instant::now();
        let mut census = Census::default();
        let first = census.open((0, 7), LedgerAsked::default(), 2, now).unwrap();
        let second = census.open((1, 8), LedgerAsked::default(), 2, now).unwrap();
        census.answered(1, first, rows("a"));
        census.answered(1, first, rows("twice"));
        census.answered(1, second, rows("b"));
        assert!(census.close(now).is_none());
        census.answered(0, first, rows("c"));
        let done = census.close(now).expect("all have answered");
        assert_eq!((done.asker, done.missing, done.rows), ((0, 7), vec![], [rows("a"), rows("c")].concat()));

        let deadline = census.deadline().unwrap();
        assert_eq!(deadline, now + limits::LEDGER_DEADLINE);
        let done = census.close(deadline).expect("its time is over");
        assert_eq!((done.asker, done.missing, done.rows), ((1, 8), vec![0], rows("b")));
        census.answered(0, second, rows("late"));
        assert!(census.close(deadline).is_none() && census.deadline().is_none());
    }

    #[test]
    fn open_questions_are_bounded() {
        let now = Instant::now();
        let mut census = Census::default();
        for ticket in 0..limits::LEDGERS_MAX as u64 {
            assert!(census.open((0, ticket), LedgerAsked::default(), 1, now).is_some());
        }
        assert!(census.open((0, 99), LedgerAsked::default(), 1, now).is_none());
        census.close(now + limits::LEDGER_DEADLINE).unwrap();
        assert!(census.open((0, 99), LedgerAsked::default(), 1, now).is_some());
    }
}

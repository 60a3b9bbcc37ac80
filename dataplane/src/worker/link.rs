//! The worker's end of the handoff: sends questions to the control thread and wakes the tasks that wait for answers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::handoff::{Ticket, ToControl, ToWorker, WorkerEnd};
use crate::io;

/// The control thread did not answer: it has ended, its queue is full, or it is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// Sends questions and passes answers to the tasks that asked.
pub struct Link {
    worker: usize,
    end: WorkerEnd,
    next_ticket: Cell<Ticket>,
    waiting: RefCell<HashMap<Ticket, Slot>>,
}

#[derive(Default)]
struct Slot {
    answer: Option<ToWorker>,
    waker: Option<Waker>,
}

/// Removes the slot when the task stops waiting.
struct Asked<'a> {
    link: &'a Link,
    ticket: Ticket,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.link.waiting.borrow_mut().remove(&self.ticket);
    }
}

impl Link {
    pub fn new(worker: usize, end: WorkerEnd) -> Rc<Self> {
        Rc::new(Self { worker, end, next_ticket: Cell::new(1), waiting: RefCell::default() })
    }

    /// Asks and waits for at most `timeout`. `question` gets this worker's number and a new ticket.
    ///
    /// # Errors
    /// [`Unanswered`], at once if the control thread has ended.
    pub async fn ask(
        &self,
        timeout: Duration,
        question: impl FnOnce(usize, Ticket) -> ToControl,
    ) -> Result<ToWorker, Unanswered> {
        let ticket = self.next_ticket.replace(self.next_ticket.get() + 1);
        self.waiting.borrow_mut().insert(ticket, Slot::default());
        let asked = Asked { link: self, ticket };
        self.end.send(question(self.worker, ticket)).map_err(|_| Unanswered)?;
        let answer = poll_fn(|cx| {
            let mut waiting = self.waiting.borrow_mut();
            let slot = waiting.get_mut(&asked.ticket).expect("only `asked` removes it");
            if let Some(answer) = slot.answer.take() {
                return Poll::Ready(Ok(answer));
            }
            if self.end.control_gone() {
                return Poll::Ready(Err(Unanswered));
            }
            slot.waker = Some(cx.waker().clone());
            Poll::Pending
        });
        io::timeout(timeout, answer).await.unwrap_or(Err(Unanswered))
    }

    /// Sends a message that needs no answer. It is lost when the queue is full.
    pub fn tell(&self, message: impl FnOnce(usize) -> ToControl) {
        // A full queue means that the control thread is behind. Such messages are repeated or not essential.
        drop(self.end.send(message(self.worker)));
    }

    /// Wakes all waiting tasks with [`Unanswered`] if the control thread has ended.
    pub fn fail_if_gone(&self) {
        if self.end.control_gone() {
            let mut waiting = self.waiting.borrow_mut();
            waiting.values_mut().filter_map(|slot| slot.waker.take()).for_each(Waker::wake);
        }
    }

    /// The next message that no task waits for. Answers are passed to their tasks on the way.
    pub fn next_message(&self) -> Option<ToWorker> {
        while let Some(message) = self.end.try_recv() {
            let ticket = match &message {
                ToWorker::Admin { ticket, .. }
                | ToWorker::Query { ticket, .. }
                | ToWorker::CatalogRefreshed { ticket }
                | ToWorker::Created { ticket, .. } => *ticket,
                _ => return Some(message),
            };
            // Without a slot the task has stopped waiting.
            if let Some(slot) = self.waiting.borrow_mut().get_mut(&ticket) {
                slot.answer = Some(message);
                if let Some(waker) = slot.waker.take() {
                    waker.wake();
                }
            }
        }
        None
    }
}

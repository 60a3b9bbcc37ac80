//! Watches the connection of a request whose time is up: the backend may have the whole request and carry it out later.
//!
//! The connection is read until the answer comes, it ends, or its time is up, which closes it with a reset. Not here:
//! what waits meanwhile (`window.rs`), what follows from it (`deliver.rs`).

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use super::Handle;
use super::answer::WriteAnswer;
use super::client::{Unanswered, read_answer};
use crate::io::{self, Event};

/// What came of the request.
#[derive(Debug)]
pub enum Watched {
    Answered(WriteAnswer),
    /// The connection has ended, or what came is no answer.
    Ended,
    /// Nothing came in time.
    Passed,
}

/// Ends when it is dropped, with its connection.
#[derive(Debug)]
pub struct Watch {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    outcome: RefCell<Option<Watched>>,
    dropped: Event,
}

impl Watch {
    /// `longest`: for so long at most. At the end the courier is woken.
    pub fn start(request: Unanswered, longest: Duration, courier: Rc<Handle>) -> Self {
        let shared = Rc::new(Shared::default());
        let ours = shared.clone();
        io::spawn(async move {
            // Made first, so that no drop is missed.
            let dropped = ours.dropped.wait();
            let Unanswered { mut stream, mut input } = request;
            let watched = async {
                match read_answer(&mut stream, &mut input).await {
                    Ok((answer, _)) => Watched::Answered(answer),
                    Err(_) => Watched::Ended,
                }
            };
            let passed = async {
                io::sleep(longest).await;
                Watched::Passed
            };
            let ended = async {
                dropped.await;
                Watched::Passed
            };
            let outcome = future::or(watched, future::or(passed, ended)).await;
            drop(stream);
            ours.outcome.replace(Some(outcome));
            courier.event.notify();
        });
        Self { shared }
    }

    pub fn is_over(&self) -> bool {
        self.shared.outcome.borrow().is_some()
    }

    /// What came of it, once it is over.
    ///
    /// # Errors
    /// The watch itself while it goes on.
    pub fn outcome(self) -> Result<Watched, Self> {
        let outcome = self.shared.outcome.take();
        outcome.ok_or(self)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.dropped.notify();
    }
}

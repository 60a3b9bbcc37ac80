//! Messages between a query's thread, which may block, and the workers. They pass through the event loop, which owns
//! the handoff.
//!
//! ```text
//!   thread ────── Errand ──────> event_loop ── ToWorker::{Drain, Release, Write} ──> workers
//!      ^                             │  Errands: the channel of each open ticket
//!      └────── its own channel ──────┘<─ ToControl::{Drained, Written}
//! ```
//!
//! Every wait has a limit. A thread that stops waiting closes its ticket, and its hold ends with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender, bounded};
use fluxgate_dataplane::handoff::{Catalog, Drained, Ticket, Written};
use fluxgate_dataplane::topology::BackendId;

use crate::limits;

/// A request of a query's thread to the event loop.
#[derive(Debug)]
pub enum Errand {
    Drain {
        ticket: Ticket,
        /// Empty = all databases.
        db: String,
        timeout: Duration,
        answers: Sender<WorkerAnswer>,
    },
    Write {
        worker: usize,
        ticket: Ticket,
        write: Box<Write>,
        answers: Sender<WorkerAnswer>,
    },
    /// Closes the ticket. If it holds couriers, they go on.
    Over {
        ticket: Ticket,
    },
    /// Ask all backends for their catalogs. The answer comes after the workers have been sent the changes.
    Refresh {
        answers: Sender<Arc<Catalog>>,
    },
}

/// Lines for one database and policy (empty = its default one), timestamps in nanoseconds.
#[derive(Debug)]
pub struct Write {
    pub db: String,
    pub rp: String,
    pub lines: Bytes,
    pub timeout: Duration,
}

/// A worker's answer to an errand.
#[derive(Debug)]
pub enum WorkerAnswer {
    Drained(Drained),
    Written(Written),
}

/// Why couriers could not be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undrained {
    /// Not all points were delivered to these backends in time.
    Behind(Vec<BackendId>),
    /// A worker cannot save how far it is, for this reason.
    Unsaved(String),
    /// A worker does not answer.
    NoAnswer,
}

/// The workers, for a thread that may block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers {
    errands: Sender<Errand>,
    count: usize,
    shared: Arc<WorkersShared>,
}

#[derive(Debug)]
struct WorkersShared {
    tickets: AtomicU64,
    next_worker: AtomicUsize,
    /// Full while a structure changes.
    turn: (Sender<()>, Receiver<()>),
}

impl Workers {
    pub fn new(errands: Sender<Errand>, count: usize) -> Self {
        let shared = WorkersShared { tickets: AtomicU64::new(1), next_worker: AtomicUsize::new(0), turn: bounded(1) };
        Self { errands, count, shared: Arc::new(shared) }
    }

    /// For tests without workers: no errand is answered.
    pub fn absent() -> Self {
        Self::new(bounded(1).0, 0)
    }

    /// Waits for the turn to change a structure: changes run one after the other. None = not within `timeout`.
    pub fn alone(&self, timeout: Duration) -> Option<StructureTurn> {
        self.shared.turn.0.send_timeout((), timeout).ok()?;
        Some(StructureTurn { turn: self.shared.turn.1.clone() })
    }

    /// Waits until every worker has delivered all points of `db` (empty = of all databases) it has taken, and it is on
    /// disk that it has, and stops delivery of newer points until the hold is dropped (or `limits::HOLD_MAX` of the
    /// data plane has passed).
    ///
    /// # Errors
    /// [`Undrained`]; nothing is held then.
    pub fn drain(&self, db: &str, timeout: Duration) -> Result<Hold, Undrained> {
        let (sender, answers) = bounded(self.count);
        let ticket = self.ticket();
        let hold = Hold { errands: self.errands.clone(), ticket };
        let deadline = Instant::now() + timeout + limits::WORKER_GRACE;
        self.send(Errand::Drain { ticket, db: db.to_owned(), timeout, answers: sender });
        let (mut all_behind, mut unsaved) = (Vec::new(), None);
        for _ in 0..self.count {
            match answers.recv_deadline(deadline) {
                Ok(WorkerAnswer::Drained(Drained::Done)) => {}
                Ok(WorkerAnswer::Drained(Drained::Behind(behind))) => all_behind.extend(behind),
                Ok(WorkerAnswer::Drained(Drained::Unsaved(why))) => unsaved = Some(why),
                _ => return Err(Undrained::NoAnswer),
            }
        }
        if let Some(why) = unsaved {
            return Err(Undrained::Unsaved(why));
        }
        if all_behind.is_empty() {
            return Ok(hold);
        }
        all_behind.sort_unstable();
        all_behind.dedup();
        Err(Undrained::Behind(all_behind))
    }

    /// Writes these lines through one worker; each call uses the next worker.
    pub fn write(&self, write: Write) -> Written {
        let (sender, answers) = bounded(1);
        let ticket = self.ticket();
        let _over = Hold { errands: self.errands.clone(), ticket };
        let worker = self.shared.next_worker.fetch_add(1, Relaxed) % self.count.max(1);
        let deadline = Instant::now() + write.timeout + limits::WORKER_GRACE;
        self.send(Errand::Write { worker, ticket, write: Box::new(write), answers: sender });
        match answers.recv_deadline(deadline) {
            Ok(WorkerAnswer::Written(written)) => written,
            _ => Written::Refused("timeout: the proxy's worker does not answer".to_owned()),
        }
    }

    /// Asks all backends for their catalogs and waits until the workers have been sent the changes. None = not within
    /// `timeout`.
    pub fn refresh_catalog(&self, timeout: Duration) -> Option<Arc<Catalog>> {
        let (sender, answers) = bounded(1);
        self.send(Errand::Refresh { answers: sender });
        answers.recv_timeout(timeout).ok()
    }

    fn ticket(&self) -> Ticket {
        self.shared.tickets.fetch_add(1, Relaxed)
    }

    fn send(&self, errand: Errand) {
        // Closed = the process stops. The errand's own channel is then closed too, which ends the wait.
        let _ = self.errands.send(errand);
    }
}

/// No other structure changes while this lives.
#[derive(Debug)]
pub struct StructureTurn {
    turn: Receiver<()>,
}

impl Drop for StructureTurn {
    fn drop(&mut self) {
        let _ = self.turn.try_recv();
    }
}

/// Couriers deliver nothing while this lives.
#[derive(Debug)]
pub struct Hold {
    errands: Sender<Errand>,
    ticket: Ticket,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.errands.send(Errand::Over { ticket: self.ticket });
    }
}

/// The event loop's side: open errands by ticket.
#[derive(Debug, Default)]
pub struct Errands {
    open: HashMap<Ticket, OpenErrand>,
}

#[derive(Debug)]
struct OpenErrand {
    answers: Sender<WorkerAnswer>,
    holds: bool,
}

impl Errands {
    /// `holds`: couriers must be released at the end.
    pub fn open(&mut self, ticket: Ticket, answers: Sender<WorkerAnswer>, holds: bool) {
        self.open.insert(ticket, OpenErrand { answers, holds });
    }

    /// Passes on a worker's answer. An answer that no thread waits for is dropped.
    pub fn answered(&self, ticket: Ticket, done: WorkerAnswer) {
        if let Some(open) = self.open.get(&ticket) {
            // The channel has room for all workers; closed = the thread has stopped waiting.
            let _ = open.answers.try_send(done);
        }
    }

    /// A worker's queue is full: closes the channel, which tells the waiting thread.
    pub fn failed(&mut self, ticket: Ticket) {
        if let Some(open) = self.open.get_mut(&ticket) {
            open.answers = bounded(0).0;
        }
    }

    /// Closes a ticket. True when couriers must be released.
    pub fn over(&mut self, ticket: Ticket) -> bool {
        self.open.remove(&ticket).is_some_and(|open| open.holds)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Answers errands like an event loop with `count` workers.
    fn looped(count: usize, result: Drained) -> (Workers, thread::JoinHandle<Vec<&'static str>>) {
        let (sender, receiver) = bounded(16);
        let answer = move || {
            let mut seen = Vec::new();
            let mut errands = Errands::default();
            for errand in receiver {
                match errand {
                    Errand::Drain { ticket, answers, .. } => {
                        seen.push("drain");
                        errands.open(ticket, answers, true);
                        for _ in 0..count {
                            errands.answered(ticket, WorkerAnswer::Drained(result.clone()));
                        }
                    }
                    Errand::Write { ticket, worker, answers, .. } => {
                        seen.push(["write 0", "write 1"][worker]);
                        errands.open(ticket, answers, false);
                        if worker == 1 {
                            errands.failed(ticket);
                        }
                        errands.answered(ticket, WorkerAnswer::Written(Written::Done));
                    }
                    Errand::Over { ticket } => {
                        seen.push(if errands.over(ticket) { "release" } else { "over" });
                    }
                    Errand::Refresh { .. } => {}
                }
            }
            seen
        };
        (Workers::new(sender, count), thread::spawn(answer))
    }

    fn lines() -> Write {
        Write { db: "db".into(), rp: String::new(), lines: Bytes::new(), timeout: Duration::from_secs(5) }
    }

    #[test]
    fn a_hold_ends_when_it_is_dropped_and_when_it_fails() {
        let (workers, events) = looped(2, Drained::Done);
        let hold = workers.drain("db", Duration::from_secs(5)).unwrap();
        drop(hold);
        drop(workers);
        assert_eq!(events.join().unwrap(), ["drain", "release"]);

        let (workers, events) = looped(2, Drained::Behind(vec![BackendId(3), BackendId(1)]));
        let behind = workers.drain("db", Duration::from_secs(5)).unwrap_err();
        assert_eq!(behind, Undrained::Behind(vec![BackendId(1), BackendId(3)]), "of all workers, each once");
        drop(workers);
        assert_eq!(events.join().unwrap(), ["drain", "release"]);

        let (workers, events) = looped(2, Drained::Unsaved("why".into()));
        let unsaved = workers.drain("db", Duration::from_secs(5)).unwrap_err();
        assert_eq!(unsaved, Undrained::Unsaved("why".into()));
        drop(workers);
        assert_eq!(events.join().unwrap(), ["drain", "release"]);
    }

    #[test]
    fn writes_go_round_and_a_worker_with_a_full_queue_refuses() {
        let (workers, events) = looped(2, Drained::Done);
        assert_eq!(workers.write(lines()), Written::Done);
        assert!(matches!(workers.write(lines()), Written::Refused(_)));
        assert_eq!(workers.write(lines()), Written::Done);
        drop(workers);
        assert_eq!(events.join().unwrap(), ["write 0", "over", "write 1", "over", "write 0", "over"]);
    }

    #[test]
    fn without_an_event_loop_nothing_is_waited_for() {
        let (sender, receiver) = bounded(16);
        let workers = Workers::new(sender, 1);
        drop(receiver);
        assert_eq!(workers.drain("db", Duration::from_secs(60)).unwrap_err(), Undrained::NoAnswer);
        assert!(workers.refresh_catalog(Duration::from_secs(60)).is_none());
    }

    #[test]
    fn changes_of_structure_take_turns() {
        let workers = Workers::new(bounded(1).0, 1);
        let alone = workers.alone(Duration::ZERO).unwrap();
        assert!(workers.clone().alone(Duration::from_millis(20)).is_none());
        drop(alone);
        assert!(workers.alone(Duration::ZERO).is_some());
    }
}

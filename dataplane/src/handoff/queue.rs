//! Transport of messages: one bounded queue from all workers to the control thread; one bounded queue and one eventfd
//! to each worker.
//!
//! ```text
//!   worker 0 ─┐                          ┌─ queue ── worker 0
//!   worker 1 ─┼─ queue ── control thread ─┤  eventfd ┘
//!   worker n ─┘                          └─ ...
//! ```
//!
//! A worker never waits here. The control thread waits at most [`HANDOFF_WAIT`](limits::HANDOFF_WAIT) for room in a
//! worker's queue, and only once for a worker that does not read.
//!
//! When one side ends, the other side sees it. A dropped [`ControlEnd`] first sets `gone`, then signals every worker,
//! so that a worker that wakes sees [`WorkerEnd::control_gone`] and answers its open requests.
//!
//! Not here: what the messages mean (`mod.rs`), and reading the eventfd (the worker's ring does).

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{ToControl, ToWorker};
use crate::io::{Bell, Signal};
use crate::limits;

/// Makes the queues between the control thread and `workers` workers.
///
/// Fails only when the kernel has no eventfd left (open files, memory).
pub fn pair(workers: usize) -> io::Result<(ControlEnd, Vec<WorkerEnd>)> {
    let (to_control, from_workers) = bounded(limits::HANDOFF_TO_CONTROL_MAX);
    let gone = Arc::new(AtomicBool::new(false));
    let mut to_workers = Vec::with_capacity(workers);
    let mut ends = Vec::with_capacity(workers);
    for _ in 0..workers {
        let (sender, receiver) = bounded(limits::HANDOFF_TO_WORKER_MAX);
        let bell = Arc::new(Bell::new()?);
        to_workers.push(WorkerQueue { sender, bell: Arc::clone(&bell), stuck: Cell::new(false) });
        ends.push(WorkerEnd { to_control: to_control.clone(), receiver, bell, gone: Arc::clone(&gone) });
    }
    Ok((ControlEnd { from_workers, to_workers, gone }, ends))
}

/// A worker's side.
#[derive(Debug)]
pub struct WorkerEnd {
    to_control: Sender<ToControl>,
    receiver: Receiver<ToWorker>,
    bell: Arc<Bell>,
    gone: Arc<AtomicBool>,
}

impl WorkerEnd {
    /// Wakes this worker, also for others than the control thread.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Sends `message`; never waits. Returns it when the queue is full or the control thread has ended.
    #[allow(clippy::result_large_err)] // The value is the error: a full queue loses nothing.
    pub fn send(&self, message: ToControl) -> Result<(), ToControl> {
        if self.control_gone() {
            return Err(message);
        }
        self.to_control.try_send(message).map_err(|e| e.into_inner())
    }

    /// The next message for this worker. Call until `None` after each wake-up: one signal may stand for many messages.
    pub fn try_recv(&self) -> Option<ToWorker> {
        self.receiver.try_recv().ok()
    }

    /// True once the control thread has ended: open requests will not be answered.
    pub fn control_gone(&self) -> bool {
        self.gone.load(SeqCst)
    }

    /// Resolves when a message has been put or the control thread has ended.
    ///
    /// Fails only when the process has no file descriptor left.
    pub fn signal(&self) -> io::Result<Signal> {
        self.bell.signal()
    }
}

/// The control thread's side. Dropping it wakes every worker.
#[derive(Debug)]
pub struct ControlEnd {
    from_workers: Receiver<ToControl>,
    to_workers: Vec<WorkerQueue>,
    gone: Arc<AtomicBool>,
}

impl ControlEnd {
    pub fn workers(&self) -> usize {
        self.to_workers.len()
    }

    /// The queue of all workers' messages, to wait on several queues. Disconnected = all workers have ended.
    pub fn incoming(&self) -> &Receiver<ToControl> {
        &self.from_workers
    }

    /// The next message; `Timeout` = none came, `Disconnected` = all workers have ended.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<ToControl, RecvTimeoutError> {
        self.from_workers.recv_timeout(timeout)
    }

    /// Puts `message` into that worker's queue and signals its eventfd. Waits for room up to
    /// [`HANDOFF_WAIT`](limits::HANDOFF_WAIT). Returns the message when there was no room or the worker has ended.
    /// After a timeout, later messages to this worker do not wait until one finds room.
    ///
    /// Panics if there is no such worker.
    #[allow(clippy::result_large_err)] // The value is the error, as on the other side.
    pub fn send(&self, worker: usize, message: ToWorker) -> Result<(), ToWorker> {
        self.send_within(worker, message, limits::HANDOFF_WAIT)
    }

    #[allow(clippy::result_large_err)]
    fn send_within(&self, worker: usize, message: ToWorker, wait: Duration) -> Result<(), ToWorker> {
        let queue = &self.to_workers[worker];
        let wait = if queue.stuck.get() { Duration::ZERO } else { wait };
        let sent = queue.sender.send_timeout(message, wait).map_err(|e| e.into_inner());
        queue.stuck.set(sent.is_err());
        if sent.is_ok() {
            queue.bell.ring();
        }
        sent
    }
}

impl Drop for ControlEnd {
    /// Sets `gone` before the signals: a worker that wakes sees it. A message that a worker still puts in after that is
    /// lost, but this worker wakes afterwards and answers its open requests.
    fn drop(&mut self) {
        self.gone.store(true, SeqCst);
        for queue in &self.to_workers {
            queue.bell.ring();
        }
    }
}

#[derive(Debug)]
struct WorkerQueue {
    sender: Sender<ToWorker>,
    bell: Arc<Bell>,
    /// The last message found no room in time.
    stuck: Cell<bool>,
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::thread;

    use super::*;
    use crate::topology::BackendId;

    fn is_rung(end: &WorkerEnd, wait_ms: i32) -> bool {
        let mut poll = libc::pollfd { fd: end.bell.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, writable for the length of the call.
        unsafe { libc::poll(&mut poll, 1, wait_ms) == 1 }
    }

    /// Waits like a worker, and clears the counter.
    fn wait_rung(end: &WorkerEnd) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: the descriptor is open as long as `end`, and `count` is 8 writable bytes.
        is_rung(end, 5_000) && unsafe { libc::read(end.bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) } == 8
    }

    fn question(ticket: u64) -> ToControl {
        ToControl::RefreshCatalog { worker: 0, ticket }
    }

    #[test]
    fn a_full_queue_gives_the_message_back() {
        let (control, workers) = pair(1).unwrap();
        for ticket in 0..limits::HANDOFF_TO_CONTROL_MAX as u64 {
            workers[0].send(question(ticket)).unwrap();
        }
        let back = workers[0].send(question(4711)).unwrap_err();
        assert!(matches!(back, ToControl::RefreshCatalog { ticket: 4711, .. }));
        control.recv_timeout(Duration::ZERO).unwrap();
        workers[0].send(back).unwrap();
    }

    #[test]
    fn a_message_rings_only_its_worker() {
        let (control, workers) = pair(2).unwrap();
        control.send(1, ToWorker::Probed { backend: BackendId(3), up: true }).unwrap();
        assert_eq!((is_rung(&workers[0], 0), is_rung(&workers[1], 0)), (false, true));
        assert!(workers[0].try_recv().is_none());
        assert!(matches!(workers[1].try_recv(), Some(ToWorker::Probed { backend: BackendId(3), up: true })));
        assert!(workers[1].try_recv().is_none());
    }

    #[test]
    fn a_dropped_control_end_wakes_workers_and_refuses_messages() {
        let (control, workers) = pair(2).unwrap();
        assert!(!workers[0].control_gone());
        control.send(1, ToWorker::Shutdown).unwrap();
        drop(control);
        for worker in &workers {
            assert!(wait_rung(worker));
            assert!(worker.control_gone());
            assert!(worker.send(question(1)).is_err());
        }
        assert!(
            matches!(workers[1].try_recv(), Some(ToWorker::Shutdown)),
            "what was sent before the end still arrives"
        );
    }

    #[test]
    fn a_worker_is_woken_through_its_ring() {
        crate::io::block_on(|| async {
            let (control, workers) = pair(1).unwrap();
            let other = thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                control.send(0, ToWorker::Shutdown).unwrap();
                thread::sleep(Duration::from_millis(50));
            });
            let signal = workers[0].signal().unwrap();
            signal.wait().await.unwrap();
            assert!(matches!(workers[0].try_recv(), Some(ToWorker::Shutdown)));
            assert!(!workers[0].control_gone());
            signal.wait().await.unwrap();
            assert!(workers[0].control_gone());
            other.join().unwrap();
        });
    }

    #[test]
    fn a_gone_worker_is_an_answer() {
        let (control, mut workers) = pair(2).unwrap();
        drop(workers.remove(0));
        assert!(matches!(control.send(0, ToWorker::Shutdown), Err(ToWorker::Shutdown)));
        control.send(1, ToWorker::Shutdown).unwrap();
        drop(workers);
        assert_eq!(control.recv_timeout(Duration::from_secs(5)).unwrap_err(), RecvTimeoutError::Disconnected);
    }

    #[test]
    fn a_worker_that_reads_nothing_is_waited_for_once() {
        let (control, workers) = pair(1).unwrap();
        for _ in 0..limits::HANDOFF_TO_WORKER_MAX {
            control.send(0, ToWorker::Shutdown).unwrap();
        }
        let wait = Duration::from_millis(200);
        let begun = std::time::Instant::now();
        assert!(control.send_within(0, ToWorker::Shutdown, wait).is_err());
        assert!(begun.elapsed() >= wait);
        for _ in 0..20 {
            assert!(control.send_within(0, ToWorker::Shutdown, wait).is_err());
        }
        assert!(begun.elapsed() < 10 * wait, "each message waited");
        workers[0].try_recv().unwrap();
        control.send_within(0, ToWorker::Shutdown, wait).unwrap();
    }

    #[test]
    fn questions_and_answers_cross_between_threads() {
        const ROUNDS: u64 = 20_000;
        let (control, mut workers) = pair(2).unwrap();
        let mut threads = Vec::new();
        for (number, end) in workers.drain(..).enumerate() {
            threads.push(thread::spawn(move || {
                let (mut asked, mut answered) = (0, 0);
                while answered < ROUNDS {
                    while asked < ROUNDS
                        && end.send(ToControl::RefreshCatalog { worker: number, ticket: asked }).is_ok()
                    {
                        asked += 1;
                    }
                    if answered == asked {
                        thread::yield_now(); // The other worker has filled the queue: nothing of ours is open.
                        continue;
                    }
                    assert!(wait_rung(&end), "no wake-up after {answered} answers");
                    while let Some(message) = end.try_recv() {
                        let ToWorker::CatalogRefreshed { ticket } = message else { panic!("{message:?}") };
                        assert_eq!(ticket, answered, "answers keep their order");
                        answered += 1;
                    }
                }
            }));
        }
        while let Ok(message) = control.recv_timeout(Duration::from_secs(10)) {
            let ToControl::RefreshCatalog { worker, ticket } = message else { panic!("{message:?}") };
            control.send(worker, ToWorker::CatalogRefreshed { ticket }).unwrap();
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
    }
}

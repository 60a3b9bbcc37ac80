//! Starts and stops the control thread.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam::channel::{Sender, bounded};
use fluxgate_dataplane::handoff::ControlEnd;
use fluxgate_dataplane::stats::Stats;

use crate::event_loop::EventLoop;
use crate::event_loop::report::{ControlSettings, Report};
use crate::limits;

/// The running control thread. Dropping this without [`Control::stop`] leaves it running.
#[derive(Debug)]
pub struct Control {
    reports: Sender<Report>,
    thread: thread::JoinHandle<()>,
}

impl Control {
    /// Starts the thread. It resolves and probes all backends and asks for their catalogs at once.
    ///
    /// Fails only when no thread can be started.
    pub fn start(settings: ControlSettings, end: ControlEnd, stats: Arc<Stats>) -> io::Result<Self> {
        let (sender, receiver) = bounded(limits::REPORTS_MAX);
        let mut event_loop = EventLoop::new(settings, end, stats, sender.clone())?;
        let run = move || event_loop.run(&receiver);
        let thread = thread::Builder::new().name("control".to_owned()).spawn(run)?;
        Ok(Self { reports: sender, thread })
    }

    /// Sends [`ToWorker::Shutdown`] to all workers. False when the thread has ended, so that no worker gets it.
    pub fn shutdown_workers(&self) -> bool {
        self.reports.send(Report::ShutdownWorkers).is_ok()
    }

    /// True once the thread has ended: after [`Control::stop`], because all workers have ended, or after a panic.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the thread and waits for it to finish its current step. Threads that are asking a backend end with that
    /// call, which is bounded; they hold nothing that must be saved. False when the thread had panicked.
    pub fn stop(self) -> bool {
        // Closed = the thread has ended already.
        let _ = self.reports.send(Report::Stop);
        self.thread.join().is_ok()
    }
}

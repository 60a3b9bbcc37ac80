//! Checks whether backends answer: one thread per backend sends `GET /ping` every check interval and reports the
//! result.
//!
//! The same thread resolves the backend's host name for the workers: before the first probe, after each failed one,
//! when a worker's writes fail or its queries get no answer, and from time to time. A probe resolves anew, so that it
//! may reach a server that has moved while workers still connect to where it was.
//!
//! Not here: what a result means for workers and logs (`event_loop/backends.rs`).

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use fluxgate_dataplane::topology::BackendId;

use crate::event_loop::report::Report;
use crate::influx::client::Client;
use crate::limits;

/// A running probe. Dropping it ends its thread, at the latest after the current ping.
#[derive(Debug)]
pub struct Probe {
    wake: Sender<()>,
}

impl Probe {
    /// Starts probing at once.
    pub fn start(backend: BackendId, client: Client, interval: Duration, reports: Sender<Report>) -> io::Result<Self> {
        let (wake, woken) = bounded(1);
        let probing = Probing { backend, client, interval, reports, woken };
        thread::Builder::new().name(format!("probe-{}", backend.0)).spawn(move || probing.run())?;
        Ok(Self { wake })
    }

    /// Asks for a probe at once: writes fail, or succeed again, or a query got no answer.
    pub fn now(&self) {
        // Full = a probe is requested already; closed = the thread and the event loop have ended.
        let _ = self.wake.try_send(());
    }
}

struct Probing {
    backend: BackendId,
    client: Client,
    interval: Duration,
    reports: Sender<Report>,
    woken: Receiver<()>,
}

impl Probing {
    fn run(self) {
        let timeout = self.interval.max(limits::PROBE_TIMEOUT_MIN);
        let mut addr = None;
        let mut resolved: Option<Instant> = None;
        loop {
            let begun = Instant::now();
            if resolved.is_none_or(|at| at.elapsed() >= limits::RESOLVE_INTERVAL) {
                resolved = Some(begun);
                // A name that cannot be resolved makes the probe fail as well, with the reason.
                let found = self.client.resolve(addr).ok();
                if let Some(found) = found
                    && addr != Some(found)
                {
                    addr = Some(found);
                    if self.reports.send(Report::Address { backend: self.backend, addr: found }).is_err() {
                        return;
                    }
                }
            }
            let result = self.client.ping(timeout).map_err(|failure| failure.to_string());
            if result.is_err() {
                resolved = None;
            }
            if self.reports.send(Report::Probe { backend: self.backend, result }).is_err() {
                return;
            }
            let pause = self.interval.saturating_sub(begun.elapsed()).max(limits::PROBE_INTERVAL_MIN);
            match self.woken.recv_timeout(pause) {
                Ok(()) => {
                    resolved = None;
                    thread::sleep(limits::PROBE_INTERVAL_MIN.saturating_sub(begun.elapsed()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Up or down, and since when. Takes the time as an argument, so that it is tested without waiting.
#[derive(Debug)]
pub struct Watch {
    up: Option<bool>,
    since: Instant,
}

impl Watch {
    /// `up` is the assumed state; None = unknown.
    pub fn new(up: Option<bool>, now: Instant) -> Self {
        Self { up, since: now }
    }

    pub fn up(&self) -> Option<bool> {
        self.up
    }

    /// Notes a result. Returns how long the former state lasted when this is a change. The first result is a change
    /// unless it is the assumed one.
    pub fn note(&mut self, up: bool, now: Instant) -> Option<Duration> {
        if self.up == Some(up) {
            return None;
        }
        let lasted = now.duration_since(self.since);
        *self = Self { up: Some(up), since: now };
        Some(lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_tells_each_change_once_and_how_long_the_state_before_lasted() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut watch = Watch::new(None, start);
        assert_eq!(watch.up(), None);
        assert_eq!(watch.note(true, at(1)), Some(Duration::from_secs(1)));
        assert_eq!(watch.note(true, at(2)), None);
        assert_eq!(watch.note(false, at(5)), Some(Duration::from_secs(4)));
        assert_eq!(watch.note(false, at(6)), None);
        assert_eq!(watch.up(), Some(false));
        assert_eq!(watch.note(true, at(9)), Some(Duration::from_secs(4)));
    }
}

//! Connects a courier to its worker: records come from the log, counts go to the ledger and the counters, questions go
//! to the control thread.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

use crate::courier::{
    Address, Courier, DeliveryState, Endpoint, Fetched, PartlySettled, RecordSource, Reports, RunningCourier, Setup,
    SourceError,
};
use crate::disklog::{self, LogReader, RecordView, Seq};
use crate::handoff::{Created, ToControl, ToWorker};
use crate::io;
use crate::ledger::{BACKLOG_FULL, DAMAGED};
use crate::limits::CREATE_TIMEOUT;
use crate::lineproto::{Item, Scanner};
use crate::precision::Precision;
use crate::settings::BacklogFull;
use crate::stats::BackendStats;
use crate::topology::{Backend, BackendId};
use crate::worker::Worker;

/// Starts one courier for each backend. A courier waits until the address of its backend is known.
///
/// # Errors
/// When the folder of dead letters cannot be read.
pub fn start_couriers(worker: &Rc<Worker>) -> std::io::Result<Vec<RunningCourier>> {
    let settings = &worker.settings;
    let start = |backend: &Backend| {
        let address = Address::default();
        let endpoint = Endpoint::new(
            &backend.url,
            &backend.username,
            &backend.password,
            address.clone(),
            settings.backend_gzip,
            settings.write_timeout,
            settings.trust.client_config(backend.id),
        )
        .ok_or_else(|| std::io::Error::other(format!("{}: nothing can be delivered to its url", backend.name)))?;
        let setup = Setup {
            worker: worker.id,
            workers: settings.workers,
            backend: backend.name.clone(),
            backends: settings.topology.backends.len(),
            endpoint,
            data_dir: settings.data_dir.clone(),
            flush_size: settings.flush_size,
            rewrite_interval: settings.rewrite_interval,
            missing_db: settings.missing_db,
            split,
        };
        let source = LogSource::new(worker.clone(), backend.id);
        let (courier, handle) = Courier::new(setup, source, DeliveryReports::new(worker.clone(), backend.id))?;
        io::spawn(courier.run());
        Ok(RunningCourier::new(handle, address))
    };
    settings.topology.backends.iter().map(start).collect()
}

/// Splits a body into lines. Its lines were accepted before, and nanoseconds accept the timestamps of every precision.
fn split(body: &[u8]) -> Vec<Range<usize>> {
    let mut lines = Vec::new();
    Scanner::new(Precision::Nanosecond).scan(body, true, |item| {
        let (start, end) = match item {
            Item::Line(line) => (line.start, line.end),
            Item::Refused(refused) => (refused.start, refused.end),
        };
        lines.push(start as usize..end as usize);
    });
    lines
}

/// The records for one backend in this worker's log.
pub struct LogSource {
    worker: Rc<Worker>,
    backend: BackendId,
    reader: LogReader,
    /// Why points that the ledger counts as queued may be missing. Checked when the backend has received everything up
    /// to the end of the log. Set at start too, because a crash may have come between a loss and the next save of the
    /// ledger.
    unsettled: Option<&'static str>,
}

impl LogSource {
    pub fn new(worker: Rc<Worker>, backend: BackendId) -> Self {
        let reader = worker.log.reader(backend);
        let unsettled = Some(match worker.settings.backlog_full {
            BacklogFull::DropOldest => BACKLOG_FULL,
            BacklogFull::Reject => DAMAGED,
        });
        Self { worker, backend, reader, unsettled }
    }
}

impl RecordSource for LogSource {
    async fn fetch(
        &mut self,
        wait: bool,
        sink: &mut dyn FnMut(RecordView<'_>) -> bool,
    ) -> Result<Fetched, SourceError> {
        match self.reader.fetch(wait, sink).await {
            Ok(fetched) => {
                if fetched.lost > 0 {
                    self.unsettled = Some(DAMAGED);
                    // Log where the damage is before how many points it cost.
                    self.worker.report_damage();
                }
                Ok(Fetched { next: fetched.next, lines: fetched.lines, lost: fetched.lost })
            }
            Err(disklog::Error::Closed) => Err(SourceError::Closed),
            Err(error) => {
                log::error!(
                    "{}: cannot read the log: {error}",
                    self.worker.settings.topology.backend(self.backend).name
                );
                Err(SourceError::Unreadable)
            }
        }
    }

    fn behind(&self) -> bool {
        self.reader.behind()
    }

    fn confirm(&mut self, next: Seq) {
        self.worker.whole_settled(self.backend);
        self.worker.log.confirm(self.backend, next);
        // A segment that is being dropped may be counted only in part: wait until that is done.
        if next == self.worker.log.end()
            && !self.worker.log.oldest_is_busy()
            && let Some(reason) = self.unsettled.take()
        {
            self.worker.count_dropped();
            let lost = self.worker.ledger.borrow_mut().settle(self.backend, reason);
            if lost > 0 {
                let name = &self.worker.settings.topology.backend(self.backend).name;
                log::error!("{name} (worker {}): {lost} points are lost: {reason}", self.worker.id);
            }
        }
        self.worker.publish(self.backend);
    }
}

/// Where a courier reports what became of points.
pub struct DeliveryReports {
    worker: Rc<Worker>,
    backend: BackendId,
    up: Cell<bool>,
}

impl DeliveryReports {
    pub fn new(worker: Rc<Worker>, backend: BackendId) -> Self {
        Self { worker, backend, up: Cell::new(true) }
    }

    fn stats(&self) -> &BackendStats {
        &self.worker.stats().backends[self.backend.index()]
    }
}

impl Reports for DeliveryReports {
    fn delivered(&self, db: &[u8], lines: u64) {
        let mut ledger = self.worker.ledger.borrow_mut();
        let db = ledger.database(db);
        ledger.delivered(db, self.backend, lines);
    }

    fn rejected(&self, db: &[u8], reason: &'static str, lines: u64) {
        let mut ledger = self.worker.ledger.borrow_mut();
        let db = ledger.database(db);
        ledger.rejected(db, self.backend, reason, lines);
    }

    fn partly_settled(&self, settled: PartlySettled) {
        self.worker.partly_settled(self.backend, settled);
    }

    fn refused(&self, text: &str) {
        self.worker.note_refusal(self.backend, text);
    }

    fn state(&self, state: DeliveryState, reason: &str) {
        let up = state == DeliveryState::Up;
        self.stats().up.store(up, Relaxed);
        if self.up.replace(up) != up {
            let (backend, reason) = (self.backend, reason.to_owned());
            self.worker.link.tell(|worker| ToControl::BackendChanged { worker, backend, up, reason });
        }
    }

    fn holds(&self, oldest_ms: Option<u64>) {
        self.stats().oldest_ms.store(oldest_ms.unwrap_or(u64::MAX), Relaxed);
    }

    fn oldest_elsewhere(&self) -> u64 {
        self.worker.oldest_elsewhere(self.backend)
    }

    fn rewriting(&self, on: bool) {
        self.stats().rewriting.store(on, Relaxed);
    }

    fn stuck(&self, on: bool) {
        self.stats().stuck.store(on, Relaxed);
    }

    async fn create_database(&self, db: &str, rp: &str) -> Created {
        let (backend, db, rp) = (self.backend, db.to_owned(), rp.to_owned());
        let question = |worker, ticket| ToControl::Create { worker, ticket, backend, db, rp };
        match self.worker.link.ask(CREATE_TIMEOUT, question).await {
            Ok(ToWorker::Created { result, .. }) => result,
            _ => Created::Failed("control thread does not answer".into()),
        }
    }
}

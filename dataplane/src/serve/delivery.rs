//! Connects couriers to logs: records come from all logs, of this worker and of others; counts go back to the ledger of
//! the log that a record is from; questions go to the control thread.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Instant;

use crate::courier::{
    Address, Courier, DeliveryState, Endpoint, LogSource, Merge, PartlySettled, Passed, RefusedPoints, RejectedPoints,
    Reports, RunningCourier, Setup, SourceError,
};
use crate::disklog::{self, LogReader, RecordView, RefusedLines, Seq};
use crate::handoff::{Created, ToControl, ToWorker};
use crate::io::{self, Event};
use crate::limits::{CREATE_TIMEOUT, LOUD_INTERVAL};
use crate::lineproto::{Item, Scanner};
use crate::parked::ParkedKey;
use crate::precision::Precision;
use crate::stats::CourierStats;
use crate::topology::{Backend, BackendId};
use crate::unsaved::UnsavedRefusal;
use crate::worker::Worker;
use crate::worker::feed::{Chunk, Feed, Feeds, Report, Settled};
use crate::worker::journal::Journal;

/// Starts the couriers that live on this worker, by backend. A courier waits until the address of its backend is known.
///
/// # Errors
/// When the folder of dead letters cannot be read.
pub fn start_couriers(worker: &Rc<Worker>) -> std::io::Result<Vec<Option<RunningCourier>>> {
    let settings = &worker.settings;
    let start = |backend: &Backend| {
        if worker.feeds.courier_of(backend.id) != worker.id {
            return Ok(None);
        }
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
            backend: backend.name.clone(),
            backends: settings.topology.backends.len(),
            endpoint,
            data_dir: settings.data_dir.clone(),
            flush_size: settings.flush_size,
            rewrite_interval: settings.rewrite_interval,
            missing_db: settings.missing_db,
            split,
        };
        let ends = LogEnd::all(worker, backend.id);
        let logs = (0..ends.len()).map(|log| OneLog::new(worker, backend.id, &ends, log)).collect();
        let source = Merge::new(worker.feeds.order.clone(), logs);
        let (courier, handle) = Courier::new(setup, source, DeliveryReports::new(worker.clone(), backend.id, ends))?;
        io::spawn(courier.run());
        Ok(Some(RunningCourier::new(handle, address)))
    };
    settings.topology.backends.iter().map(start).collect()
}

/// Splits a body into lines. Its lines were accepted before, and nanoseconds accept the timestamps of every precision.
pub(super) fn split(body: &[u8]) -> Vec<Range<usize>> {
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

/// What belongs to a log, at the courier of one backend.
pub(super) struct LogEnd {
    pub(super) to: LogPlace,
    /// Of a side courier.
    key: Option<ParkedKey>,
    /// Side couriers of this backend: what is known of their records must be kept.
    sides: Cell<usize>,
    /// What has become of its points, not reported yet.
    report: RefCell<Settled>,
    /// What was refused, not reported yet: at most what the window holds, since nothing new is fetched from a log whose
    /// worker takes no reports.
    refused: RefCell<Vec<RefusedPoints>>,
    /// What backends have refused.
    known: RefCell<RefusedLines>,
    /// What was told last since the cursor moved.
    partly: RefCell<Option<Arc<PartlySettled>>>,
}

/// Where a log lives.
pub(super) enum LogPlace {
    /// On this worker.
    Here(Rc<Journal>),
    Elsewhere(Arc<Feed>),
}

impl LogEnd {
    /// The ends of all logs, by their number.
    fn all(worker: &Worker, backend: BackendId) -> Rc<[Self]> {
        let of = |log: usize| {
            let to = match worker.feeds.feed(log, backend) {
                None => LogPlace::Here(worker.journal(log)),
                Some(feed) => LogPlace::Elsewhere(feed.clone()),
            };
            Self::new(to, None)
        };
        (0..worker.feeds.logs()).map(of).collect()
    }

    /// `key`: of a side courier.
    pub(super) fn new(to: LogPlace, key: Option<ParkedKey>) -> Self {
        Self {
            to,
            key,
            sides: Cell::new(0),
            report: RefCell::default(),
            refused: RefCell::default(),
            known: RefCell::default(),
            partly: RefCell::default(),
        }
    }

    /// A side courier has been started.
    pub(super) fn side_started(&self) {
        self.sides.set(self.sides.get() + 1);
    }

    /// A side courier has ended.
    pub(super) fn side_ended(&self) {
        self.sides.set(self.sides.get() - 1);
    }

    /// Reports what was refused: always before what settles it. False: there is no room now.
    pub(super) fn report_refused(&self, backend: BackendId) -> bool {
        if self.refused.borrow().is_empty() {
            return true;
        }
        let refused = self.refused.take();
        match &self.to {
            LogPlace::Here(journal) => refused.iter().for_each(|refused| journal.refused(backend, refused)),
            LogPlace::Elsewhere(feed) => {
                if let Err(Report::Refused(back)) = feed.report(Report::Refused(refused)) {
                    self.refused.replace(back);
                    return false;
                }
            }
        }
        true
    }

    /// Reports how far the courier is, with its cursors held, unless that was told before.
    fn report_partly(&self, backend: BackendId, settled: &Arc<PartlySettled>) {
        let is_told = |told: &Arc<PartlySettled>| (&told.next, &told.groups) == (&settled.next, &settled.groups);
        if !self.report_refused(backend) || self.partly.borrow().as_ref().is_some_and(is_told) {
            return;
        }
        let told = match &self.to {
            LogPlace::Here(journal) => {
                journal.partly_settled(backend, settled.clone());
                true
            }
            // Without room it is told again with the next attempt.
            LogPlace::Elsewhere(feed) => feed.report(Report::Partly(settled.clone())).is_ok(),
        };
        self.partly.replace(told.then(|| settled.clone()));
    }

    /// Reports everything. False: there is no room now.
    pub(super) fn report(&self, backend: &Backend) -> bool {
        if !self.report_refused(backend.id) {
            return false;
        }
        if self.report.borrow().next == Seq(0) {
            return true;
        }
        let settled = self.report.take();
        self.partly.take();
        match &self.to {
            LogPlace::Here(journal) => journal.settled(backend.id, &backend.name, self.key.as_ref(), &settled),
            LogPlace::Elsewhere(feed) => {
                if let Err(Report::Settled(back)) = feed.report(Report::Settled(settled)) {
                    self.report.replace(back);
                    return false;
                }
            }
        }
        true
    }
}

/// Takes note of what backends have refused of a log.
fn look_at_refused(feeds: &Feeds, ends: &[LogEnd], log: usize, backend: BackendId) {
    while let Some((record, lines)) = feeds.next_refused(log, backend) {
        ends[log].known.borrow_mut().add(record, &lines);
    }
}

/// The records for one backend in one log.
pub(super) struct OneLog {
    worker: Rc<Worker>,
    backend: BackendId,
    ends: Rc<[LogEnd]>,
    log: usize,
    reach: Reach,
    /// When a failure to read was last said.
    loud_at: Option<Instant>,
}

/// How records are reached.
enum Reach {
    Reader(Box<LogReader>),
    Chunks {
        arrived: Rc<Event>,
        current: Chunk,
        done: usize,
        position: Seq,
        /// The log had more than it offered when the courier looked last.
        was_behind: Cell<bool>,
    },
}

impl OneLog {
    pub(super) fn new(worker: &Rc<Worker>, backend: BackendId, ends: &Rc<[LogEnd]>, log: usize) -> Self {
        let reach = match (&ends[log].to, &ends[log].key) {
            (LogPlace::Here(journal), None) => Reach::Reader(Box::new(journal.log.reader(backend))),
            (LogPlace::Here(journal), Some(key)) => {
                Reach::Reader(Box::new(journal.log.parked_reader(backend, key.clone())))
            }
            (LogPlace::Elsewhere(feed), key) => {
                if key.is_some() {
                    worker.add_side_feed(log, backend, feed);
                }
                let arrived = worker.feed_event(feed);
                let (current, was_behind) = (Chunk::default(), Cell::new(true));
                Reach::Chunks { arrived, current, done: 0, position: Seq(0), was_behind }
            }
        };
        Self { worker: worker.clone(), backend, ends: ends.clone(), log, reach, loud_at: None }
    }

    fn backend(&self) -> &Backend {
        self.worker.settings.topology.backend(self.backend)
    }

    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(super) fn backend_id(&self) -> BackendId {
        self.backend
    }

    pub(super) fn ends(&self) -> &Rc<[LogEnd]> {
        &self.ends
    }
}

impl Drop for OneLog {
    fn drop(&mut self) {
        let end = &self.ends[self.log];
        if let (LogPlace::Elsewhere(feed), Some(_)) = (&end.to, &end.key) {
            self.worker.remove_side_feed(feed);
        }
    }
}

impl LogSource for OneLog {
    fn offered(&self) -> bool {
        match (&self.ends[self.log].to, &self.reach) {
            (LogPlace::Elsewhere(feed), Reach::Chunks { was_behind, .. }) => {
                was_behind.set(feed.behind.load(SeqCst));
                !was_behind.get()
            }
            _ => true,
        }
    }

    async fn fetch(&mut self, sink: &mut dyn FnMut(RecordView<'_>) -> bool) -> Result<Passed, SourceError> {
        match (&self.ends[self.log].to, &mut self.reach) {
            (LogPlace::Here(journal), Reach::Reader(reader)) => match reader.fetch(false, sink).await {
                Ok(fetched) => {
                    if fetched.lost > 0 {
                        journal.met_damage(self.backend);
                    }
                    Ok(Passed { lines: fetched.lines, lost: fetched.lost })
                }
                Err(disklog::Error::Closed) => Err(SourceError::Closed),
                Err(error) => {
                    say_unreadable(&mut self.loud_at, &self.worker, self.backend, &error);
                    Err(SourceError::Unreadable)
                }
            },
            (LogPlace::Elsewhere(feed), Reach::Chunks { current, done, position, .. }) => {
                let mut passed = Passed::default();
                loop {
                    while let Some(record) = current.record(*done) {
                        if !sink(record) {
                            return Ok(passed);
                        }
                        *done += 1;
                        *position = Seq(record.seq.0 + 1);
                        passed.lines += u64::from(record.lines);
                    }
                    *position = current.next.max(*position);
                    let Some(next) = feed.take() else { break };
                    let before = std::mem::replace(current, next);
                    feed.give_back(before);
                    *done = 0;
                    passed.lost += current.lost;
                    if passed.lost > 0 {
                        break;
                    }
                }
                if passed.lines == 0 && feed.unreadable.load(SeqCst) && feed.is_empty() {
                    return Err(SourceError::Unreadable);
                }
                Ok(passed)
            }
            _ => unreachable!("made together"),
        }
    }

    async fn arrived(&mut self) {
        match (&self.ends[self.log].to, &mut self.reach) {
            // Found again by the next fetch: nothing is taken here.
            (LogPlace::Here(journal), Reach::Reader(reader)) => {
                if let Ok(fetched) = reader.fetch(true, &mut |_| false).await
                    && fetched.lost > 0
                {
                    journal.met_damage(self.backend);
                }
            }
            (LogPlace::Elsewhere(feed), Reach::Chunks { arrived, was_behind, .. }) => loop {
                let rung = arrived.wait();
                // That a log has nothing for this backend is news as well: others need not wait for it.
                if feed.has_chunk() || was_behind.get() && !feed.behind.load(SeqCst) {
                    return;
                }
                rung.await;
            },
            _ => unreachable!("made together"),
        }
    }

    fn behind(&self) -> bool {
        match (&self.ends[self.log].to, &self.reach) {
            (_, Reach::Reader(reader)) => reader.behind(),
            (LogPlace::Elsewhere(feed), Reach::Chunks { current, done, .. }) => {
                current.record(*done).is_some() || !feed.is_empty() || feed.behind.load(SeqCst)
            }
            _ => unreachable!("made together"),
        }
    }

    fn position(&self) -> Seq {
        match &self.reach {
            Reach::Reader(reader) => reader.position(),
            Reach::Chunks { position, .. } => *position,
        }
    }

    fn confirm(&mut self) {
        let end = &self.ends[self.log];
        // What others have refused is known to the courier, for its side couriers as well.
        if end.key.is_none() {
            look_at_refused(&self.worker.feeds, &self.ends, self.log, self.backend);
            if end.sides.get() == 0 {
                end.known.borrow_mut().forget_before(self.position());
            }
        }
        end.report.borrow_mut().next = self.position();
        self.flush();
        if let LogPlace::Here(_) = self.ends[self.log].to {
            self.worker.publish(self.backend);
        }
    }

    fn flush(&mut self) -> bool {
        self.ends[self.log].report(self.backend())
    }

    fn rest(&mut self) {
        match &mut self.reach {
            Reach::Reader(reader) => reader.rest(),
            Reach::Chunks { .. } => {}
        }
    }
}

/// Logs that a log cannot be read, and again from time to time.
pub(super) fn say_unreadable(
    loud_at: &mut Option<Instant>,
    worker: &Worker,
    backend: BackendId,
    error: &disklog::Error,
) {
    if loud_at.is_none_or(|at| io::elapsed(at) >= LOUD_INTERVAL) {
        *loud_at = Some(io::now());
        log::error!("{}: cannot read the log: {error}", worker.settings.topology.backend(backend).name);
    }
}

/// Where a courier reports what became of points.
pub struct DeliveryReports {
    worker: Rc<Worker>,
    backend: BackendId,
    ends: Rc<[LogEnd]>,
    up: Cell<bool>,
    /// Of a side courier: its points, and the ends of the courier.
    side: Option<(ParkedKey, Rc<[LogEnd]>)>,
    /// What was refused of what is settled next, each with its stamp.
    rejected: RefCell<Vec<(u64, UnsavedRefusal)>>,
}

/// Refused points as every log saves them until their own one has done so, and their stamp.
pub(super) fn unsaved(feeds: &Feeds, db: &[u8], rejected: &RejectedPoints) -> (u64, UnsavedRefusal) {
    let RejectedPoints { log, ref rp, stamp, record, reason, points } = *rejected;
    let (worker, db, rp) = (feeds.number(log), db.into(), rp.clone());
    (stamp, UnsavedRefusal { worker, record: record.0, db, rp, reason: reason.into(), points })
}

impl DeliveryReports {
    pub(super) fn new(worker: Rc<Worker>, backend: BackendId, ends: Rc<[LogEnd]>) -> Self {
        Self { worker, backend, ends, up: Cell::new(true), side: None, rejected: RefCell::default() }
    }

    /// Of a side courier. `main`: the ends of the courier.
    pub(super) fn of_side(self, key: ParkedKey, main: Rc<[LogEnd]>) -> Self {
        Self { side: Some((key, main)), ..self }
    }

    fn key(&self) -> Option<&ParkedKey> {
        self.side.as_ref().map(|(key, _)| key)
    }

    fn stats(&self) -> &CourierStats {
        &self.worker.all_stats.couriers[self.backend.index()]
    }
}

impl Reports for DeliveryReports {
    fn delivered(&self, log: usize, db: &[u8], lines: u64) {
        self.ends[log].report.borrow_mut().delivered.push((db.into(), lines));
    }

    fn rejected(&self, db: &[u8], rejected: &RejectedPoints) {
        let mut report = self.ends[rejected.log].report.borrow_mut();
        report.reject(db, rejected.reason.into(), rejected.points);
        self.rejected.borrow_mut().push(unsaved(&self.worker.feeds, db, rejected));
    }

    fn settled_below(&self, stamp: u64) {
        self.worker.feeds.order.refused(self.backend, self.rejected.take(), stamp);
        match self.key() {
            None => self.worker.settled_below(self.backend, stamp),
            Some(key) => self.worker.parked_settled_below(self.backend, key, stamp),
        }
    }

    fn partly_settled(&self, settled: Arc<PartlySettled>) {
        if self.side.is_some() {
            self.ends.iter().for_each(|end| _ = end.report_refused(self.backend));
            return;
        }
        self.ends.iter().for_each(|end| end.report_partly(self.backend, &settled));
        self.worker.partly_settled(self.backend, settled);
    }

    fn refused(&self, log: usize, refused: RefusedPoints) {
        if !refused.lines.is_empty() {
            // From here, not when the log's worker has booked it: who sees the stamp of what this courier has settled
            // must know this, too.
            self.worker.feeds.tell_refused(log, refused.record, &refused.lines);
        }
        self.ends[log].refused.borrow_mut().push(refused);
    }

    fn refused_lines(&self, log: usize, record: Seq) -> Vec<u32> {
        let ends = self.side.as_ref().map_or(&self.ends, |(_, main)| main);
        look_at_refused(&self.worker.feeds, ends, log, self.backend);
        let end = &ends[log];
        let mut lines = end.known.borrow().of(record).to_vec();
        if let LogPlace::Here(journal) = &end.to {
            // Also what there was no room to tell.
            lines.extend_from_slice(journal.log.refused().borrow().of(record));
            lines.sort_unstable();
            lines.dedup();
        }
        lines
    }

    fn others_are_past(&self, db: &[u8], stamp: u64) -> bool {
        let (worker, topology) = (&self.worker, &self.worker.settings.topology);
        let circle = topology.backend(self.backend).circle;
        let is_behind = |other: BackendId| {
            let is_other = topology.backend(other).circle != circle;
            is_other && worker.is_up(other) && !worker.feeds.order.is_settled(other, Some(db), stamp + 1)
        };
        if topology.backends.iter().any(|backend| is_behind(backend.id)) {
            // A courier that has nothing to do does not look by itself.
            worker.hurry_couriers(is_behind);
            return false;
        }
        true
    }

    fn state(&self, state: DeliveryState, reason: &str) {
        if self.side.is_some() {
            // The courier and the probe tell of the backend.
            return;
        }
        let up = state == DeliveryState::Up;
        self.stats().up.store(up, Relaxed);
        self.stats().failing.store(!up, Relaxed);
        if self.up.replace(up) != up {
            let (backend, reason) = (self.backend, reason.to_owned());
            self.worker.link.tell(|_| ToControl::BackendChanged { backend, up, reason });
        }
    }

    fn holds(&self, oldest: Option<u64>) {
        self.worker.holds(self.backend, self.key(), oldest);
    }

    fn failing(&self, on: bool) {
        if self.side.is_none() {
            self.stats().failing.store(on, Relaxed);
        }
    }

    fn answered(&self, text: &str) {
        if let Some(key) = self.key() {
            self.worker.feeds.order.parked_answered(self.backend, key, text);
        }
    }

    fn rewriting(&self, on: bool) {
        if self.side.is_some() {
            return;
        }
        self.stats().rewriting.store(on, Relaxed);
    }

    fn stuck(&self, log: bool, letters: bool) {
        if self.side.is_some() {
            return;
        }
        self.stats().log_unreadable.store(log, Relaxed);
        self.stats().letters_unwritten.store(letters, Relaxed);
    }

    fn default_policy(&self, db: &[u8]) -> Option<String> {
        self.worker.default_policy(db)
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

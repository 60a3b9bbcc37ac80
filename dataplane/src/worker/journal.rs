//! A log together with the accounts of its points, as the worker keeps it that the log lives on.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::awaited::AllAwaited;
use super::feed::{Feed, Settled};
use crate::courier::{PartlySettled, RefusedPoints};
use crate::disklog::{self, Appended, Log, Seq};
use crate::ledger::{BACKLOG_FULL, DAMAGED, Ledger};
use crate::parked::ParkedKey;
use crate::settings::BacklogFull;
use crate::topology::BackendId;

/// A log and its ledger.
pub struct Journal {
    /// The number of the log among all logs.
    pub number: usize,
    pub log: Rc<Log>,
    pub ledger: RefCell<Ledger>,
    /// The feeds of side couriers on other workers.
    pub side_feeds: RefCell<Vec<(BackendId, ParkedKey, Arc<Feed>)>>,
    /// Requests that wait for the backends' verdict on their records.
    pub awaited: Rc<AllAwaited>,
    /// By `BackendId`: what is settled behind the cursor, while something holds the cursor.
    partly: RefCell<Vec<Option<Arc<PartlySettled>>>>,
    /// By `BackendId`: why points that the ledger counts as queued may be missing. Checked when the backend has
    /// received everything up to the end of the log. Set at start too, because a crash may have come between a loss and
    /// the next save of the ledger, and what a courier held then may have been dropped.
    doubts: RefCell<Vec<Option<&'static str>>>,
}

/// Why points may be missing after a start.
pub fn doubt(backlog_full: BacklogFull) -> &'static str {
    match backlog_full {
        BacklogFull::DropOldest => BACKLOG_FULL,
        BacklogFull::Reject => DAMAGED,
    }
}

impl Journal {
    /// `backends`: how many are configured.
    pub fn new(number: usize, log: Rc<Log>, ledger: Ledger, backlog_full: BacklogFull, backends: usize) -> Self {
        let doubt = doubt(backlog_full);
        Self {
            number,
            log,
            ledger: RefCell::new(ledger),
            side_feeds: RefCell::default(),
            awaited: Rc::default(),
            partly: RefCell::new(vec![None; backends]),
            doubts: RefCell::new(vec![Some(doubt); backends]),
        }
    }

    /// A reader has met lines that are lost.
    pub fn met_damage(&self, backend: BackendId) {
        self.doubts.borrow_mut()[backend.index()] = Some(DAMAGED);
        // Log where the damage is before how many points it cost.
        self.report_damage();
    }

    /// Parks points of a backend; those from `settled.next` on are not settled. Counts those before, at the same
    /// moment.
    pub fn park(&self, backend: BackendId, key: &ParkedKey, settled: &Settled) {
        let cursor = self.log.cursor(backend);
        if settled.next < cursor {
            self.lost_to_couriers(backend, settled.next..cursor);
        }
        self.count(backend, settled);
        self.log.park(backend, key, settled.next);
    }

    /// Points of this key are not parked any more.
    pub fn unpark(&self, backend: BackendId, key: &ParkedKey) {
        if let Some(dropped) = self.log.unpark(backend, key) {
            self.lost_to_couriers(backend, dropped);
        }
    }

    /// The log has dropped these records to make room, while a courier still had some of them. It leaves them to
    /// another one, which cannot read them any more.
    fn lost_to_couriers(&self, backend: BackendId, records: Range<Seq>) {
        self.doubts.borrow_mut()[backend.index()] = Some(BACKLOG_FULL);
        self.awaited.dropped_within(backend, records);
    }

    fn count(&self, backend: BackendId, settled: &Settled) {
        let mut ledger = self.ledger.borrow_mut();
        for (db, lines) in &settled.delivered {
            ledger.delivered(db, backend, *lines);
        }
        for (db, reason, lines) in &settled.rejected {
            ledger.rejected(db, backend, reason, *lines);
        }
        for (db, lines) in &settled.dropped {
            ledger.dropped(db, backend, BACKLOG_FULL, *lines);
        }
    }

    /// Logs the damage that the log has found since the last call.
    pub fn report_damage(&self) {
        for damage in self.log.take_damage() {
            log::error!("the log is damaged: {damage}");
        }
    }

    /// Counts what has become of points and moves the cursor, both at the same moment. `name`: of the backend. `key`:
    /// of parked points, which have a cursor of their own.
    pub fn settled(&self, backend: BackendId, name: &str, key: Option<&ParkedKey>, settled: &Settled) {
        self.count(backend, settled);
        match key {
            None => {
                self.partly.borrow_mut()[backend.index()] = None;
                self.log.confirm(backend, settled.next);
            }
            Some(key) => self.log.confirm_parked(backend, key, settled.next),
        }
        self.close_accounts(backend, name);
    }

    /// If points of a backend may be missing, and nothing in the log waits for it: what is still counted as queued is
    /// lost.
    pub fn close_accounts(&self, backend: BackendId, name: &str) {
        let doubt = &mut self.doubts.borrow_mut()[backend.index()];
        let Some(reason) = doubt.take_if(|_| self.log.is_served(backend)) else { return };
        self.count_dropped();
        let lost = self.ledger.borrow_mut().settle(backend, reason);
        if lost > 0 {
            log::error!("{name}: {lost} points are lost ({}): {reason}", self.log.dir().display());
        }
    }

    /// A courier tells how far it is, with its cursors held.
    pub fn partly_settled(&self, backend: BackendId, settled: Arc<PartlySettled>) {
        let before = self.partly.borrow_mut()[backend.index()].replace(settled.clone());
        // Who waits makes couriers hurry: equal news must wake nobody.
        if before.is_none_or(|before| (&before.next, &before.groups) != (&settled.next, &settled.groups)) {
            self.log.wake_waiting();
        }
    }

    /// Whether all records of `db` before `end` are delivered to the backend, are dead letters, or were dropped. What
    /// was dropped from `first` on has been told then.
    pub fn has_settled(&self, backend: BackendId, db: &[u8], first: Seq, end: Seq) -> bool {
        let partly = || self.partly.borrow()[backend.index()].as_ref().is_some_and(|p| p.reaches(self.number, db, end));
        (self.log.has_confirmed(backend, first, end) || partly()) && self.log.parked_reach(backend, db, end)
    }

    /// The backend has refused points of a record. Comes before the report that settles the record.
    pub fn refused(&self, backend: BackendId, refused: &RefusedPoints) {
        self.awaited.refused(backend, refused);
        if !refused.lines.is_empty() {
            self.log.refused().borrow_mut().add(refused.record, &refused.lines);
        }
    }

    /// Counts in the ledger what the log has dropped to make room.
    pub fn count_dropped(&self) {
        let mut ledger = self.ledger.borrow_mut();
        for dropped in self.log.take_dropped() {
            ledger.dropped(&dropped.db, dropped.backend, BACKLOG_FULL, dropped.lines);
        }
    }

    /// Books what the log drops before it is gone, and tells requests that wait for it.
    pub fn keep_books(self: &Rc<Self>) {
        let awaited = self.awaited.clone();
        self.log.tell_dropped(move |backend, record| awaited.dropped(backend, record));
        let books = Rc::downgrade(self);
        self.log.keep_books(move |unwritten| books.upgrade().map(|books| books.book_dropped(unwritten)));
    }

    /// Returns the ledger with what was dropped, without what is not on disk yet.
    fn book_dropped(&self, unwritten: &[Appended]) -> Vec<u8> {
        self.count_dropped();
        self.ledger.borrow_mut().text_without(unwritten).into_bytes()
    }

    /// See [`Log::begin_rerouting`].
    ///
    /// # Errors
    /// When the log fails.
    pub async fn begin_rerouting(&self) -> Result<(), disklog::Error> {
        let text = self.ledger.borrow().to_text();
        self.log.begin_rerouting(text.into_bytes()).await
    }

    /// Makes cursors and ledger durable, both as of the same moment. `exactly`: and what is settled of other logs.
    ///
    /// # Errors
    /// When the log fails.
    pub async fn save(&self, exactly: bool) -> Result<(), disklog::Error> {
        self.count_dropped();
        let text = self.ledger.borrow().to_text();
        self.log.save_state(text.into_bytes(), exactly).await
    }
}

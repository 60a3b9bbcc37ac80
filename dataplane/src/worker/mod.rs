//! A worker: one pinned executor with its listener, connections, log and couriers.

pub mod grouping;
pub mod holds;
pub mod latency;
pub mod link;
pub mod readers;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::courier::{PartlySettled, RunningCourier};
use crate::disklog::{self, Log, Seq};
use crate::handoff::{Catalog, Ticket, ToControl, ToWorker};
use crate::http::auth::Guard;
use crate::http::gzip::Inflater;
use crate::http::request_id::RequestIds;
use crate::http::response::Responder;
use crate::io::{self, Event};
use crate::ledger::{BACKLOG_FULL, DbId, Ledger};
use crate::limits::{REFRESH_TIMEOUT, REFUSAL_TEXT_CHARS_MAX, SPARES_MAX, UNKNOWN_DB_CACHE, UNKNOWN_DB_ENTRIES_MAX};
use crate::placement::{Placement, RouteTable};
use crate::request::conns::Conns;
use crate::request::pool::Pool;
use crate::settings::Settings;
use crate::stats::{Stats, WorkerStats};
use crate::topology::BackendId;
use grouping::Grouping;
use holds::Holds;
use latency::AckLatency;
use link::Link;
use readers::Queries;

/// A database and one of its policies.
type Named = (Box<[u8]>, Box<[u8]>);

/// What the tasks of one worker share. Single-threaded: cells, no locks. No borrow lives across an await.
pub struct Worker {
    pub id: usize,
    pub settings: Arc<Settings>,
    pub log: Rc<Log>,
    pub ledger: RefCell<Ledger>,
    pub routes: RefCell<RouteTable>,
    pub groupings: Spares<Grouping>,
    inflaters: Spares<Option<Box<Inflater>>>,
    pub pool: Rc<Pool>,
    pub conns: Rc<Conns>,
    pub link: Rc<Link>,
    pub responder: RefCell<Responder>,
    pub guard: Guard,
    pub latency: RefCell<AckLatency>,
    pub queries: Queries,
    catalog: RefCell<Arc<Catalog>>,
    /// Databases and policies that a refresh did not find, and when.
    unknown: RefCell<HashMap<Named, Instant>>,
    /// All workers' counters.
    pub all_stats: Arc<Stats>,
    /// By `BackendId`; empty until the couriers are started.
    couriers: RefCell<Vec<RunningCourier>>,
    holds: Holds,
    /// What is settled behind the cursor, by `BackendId`, while something holds a cursor.
    partly_settled: RefCell<Vec<Option<PartlySettled>>>,
    /// The text with which each backend last refused points, by `BackendId`.
    refusals: RefCell<Vec<String>>,
    stop: Event,
    last_ms: Cell<u64>,
}

/// Values that are cheaper to keep than to create.
#[derive(Default)]
pub struct Spares<T> {
    kept: RefCell<Vec<T>>,
}

impl<T: Default> Spares<T> {
    pub fn take(&self) -> T {
        self.kept.borrow_mut().pop().unwrap_or_default()
    }

    /// Keeps at most `SPARES_MAX`; drops the rest.
    pub fn give(&self, spare: T) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < SPARES_MAX {
            kept.push(spare);
        }
    }
}

impl Worker {
    pub fn stats(&self) -> &WorkerStats {
        &self.all_stats.workers[self.id]
    }

    /// The time for records, in milliseconds since 1970. Never goes back, even if the clock does.
    pub fn clock_ms(&self) -> u64 {
        let now = u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.set(now.max(self.last_ms.get()));
        self.last_ms.get()
    }

    /// Where data belongs and is read from: the last placement received.
    pub fn placement(&self) -> Arc<Placement> {
        self.routes.borrow().placement().clone()
    }

    fn apply_placement(&self, placement: Arc<Placement>) {
        // A message may come twice. An older placement must not replace a newer one.
        if placement.version() > self.placement().version() {
            let version = placement.version();
            self.routes.borrow_mut().replace(placement);
            self.stats().placement_version.store(version, Release);
        }
    }

    pub fn count_request(&self) {
        self.stats().requests.fetch_add(1, Relaxed);
    }

    pub fn inflater(&self) -> Box<Inflater> {
        let bytes_max = self.settings.max_body_bytes;
        match self.inflaters.take() {
            Some(mut inflater) => {
                inflater.reset(bytes_max);
                inflater
            }
            None => Box::new(Inflater::new(bytes_max)),
        }
    }

    pub fn give_inflater(&self, inflater: Box<Inflater>) {
        self.inflaters.give(Some(inflater));
    }

    pub fn db_allowed(&self, db: &[u8]) -> bool {
        let list = &self.settings.db_list;
        list.is_empty() || list.iter().any(|allowed| allowed.as_bytes() == db)
    }

    /// Points of `db` that each backend has refused so far, by `BackendId`.
    pub fn rejected_points(&self, db: DbId) -> Vec<u64> {
        let ledger = self.ledger.borrow();
        let partly_settled = self.partly_settled.borrow();
        let of = |backend: BackendId| {
            let unreported = partly_settled[backend.index()].iter().flat_map(|settled| &settled.groups);
            let unreported = unreported.filter(|group| group.rejected > 0 && ledger.find(&group.db) == Some(db));
            ledger.rejected_points(db, backend) + unreported.map(|group| group.rejected).sum::<u64>()
        };
        self.settings.topology.backends.iter().map(|b| of(b.id)).collect()
    }

    /// Whether all records of `db` before `end` are delivered to the backend, or are dead letters.
    pub fn has_settled(&self, backend: BackendId, db: DbId, end: Seq) -> bool {
        let is_open = |settled: &PartlySettled| {
            let ledger = self.ledger.borrow();
            settled.groups.iter().any(|g| g.first.is_some_and(|first| first < end) && ledger.find(&g.db) == Some(db))
        };
        self.log.cursor(backend) >= end
            || self.partly_settled.borrow()[backend.index()]
                .as_ref()
                .is_some_and(|settled| settled.next >= end && !is_open(settled))
    }

    /// A courier tells how far it is, with its cursor held.
    pub fn partly_settled(&self, backend: BackendId, settled: PartlySettled) {
        let settled = Some(settled);
        let before = &mut self.partly_settled.borrow_mut()[backend.index()];
        // Who waits makes couriers hurry: equal news must wake nobody.
        if *before != settled {
            *before = settled;
            self.log.wake_waiting();
        }
    }

    /// The cursor says all.
    pub fn whole_settled(&self, backend: BackendId) {
        self.partly_settled.borrow_mut()[backend.index()] = None;
    }

    /// A client waits for confirmation: couriers skip their pause once.
    pub fn hurry_couriers(&self) {
        self.couriers.borrow().iter().for_each(RunningCourier::hurry);
    }

    /// Stops delivery at the current end of the log until [`Worker::release`]. Returns that place.
    pub fn hold(&self, ticket: Ticket) -> Seq {
        let mark = self.log.end();
        self.hold_couriers(self.holds.add(ticket, mark));
        mark
    }

    /// Ends a hold. False: it had ended before.
    pub fn release(&self, ticket: Ticket) -> bool {
        let released = self.holds.remove(ticket);
        if let Some(first) = released {
            self.hold_couriers(first);
        }
        released.is_some()
    }

    /// Resolves when that hold has ended.
    pub async fn released(&self, ticket: Ticket) {
        self.holds.removed(ticket).await;
    }

    fn hold_couriers(&self, first: Option<Seq>) {
        self.couriers.borrow().iter().for_each(|courier| courier.hold(first));
    }

    /// Notes the text with which a backend has refused points.
    pub fn note_refusal(&self, backend: BackendId, text: &str) {
        let text = text.chars().take(REFUSAL_TEXT_CHARS_MAX).collect();
        self.refusals.borrow_mut()[backend.index()] = text;
    }

    /// The text with which that backend last refused points; empty if it never did.
    pub fn refusal(&self, backend: BackendId) -> String {
        self.refusals.borrow()[backend.index()].clone()
    }

    /// Whether a database, and the policy if one is named, exists anywhere. Asks the backends once, through the control
    /// thread, before the answer is no. If no backend can be asked the answer is yes, and the points wait in the log.
    pub async fn find(&self, db: &[u8], rp: &[u8]) -> Found {
        let found = self.look_up(db, rp);
        if found == Found::Yes || self.recently_unknown(db, rp) {
            return found;
        }
        let refresh = |worker, ticket| ToControl::RefreshCatalog { worker, ticket };
        if self.link.ask(REFRESH_TIMEOUT, refresh).await.is_err() {
            // Unknown. An accepted point that no backend wants becomes a dead letter later; a refused one would be lost
            // now.
            return Found::Yes;
        }
        let found = self.look_up(db, rp);
        if found != Found::Yes {
            let mut unknown = self.unknown.borrow_mut();
            if unknown.len() >= UNKNOWN_DB_ENTRIES_MAX {
                unknown.clear();
            }
            unknown.insert((db.into(), rp.into()), io::now());
        }
        found
    }

    fn look_up(&self, db: &[u8], rp: &[u8]) -> Found {
        let catalog = self.catalog.borrow();
        if !catalog.known {
            return Found::Yes;
        }
        // InfluxDB's names are UTF-8.
        let Some(db) = std::str::from_utf8(db).ok().filter(|db| catalog.may_have_database(db)) else {
            return Found::NoDatabase;
        };
        let has_policy = match std::str::from_utf8(rp) {
            Ok(rp) => catalog.may_have_policy(db, rp),
            Err(_) => catalog.databases[db].policies.is_empty(),
        };
        if has_policy { Found::Yes } else { Found::NoPolicy }
    }

    fn recently_unknown(&self, db: &[u8], rp: &[u8]) -> bool {
        let unknown = self.unknown.borrow();
        // Only asked before a refusal, so the two small copies do not matter.
        let key: Named = (db.into(), rp.into());
        unknown.get(&key).is_some_and(|at| io::elapsed(*at) < UNKNOWN_DB_CACHE)
    }

    /// The time of the oldest record for a backend in the logs of other workers.
    pub fn oldest_elsewhere(&self, backend: BackendId) -> u64 {
        let others = self.all_stats.workers.iter().enumerate().filter(|(id, _)| *id != self.id);
        others.map(|(_, stats)| stats.backends[backend.index()].oldest_ms.load(Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// Publishes the backlog of a backend to the counters.
    pub fn publish(&self, backend: BackendId) {
        let stats = &self.stats().backends[backend.index()];
        stats.queued_points.store(self.ledger.borrow().queued(backend), Relaxed);
    }

    /// Counts in the ledger what the log has dropped to make room.
    pub fn count_dropped(&self) {
        let mut ledger = self.ledger.borrow_mut();
        for dropped in self.log.take_dropped() {
            let db = ledger.database(&dropped.db);
            ledger.dropped(db, dropped.backend, BACKLOG_FULL, dropped.lines);
        }
    }

    /// Logs the damage that the log has found since the last call.
    pub fn report_damage(&self) {
        for damage in self.log.take_damage() {
            log::error!("the log is damaged: {damage}");
        }
    }

    /// Makes cursors and ledger durable, both as of the same moment.
    ///
    /// # Errors
    /// When the log fails.
    pub async fn save_state(&self) -> Result<(), disklog::Error> {
        self.count_dropped();
        let text = self.ledger.borrow().to_text();
        self.log.save_state(text.into_bytes()).await
    }
}

/// Whether a database and policy are in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Yes,
    NoDatabase,
    NoPolicy,
}

impl Worker {
    /// A worker on an open log, without couriers yet.
    pub fn new(
        id: usize,
        settings: Arc<Settings>,
        placement: Arc<Placement>,
        stats: Arc<Stats>,
        link: Rc<Link>,
        log: Rc<Log>,
        ledger: Ledger,
    ) -> Self {
        Self {
            id,
            log,
            ledger: RefCell::new(ledger),
            routes: RefCell::new(RouteTable::new(placement)),
            groupings: Spares::default(),
            inflaters: Spares::default(),
            pool: Pool::new(),
            conns: Conns::new(settings.idle_timeout),
            link,
            responder: RefCell::new(responder(id, &settings)),
            guard: Guard::new(&settings.credentials),
            latency: RefCell::new(AckLatency::new(io::now())),
            queries: Queries::new(&settings),
            catalog: RefCell::default(),
            unknown: RefCell::default(),
            couriers: RefCell::default(),
            holds: Holds::default(),
            partly_settled: RefCell::new(vec![None; settings.topology.backends.len()]),
            refusals: RefCell::new(vec![String::new(); settings.topology.backends.len()]),
            stop: Event::default(),
            last_ms: Cell::default(),
            settings,
            all_stats: stats,
        }
    }

    /// Sets the couriers, by `BackendId`.
    pub fn serve_with(&self, couriers: Vec<RunningCourier>) {
        *self.couriers.borrow_mut() = couriers;
    }

    /// Resolves when the worker has been told to stop.
    pub async fn stopped(&self) {
        let stop = self.stop.wait();
        if !self.conns.stopping() {
            stop.await;
        }
    }

    /// The process is stopping. The control thread may not be there to tell.
    pub fn process_stops(&self) -> bool {
        self.all_stats.stopping.load(Relaxed)
    }

    /// Takes no further requests.
    pub fn stop(&self) {
        self.conns.stop();
        self.stop.notify();
    }

    /// Handles a message that is not an answer.
    pub fn receive(&self, message: ToWorker) {
        let couriers = self.couriers.borrow();
        match message {
            ToWorker::Catalog(catalog) => {
                self.unknown.borrow_mut().clear();
                *self.catalog.borrow_mut() = catalog;
            }
            ToWorker::Placement(placement) => self.apply_placement(placement),
            ToWorker::Probed { backend, up } => couriers[backend.index()].probed(up),
            ToWorker::Address { backend, addr } => {
                couriers[backend.index()].moved(addr);
                self.queries.moved(backend, addr);
            }
            ToWorker::LedgerWanted { ticket } => {
                let rows = self.ledger.borrow().rows();
                self.link.tell(|worker| ToControl::Ledger { worker, ticket, rows });
            }
            ToWorker::Release { ticket } => _ = self.release(ticket),
            ToWorker::Shutdown => self.stop(),
            ToWorker::Drain { .. } | ToWorker::Write { .. } => unreachable!("`run` starts a task for each"),
            ToWorker::Admin { .. }
            | ToWorker::Query { .. }
            | ToWorker::CatalogRefreshed { .. }
            | ToWorker::Created { .. } => {
                unreachable!("an answer goes to the task that asked")
            }
        }
    }
}

/// Request ids must be unique: each worker has its own clock sequence, each process its own node.
fn responder(id: usize, settings: &Settings) -> Responder {
    let [a, b, c, d, e, f, ..] = std::process::id().wrapping_mul(0x9e37_79b9).to_be_bytes().repeat(2)[..] else {
        unreachable!("eight bytes");
    };
    // The multicast bit marks a node that is not a network card's (RFC 9562 section 6.10).
    let ids = RequestIds::new(id as u16, [a | 1, b, c, d, e, f]);
    let mut responder = Responder::new(ids, Some(settings.durability.name()));
    responder.set_time(unix_time());
    responder
}

/// Time since 1970; 0 if the clock is before that.
pub fn unix_time() -> Duration {
    io::system_time().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Why a worker does not start, or ends on its own.
#[derive(Debug)]
pub enum WorkerError {
    Log(disklog::Error),
    Io(std::io::Error),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<disklog::Error> for WorkerError {
    fn from(error: disklog::Error) -> Self {
        Self::Log(error)
    }
}

impl From<std::io::Error> for WorkerError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

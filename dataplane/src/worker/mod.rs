//! A worker: one pinned executor with its listener, connections, log and couriers.

pub mod awaited;
pub mod feed;
pub mod grouping;
pub mod holds;
pub mod journal;
pub mod latency;
pub mod link;
pub mod readers;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::courier::{PartlySettled, RunningCourier};
use crate::disklog;
use crate::handoff::{Catalog, LedgerRow, Ticket, ToControl, ToWorker};
use crate::http::auth::Guard;
use crate::http::gzip::Inflater;
use crate::http::request_id::RequestIds;
use crate::http::response::Responder;
use crate::http::version::InfluxVersion;
use crate::io::{self, Event};
use crate::limits::{REFRESH_TIMEOUT, SPARES_MAX, UNKNOWN_DB_CACHE, UNKNOWN_DB_ENTRIES_MAX};
use crate::order::RecordOrder;
use crate::parked::ParkedKey;
use crate::placement::{Placement, RouteTable};
use crate::request::conns::Conns;
use crate::request::pool::Pool;
use crate::settings::Settings;
use crate::stats::{Stats, WorkerStats};
use crate::topology::BackendId;
use feed::{Feed, Feeds};
use grouping::Grouping;
use holds::Holds;
use journal::Journal;
use latency::AckLatency;
use link::Link;
use readers::Queries;

/// A database and one of its policies.
type Named = (Box<[u8]>, Box<[u8]>);

/// What the tasks of one worker share. Single-threaded: cells, no locks. No borrow lives across an await.
pub struct Worker {
    pub id: usize,
    pub settings: Arc<Settings>,
    /// The log that this worker writes.
    pub own: Rc<Journal>,
    /// Logs of former workers, which are only read.
    former: Vec<Rc<Journal>>,
    pub feeds: Arc<Feeds>,
    /// The feeds that end on this worker.
    feed_ends: RefCell<Vec<WorkerFeed>>,
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
    /// The couriers of this worker, by `BackendId`; empty until they are started.
    couriers: RefCell<Vec<Option<RunningCourier>>>,
    holds: Holds,
    /// A courier, here or elsewhere, has settled something that a query may wait for.
    settled: Event,
    /// What this worker's couriers have settled beyond their cursors, by `BackendId`, while something holds these.
    partly_settled: RefCell<Vec<Option<Arc<PartlySettled>>>>,
    stop: Event,
}

/// The end of a feed on this worker.
struct WorkerFeed {
    log: usize,
    backend: BackendId,
    feed: Arc<Feed>,
    /// The log is here, and the courier on another worker.
    is_owner: bool,
    rung: Rc<Event>,
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

    /// The time of the order of records, in milliseconds since 1970. Never goes back, even if the clock does.
    pub fn clock_ms(&self) -> u64 {
        RecordOrder::unix_ms(self.feeds.order.now())
    }

    /// The logs that live on this worker; its own comes first.
    pub fn journals(&self) -> impl Iterator<Item = &Rc<Journal>> {
        std::iter::once(&self.own).chain(&self.former)
    }

    /// The log with this number.
    ///
    /// # Panics
    /// When it lives on another worker.
    pub fn journal(&self, log: usize) -> Rc<Journal> {
        self.journals().find(|journal| journal.number == log).expect("a log of this worker").clone()
    }

    /// Happens when the other end of that feed has something for this worker.
    ///
    /// # Panics
    /// When the feed does not end on this worker.
    pub fn feed_event(&self, feed: &Arc<Feed>) -> Rc<Event> {
        let ends = self.feed_ends.borrow();
        ends.iter().find(|end| Arc::ptr_eq(&end.feed, feed)).expect("a feed of this worker").rung.clone()
    }

    /// Looks after the feed of a side courier from now on.
    pub fn add_side_feed(&self, log: usize, backend: BackendId, feed: &Arc<Feed>) {
        let (feed, is_owner) = (feed.clone(), self.feeds.owner_of(log) == self.id);
        self.feed_ends.borrow_mut().push(WorkerFeed { log, backend, feed, is_owner, rung: Rc::default() });
    }

    /// The feed of a side courier has ended.
    pub fn remove_side_feed(&self, feed: &Arc<Feed>) {
        let mut ends = self.feed_ends.borrow_mut();
        if let Some(at) = ends.iter().position(|end| Arc::ptr_eq(&end.feed, feed)) {
            ends.swap_remove(at).rung.notify();
        }
    }

    /// A courier (`key`: or a side courier) of this worker holds undelivered points from that stamp on; None: it has
    /// none.
    pub fn holds(&self, backend: BackendId, key: Option<&ParkedKey>, oldest: Option<u64>) {
        let (order, stats) = (&self.feeds.order, &self.all_stats.couriers[backend.index()]);
        match key {
            None => stats.oldest_unparked_ms.store(oldest.map_or(u64::MAX, RecordOrder::unix_ms), Relaxed),
            Some(key) => order.parked_hold(backend, key, oldest.unwrap_or(u64::MAX)),
        }
        let parked = order.parked_wait(backend, |_| true).map(|wait| wait.oldest).filter(|oldest| *oldest != u64::MAX);
        let parked = parked.map_or(u64::MAX, RecordOrder::unix_ms);
        stats.oldest_ms.store(parked.min(stats.oldest_unparked_ms.load(Relaxed)), Relaxed);
    }

    /// Points of some key are not parked any more: wakes who waits for them.
    pub fn parked_ended(&self) {
        self.feeds.tell_settled();
        self.own.log.wake_waiting();
    }

    /// A side courier of this worker tells that its points below that stamp are settled.
    pub fn parked_settled_below(&self, backend: BackendId, key: &ParkedKey, stamp: u64) {
        let Some(before) = self.feeds.order.settle_parked(backend, key, stamp) else { return };
        if before < stamp {
            self.feeds.tell_settled();
        }
        if self.holds.any_within(before, stamp) {
            self.own.log.wake_waiting();
        }
    }

    /// Wakes the tasks whose feeds have been rung.
    pub fn look_at_feeds(&self) {
        if self.feeds.look_at_settled_news(self.id) {
            self.settled.notify();
        }
        for end in self.feed_ends.borrow().iter() {
            let side = if end.is_owner { &end.feed.to_owner } else { &end.feed.to_courier };
            if !side.look() {
                continue;
            }
            end.rung.notify();
            if !end.is_owner
                && end.feed.hurry.swap(false, SeqCst)
                && let Some(Some(courier)) = self.couriers.borrow().get(end.backend.index())
            {
                courier.hurry();
            }
        }
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

    /// A courier of this worker tells that everything below that stamp is settled.
    pub fn settled_below(&self, backend: BackendId, stamp: u64) {
        let before = self.feeds.order.settled(backend);
        self.feeds.order.settle(backend, stamp);
        self.partly_settled.borrow_mut()[backend.index()] = None;
        if before < stamp {
            self.feeds.tell_settled();
        }
        if self.holds.any_within(before, stamp) {
            self.own.log.wake_waiting();
        }
    }

    /// A courier of this worker tells how far it is, with its cursors held.
    pub fn partly_settled(&self, backend: BackendId, settled: Arc<PartlySettled>) {
        let before = self.partly_settled.borrow_mut()[backend.index()].replace(settled.clone());
        let below = before.as_ref().map_or(0, |before| before.below);
        // Who waits makes couriers hurry: equal news must wake nobody.
        let is_new = before.is_none_or(|before| before.groups != settled.groups);
        if is_new || self.holds.any_within(below, settled.below) {
            self.own.log.wake_waiting();
        }
    }

    /// Whether this worker's courier has settled all records of `db` (None: of all databases) below that stamp.
    pub fn has_settled_below(&self, backend: BackendId, db: Option<&[u8]>, stamp: u64) -> bool {
        let partly =
            || self.partly_settled.borrow()[backend.index()].as_ref().is_some_and(|p| p.reaches_stamp(db, stamp));
        (self.feeds.order.settled(backend) >= stamp || partly()) && self.feeds.order.parked_reach(backend, db, stamp)
    }

    /// Whether the backend has taken no write since the last failure, as its courier sees it.
    pub fn is_up(&self, backend: BackendId) -> bool {
        self.all_stats.couriers[backend.index()].up.load(Relaxed)
    }

    /// The backends whose couriers live on this worker.
    pub fn served_here(&self) -> Vec<BackendId> {
        let all = self.settings.topology.backends.iter().map(|backend| backend.id);
        all.filter(|&backend| self.feeds.courier_of(backend) == self.id).collect()
    }

    /// A client waits for confirmation by these backends: their couriers skip their pause once.
    pub fn hurry_couriers(&self, waits_for: impl Fn(BackendId) -> bool) {
        for (backend, courier) in self.couriers.borrow().iter().enumerate() {
            if let Some(courier) = courier.as_ref().filter(|_| waits_for(BackendId(backend as u16))) {
                courier.hurry();
            }
        }
        let ends = self.feed_ends.borrow();
        let own = ends.iter().filter(|end| end.is_owner && end.log == self.own.number);
        own.filter(|end| waits_for(end.backend)).for_each(|end| end.feed.hurry());
    }

    /// Resolves when a courier of any worker has settled something after this call.
    pub fn settled_news(&self) -> impl Future<Output = ()> + '_ {
        let news = self.settled.wait();
        self.feeds.want_settled_news(self.id);
        news
    }

    /// Stops delivery at that stamp until [`Worker::release`].
    pub fn hold(&self, ticket: Ticket, from: u64) {
        self.hold_couriers(self.holds.add(ticket, from));
    }

    /// Ends a hold. False: it had ended before.
    pub fn release(&self, ticket: Ticket) -> bool {
        let released = self.holds.remove(ticket);
        if let Some(first) = released {
            self.hold_couriers(first);
        }
        released.is_some()
    }

    /// Ends the couriers of this worker.
    pub fn stop_couriers(&self) {
        self.couriers.borrow().iter().flatten().for_each(RunningCourier::stop);
    }

    /// Resolves when that hold has ended.
    pub async fn released(&self, ticket: Ticket) {
        self.holds.removed(ticket).await;
    }

    fn hold_couriers(&self, first: Option<u64>) {
        self.couriers.borrow().iter().flatten().for_each(|courier| courier.hold(first));
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

    /// The name of the database's default policy, if it is known.
    pub fn default_policy(&self, db: &[u8]) -> Option<String> {
        self.catalog.borrow().databases.get(std::str::from_utf8(db).ok()?)?.default.clone()
    }

    fn recently_unknown(&self, db: &[u8], rp: &[u8]) -> bool {
        let unknown = self.unknown.borrow();
        // Only asked before a refusal, so the two small copies do not matter.
        let key: Named = (db.into(), rp.into());
        unknown.get(&key).is_some_and(|at| io::elapsed(*at) < UNKNOWN_DB_CACHE)
    }

    /// The ledgers of all logs of this worker.
    pub fn ledger_rows(&self) -> Vec<LedgerRow> {
        self.journals().flat_map(|journal| journal.ledger.borrow().rows()).collect()
    }

    /// Publishes the backlog of a backend to the counters.
    pub fn publish(&self, backend: BackendId) {
        let queued = self.journals().map(|journal| journal.ledger.borrow().queued(backend)).sum();
        self.stats().queued_points[backend.index()].store(queued, Relaxed);
    }

    /// Logs the damage that the logs have found since the last call.
    pub fn report_damage(&self) {
        self.journals().for_each(|journal| journal.report_damage());
    }

    /// Makes cursors and ledgers durable, those of each log as of the same moment.
    ///
    /// # Errors
    /// When a log fails, or has failed before. The others have been saved.
    pub async fn save_state(&self) -> Result<(), disklog::Error> {
        let mut result = Ok(());
        for journal in self.journals() {
            journal.ledger.borrow_mut().make_room(|db| self.catalog.borrow().may_have_database(db));
            result = result.and(journal.save(false).await);
        }
        result
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
    /// A worker on open logs, its own first, without couriers yet.
    pub fn new(
        id: usize,
        settings: Arc<Settings>,
        placement: Arc<Placement>,
        stats: Arc<Stats>,
        link: Rc<Link>,
        feeds: Arc<Feeds>,
        mut journals: Vec<Rc<Journal>>,
    ) -> Self {
        let own = journals.remove(0);
        let feed_end = |log: usize, backend: BackendId| {
            let feed = feeds.feed(log, backend)?.clone();
            let is_owner = feeds.owner_of(log) == id;
            let ends_here = is_owner || feeds.courier_of(backend) == id;
            ends_here.then(|| WorkerFeed { log, backend, feed, is_owner, rung: Rc::default() })
        };
        let backends = || settings.topology.backends.iter().map(|backend| backend.id);
        let feed_ends = (0..feeds.logs())
            .flat_map(|log| backends().map(move |b| (log, b)))
            .filter_map(|(log, b)| feed_end(log, b))
            .collect();
        Self {
            id,
            own,
            former: journals,
            feed_ends: RefCell::new(feed_ends),
            feeds,
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
            settled: Event::default(),
            partly_settled: RefCell::new(vec![None; settings.topology.backends.len()]),
            stop: Event::default(),
            settings,
            all_stats: stats,
        }
    }

    /// Sets the couriers, by `BackendId`.
    pub fn serve_with(&self, couriers: Vec<Option<RunningCourier>>) {
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
            ToWorker::Probed { backend, up } => {
                if let Some(courier) = &couriers[backend.index()] {
                    courier.probed(up);
                }
                self.queries.news.notify();
                self.learn_version();
            }
            ToWorker::Address { backend, addr } => {
                if let Some(courier) = &couriers[backend.index()] {
                    courier.moved(addr);
                }
                self.queries.moved(backend, addr);
            }
            ToWorker::LedgerWanted { ticket } => {
                let rows = self.ledger_rows();
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

    /// The log has failed, and other workers can take this one's clients.
    pub fn leaves_clients(&self) -> bool {
        self.own.log.poison().is_some() && self.all_stats.workers.iter().any(|other| other.ready.load(Relaxed))
    }

    /// Answers name the version of InfluxDB that is configured, or that the backends have.
    pub fn learn_version(&self) {
        if self.settings.influxdb_version.is_none()
            && let Some(version) = InfluxVersion::unpack(self.all_stats.influxdb_version.load(Relaxed))
        {
            self.responder.borrow_mut().set_version(&version.to_string());
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
    if let Some(version) = &settings.influxdb_version {
        responder.set_version(version);
    }
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
    /// The process was stopped during the start.
    Stopped,
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
            Self::Stopped => write!(f, "stopped during the start"),
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

//! The process under test: its workers run the data plane's own code; the control thread's part is played here. Lives
//! follow one another: a supervisor starts the process again when it has ended.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

use fluxgate_dataplane::handoff::{
    self, Catalog, ControlEnd, Created, Database, Drained, LedgerRow, Ticket, ToControl, ToWorker, WorkerEnd,
};
use fluxgate_dataplane::io::{self, Socket};
use fluxgate_dataplane::limits::CONNECTIONS_PER_WORKER_MAX;
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::serve::run::{self, Feeds, Start};
use fluxgate_dataplane::settings::{
    BacklogFull, Consistency, Credentials, Durability, MissingDb, QuerySettings, Settings,
};
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::BackendId;
use fluxgate_machine::{Flag, Group, disk, exec, net};
use futures_lite::FutureExt;

use crate::backend::Says;
use crate::hosts;
use crate::influx::POLICY;
use crate::setup::{Full, Missing, Safety};
use crate::world::{self, World};

const DATA: &str = "/data";
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const NAMES_INTERVAL: Duration = Duration::from_secs(10);
/// Between two probes at least.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
const CATALOG_INTERVAL: Duration = Duration::from_secs(10);
/// How much longer than a worker its answer is waited for.
const WORKER_GRACE: Duration = Duration::from_secs(2);
/// The supervisor takes up to this long to see that the process has ended.
const SUPERVISOR_PAUSE: Duration = Duration::from_millis(100);
/// An orderly stop takes no longer.
const STOP_TIMEOUT: Duration = Duration::from_millis(4500);

/// The process, living or not.
pub struct Process {
    world: Rc<World>,
    life: RefCell<Option<Rc<Life>>>,
    /// It is down until then, and then starts with so many workers.
    pub down_until: Cell<Duration>,
    pub workers: Cell<usize>,
    /// A worker has ended, or the process has.
    changed: Rc<Flag>,
}

/// One life of it.
pub struct Life {
    pub groups: Vec<Group>,
    pub control: Group,
    end: ControlEnd,
    pub began: Duration,
    pub stats: Arc<Stats>,
    /// Workers that have ended, and how.
    ended: RefCell<Vec<Result<(), String>>>,
    up: RefCell<Vec<bool>>,
    catalog: RefCell<Arc<Catalog>>,
    /// Rows by worker, of the ledger asked for last.
    rows: RefCell<BTreeMap<usize, Vec<LedgerRow>>>,
    ticket: Cell<Ticket>,
    probe_now: Vec<Flag>,
    order: OnceCell<Arc<RecordOrder>>,
    /// Answers to [`Life::drain`]: whether a worker has delivered everything.
    drained: RefCell<BTreeMap<(Ticket, usize), bool>>,
    /// A statement is under way.
    pub changes_structure: Cell<bool>,
}

impl Process {
    pub fn new(world: Rc<World>) -> Rc<Self> {
        let workers = Cell::new(world.setup.workers);
        Rc::new(Self { world, life: RefCell::default(), down_until: Cell::default(), workers, changed: Rc::default() })
    }

    pub fn life(&self) -> Option<Rc<Life>> {
        self.life.borrow().clone()
    }

    /// Starts it now, and again whenever it has ended by itself. Runs for ever.
    pub async fn supervise(self: Rc<Self>) {
        loop {
            let wait = self.down_until.get().saturating_sub(exec::now());
            if !wait.is_zero() {
                exec::sleep(wait).await;
                continue;
            }
            let ended = self.life().map(|life| life.ended.borrow().iter().find_map(|end| end.clone().err()));
            match ended {
                None => self.start(),
                Some(Some(error)) => {
                    exec::trace(|| format!("the process ends: {error}"));
                    self.kill(false);
                    self.down_until.set(exec::now() + Duration::from_secs(1));
                }
                Some(None) => {
                    self.changed.wait().await;
                    exec::sleep(exec::random(|rng| rng.duration(Duration::ZERO, SUPERVISOR_PAUSE))).await;
                }
            }
        }
    }

    fn start(&self) {
        let setup = &self.world.setup;
        let workers = self.workers.get();
        exec::trace(|| format!("the process starts with {workers} workers"));
        let settings = Arc::new(settings(&self.world, workers));
        let stats = Arc::new(Stats::new(workers, setup.backends(), setup.circles));
        let (end, worker_ends) = handoff::pair(workers).expect("memory only");
        let control = exec::group(hosts::PROXY, "control");
        let life = Rc::new(Life {
            groups: (0..workers).map(|id| exec::group(hosts::PROXY, format!("worker {id}"))).collect(),
            control,
            end,
            began: exec::now(),
            stats: stats.clone(),
            ended: RefCell::default(),
            up: RefCell::new(vec![true; setup.backends()]),
            catalog: RefCell::default(),
            rows: RefCell::default(),
            ticket: Cell::new(1),
            probe_now: (0..setup.backends()).map(|_| Flag::default()).collect(),
            order: OnceCell::new(),
            drained: RefCell::default(),
            changes_structure: Cell::new(false),
        });
        *self.life.borrow_mut() = Some(life.clone());
        let (world, changed) = (self.world.clone(), self.changed.clone());
        exec::spawn_in(control, async move {
            let bells: Vec<_> = worker_ends.iter().map(WorkerEnd::bell).collect();
            let since_1970 = io::system_time().duration_since(UNIX_EPOCH).unwrap_or_default();
            let feeds = Arc::new(Feeds::new(&former_logs(workers), world.setup.backends(), &bells, since_1970));
            _ = life.order.set(feeds.order.clone());
            for (id, end) in worker_ends.into_iter().enumerate() {
                let start = Start {
                    id,
                    settings: settings.clone(),
                    placement: world.placement.clone(),
                    socket: Socket::bound_to(hosts::proxy_addr()),
                    udp_sockets: Vec::new(),
                    end,
                    stats: stats.clone(),
                    connections_max: CONNECTIONS_PER_WORKER_MAX,
                    backlog_max_bytes: world.setup.backlog_kib * 1024 / workers as u64,
                    feeds: feeds.clone(),
                    cache_files: Vec::new(),
                };
                let (ended, changed) = (life.clone(), changed.clone());
                exec::spawn_in(life.groups[id], async move {
                    let end = run::run(start).await;
                    ended.ended.borrow_mut().push(end.map(drop).map_err(|e| e.to_string()));
                    changed.raise();
                });
            }
            for backend in 0..world.setup.backends() {
                exec::spawn(probe(world.clone(), life.clone(), backend));
            }
            exec::spawn(renew_catalog(world.clone(), life.clone()));
            serve(world, life).await;
        });
    }

    /// kill -9, or power loss.
    pub fn kill(&self, power: bool) {
        let Some(life) = self.life.borrow_mut().take() else { return };
        self.changed.raise();
        if power {
            net::power_lost(hosts::PROXY);
        }
        life.groups.iter().for_each(|&group| exec::kill(group));
        exec::kill(life.control);
        if power {
            disk::lose_power(hosts::PROXY);
        }
    }

    /// SIGTERM.
    pub async fn stop(&self) {
        let Some(life) = self.life() else { return };
        life.stats.stopping.store(true, Relaxed);
        life.broadcast(|| ToWorker::Shutdown);
        let all = life.groups.len();
        let waiting = life.clone();
        let ended = async { exec::when(move || waiting.ended.borrow().len() == all).await };
        ended.or(exec::sleep(STOP_TIMEOUT)).await;
        // Somebody may have killed it meanwhile, and another life begun.
        if self.life().is_some_and(|now| Rc::ptr_eq(&now, &life)) {
            self.kill(false);
        }
    }
}

fn id(backend: usize) -> BackendId {
    BackendId(backend as u16)
}

/// Numbers of the logs of workers that are no more, as the program finds them.
fn former_logs(workers: usize) -> Vec<usize> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("worker-")?.parse::<usize>().ok();
    let mut numbers: Vec<_> = disk::folders(Path::new(DATA)).iter().filter_map(number).collect();
    numbers.retain(|&number| number >= workers);
    numbers.sort_unstable();
    numbers
}

fn settings(world: &World, workers: usize) -> Settings {
    let setup = &world.setup;
    Settings {
        listen: hosts::proxy_addr(),
        udp: Vec::new(),
        workers,
        topology: world.topology.clone(),
        placement: world::placement_settings(),
        db_list: Vec::new(),
        data_dir: DATA.into(),
        credentials: Credentials::default(),
        ping_auth_enabled: false,
        influxdb_version: None,
        durability: match setup.safety {
            Safety::Memory => Durability::Memory,
            Safety::Os => Durability::Os,
            Safety::Disk => Durability::Disk,
        },
        commit_linger: Duration::ZERO,
        hot_tail_bytes: 0,
        backlog_max_bytes: None,
        backlog_full: match setup.full {
            Full::Reject => BacklogFull::Reject,
            Full::DropOldest => BacklogFull::DropOldest,
        },
        consistency_max: Consistency::All,
        backend_gzip: false,
        max_body_bytes: 25_000_000,
        missing_db: match setup.missing {
            Missing::Create => MissingDb::Create,
            Missing::Hold => MissingDb::Hold,
        },
        flush_size: setup.flush_size,
        check_interval: CHECK_INTERVAL,
        rewrite_interval: Duration::from_secs(10),
        write_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
        write_tracing: false,
        query_tracing: false,
        ignore_rp: false,
        query: QuerySettings::default(),
        tls: None,
        trust: world::trust(),
    }
}

impl Life {
    fn send(&self, worker: usize, message: ToWorker) {
        // A worker that does not read is not waited for.
        let _ = self.end.send(worker, message);
    }

    fn broadcast(&self, message: impl Fn() -> ToWorker) {
        (0..self.end.workers()).for_each(|worker| self.send(worker, message()));
    }

    pub fn worker_failed(&self) -> bool {
        self.stats.workers.iter().any(|worker| !worker.ready.load(Relaxed))
    }

    pub fn next_ticket(&self) -> Ticket {
        self.ticket.replace(self.ticket.get() + 1)
    }

    /// A query of that database is told that points of it may wait for a backend.
    pub fn says_behind(&self, backend: usize, db: usize) -> bool {
        let Some(order) = self.order.get() else { return true };
        let is_parked = order.parked_wait(BackendId(backend as u16), |name| *name == *format!("db{db}").as_bytes());
        let waits = self.stats.couriers[backend].oldest_unparked_ms.load(Relaxed) != u64::MAX;
        waits || is_parked.is_some_and(|wait| wait.oldest != u64::MAX)
    }

    /// Databases with points that a backend does not take, each with that backend.
    pub fn parked(&self) -> Vec<(usize, String)> {
        let Some(order) = self.order.get() else { return Vec::new() };
        let of = |backend: usize| order.parked(BackendId(backend as u16)).into_iter().map(move |of| (backend, of.key));
        let all = (0..self.stats.couriers.len()).flat_map(of);
        all.map(|(backend, key)| (backend, String::from_utf8_lossy(&key.db).into_owned())).collect()
    }

    /// According to the last probe.
    pub fn is_up(&self, backend: usize) -> bool {
        self.up.borrow()[backend]
    }

    /// Waits until all workers have delivered what had been taken for a database, and hold what comes then.
    pub async fn drain(self: Rc<Self>, ticket: Ticket, db: String, timeout: Duration) -> bool {
        // Before the logs are open no worker takes a statement.
        let Some(from) = self.order.get().map(|order| order.now()).filter(|&now| now > 0) else { return false };
        self.broadcast(|| ToWorker::Drain { ticket, db: db.clone(), from, timeout });
        let (waiting, all) = (self.clone(), self.groups.len());
        let answered = exec::when(move || {
            let drained = waiting.drained.borrow();
            drained.range((ticket, 0)..(ticket + 1, 0)).count() == all
        });
        answered.or(exec::sleep(timeout + WORKER_GRACE)).await;
        (0..all).all(|worker| self.drained.borrow_mut().remove(&(ticket, worker)).unwrap_or(false))
    }

    pub fn release(&self, ticket: Ticket) {
        self.broadcast(|| ToWorker::Release { ticket });
    }

    /// The accounts of all workers; None when one of them does not answer.
    pub async fn ledger(self: Rc<Self>) -> Option<Vec<LedgerRow>> {
        let ticket = self.next_ticket();
        self.rows.borrow_mut().clear();
        self.broadcast(|| ToWorker::LedgerWanted { ticket });
        let (waiting, all) = (self.clone(), self.groups.len());
        let answered = async {
            exec::when(move || waiting.rows.borrow().len() == all).await;
            true
        };
        let late = async {
            exec::sleep(Duration::from_secs(2)).await;
            false
        };
        answered.or(late).await.then(|| self.rows.take().into_values().flatten().collect())
    }
}

/// Answers the workers.
async fn serve(world: Rc<World>, life: Rc<Life>) {
    loop {
        let messages = life.end.incoming().clone();
        exec::when(move || !messages.is_empty()).await;
        while let Ok(message) = life.end.incoming().try_recv() {
            let (world, life) = (world.clone(), life.clone());
            match message {
                ToControl::RefreshCatalog { worker, ticket } => exec::spawn(async move {
                    refresh(&world, &life).await;
                    life.send(worker, ToWorker::CatalogRefreshed { ticket });
                }),
                ToControl::Create { worker, ticket, backend, db, .. } => exec::spawn(async move {
                    let result = create(&world, backend.index(), &db).await;
                    exec::trace(|| format!("create {db} on b{}: {result:?}", backend.0));
                    life.send(worker, ToWorker::Created { ticket, result });
                }),
                ToControl::BackendChanged { backend, .. } | ToControl::Unanswered { backend } => {
                    life.probe_now[backend.index()].raise()
                }
                ToControl::Ledger { worker, rows, .. } => _ = life.rows.borrow_mut().insert(worker, rows),
                ToControl::Query { .. } | ToControl::Admin { .. } => {}
                ToControl::Drained { worker, ticket, result } => {
                    life.drained.borrow_mut().insert((ticket, worker), result == Drained::Done);
                }
                ToControl::Written { .. } => {}
            }
        }
    }
}

/// How long an answer of a backend to the control thread takes.
pub fn round_trip() -> Duration {
    exec::random(|rng| rng.duration(Duration::from_micros(200), Duration::from_millis(20)))
}

/// Whether the control thread gets an answer of InfluxDB's own from there; it takes its time.
pub async fn asks(world: &World, backend: usize) -> bool {
    exec::sleep(round_trip()).await;
    let server = world.backends[backend].borrow();
    let answers = server.is_up() && server.said(None) != Some(Says::Page);
    answers && net::is_open(hosts::PROXY, hosts::backend_host(backend))
}

pub async fn refresh(world: &World, life: &Life) {
    let mut catalog = Catalog::default();
    for backend in 0..world.setup.backends() {
        if !asks(world, backend).await {
            continue;
        }
        catalog.known = true;
        for &db in world.backends[backend].borrow().influx.databases.keys() {
            let policies = vec![POLICY.to_owned()];
            catalog.databases.insert(hosts::database(db), Database { policies, default: Some(POLICY.to_owned()) });
        }
    }
    let known = life.catalog.borrow().clone();
    if catalog.known && *known != catalog {
        let catalog = Arc::new(catalog);
        *life.catalog.borrow_mut() = catalog.clone();
        life.broadcast(|| ToWorker::Catalog(catalog.clone()));
    }
}

async fn renew_catalog(world: Rc<World>, life: Rc<Life>) {
    loop {
        refresh(&world, &life).await;
        exec::sleep(CATALOG_INTERVAL).await;
    }
}

/// As `control` does it: whoever has the database is the model; nobody's word is taken for a backend that cannot be
/// asked.
async fn create(world: &World, target: usize, db: &str) -> Created {
    let number = hosts::number_of(db);
    if !asks(world, target).await {
        return Created::Failed("it does not answer".into());
    }
    let has = |backend: usize| world.backends[backend].borrow().influx.databases.contains_key(&number);
    if has(target) {
        return Created::Done;
    }
    let mut unasked = false;
    for other in (0..world.setup.backends()).filter(|other| *other != target) {
        if !asks(world, other).await {
            unasked = true;
        } else if has(other) {
            world.backends[target].borrow_mut().influx.create_database(number);
            return Created::Done;
        }
    }
    if unasked { Created::Failed("not all can be asked".into()) } else { Created::NowhereElse }
}

/// Pings a backend every so often, and soon when a courier has something new to say. Its name is looked up before the
/// first ping, after each that failed, and from time to time; workers are told another address.
async fn probe(world: Rc<World>, life: Rc<Life>, backend: usize) {
    let (mut told, mut is_due, mut looked_up) = (None, true, Duration::ZERO);
    loop {
        let mut found = told;
        if is_due || exec::now() >= looked_up + NAMES_INTERVAL {
            let means = world.backends[backend].borrow().resolved();
            (found, looked_up) = (Some(means).filter(|_| exec::now() >= world.no_names_until.get()), exec::now());
            if let Some(addr) = found.filter(|addr| told != Some(*addr)) {
                told = Some(addr);
                life.broadcast(|| ToWorker::Address { backend: id(backend), addr });
            }
        }
        // Somebody else's 200 is no answer of InfluxDB's.
        let is_influxdb = || world.backends[backend].borrow().said(None) != Some(Says::Page);
        let ping = async {
            match found {
                Some(addr) => net::ask(addr).await && is_influxdb(),
                None => false,
            }
        };
        let late = async {
            exec::sleep(PROBE_TIMEOUT).await;
            false
        };
        let up = ping.or(late).await;
        let before = std::mem::replace(&mut life.up.borrow_mut()[backend], up);
        life.stats.reads[backend].down.store(!up, Relaxed);
        if before != up || (up && !life.stats.couriers[backend].up.load(Relaxed)) {
            for worker in 0..life.stats.workers.len() {
                life.send(worker, ToWorker::Probed { backend: id(backend), up });
            }
        }
        is_due = !up;
        exec::sleep(PROBE_PAUSE).await;
        let asked = async {
            life.probe_now[backend].wait().await;
            true
        };
        let interval = async {
            exec::sleep(CHECK_INTERVAL - PROBE_PAUSE).await;
            false
        };
        is_due |= asked.or(interval).await;
    }
}

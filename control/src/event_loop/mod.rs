//! The loop of the control thread. It handles messages of workers, events of other threads, and deadlines.
//!
//! It never waits for a backend. Probes and jobs run on threads of their own and send a [`Report`]; queries, migrations
//! and transitions send events of their own types. At most one job of a kind runs per backend, so a backend that hangs
//! blocks at most one thread for each kind.
//!
//! Not here: what is done about each backend (`backends`), what an admin request asks for (`endpoint`), when the
//! catalog is asked for (`refresh`), who has sent its ledger (`census`).

mod backends;
mod census;
mod create;
mod merges;
mod probe;
mod refresh;
mod report;
mod thread;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use crossbeam::select;
use fluxgate_dataplane::handoff::{
    AdminRequest, AdminResponse, Catalog, ControlEnd, QueryReply, QueryRequest, Ticket, ToControl, ToWorker,
};
use fluxgate_dataplane::http::auth::Guard;
use fluxgate_dataplane::placement::Placement;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::BackendId;

use self::backends::KnownBackend;
use self::merges::{Merge, Merges, Turn};
pub use self::report::ControlSettings;
use self::report::{Asker, CreateKey, Report};
pub use self::thread::Control;
use crate::clock::since_1970;
use crate::endpoint::debug_pprof::cpu::Wanted;
use crate::endpoint::{self, Action, AdminState, Dialect, debug_pprof};
use crate::event_loop::census::{Census, Question};
use crate::event_loop::refresh::Refresh;
use crate::limits;
use crate::migration;
use crate::migration::jobs::{JobEvent, Jobs};
use crate::migration::journal::Journal;
use crate::migration::live_world::LiveWorld;
use crate::migration::peers::Peers;
use crate::migration::plan::Removed;
use crate::query::workers::{Errand, Errands, WorkerAnswer, Workers, Write};
use crate::query::{self, QueryShared};

/// Who waits for a refreshed catalog.
#[derive(Debug)]
enum Waiter {
    Worker(Asker),
    Query(Sender<Arc<Catalog>>),
}

/// The state of the control thread.
#[derive(Debug)]
pub struct EventLoop {
    state: AdminState,
    end: ControlEnd,
    reports: Sender<Report>,
    /// Events of queries, migrations and transitions. The loop keeps a sender of each channel, so none closes while it
    /// runs.
    errands_asked: Receiver<Errand>,
    job_events: Receiver<JobEvent>,
    placements: Receiver<Arc<Placement>>,
    /// By `BackendId`.
    backends: Vec<KnownBackend>,
    refresh: Refresh<Waiter>,
    errands: Errands,
    census: Census,
    creating: HashMap<CreateKey, Vec<Asker>>,
    /// Requests for a migration that has not yet said whether it begins, and the dialect of their answer. By job id.
    migration_askers: HashMap<u64, (Asker, Dialect)>,
    health_asked: Option<Instant>,
    /// What all queries share.
    query_shared: Arc<QueryShared>,
    merges: Merges,
    /// A CPU profile is being taken.
    profiling: bool,
    /// Workers whose queue was full. They get the whole state again as soon as the queue takes messages.
    behind: BTreeSet<usize>,
}

impl EventLoop {
    pub fn new(
        settings: ControlSettings,
        end: ControlEnd,
        stats: Arc<Stats>,
        reports: Sender<Report>,
    ) -> io::Result<Self> {
        let ControlSettings {
            topology,
            order,
            transitions,
            credentials,
            check_interval,
            query,
            trust,
            dialect,
            pprof_enabled,
            hot_tail_bytes,
            data_dir,
            mlog_dir,
            former_backends,
            peers,
        } = settings;
        let (placements_sender, placements) = bounded(limits::REPORTS_MAX);
        let (errands_sender, errands_asked) = bounded(limits::REPORTS_MAX);
        let (job_sender, job_events) = bounded(limits::REPORTS_MAX);
        transitions.attach(placements_sender, Arc::clone(&stats));
        let placement = transitions.placement();
        let former = transitions.former_backends().into_iter().map(Removed::from);
        let callable = former_backends.into_iter().chain(former).collect();
        let workers = Workers::new(errands_sender, end.workers());
        let query_timeout = query.timeout;
        let query_shared = Arc::new(QueryShared::new(&topology, &placement, &stats, &order, query, workers, &trust));
        let known = |backend| KnownBackend::start(backend, &trust, check_interval, &reports);
        let backends = topology.backends.iter().map(known).collect::<io::Result<Vec<_>>>()?;
        let migrations = migration::job::MigrationShared {
            topology: Arc::clone(&topology),
            placement: Placement::clone(&placement),
            world: Box::new(LiveWorld { stats: Arc::clone(&stats), transitions, trust: trust.clone(), query_timeout }),
            peers: Peers::new(&credentials, peers, &trust),
            journal: Journal::new(&mlog_dir),
            folder: migration::checkpoint::folder(&data_dir),
        };
        let mut jobs = Jobs::open(migrations, Arc::clone(&stats), job_sender);
        jobs.resume();
        let state = AdminState {
            probed_up: vec![None; backends.len()],
            loads: vec![BTreeMap::new(); backends.len()],
            topology,
            placement,
            guard: Guard::new(&credentials),
            started: since_1970(),
            stats,
            order,
            dialect,
            pprof_enabled,
            hot_tail_bytes,
            former_backends: callable,
            jobs,
        };
        Ok(Self {
            state,
            end,
            reports,
            errands_asked,
            job_events,
            placements,
            refresh: Refresh::new(backends.len(), Instant::now()),
            errands: Errands::default(),
            backends,
            census: Census::default(),
            creating: HashMap::new(),
            migration_askers: HashMap::new(),
            health_asked: None,
            query_shared,
            merges: Merges::default(),
            profiling: false,
            behind: BTreeSet::new(),
        })
    }

    /// Runs until it is told to stop or all workers have ended.
    pub fn run(&mut self, reports: &Receiver<Report>) {
        let messages = self.end.incoming().clone();
        let (errands, job_events) = (self.errands_asked.clone(), self.job_events.clone());
        let placements = self.placements.clone();
        loop {
            let now = Instant::now();
            self.tick(now);
            let wait = self.next_deadline(now).saturating_duration_since(now);
            select! {
                recv(messages) -> message => match message {
                    Ok(message) => self.message(message),
                    Err(_) => return log::info!("all workers have ended"),
                },
                recv(reports) -> report => match report {
                    Ok(Report::Stop) | Err(_) => return,
                    Ok(report) => self.report(report),
                },
                recv(errands) -> errand => errand.into_iter().for_each(|errand| self.errand(errand)),
                recv(job_events) -> event => event.into_iter().for_each(|event| self.job_event(event)),
                recv(placements) -> placement => placement.into_iter().for_each(|placement| self.placed(placement)),
                default(wait) => {}
            }
        }
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let soon = self.refresh.deadline().min(now + limits::TICK_MAX);
        self.census.deadline().map_or(soon, |deadline| deadline.min(soon))
    }

    /// Starts and ends what is due now.
    fn tick(&mut self, now: Instant) {
        self.end_round(now);
        let all = self.state.topology.backends.iter().filter(|b| b.takes_statements()).map(|backend| backend.id);
        let may_answer = all.filter(|id| self.backends[id.index()].probed.up() != Some(false));
        for backend in self.refresh.start(now, may_answer) {
            self.list(backend);
        }
        // A round that asks no backend ends at once.
        self.end_round(now);
        while let Some(question) = self.census.close(now) {
            let Question { asker, asked, rows, missing, .. } = &question;
            let AdminState { topology, stats, .. } = &self.state;
            let response = catch_unwind(|| endpoint::ledger::response(topology, stats, rows, missing, *asked));
            let response = response.unwrap_or_else(|_| panicked("/ledger"));
            self.answer(*asker, response);
        }
        self.count_where_due(now);
        self.catch_up();
    }

    fn message(&mut self, message: ToControl) {
        match message {
            ToControl::Admin { worker, ticket, request } => self.admin((worker, ticket), &request),
            ToControl::Query { worker, ticket, request } => self.query((worker, ticket), request),
            ToControl::RefreshCatalog { worker, ticket } => self.refresh.ask(Waiter::Worker((worker, ticket))),
            ToControl::Create { worker, ticket, backend, db, rp } => {
                self.create((worker, ticket), (backend, db, rp));
            }
            ToControl::BackendChanged { backend, up, reason } => self.written(backend, up, &reason),
            ToControl::Unanswered { backend } => self.unanswered(backend),
            ToControl::Ledger { worker, ticket, rows } => self.census.answered(worker, ticket, rows),
            ToControl::Drained { ticket, result, .. } => self.errands.answered(ticket, WorkerAnswer::Drained(result)),
            ToControl::Written { ticket, result, .. } => self.errands.answered(ticket, WorkerAnswer::Written(result)),
        }
    }

    fn report(&mut self, report: Report) {
        match report {
            Report::Probe { backend, result } => self.probed(backend, &result),
            Report::Address { backend, addr } => self.found(backend, addr),
            Report::Databases { backend, result } => self.listed(backend, result),
            Report::Load { backend, result } => self.counted(backend, result),
            Report::Queried { asker, reply } => {
                self.replied(asker, reply);
                if let Some(next) = self.merges.ended() {
                    self.merge(next);
                }
            }
            Report::Created { key, result } => self.created(&key, &result),
            Report::ShutdownWorkers => self.broadcast(|| ToWorker::Shutdown),
            Report::Profiled { asker, response } => {
                self.profiling = false;
                self.answer(asker, response);
            }
            Report::Ended { asker, response } => self.answer(asker, response),
            // `run` has returned already.
            Report::Stop => {}
        }
    }

    /// Adopts a new placement, unless a newer one came first.
    fn placed(&mut self, placement: Arc<Placement>) {
        if placement.version() > self.state.placement.version() {
            self.state.placement = Arc::clone(&placement);
            self.query_shared.place_by(Arc::clone(&placement));
            self.broadcast(|| ToWorker::Placement(Arc::clone(&placement)));
        }
    }

    fn job_event(&mut self, event: JobEvent) {
        self.state.jobs.event(&event);
        if let JobEvent::Begun { id, result } = event
            && let Some((asker, form)) = self.migration_askers.remove(&id)
        {
            self.answer(asker, endpoint::order::answer(form, &result.map(|()| id)));
        }
    }

    fn admin(&mut self, asker: Asker, request: &AdminRequest) {
        // A panic leaves no half-done change: endpoints change nothing, and each call made for them is complete.
        let answered = catch_unwind(AssertUnwindSafe(|| {
            let action = endpoint::decide(&self.state, request);
            self.carry_out(asker, action)
        }));
        let Some(response) = answered.unwrap_or_else(|_| Some(panicked(&request.path))) else { return };
        if request.path == "/health" && response.status == 200 {
            self.health_asked = Some(Instant::now());
        }
        self.answer(asker, response);
    }

    /// Performs `action`. None = the answer is sent later.
    fn carry_out(&mut self, asker: Asker, action: Action) -> Option<AdminResponse> {
        match action {
            Action::Answer(response) => Some(response),
            Action::Migrate { order, form } => match self.state.jobs.start(*order) {
                Ok(id) => {
                    self.migration_askers.insert(id, (asker, form));
                    None
                }
                Err(refused) => Some(endpoint::order::answer(form, &Err(refused))),
            },
            Action::SetMigration { changes, response } => {
                let moved = changes.iter().find_map(|change| change.moved());
                changes.into_iter().for_each(|change| self.state.jobs.set(change));
                let Some(circle) = moved else { return Some(response) };
                self.end_transition(asker, circle, response);
                None
            }
            Action::SteerMigration { id, steer, response } => {
                self.state.jobs.steer(id, steer);
                Some(response)
            }
            Action::AskLedgers(asked) => match self.census.open(asker, asked, self.end.workers(), Instant::now()) {
                Some(ticket) => {
                    self.broadcast(|| ToWorker::LedgerWanted { ticket });
                    None
                }
                None => Some(endpoint::failed(503, "too many ledger requests are under way")),
            },
            Action::Profile(_) if self.profiling => Some(debug_pprof::busy()),
            Action::Profile(wanted) => {
                self.profile(asker, wanted);
                None
            }
            Action::Heap(format) => {
                Some(debug_pprof::heap::response_with(&self.state, self.query_shared.memory.held_bytes(), format))
            }
        }
    }

    /// Ends a transition because another proxy has moved all data of the circle. The answer is sent when the end is on
    /// disk, since the other proxy does not repeat the message.
    fn end_transition(&mut self, asker: Asker, circle: usize, response: AdminResponse) {
        self.job(self.state.jobs.ending(circle), move |result| {
            let failed = |why| endpoint::failed(503, &format!("the transition of circle {circle} cannot end: {why}"));
            Report::Ended { asker, response: result.flatten().map_or_else(failed, |()| response) }
        });
    }

    /// Takes a CPU profile on a thread of its own. The profile goes on even if the client has gone.
    fn profile(&mut self, asker: Asker, wanted: Wanted) {
        self.profiling = true;
        self.job(
            move || debug_pprof::cpu::take(wanted),
            move |response| {
                let failed = |why: String| debug_pprof::failed(500, &why);
                Report::Profiled { asker, response: response.unwrap_or_else(failed) }
            },
        );
    }

    /// Starts the query, or lets it wait for its turn.
    fn query(&mut self, asker: Asker, request: Box<QueryRequest>) {
        match self.merges.come(Merge { asker, request, asked: Instant::now() }) {
            Turn::Now(merge) => self.merge(merge),
            Turn::Later => {}
            Turn::Refused(Merge { asker, .. }) => {
                let text = "too many queries over several backends wait for their turn: try again later".to_owned();
                self.replied(asker, QueryReply::Failed { status: 503, text });
            }
        }
    }

    /// Starts a thread for the query.
    fn merge(&mut self, Merge { asker, request, asked }: Merge) {
        let (query_shared, catalog) = (Arc::clone(&self.query_shared), self.refresh.catalog());
        self.job(
            move || query::run(&query_shared, catalog, &request, asked),
            move |reply| {
                let failed = |text| QueryReply::Failed { status: 500, text };
                Report::Queried { asker, reply: reply.unwrap_or_else(failed) }
            },
        );
    }

    /// Does what a query's thread asks of the workers or of the catalog.
    fn errand(&mut self, errand: Errand) {
        match errand {
            Errand::Drain { ticket, db, timeout, answers } => {
                self.errands.open(ticket, answers, true);
                // One stamp for all: what was acknowledged before the statement is below it.
                let from = self.state.order.now();
                for worker in 0..self.end.workers() {
                    self.send_for(ticket, worker, ToWorker::Drain { ticket, db: db.clone(), from, timeout });
                }
            }
            Errand::Write { worker, ticket, write, answers } => {
                self.errands.open(ticket, answers, false);
                let Write { db, rp, lines, timeout } = *write;
                self.send_for(ticket, worker, ToWorker::Write { ticket, db, rp, lines, timeout });
            }
            Errand::Over { ticket } => {
                if self.errands.over(ticket) {
                    self.broadcast(|| ToWorker::Release { ticket });
                }
            }
            Errand::Refresh { answers } => self.refresh.ask_now(Waiter::Query(answers), Instant::now()),
        }
    }

    fn send_for(&mut self, ticket: Ticket, worker: usize, message: ToWorker) {
        if self.end.send(worker, message).is_err() {
            self.errands.failed(ticket);
        }
    }

    fn replied(&mut self, (worker, ticket): Asker, reply: QueryReply) {
        self.send(worker, ToWorker::Query { ticket, reply });
    }

    fn answer(&mut self, (worker, ticket): Asker, response: AdminResponse) {
        self.send(worker, ToWorker::Admin { ticket, response });
    }

    fn end_round(&mut self, now: Instant) {
        for waiter in self.refresh.end(now) {
            match waiter {
                Waiter::Worker((worker, ticket)) => self.send(worker, ToWorker::CatalogRefreshed { ticket }),
                // Closed = the query has stopped waiting.
                Waiter::Query(answers) => _ = answers.try_send(self.refresh.catalog()),
            }
        }
    }

    fn name(&self, backend: BackendId) -> String {
        self.state.topology.backend(backend).name.clone()
    }

    fn broadcast(&mut self, message: impl Fn() -> ToWorker) {
        for worker in 0..self.end.workers() {
            self.send(worker, message());
        }
    }

    fn send(&mut self, worker: usize, message: ToWorker) {
        if self.end.send(worker, message).is_err() && self.behind.insert(worker) {
            log::warn!("worker {worker}: its message queue is full");
        }
    }

    /// Sends the whole state to workers that missed a message. Answers that they missed are not sent again: by then
    /// their requests have timed out.
    fn catch_up(&mut self) {
        for worker in std::mem::take(&mut self.behind) {
            let mut news =
                vec![ToWorker::Catalog(self.refresh.catalog()), ToWorker::Placement(Arc::clone(&self.state.placement))];
            for (known, backend) in self.backends.iter().zip(&self.state.topology.backends) {
                let backend = backend.id;
                news.extend(known.addr.map(|addr| ToWorker::Address { backend, addr }));
                news.extend(known.probed.up().map(|up| ToWorker::Probed { backend, up }));
            }
            if news.into_iter().any(|message| self.end.send(worker, message).is_err()) {
                self.behind.insert(worker);
            } else {
                log::info!("worker {worker}: its message queue takes messages again");
            }
        }
    }

    /// Runs `work` on a thread of its own and reports its result, or the reason why there is none.
    fn job<T>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        report: impl FnOnce(Result<T, String>) -> Report + Clone + Send + 'static,
    ) {
        let reports = self.reports.clone();
        let unstarted = report.clone();
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the thread panicked".to_owned());
            // Closed = the loop has ended.
            let _ = reports.send(report(result));
        };
        if let Err(error) = std::thread::Builder::new().name("control-job".to_owned()).spawn(run) {
            self.report(unstarted(Err(format!("cannot start a thread: {error}"))));
        }
    }
}

/// The answer when the code of an endpoint has panicked.
fn panicked(path: &str) -> AdminResponse {
    log::error!("{path}: the endpoint panicked");
    endpoint::failed(500, "internal error")
}

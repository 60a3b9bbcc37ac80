//! What the statements of one request share: the backends that may be asked, the deadline, the memory budget.
//!
//! A statement that needs several backends is asked in shares (`scatter`). When a backend does not answer, the next
//! attempt leaves it out and asks another one that has the same data. The whole statement is then asked again, so that
//! the answer comes from one moment as far as possible. The client gets nothing before all shares have arrived.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fluxgate_dataplane::handoff::{Catalog, QueryRequest};
use fluxgate_dataplane::http::error_body::Format;
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::placement::{Place, Placement};
use fluxgate_dataplane::routing::choose::{Chooser, Shares};
use fluxgate_dataplane::routing::reach::Reach;
use fluxgate_dataplane::settings::QuerySettings;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{BackendId, Topology};

use super::ahead::{AskedAhead, Question};
use super::select::function_types::FunctionTypes;
use super::workers::Workers;
use crate::clock::{unix_ms, unix_ns};
use crate::influx::answer::Answer;
use crate::influx::budget::{Held, Interrupted, MemoryBudget};
use crate::influx::catalog::Databases;
use crate::influx::client::Client;
use crate::influx::policy::Policy;
use crate::influx::prometheus::{ReadCall, ReadFailure, ReadReply};
use crate::influx::reader::Call;
use crate::limits;
use crate::parallel::in_parallel;

/// What all requests share.
#[derive(Debug)]
pub struct QueryShared {
    pub topology: Arc<Topology>,
    /// The newest placement. A request keeps the one it began with.
    placement: Mutex<Arc<Placement>>,
    pub stats: Arc<Stats>,
    order: Arc<RecordOrder>,
    pub settings: QuerySettings,
    /// By `BackendId`.
    pub clients: Vec<Client>,
    /// Memory for answers, of all requests together.
    pub memory: MemoryBudget,
    pub workers: Workers,
    pub function_types: FunctionTypes,
    /// By `BackendId`: the databases it listed last; None before that, and while a statement may be changing them.
    listed: Mutex<Vec<Option<Databases>>>,
}

impl QueryShared {
    pub fn new(
        topology: &Arc<Topology>,
        placement: &Arc<Placement>,
        stats: &Arc<Stats>,
        order: &Arc<RecordOrder>,
        settings: QuerySettings,
        workers: Workers,
        trust: &Trust,
    ) -> Self {
        Self {
            clients: topology.backends.iter().map(|backend| Client::new(backend, trust)).collect(),
            topology: Arc::clone(topology),
            placement: Mutex::new(Arc::clone(placement)),
            stats: Arc::clone(stats),
            order: Arc::clone(order),
            memory: MemoryBudget::new(settings.memory_bytes_max),
            settings,
            function_types: FunctionTypes::default(),
            workers,
            listed: Mutex::new(vec![None; topology.backends.len()]),
        }
    }

    /// Notes the databases of a backend; None = they may be changing.
    pub fn list(&self, backend: BackendId, databases: Option<Databases>) {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)[backend.index()] = databases;
    }

    /// The policies of a database as a backend listed them last; None when it had no such database, or is not known.
    pub fn policies(&self, backend: BackendId, db: &str) -> Option<Vec<Policy>> {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        listed[backend.index()].as_ref()?.get(db).cloned()
    }

    /// The current placement.
    pub fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.placement.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the placement for requests that begin from now on.
    pub fn place_by(&self, placement: Arc<Placement>) {
        *self.placement.lock().unwrap_or_else(PoisonError::into_inner) = placement;
    }
}

/// The request ends with this answer instead of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The client has gone.
    Cancelled,
    /// Only in a try before the statement's turn: its questions are noted, and will be asked with others.
    Later,
    Failed {
        status: u16,
        text: String,
    },
}

impl Stop {
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Failed { status: 503, text: text.into() }
    }
}

impl From<Interrupted> for Stop {
    fn from(why: Interrupted) -> Self {
        match why {
            Interrupted::Cancelled => Self::Cancelled,
            Interrupted::OverBudget { bytes_max } => {
                let mib = bytes_max >> 20;
                Self::unavailable(format!(
                    "the answer cannot be merged in {mib} MiB (query_memory_bytes): ask for fewer measurements or a \
                     shorter time at once"
                ))
            }
        }
    }
}

/// The form of times in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Times {
    /// As the client asked. Integer nanoseconds when the answer is rendered as CSV or msgpack.
    AsAsked,
    Nanoseconds,
    /// Integer nanoseconds, and floats that differ from integers (with `.` or `e`).
    Typed,
}

/// A running request.
pub struct Context<'a> {
    pub shared: &'a QueryShared,
    pub request: &'a QueryRequest,
    pub placement: Arc<Placement>,
    /// The known databases and policies.
    pub catalog: Arc<Catalog>,
    deadline: Instant,
    /// Set by the client, or by the request itself when one of its shares has failed.
    cancelled: Arc<AtomicBool>,
    failed: RefCell<BTreeMap<BackendId, String>>,
    /// Memory that this request holds, returned at its end.
    pub held: Held,
    stale_ms: std::cell::Cell<u64>,
    now_ns: std::cell::Cell<i64>,
    /// The answer will be written (SELECT INTO).
    typed: std::cell::Cell<bool>,
    /// While statements are tried before their turn: what they have asked.
    tries: RefCell<Option<AskedAhead>>,
}

impl<'a> Context<'a> {
    /// The time of the request runs since `asked`.
    pub fn new(shared: &'a QueryShared, request: &'a QueryRequest, catalog: Arc<Catalog>, asked: Instant) -> Self {
        Self {
            shared,
            request,
            placement: shared.placement(),
            catalog,
            deadline: asked + shared.settings.timeout,
            cancelled: Arc::clone(&request.cancelled),
            failed: RefCell::default(),
            held: shared.memory.hold(Arc::clone(&request.cancelled)),
            stale_ms: std::cell::Cell::new(0),
            now_ns: std::cell::Cell::new(0),
            typed: std::cell::Cell::new(false),
            tries: RefCell::default(),
        }
    }

    /// Begins a statement and fixes its `now()`.
    pub fn begin_statement(&self) {
        self.typed.set(false);
        self.now_ns.set(unix_ns());
    }

    /// From here on questions get the answers that are there. Others are noted, and the statement ends with
    /// [`Stop::Later`].
    pub fn begin_tries(&self) {
        self.tries.replace(Some(AskedAhead::default()));
    }

    /// From here on questions are asked at once, as usual.
    pub fn end_tries(&self) -> AskedAhead {
        self.tries.take().unwrap_or_default()
    }

    /// The questions that were noted, and that the caller asks.
    pub fn take_noted(&self) -> Vec<Question> {
        self.tries.borrow_mut().as_mut().map(AskedAhead::take_noted).unwrap_or_default()
    }

    /// The answers to noted questions.
    pub fn learn(&self, answers: impl IntoIterator<Item = (Question, Answer)>) {
        if let Some(asked) = &mut *self.tries.borrow_mut() {
            asked.learn(answers);
        }
    }

    /// The answer of this statement will be written: from here on, [`Times::AsAsked`] means [`Times::Typed`].
    pub fn read_typed(&self) {
        self.typed.set(true);
    }

    /// The `now()` of this statement, the same for all shares: nanoseconds since 1970.
    pub fn now_ns(&self) -> i64 {
        self.now_ns.get()
    }

    /// The time left for this request.
    ///
    /// # Errors
    /// When no time is left, or the client has gone.
    pub fn time_left(&self) -> Result<Duration, Stop> {
        if self.cancelled.load(Relaxed) {
            return Err(Stop::Cancelled);
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("query_timeout ({} s) reached", self.shared.settings.timeout.as_secs());
            return Err(Stop::unavailable(text));
        }
        Ok(left)
    }

    /// How far the answers so far may be behind, in milliseconds.
    pub fn stale_ms(&self) -> u64 {
        self.stale_ms.get()
    }

    /// The name of a backend, for messages.
    pub fn name(&self, backend: BackendId) -> &'a str {
        &self.shared.topology.backend(backend).name
    }

    /// The backends that statements may be sent to.
    pub fn backends(&self) -> impl Iterator<Item = BackendId> + use<'a> {
        self.shared.topology.backends.iter().filter(|backend| backend.takes_statements()).map(|backend| backend.id)
    }

    /// Whether the last probe of a backend failed.
    pub fn is_down(&self, backend: BackendId) -> bool {
        self.shared.stats.reads[backend.index()].down.load(Relaxed)
    }

    /// Sends one statement to one backend.
    ///
    /// # Errors
    /// The inner one when the backend does not answer; this request then does not ask it again.
    pub fn ask(&self, backend: BackendId, statement: &str, times: Times) -> Result<Result<Answer, Unanswered>, Stop> {
        let mut answers = self.ask_each(vec![(backend, statement.to_owned())], times)?;
        Ok(answers.pop().expect("one question, one answer"))
    }

    /// Sends several backends a statement each, in parallel. Answers are in the order of the questions.
    ///
    /// # Errors
    /// As [`Context::ask`].
    pub fn ask_each(
        &self,
        questions: Vec<(BackendId, String)>,
        times: Times,
    ) -> Result<Vec<Result<Answer, Unanswered>>, Stop> {
        if let Some(asked) = &mut *self.tries.borrow_mut() {
            let question = |(backend, text)| Question { backend, times, text };
            let answers = asked.answers(questions.into_iter().map(question).collect()).ok_or(Stop::Later)?;
            self.held.take(answers.iter().map(|answer| answer.memory_bytes(false)).sum())?;
            return Ok(answers.into_iter().map(Ok).collect());
        }
        self.ask_each_as(questions, times, &|call| call)
    }

    /// As [`Context::ask_each`]; `change` edits each call first.
    ///
    /// # Errors
    /// As [`Context::ask`].
    pub fn ask_each_as(
        &self,
        questions: Vec<(BackendId, String)>,
        times: Times,
        change: &dyn Fn(Call) -> Call,
    ) -> Result<Vec<Result<Answer, Unanswered>>, Stop> {
        let calls: Vec<_> = questions
            .into_iter()
            .map(|(backend, statement)| Ok((backend, change(self.call(statement, times)?))))
            .collect::<Result<_, Stop>>()?;
        let results = calls.iter().zip(self.send_noting(&calls, Client::statement)?);
        Ok(results.map(|(&(backend, _), result)| result.map_err(|why| Unanswered { backend, why })).collect())
    }

    /// Sends several backends a noted question each, in parallel. None: it was not answered.
    ///
    /// # Errors
    /// As [`Context::ask`].
    pub fn ask_noted(&self, questions: &[Question]) -> Result<Vec<Option<Answer>>, Stop> {
        let call = |asked: &Question| Ok((asked.backend, self.call(asked.text.clone(), asked.times)?));
        let calls: Vec<_> = questions.iter().map(call).collect::<Result<_, Stop>>()?;
        Ok(self.send_noting(&calls, Client::statement)?.into_iter().map(Result::ok).collect())
    }

    /// Sends several backends a remote read each, in parallel. Answers are in the order of the questions. The inner
    /// error: some have not answered, for these reasons, and are not asked again by this request.
    ///
    /// # Errors
    /// When no time is left, or the memory does not suffice.
    pub fn ask_prometheus(
        &self,
        questions: Vec<(BackendId, Vec<u8>)>,
    ) -> Result<Result<Vec<ReadReply>, Vec<ReadFailure>>, Stop> {
        let (time_left, request) = (self.time_left()?, self.request);
        let call = |block| ReadCall {
            db: request.db.clone(),
            rp: request.rp.clone(),
            block,
            time_left,
            cancelled: Arc::clone(&self.cancelled),
        };
        let calls: Vec<_> = questions.into_iter().map(|(backend, block)| (backend, call(block))).collect();
        let results = self.send_noting(&calls, Client::prometheus_read)?;
        let (mut replies, mut failures) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(reply) => replies.push(reply),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() {
            return Ok(Ok(replies));
        }
        replies.iter().for_each(|reply| self.held.give_back(reply.held_bytes()));
        Ok(Err(failures))
    }

    /// Makes the calls in parallel, and notes which backends have not answered.
    fn send_noting<C: Sync, T: Send, E: Display + Send>(
        &self,
        calls: &[(BackendId, C)],
        send: impl Fn(&Client, &C, &Held) -> Result<Result<T, E>, Interrupted> + Sync,
    ) -> Result<Vec<Result<T, E>>, Stop> {
        let results = calls.iter().zip(self.send_all(calls, send));
        let noted = results.map(|(&(backend, _), result)| {
            Ok(result?.inspect_err(|why| _ = self.failed.borrow_mut().insert(backend, why.to_string())))
        });
        noted.collect()
    }

    /// Makes the calls in parallel, and counts them as running.
    fn send_all<C: Sync, T: Send>(
        &self,
        calls: &[(BackendId, C)],
        send: impl Fn(&Client, &C, &Held) -> T + Sync,
    ) -> Vec<T> {
        let (shared, held) = (self.shared, &self.held);
        in_parallel(calls, |(backend, call)| {
            let running = &shared.stats.reads[backend.index()].running;
            running.fetch_add(1, Relaxed);
            let result = send(&shared.clients[backend.index()], call, held);
            running.fetch_sub(1, Relaxed);
            result
        })
    }

    /// Sends each group of questions, which are all for one backend and one form of times, in one request; the requests
    /// in parallel. Where a backend does not answer all of its own, the list is empty, and nothing else follows from
    /// that.
    ///
    /// # Errors
    /// When no time is left, or the memory does not suffice.
    pub fn ask_together(&self, groups: &[Vec<Question>]) -> Result<Vec<Vec<Answer>>, Stop> {
        let call = |group: &Vec<Question>| {
            let texts: Vec<_> = group.iter().map(|question| &question.text[..]).collect();
            Ok((group[0].backend, self.call(texts.join("; "), group[0].times)?))
        };
        let calls: Vec<_> = groups.iter().map(call).collect::<Result<_, Stop>>()?;
        let results = self.send_all(&calls, Client::statements);
        results.into_iter().map(|result| result.map_err(Stop::from)).collect()
    }

    /// Sends one statement to one backend with `chunked=true` and passes on each piece as it arrives.
    ///
    /// # Errors
    /// The inner one when the backend does not answer completely.
    pub fn stream(
        &self,
        backend: BackendId,
        statement: &str,
        times: Times,
        piece: &mut dyn FnMut(Answer) -> Result<(), Stop>,
    ) -> Result<Result<(), Unanswered>, Stop> {
        let call = self.call(statement.to_owned(), times)?;
        let running = &self.shared.stats.reads[backend.index()].running;
        running.fetch_add(1, Relaxed);
        let result = self.shared.clients[backend.index()].pieces(&call, &self.held, piece);
        running.fetch_sub(1, Relaxed);
        Ok(result?.map_err(|why| {
            self.failed.borrow_mut().insert(backend, why.clone());
            Unanswered { backend, why }
        }))
    }

    /// The backends that together answer `reach`, without those that have failed.
    ///
    /// # Errors
    /// 503 that names the backends that are down.
    pub fn shares(&self, reach: &Reach) -> Result<Shares, Stop> {
        let failed = self.failed.borrow().keys().copied().collect();
        let chooser = Chooser {
            topology: &self.shared.topology,
            placement: &self.placement,
            stats: &self.shared.stats,
            order: &self.shared.order,
            must_see: &self.request.must_see,
            read_wait: self.shared.settings.read_wait.unwrap_or_default(),
            now_ms: unix_ms(),
            failed: &failed,
        };
        let shares = chooser.shares(reach).map_err(|down| self.unavailable(&down))?;
        self.stale_ms.set(self.stale_ms.get().max(shares.stale_ms));
        Ok(shares)
    }

    /// Asks all backends needed for `reach`. `text` builds a backend's statement from its share (None = all it has).
    /// Repeats everything without the backends that did not answer.
    ///
    /// # Errors
    /// When no backend is left for some part.
    pub fn scatter(
        &self,
        reach: &Reach,
        times: Times,
        text: &dyn Fn(BackendId, Option<&BTreeSet<Place>>) -> String,
    ) -> Result<Vec<(BackendId, Answer)>, Stop> {
        loop {
            let shares = self.shares(reach)?;
            let backends: Vec<_> = shares.backends.keys().copied().collect();
            let questions = shares.backends.iter().map(|(&backend, share)| (backend, text(backend, share.as_ref())));
            let answers = self.ask_each(questions.collect(), times)?;
            // Each attempt leaves out at least one more backend.
            if let Ok(answers) = answers.into_iter().collect::<Result<Vec<_>, _>>() {
                return Ok(backends.into_iter().zip(answers).collect());
            }
        }
    }

    /// 503 that names the backends that are down or have just failed.
    pub fn unavailable(&self, down: &BTreeSet<BackendId>) -> Stop {
        let failed = self.failed.borrow();
        let name = |backend: &BackendId| match failed.get(backend) {
            Some(why) => format!("{} ({why})", self.name(*backend)),
            None if self.shared.topology.backend(*backend).takes_statements() => {
                format!("{} (down)", self.name(*backend))
            }
            None => format!("{} (takes only writes: catalog is false)", self.name(*backend)),
        };
        let list: Vec<_> = down.iter().map(name).collect();
        Stop::unavailable(format!("no circle can answer: {}", list.join(", ")))
    }

    fn call(&self, statement: String, times: Times) -> Result<Call, Stop> {
        let request = self.request;
        let times = if self.typed.get() && times == Times::AsAsked { Times::Typed } else { times };
        let epoch = match times {
            Times::Nanoseconds | Times::Typed => "ns",
            Times::AsAsked if request.epoch.is_empty() && request.format != Format::Json => "ns",
            Times::AsAsked => &request.epoch,
        };
        Ok(Call {
            statement,
            db: request.db.clone(),
            rp: request.rp.clone(),
            epoch: epoch.to_owned(),
            // Msgpack tells floats from integers; JSON does not.
            typed: times == Times::Typed || (request.format == Format::Msgpack && times == Times::AsAsked),
            by_get: false,
            piece_rows: limits::QUERY_PIECE_ROWS,
            piece_bytes_max: limits::QUERY_DOCUMENT_BYTES_MAX,
            time_left: self.time_left()?,
            silence_max: None,
            cancelled: Arc::clone(&self.cancelled),
        })
    }
}

/// A backend did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    pub backend: BackendId,
    pub why: String,
}

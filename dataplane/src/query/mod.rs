//! `/query`: checks a query, decides who answers it, and passes on the answer of one backend.
//!
//! ```text
//! conn ─> request (parameters) ─> plan: influxql::parse ─> access ─> route
//!   route ┬─> choose ─> forward: one backend, streamed
//!         └─> control thread: several backends, merged
//! ```
//!
//! A request that one backend can answer alone stays on the worker and is never held in memory as a whole. Any other
//! (several owners, INTO, changes of structure) goes to the control thread, see [`ToControl::Query`].

mod error_text;
pub mod flux;
mod forward;
mod fresh;
mod plan;
pub mod prometheus;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::handoff::{QueryReply, QueryRequest, ToControl, ToWorker, UnsentBody};
use crate::http::auth::{self, AuthVerdict};
use crate::http::head::{Head, Method};
use crate::http::response::ReplyTo;
use crate::influxql::{self, Unparsed};
use crate::io;
use crate::limits::{QUERY_ADDRESS_WAIT, QUERY_BUFFER_BYTES, QUERY_CONTROL_GRACE};
use crate::must_see::MustSee;
use crate::placement::Placement;
use crate::prometheus::read::PANICKED;
use crate::request::inbox::Inbox;
use crate::request::reject::Reject;
use crate::routing::access::Refusal;
use crate::routing::choose::Chooser;
use crate::routing::reach::Reach;
use crate::topology::BackendId;
use crate::worker::Worker;
use forward::{AskFailure, Outgoing};
use fresh::{Answerer, Choice};
use plan::{NoPlan, Plan};
use request::{Query, QueryHead};

/// What happens to the client's connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAnswer {
    /// It can take another request.
    Answered,
    /// The client asked for it or has disconnected, or the close tells it that the answer is incomplete.
    Close,
    /// The answer is incomplete, but a normal close would make it look complete.
    Reset,
}

/// An answer that needs no backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAnswer {
    /// Answer to OPTIONS.
    Preflight,
    /// The methods that there are instead.
    Method(&'static str),
    Unauthorized,
    Refused(Refusal),
    /// As InfluxDB's own answer when it has failed over a remote read.
    Panicked,
    /// Answer to a query with `async=true`.
    Begun,
}

impl OwnAnswer {
    pub fn write(&self, worker: &Worker, out: &mut Vec<u8>, to: ReplyTo<'_>, pretty: bool) {
        let mut responder = worker.responder.borrow_mut();
        match self {
            Self::Preflight => responder.send(out, to, 200, &[], b""),
            // InfluxDB's router answers this itself, without the CORS fields.
            Self::Method(allowed) => {
                let to = ReplyTo { origin: None, ..to };
                responder.plain(out, to, 405, "Method Not Allowed", &[("Allow", allowed)]);
            }
            Self::Unauthorized => responder.error(out, to, 401, auth::FAILED.as_bytes(), false, &[]),
            Self::Refused(Refusal { status, text }) => {
                responder.error(out, to, *status, text.as_bytes(), pretty, &[]);
            }
            Self::Panicked => responder.plain(out, to, 500, PANICKED, &[]),
            Self::Begun => responder.no_content(out, to, None),
        }
    }
}

/// The slot of a running query. Dropping it frees the slot.
struct Permit {
    worker: Rc<Worker>,
    /// What the query goes by. While it is kept, the control thread knows that a query may read where data lay then.
    _placement: Arc<Placement>,
}

impl Permit {
    /// # Errors
    /// 503: all slots are taken.
    fn take(worker: &Rc<Worker>) -> Result<Self, Refusal> {
        let (running, max) = (&worker.queries.running, worker.settings.query.concurrent_max);
        if max > 0 && running.get() >= max {
            let text = format!("max-concurrent-queries limit exceeded({max} per worker); try again later");
            return Err(Refusal::new(503, text));
        }
        running.set(running.get() + 1);
        Ok(Self { worker: worker.clone(), _placement: worker.placement() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let running = &self.worker.queries.running;
        running.set(running.get() - 1);
    }
}

/// Checks a head: the method, then the user, as for writes.
///
/// # Errors
/// The answer, whatever the body is.
pub fn admit(worker: &Worker, head: &Head, buf: &[u8]) -> Result<QueryHead, OwnAnswer> {
    match head.method {
        Method::Get | Method::Post => {}
        Method::Options => return Err(OwnAnswer::Preflight),
        _ => return Err(OwnAnswer::Method("GET, OPTIONS, POST")),
    }
    let authorization = head.authorization.map(|span| span.of(buf));
    match worker.guard.judge(head.query(buf), authorization) {
        AuthVerdict::Ok => Ok(QueryHead::new(head, buf)),
        AuthVerdict::Missing | AuthVerdict::Wrong => Err(OwnAnswer::Unauthorized),
    }
}

/// Answers a query. All earlier requests of the connection have been answered.
pub async fn serve(worker: &Rc<Worker>, query: Query, inbox: &mut Inbox, to: ReplyTo<'_>) -> AfterAnswer {
    let pretty = query.pretty;
    match answer(worker, query, inbox, to).await {
        Ok(ended) => ended,
        Err(refusal) => send_own(worker, &OwnAnswer::Refused(refusal), pretty, inbox, to).await,
    }
}

async fn send_own(worker: &Worker, own: &OwnAnswer, pretty: bool, inbox: &mut Inbox, to: ReplyTo<'_>) -> AfterAnswer {
    let mut out = Vec::new();
    own.write(worker, &mut out, to, pretty);
    sent(inbox.send(&out).await, to)
}

fn sent(result: std::io::Result<()>, to: ReplyTo<'_>) -> AfterAnswer {
    if result.is_ok() && to.keep_alive { AfterAnswer::Answered } else { AfterAnswer::Close }
}

/// Makes all decisions about a query, in order.
async fn answer(worker: &Rc<Worker>, query: Query, inbox: &mut Inbox, to: ReplyTo<'_>) -> Result<AfterAnswer, Refusal> {
    let settings = &worker.settings;
    if settings.query_tracing {
        log::info!("query: db={:?} rp={:?} {}", query.db, query.rp, query.shown());
    }
    let place = Permit::take(worker)?;
    let plan = match Plan::new(&query, settings, &worker.placement()) {
        Ok(plan) => plan,
        Err(NoPlan::Unparsed(unparsed)) => return refuse_unparsed(worker, &query, unparsed, inbox, to).await,
        Err(NoPlan::Refused(refusal)) => return Err(refusal),
    };
    let Plan { alone, dbs, together, reads } = &plan;
    let must_see = fresh::must_see(worker, dbs.iter().map(String::as_str));
    let answerer = Choice { must_see: &must_see, alone, together }.wait(worker).await;
    if alone.is_empty() || answerer == Answerer::Several {
        return hand_over(worker, query, must_see, place, inbox, to).await;
    }
    let others = |failures: &Failures| others_answer(worker, reads, failures);
    match ask_alone(worker, &Outgoing::new(&query), alone, &must_see, inbox, to, others).await {
        Ok(ended) => Ok(ended),
        Err(failures) if others(&failures) => hand_over(worker, query, must_see, place, inbox, to).await,
        Err(failures) => Err(no_backend_answered(worker, &failures)),
    }
}

/// Refuses a text with an error. The client gets InfluxDB's own error if a backend can be asked safely: it must neither
/// execute the text nor reveal what this proxy hides. InfluxDB reads the whole text before it runs anything, so an
/// error of ours is appended to a text that might change something.
async fn refuse_unparsed(
    worker: &Worker,
    query: &Query,
    unparsed: Unparsed,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
) -> Result<AfterAnswer, Refusal> {
    let own = Refusal::new(400, unparsed.text);
    if unparsed.ours {
        return Err(own);
    }
    let harmless = influxql::may_change(&query.q).then(|| {
        let mut harmless = query.clone();
        harmless.q = query.q.trim().to_owned() + error_text::ENDING;
        harmless
    });
    let outgoing = Outgoing::new(harmless.as_ref().unwrap_or(query));
    let all = worker.settings.topology.backends.iter().map(|backend| backend.id);
    for (backend, _) in chooser(worker, &worker.placement(), &BTreeSet::new(), &MustSee::default()).best_first(all) {
        match forward::ask(worker, backend, &outgoing, inbox).await {
            None => return Ok(AfterAnswer::Close),
            Some(Ok(reply)) if reply.answer.status == 400 => {
                return match reply.error_text().filter(|_| harmless.is_some()) {
                    Some(text) => {
                        Err(error_text::about(query.q.trim(), &text).map_or(own, |text| Refusal::new(400, text)))
                    }
                    None => Ok(reply.pass(inbox, to, 0).await),
                };
            }
            Some(Ok(_)) => return Err(own),
            Some(Err(_)) => {}
        }
    }
    Err(own)
}

fn chooser<'a>(
    worker: &'a Worker,
    placement: &'a Placement,
    failed: &'a BTreeSet<BackendId>,
    must_see: &'a MustSee,
) -> Chooser<'a> {
    Chooser {
        topology: &worker.settings.topology,
        placement,
        stats: &worker.all_stats,
        order: &worker.feeds.order,
        must_see,
        read_wait: worker.settings.query.read_wait.unwrap_or_default(),
        now_ms: worker.clock_ms(),
        failed,
    }
}

/// Why backends have not answered.
type Failures = BTreeMap<BackendId, AskFailure>;

/// Asks the candidates, best first, until one answers. One that could not be reached may be at another address: it is
/// asked once more when that is known, unless `others` can answer instead.
///
/// # Errors
/// Why none of them answered.
async fn ask_alone(
    worker: &Worker,
    outgoing: &Outgoing,
    candidates: &BTreeSet<BackendId>,
    must_see: &MustSee,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
    others: impl Fn(&Failures) -> bool,
) -> Result<AfterAnswer, Failures> {
    let mut failures = Failures::new();
    let mut news = Some(worker.queries.news.wait());
    loop {
        let failed = failures.keys().copied().collect();
        let ranked = chooser(worker, &worker.placement(), &failed, must_see).best_first(candidates.iter().copied());
        let Some(&(backend, rank)) = ranked.first() else {
            let is_worth_it = |_: &_| failures.values().any(AskFailure::is_unreached) && !others(&failures);
            let Some(news) = news.take().filter(is_worth_it) else { break };
            // The control thread looks the names up.
            _ = io::timeout(QUERY_ADDRESS_WAIT, news).await;
            failures.retain(|_, why| !why.is_unreached());
            continue;
        };
        match forward::ask(worker, backend, outgoing, inbox).await {
            None => return Ok(AfterAnswer::Close),
            Some(Ok(reply)) => return Ok(reply.pass(inbox, to, rank.stale_ms()).await),
            Some(Err(why)) => _ = failures.insert(backend, why),
        }
    }
    for &backend in candidates {
        let is_asked = worker.settings.topology.backend(backend).takes_statements();
        let why = if is_asked { AskFailure::Down } else { AskFailure::TakesOnlyWrites };
        failures.entry(backend).or_insert(why);
    }
    Err(failures)
}

/// Whether other backends together can read all of this, now that these have failed.
fn others_answer(worker: &Worker, reads: &[Reach], failures: &Failures) -> bool {
    let failed = failures.keys().copied().collect();
    let placement = worker.placement();
    let must_see = MustSee::default();
    let chooser = chooser(worker, &placement, &failed, &must_see);
    !reads.is_empty() && reads.iter().all(|reach| chooser.shares(reach).is_ok())
}

fn no_backend_answered(worker: &Worker, failures: &Failures) -> Refusal {
    let one = |(&backend, why): (&BackendId, &AskFailure)| {
        format!("{}: {why}", worker.settings.topology.backend(backend).name)
    };
    let all: Vec<_> = failures.iter().map(one).collect();
    Refusal::new(503, format!("no backend could answer: {}", all.join("; ")))
}

/// Dropping it tells the control thread that nobody waits for the answer any more.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Lets the control thread answer.
async fn hand_over(
    worker: &Rc<Worker>,
    query: Query,
    must_see: MustSee,
    place: Permit,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
) -> Result<AfterAnswer, Refusal> {
    let (is_async, pretty) = (query.is_async, query.pretty);
    let cancel = CancelOnDrop(Arc::default());
    let request = to_request(query, must_see, cancel.0.clone());
    if is_async {
        let timeout = worker.settings.query.timeout + QUERY_CONTROL_GRACE;
        io::spawn(run_unattended(worker.clone(), request, timeout, cancel, place));
        return Ok(send_own(worker, &OwnAnswer::Begun, pretty, inbox, to).await);
    }
    pass_on(worker, request, inbox, to).await
}

/// Passes on what the control thread answers.
async fn pass_on(
    worker: &Worker,
    request: Box<QueryRequest>,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
) -> Result<AfterAnswer, Refusal> {
    let timeout = worker.settings.query.timeout + QUERY_CONTROL_GRACE;
    match io::unless(ask_control(worker, request, timeout), inbox.gone()).await {
        Err(()) => Ok(AfterAnswer::Close),
        Ok(QueryReply::Answer { fields, body }) => Ok(send_reply(worker, &fields, body, inbox, to).await),
        Ok(QueryReply::Panicked) => Ok(send_own(worker, &OwnAnswer::Panicked, false, inbox, to).await),
        Ok(QueryReply::Failed { status, text }) => Err(Refusal { status, text }),
    }
}

async fn run_unattended(
    worker: Rc<Worker>,
    request: Box<QueryRequest>,
    timeout: Duration,
    _cancel: CancelOnDrop,
    _place: Permit,
) {
    if let QueryReply::Failed { text, .. } = ask_control(&worker, request, timeout).await {
        log::warn!("a query with async=true failed: {text}");
    }
}

type Fields = Vec<(&'static str, String)>;

async fn ask_control(worker: &Worker, request: Box<QueryRequest>, timeout: Duration) -> QueryReply {
    let ask = worker.link.ask(timeout, |worker, ticket| ToControl::Query { worker, ticket, request });
    match ask.await {
        Ok(ToWorker::Query { reply, .. }) => reply,
        _ => {
            let text = String::from_utf8_lossy(&Reject::NoControl.text()).into_owned();
            QueryReply::Failed { status: Reject::NoControl.status(), text }
        }
    }
}

fn to_request(query: Query, must_see: MustSee, cancelled: Arc<AtomicBool>) -> Box<QueryRequest> {
    let (format, gzip) = (query.format(), query.takes_gzip());
    let Query { is_get, q, db, rp, epoch, params, pretty, chunked, chunk_size, .. } = query;
    let params = Some(params).filter(|params| !params.is_empty());
    let prometheus = None;
    Box::new(QueryRequest {
        is_get,
        q,
        prometheus,
        db,
        rp,
        params,
        epoch,
        pretty,
        chunked,
        chunk_size,
        format,
        gzip,
        must_see,
        cancelled,
    })
}

/// Sends a complete answer in pieces. A client that reads too slowly is cut when other queries need the memory.
async fn send_reply(
    worker: &Worker,
    fields: &Fields,
    body: UnsentBody,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
) -> AfterAnswer {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let length = body.length();
    let bytes = Arc::clone(body.bytes());
    let mut out = Vec::with_capacity(QUERY_BUFFER_BYTES);
    worker.responder.borrow_mut().stream(&mut out, to, 200, &fields, Some(length));
    for piece in body {
        let given_up = || bytes.is_revoked();
        if out.len() + piece.len() > QUERY_BUFFER_BYTES {
            if inbox.send_unless(&out, given_up).await.is_err() {
                return AfterAnswer::Close;
            }
            out.clear();
            for part in piece.chunks(QUERY_BUFFER_BYTES) {
                if inbox.send_unless(part, given_up).await.is_err() {
                    return AfterAnswer::Close;
                }
                bytes.sent(part.len());
            }
        } else {
            out.extend_from_slice(&piece);
        }
    }
    sent(inbox.send(&out).await, to)
}

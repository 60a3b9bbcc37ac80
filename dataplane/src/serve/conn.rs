//! Serves one client connection: reads requests and sends their answers in order.
//!
//! Pipelined writes are appended one after the other and wait for one commit together. Their answers leave in one send,
//! just before the connection waits for more bytes. Any other answer is sent after the answers of the writes before it.

use std::net::Shutdown;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_lite::FutureExt as _;

use crate::handoff::{AdminRequest, ToControl, ToWorker};
use crate::http::auth::AuthVerdict;
use crate::http::error_body::{Format, JSON, RefusedLines};
use crate::http::head::{self, Head, HeadError, Method};
use crate::http::response::{self, ReplyTo};
use crate::http::{self, Status};
use crate::io::{self, HandshakeError, Stream};
use crate::limits::{
    ADMIN_BODY_BYTES_MAX, ADMIN_TIMEOUT, DISCARD_BYTES_MAX, HEAD_BYTES_MAX, HEAD_TIME_MAX, LINGER, PIPELINED_MAX,
    PROFILE_MAX, PROMETHEUS_READ_BYTES_MAX, QUERY_BODY_BYTES_MAX, QUERY_HEAD_BYTES_MAX, SLOW_READ_BYTES,
};
use crate::query::{self, AfterAnswer, OwnAnswer, flux};
use crate::request::api::Api;
use crate::request::body::{Body, BodyError};
use crate::request::conns::Phase;
use crate::request::inbox::Inbox;
use crate::request::reject::Reject;
use crate::request::whole::{self, WholeBody};
use crate::worker::Worker;
use crate::write;
use crate::write::ack::{self, Taken};

/// Serves a connection to its end. A panic ends this connection only.
pub async fn serve(worker: Rc<Worker>, mut stream: Stream) {
    if let Some(tls) = &worker.settings.tls
        && let Err(error) = stream.accept_tls(tls)
    {
        return log::error!("cannot start TLS on a connection: {error}");
    }
    let entry = worker.conns.enter(stream.raw_fd(), io::now());
    let mut conn = Conn { inbox: Inbox::new(stream, entry), out: Vec::new(), waiting: Vec::new(), worker };
    if std::panic::AssertUnwindSafe(conn.run()).catch_unwind().await.is_err() {
        log::error!("the task of a connection panicked (see above) and the connection was closed; others go on");
    }
}

struct Conn {
    inbox: Inbox,
    /// Answers not sent yet.
    out: Vec<u8>,
    /// Writes whose answers wait for a commit. Their answers come after what is already in `out`.
    waiting: Vec<(ReplyInfo, Taken)>,
    worker: Rc<Worker>,
}

/// What an answer needs to know of its request after the head has been consumed.
#[derive(Debug)]
struct ReplyInfo {
    /// When the head had been read.
    began: Instant,
    minor: u8,
    head_only: bool,
    keep_alive: bool,
    request_id: Option<Box<[u8]>>,
    origin: Option<Box<[u8]>>,
    /// Whose words errors have.
    api: Api,
    format: Format,
    pretty: bool,
}

impl ReplyInfo {
    fn new(head: &Head, buf: &[u8]) -> Self {
        let to = ReplyTo::new(head, buf);
        let api = Api::of(head.path(buf));
        Self {
            began: io::now(),
            minor: to.minor,
            head_only: to.head_only,
            keep_alive: to.keep_alive,
            request_id: to.request_id.map(Into::into),
            origin: to.origin.map(Into::into),
            api,
            format: api.format(to.format),
            pretty: http::query::first(head.query(buf), "pretty").as_deref() == Some(b"true"),
        }
    }

    fn reply_to(&self) -> ReplyTo<'_> {
        ReplyTo {
            minor: self.minor,
            head_only: self.head_only,
            keep_alive: self.keep_alive,
            request_id: self.request_id.as_deref(),
            origin: self.origin.as_deref(),
            format: self.format,
        }
    }
}

/// What happens to the connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    Close,
    /// The answer is incomplete, and only a reset tells the client so.
    Reset,
}

impl Conn {
    async fn run(&mut self) {
        // `Conns::sweep` ends a handshake that takes longer than `idle_timeout`.
        if let Err(error) = self.inbox.stream.handshake().await {
            return self.refuse_handshake(error).await;
        }
        while let Some(head) = self.next_head().await {
            self.inbox.enter(Phase::Working);
            let next = self.request(&head).await;
            if next == Next::Reset {
                return self.inbox.stream.reset_at_end();
            }
            if self.waiting.len() >= PIPELINED_MAX && self.settle().await.is_err() {
                return;
            }
            if next == Next::Close || self.worker.conns.stopping() {
                break;
            }
        }
        // A failed send means that the peer is gone: then there is nothing to wait for.
        if self.settle().await.is_ok() {
            self.linger().await;
        }
    }

    /// Waits until the peer has read the last answer. A close while the peer still sends would reset the connection,
    /// and a reset can destroy the answer on its way (RFC 9112 section 9.6).
    async fn linger(&mut self) {
        if self.inbox.timed_out() || self.inbox.stream.shutdown(Shutdown::Write).await.is_err() {
            return;
        }
        let drain = async {
            let mut sink = vec![0; SLOW_READ_BYTES];
            while matches!(self.inbox.stream.read(&mut sink).await, Ok(1..)) {}
        };
        let _ = io::timeout(LINGER, drain).await;
    }

    /// Answers plain HTTP on a TLS port with the text of Go's server. A failed handshake has already sent its TLS
    /// alert.
    async fn refuse_handshake(&mut self, error: HandshakeError) {
        match error {
            HandshakeError::Failed(error) => log::debug!("a TLS handshake failed: {error}"),
            HandshakeError::PlainHttp => {
                if self.inbox.send(response::PLAIN_HTTP_TO_TLS).await.is_ok() {
                    self.linger().await;
                }
            }
        }
    }

    /// Waits for a complete head. None: there is no further request.
    async fn next_head(&mut self) -> Option<Head> {
        // Of a long head, what cannot be its end is not parsed again.
        let mut looked_at = 0;
        loop {
            let bytes = self.inbox.bytes();
            let is_long = looked_at > HEAD_BYTES_MAX && bytes.len() < QUERY_HEAD_BYTES_MAX;
            if !is_long || head::may_end(bytes, looked_at) {
                match head::parse(bytes) {
                    Ok(Status::Complete(head)) => return Some(head),
                    Ok(Status::Partial) => {}
                    Err(error) => {
                        self.refuse_head(error).await;
                        return None;
                    }
                }
            }
            looked_at = self.inbox.bytes().len();
            self.settle().await.ok()?;
            if self.inbox.bytes().is_empty() {
                self.inbox.enter(Phase::Idle);
                if self.worker.conns.stopping() {
                    return None;
                }
            } else {
                self.inbox.enter(Phase::Receiving);
            }
            if self.inbox.is_full() {
                let patience = self.worker.settings.idle_timeout.min(HEAD_TIME_MAX);
                let pool = self.worker.pool.clone();
                if !self.inbox.grow(&pool, patience).await {
                    let text = Reject::Busy.text().into_owned();
                    let mut responder = self.worker.responder.borrow_mut();
                    responder.error(&mut self.out, ReplyTo::unreadable(), Reject::Busy.status(), &text, false, &[]);
                    return None;
                }
            }
            match self.inbox.fill().await {
                Ok(0) if self.inbox.timed_out() && !self.inbox.bytes().is_empty() => {
                    let mut responder = self.worker.responder.borrow_mut();
                    responder.error(&mut self.out, ReplyTo::unreadable(), 408, b"request timed out", false, &[]);
                    return None;
                }
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn refuse_head(&mut self, error: HeadError) {
        if self.commit_waiting().await.is_ok() {
            let mut responder = self.worker.responder.borrow_mut();
            let text = error.text().as_bytes();
            responder.error(&mut self.out, ReplyTo::unreadable(), error.status(), text, false, &[]);
        }
    }

    async fn request(&mut self, head: &Head) -> Next {
        self.worker.count_request();
        let buf = self.inbox.bytes();
        let mut to = ReplyInfo::new(head, buf);
        to.keep_alive &= !self.worker.conns.stopping();
        match head.path(buf) {
            b"/write" | b"/api/v2/write" | b"/api/v3/write_lp" | b"/api/v2/query" if head.method == Method::Options => {
                self.preflight(head, to).await
            }
            b"/write" | b"/api/v2/write" | b"/api/v3/write_lp" => self.write(head, to).await,
            b"/api/v1/prom/write" if head.method == Method::Post => self.write(head, to).await,
            b"/api/v1/prom/read" if head.method == Method::Post => self.prometheus_read(head, to).await,
            b"/api/v1/prom/write" | b"/api/v1/prom/read" => self.refuse_method(head, to).await,
            b"/query" => self.query(head, to).await,
            b"/api/v2/query" => self.flux(head, to).await,
            b"/ping" | b"/api/v2/ping" => self.ping(head, to).await,
            _ => self.admin(head, to).await,
        }
    }

    /// A browser asks whether it may send a request.
    async fn preflight(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        self.inbox.consume(head.head_len);
        to.keep_alive &= self.forget(Body::new(head.body, DISCARD_BYTES_MAX as u64, None).ok(), head).await;
        self.answer_query(OwnAnswer::Preflight, &to).await
    }

    async fn write(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        let worker = self.worker.clone();
        let plan = write::plan(&worker, to.api, head, self.inbox.bytes()).await;
        self.inbox.consume(head.head_len);
        // InfluxDB reads what Prometheus sends as snappy, whatever the head says.
        let inflater = (head.gzip && to.api != Api::Prometheus).then(|| worker.inflater());
        let body = Body::new(head.body, write::body_bytes_max(&worker, to.api), inflater);
        let (plan, mut body) = match (plan, body) {
            (Ok(plan), Ok(body)) => (plan, body),
            (Err(reject), Ok(body)) => return self.refuse_unread(reject, Some(body), head, to).await,
            (Err(reject), Err(_)) => return self.refuse_unread(reject, None, head, to).await,
            (Ok(_), Err(error)) => return self.refuse_unread(error.into(), None, head, to).await,
        };
        if head.expect_continue && !body.exhausted() && self.invite_body().await.is_err() {
            return Next::Close;
        }
        let taken = write::take(&worker, plan, &mut self.inbox, &mut body).await;
        match taken {
            Ok(taken) => {
                if let Some(inflater) = body.into_inflater() {
                    worker.give_inflater(inflater);
                }
                let next = if to.keep_alive { Next::Request } else { Next::Close };
                // An answer that waits for more than the commit is sent by itself.
                let alone = taken.some_refused.is_some() || taken.confirmation.is_some();
                self.waiting.push((to, taken));
                if alone && self.settle().await.is_err() { Next::Close } else { next }
            }
            Err(reject) if write::client_gone(&reject) => Next::Close,
            Err(reject) => {
                to.keep_alive &= !reject.breaks_connection() && body.discard(&mut self.inbox, DISCARD_BYTES_MAX).await;
                self.refuse(&reject, &to).await
            }
        }
    }

    /// Answers another method than POST to Prometheus' paths as InfluxDB's router does.
    async fn refuse_method(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        self.inbox.consume(head.head_len);
        to.keep_alive &= self.forget(Body::new(head.body, DISCARD_BYTES_MAX as u64, None).ok(), head).await;
        self.answer_query(OwnAnswer::Method("POST"), &to).await
    }

    /// Reads a body that is kept as a whole.
    ///
    /// # Errors
    /// It cannot be read: the request has been refused, or the client has gone.
    async fn whole_body(
        &mut self,
        body: Result<Body, BodyError>,
        head: &Head,
        to: &mut ReplyInfo,
    ) -> Result<WholeBody, Next> {
        let worker = self.worker.clone();
        let whole = match body {
            Ok(body) if head.expect_continue && !body.exhausted() && self.invite_body().await.is_err() => {
                return Err(Next::Close);
            }
            Ok(mut body) => whole::read(&worker.pool, worker.settings.idle_timeout, &mut self.inbox, &mut body).await,
            Err(error) => Err(error.into()),
        };
        match whole {
            Ok(whole) => Ok(whole),
            Err(reject) if write::client_gone(&reject) => Err(Next::Close),
            Err(reject) => {
                to.keep_alive = false;
                Err(self.refuse(&reject, to).await)
            }
        }
    }

    /// Sends `100 Continue`, after the answers of earlier requests.
    async fn invite_body(&mut self) -> std::io::Result<()> {
        self.settle().await?;
        self.inbox.send(response::CONTINUE).await
    }

    /// Refuses a request whose body has not been read. A short body is read and discarded, so that the connection can
    /// be kept.
    async fn refuse_unread(&mut self, reject: Reject, body: Option<Body>, head: &Head, mut to: ReplyInfo) -> Next {
        to.keep_alive &= self.forget(body, head).await;
        self.refuse(&reject, &to).await
    }

    /// Discards an unread body. Returns whether the connection can be kept.
    async fn forget(&mut self, body: Option<Body>, head: &Head) -> bool {
        match body {
            // The client may or may not send the body after this answer, so the start of the next request is unknown.
            Some(_) if head.expect_continue => false,
            Some(mut body) => body.discard(&mut self.inbox, DISCARD_BYTES_MAX).await,
            None => false,
        }
    }

    async fn refuse(&mut self, reject: &Reject, to: &ReplyInfo) -> Next {
        if self.commit_waiting().await.is_err() {
            return Next::Close;
        }
        respond_reject(&self.worker, &mut self.out, reject, to);
        if to.keep_alive { Next::Request } else { Next::Close }
    }

    /// Reads a query up to the end of its body; `query` does the rest.
    async fn query(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        let worker = self.worker.clone();
        let arrived = query::admit(&worker, head, self.inbox.bytes());
        self.inbox.consume(head.head_len);
        let body = Body::new(head.body, QUERY_BODY_BYTES_MAX as u64, None);
        let (arrived, mut body) = match (arrived, body) {
            (Ok(arrived), Ok(body)) => (arrived, body),
            (Err(own), body) => {
                to.keep_alive &= self.forget(body.ok(), head).await;
                return self.answer_query(own, &to).await;
            }
            (Ok(_), Err(error)) => return self.refuse_unread(error.into(), None, head, to).await,
        };
        if head.expect_continue && !body.exhausted() && self.invite_body().await.is_err() {
            return Next::Close;
        }
        let form = if arrived.body_counts() {
            whole::read(&worker.pool, worker.settings.idle_timeout, &mut self.inbox, &mut body).await
        } else {
            to.keep_alive &= body.discard(&mut self.inbox, DISCARD_BYTES_MAX).await;
            Ok(WholeBody::default())
        };
        // Part of the memory for bodies until the query is answered.
        let mut form = match form {
            Ok(form) => form,
            Err(reject) if write::client_gone(&reject) => return Next::Close,
            Err(reject) => {
                to.keep_alive = false;
                return self.refuse(&reject, &to).await;
            }
        };
        let query = match arrived.decode(&std::mem::take(&mut form.bytes)) {
            Ok(query) => query,
            Err(refusal) => return self.answer_query(OwnAnswer::Refused(refusal), &to).await,
        };
        // The query may take long: send the earlier answers first.
        if self.settle().await.is_err() {
            return Next::Close;
        }
        match query::serve(&worker, query, &mut self.inbox, to.reply_to()).await {
            AfterAnswer::Answered => Next::Request,
            AfterAnswer::Close => Next::Close,
            AfterAnswer::Reset => Next::Reset,
        }
    }

    /// Reads a Flux query up to the end of its body; `query::flux` does the rest.
    async fn flux(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        let worker = self.worker.clone();
        let admitted = flux::admit(&worker, head, self.inbox.bytes());
        self.inbox.consume(head.head_len);
        let body = Body::new(head.body, QUERY_BODY_BYTES_MAX as u64, None);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                to.keep_alive &= self.forget(body.ok(), head).await;
                if self.commit_waiting().await.is_err() {
                    return Next::Close;
                }
                flux::refuse(&worker, &refusal, &mut self.out, to.reply_to(), to.pretty);
                return if to.keep_alive { Next::Request } else { Next::Close };
            }
        };
        // Part of the memory for bodies until the query is answered.
        let mut whole = match self.whole_body(body, head, &mut to).await {
            Ok(whole) => whole,
            Err(next) => return next,
        };
        // The query may take long: send the earlier answers first.
        if self.settle().await.is_err() {
            return Next::Close;
        }
        let body = std::mem::take(&mut whole.bytes);
        match flux::serve(&worker, admitted, body, &mut self.inbox, to.reply_to(), to.pretty).await {
            AfterAnswer::Answered => Next::Request,
            AfterAnswer::Close => Next::Close,
            AfterAnswer::Reset => Next::Reset,
        }
    }

    /// Reads a remote read of Prometheus to its end; `query::prometheus` does the rest.
    async fn prometheus_read(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        let worker = self.worker.clone();
        let read = query::prometheus::admit(&worker, head, self.inbox.bytes());
        self.inbox.consume(head.head_len);
        let body = Body::new(head.body, PROMETHEUS_READ_BYTES_MAX as u64, None);
        let mut read = match read {
            Ok(read) => read,
            Err(own) => {
                to.keep_alive &= self.forget(body.ok(), head).await;
                return self.answer_query(own, &to).await;
            }
        };
        // Part of the memory for bodies until the read is answered.
        let mut whole = match self.whole_body(body, head, &mut to).await {
            Ok(whole) => whole,
            Err(next) => return next,
        };
        read.block = std::mem::take(&mut whole.bytes);
        // The read may take long: send the earlier answers first.
        if self.settle().await.is_err() {
            return Next::Close;
        }
        match query::prometheus::serve(&worker, read, &mut self.inbox, to.reply_to()).await {
            AfterAnswer::Answered => Next::Request,
            AfterAnswer::Close => Next::Close,
            AfterAnswer::Reset => Next::Reset,
        }
    }

    /// Sends an answer of our own to a query, after the answers of earlier requests.
    async fn answer_query(&mut self, own: OwnAnswer, to: &ReplyInfo) -> Next {
        if self.commit_waiting().await.is_err() {
            return Next::Close;
        }
        own.write(&self.worker, &mut self.out, to.reply_to(), to.pretty);
        if to.keep_alive { Next::Request } else { Next::Close }
    }

    async fn ping(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        let worker = self.worker.clone();
        let params = head.query(self.inbox.bytes());
        let authorization = head.authorization.map(|span| span.of(self.inbox.bytes()));
        let admitted =
            !worker.settings.ping_auth_enabled || worker.guard.judge(params, authorization) == AuthVerdict::Ok;
        // Same rule as InfluxDB 1.7 and later.
        let verbose = http::query::first(params, "verbose").is_some_and(|v| !matches!(&*v, b"" | b"0" | b"false"));
        self.inbox.consume(head.head_len);
        to.keep_alive &= match Body::new(head.body, DISCARD_BYTES_MAX as u64, None) {
            Ok(mut body) => body.discard(&mut self.inbox, DISCARD_BYTES_MAX).await,
            Err(_) => false,
        };
        if !admitted {
            return self.refuse(&Reject::Unauthorized, &to).await;
        }
        if self.commit_waiting().await.is_err() {
            return Next::Close;
        }
        let mut responder = worker.responder.borrow_mut();
        if verbose {
            let body = format!("{{\"version\":\"{}\"}}\n", responder.version());
            responder.send(&mut self.out, to.reply_to(), 200, &[("Content-Type", JSON)], body.as_bytes());
        } else {
            responder.no_content(&mut self.out, to.reply_to(), None);
        }
        if to.keep_alive { Next::Request } else { Next::Close }
    }

    /// Passes any other request to the control thread and its answer back.
    async fn admin(&mut self, head: &Head, mut to: ReplyInfo) -> Next {
        let worker = self.worker.clone();
        let buf = self.inbox.bytes();
        let mut request = admin_request(head, buf);
        let authorization = head.authorization.map(|span| span.of(buf));
        // The control thread judges again, after the path and the method.
        let user_known = worker.guard.judge(head.query(buf), authorization) == AuthVerdict::Ok;
        self.inbox.consume(head.head_len);
        let body = Body::new(head.body, ADMIN_BODY_BYTES_MAX as u64, None);
        // Part of the memory for bodies until the answer is there.
        let mut whole = if user_known {
            match self.whole_body(body, head, &mut to).await {
                Ok(whole) => whole,
                Err(next) => return next,
            }
        } else {
            to.keep_alive &= self.forget(body.ok(), head).await;
            WholeBody::default()
        };
        request.body = std::mem::take(&mut whole.bytes).into();
        // The control thread may take long: send the earlier answers first.
        if self.settle().await.is_err() {
            return Next::Close;
        }
        let timeout = if request.path == "/debug/pprof/profile" { ADMIN_TIMEOUT + PROFILE_MAX } else { ADMIN_TIMEOUT };
        let ask = worker.link.ask(timeout, |worker, ticket| ToControl::Admin { worker, ticket, request });
        let Ok(ToWorker::Admin { response, .. }) = ask.await else {
            return self.refuse(&Reject::NoControl, &to).await;
        };
        let fields: Vec<_> = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        worker.responder.borrow_mut().send(&mut self.out, to.reply_to(), response.status, &fields, &response.body);
        if to.keep_alive { Next::Request } else { Next::Close }
    }

    /// Sends all answers that are due.
    async fn settle(&mut self) -> std::io::Result<()> {
        self.commit_waiting().await?;
        if !self.out.is_empty() {
            let sent = self.inbox.send(&self.out).await;
            self.out.clear();
            sent?;
        }
        Ok(())
    }

    /// Waits for the commit of all writes in `waiting` and puts their answers into `out`, in order.
    async fn commit_waiting(&mut self) -> std::io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let worker = self.worker.clone();
        let default = worker.settings.durability;
        let level =
            self.waiting.iter().map(|(_, taken)| taken.consistency.durability(default)).max().unwrap_or(default);
        let committed = match self.waiting.iter().filter_map(|(_, taken)| taken.last_seq).max() {
            Some(seq) => worker.own.log.committed(seq, level).await.map(Some),
            None => Ok(None),
        };
        let committed_at = io::now();
        for (to, taken) in std::mem::take(&mut self.waiting) {
            let waits_longer = taken.confirmation.is_some();
            let answer = match (&committed, taken.last_seq) {
                (Err(error), Some(_)) => Err(Reject::from(error)),
                (Ok(Some(durable)), Some(_)) => ack::acknowledge(&worker, durable, taken).await.map(Some),
                // The write had no valid line, so its answer does not depend on the commit.
                _ => taken.some_refused.map_or(Ok(None), Err),
            };
            let answered_at = if waits_longer { io::now() } else { committed_at };
            worker.latency.borrow_mut().record(answered_at.saturating_duration_since(to.began));
            match answer {
                Ok(ack) => worker.responder.borrow_mut().no_content(&mut self.out, to.reply_to(), ack.as_deref()),
                Err(reject) => respond_reject(&worker, &mut self.out, &reject, &to),
            }
        }
        Ok(())
    }
}

fn respond_reject(worker: &Worker, out: &mut Vec<u8>, reject: &Reject, to: &ReplyInfo) {
    let mut responder = worker.responder.borrow_mut();
    let fields: &[_] = match reject.retry_after() {
        Some(seconds) => &[("Retry-After", seconds)],
        None => &[],
    };
    let text = reject.text();
    if let Some(body) = to.api.body(reject) {
        let status = to.api.status(reject);
        return responder.error_with_body(out, to.reply_to(), status, Some(&text), fields, &body);
    }
    match reject.refusals() {
        Some(refusals) => {
            let lines = refusals.listed.iter().map(|line| (line.number, line.reason.as_str()));
            let refused = RefusedLines { total: refusals.count, lines };
            responder.refused_lines(out, to.reply_to(), &text, to.pretty, refused, fields);
        }
        None => {
            let pretty = to.pretty && !reject.is_never_pretty();
            responder.error(out, to.reply_to(), reject.status(), &text, pretty, fields);
        }
    }
}

fn admin_request(head: &Head, buf: &[u8]) -> AdminRequest {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let method = match head.method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Options => "OPTIONS",
        Method::Patch => "PATCH",
        Method::Other => "OTHER",
    };
    AdminRequest {
        method: method.into(),
        path: http::query::path(head.path(buf)).map_or_else(|| text(head.path(buf)), |path| text(&path)),
        query: text(head.query(buf)),
        authorization: head.authorization.map(|span| text(span.of(buf))),
        content_type: head.content_type.map(|span| text(span.of(buf))),
        body: Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task_bytes<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_a_connection_takes_few_kib() {
        let bytes = task_bytes(serve);
        assert!(bytes <= 8 << 10, "{bytes}");
    }
}

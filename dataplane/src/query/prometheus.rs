//! Prometheus' remote read. One backend answers for one measurement, and its answer is passed on; for many measurements
//! the control thread asks all backends of a circle.

use std::rc::Rc;
use std::sync::Arc;

use super::forward::{AskFailure, Outgoing};
use super::fresh::{self, Answerer, Choice};
use super::request::to_text;
use super::{
    AfterAnswer, CancelOnDrop, Failures, OwnAnswer, Permit, ask_alone, no_backend_answered, others_answer, pass_on,
    send_own,
};
use crate::handoff::QueryRequest;
use crate::http::auth::AuthVerdict;
use crate::http::head::Head;
use crate::http::query;
use crate::http::query::percent_encode;
use crate::http::response::ReplyTo;
use crate::limits::PROMETHEUS_READ_BYTES_MAX;
use crate::placement::Place;
use crate::prometheus::read::ReadRequest;
use crate::prometheus::{NOT_SNAPPY, uncompress, uncompressed_len};
use crate::request::inbox::Inbox;
use crate::routing::access::Refusal;
use crate::routing::reach::Reach;
use crate::routing::route::alone;
use crate::worker::Worker;

/// A read whose head has been checked.
#[derive(Debug)]
pub struct PrometheusRead {
    pub db: String,
    /// Empty = the default policy.
    pub rp: String,
    /// The body as it was sent.
    pub block: Vec<u8>,
}

/// Checks a head: the user, then the parameters.
///
/// # Errors
/// The answer, whatever the body is.
pub fn admit(worker: &Worker, head: &Head, buf: &[u8]) -> Result<PrometheusRead, OwnAnswer> {
    let authorization = head.authorization.map(|span| span.of(buf));
    let params = head.query(buf);
    if worker.guard.judge(params, authorization) != AuthVerdict::Ok {
        return Err(OwnAnswer::Unauthorized);
    }
    let param = |name| to_text(name, &query::first(params, name).unwrap_or_default()).map_err(OwnAnswer::Refused);
    let (db, rp) = database_and_policy(param("db")?, param("rp")?);
    if !db.is_empty() && !worker.settings.db_allowed(db.as_bytes()) {
        return Err(OwnAnswer::Refused(Refusal::new(400, format!("database forbidden: {db}"))));
    }
    Ok(PrometheusRead { db, rp, block: Vec::new() })
}

/// InfluxDB joins the two with a slash and cuts at the first one.
fn database_and_policy(db: String, rp: String) -> (String, String) {
    let joined = if rp.is_empty() { db } else { format!("{db}/{rp}") };
    match joined.split_once('/') {
        Some((db, rp)) => (db.to_owned(), rp.to_owned()),
        None => (joined, String::new()),
    }
}

/// Answers a read. All earlier requests of the connection have been answered.
pub async fn serve(worker: &Rc<Worker>, read: PrometheusRead, inbox: &mut Inbox, to: ReplyTo<'_>) -> AfterAnswer {
    match answer(worker, read, inbox, to).await {
        Ok(ended) => ended,
        Err(refusal) => send_own(worker, &OwnAnswer::Refused(refusal), false, inbox, to).await,
    }
}

async fn answer(
    worker: &Rc<Worker>,
    read: PrometheusRead,
    inbox: &mut Inbox,
    to: ReplyTo<'_>,
) -> Result<AfterAnswer, Refusal> {
    let settings = &worker.settings;
    if settings.query_tracing {
        log::info!("prometheus read: db={:?} rp={:?}", read.db, read.rp);
    }
    let _place = Permit::take(worker)?;
    let message = unpacked(&read.block)?;
    let request = ReadRequest::parse(&message).map_err(|text| Refusal::new(400, text))?;
    // An empty name is that of no measurement.
    let name = request.measurement.and_then(|name| std::str::from_utf8(name).ok()).filter(|name| !name.is_empty());
    let reach = match name {
        Some(name) => Reach::Places([Place::new(&read.db[..], name).owned()].into()),
        None => Reach::Circle,
    };
    let candidates = alone(std::slice::from_ref(&reach), &settings.topology, &worker.placement());
    let must_see = fresh::must_see(worker, [&read.db[..]]);
    let choice = Choice { must_see: &must_see, alone: &candidates, together: std::slice::from_ref(&reach) };
    let answerer = choice.wait(worker).await;
    if !candidates.is_empty() && answerer == Answerer::One {
        let others = |failures: &Failures| others_answer(worker, std::slice::from_ref(&reach), failures);
        match ask_alone(worker, &outgoing(&read), &candidates, &must_see, inbox, to, others).await {
            Ok(ended) => return Ok(ended),
            Err(failures) if others(&failures) => {}
            Err(failures) if failures.values().any(|why| *why == AskFailure::Panicked) => {
                return Ok(send_own(worker, &OwnAnswer::Panicked, false, inbox, to).await);
            }
            Err(failures) => return Err(no_backend_answered(worker, &failures)),
        }
    }
    let cancel = CancelOnDrop(Arc::default());
    let request = Box::new(QueryRequest {
        prometheus: Some(message),
        db: read.db,
        rp: read.rp,
        format: to.format,
        must_see,
        cancelled: cancel.0.clone(),
        ..QueryRequest::default()
    });
    pass_on(worker, request, inbox, to).await
}

fn outgoing(read: &PrometheusRead) -> Outgoing {
    let mut target = b"/api/v1/prom/read?db=".to_vec();
    percent_encode(&mut target, read.db.as_bytes());
    target.extend_from_slice(b"&rp=");
    percent_encode(&mut target, read.rp.as_bytes());
    let target = String::from_utf8(target).expect("percent-encoding is ASCII");
    Outgoing::with_body(target.into(), b"application/x-protobuf", None, None, read.block.clone())
}

fn unpacked(block: &[u8]) -> Result<Vec<u8>, Refusal> {
    let length = uncompressed_len(block).ok_or_else(|| Refusal::new(400, NOT_SNAPPY))?;
    if length > PROMETHEUS_READ_BYTES_MAX {
        return Err(Refusal::new(413, "Request Entity Too Large"));
    }
    let mut message = vec![0; length];
    if uncompress(block, &mut message) { Ok(message) } else { Err(Refusal::new(400, NOT_SNAPPY)) }
}

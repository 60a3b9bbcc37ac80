//! The admin endpoints: each turns a request into an [`Action`]. One file per endpoint, named after its path.
//!
//! Nothing here waits, asks a backend or changes anything: an endpoint reads the [`AdminState`] that the control thread
//! keeps. Bodies, statuses and content types are those of influx-proxy, in the [`Dialect`] that the configuration has,
//! except for the departures that `tests/endpoints_as_influx_proxy` lists.
//!
//! Order of checks: path (404), method (405), user (401), parameters (400).

mod clear;
pub(crate) mod debug_pprof;
mod decrypt;
mod encrypt;
mod health;
mod jobs;
pub(crate) mod ledger;
mod migrate;
pub mod order;
mod params;
mod ready;
mod rebalance;
mod recovery;
mod replica;
mod resync;

#[cfg(test)]
mod golden_test;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluxgate_dataplane::handoff::{AdminRequest, AdminResponse};
use fluxgate_dataplane::http::auth::{self, AuthVerdict, Guard};
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::placement::Placement;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::Topology;
use serde::Serialize;

use crate::influx::catalog::Load;
use crate::migration::jobs::Jobs;
use crate::migration::order::Order;
use crate::migration::peers::PeerChange;
use crate::migration::plan::Removed;
use crate::migration::steering::Steer;
use params::UrlParams;

/// The state that endpoints read.
#[derive(Debug)]
pub struct AdminState {
    pub topology: Arc<Topology>,
    pub placement: Arc<Placement>,
    /// The proxy's own user.
    pub guard: Guard,
    /// When the control thread was started, since 1970.
    pub started: Duration,
    pub stats: Arc<Stats>,
    /// Of the records in the workers' logs; knows what is parked.
    pub order: Arc<RecordOrder>,
    /// By backend: the result of the last probe; None before the first one.
    pub probed_up: Vec<Option<bool>>,
    /// By backend: its measurements at the last count, by database; empty before the first one.
    pub loads: Vec<BTreeMap<String, Load>>,
    /// On paths that both generations of influx-proxy have.
    pub dialect: Dialect,
    /// `/debug/pprof` is enabled.
    pub pprof_enabled: bool,
    /// Per worker.
    pub hot_tail_bytes: usize,
    /// Backends outside the topology that a rebalance may name: those of the configuration and of former rings.
    pub former_backends: Vec<Removed>,
    pub jobs: Jobs,
}

/// What the event loop has to do for a request.
#[derive(Debug)]
pub enum Action {
    Answer(AdminResponse),
    /// Ask all workers for their ledgers, then answer with [`ledger::response`].
    AskLedgers(ledger::LedgerAsked),
    /// Take a profile on a thread of its own ([`debug_pprof::cpu::take`]), unless another one is running.
    Profile(debug_pprof::cpu::Wanted),
    /// Answer with [`debug_pprof::heap::response_with`].
    Heap(debug_pprof::heap::HeapFormat),
    /// Begin a migration, then answer with [`order::answer`].
    Migrate {
        order: Box<Order>,
        form: Dialect,
    },
    /// Set flags of `/migrate/state`, then answer.
    SetMigration {
        changes: Vec<PeerChange>,
        response: AdminResponse,
    },
    /// Cancel, pause or resume a running migration, then answer.
    SteerMigration {
        id: u64,
        steer: Steer,
        response: AdminResponse,
    },
}

/// The version of influx-proxy whose answers an endpoint gives, where versions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// 2.4.7: errors are plain text.
    Older,
    /// 2.5: errors are JSON. Where the configuration is of 2.5, and on the paths that only 2.5 has.
    Newer,
}

/// A request whose path, method and user have been checked.
#[derive(Debug)]
pub struct AdminCall<'a> {
    method: &'a str,
    /// The rest of the path after `/migrate/jobs`, without the slash.
    rest: &'a str,
    query: UrlParams<'a>,
    /// The form in the body; empty when the body is not a form.
    body_form: UrlParams<'a>,
    body: &'a [u8],
    form: Dialect,
}

impl AdminCall<'_> {
    /// A parameter; the body comes before the query string, as in Go. Empty when missing.
    fn text(&self, name: &str) -> String {
        let value = match self.body_form.value(name) {
            value if value.is_empty() => self.query.value(name),
            value => value,
        };
        String::from_utf8_lossy(&value).into_owned()
    }

    fn refuse(&self, status: u16, why: &str) -> Action {
        Action::Answer(error(self.form, status, why, self.query.pretty()))
    }
}

/// The function of one path.
type Decide = fn(&AdminState, &AdminCall<'_>) -> Action;

/// Decides what to do for one request.
pub fn decide(state: &AdminState, request: &AdminRequest) -> Action {
    use Dialect::{Newer, Older};
    let common = state.dialect;
    const JOBS: &str = "/migrate/jobs";
    let (endpoint, methods, form): (Decide, &[&str], Dialect) = match &request.path[..] {
        "/health" => (health::decide, &["GET"], common),
        "/replica" => (replica::decide, &["GET"], common),
        "/encrypt" => (|state, call| encrypt::decide(state, call.query), &["GET"], common),
        "/decrypt" => (decrypt::decide, &["GET"], common),
        "/ready" => (ready::decide, &["GET"], Newer),
        "/ledger" => (|state, call| ledger::decide(state, call.query), &["GET"], Older),
        "/migrate/state" => (migrate::state, &["GET", "POST"], Older),
        "/migrate/stats" => (migrate::stats, &["GET"], Older),
        "/rebalance" => (rebalance::decide, &["POST"], common),
        "/recovery" => (recovery::decide, &["POST"], common),
        "/resync" => (resync::decide, &["POST"], common),
        "/clear" => (clear::decide, &["POST"], Older),
        "/transfer/state" => (migrate::state, &["GET", "POST"], Newer),
        "/transfer/stats" => (migrate::stats, &["GET"], Newer),
        "/cleanup" => (clear::decide, &["POST"], Newer),
        path if path == JOBS || path.starts_with("/migrate/jobs/") => {
            (|state, call| jobs::decide(state, call), &["GET", "POST", "DELETE"], Older)
        }
        path => match debug_pprof::endpoint(path).filter(|_| state.pprof_enabled) {
            Some(endpoint) => (endpoint, &["GET"], Older),
            None => return not_found(),
        },
    };
    let query = UrlParams(request.query.as_bytes());
    if !methods.contains(&&request.method[..]) {
        return Action::Answer(error(form, 405, "method not allow", query.pretty()));
    }
    if state.guard.judge(query.0, request.authorization.as_deref().map(str::as_bytes)) != AuthVerdict::Ok {
        return Action::Answer(error(form, 401, auth::FAILED, query.pretty()));
    }
    let is_form =
        |kind: &String| kind.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    let body_form = if request.content_type.as_ref().is_some_and(is_form) { &request.body[..] } else { b"" };
    let rest = request.path.strip_prefix(JOBS).unwrap_or_default().trim_start_matches('/');
    let body_form = UrlParams(body_form);
    endpoint(state, &AdminCall { method: &request.method, rest, query, body_form, body: &request.body, form })
}

fn not_found() -> Action {
    let mut response = text(404, "404 page not found");
    response.headers.push(("X-Content-Type-Options".to_owned(), "nosniff".to_owned()));
    Action::Answer(response)
}

fn error(form: Dialect, status: u16, why: &str, pretty: bool) -> AdminResponse {
    if form == Dialect::Older {
        return text(status, why);
    }
    #[derive(Serialize)]
    struct ErrorBody<'a> {
        error: &'a str,
    }
    let mut response = json(&ErrorBody { error: why }, pretty);
    response.status = status;
    // Go escapes these in JSON.
    let escaped = String::from_utf8_lossy(&response.body).replace('<', "\\u003c").replace('>', "\\u003e");
    response.body = Bytes::from(escaped.replace('&', "\\u0026"));
    response.headers.push(("X-Influxdb-Error".to_owned(), why.to_owned()));
    response
}

/// The answer when an endpoint has panicked or the control thread is overloaded.
pub fn failed(status: u16, why: &str) -> AdminResponse {
    text(status, why)
}

/// Plain text with a newline at its end.
fn text(status: u16, body: &str) -> AdminResponse {
    response(status, "text/plain; charset=utf-8", format!("{body}\n").into_bytes())
}

/// JSON with a newline at its end; `pretty` indents by four spaces.
fn json(value: &impl Serialize, pretty: bool) -> AdminResponse {
    let mut body = Vec::new();
    let written = if pretty {
        let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(&mut body, form))
    } else {
        value.serialize(&mut serde_json::Serializer::new(&mut body))
    };
    // Cannot fail: text and numbers, written to memory.
    written.expect("own types are serializable");
    body.push(b'\n');
    response(200, "application/json", body)
}

fn response(status: u16, content_type: &str, body: Vec<u8>) -> AdminResponse {
    let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
    AdminResponse { status, headers, body: Bytes::from(body) }
}

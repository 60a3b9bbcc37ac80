//! The admin endpoints: what a request asks for, as an [`Action`]. One file per endpoint, named after its path.
//!
//! Nothing here waits, asks a backend or changes anything: an endpoint reads the [`State`] that the control thread
//! keeps. Bodies, statuses and content types are those of influx-proxy 2.4.7, but for what `tests/golden` lists as
//! departures.
//!
//! Order of checks: path (404), method (405), user (401), parameters (400).

mod decrypt;
mod encrypt;
mod health;
pub mod ledger;
mod params;
mod replica;

#[cfg(test)]
mod golden_test;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fluxgate_dataplane::handoff::{AdminRequest, AdminResponse};
use fluxgate_dataplane::http::auth::{self, Guard, TokenScheme, Verdict};
use fluxgate_dataplane::placement::Placement;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::topology::Topology;
use serde::Serialize;

use crate::catalog::Load;
use params::Params;

/// What endpoints read.
#[derive(Debug)]
pub struct State {
    pub topology: Arc<Topology>,
    pub placement: Arc<Placement>,
    /// The proxy's own user.
    pub guard: Guard,
    pub stats: Arc<Stats>,
    /// By backend: what the last probe found; None before the first one.
    pub probed_up: Vec<Option<bool>>,
    /// By backend: its measurements as last counted, by database; empty before that.
    pub loads: Vec<BTreeMap<String, Load>>,
}

/// What is to be done for a request.
#[derive(Debug)]
pub enum Action {
    Answer(AdminResponse),
    /// Ask all workers for their ledgers, then answer with [`ledger::response`].
    AskLedgers {
        pretty: bool,
    },
}

/// Decides about one request.
pub fn decide(state: &State, request: &AdminRequest) -> Action {
    type Endpoint = fn(&State, Params<'_>) -> Action;
    // influx-proxy 2.4.7 takes no token where it asks for its user.
    let (endpoint, token): (Endpoint, TokenScheme) = match &request.path[..] {
        "/health" => (health::decide, TokenScheme::Refused),
        "/replica" => (replica::decide, TokenScheme::Refused),
        "/encrypt" => (encrypt::decide, TokenScheme::Accepted),
        "/decrypt" => (decrypt::decide, TokenScheme::Accepted),
        "/ledger" => (ledger::decide, TokenScheme::Accepted),
        _ => {
            let mut response = text(404, "404 page not found");
            response.headers.push(("X-Content-Type-Options".to_owned(), "nosniff".to_owned()));
            return Action::Answer(response);
        }
    };
    if request.method != "GET" {
        return refuse(405, "method not allow");
    }
    let query = request.query.as_bytes();
    if state.guard.judge(query, request.authorization.as_deref().map(str::as_bytes), token) != Verdict::Ok {
        return refuse(401, auth::FAILED);
    }
    endpoint(state, Params(query))
}

/// The answer when an endpoint has panicked or the control thread has too much to do.
pub fn failed(status: u16, why: &str) -> AdminResponse {
    text(status, why)
}

fn refuse(status: u16, why: &str) -> Action {
    Action::Answer(text(status, why))
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
    // Our own structs of text and numbers, written to memory: nothing can fail.
    written.expect("own types are serializable");
    body.push(b'\n');
    response(200, "application/json", body)
}

fn response(status: u16, content_type: &str, body: Vec<u8>) -> AdminResponse {
    let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
    AdminResponse { status, headers, body: Bytes::from(body) }
}

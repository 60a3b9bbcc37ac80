//! `GET /migrate/backlog`: what this proxy has not delivered yet, for the migrations of others.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Action, Call, State, json};
use crate::migration::ground::oldest_ms;
use crate::migration::peers::{Backlog, Behind};

pub fn decide(state: &State, call: &Call<'_>) -> Action {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let backends = state.topology.backends.iter();
    let behind = backends.filter_map(|backend| {
        let oldest_ms = oldest_ms(&state.stats, backend.id)?;
        Some(Behind { name: backend.name.clone(), url: backend.url.clone(), oldest_ms })
    });
    Action::Answer(json(&Backlog { now_ms, behind: behind.collect() }, call.query.pretty()))
}

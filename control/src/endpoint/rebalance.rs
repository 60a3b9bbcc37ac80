//! `POST /rebalance`: moves all data of a circle to where its ring puts it. With `operation=rm` the body names backends
//! that have left the circle; their data goes to those that stay. Backends marked `leaving` in the configuration need
//! not be named.

use serde::Deserialize;

use super::{Action, AdminCall, AdminState, order};
use crate::migration::plan::{Goal, Removed};

#[derive(Deserialize)]
struct RebalanceBody {
    #[serde(default)]
    backends: Vec<Removed>,
}

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let circle = match order::circle(state, call, "circle_id") {
        Ok(circle) => circle,
        Err(refused) => return refused,
    };
    let removed = match &*call.text("operation") {
        "add" => Vec::new(),
        "rm" if call.body.is_empty() && has_leaving(state, circle) => Vec::new(),
        // serde accepts an array for a struct; the map refuses it.
        "rm" => match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(call.body)
            .and_then(|body| serde_json::from_value::<RebalanceBody>(body.into()))
        {
            Ok(body) if body.backends.iter().all(|backend| backend.url.starts_with("http")) => body.backends,
            _ => return call.refuse(400, "invalid backends from body"),
        },
        _ => return call.refuse(400, "invalid operation"),
    };
    order::begin(state, call, Goal::Rebalance { circle, removed })
}

fn has_leaving(state: &AdminState, circle: usize) -> bool {
    state.topology.circles[circle].backends.iter().any(|&id| state.topology.backend(id).leaving)
}

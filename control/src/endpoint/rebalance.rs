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
            Ok(body) if body.backends.iter().all(|backend| backend.url.starts_with("http")) => {
                let known = body.backends.into_iter().enumerate().map(|(at, removed)| known(state, at, removed));
                match known.collect::<Result<_, _>>() {
                    Ok(removed) => removed,
                    Err(why) => return call.refuse(400, &why),
                }
            }
            _ => return call.refuse(400, "invalid backends from body"),
        },
        _ => return call.refuse(400, "invalid operation"),
    };
    order::begin(state, call, Goal::Rebalance { circle, removed })
}

/// The backend with its credentials. Only backends that the operator has configured, now or before, are called: whoever
/// may send admin requests must not reach other hosts through the proxy.
fn known(state: &AdminState, at: usize, removed: Removed) -> Result<Removed, String> {
    let url = removed.url.trim_end_matches('/').to_owned();
    let configured = state.former_backends.iter().find(|backend| backend.url == url);
    if configured.is_none() && !state.topology.backends.iter().any(|backend| backend.url == url) {
        return Err(format!(
            "backends[{at}] has a url of no backend that the configuration or circles.json names: list it under \
             former_backends in the configuration, restart, and repeat this"
        ));
    }
    let has_user = !removed.username.is_empty() || !removed.password.is_empty();
    Ok(match configured.filter(|_| !has_user) {
        Some(Removed { username, password, .. }) => {
            Removed { url, username: username.clone(), password: password.clone(), ..removed }
        }
        None => Removed { url, ..removed },
    })
}

fn has_leaving(state: &AdminState, circle: usize) -> bool {
    state.topology.circles[circle].backends.iter().any(|&id| state.topology.backend(id).leaving)
}

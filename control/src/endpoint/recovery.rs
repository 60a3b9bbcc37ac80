//! `POST /recovery`: copies the data of one circle to another; with `backend_urls` only to these of its backends.

use super::{Action, AdminCall, AdminState, order};
use crate::migration::plan::Goal;

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let circles = order::circle(state, call, "from_circle_id")
        .and_then(|from| order::circle(state, call, "to_circle_id").map(|to| (from, to)));
    let (from, to) = match circles {
        Ok(circles) => circles,
        Err(refused) => return refused,
    };
    if from == to {
        return call.refuse(400, "from_circle_id and to_circle_id cannot be same");
    }
    let urls: Vec<String> = order::list(&call.text("backend_urls")).collect();
    let mut backends = state.topology.circles[to].backends.iter().map(|&id| state.topology.backend(id));
    // influx-proxy accepts an unknown URL and copies nothing.
    if !urls.iter().all(|url| backends.clone().any(|backend| backend.url == *url)) {
        let known: Vec<_> = backends.by_ref().map(|backend| &backend.url[..]).collect();
        return call.refuse(400, &format!("invalid backend_urls: circle {to} has {}", known.join(",")));
    }
    order::begin(state, call, Goal::Recovery { from, to, urls })
}

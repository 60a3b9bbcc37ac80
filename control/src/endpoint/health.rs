//! `GET /health`: the state of each backend, and how many of its measurements are where the ring puts them.
//!
//! The answer uses only what the control thread already knows, so it comes at once even when backends hang.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use fluxgate_dataplane::limits::STALL_AFTER;
use fluxgate_dataplane::topology::Backend;
use serde::Serialize;

use super::params::UrlParams;
use super::{Action, AdminState, json};
use crate::clock::unix_ms;
use crate::influx::catalog::Load;

/// Fields in alphabetical order, as in influx-proxy 2.4.7.
#[derive(Serialize)]
struct CircleHealth<'a> {
    backends: Vec<BackendHealth<'a>>,
    circle: &'a str,
    /// Workers that take no writes until a restart, since their log has failed. The same in each circle; shown only
    /// when there are any; influx-proxy has no such field.
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    workers_failed: &'a [usize],
}

#[derive(Serialize)]
struct BackendHealth<'a> {
    active: bool,
    backlog: bool,
    /// Shown only when true; influx-proxy has no such field.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
    load: BTreeMap<&'a str, Share>,
    name: &'a str,
    rewrite: bool,
    url: &'a str,
}

#[derive(Serialize)]
struct Share {
    incorrect: u64,
    inplace: u64,
    measurements: u64,
}

pub fn decide(state: &AdminState, params: UrlParams<'_>) -> Action {
    let workers = state.stats.workers.iter().enumerate();
    let failed: Vec<_> =
        workers.filter(|(_, worker)| worker.log_failed.load(Relaxed)).map(|(number, _)| number).collect();
    let mut circles = Vec::with_capacity(state.topology.circles.len());
    for circle in &state.topology.circles {
        let backends = circle.backends.iter().map(|&id| health(state, state.topology.backend(id))).collect();
        circles.push(CircleHealth { backends, circle: &circle.name, workers_failed: &failed });
    }
    Action::Answer(json(&circles, params.pretty()))
}

fn health<'a>(state: &'a AdminState, backend: &'a Backend) -> BackendHealth<'a> {
    let index = backend.id.index();
    let courier = &state.stats.couriers[index];
    let reachable = state.probed_up[index] != Some(false);
    // A server that answers probes but refuses writes counts as down.
    let active = reachable && courier.up.load(Relaxed);
    let rewriting = courier.rewriting.load(Relaxed);
    // Queued points alone are not a backlog. Points that have waited for `STALL_AFTER` are, whatever the cause.
    let stuck = courier.stuck.load(Relaxed);
    let waits = unix_ms().saturating_sub(courier.oldest_ms.load(Relaxed)) >= STALL_AFTER.as_millis() as u64;
    let backlog = state.stats.queued_points(index) > 0 && (!active || rewriting || stuck || waits);
    // Delivery to a server with a backlog is retried all the time.
    let rewrite = rewriting || backlog;
    let share = |load: &Load| Share {
        incorrect: load.incorrect,
        inplace: load.inplace,
        measurements: load.inplace + load.incorrect,
    };
    let load = if reachable {
        state.loads[index].iter().map(|(db, load)| (&db[..], share(load))).collect()
    } else {
        BTreeMap::new()
    };
    BackendHealth { active, backlog, leaving: backend.leaving, load, name: &backend.name, rewrite, url: &backend.url }
}

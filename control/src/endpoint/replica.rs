//! `GET /replica`: which backend of each circle holds a measurement. `mm` is the name of `meas` in influx-proxy 2.5.

use serde::Serialize;

use super::params::Params;
use super::{Action, State, json, refuse};

#[derive(Serialize)]
struct Replica<'a> {
    circle: &'a str,
    name: &'a str,
    url: &'a str,
}

pub fn decide(state: &State, params: Params<'_>) -> Action {
    let db = params.value("db");
    let measurement = params.any(&["meas", "mm"]);
    if db.is_empty() || measurement.is_empty() {
        return refuse(400, "invalid db or meas");
    }
    let mut replicas = Vec::with_capacity(state.topology.circles.len());
    for (number, circle) in state.topology.circles.iter().enumerate() {
        let backend = state.topology.backend(state.placement.owner(number, &db, &measurement));
        replicas.push(Replica { circle: &circle.name, name: &backend.name, url: &backend.url });
    }
    Action::Answer(json(&replicas, params.pretty()))
}

//! `GET /replica`: which backend of each circle a measurement is written to. While it is being moved there are two, the
//! owner first. influx-proxy 2.5 calls the parameter `mm` instead of `meas`.

use fluxgate_dataplane::placement::Place;
use serde::Serialize;

use super::params::UrlParams;
use super::{Action, AdminState, json, refuse};

#[derive(Serialize)]
struct Replica<'a> {
    circle: &'a str,
    name: &'a str,
    url: &'a str,
}

pub fn decide(state: &AdminState, params: UrlParams<'_>) -> Action {
    let db = params.value("db");
    let measurement = params.any(&["meas", "mm"]);
    if db.is_empty() || measurement.is_empty() {
        return refuse(400, "invalid db or meas");
    }
    let place = Place::new(&*db, &*measurement);
    let mut replicas = Vec::with_capacity(state.topology.circles.len());
    for (number, circle) in state.topology.circles.iter().enumerate() {
        let owner = state.placement.owner(number, place);
        for id in [owner].into_iter().chain(state.placement.former(number, place)) {
            let backend = state.topology.backend(id);
            replicas.push(Replica { circle: &circle.name, name: &backend.name, url: &backend.url });
        }
    }
    Action::Answer(json(&replicas, params.pretty()))
}

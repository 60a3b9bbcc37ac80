//! `GET /replica`: which backend of each circle a measurement is written to. While it is being moved there are two, the
//! owner first. influx-proxy 2.5 calls the parameter `mm` instead of `meas`, and has objects for circle and backend.

use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::topology::Backend;
use serde::Serialize;

use super::{Action, AdminCall, AdminState, Dialect, json};

#[derive(Serialize)]
#[serde(untagged)]
enum Replica<'a> {
    /// In 2.4.7's form.
    Flat { circle: &'a str, name: &'a str, url: &'a str },
    /// In 2.5's form.
    Nested { backend: BackendName<'a>, circle: CircleName<'a> },
}

#[derive(Serialize)]
struct BackendName<'a> {
    name: &'a str,
    url: &'a str,
}

#[derive(Serialize)]
struct CircleName<'a> {
    id: usize,
    name: &'a str,
}

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let db = call.query.value("db");
    let measurement = call.query.any(&["meas", "mm"]);
    let is_newer = call.form == Dialect::Newer;
    if db.is_empty() || measurement.is_empty() {
        return call.refuse(400, if is_newer { "invalid db or mm" } else { "invalid db or meas" });
    }
    let place = Place::new(&*db, &*measurement);
    let mut replicas = Vec::with_capacity(state.topology.circles.len());
    for (id, circle) in state.topology.circles.iter().enumerate() {
        let owner = state.placement.owner(id, place);
        for backend in [owner].into_iter().chain(state.placement.former(id, place)) {
            let Backend { name, url, .. } = state.topology.backend(backend);
            replicas.push(if is_newer {
                Replica::Nested { backend: BackendName { name, url }, circle: CircleName { id, name: &circle.name } }
            } else {
                Replica::Flat { circle: &circle.name, name, url }
            });
        }
    }
    Action::Answer(json(&replicas, call.query.pretty()))
}

//! The recorded rows of the endpoints of this stage, against a [`State`] that says what the recorded proxy's backends
//! held.

use std::sync::atomic::Ordering::Relaxed;

use base64::Engine;
use fluxgate_dataplane::placement::{HashKey, PlacementSettings, RingHash};
use fluxgate_dataplane::settings::Credentials;
use fluxgate_dataplane::topology::{Backend, BackendId, Circle};
use serde_json::Value;

use super::*;

/// Rows that are answered differently on purpose: the original asks no user for these paths.
fn needs_user(path: &str) -> bool {
    path == "/encrypt" || path == "/decrypt"
}

/// The proxy of a configuration of the record (`tests/golden`): two circles of two backends each.
pub fn state(config: &str) -> State {
    let names = [["influxdb-1-1", "influxdb-1-2"], ["influxdb-2-1", "influxdb-2-2"]];
    let mut topology = Topology::default();
    for (circle, names) in names.iter().enumerate() {
        let mut backends = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let number = topology.backends.len() as u16;
            backends.push(BackendId(number));
            topology.backends.push(Backend {
                id: BackendId(number),
                name: (*name).to_owned(),
                url: format!("http://127.0.0.1:{}", 18086 + number),
                circle,
                index,
                username: String::new(),
                password: String::new(),
                write_only: false,
            });
        }
        topology.circles.push(Circle { name: format!("circle-{}", circle + 1), backends });
    }
    let settings = PlacementSettings {
        hash_key: HashKey::Idx,
        vnode_size: 256,
        shard_key: "%db,%mm".to_owned(),
        hash: RingHash::Crc32,
    };
    let placement = Arc::new(Placement::new(&topology, &settings));
    let credentials = match config {
        "auth" => Credentials { username: "admin".to_owned(), password: "s3cr&t".to_owned() },
        _ => Credentials::default(),
    };
    State {
        stats: Arc::new(Stats::new(2, topology.backends.len(), topology.circles.len())),
        probed_up: vec![Some(true); topology.backends.len()],
        loads: vec![BTreeMap::new(); topology.backends.len()],
        topology: Arc::new(topology),
        placement,
        guard: Guard::new(&credentials),
    }
}

/// Makes the state say what a recorded `/health` says its backends were like.
fn arrange(state: &mut State, recorded: &Value) {
    for (circle, recorded) in state.topology.circles.clone().iter().zip(recorded.as_array().unwrap()) {
        for (&backend, recorded) in circle.backends.iter().zip(recorded["backends"].as_array().unwrap()) {
            let index = backend.index();
            let flag = |name: &str| recorded[name].as_bool().unwrap();
            state.probed_up[index] = Some(flag("active"));
            // The second worker is the one that has something to tell.
            let stats = &state.stats.workers[1].backends[index];
            stats.up.store(flag("active"), Relaxed);
            stats.rewriting.store(flag("rewrite"), Relaxed);
            stats.queued_points.store(if flag("backlog") { 3 } else { 0 }, Relaxed);
            let load = |load: &Value| Load {
                inplace: load["inplace"].as_u64().unwrap(),
                incorrect: load["incorrect"].as_u64().unwrap(),
            };
            state.loads[index] =
                recorded["load"].as_object().unwrap().iter().map(|(db, l)| (db.clone(), load(l))).collect();
        }
    }
}

fn rows(version: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/");
    let file = std::fs::read_to_string(format!("{path}{version}.jsonl")).unwrap();
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn header<'a>(response: &'a AdminResponse, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(n, _)| n == name).map(|(_, value)| &value[..])
}

/// The request of a row; None when it was none.
fn request(row: &Value) -> Option<AdminRequest> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let target = row["request"]["path"].as_str()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(AdminRequest {
        method: text(&row["request"]["method"])?,
        path: path.to_owned(),
        query: query.to_owned(),
        authorization: text(&row["request"]["headers"]["Authorization"]),
        content_type: text(&row["request"]["headers"]["Content-Type"]),
        body: text(&row["request"]["body"]["text"]).unwrap_or_default().into(),
    })
}

#[test]
fn recorded_answers_are_given() {
    let mut checked = BTreeMap::<String, usize>::new();
    let (mut departed, mut newer) = (0, 0);
    for row in rows("v2.4.7") {
        let Some(request) = request(&row) else { continue };
        let path = &request.path[..];
        let unknown = ["/nope", "/", "/status", "/ping/", "/write/"].contains(&path);
        if !unknown && !["/health", "/replica", "/encrypt", "/decrypt"].contains(&path) {
            continue;
        }
        let (id, config) = (&row["id"], row["config"].as_str().unwrap());
        let want = &row["response"];
        let want_body = match &want["body"]["base64"] {
            Value::String(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            _ => want["body"]["text"].as_str().unwrap().as_bytes().to_vec(),
        };
        let mut state = state(config);
        if path == "/health" && want["status"] == 200 {
            arrange(&mut state, &serde_json::from_slice(&want_body).unwrap());
        }
        let Action::Answer(response) = decide(&state, &request) else { panic!("{id}: no answer") };

        // DEPARTURES: these two need the user when one is configured.
        if needs_user(path) && config == "auth" && request.method == "GET" {
            let given = ["u/p ok", "basic ok", "token ok"].iter().any(|note| row["note"] == *note);
            assert_eq!(response.status, if given { 200 } else { 401 }, "{id}");
            if !given {
                departed += 1;
                continue;
            }
        }
        // `text` is read as well as `msg`; see the next test.
        if needs_user(path)
            && request.query.contains("text=")
            && !request.query.contains("msg=")
            && want["status"] == 200
        {
            newer += 1;
            continue;
        }
        assert_eq!(u64::from(response.status), want["status"], "{id}");
        for pair in want["headers"].as_array().unwrap() {
            let (name, value) = (pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
            // The worker adds these.
            if !["X-Influxdb-Version", "Content-Length", "Transfer-Encoding"].contains(&name) {
                assert_eq!(header(&response, name), Some(value), "{id} {name}");
            }
        }
        if request.method != "HEAD" {
            assert_eq!(String::from_utf8_lossy(&response.body), String::from_utf8_lossy(&want_body), "{id}");
        }
        *checked.entry(if unknown { "unknown".to_owned() } else { path.to_owned() }).or_default() += 1;
    }
    let want = [("/decrypt", 15), ("/encrypt", 9), ("/health", 24), ("/replica", 22), ("unknown", 15)];
    let want = BTreeMap::from(want.map(|(path, count)| (path.to_owned(), count)));
    assert_eq!((checked, departed, newer), (want, 8, 17), "the record has changed");
}

/// influx-proxy 2.5 names the parameter `text`; its refusals have another form and are not compared.
#[test]
fn the_newer_name_of_a_parameter_is_read_as_well() {
    let mut checked = 0;
    for row in rows("v2.5.12") {
        let Some(request) = request(&row) else { continue };
        let newer = request.query.contains("text=") && !request.query.contains("msg=");
        if !needs_user(&request.path) || !newer || row["response"]["status"] != 200 {
            continue;
        }
        let Action::Answer(response) = decide(&state("open"), &request) else { panic!("no answer") };
        let want = &row["response"]["body"];
        match want["text"].as_str() {
            Some(text) => assert_eq!(String::from_utf8_lossy(&response.body), text, "{}", row["id"]),
            None => assert_eq!(base64::engine::general_purpose::STANDARD.encode(&response.body), want["base64"]),
        }
        checked += 1;
    }
    assert_eq!(checked, 17, "the record has changed");

    let replica = |query: &str| {
        let row = serde_json::json!({"request": {"method": "GET", "path": format!("/replica?{query}")}});
        let Action::Answer(response) = decide(&state("open"), &request(&row).unwrap()) else { panic!("no answer") };
        (response.status, response.body)
    };
    assert_eq!(replica("db=db1&mm=cpu3"), replica("db=db1&meas=cpu3"));
    assert_eq!(replica("db=db1&mm=cpu3").0, 200);
}

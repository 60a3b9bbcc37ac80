//! Compares answers with the recorded answers of influx-proxy. The [`AdminState`] of each row holds what the recorded
//! proxy knew of its backends.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine;
use fluxgate_dataplane::parked::ParkedKey;
use fluxgate_dataplane::placement::{HashKey, PlacementSettings, RingHash};
use fluxgate_dataplane::settings::Credentials;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, BackendId};
use serde_json::Value;

use super::*;
use crate::migration::job::MigrationShared;
use crate::migration::journal::Journal;
use crate::migration::peers::Peers;

/// Paths that require the user here, but not in influx-proxy: those rows have another answer on purpose.
fn needs_user(path: &str) -> bool {
    path == "/encrypt" || path == "/decrypt"
}

/// The proxy with a recorded configuration (`tests/golden`): two circles of two backends each.
pub fn state(config: &str) -> AdminState {
    let mut topology = Topology::default();
    for circle in 1..=2 {
        let backend = |index| {
            let port = 18_083 + 2 * circle + index;
            Backend::new(format!("influxdb-{circle}-{index}"), format!("http://127.0.0.1:{port}"))
        };
        topology.add_circle(format!("circle-{circle}"), (1..=2).map(backend));
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
    let stats = Arc::new(Stats::new(2, topology.backends.len(), topology.circles.len()));
    let topology = Arc::new(topology);
    AdminState {
        jobs: jobs(&topology, &placement, &stats),
        order: Arc::new(RecordOrder::new(1, topology.backends.len(), Duration::ZERO)),
        stats,
        probed_up: vec![Some(true); topology.backends.len()],
        loads: vec![BTreeMap::new(); topology.backends.len()],
        topology,
        placement,
        guard: Guard::new(&credentials),
        started: Duration::ZERO,
        dialect: Dialect::Older,
        pprof_enabled: true,
        hot_tail_bytes: 1 << 20,
        former_backends: Vec::new(),
    }
}

/// An empty job table: no test here starts a migration.
fn jobs(topology: &Arc<Topology>, placement: &Arc<Placement>, stats: &Arc<Stats>) -> Jobs {
    let nowhere = std::path::Path::new("/nowhere");
    let shared = MigrationShared {
        topology: Arc::clone(topology),
        placement: Placement::clone(placement),
        world: Box::new(crate::migration::job_test::MemoryWorld::default()),
        peers: Peers::new(&Credentials::default(), Vec::new(), &Trust::default()),
        journal: Journal::new(nowhere),
        folder: nowhere.to_owned(),
    };
    Jobs::open(shared, Arc::clone(stats), crossbeam::channel::unbounded().0)
}

/// Sets the state of the backends to what a recorded `/health` shows.
fn arrange(state: &mut AdminState, recorded: &Value) {
    for (circle, recorded) in state.topology.circles.clone().iter().zip(recorded.as_array().unwrap()) {
        for (&backend, recorded) in circle.backends.iter().zip(recorded["backends"].as_array().unwrap()) {
            let index = backend.index();
            let flag = |name: &str| recorded[name].as_bool().unwrap();
            state.probed_up[index] = Some(flag("active"));
            let courier = &state.stats.couriers[index];
            courier.up.store(flag("active"), Relaxed);
            courier.rewriting.store(flag("rewrite"), Relaxed);
            state.stats.workers[1].queued_points[index].store(if flag("backlog") { 3 } else { 0 }, Relaxed);
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

/// The request of a row; None when the row has none.
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
    let (mut departed, mut newer, mut tokens) = (0, 0, 0);
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

        // A departure on purpose: these two paths require the user when one is configured.
        if needs_user(path) && config == "auth" && request.method == "GET" {
            let given = ["u/p ok", "basic ok", "token ok"].iter().any(|note| row["note"] == *note);
            assert_eq!(response.status, if given { 200 } else { 401 }, "{id}");
            if !given {
                departed += 1;
                continue;
            }
        }
        // Another one: a token counts, as in 2.5.
        if row["note"] == "token ok" && want["status"] == 401 {
            assert_eq!(response.status, 200, "{id}");
            tokens += 1;
            continue;
        }
        // Older versions ignore `text`; the next test covers it.
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
    let want = [("/decrypt", 15), ("/encrypt", 9), ("/health", 24), ("/replica", 21), ("unknown", 15)];
    let want = BTreeMap::from(want.map(|(path, count)| (path.to_owned(), count)));
    assert_eq!((checked, departed, newer, tokens), (want, 8, 17, 1), "the record has changed");
}

/// As `arrange`, of a `/health` of 2.5.
fn arrange_newer(state: &mut AdminState, recorded: &Value) {
    let older = |backend: &Value| {
        let mut backend = backend.clone();
        backend["rewrite"] = backend["rewriting"].clone();
        backend["load"] = if backend["stats"].is_null() { serde_json::json!({}) } else { backend["stats"].clone() };
        backend
    };
    let circles = recorded["circles"].as_array().unwrap().iter();
    let backends = |circle: &Value| circle["backends"].as_array().unwrap().iter().map(older).collect::<Vec<_>>();
    let circles: Vec<_> = circles.map(|circle| serde_json::json!({"backends": backends(circle)})).collect();
    arrange(state, &circles.into());
}

#[test]
fn a_configuration_of_2_5_is_answered_in_its_words() {
    let mut checked = BTreeMap::<String, usize>::new();
    for row in rows("v2.5.12") {
        let Some(request) = request(&row) else { continue };
        let path = &request.path[..];
        if !["/health", "/replica", "/encrypt", "/decrypt"].contains(&path) {
            continue;
        }
        let (id, config, want) = (&row["id"], row["config"].as_str().unwrap(), &row["response"]);
        // Departures: the cipher needs the user when one is configured, and `msg` is read as well.
        let of_nobody = needs_user(path) && config == "auth" && !request.query.contains("u=admin&p=s3");
        if of_nobody || needs_user(path) && request.query.contains("msg=") && !request.query.contains("text=") {
            continue;
        }
        let body = match want["body"]["base64"].as_str() {
            Some(text) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            None => want["body"]["text"].as_str().unwrap().as_bytes().to_vec(),
        };
        let mut state = AdminState { dialect: Dialect::Newer, ..state(config) };
        if path == "/health" && want["status"] == 200 {
            arrange_newer(&mut state, &serde_json::from_slice(&body).unwrap());
        }
        let Action::Answer(response) = decide(&state, &request) else { panic!("{id}: no answer") };
        assert_eq!(u64::from(response.status), want["status"], "{id}");
        for name in ["Content-Type", "X-Influxdb-Error"] {
            let recorded = want["headers"].as_array().unwrap().iter().find(|pair| pair[0] == name);
            assert_eq!(header(&response, name), recorded.and_then(|pair| pair[1].as_str()), "{id} {name}");
        }
        if request.method != "HEAD" {
            let got = String::from_utf8_lossy(&response.body).replace(env!("CARGO_PKG_VERSION"), "2.5.12");
            assert_eq!(got, String::from_utf8_lossy(&body), "{id}");
        }
        *checked.entry(path.to_owned()).or_default() += 1;
    }
    let want = [("/decrypt", 15), ("/encrypt", 11), ("/health", 24), ("/replica", 22)];
    assert_eq!(checked, BTreeMap::from(want.map(|(path, count)| (path.to_owned(), count))), "the record has changed");
}

#[test]
fn health_of_2_5_tells_what_influx_proxy_has_no_word_for() {
    let mut state = AdminState { dialect: Dialect::Newer, ..state("open") };
    let request = request(&serde_json::json!({"request": {"method": "GET", "path": "/health"}})).unwrap();
    let mut topology = Topology::clone(&state.topology);
    topology.backends[3].write_only = true;
    topology.backends[0].leaving = true;
    state.topology = Arc::new(topology);
    state.stats.workers[1].log_failed.store(true, Relaxed);
    let Action::Answer(response) = decide(&state, &request) else { panic!("no answer") };
    let health: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!((&health["status"], &health["checks"][0]["name"]), (&"fail".into(), &"worker 1".into()));
    assert_eq!(health["circles"][1]["circle"]["write_only"], true);
    assert_eq!((&health["circles"][1]["backends"][1]["write_only"], response.status), (&true.into(), 200));
    assert_eq!(health["circles"][0]["backends"][0]["leaving"], true);
}

#[test]
fn health_names_what_a_backend_does_not_take() {
    use serde_json::json;

    let text = |name: &str| name.as_bytes().into();
    for (rps, why, want) in [
        (Some(vec![text(""), text("autogen")]), "no right", json!({"policies": ["autogen"], "why": "no right"})),
        (None, "", json!({})),
    ] {
        for dialect in [Dialect::Older, Dialect::Newer] {
            let state = AdminState { dialect, ..state("open") };
            let (key, stamp) = (ParkedKey { db: text("held"), rps: rps.clone() }, 1_700_000_000_123_000_000);
            state.order.park(BackendId(1), &key, stamp);
            state.order.parked_answered(BackendId(1), &key, why);
            let request = request(&json!({"request": {"method": "GET", "path": "/health"}})).unwrap();
            let health = || {
                let Action::Answer(response) = decide(&state, &request) else { panic!("no answer") };
                let health: Value = serde_json::from_slice(&response.body).unwrap();
                if dialect == Dialect::Older { health } else { health["circles"].clone() }
            };
            let mut want = want.clone();
            want["database"] = "held".into();
            want["since"] = "2023-11-14T22:13:20.123Z".into();
            assert_eq!(health()[0]["backends"][1]["parked"], json!([want]));
            assert_eq!(health()[0]["backends"][0]["parked"], Value::Null);
            state.order.parked_hold(BackendId(1), &key, u64::MAX);
            assert_eq!(health()[0]["backends"][1]["parked"][0]["since"], Value::Null);
        }
    }
}

#[test]
fn health_says_what_this_machine_fails_to_do() {
    type Flag = fn(&Stats) -> &AtomicBool;
    let cases: [(Flag, &str, &str); 4] = [
        (|stats| &stats.workers[1].log_failed, "worker 1", "takes no writes"),
        (|stats| &stats.workers[0].state_unsaved, "worker 0", "cannot be saved"),
        (|stats| &stats.couriers[2].log_unreadable, "backend influxdb-2-1", "cannot be read"),
        (|stats| &stats.couriers[0].letters_unwritten, "backend influxdb-1-1", "cannot be written"),
    ];
    for (flag, name, part) in cases {
        for dialect in [Dialect::Older, Dialect::Newer] {
            let state = AdminState { dialect, ..state("open") };
            let request = request(&serde_json::json!({"request": {"method": "GET", "path": "/health"}})).unwrap();
            let faults = || {
                let Action::Answer(response) = decide(&state, &request) else { panic!("no answer") };
                let health: Value = serde_json::from_slice(&response.body).unwrap();
                if dialect == Dialect::Older { health[1]["faults"].clone() } else { health["checks"].clone() }
            };
            assert_eq!(faults().as_array().map_or(0, Vec::len), 0);
            flag(&state.stats).store(true, Relaxed);
            let told = faults();
            let message = told[0]["message"].as_str().unwrap();
            assert_eq!((&told[0]["name"], told.as_array().unwrap().len()), (&Value::from(name), 1));
            assert!(message.contains(part) && message.contains("check the disk"), "{message}");
        }
    }
}

#[test]
fn a_worker_that_takes_no_writes_is_told() {
    let state = state("open");
    let request = request(&serde_json::json!({"request": {"method": "GET", "path": "/ready"}})).unwrap();
    let answer = || match decide(&state, &request) {
        Action::Answer(response) => (response.status, String::from_utf8_lossy(&response.body).into_owned()),
        _ => panic!("no answer"),
    };
    let (first, others) = state.stats.workers.split_first().unwrap();
    others.iter().for_each(|worker| worker.ready.store(true, Relaxed));
    let (status, body) = answer();
    assert!(status == 503 && body.contains("worker 0 takes no writes"), "{status} {body}");
    first.ready.store(true, Relaxed);
    let (status, body) = answer();
    let want = r#"{"status":"ready","started":"1970-01-01T00:00:00.000000000Z","up":""#;
    assert!(status == 200 && body.starts_with(want), "{status} {body}");
}

/// Names of 2.5 for parameters, in the dialect of 2.4.7.
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

/// Checks the recorded requests about migrations: whether one would begin, and the text of each refusal. No migration
/// runs. Flags are set as in the record.
fn migrations(version: &str, paths: &[&str]) -> usize {
    let mut checked = 0;
    let mut states = BTreeMap::new();
    for row in rows(version) {
        let Some(request) = request(&row) else { continue };
        let (id, config) = (&row["id"], row["config"].as_str().unwrap());
        let want = &row["response"];
        let body = want["body"]["text"].as_str().unwrap_or_default();
        // Counters after runs; no run is repeated here.
        let is_counted = request.path.ends_with("/stats") && id.as_u64().unwrap() > 912;
        // A token counts everywhere, as in 2.5; and no migration runs here as when the second was recorded.
        let is_departure = row["note"] == "token ok" && want["status"] == 401 || version == "v2.5.12" && *id == 978;
        if !paths.contains(&&request.path[..]) || is_counted || is_departure {
            continue;
        }
        let dialect = if version == "v2.5.12" { Dialect::Newer } else { Dialect::Older };
        let state = states.entry(config.to_owned()).or_insert_with(|| AdminState { dialect, ..state(config) });
        let set = |state: &mut AdminState, circle: Option<usize>, to: bool| match circle {
            Some(circle) => state.jobs.set(PeerChange::Migrating { circle, migrating: to, moved: false }),
            None => state.jobs.set(PeerChange::Resyncing(to)),
        };
        if request.path.ends_with("/state") && request.method == "GET" && want["status"] == 200 {
            let recorded: Value = serde_json::from_str(body).unwrap();
            let flag = |value: &Value, names: [&str; 2]| names.iter().find_map(|name| value[*name].as_bool()).unwrap();
            for circle in 0..2 {
                set(state, Some(circle), flag(&recorded["circles"][circle], ["is_migrating", "transferring"]));
            }
            set(state, None, flag(&recorded, ["is_resyncing", "resyncing"]));
        } else if request.method != "GET" && !request.path.ends_with("/state") {
            let note = row["note"].as_str().unwrap_or_default();
            set(state, Some(0), note.contains("while circle 0"));
            set(state, Some(1), false);
            set(state, None, note.contains("while resyncing"));
        }
        let response = match decide(state, &request) {
            Action::Answer(response) => response,
            Action::Migrate { form, .. } => order::answer(form, &Ok(1)),
            Action::SetMigration { changes, response } => {
                changes.into_iter().for_each(|change| state.jobs.set(change));
                response
            }
            other => panic!("{id}: {other:?}"),
        };
        assert_eq!(u64::from(response.status), want["status"], "{id} {}", request.query);
        if request.method != "HEAD" {
            assert_eq!(String::from_utf8_lossy(&response.body), body, "{id} {}", request.query);
        }
        let kind = want["headers"].as_array().unwrap().iter().find(|pair| pair[0] == "Content-Type").unwrap();
        assert_eq!(header(&response, "Content-Type"), kind[1].as_str(), "{id}");
        checked += 1;
    }
    checked
}

#[test]
fn migrations_are_begun_and_refused_in_the_recorded_words() {
    let older = ["/migrate/state", "/migrate/stats", "/rebalance", "/recovery", "/resync", "/clear"];
    let checked = migrations("v2.4.7", &older);
    assert_eq!(checked, 133, "the record has changed");
    let newer = ["/transfer/state", "/transfer/stats", "/rebalance", "/recovery", "/resync", "/cleanup"];
    let checked = migrations("v2.5.12", &newer);
    assert_eq!(checked, 139, "the record has changed");
}

/// Whoever may send admin requests reaches no other host through the proxy.
#[test]
fn only_backends_that_the_operator_has_named_are_called() {
    let mut state = state("open");
    let backend = |url: &str, username: &str| Removed {
        name: "x".to_owned(),
        url: url.to_owned(),
        username: username.to_owned(),
        password: String::new(),
    };
    state.former_backends = vec![backend("http://former:1", "u")];
    let ask = |body: Value| {
        let path = "/rebalance?circle_id=0&operation=rm";
        let row = serde_json::json!({"request": {"method": "POST", "path": path, "body": {"text": body.to_string()}}});
        decide(&state, &request(&row).unwrap())
    };
    let named = |url: &str, username: &str| ask(serde_json::json!({"backends": [backend(url, username)]}));
    for (url, username, want) in [
        ("http://127.0.0.1:18086", "", ("http://127.0.0.1:18086", "")),
        ("http://former:1", "", ("http://former:1", "u")),
        ("http://former:1/", "own", ("http://former:1", "own")),
    ] {
        let Action::Migrate { order, .. } = named(url, username) else { panic!("{url} is refused") };
        assert_eq!(order.goal.removed(), [backend(want.0, want.1)], "{url}");
    }
    for url in
        ["http://169.254.169.254", "http://former:12", "http://former:1/x", "http://former:1@other", "https://former:1"]
    {
        let Action::Answer(response) = named(url, "") else { panic!("{url} is called") };
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert!(response.status == 400 && body.contains("list it under former_backends"), "{url}: {body}");
        assert!(!body.contains("former:1") && !body.contains("169"), "a url may hold a password: {body}");
    }
}

/// Parameter names of 2.5 that 2.4.7 does not know.
#[test]
fn newer_names_of_parameters_are_read_as_well() {
    let ask = |query: &str| {
        let (path, query) = query.split_once('?').unwrap();
        let row = serde_json::json!({"request": {"method": "POST", "path": format!("{path}?{query}")}});
        decide(&state("open"), &request(&row).unwrap())
    };
    let Action::Migrate { order, form } =
        ask("/recovery?from_circle_id=0&to_circle_id=1&worker=3&dbs=a,b&since=7&batch=9")
    else {
        panic!("not begun")
    };
    assert_eq!(
        (order.cpus, order.dbs, order.since_ns, form),
        (3, vec!["a".into(), "b".into()], Some(7_000_000_000), Dialect::Older)
    );
    let Action::Migrate { order, .. } = ask("/resync?rate=1000&ha_addrs=a:1,%20b:2&db=x") else { panic!("not begun") };
    assert_eq!(
        (order.rate, order.ha_addrs, order.dbs),
        (Some(1000), vec!["a:1".into(), "b:2".into()], vec!["x".to_owned()])
    );
    for (refused, why) in [
        ("/rebalance?circle_id=0&operation=add&since=5", "since is for"),
        ("/resync?worker=0", "invalid worker"),
        ("/resync?batch=x", "invalid batch"),
        ("/resync?rate=0", "invalid rate"),
        ("/recovery?from_circle_id=0&to_circle_id=1&backend_urls=http://nowhere", "invalid backend_urls"),
        ("/resync?ha_addrs=a:1,b:70000", "invalid ha_addrs"),
    ] {
        let Action::Answer(response) = ask(refused) else { panic!("{refused} is begun") };
        let body = String::from_utf8_lossy(&response.body).into_owned();
        assert!(response.status == 400 && body.starts_with(why), "{refused}: {body}");
    }
}

//! Promise: when a circle gets other backends, no query misses a point and no write is lost, from the restart until its
//! data has been moved. A cluster of one circle keeps answering, too.

use std::collections::BTreeMap;
use std::time::Duration;

use fluxgate::config;
use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate_control::transition::Transitions;
use fluxgate_dataplane::placement::Place;
use serde_json::{Value, json};

use crate::cluster::{backends_of, drained, restart_changed, write_to};

const PATIENCE: Duration = Duration::from_secs(60);
const MEASUREMENTS: usize = 24;

fn name(i: usize) -> String {
    format!("m{i}")
}

struct OneCircle {
    servers: Vec<Influxd>,
    proxy: Proxy,
    /// Points of each measurement so far.
    written: u64,
}

impl OneCircle {
    /// One circle of the first `used` of `servers`, each measurement with one point.
    fn start(servers: usize, used: usize) -> Self {
        let servers: Vec<_> = Influxd::start_several(servers).unwrap();
        let urls = servers[..used].iter().map(Influxd::url).collect();
        let proxy = crate::support::start(&ProxyConfig::new(&[urls]).set("workers", 2).set("rewrite_interval", 1));
        let mut circle = Self { servers, proxy, written: 0 };
        circle.servers[..used].iter().for_each(|server| server.create_database("db").unwrap());
        circle.write();
        circle.drained();
        circle
    }

    /// One more point of each measurement, confirmed by all it goes to.
    fn write(&mut self) {
        let reply = self.write_with("&consistency=all");
        assert_eq!((reply.status, reply.header("X-Fluxgate-Ack")), (204, Some("circles=1/1")), "{}", reply.text());
    }

    fn write_with(&mut self, params: &str) -> fluxgate::lab::client::Reply {
        self.written += 1;
        let lines: String =
            (0..MEASUREMENTS).map(|i| format!("{},host=a v={} {}\n", name(i), self.written, self.written)).collect();
        let mut client = Client::connect(self.proxy.addr()).unwrap();
        client.request("POST", &format!("/write?db=db{params}"), &[], lines.as_bytes()).unwrap()
    }

    /// Everything is delivered, and every server is known to be up: queries ask only such, and a probe comes once a
    /// second.
    fn drained(&self) {
        drained(&self.proxy);
        let up =
            || self.proxy.health().unwrap().iter().flat_map(|circle| &circle.backends).all(|backend| backend.active);
        assert!(eventually(PATIENCE, up), "{:?}", self.proxy.health());
        assert!(self.proxy.ledger().unwrap().proven_balanced(), "{:?}", self.proxy.ledger());
    }

    fn restart_with(&mut self, change: impl FnOnce(&mut Value)) {
        restart_changed(&mut self.proxy, change);
    }

    fn stop(&mut self) {
        assert!(self.proxy.terminate(PATIENCE).unwrap().success(), "{}", self.proxy.stderr());
    }

    /// Changes the saved transition as a migration would. The proxy is stopped meanwhile and reads it when it starts.
    fn change_transition(&mut self, change: impl FnOnce(&Transitions)) {
        self.stop();
        let data = config::load(self.proxy.config_file()).unwrap().data;
        let file = Transitions::file_in(&self.proxy.data_dir());
        change(&Transitions::open(&file, &data.topology, &data.placement).unwrap());
        self.proxy.restart().unwrap_or_else(|e| panic!("{e}"));
    }

    /// Names of the backends each measurement is written to, the owner first.
    fn routes(&self) -> BTreeMap<String, Vec<String>> {
        let route = |i: usize| {
            let (status, text) = self.proxy.get(&format!("/replica?db=db&meas={}", name(i))).unwrap();
            assert_eq!(status, 200, "{text}");
            let list: Vec<Value> = serde_json::from_str(&text).unwrap();
            (name(i), list.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect())
        };
        (0..MEASUREMENTS).map(route).collect()
    }

    /// `influxdb-1-N`.
    fn server(&self, backend: &str) -> &Influxd {
        &self.servers[backend.strip_prefix("influxdb-1-").unwrap().parse::<usize>().unwrap() - 1]
    }

    /// Points that a query over everything sees, by measurement.
    fn seen(&self) -> BTreeMap<String, u64> {
        counts(&fluxgate::lab::influxd::query(&self.proxy.url(), "db", "SELECT count(v) FROM /.*/").unwrap())
    }

    fn stored(&self, backend: &str, measurement: &str) -> u64 {
        let answer = self.server(backend).query("db", &format!("SELECT count(v) FROM {measurement}")).unwrap();
        counts(&answer).get(measurement).copied().unwrap_or(0)
    }

    /// No query sees a hole: named, by a regular expression, several at once, SHOW.
    fn assert_whole(&self) {
        let whole: BTreeMap<_, _> = (0..MEASUREMENTS).map(|i| (name(i), self.written)).collect();
        assert_eq!(self.seen(), whole, "by a regular expression");
        let ask = |q: &str| fluxgate::lab::influxd::query(&self.proxy.url(), "db", q).unwrap();
        for i in 0..MEASUREMENTS {
            let answer = counts(&ask(&format!("SELECT count(v) FROM {}", name(i))));
            assert_eq!(answer.get(&name(i)), Some(&self.written), "{}", name(i));
        }
        let all: Vec<_> = (0..MEASUREMENTS).map(name).collect();
        assert_eq!(counts(&ask(&format!("SELECT count(v) FROM {}", all.join(", ")))), whole);
        let shown = ask("SHOW MEASUREMENTS");
        assert_eq!(shown["results"][0]["series"][0]["values"].as_array().unwrap().len(), MEASUREMENTS, "{shown}");
        let series = ask("SHOW SERIES");
        assert_eq!(series["results"][0]["series"][0]["values"].as_array().unwrap().len(), MEASUREMENTS, "{series}");
    }
}

fn counts(answer: &Value) -> BTreeMap<String, u64> {
    let series = answer["results"][0]["series"].as_array().into_iter().flatten();
    series.map(|s| (s["name"].as_str().unwrap().to_owned(), s["values"][0][1].as_u64().unwrap())).collect()
}

#[test]
fn a_backend_is_added_without_a_gap() {
    let mut circle = OneCircle::start(3, 2);
    let new = circle.servers[2].url();
    circle.restart_with(|file| backends_of(file, 0).push(json!({"name": "influxdb-1-3", "url": new})));
    assert!(circle.proxy.stderr().contains("circle-1 is in transition: its backends were influxdb-1-1, influxdb-1-2"));
    circle.assert_whole();
    circle.write();
    circle.assert_whole();
    let routes = circle.routes();
    let moving: Vec<_> = routes.iter().filter(|(_, route)| route.len() == 2).collect();
    assert!(moving.len() > 2, "{routes:?}");
    for (measurement, route) in &moving {
        assert_eq!(
            (circle.stored(&route[0], measurement), circle.stored(&route[1], measurement)),
            (1, 2),
            "{measurement}"
        );
    }

    // It goes on after a crash.
    circle.proxy.kill();
    circle.proxy.restart().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(circle.routes(), routes);
    circle.write();
    circle.assert_whole();

    // Marked (though nothing was copied, so that it shows): read from its owner, written to both, and so after a
    // restart.
    let (marked, route) = moving[0];
    circle.change_transition(|transitions| transitions.mark_moved(0, &[Place::new("db", &**marked).owned()]).unwrap());
    let seen = circle.seen();
    assert!(seen.iter().all(|(name, n)| *n == circle.written - u64::from(name == marked)), "{marked}: {seen:?}");
    assert_eq!(&circle.routes()[marked], route);
    // Gives the owner the point that it lacks, as a copy would.
    let first = format!("{marked},host=a v=1 1");
    write_to(circle.server(&route[0]), &first);
    circle.write();
    circle.assert_whole();

    for (measurement, route) in &moving {
        let first = format!("{measurement},host=a v=1 1");
        write_to(circle.server(&route[0]), &first);
    }
    circle.change_transition(|transitions| transitions.end(0, false).unwrap());
    circle.assert_whole();
    let before = circle.written;
    circle.write();
    circle.assert_whole();
    for (measurement, route) in &moving {
        let stored = |backend: &str| circle.stored(backend, measurement);
        assert_eq!((stored(&route[0]), stored(&route[1])), (circle.written, before), "{measurement}");
    }
    circle.drained();
}

#[test]
fn a_backend_leaves_without_a_gap_and_is_shown_as_leaving() {
    let mut circle = OneCircle::start(2, 2);
    circle.restart_with(|file| backends_of(file, 0)[0]["leaving"] = json!(true));
    circle.assert_whole();
    circle.write();
    circle.assert_whole();
    let (leaving, staying) = ("influxdb-1-1", "influxdb-1-2");
    let routes = circle.routes();
    assert!(routes.values().all(|route| route[0] == staying), "{routes:?}");
    let moving: Vec<_> = routes.iter().filter(|(_, route)| route.get(1).is_some_and(|b| b == leaving)).collect();
    assert!(moving.len() > 2, "{routes:?}");
    let health: Value = serde_json::from_str(&circle.proxy.get("/health").unwrap().1).unwrap();
    assert_eq!(health[0]["backends"][0]["leaving"], true);
    assert_eq!(health[0]["backends"][1].get("leaving"), None);
    for (measurement, _) in &moving {
        let first = format!("{measurement},host=a v=1 1");
        write_to(circle.server(staying), &first);
    }
    circle.change_transition(|transitions| transitions.end(0, false).unwrap());
    circle.servers[0].kill();
    assert!(eventually(PATIENCE, || circle.proxy.health().is_ok_and(|circles| !circles[0].backends[0].active)));
    circle.write();
    circle.assert_whole();
    circle.restart_with(|file| _ = backends_of(file, 0).remove(0));
    circle.assert_whole();
    assert!(circle.proxy.ledger().unwrap().proven_balanced());
}

#[test]
fn what_waits_for_both_owners_reaches_both_when_another_worker_takes_it_over() {
    let mut circle = OneCircle::start(3, 2);
    let new = circle.servers[2].url();
    circle.restart_with(|file| backends_of(file, 0).push(json!({"name": "influxdb-1-3", "url": new})));
    circle.write();
    circle.drained();
    circle.servers.iter_mut().for_each(Influxd::kill);
    for _ in 0..8 {
        let reply = circle.write_with("");
        assert_eq!(reply.status, 204, "{}", reply.text());
    }
    circle.restart_with(|file| file["workers"] = json!(1));
    circle.servers.iter_mut().for_each(|server| server.restart().unwrap());
    circle.drained();
    circle.assert_whole();
    for (measurement, route) in circle.routes() {
        for (place, backend) in route.iter().enumerate() {
            let is_new = route.len() == 2 && place == 0;
            assert_eq!(
                circle.stored(backend, &measurement),
                circle.written - u64::from(is_new),
                "{measurement} {route:?}"
            );
        }
    }
}

#[test]
fn a_check_tells_what_a_start_would_find() {
    let mut circle = OneCircle::start(2, 2);
    circle.stop();
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fluxgate"));
        let file = circle.proxy.config_file();
        let output =
            command.arg("check").arg("--config").arg(&file).current_dir(file.parent().unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let said = check();
    assert!(!said.contains("in transition"), "{said}");
    let saved = std::fs::read(Transitions::file_in(&circle.proxy.data_dir())).unwrap();
    let text = std::fs::read_to_string(circle.proxy.config_file()).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    backends_of(&mut file, 0)[1]["leaving"] = json!(true);
    std::fs::write(circle.proxy.config_file(), file.to_string()).unwrap();
    let said = check();
    assert!(
        said.contains(
            "  circle-1 is in transition: its backends were influxdb-1-1, influxdb-1-2, and are influxdb-1-1"
        ),
        "{said}"
    );
    assert!(said.contains("run a rebalance") && said.contains("0.00 %  leaving"), "{said}");
    assert_eq!(
        std::fs::read(Transitions::file_in(&circle.proxy.data_dir())).unwrap(),
        saved,
        "a check changes nothing"
    );
}

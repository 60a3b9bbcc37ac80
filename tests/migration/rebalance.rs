//! Promise: after backends have come or gone a rebalance brings everything to where the ring says, and meanwhile all is seen.

use std::thread;
use std::time::Duration;

use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::eventually;
use serde_json::json;

use crate::house::{DB, at_rest, house, job, post, urls};

#[test]
fn a_backend_that_is_added_gets_its_part() {
    let Some(mut house) = house(&[2, 1]) else { return };
    house.fill(0..3000);
    house.servers[0].push(Influxd::start().unwrap());
    house.restart_with(&urls(&house.servers));
    let traffic = house.traffic(10_000, true);
    let job = house.complete("/rebalance?circle_id=0&operation=add&cpus=2", "");
    assert!(job["tasks"]["done"].as_u64().unwrap() > 0, "{job:#}");
    let (_, stats) = house.proxy.get("/migrate/stats?circle_id=0&type=rebalance").unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    for (_, counters) in stats.as_object().unwrap() {
        assert_eq!(counters["measurement_total"], counters["measurement_done"], "{stats}");
    }
    traffic.stop();
    house.check(false);
    let traffic = house.traffic(100_000, true);
    house.complete("/clear?circle_id=0", "");
    traffic.stop();
    at_rest(&house.proxy);
    house.check(true);
}

#[test]
fn a_rebalance_of_the_only_circle_is_paused_goes_on_and_is_cleared_without_a_hole() {
    let Some(mut house) = house(&[2]) else { return };
    house.fill(0..3000);
    house.servers[0].push(Influxd::start().unwrap());
    house.restart_with(&urls(&house.servers));
    let traffic = house.traffic(10_000, true);
    let id = house.begin("/rebalance?circle_id=0&operation=add&rate=20000", "");
    let bytes = || job(&house.proxy, id)["bytes"].as_u64().unwrap();
    assert!(eventually(Duration::from_secs(60), || bytes() > 0), "{:#}", job(&house.proxy, id));
    let steer = |what: &str| post(&house.proxy, &format!("/migrate/jobs/{id}/{what}"), "");
    assert_eq!(steer("pause"), (202, "accepted\n".to_owned()));
    assert!(eventually(Duration::from_secs(10), || job(&house.proxy, id)["state"] == "paused"));
    // What is under way is finished first.
    thread::sleep(Duration::from_millis(500));
    let paused_at = bytes();
    thread::sleep(Duration::from_millis(1500));
    let paused = job(&house.proxy, id);
    assert_eq!((&paused["state"], bytes()), (&json!("paused"), paused_at), "{paused:#}");
    assert_ne!(paused["percent"], 100.0, "{paused:#}");
    assert_eq!(steer("resume"), (202, "accepted\n".to_owned()));
    let ended = house.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}\n{}", house.proxy.stderr());
    at_rest(&house.proxy);
    let ended = house.wait(house.begin("/clear?circle_id=0", ""));
    assert_eq!(ended["state"], "done", "{ended:#}");
    traffic.stop();
    house.check(true);
}

#[test]
fn a_backend_that_was_removed_and_is_named_in_the_body_gives_all_it_has() {
    let Some(mut house) = house(&[3, 1]) else { return };
    house.fill(0..3000);
    let gone = house.servers[0].pop().unwrap();
    house.restart_with(&urls(&house.servers));
    let traffic = house.traffic(10_000, true);
    let body = json!({"backends": [{"name": "influxdb-1-3", "url": gone.url(), "username": "", "password": ""}]});
    house.complete("/rebalance?circle_id=0&operation=rm", &body.to_string());
    traffic.stop();
    house.check(false);
    assert!(gone.query(DB, "SHOW MEASUREMENTS").unwrap().to_string().contains("\"m"), "nothing is taken away");
}

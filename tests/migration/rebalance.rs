//! Promise: after backends were added or removed, a rebalance moves every measurement to its owner, and queries see all
//! points meanwhile.

use std::thread;
use std::time::Duration;

use fluxgate::lab::proxy::eventually;
use serde_json::json;

use crate::cluster::{Cluster, DB, at_rest, job, post, urls};

#[test]
fn a_backend_that_is_added_gets_its_part() {
    let mut cluster = Cluster::start(&[2, 1]);
    cluster.fill(0..3000);
    cluster.restart_with_one_more();
    let traffic = cluster.traffic(10_000, true);
    let job = cluster.complete("/rebalance?circle_id=0&operation=add&cpus=2", "");
    assert!(job["tasks"]["done"].as_u64().unwrap() > 0, "{job:#}");
    let (_, stats) = cluster.proxy.get("/migrate/stats?circle_id=0&type=rebalance").unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    for (_, counters) in stats.as_object().unwrap() {
        assert_eq!(counters["measurement_total"], counters["measurement_done"], "{stats}");
    }
    traffic.stop();
    cluster.check(false);
    let traffic = cluster.traffic(100_000, true);
    cluster.complete("/clear?circle_id=0", "");
    traffic.stop();
    at_rest(&cluster.proxy);
    cluster.check(true);
}

#[test]
fn a_rebalance_of_the_only_circle_is_paused_goes_on_and_is_cleared_without_a_hole() {
    let mut cluster = Cluster::start(&[2]);
    cluster.fill(0..3000);
    cluster.restart_with_one_more();
    let traffic = cluster.traffic(10_000, true);
    let id = cluster.begin("/rebalance?circle_id=0&operation=add&rate=20000", "");
    let bytes = || job(&cluster.proxy, id)["bytes"].as_u64().unwrap();
    assert!(eventually(Duration::from_secs(60), || bytes() > 0), "{:#}", job(&cluster.proxy, id));
    let steer = |what: &str| post(&cluster.proxy, &format!("/migrate/jobs/{id}/{what}"), "");
    assert_eq!(steer("pause"), (202, "accepted\n".to_owned()));
    assert!(eventually(Duration::from_secs(10), || job(&cluster.proxy, id)["state"] == "paused"));
    // What is under way is finished first.
    thread::sleep(Duration::from_millis(500));
    let paused_at = bytes();
    thread::sleep(Duration::from_millis(1500));
    let paused = job(&cluster.proxy, id);
    assert_eq!((&paused["state"], bytes()), (&json!("paused"), paused_at), "{paused:#}");
    assert_ne!(paused["percent"], 100.0, "{paused:#}");
    assert_eq!(steer("resume"), (202, "accepted\n".to_owned()));
    let ended = cluster.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}\n{}", cluster.proxy.stderr());
    at_rest(&cluster.proxy);
    let ended = cluster.wait(cluster.begin("/clear?circle_id=0", ""));
    assert_eq!(ended["state"], "done", "{ended:#}");
    traffic.stop();
    cluster.check(true);
}

#[test]
fn a_backend_that_was_removed_and_is_named_in_the_body_gives_all_it_has() {
    let mut cluster = Cluster::start(&[3, 1]);
    cluster.fill(0..3000);
    let gone = cluster.servers[0].pop().unwrap();
    cluster.restart_with(&urls(&cluster.servers));
    let traffic = cluster.traffic(10_000, true);
    let body = json!({"backends": [{"name": "influxdb-1-3", "url": gone.url(), "username": "", "password": ""}]});
    cluster.complete("/rebalance?circle_id=0&operation=rm", &body.to_string());
    traffic.stop();
    cluster.check(false);
    assert!(gone.query(DB, "SHOW MEASUREMENTS").unwrap().to_string().contains("\"m"), "nothing is taken away");
}

//! Promise: when a backend that is to be emptied is dead, the migration reports an error with its name and what to do,
//! and moves what the others have. Other circles answer queries for the lost points until these are back.

use std::time::Duration;

use fluxgate::lab::proxy::eventually;
use serde_json::json;

use crate::cluster::{Cluster, at_rest, backends_of, restart_changed, urls};

#[test]
fn what_a_dead_backend_held_comes_from_another_circle() {
    let mut cluster = Cluster::start(&[3, 2]);
    cluster.fill(0..3000);
    let mut gone = cluster.servers[0].remove(0);
    gone.kill();
    cluster.restart_with(&urls(&cluster.servers));
    let traffic = cluster.traffic(10_000, true);
    let body = json!({"backends": [{"name": "influxdb-1-1", "url": gone.url(), "username": "", "password": ""}]});
    let job = cluster.wait(cluster.begin("/rebalance?circle_id=0&operation=rm", &body.to_string()));
    assert_eq!(job["state"], "failed", "{job:#}");
    let errors = job["errors"].as_array().unwrap();
    let error = errors[0].as_str().unwrap();
    assert_eq!(errors.len(), 1, "{job:#}");
    for word in ["influxdb-1-1", &gone.url(), "a recovery of circle 0 from another one", "`operation=add`"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    // The points of the other backends were moved.
    let tasks = &job["tasks"];
    assert!(tasks["done"].as_u64().unwrap() > 0 && tasks["done"] == tasks["total"], "{job:#}");

    cluster.complete("/recovery?from_circle_id=1&to_circle_id=0", "");
    cluster.complete("/rebalance?circle_id=0&operation=add", "");
    traffic.stop();
    at_rest(&cluster.proxy);
    cluster.check(false);
}

#[test]
fn a_leaving_backend_that_is_dead_in_the_only_circle_has_to_come_back() {
    let mut cluster = Cluster::start(&[3]);
    cluster.fill(0..600);
    restart_changed(&mut cluster.proxy, |file| backends_of(file, 0)[2]["leaving"] = json!(true));
    cluster.servers[0][2].kill();
    let rm = "/rebalance?circle_id=0&operation=rm";
    let job = cluster.wait(cluster.begin(rm, ""));
    assert_eq!(job["state"], "failed", "{job:#}");
    let error = job["errors"][0].as_str().unwrap();
    assert!(error.contains("influxdb-1-3") && error.contains("no other circle"), "{error}");
    cluster.servers[0][2].restart().unwrap();
    let up = || cluster.proxy.health().is_ok_and(|circles| circles[0].backends[2].active);
    assert!(eventually(Duration::from_secs(20), up));
    let traffic = cluster.traffic(10_000, true);
    cluster.complete(rm, "");
    traffic.stop();
    at_rest(&cluster.proxy);
    cluster.check(false);
}

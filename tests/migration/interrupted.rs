//! Promise: a migration that was interrupted, by `kill -9` of the proxy or of a server, goes on by itself.

use std::thread;
use std::time::Duration;

use fluxgate::lab::proxy::eventually;

use crate::cluster::{Cluster, job};

#[test]
fn a_rebalance_goes_on_after_kill_nine() {
    let mut cluster = Cluster::start(&[2, 1]);
    cluster.fill(0..6000);
    cluster.restart_with_one_more();
    let traffic = cluster.traffic(10_000, false);
    let id = cluster.begin("/rebalance?circle_id=0&operation=add&rate=20000", "");
    let begun = || job(&cluster.proxy, id)["bytes"].as_u64().unwrap() > 0;
    assert!(eventually(Duration::from_secs(60), begun), "{:#}", job(&cluster.proxy, id));
    cluster.proxy.restart().unwrap();
    assert_eq!(job(&cluster.proxy, id)["state"], "running");
    let job = cluster.wait(id);
    assert_eq!(job["state"], "done", "{job:#}\n{}", cluster.proxy.stderr());
    traffic.stop();
    cluster.check(false);
}

#[test]
fn a_destination_that_ends_in_the_middle_and_comes_back_gets_everything() {
    let mut cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..6000);
    cluster.servers[1][0].query("", "DROP DATABASE db").unwrap();
    let traffic = cluster.traffic(10_000, false);
    let id = cluster.begin("/recovery?from_circle_id=0&to_circle_id=1&rate=150000", "");
    assert!(eventually(Duration::from_secs(60), || job(&cluster.proxy, id)["bytes"].as_u64().unwrap() > 0));
    cluster.servers[1][0].kill();
    thread::sleep(Duration::from_secs(1));
    cluster.servers[1][0].restart().unwrap();
    let job = cluster.wait(id);
    assert_eq!(job["state"], "done", "{job:#}");
    traffic.stop();
    cluster.check(true);
}

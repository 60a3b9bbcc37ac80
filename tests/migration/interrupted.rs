//! Promise: a migration that was interrupted, by `kill -9` of the proxy or the end of a server, goes on by itself.

use std::thread;
use std::time::Duration;

use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::eventually;

use crate::house::{house, job, urls};

#[test]
fn a_rebalance_goes_on_after_kill_nine() {
    let Some(mut house) = house(&[2, 1]) else { return };
    house.fill(0..6000);
    house.servers[0].push(Influxd::start().unwrap());
    house.restart_with(&urls(&house.servers));
    let traffic = house.traffic(10_000, false);
    let id = house.begin("/rebalance?circle_id=0&operation=add&rate=20000", "");
    let begun = || job(&house.proxy, id)["bytes"].as_u64().unwrap() > 0;
    assert!(eventually(Duration::from_secs(60), begun), "{:#}", job(&house.proxy, id));
    house.proxy.restart().unwrap();
    assert_eq!(job(&house.proxy, id)["state"], "running");
    let job = house.wait(id);
    assert_eq!(job["state"], "done", "{job:#}\n{}", house.proxy.stderr());
    traffic.stop();
    house.check(false);
}

#[test]
fn a_destination_that_ends_in_the_middle_and_comes_back_gets_everything() {
    let Some(mut house) = house(&[1, 1]) else { return };
    house.fill(0..6000);
    house.servers[1][0].query("", "DROP DATABASE db").unwrap();
    let traffic = house.traffic(10_000, false);
    let id = house.begin("/recovery?from_circle_id=0&to_circle_id=1&rate=150000", "");
    assert!(eventually(Duration::from_secs(60), || job(&house.proxy, id)["bytes"].as_u64().unwrap() > 0));
    house.servers[1][0].kill();
    thread::sleep(Duration::from_secs(1));
    house.servers[1][0].restart().unwrap();
    let job = house.wait(id);
    assert_eq!(job["state"], "done", "{job:#}");
    traffic.stop();
    house.check(true);
}

//! Promise: after backends have come or gone a rebalance brings everything to where the ring says, and meanwhile all is seen.

use fluxgate::influxd::Influxd;
use serde_json::json;

use crate::house::{DB, house, urls};

#[test]
fn a_backend_that_is_added_gets_its_part() {
    let Some(mut house) = house(&[2, 1]) else { return };
    house.fill(0..3000);
    house.servers[0].push(Influxd::start().unwrap());
    house.restart_with(&urls(&house.servers));
    let traffic = house.traffic(10_000, true);
    let job = house.wait(house.begin("/rebalance?circle_id=0&operation=add&cpus=2", ""));
    assert_eq!(job["state"], "done", "{job:#}\n{}", house.proxy.stderr());
    assert!(job["tasks"]["done"].as_u64().unwrap() > 0, "{job:#}");
    let (_, stats) = house.proxy.get("/migrate/stats?circle_id=0&type=rebalance").unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    for (_, counters) in stats.as_object().unwrap() {
        assert_eq!(counters["measurement_total"], counters["measurement_done"], "{stats}");
    }
    traffic.stop();
    house.check(false);
    let job = house.wait(house.begin("/clear?circle_id=0", ""));
    assert_eq!(job["state"], "done", "{job:#}");
    house.check(true);
    let (_, state) = house.proxy.get("/migrate/state").unwrap();
    assert!(!state.contains("true"), "{state}");
}

#[test]
fn a_backend_that_was_removed_and_is_named_in_the_body_gives_all_it_has() {
    let Some(mut house) = house(&[3, 1]) else { return };
    house.fill(0..3000);
    let gone = house.servers[0].pop().unwrap();
    house.restart_with(&urls(&house.servers));
    let traffic = house.traffic(10_000, false);
    let body = json!({"backends": [{"name": "influxdb-1-3", "url": gone.url(), "username": "", "password": ""}]});
    let job = house.wait(house.begin("/rebalance?circle_id=0&operation=rm", &body.to_string()));
    assert_eq!(job["state"], "done", "{job:#}\n{}", house.proxy.stderr());
    traffic.stop();
    house.check(false);
    assert!(gone.query(DB, "SHOW MEASUREMENTS").unwrap().to_string().contains("\"m"), "nothing is taken away");
}

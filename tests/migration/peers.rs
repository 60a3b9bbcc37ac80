//! Promise: proxies that are named in `ha_addrs` know of each other's migrations and stay out of their way.

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::eventually;

use crate::house::{DB, Traffic, at_rest, begin, config, drained, house, job, post, restart_with, traffic, urls, wait};

#[test]
fn two_proxies_do_not_migrate_one_circle_at_a_time() {
    let Some(house) = house(&[1, 1]) else { return };
    house.fill(0..3000);
    let other = crate::support::start(&config(&urls(&house.servers)));
    let addrs = format!("ha_addrs={},{}", house.proxy.addr(), other.addr());
    let id = house.begin(&format!("/recovery?from_circle_id=0&to_circle_id=1&rate=5000&{addrs}"), "");
    let shows = |migrating: bool| {
        let want = format!(r#""circle_id":1,"circle_name":"circle-2","is_migrating":{migrating}"#);
        eventually(Duration::from_secs(20), || other.get("/migrate/state").unwrap().1.contains(&want))
    };
    assert!(shows(true), "{:#}", job(&house.proxy, id));
    for target in ["/recovery?from_circle_id=0&to_circle_id=1", "/clear?circle_id=1"] {
        let reply = Client::connect(other.addr()).unwrap().request("POST", target, &[], b"").unwrap();
        assert!(reply.status == 202 && reply.text().ends_with(" is migrating\n"), "{}", reply.text());
    }
    let delete = format!("/migrate/jobs/{id}");
    let reply = Client::connect(house.proxy.addr()).unwrap().request("DELETE", &delete, &[], b"").unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(wait(&house.proxy, id)["state"], "cancelled");
    assert!(shows(false));
    let id = begin(&other, &format!("/resync?{addrs}"), "");
    assert_eq!(wait(&other, id)["state"], "done");
    house.check(true);
}

/// Two proxies, a backend more, writes and queries through both; in the middle of the migration one is killed and comes back.
fn one_is_killed(other_one: bool) {
    let Some(mut house) = house(&[2, 1]) else { return };
    house.fill(0..3000);
    let mut other = crate::support::start(&config(&urls(&house.servers)));
    house.servers[0].push(Influxd::start().unwrap());
    house.restart_with(&urls(&house.servers));
    restart_with(&mut other, &urls(&house.servers));
    let through = [house.traffic(10_000, true), traffic(&other, &house.acked, 100_000, true)];
    let addrs = format!("ha_addrs={},{}", house.proxy.addr(), other.addr());
    let id = house.begin(&format!("/rebalance?circle_id=0&operation=add&rate=20000&{addrs}"), "");
    let begun = || job(&house.proxy, id)["bytes"].as_u64().unwrap() > 0;
    assert!(eventually(Duration::from_secs(60), begun), "{:#}", job(&house.proxy, id));
    let killed = if other_one { &mut other } else { &mut house.proxy };
    killed.kill();
    std::thread::sleep(Duration::from_secs(1));
    killed.restart().unwrap();
    let running = job(&house.proxy, id);
    assert_eq!(running["state"], "running", "{running:#}");
    let ended = house.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}\n{}", house.proxy.stderr());
    [&house.proxy, &other].into_iter().for_each(at_rest);
    through.into_iter().for_each(Traffic::stop_after_restart);
    drained(&other);
    house.check(false);
    let ended = wait(&other, begin(&other, &format!("/clear?circle_id=0&{addrs}"), ""));
    assert_eq!(ended["state"], "done", "{ended:#}");
    house.check(true);
}

#[test]
fn a_rebalance_ends_at_both_when_the_other_proxy_is_killed_in_the_middle() {
    one_is_killed(true);
}

#[test]
fn a_rebalance_ends_at_both_when_the_proxy_that_runs_it_is_killed_in_the_middle() {
    one_is_killed(false);
}

#[test]
fn a_proxy_that_was_started_again_hears_of_the_migration_and_its_queries_see_no_hole() {
    let Some(house) = house(&[1, 1]) else { return };
    house.fill(0..3000);
    let mut other = crate::support::start(&config(&urls(&house.servers)));
    house.servers[1][0].query("", &format!("DROP DATABASE {DB}")).unwrap();
    let addrs = format!("ha_addrs={},{}", house.proxy.addr(), other.addr());
    let id = house.begin(&format!("/recovery?from_circle_id=0&to_circle_id=1&rate=20000&{addrs}"), "");
    assert!(eventually(Duration::from_secs(60), || job(&house.proxy, id)["bytes"].as_u64().unwrap() > 0));
    other.kill();
    other.restart().unwrap();
    let shows = || {
        other.get("/migrate/state").unwrap().1.contains(r#""circle_id":1,"circle_name":"circle-2","is_migrating":true"#)
    };
    assert!(eventually(Duration::from_secs(20), shows), "{:#}", job(&house.proxy, id));
    let through = traffic(&other, &house.acked, 10_000, true);
    let ended = house.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}");
    through.stop();
    [&house.proxy, &other].into_iter().for_each(at_rest);
    drained(&other);
    house.check(true);
}

#[test]
fn who_has_said_that_it_knows_of_the_end_knows_it_after_kill_nine() {
    let Some(mut house) = house(&[2]) else { return };
    house.fill(0..100);
    house.servers[0].push(Influxd::start().unwrap());
    house.restart_with(&urls(&house.servers));
    let (status, _) = post(&house.proxy, "/migrate/state?circle_id=0&migrating=false&moved=true", "");
    house.proxy.kill();
    house.proxy.restart().unwrap();
    assert_eq!(status, 200);
    at_rest(&house.proxy);
}

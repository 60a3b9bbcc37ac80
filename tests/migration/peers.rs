//! Promise: proxies that are named in `ha_addrs` know of each other's migrations and do not disturb them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::eventually;

use crate::cluster::{
    Cluster, DB, Traffic, at_rest, begin, config, drained, job, post, restart_with, traffic, urls, wait,
};

#[test]
fn two_proxies_do_not_migrate_one_circle_at_a_time() {
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..3000);
    let other = crate::support::start(&config(&urls(&cluster.servers)));
    let addrs = format!("ha_addrs={},{}", cluster.proxy.addr(), other.addr());
    let id = cluster.begin(&format!("/recovery?from_circle_id=0&to_circle_id=1&rate=5000&{addrs}"), "");
    let shows = |migrating: bool| {
        let want = format!(r#""circle_id":1,"circle_name":"circle-2","is_migrating":{migrating}"#);
        eventually(Duration::from_secs(20), || other.get("/migrate/state").unwrap().1.contains(&want))
    };
    assert!(shows(true), "{:#}", job(&cluster.proxy, id));
    for target in ["/recovery?from_circle_id=0&to_circle_id=1", "/clear?circle_id=1"] {
        let reply = Client::connect(other.addr()).unwrap().request("POST", target, &[], b"").unwrap();
        assert!(reply.status == 202 && reply.text().ends_with(" is migrating\n"), "{}", reply.text());
    }
    let delete = format!("/migrate/jobs/{id}");
    let reply = Client::connect(cluster.proxy.addr()).unwrap().request("DELETE", &delete, &[], b"").unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(wait(&cluster.proxy, id)["state"], "cancelled");
    assert!(shows(false));
    let id = begin(&other, &format!("/resync?{addrs}"), "");
    assert_eq!(wait(&other, id)["state"], "done");
    cluster.check(true);
}

/// For so long it has something in a cache file: longer than what it has in memory is waited for.
const CACHED: Duration = Duration::from_secs(16);

/// An influx-proxy 2.5: no `/migrate/state`, and at first something in a cache file. Its `/health` fails always, or
/// once it is told of the end. Its requests come out.
fn influx_proxy(has_health: bool) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (tell, told) = channel();
    let (begun, mut is_resyncing, mut is_over) = (Instant::now(), false, !has_health);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 4096];
            let n = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..n]).split(" HTTP").next().unwrap().to_owned();
            is_over |= request.ends_with("resyncing=false");
            is_resyncing = (is_resyncing || request.ends_with("resyncing=true")) && !request.ends_with("=false");
            let circles = r#"[{"id":0,"name":"c","transferring":false}]"#;
            let state = format!(r#"{{"circles":{circles},"resyncing":{is_resyncing}}}"#);
            let backlog = begun.elapsed() < CACHED;
            let backend = format!(r#"{{"backlog":{backlog},"rewriting":false}}"#);
            let (status, body) = match request.split_once('/').map_or("", |(_, target)| target) {
                "health" if is_over => ("500 Internal Server Error", String::new()),
                "health" => {
                    ("200 OK", format!(r#"{{"circles":[{{"backends":[{backend}]}},{{"backends":[{backend}]}}]}}"#))
                }
                target if target.starts_with("transfer/state") => ("200 OK", state),
                _ => ("404 Not Found", "404 page not found\n".to_owned()),
            };
            let length = body.len();
            _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            if tell.send(request).is_err() {
                return;
            }
        }
    });
    (addr, told)
}

#[test]
fn an_influx_proxy_2_5_is_told_and_its_cached_points_are_waited_for() {
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..300);
    let begun = Instant::now();
    let (addr, told) = influx_proxy(true);
    let id = cluster.begin(&format!("/resync?ha_addrs={},{addr}", cluster.proxy.addr()), "");
    let ended = cluster.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}\n{}", cluster.proxy.stderr());
    assert!(begun.elapsed() >= CACHED, "it ended after {:?}", begun.elapsed());
    let told: Vec<_> = told.try_iter().collect();
    for request in ["POST /transfer/state?resyncing=true", "GET /health", "POST /transfer/state?resyncing=false"] {
        assert!(told.iter().any(|told| told == request), "{request}: {told:?}");
    }
    let log = cluster.proxy.stderr();
    assert!(log.contains("is an influx-proxy 2.5, which does not say which points it has in memory"), "{log}");
    cluster.check(true);
}

#[test]
fn an_influx_proxy_2_5_that_was_told_and_does_not_say_what_it_holds_is_told_of_a_cancel() {
    let cluster = Cluster::start(&[1, 1]);
    let (addr, told) = influx_proxy(false);
    let id = cluster.begin(&format!("/resync?ha_addrs={},{addr}", cluster.proxy.addr()), "");
    // After the first time it says itself that a resync goes on.
    for _ in 0..2 {
        while told.recv_timeout(Duration::from_secs(20)).expect("it is asked again") != "GET /health" {}
    }
    let running = job(&cluster.proxy, id);
    assert_eq!(running["state"], "running", "{running:#}");
    let delete = format!("/migrate/jobs/{id}");
    let reply = Client::connect(cluster.proxy.addr()).unwrap().request("DELETE", &delete, &[], b"").unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(cluster.wait(id)["state"], "cancelled");
    let told: Vec<_> = told.try_iter().collect();
    assert!(told.iter().any(|told| told == "POST /transfer/state?resyncing=false"), "{told:?}");
}

/// Two proxies, one new backend, writes and queries through both. In the middle of the migration one proxy is killed
/// and started again.
fn one_is_killed(other_one: bool) {
    let mut cluster = Cluster::start(&[2, 1]);
    cluster.fill(0..3000);
    let mut other = crate::support::start(&config(&urls(&cluster.servers)));
    cluster.restart_with_one_more();
    restart_with(&mut other, &urls(&cluster.servers));
    let through = [cluster.traffic(10_000, true), traffic(&other, &cluster.acked, 100_000, true)];
    let addrs = format!("ha_addrs={},{}", cluster.proxy.addr(), other.addr());
    let id = cluster.begin(&format!("/rebalance?circle_id=0&operation=add&rate=20000&{addrs}"), "");
    let begun = || job(&cluster.proxy, id)["bytes"].as_u64().unwrap() > 0;
    assert!(eventually(Duration::from_secs(60), begun), "{:#}", job(&cluster.proxy, id));
    let killed = if other_one { &mut other } else { &mut cluster.proxy };
    killed.kill();
    std::thread::sleep(Duration::from_secs(1));
    killed.restart().unwrap();
    let running = job(&cluster.proxy, id);
    assert_eq!(running["state"], "running", "{running:#}");
    let ended = cluster.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}\n{}", cluster.proxy.stderr());
    [&cluster.proxy, &other].into_iter().for_each(at_rest);
    through.into_iter().for_each(Traffic::stop_after_restart);
    drained(&other);
    cluster.check(false);
    let ended = wait(&other, begin(&other, &format!("/clear?circle_id=0&{addrs}"), ""));
    assert_eq!(ended["state"], "done", "{ended:#}");
    cluster.check(true);
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
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..3000);
    let mut other = crate::support::start(&config(&urls(&cluster.servers)));
    cluster.servers[1][0].query("", &format!("DROP DATABASE {DB}")).unwrap();
    let addrs = format!("ha_addrs={},{}", cluster.proxy.addr(), other.addr());
    let id = cluster.begin(&format!("/recovery?from_circle_id=0&to_circle_id=1&rate=20000&{addrs}"), "");
    assert!(eventually(Duration::from_secs(60), || job(&cluster.proxy, id)["bytes"].as_u64().unwrap() > 0));
    other.kill();
    other.restart().unwrap();
    let shows = || {
        other.get("/migrate/state").unwrap().1.contains(r#""circle_id":1,"circle_name":"circle-2","is_migrating":true"#)
    };
    assert!(eventually(Duration::from_secs(20), shows), "{:#}", job(&cluster.proxy, id));
    let through = traffic(&other, &cluster.acked, 10_000, true);
    let ended = cluster.wait(id);
    assert_eq!(ended["state"], "done", "{ended:#}");
    through.stop();
    [&cluster.proxy, &other].into_iter().for_each(at_rest);
    drained(&other);
    cluster.check(true);
}

#[test]
fn who_has_said_that_it_knows_of_the_end_knows_it_after_kill_nine() {
    let mut cluster = Cluster::start(&[2]);
    cluster.fill(0..100);
    cluster.restart_with_one_more();
    let (status, _) = post(&cluster.proxy, "/migrate/state?circle_id=0&migrating=false&moved=true", "");
    cluster.proxy.kill();
    cluster.proxy.restart().unwrap();
    assert_eq!(status, 200);
    at_rest(&cluster.proxy);
}

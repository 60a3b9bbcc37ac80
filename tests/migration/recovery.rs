//! Promise: a circle that lost everything, or a part, gets it back from another one.

use std::time::{SystemTime, UNIX_EPOCH};

use std::time::Duration;

use crate::cluster::{Cluster, DB, drained, points, restart_changed, write_to};
use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::eventually;

#[test]
fn a_wiped_backend_is_recovered_under_writes_and_no_query_sees_that_it_was_wiped() {
    let cluster = Cluster::start(&[2, 2]);
    cluster.fill(0..3000);
    cluster.servers[1][0].query("", &format!("DROP DATABASE {DB}")).unwrap();
    let url = cluster.servers[1][0].url();
    let id = cluster.begin(&format!("/recovery?from_circle_id=0&to_circle_id=1&rate=20000&backend_urls={url}"), "");
    let traffic = cluster.traffic(10_000, true);
    let job = cluster.wait(id);
    assert_eq!(job["state"], "done", "{job:#}");
    traffic.stop();
    cluster.check(true);
}

/// A client writes a wrong type, and the first circle refuses it. A backend that comes back empty, before that or after
/// it, must not learn the wrong type.
#[test]
fn a_backend_that_comes_back_empty_learns_no_wrong_type() {
    for (workers, is_back, kill) in
        [(1, true, false), (2, true, false), (1, false, false), (2, false, false), (2, false, true)]
    {
        let mut cluster = Cluster::start(&[1, 1]);
        restart_changed(&mut cluster.proxy, |file| file["workers"] = workers.into());
        let write = |cluster: &Cluster, lines: &str| {
            let reply = Client::connect(cluster.proxy.addr()).unwrap().write(DB, lines).unwrap();
            assert_eq!(reply.status, 204, "{}", reply.text());
        };
        let line = |n: u64| format!("m0,host=h0 n={n}i {n}\n");
        (1..50).for_each(|n| write(&cluster, &line(n)));
        drained(&cluster.proxy);
        match is_back {
            true => cluster.servers[1][0].lose_data().unwrap(),
            false => cluster.servers[1][0].kill(),
        }
        write(&cluster, &format!("m0,host=h0 n=\"oops\" 900\n{}", line(50)));
        (51..60).for_each(|n| write(&cluster, &line(n)));
        write(&cluster, "m0,host=h0 n=1.5 901\n");
        let first = |cluster: &Cluster| points(&cluster.servers[0][0], "m0").len();
        assert!(eventually(Duration::from_secs(10), || first(&cluster) == 59));
        // What has been refused is saved within a second.
        std::thread::sleep(Duration::from_millis(2_500));
        if kill {
            cluster.proxy.kill();
            cluster.proxy.restart().unwrap();
        }
        if !is_back {
            cluster.servers[1][0].lose_data().unwrap();
        }
        drained(&cluster.proxy);
        let totals = cluster.proxy.ledger().unwrap().totals;
        assert_eq!((totals.rejected, totals.queued), (4, 0), "two lines, by both circles: {totals:?}");
        assert_eq!(
            points(&cluster.servers[1][0], "m0").len(),
            10,
            "{workers} workers, back before: {is_back}, kill -9: {kill}"
        );
        cluster.complete("/recovery?from_circle_id=0&to_circle_id=1", "");
        let [one, other] = [0, 1].map(|circle: usize| points(&cluster.servers[circle][0], "m0"));
        assert_eq!((one.len(), &one), (59, &other));
    }
}

#[test]
fn a_resync_brings_what_each_circle_lacks_and_with_seconds_only_what_is_new() {
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..100);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let lines = |n: u64| format!("m0,host=h0 n={n}i {}\nm0,host=h0 n={n}i {}", now - n, now - 7_200_000_000_000 - n);
    for (circle, n) in [(0, 500_000), (1, 600_000)] {
        write_to(&cluster.servers[circle][0], &lines(n));
    }
    cluster.complete("/resync?seconds=3600", "");
    let [a, b] = [0, 1].map(|circle| points(&cluster.servers[circle][0], "m0"));
    let both = |n: u64| a.contains(&(now - n, n)) && b.contains(&(now - n, n));
    assert!(both(500_000) && both(600_000));
    assert_ne!(a, b, "what is older stays");
    cluster.complete("/resync", "");
    let [a, b] = [0, 1].map(|circle| points(&cluster.servers[circle][0], "m0"));
    assert_eq!(a, b);
}

#[test]
fn a_resync_of_all_circles_under_writes_and_queries_makes_no_hole() {
    let cluster = Cluster::start(&[2, 1]);
    cluster.fill(0..3000);
    let traffic = cluster.traffic(10_000, true);
    cluster.complete("/resync?rate=1000000", "");
    traffic.stop();
    cluster.check(true);
}

#[test]
fn a_recovery_waits_for_a_circle_that_is_down_and_keeps_others_off() {
    let mut cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..100);
    cluster.servers[1][0].kill();
    let id = cluster.begin("/recovery?from_circle_id=0&to_circle_id=1", "");
    let (_, state) = cluster.proxy.get("/migrate/state").unwrap();
    assert!(state.contains(r#""circle_id":1,"circle_name":"circle-2","is_migrating":true"#), "{state}");
    let mut client = fluxgate::lab::client::Client::connect(cluster.proxy.addr()).unwrap();
    let reply = client.request("POST", "/resync", &[], b"").unwrap();
    assert_eq!((reply.status, &reply.text()[..]), (202, "circle 1 is migrating\n"));
    cluster.servers[1][0].restart().unwrap();
    let job = cluster.wait(id);
    assert_eq!(job["state"], "done", "it came back in time: {job:#}");
    cluster.check(true);
}

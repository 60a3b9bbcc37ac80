//! Promise: a clear removes points from servers that do not own them, and only points that the owner has, when no query
//! can be reading them there any more.

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::eventually;

use crate::cluster::{Cluster, DB, MEASUREMENTS, job, points, restart_changed, write_to};

#[test]
fn only_what_the_right_place_has_is_removed() {
    let cluster = Cluster::start(&[2]);
    cluster.fill(0..600);
    // Copies on the wrong server; of one measurement with a point that its owner does not have.
    let [a, b] = &cluster.servers[0][..] else { panic!("two servers") };
    let (mut safe, mut more) = (None, None);
    for name in (0..12).map(|n| format!("m{n}")) {
        let (wrong, rows) = match (points(a, &name), points(b, &name)) {
            (rows, none) if none.is_empty() => (b, rows),
            (_, rows) => (a, rows),
        };
        let mut lines: String =
            rows.iter().map(|(time, n)| format!("{name},host=h{} n={n}i {time}\n", n % 3)).collect();
        if more.is_none() {
            lines += &format!("{name},host=h0 n=7i 42\n");
            more = Some((name, wrong));
        } else {
            safe = Some((name, wrong));
        }
        write_to(wrong, &lines);
    }
    let (safe, more) = (safe.unwrap(), more.unwrap());
    let job = cluster.wait(cluster.begin("/clear?circle_id=0", ""));
    assert_eq!(job["state"], "failed", "{job:#}");
    assert!(job["errors"][0].as_str().unwrap().contains(&more.0), "{job:#}");
    assert!(points(safe.1, &safe.0).is_empty());
    assert!(points(more.1, &more.0).contains(&(42, 7)));
    cluster.check(false);
}

/// A clear that waited for `query_timeout` would not end in the time that tests wait for it.
#[test]
fn a_clear_waits_for_a_query_from_before_the_end_of_the_rebalance_and_for_no_other() {
    let mut cluster = Cluster::start(&[1]);
    cluster.fill(0..600);
    // More than what lies in buffers on the way.
    for part in 0..12 {
        let line = |n: u64| format!("large n=1i,s=\"{}\" {}\n", "x".repeat(1000), part * 4000 + n);
        write_to(&cluster.servers[0][0], &(0..4000).map(line).collect::<String>());
    }
    restart_changed(&mut cluster.proxy, |file| file["query_timeout"] = 3600.into());
    cluster.restart_with_one_more();
    let ask = || {
        let mut client = Client::connect(cluster.proxy.addr()).unwrap();
        let target = format!("/query?db={DB}&q=SELECT+*+FROM+large");
        client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        // It reads the head, and no more.
        assert!(client.peek(Duration::from_secs(30)).unwrap().starts_with(b"HTTP/1.1 200"));
        client
    };
    let before = ask();
    cluster.complete("/rebalance?circle_id=0&operation=add", "");
    let _after = ask();
    let anywhere = || -> usize {
        let names = (0..MEASUREMENTS).map(|n| format!("m{n}"));
        names.map(|name| cluster.servers[0].iter().filter(|server| !points(server, &name).is_empty()).count()).sum()
    };
    let copies = anywhere();
    assert!(copies > MEASUREMENTS as usize, "nothing has moved");
    let id = cluster.begin("/clear?circle_id=0", "");
    let waits = || job(&cluster.proxy, id)["doing"].as_str().unwrap().starts_with("waiting for the end of queries");
    assert!(eventually(Duration::from_secs(30), waits), "{:#}", job(&cluster.proxy, id));
    assert_eq!(anywhere(), copies);
    drop(before);
    let ended = cluster.wait(id);
    assert_eq!((&ended["state"], anywhere()), (&"done".into(), MEASUREMENTS as usize), "{ended:#}");
}

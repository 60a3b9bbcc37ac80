//! Promise: after a migration both circles have the same points, but for those that are so old that the target refuses
//! them; the job says how many these are.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::{Cluster, DB, points, write_to};
use fluxgate::lab::influxd::Influxd;

const MINUTE_NS: u64 = 60_000_000_000;

/// Points of a measurement as (time, value): some older than an hour, some newer, none near an hour.
fn some_points(random: &mut impl FnMut(u64) -> u64, now: u64) -> BTreeSet<(u64, u64)> {
    let old = |random: &mut dyn FnMut(u64) -> u64| now - (70 + random(200)) * MINUTE_NS;
    let new = |random: &mut dyn FnMut(u64) -> u64| now - random(50) * MINUTE_NS;
    let times: BTreeSet<_> = (0..random(12)).map(|n| if n % 3 == 0 { new(random) } else { old(random) }).collect();
    times.into_iter().map(|time| (time, random(3))).collect()
}

#[test]
fn what_is_left_out_because_of_its_age_is_counted_exactly() {
    let cluster = Cluster::start(&[1, 1]);
    let [a, b] = [0, 1].map(|circle: usize| &cluster.servers[circle][0]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed: u64 = std::env::var("EXPIRED_SEED").map_or(now, |text| text.parse().unwrap());
    println!("EXPIRED_SEED={seed}");
    let mut state = seed | 1;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let names: Vec<String> = (0..30).map(|n| format!("m{n}")).collect();
    for name in &names {
        let at_a = some_points(&mut random, now);
        // Some points of the source, with the same value or another one, and some of its own.
        let mut at_b = some_points(&mut random, now);
        for (time, value) in &at_a {
            if random(2) == 0 {
                at_b.insert((*time, value + random(4) / 3));
            }
        }
        for (server, points) in [(a, at_a), (b, at_b)] {
            let lines: Vec<_> = points.iter().map(|(time, n)| format!("{name} n={n}i {time}")).collect();
            if !lines.is_empty() {
                write_to(server, &lines.join("\n"));
            }
        }
    }
    // The points lie in shards of a week. These keep their length, so InfluxDB does not drop their old points yet.
    let shorten = |server: &Influxd| {
        let alter = format!("ALTER RETENTION POLICY autogen ON {DB} DURATION 1h SHARD DURATION 1h");
        server.query("", &alter).unwrap();
    };
    shorten(a);
    let job = cluster.complete("/recovery?from_circle_id=0&to_circle_id=1", "");
    let mut left_out = 0;
    for name in &names {
        let (at_a, at_b) = (points(a, name), points(b, name));
        let differ: Vec<_> = at_a.difference(&at_b).collect();
        assert!(differ.iter().all(|(time, _)| *time < now - 60 * MINUTE_NS), "{name} lacks new points: {differ:?}");
        let shown = job["measurements"].as_array().unwrap().iter().find(|shown| shown["measurement"] == **name);
        let counted = shown.map_or(0, |shown| shown["rows_expired"].as_u64().unwrap());
        assert_eq!(counted, differ.len() as u64, "{name}: {differ:?}");
        left_out += counted;
    }
    assert!(left_out > 0, "the test tries nothing");
    assert_eq!(job["rows_expired"], left_out);
    let log = cluster.proxy.stderr();
    assert!(log.contains("points are left out, which influxdb-2-1 refuses"), "{log}");
    // Back to the first circle: what only the second one has, and is too old, is counted.
    let job = cluster.complete("/recovery?from_circle_id=1&to_circle_id=0", "");
    let differ: usize = names.iter().map(|name| points(b, name).difference(&points(a, name)).count()).sum();
    assert_eq!(job["rows_expired"], differ as u64);
}

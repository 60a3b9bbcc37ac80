//! Promise: a rebalance empties a backend that is marked as leaving, without being told its name. Afterwards the
//! backend can be removed, and no query misses a point.

use serde_json::json;

use crate::cluster::{Cluster, at_rest, backends_of, post, restart_changed};

/// Removes the first backend of the first circle, so that the positions of the others change, too.
fn goes(circles: &[usize]) {
    let mut cluster = Cluster::start(circles);
    cluster.fill(0..3000);
    let rm = "/rebalance?circle_id=0&operation=rm";
    assert_eq!(post(&cluster.proxy, rm, ""), (400, "invalid backends from body\n".to_owned()), "nobody is leaving");
    restart_changed(&mut cluster.proxy, |file| backends_of(file, 0)[0]["leaving"] = json!(true));
    let traffic = cluster.traffic(10_000, true);
    let job = cluster.complete(rm, "");
    assert!(job["tasks"]["done"].as_u64().unwrap() > 0, "{job:#}");
    traffic.stop();
    at_rest(&cluster.proxy);
    cluster.check(false);

    let traffic = cluster.traffic(100_000, true);
    restart_changed(&mut cluster.proxy, |file| _ = backends_of(file, 0).remove(0));
    let gone = cluster.servers[0].remove(0);
    at_rest(&cluster.proxy);
    drop(gone);
    traffic.stop_after_restart();
    cluster.check(false);
    cluster.complete("/clear?circle_id=0", "");
    cluster.check(true);
}

#[test]
fn a_leaving_backend_goes_without_a_hole() {
    goes(&[3, 2]);
}

#[test]
fn a_leaving_backend_of_the_only_circle_goes_without_a_hole() {
    goes(&[3]);
}

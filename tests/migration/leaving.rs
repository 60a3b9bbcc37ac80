//! Promise: a backend that is marked as leaving is emptied without being named, and may go without a query that sees a hole.

use serde_json::json;

use crate::house::{at_rest, backends_of, house, post, restart_changed};

/// The first one of the first circle, so that the others change their places, too.
fn goes(circles: &[usize]) {
    let Some(mut house) = house(circles) else { return };
    house.fill(0..3000);
    let rm = "/rebalance?circle_id=0&operation=rm";
    assert_eq!(post(&house.proxy, rm, ""), (400, "invalid backends from body\n".to_owned()), "nobody is leaving");
    restart_changed(&mut house.proxy, |file| backends_of(file, 0)[0]["leaving"] = json!(true));
    let traffic = house.traffic(10_000, true);
    let job = house.complete(rm, "");
    assert!(job["tasks"]["done"].as_u64().unwrap() > 0, "{job:#}");
    traffic.stop();
    at_rest(&house.proxy);
    house.check(false);

    let traffic = house.traffic(100_000, true);
    restart_changed(&mut house.proxy, |file| _ = backends_of(file, 0).remove(0));
    let gone = house.servers[0].remove(0);
    at_rest(&house.proxy);
    drop(gone);
    traffic.stop_after_restart();
    house.check(false);
    house.complete("/clear?circle_id=0", "");
    house.check(true);
}

#[test]
fn a_leaving_backend_goes_without_a_hole() {
    goes(&[3, 2]);
}

#[test]
fn a_leaving_backend_of_the_only_circle_goes_without_a_hole() {
    goes(&[3]);
}

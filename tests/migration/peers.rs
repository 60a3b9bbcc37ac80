//! Promise: proxies that are named in `ha_addrs` know of each other's migrations and stay out of their way.

use std::time::Duration;

use fluxgate::client::Client;
use fluxgate::proxy::eventually;

use crate::house::{begin, config, house, job, urls, wait};

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

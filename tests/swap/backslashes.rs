//! Measurements whose names have a backslash. influx-proxy leaves the backslash out when it chooses the backend of a
//! write, and keeps it when it looks for the data: such points lie where neither its queries nor `/health` expect them.
//! One rebalance brings them to their place, and a clear removes what it copied.

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use serde_json::Value;

use crate::support::start;

/// The backend of the one circle that holds a measurement.
fn owner(proxy: &Proxy, name: &str) -> String {
    let (status, text) = proxy.get(&format!("/replica?db=db&meas={}", url_encoded(name))).unwrap();
    assert_eq!(status, 200, "{text}");
    let places: Value = serde_json::from_str(&text).unwrap();
    places[0]["name"].as_str().unwrap().to_owned()
}

/// The number of measurements at a wrong place, over all backends.
fn misplaced(proxy: &Proxy) -> u64 {
    let health: Value = serde_json::from_str(&proxy.get("/health").unwrap().1).unwrap();
    let backends = health[0]["backends"].as_array().unwrap();
    backends.iter().map(|backend| backend["load"]["db"]["incorrect"].as_u64().unwrap_or(0)).sum()
}

#[test]
fn a_rebalance_and_a_clear_bring_names_with_backslashes_to_their_place() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    servers.iter().for_each(|server| server.create_database("db").unwrap());
    let proxy = start(&ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]));
    // influx-proxy chooses by the name without the backslash.
    let moves = |n: &u32| owner(&proxy, &format!("C:\\disk{n}")) != owner(&proxy, &format!("C:disk{n}"));
    let names: Vec<_> = (0..1000).filter(moves).take(5).map(|n| format!("C:\\disk{n}")).collect();
    assert_eq!(names.len(), 5);
    for name in &names {
        let at = usize::from(owner(&proxy, &name.replace('\\', "")) == "influxdb-1-2");
        let mut client = Client::connect(servers[at].addr()).unwrap();
        let line = format!("{name},host=a v=1i 1000\n");
        assert_eq!(client.request("POST", "/write?db=db", &[], line.as_bytes()).unwrap().status, 204);
    }
    let wait = Duration::from_secs(30);
    assert!(eventually(wait, || misplaced(&proxy) == 5), "{:?}", proxy.get("/health"));

    let mut client = Client::connect(proxy.addr()).unwrap();
    let mut migrate = |target: &str, end: &str| {
        let reply = client.request("POST", target, &[], b"").unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
        assert!(eventually(wait, || proxy.stderr().contains(end)), "{}", proxy.stderr());
    };
    migrate("/rebalance?circle_id=0&operation=add", "rebalance done");
    for name in &names {
        let query = format!("SELECT v FROM \"{}\"", name.replace('\\', "\\\\"));
        let (status, text) = proxy.get(&format!("/query?db=db&q={}", url_encoded(&query))).unwrap();
        assert!(status == 200 && text.contains("[[\"1970-01-01T00:00:00.000001Z\",1]]"), "{name}: {status} {text}");
    }
    // What was copied is still where it was.
    migrate("/clear?circle_id=0", "clear done");
    assert!(eventually(wait, || misplaced(&proxy) == 0), "{:?}", proxy.get("/health"));
}

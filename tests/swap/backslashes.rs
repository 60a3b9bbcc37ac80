//! Measurements whose names have a backslash. influx-proxy leaves the backslash out when it chooses the backend of a
//! write, and its migrations keep it. A swap finds such points at either place, and answers as one InfluxDB with all of
//! them would. A rebalance and a clear bring them to their place.

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::{self, Influxd};
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate_dataplane::placement::{Place, Placement, PlacementSettings};
use fluxgate_dataplane::topology::{Backend, Topology};
use serde_json::Value;

use crate::support::start;

const WAIT: Duration = Duration::from_secs(30);

/// The backend, of two, that holds a measurement by this name.
fn owner(name: &str) -> usize {
    let mut topology = Topology::default();
    topology.add_circle("c", ["a", "b"].map(|name| Backend::new(name, format!("http://{name}"))));
    Placement::new(&topology, &PlacementSettings::default()).owner(0, Place::new("db", name).bytes()).index()
}

/// Where influx-proxy writes it.
fn as_written(name: &str) -> usize {
    owner(&name.replace('\\', ""))
}

/// Names that influx-proxy writes to another backend than its migrations move them to.
fn names_with_two_places() -> Vec<String> {
    let names = (0..1000).map(|n| format!("C:\\disk{n}"));
    names.filter(|name| owner(name) != as_written(name)).take(8).collect()
}

fn write(addr: std::net::SocketAddr, lines: &str) {
    let reply = Client::connect(addr).unwrap().request("POST", "/write?db=db&consistency=all", &[], lines.as_bytes());
    let reply = reply.unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

fn lines(name: &str, minutes: std::ops::Range<i64>) -> String {
    let line = |minute: i64| {
        let (host, v, time) = (minute % 3, minute * 7 % 10, minute * 60_000_000_000);
        format!("{name},host=h{host} v={v}i,f={v}.5 {time}\n")
    };
    minutes.map(line).collect()
}

/// The number of measurements at a wrong place, over all backends.
fn misplaced(proxy: &Proxy) -> u64 {
    let health: Value = serde_json::from_str(&proxy.get("/health").unwrap().1).unwrap();
    let backends = health[0]["backends"].as_array().unwrap();
    backends.iter().map(|backend| backend["load"]["db"]["incorrect"].as_u64().unwrap_or(0)).sum()
}

fn migrate(proxy: &Proxy, target: &str, end: &str) {
    let reply = Client::connect(proxy.addr()).unwrap().request("POST", target, &[], b"").unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert!(eventually(WAIT, || proxy.stderr().contains(end)), "{}", proxy.stderr());
}

/// Queries of all kinds about these measurements, some at one place and some at the other.
fn queries(names: &[String]) -> Vec<String> {
    let quoted = |name: &String| format!("\"{}\"", name.replace('\\', "\\\\"));
    let mut queries = vec![
        "SELECT v FROM /C:/".to_owned(),
        "SELECT count(v), mean(f) FROM /disk|cpu/ GROUP BY host".to_owned(),
        "SELECT sum(c) FROM (SELECT count(v) AS c FROM /C:/ GROUP BY host)".to_owned(),
        "SHOW MEASUREMENTS".to_owned(),
        "SHOW SERIES".to_owned(),
        "SHOW FIELD KEYS".to_owned(),
        "SHOW TAG VALUES WITH KEY = host".to_owned(),
    ];
    let all: Vec<_> = names.iter().map(quoted).collect();
    queries.push(format!("SELECT last(v) FROM {}, cpu", all.join(", ")));
    queries.push(format!("SELECT max(m) FROM (SELECT mean(f) AS m FROM {}, {} GROUP BY host)", all[0], all[1]));
    for name in all {
        queries.push(format!("SELECT * FROM {name}"));
        queries.push(format!("SELECT v FROM {name} WHERE host = 'h1' ORDER BY time DESC LIMIT 4 OFFSET 1"));
        queries.push(format!("SELECT count(v), mean(f), percentile(v, 90), median(v) FROM {name}"));
        queries.push(format!("SELECT derivative(v, 1m) FROM {name}"));
        queries.push(format!(
            "SELECT mean(v) FROM {name} WHERE time >= 0 AND time < 20m GROUP BY time(3m), host fill(linear)"
        ));
        queries.push(format!("SELECT count(v) FROM {name}; SELECT first(v) FROM cpu; SHOW SERIES FROM {name}"));
    }
    queries
}

fn assert_as_one(proxy: &Proxy, one: &Influxd, names: &[String], when: &str) {
    for text in queries(names) {
        let wanted = one.query("db", &text).unwrap();
        assert_eq!(influxd::query(&proxy.url(), "db", &text).unwrap(), wanted, "{when}: {text}");
    }
}

#[test]
fn names_with_backslashes_are_found_where_influx_proxy_left_them_before_and_after_a_rebalance() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    let one = Influxd::start().unwrap();
    servers.iter().chain([&one]).for_each(|server| server.create_database("db").unwrap());
    let mut names = names_with_two_places();
    let (new, target) = (names.pop().unwrap(), names.pop().unwrap());
    for (n, name) in names.iter().enumerate() {
        // The last one was moved by a migration of influx-proxy.
        let at = if n == 5 { owner(name) } else { as_written(name) };
        write(servers[at].addr(), &lines(name, 0..10));
        write(one.addr(), &lines(name, 0..10));
    }
    let mut proxy = start(&ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]));
    let told = |proxy: &Proxy| proxy.stderr().matches("where influx-proxy wrote them").count();
    assert_eq!(told(&proxy), 1, "{}", proxy.stderr());
    assert!(eventually(WAIT, || misplaced(&proxy) == 5), "{:?}", proxy.get("/health"));
    assert_as_one(&proxy, &one, &names, "after the swap");

    let both = |proxy: &Proxy, minutes: std::ops::Range<i64>| {
        for name in names.iter().chain([&new, &"cpu".to_owned()]) {
            write(proxy.addr(), &lines(name, minutes.clone()));
            write(one.addr(), &lines(name, minutes.clone()));
        }
    };
    both(&proxy, 5..15);
    assert_as_one(&proxy, &one, &names, "with new points");
    proxy.restart().unwrap();
    both(&proxy, 15..18);
    assert_as_one(&proxy, &one, &names, "after a restart");

    for text in [
        format!(
            "SELECT mean(f) AS f INTO \"{}\" FROM \"{}\" WHERE time < 20m GROUP BY time(3m), host",
            target.replace('\\', "\\\\"),
            names[3].replace('\\', "\\\\")
        ),
        format!("DELETE FROM \"{}\" WHERE time < 3m", names[0].replace('\\', "\\\\")),
        format!("DROP SERIES FROM \"{}\" WHERE host = 'h2'", names[1].replace('\\', "\\\\")),
        format!("DROP MEASUREMENT \"{}\"", names[2].replace('\\', "\\\\")),
    ] {
        influxd::query(&proxy.url(), "db", &text).unwrap();
        one.query("db", &text).unwrap();
    }
    assert_as_one(&proxy, &one, &names, "after removals");
    for server in &servers {
        let left = server.query("db", "SHOW MEASUREMENTS").unwrap().to_string();
        assert!(!left.contains(&names[2].replace('\\', "\\\\")), "{left}");
    }

    migrate(&proxy, "/rebalance?circle_id=0&operation=add", "rebalance done");
    assert_as_one(&proxy, &one, &names, "after a rebalance");
    migrate(&proxy, "/clear?circle_id=0", "clear done");
    assert!(eventually(WAIT, || misplaced(&proxy) == 0), "{:?}", proxy.get("/health"));
    both(&proxy, 18..20);
    assert_as_one(&proxy, &one, &names, "after a clear");
    proxy.restart().unwrap();
    assert_eq!(told(&proxy), 2, "not any more: {}", proxy.stderr());
    assert_as_one(&proxy, &one, &names, "at the end");
}

#[test]
fn a_start_without_points_at_another_place_keeps_names_with_backslashes_at_one() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    servers.iter().for_each(|server| server.create_database("db").unwrap());
    let names = names_with_two_places();
    write(servers[owner(&names[0])].addr(), &lines(&names[0], 0..2));
    let proxy = start(&ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]));
    for name in &names {
        write(proxy.addr(), &lines(name, 2..4));
        let at = |server: &Influxd| server.query("db", "SHOW MEASUREMENTS").unwrap().to_string();
        let shown = name.replace('\\', "\\\\");
        assert!(
            at(&servers[owner(name)]).contains(&shown) && !at(&servers[as_written(name)]).contains(&shown),
            "{name}"
        );
    }
}

#[test]
fn names_with_backslashes_of_a_server_that_is_down_at_the_first_start_are_found_when_it_is_back() {
    let mut servers = [0, 1].map(|_| Influxd::start().unwrap());
    let one = Influxd::start().unwrap();
    servers.iter().chain([&one]).for_each(|server| server.create_database("db").unwrap());
    let is_at_first = |name: &String| as_written(name) == 0;
    let names: Vec<_> = names_with_two_places().into_iter().filter(is_at_first).collect();
    for name in &names {
        write(servers[0].addr(), &lines(name, 0..10));
        write(one.addr(), &lines(name, 0..10));
    }
    servers[0].kill();
    let mut proxy = start(&ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]));
    for name in names.iter().map(|name| &name[..]).chain(["cpu"]) {
        let mut client = Client::connect(proxy.addr()).unwrap();
        let reply = client.request("POST", "/write?db=db", &[], lines(name, 8..12).as_bytes()).unwrap();
        assert_eq!(reply.status, 204, "{}", reply.text());
        write(one.addr(), &lines(name, 8..12));
    }
    servers[0].restart().unwrap();
    proxy.drained(WAIT).unwrap();
    let is_up = || proxy.health().unwrap()[0].backends.iter().all(|backend| backend.active);
    assert!(eventually(WAIT, is_up), "{:?}", proxy.health());
    assert_as_one(&proxy, &one, &names, "when it is back");
    proxy.restart().unwrap();
    assert_as_one(&proxy, &one, &names, "after a restart");
    migrate(&proxy, "/rebalance?circle_id=0&operation=add", "rebalance done");
    assert_as_one(&proxy, &one, &names, "after a rebalance");
    migrate(&proxy, "/clear?circle_id=0", "clear done");
    assert_as_one(&proxy, &one, &names, "after a clear");
}

#[test]
fn what_a_migration_of_influx_proxy_has_torn_apart_is_told_and_whole_after_a_rebalance() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    servers.iter().for_each(|server| server.create_database("db").unwrap());
    let name = &names_with_two_places()[0];
    write(servers[owner(name)].addr(), &lines(name, 0..5));
    write(servers[as_written(name)].addr(), &lines(name, 4..10));
    let proxy = start(&ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]));
    assert!(proxy.stderr().contains("1 measurements with a backslash lie at both places"), "{}", proxy.stderr());
    write(proxy.addr(), &lines(name, 10..12));
    let count = |proxy: &Proxy| {
        let text = format!("SELECT count(v) FROM \"{}\"", name.replace('\\', "\\\\"));
        influxd::query(&proxy.url(), "db", &text).unwrap()["results"][0]["series"][0]["values"][0][1].as_u64()
    };
    assert_eq!(count(&proxy), Some(8), "all that was written, also by influx-proxy");
    migrate(&proxy, "/rebalance?circle_id=0&operation=add", "rebalance done");
    assert_eq!(count(&proxy), Some(12));
    migrate(&proxy, "/clear?circle_id=0", "clear done");
    assert_eq!(count(&proxy), Some(12));
}

#[test]
fn several_proxies_find_names_with_backslashes_before_and_after_one_of_them_moves_them() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    let one = Influxd::start().unwrap();
    servers.iter().chain([&one]).for_each(|server| server.create_database("db").unwrap());
    let names = names_with_two_places();
    for name in &names {
        write(servers[as_written(name)].addr(), &lines(name, 0..4));
        write(one.addr(), &lines(name, 0..4));
    }
    let config = ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]).set("query_timeout", 2);
    let first = start(&config);
    // One proxy after the other is replaced, and both are written to.
    let through = |proxy: &Proxy, minutes: std::ops::Range<i64>| {
        for name in names.iter().map(|name| &name[..]).chain(["cpu"]) {
            write(proxy.addr(), &lines(name, minutes.clone()));
            write(one.addr(), &lines(name, minutes.clone()));
        }
    };
    through(&first, 4..6);
    let second = start(&config);
    through(&second, 6..8);
    through(&first, 8..10);
    let same = |when| [&first, &second].iter().for_each(|proxy| assert_as_one(proxy, &one, &names, when));
    same("before");
    let addrs = format!("ha_addrs={},{}", first.addr(), second.addr());
    migrate(&first, &format!("/rebalance?circle_id=0&operation=add&{addrs}"), "rebalance done");
    through(&second, 10..12);
    through(&first, 12..14);
    same("after a rebalance");
    migrate(&second, &format!("/clear?circle_id=0&{addrs}"), "clear done");
    through(&second, 14..16);
    same("after a clear");
}

#[test]
fn what_influx_proxy_writes_after_a_roll_back_is_found_at_the_next_start() {
    let servers = [0, 1].map(|_| Influxd::start().unwrap());
    servers.iter().for_each(|server| server.create_database("db").unwrap());
    let names = names_with_two_places();
    let (old, later) = (&names[0], &names[1]);
    let mut proxy = start(&ProxyConfig::new(&[servers.iter().map(Influxd::url).collect()]));
    write(proxy.addr(), &lines(old, 0..5));
    assert!(proxy.terminate(Duration::from_secs(5)).unwrap().success());
    // As influx-proxy does.
    write(servers[as_written(later)].addr(), &lines(later, 0..5));
    for ending in ["dat", "rec"] {
        std::fs::write(proxy.data_dir().join(format!("influxdb-1-1.{ending}")), "").unwrap();
    }
    proxy.restart().unwrap();
    let count = |name: &String| {
        let text = format!("SELECT count(v) FROM \"{}\"", name.replace('\\', "\\\\"));
        influxd::query(&proxy.url(), "db", &text).unwrap()["results"][0]["series"][0]["values"][0][1].as_u64()
    };
    write(proxy.addr(), &lines(later, 5..8));
    assert_eq!((count(old), count(later)), (Some(5), Some(8)), "{}", proxy.stderr());
    migrate(&proxy, "/rebalance?circle_id=0&operation=add", "rebalance done");
    assert_eq!((count(old), count(later)), (Some(5), Some(8)), "{}", proxy.stderr());
}

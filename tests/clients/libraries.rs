//! Libraries: for InfluxDB 1, 2 and 3, in Python and JavaScript.

use std::net::SocketAddr;

use crate::{DB, Installation, USERS, program, run};

/// Runs a library's program and returns what it printed.
fn with(world: &Installation, name: &str, addr: SocketAddr, what: &str) -> String {
    let (user, password) = world.user;
    run(program(name).args([&format!("http://{addr}"), user, password, DB, &world.file("points.json"), what]))
}

/// Each way of writing leaves exactly the points; what is read through the proxy is what a plain server answers.
fn writes_and_reads(name: &str, ways: &[&str], reads: bool) {
    for user in USERS {
        let world = Installation::start(user);
        for way in ways {
            world.clear();
            with(&world, name, world.proxy.addr(), way);
            world.all_hold_the_points(&format!("{name} {way} {user:?}"));
        }
        if reads {
            let [plain, proxy] = [world.plain.addr(), world.proxy.addr()].map(|addr| with(&world, name, addr, "read"));
            assert!(plain.lines().count() >= 5, "{plain}");
            assert_eq!(proxy, plain, "{name} {user:?}");
        }
    }
}

#[test]
fn influxdb_of_pypi() {
    writes_and_reads("influxdb_1.py", &["write", "write-gzip"], true);
}

#[test]
fn influxdb_client_of_pypi() {
    writes_and_reads("influxdb_2.py", &["write", "write-gzip"], false);
}

#[test]
fn influxdb3_python_of_pypi() {
    writes_and_reads("influxdb_3.py", &["write", "write-gzip"], false);
}

#[test]
fn influx_of_npm() {
    writes_and_reads("influx_1.mjs", &["write"], true);
}

#[test]
fn influxdb_client_of_npm() {
    writes_and_reads("influxdb_2.mjs", &["write", "write-gzip"], false);
}

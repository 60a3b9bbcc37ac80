//! Promise: InfluxDB's Python client, which asks for msgpack, gets the same answers through the proxy as directly.

use std::process::Command;

use fluxgate::lab::influxd::die_with_us;

use crate::world::OracleAndCluster;

/// The Python that the Debian package `python3-influxdb` is for.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn the_python_client_gets_the_same_through_the_proxy() {
    let has_client = Command::new(PYTHON).args(["-c", "import influxdb"]).output().is_ok_and(|o| o.status.success());
    assert!(has_client, "{PYTHON} has no module influxdb: run `make setup`");
    let world = OracleAndCluster::start(false);
    for what in ["write", "read"] {
        let [oracle, cluster] = [world.oracle.addr(), world.cluster()].map(|addr| {
            let mut command = Command::new(PYTHON);
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/queries_as_one_influxdb/client.py"));
            command.args([&addr.ip().to_string(), &addr.port().to_string(), what]);
            die_with_us(&mut command);
            let output = command.output().unwrap();
            (String::from_utf8_lossy(&output.stdout).into_owned(), output)
        });
        assert!(oracle.1.status.success(), "{:?}", oracle.1);
        assert!(oracle.0.lines().count() >= 6, "{}", oracle.0);
        for (oracle, cluster) in oracle.0.lines().zip(cluster.0.lines()) {
            assert_eq!(cluster, oracle);
        }
        assert_eq!(cluster.0.lines().count(), oracle.0.lines().count(), "{:?}", cluster.1);
        assert_eq!(cluster.1.status, oracle.1.status, "{:?}", cluster.1);
        world.drain();
    }
}

//! influx-proxy 2.4 ignores the parameter `rp` of a write: dashboards that read the default policy go on seeing new
//! points.

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig};
use serde_json::{Value, json};

use crate::support::start;

#[test]
fn a_policy_is_ignored_where_influx_proxy_ignored_it() {
    let keys_of_2_4 = [("mlog_dir", json!("log")), ("vnode_size", json!(256))];
    let keys_of_2_5 = [("tlog_dir", json!("log"))];
    for (keys, ignored, told) in [
        (&keys_of_2_4[..], true, true),
        (&keys_of_2_5[..], false, false),
        (&[], false, false),
        // Said in the file: no warning at the start.
        (&[("mlog_dir", json!("log")), ("ignore_rp", json!(false))], false, false),
        (&[("tlog_dir", json!("log")), ("ignore_rp", json!(true))], true, false),
    ] {
        let backend = Influxd::start().unwrap();
        backend.create_database("db").unwrap();
        backend.query("", "CREATE RETENTION POLICY short ON db DURATION 1d REPLICATION 1").unwrap();
        let config = ProxyConfig::new(&[vec![backend.url()]]).set_all(keys.iter().cloned());
        let proxy = start(&config);
        let mut client = Client::connect(proxy.addr()).unwrap();
        let mut write = |target: &str| client.request("POST", target, &[], b"m v=1").unwrap().status;
        assert_eq!(write("/write?db=db&rp=short&consistency=all"), 204);
        // InfluxDB 2's API names a policy that influx-proxy 2.4 never saw.
        assert_eq!(write("/api/v2/write?bucket=db/short&consistency=all"), 204);
        assert_eq!(write("/write?db=db&rp=nowhere"), if ignored { 204 } else { 500 });
        proxy.drained(std::time::Duration::from_secs(10)).unwrap();

        let points = |policy: &str| {
            let answer = backend.query("db", &format!("SELECT count(v) FROM {policy}.m")).unwrap();
            answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0)
        };
        let (default, short) = (points("autogen"), points("short"));
        assert_eq!((default, short), if ignored { (2, 1) } else { (0, 2) }, "{keys:?}");
        let requests: u64 = rp_ignored(&proxy);
        assert_eq!(requests, if ignored { 2 } else { 0 }, "{keys:?}");
        let log = proxy.stderr();
        assert_eq!(log.contains("ignore_rp is true, since this file is for influx-proxy 2.4"), told, "{log}");
        assert_eq!(log.contains("a write names retention policy"), ignored, "{log}");
    }
}

/// The sum over all workers, as `/ledger` counts it.
fn rp_ignored(proxy: &Proxy) -> u64 {
    let ledger: Value = serde_json::from_str(&proxy.get("/ledger").unwrap().1).unwrap();
    let workers = ledger["workers"].as_array().unwrap();
    workers.iter().map(|worker| worker["rp_ignored"].as_u64().unwrap_or(0)).sum()
}

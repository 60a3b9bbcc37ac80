//! Promise: databases, policies and measurements of every name that InfluxDB takes are written to, and created where
//! they are missing.

mod support;

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::http1::url_encoded;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{ProxyConfig, eventually};

const NAMES: &[&str] = &[
    "plain",
    "a b",
    " blanks ",
    "中文",
    "q\"uote",
    "'single'",
    "semi;colon",
    "a&b=c+d%20",
    "#hash?",
    "new\nline",
    "tab\tbed",
    "select",
    "123",
    "a,b",
    "a.b",
    "_under",
    "%zz",
    "<é>",
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[test]
fn every_name_that_influxdb_takes_is_written_to() {
    let backends = [Influxd::start().unwrap(), Influxd::start().unwrap()];
    let mut made = Vec::new();
    for name in NAMES {
        // On one backend only.
        let with = format!("CREATE DATABASE {0} WITH DURATION 30d SHARD DURATION 1d NAME {0}", quoted(name));
        match backends[0].query("", &with) {
            Ok(_) => made.push(*name),
            Err(error) => eprintln!("InfluxDB refuses {name:?}: {error}"),
        }
    }
    assert!(made.len() >= 14, "{made:?}");
    let circles: Vec<_> = backends.iter().map(|backend| vec![backend.url()]).collect();
    let proxy = support::start(&ProxyConfig::new(&circles));
    let mut client = Client::connect(proxy.addr()).unwrap();
    let delivered = || proxy.ledger().is_ok_and(|ledger| ledger.totals.queued == 0);
    for name in &made {
        let measurement = name.replace(',', "\\,").replace(' ', "\\ ").replace('=', "\\=").replace('\n', "");
        // Without a policy, and with it by name.
        for (rp, n) in [("", 1), (*name, 2)] {
            let target = format!("/write?db={}&rp={}", url_encoded(name), url_encoded(rp));
            // `#` would begin a comment.
            let line = format!("m{measurement},t=x n={n}i\n");
            let reply = client.request("POST", &target, &[], line.as_bytes()).unwrap();
            assert_eq!(reply.status, 204, "{name:?}: {}", reply.text());
            // Not both at once: InfluxDB 1.x may not show what comes beside the first write to a new shard
            // (docs/decisions.md: what cannot be mended here).
            assert!(eventually(Duration::from_secs(30), delivered), "{:?}\n{}", proxy.ledger(), proxy.stderr());
        }
    }
    let ledger = proxy.ledger().unwrap();
    assert_eq!((ledger.totals.delivered, ledger.totals.rejected), (4 * made.len() as u64, 0), "{ledger:?}");
    for backend in &backends {
        for name in &made {
            let answer = backend.query(name, &format!("SELECT count(n), sum(n) FROM {}./^m/", quoted(name))).unwrap();
            assert_eq!(answer["results"][0]["series"][0]["values"][0][1], 2, "{name:?}: {answer}");
            let answer = backend.query("", &format!("SHOW RETENTION POLICIES ON {}", quoted(name))).unwrap();
            let policies = answer["results"][0]["series"][0]["values"].as_array().unwrap();
            assert_eq!(policies.len(), 1, "{name:?}: {answer}");
            assert_eq!(
                (&policies[0][0], &policies[0][1], &policies[0][2]),
                (&(*name).into(), &"720h0m0s".into(), &"24h0m0s".into())
            );
        }
    }
}

//! Promise: the rows recorded of influx-proxy 2.5.12 on the paths of InfluxDB 2 are answered alike, but for those of
//! [`DEPARTURES`], which differ as it says.

use fluxgate::lab::proxy::Proxy;
use serde_json::{Value, json};

use crate::answers::{ProxyAnswer, differences, send};
use crate::servers::Servers;
use crate::{auth, golden, path};

/// Rows that are answered with another body, and why.
const DEPARTURES: &[(&[u64], &str)] = &[(
    &[131, 506, 721, 724, 727],
    "errors of writes have InfluxDB 2's `code` and `message` beside the recorded `error`",
)];

const PATHS: [&str; 2] = ["/api/v2/write", "/api/v2/query"];

#[test]
fn paths_of_influxdb_2_answer_as_recorded() {
    let servers = Servers::start();
    servers.all().for_each(|(.., server)| server.create_database("db1").unwrap());
    let records = golden::records("v2.5.12.jsonl");
    let mut wrong = Vec::new();
    let mut checked = 0;
    let dblist: &[(&str, Value)] = &[("db_list", json!(["db1", "db2"]))];
    for (config, keys) in [("open", &[][..]), ("dblist", dblist), ("auth", &auth()[..])] {
        let proxy = servers.proxy(keys);
        for record in records.iter().filter(|record| record["config"] == config && PATHS.contains(&path(record))) {
            checked += 1;
            let got = send(proxy.addr(), &record["request"]);
            let found = differences(&servers, record, &got);
            let id = record["id"].as_u64().unwrap();
            let as_it_should = match DEPARTURES.iter().find(|(ids, _)| ids.contains(&id)) {
                Some(_) => departs_in_the_body_only(record, &found, &got),
                None => found.is_empty(),
            };
            if !as_it_should {
                wrong.push(format!("{id} {}: {} {found:?}", record["request"], got.status));
            }
        }
        drained(&proxy);
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(checked, 21, "the records have changed");
    assert!(DEPARTURES.iter().all(|(_, why)| !why.is_empty()));
}

/// Status and fields are the recorded ones, and so is the field `error`.
fn departs_in_the_body_only(record: &Value, found: &[String], got: &ProxyAnswer) -> bool {
    let error = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["error"].clone();
    let recorded = error(&golden::bytes(&record["response"]["body"]));
    matches!(found, [one] if one.starts_with("body ")) && error(&got.body) == recorded && recorded.is_string()
}

fn drained(proxy: &Proxy) {
    assert!(fluxgate::lab::proxy::eventually(std::time::Duration::from_secs(20), || crate::nothing_queued(proxy)));
}

//! Promise: every recorded row of an admin path is repeated against the real binary, or stands here with the reason why
//! not.
//!
//! Here also those rows of 2.5.12 that need nothing but a running proxy, on paths that 2.4.7 has as well.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::answers::{differences, send};
use crate::servers::Servers;
use crate::{auth, golden, is_repeated, is_simple, migrations, newer, path};

/// Rows that are not repeated: generation, paths, configuration (empty = any), why.
const NOT_REPEATED: &[(&str, &[&str], &str, &str)] = &[
    ("v2.4.7", &["/metrics"], "", "2.4.7 does not know it; nothing to be like"),
    ("v2.5.12", &["/metrics"], "", "counters of a Go process"),
    ("v2.5.12", &["/health"], "open", HEALTH),
    ("v2.5.12", &["/health"], "dblist", HEALTH),
    ("v2.5.12", &["/health"], "open, influxdb-1-2 stopped", HEALTH),
    ("v2.5.12", &["/health"], "open, circle-1 stopped", HEALTH),
    ("v2.5.12", &["/health", "/replica"], "open, all backends stopped", HEALTH),
    ("v2.5.12", &["/ping", "/debug/pprof/"], "auth-ping", "a user for /ping is asked in `http_shapes`"),
    ("v2.5.12", &["/ping"], "open, all backends stopped", "as in 2.4.7, whose row is repeated"),
];

const HEALTH: &str = "the control thread is asked in `control/src/endpoint/golden_test.rs`, in the recorded state";

/// Rows of 2.5.12 that are answered differently, and with which status.
const DEPARTURES_2_5: &[(u16, &[u64], &str)] = &[
    (200, &[440, 441, 442, 443, 465, 472, 473, 475, 477, 478], "`msg` is read as well, 2.4's name of `text`"),
    (401, &[592, 594, 600, 602, 605, 606, 611, 612], "the cipher needs the user when one is configured"),
    (401, &[682, 686], "profiles need the user when one is configured"),
    (200, &[19, 687, 689, 690], "the command line is told, as Go does where the original forgot to"),
];

/// Rows that other tests repeat: queries, writes, and APIs of InfluxDB 2 and Prometheus.
fn is_admin(record: &Value) -> bool {
    let path = path(record);
    !path.is_empty() && !["/query", "/write"].contains(&path) && !path.starts_with("/api/")
}

fn is_common(record: &Value) -> bool {
    let config = record["config"].as_str();
    let configs: &[_] = if path(record) == "/replica" { &["open", "auth", "dblist"] } else { &["open", "auth"] };
    let has_no_stats = path(record) == "/health" && ![927, 931, 934].map(Some).contains(&record["id"].as_u64());
    (is_simple(record) || has_no_stats) && config.is_some_and(|config| configs.contains(&config))
}

#[test]
fn no_row_is_left_out() {
    let mut counts = BTreeMap::new();
    for version in ["v2.4.7", "v2.5.12"] {
        for record in golden::records(&format!("{version}.jsonl")).iter().filter(|record| is_admin(record)) {
            let config = record["config"].as_str().unwrap_or_default();
            let reason = NOT_REPEATED.iter().find(|(of, paths, only, _)| {
                *of == version && paths.contains(&path(record)) && (only.is_empty() || *only == config)
            });
            let is_common = version == "v2.5.12" && is_common(record);
            let reason = reason.filter(|_| !is_common);
            let ways = [
                migrations::is_repeated(record),
                if version == "v2.4.7" { is_repeated(record) } else { is_common },
                reason.is_some_and(|(.., why)| !why.is_empty()),
            ];
            let way = ways.iter().position(|way| *way);
            assert_eq!(
                ways.iter().filter(|way| **way).count(),
                1,
                "{version} {} {}: {ways:?}",
                record["id"],
                path(record)
            );
            *counts.entry((version, way.unwrap())).or_insert(0) += 1;
        }
    }
    // Migrations; others that are repeated; those that are not.
    let want = [("v2.4.7", [149, 135, 10]), ("v2.5.12", [154, 122, 26])];
    let got =
        want.map(|(version, _)| (version, [0, 1, 2].map(|way| counts.get(&(version, way)).copied().unwrap_or(0))));
    assert_eq!(got, want, "the records or what is repeated of them have changed");
}

#[test]
fn common_paths_answer_the_requests_of_2_5_12() {
    let servers = Servers::start();
    let mut wrong = Vec::new();
    let dblist = ("db_list", json!(["db1", "db2"]));
    for (config, keys) in [("open", vec![]), ("dblist", vec![dblist]), ("auth", auth().to_vec())] {
        let proxy = servers.proxy(&[keys, newer().to_vec()].concat());
        let records = golden::records("v2.5.12.jsonl");
        for record in records.iter().filter(|record| record["config"] == config && is_common(record)) {
            let id = record["id"].as_u64().unwrap();
            let got = send(proxy.addr(), &record["request"]);
            let found = differences(&servers, record, &got);
            let departure = DEPARTURES_2_5.iter().find(|(_, ids, _)| ids.contains(&id));
            if departure.is_some_and(|(status, ..)| found.is_empty() || got.status != *status)
                || departure.is_none() && !found.is_empty()
            {
                wrong.push(format!("{id} {}: {} {found:?}", record["request"], got.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    assert!(DEPARTURES_2_5.iter().all(|(.., why)| !why.is_empty()));
}

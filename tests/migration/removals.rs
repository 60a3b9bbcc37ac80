//! Promise: while data is moved, statements that remove data are refused, so that no copy brings removed points back.
//! The refusal ends with the migration.

use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, eventually};

use crate::cluster::{Cluster, DB, wait};

/// Status and text of the answer to a statement.
fn ask(proxy: &Proxy, q: &str) -> (u16, String) {
    let form = format!("db={DB}&q={}", fluxgate::lab::http1::url_encoded(q));
    let head = ["Content-Type: application/x-www-form-urlencoded"];
    let reply = Client::connect(proxy.addr()).unwrap().request("POST", "/query", &head, form.as_bytes()).unwrap();
    (reply.status, reply.text())
}

#[test]
fn a_removal_waits_for_the_end_of_a_migration() {
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..3000);
    let id = cluster.begin("/recovery?from_circle_id=0&to_circle_id=1&rate=2000", "");
    for q in ["DROP MEASUREMENT m1", "DELETE FROM m1 WHERE time > 0", "DROP SERIES FROM m1"] {
        let (status, text) = ask(&cluster.proxy, q);
        assert_eq!(status, 503, "{q}: {text}");
        assert!(text.contains("/migrate/jobs") && text.contains("nothing was changed"), "{text}");
    }
    assert_eq!(ask(&cluster.proxy, "CREATE DATABASE other").0, 200, "what removes nothing is carried out");
    let delete = format!("/migrate/jobs/{id}");
    let reply = Client::connect(cluster.proxy.addr()).unwrap().request("DELETE", &delete, &[], b"").unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(wait(&cluster.proxy, id)["state"], "cancelled");
    let dropped = || ask(&cluster.proxy, "DROP MEASUREMENT m1").0 == 200;
    assert!(eventually(Duration::from_secs(20), dropped), "{:?}", ask(&cluster.proxy, "DROP MEASUREMENT m1"));
    for server in cluster.servers.iter().flatten() {
        let left = server.query(DB, "SHOW MEASUREMENTS").unwrap().to_string();
        assert!(!left.contains(r#"["m1"]"#) && left.contains(r#"["m2"]"#), "{left}");
    }
}

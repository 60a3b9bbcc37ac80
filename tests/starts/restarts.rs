//! Starts with another configuration than the one before, in ways that a user may do by mistake. What was waiting for
//! delivery meanwhile is in `tests/faults/former_workers.rs`.

use fluxgate::lab::proxy::Proxy;
use serde_json::Value;

use crate::support::start;
use crate::{Usage, circles, servers};

/// Uses the quick start with four workers, ends it, changes its configuration, and starts it.
fn changed(change: impl FnOnce(&mut Value), check: impl Fn(&Proxy, &Usage)) {
    let servers = servers(4);
    let mut proxy = start(&circles(&servers).set("workers", 4));
    let mut usage = Usage::begin(&mut proxy, 2);
    usage.read_all(&proxy);
    proxy.edit(change).unwrap();
    usage.again(&mut proxy);
    check(&proxy, &usage);
    // And once more, with the same configuration.
    usage.again(&mut proxy);
    check(&proxy, &usage);
}

#[test]
fn with_fewer_workers() {
    changed(|config| config["workers"] = 1.into(), |proxy, usage| usage.read_all(proxy));
}

/// The accounts under the old name are gone (docs/reliability.md, "Known limits"); no point is.
#[test]
fn with_a_renamed_backend() {
    let rename = |config: &mut Value| config["circles"][0]["backends"][0]["name"] = "renamed".into();
    changed(rename, |proxy, usage| drop(usage.read(proxy)));
}

/// Data lies elsewhere from then on: the circles are in transition, and queries see everything meanwhile.
#[test]
fn with_another_hash_key() {
    let change = |config: &mut Value| config["hash_key"] = "name".into();
    changed(change, |proxy, usage| {
        let ledger = usage.read(proxy);
        // What moves goes to both its old and its new backend.
        assert!(ledger.totals.accepted >= 2 * (usage.written + usage.refused), "{ledger:?}");
        let (status, text) = proxy.get("/transfer/state").unwrap();
        assert!(status == 200 && text.contains("circle"), "{status} {text}");
    });
}

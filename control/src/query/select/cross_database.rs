//! Checks a SELECT that reads one measurement name from two databases.
//!
//! InfluxDB puts the rows of both into one series, also through subqueries. When the two have different owners,
//! fluxgate cannot do that afterwards: an aggregate of aggregates is another number, and the order of raw rows with
//! equal times is unknown.

use std::collections::{BTreeMap, BTreeSet};

use fluxgate_dataplane::influxql::ast::{Name, Select};
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::reach::leaves;
use fluxgate_dataplane::topology::BackendId;

use super::refused;
use super::shares::ChosenShares;
use crate::query::context::{Context, Stop};

/// Refuses a name that is read from two databases with different owners.
///
/// # Errors
/// 400.
pub fn check(context: &Context<'_>, select: &Select, parts: &ChosenShares) -> Result<(), Stop> {
    let mut places: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for leaf in leaves(select) {
        if let Name::Text(name) = &leaf.name {
            let db = leaf.db.as_deref().unwrap_or(&context.request.db);
            places.entry(name).or_default().insert(db);
        }
    }
    for (name, dbs) in places {
        let owners: BTreeSet<_> = dbs.iter().map(|db| parts.owner(context, Place::new(db, name))).collect();
        if owners.len() > 1 {
            return Err(cannot(name, dbs.iter().copied()));
        }
    }
    Ok(())
}

/// The backend whose answer counts when several have answered about a measurement: its owner, or its former owner while
/// it is being moved. The owner must be the same in all databases.
///
/// # Errors
/// 400 when a regular expression has matched it in two databases with different owners.
pub fn owner(context: &Context<'_>, select: &Select, name: &str, backends: &[BackendId]) -> Result<BackendId, Stop> {
    let topology = &context.shared.topology;
    let mut dbs = BTreeSet::new();
    for leaf in leaves(select) {
        if !matches!(&leaf.name, Name::Text(text) if text != name) {
            dbs.insert(leaf.db.as_deref().unwrap_or(&context.request.db));
        }
    }
    let circle = topology.backend(backends[0]).circle;
    let reader = |db: &&str| context.placement.reader(circle, Place::new(*db, name).bytes());
    let owners: BTreeSet<_> = dbs.iter().map(reader).collect();
    match owners.first() {
        Some(owner) if owners.len() == 1 => {
            // Neither is the owner: take one of them, since both together may count points twice.
            Ok(if backends.contains(owner) { *owner } else { backends[0] })
        }
        _ => Err(cannot(name, dbs.iter().copied())),
    }
}

/// All databases that a SELECT reads.
pub fn databases<'a>(context: &'a Context<'_>, select: &'a Select) -> BTreeSet<&'a str> {
    leaves(select).into_iter().map(|leaf| leaf.db.as_deref().unwrap_or(&context.request.db)).collect()
}

fn cannot<'a>(name: &str, dbs: impl Iterator<Item = &'a str>) -> Stop {
    let dbs: Vec<_> = dbs.collect();
    refused(format!(
        "measurement {name:?} of the databases {} lies on different backends, and InfluxDB would mix their rows in \
         one series: ask one database at a time",
        dbs.join(", ")
    ))
}

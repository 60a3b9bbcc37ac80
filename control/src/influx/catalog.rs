//! The databases and policies of a backend, and how many of its measurements are in place.
//!
//! A backend that does not answer SHOW DATABASES in InfluxDB's form has no catalog, nor has one that lists no database
//! but InfluxDB's own and is not InfluxDB by the fields of its answer: VictoriaMetrics answers so.
//!
//! Not here: when to ask (`event_loop/refresh` and `event_loop/backends`), which statements create a policy (`policy`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fluxgate_dataplane::handoff;
use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::placement::{Place, Placement};
use fluxgate_dataplane::topology::Backend;

use crate::influx::answer::{Row, Series};
use crate::influx::client::{CallFailure, Client};
use crate::influx::policy::Policy;
use crate::limits;

/// InfluxDB's own database. It belongs to one server and is not part of the load.
pub const INTERNAL: &str = "_internal";

/// One backend's databases, by name. The policies are empty where they could not be asked.
pub type Databases = BTreeMap<String, Vec<Policy>>;

/// How many of a database's measurements on a backend belong there, and how many do not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    pub inplace: u64,
    pub incorrect: u64,
}

/// Asks for all databases and their policies.
pub fn databases(client: &Client) -> Result<Databases, CallFailure> {
    databases_within(client, limits::CATALOG_TIMEOUT)
}

/// A backend with very many databases is asked in several calls, which together take this long at most.
fn databases_within(client: &Client, timeout: Duration) -> Result<Databases, CallFailure> {
    let until = Instant::now() + timeout;
    let names = names(client)?;
    let mut databases = Databases::new();
    for chunk in names.chunks(limits::STATEMENTS_MAX) {
        in_time(until)?;
        let statements: Vec<String> = chunk.iter().map(|db| show_policies(db)).collect();
        let answers = client.query(&statements.join(";"), limits::SHOW_TIMEOUT)?;
        let mut answers = answers.iter().map(|answer| answer.series.first().map(policies).unwrap_or_default());
        databases.extend(chunk.iter().map(|db| (db.clone(), answers.next().unwrap_or_default())));
    }
    Ok(databases)
}

/// Asks for the policies of one database; None when the backend lacks it.
pub fn database(client: &Client, db: &str) -> Result<Option<Vec<Policy>>, CallFailure> {
    if !names(client)?.iter().any(|name| name == db) {
        return Ok(None);
    }
    let answer = client.statement_in("", &show_policies(db), limits::SHOW_TIMEOUT)?;
    Ok(Some(answer.series.first().map(policies).unwrap_or_default()))
}

/// Counts the measurements of a backend, by database.
pub fn load(client: &Client, placement: &Placement, backend: &Backend) -> Result<BTreeMap<String, Load>, CallFailure> {
    let mut loads = BTreeMap::new();
    let until = Instant::now() + limits::LOADS_TIMEOUT;
    for db in names(client)?.into_iter().filter(|db| db != INTERNAL) {
        in_time(until)?;
        let answers = client.query(&format!("SHOW MEASUREMENTS ON {}", print::name(&db)), limits::LOAD_TIMEOUT)?;
        let mut load = Load::default();
        for measurement in answers.iter().flat_map(|answer| &answer.series).flat_map(|series| series.strings(0)) {
            if placement.owner(backend.circle, Place::new(&db, &measurement).bytes()) == backend.id {
                load.inplace += 1;
            } else {
                load.incorrect += 1;
            }
        }
        loads.insert(db, load);
    }
    Ok(loads)
}

fn in_time(until: Instant) -> Result<(), CallFailure> {
    if Instant::now() < until { Ok(()) } else { Err(CallFailure::Unreachable("it takes too long".to_owned())) }
}

/// The catalog for workers: all databases of all backends, each with all its policies. `known` once any backend has
/// answered as InfluxDB does.
pub fn merge<'a>(backends: impl IntoIterator<Item = Option<&'a Databases>>) -> handoff::Catalog {
    let mut catalog = handoff::Catalog::default();
    let mut defaults = BTreeMap::new();
    for databases in backends.into_iter().flatten() {
        catalog.known = true;
        for (db, policies) in databases {
            let merged = catalog.databases.entry(db.clone()).or_default();
            merged.policies.extend(policies.iter().map(|policy| policy.name.clone()));
            let default = || policies.iter().find(|policy| policy.default).map(|policy| policy.name.clone());
            defaults.entry(db).or_insert_with(BTreeSet::new).insert(default());
        }
    }
    for (db, database) in &mut catalog.databases {
        database.policies.sort_unstable();
        database.policies.dedup();
        let mut named = defaults.remove(db).into_iter().flatten();
        database.default = named.next().flatten().filter(|_| named.next().is_none());
    }
    catalog
}

/// The names of all databases.
pub fn names(client: &Client) -> Result<Vec<String>, CallFailure> {
    names_within(client, limits::SHOW_TIMEOUT)
}

/// As [`names`], in one call that takes this long at most.
pub fn names_within(client: &Client, timeout: Duration) -> Result<Vec<String>, CallFailure> {
    let (answer, is_influx) = client.signed_statement("SHOW DATABASES", timeout)?;
    let names: Vec<_> = match &answer.series[..] {
        [series] if series.name == "databases" && series.columns == ["name"] => series.strings(0).collect(),
        _ => return Err(CallFailure::NotInflux),
    };
    let has_own = names.iter().any(|name| name != INTERNAL);
    if has_own || is_influx { Ok(names) } else { Err(CallFailure::NotInflux) }
}

fn show_policies(db: &str) -> String {
    format!("SHOW RETENTION POLICIES ON {}", print::name(db))
}

/// Finds columns by name: InfluxDB has added columns over time.
fn policies(series: &Series) -> Vec<Policy> {
    let column = |name| series.column(name);
    let (Some(name), Some(duration), Some(shard), Some(default)) =
        (column("name"), column("duration"), column("shardGroupDuration"), column("default"))
    else {
        return Vec::new();
    };
    let policy = |row: &Row| {
        Some(Policy {
            name: row.string(name)?,
            duration: row.string(duration)?,
            shard_duration: row.string(shard)?,
            default: row.value(default)?.parse().ok()?,
        })
    };
    series.rows.iter().filter_map(policy).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::influx::client::tests::{answered, recorded_fields};

    fn policy(name: &str) -> Policy {
        Policy { name: name.into(), duration: "0s".into(), shard_duration: "168h0m0s".into(), default: false }
    }

    #[test]
    fn the_merged_catalog_has_every_database_and_policy_once() {
        let a = Databases::from([("db1".into(), vec![policy("b"), policy("a")]), ("db2".into(), vec![])]);
        let b = Databases::from([("db1".into(), vec![policy("a"), policy("c")])]);
        let catalog = merge([Some(&a), None, Some(&b)]);
        assert!(catalog.known);
        assert_eq!(catalog.databases["db1"].policies, ["a", "b", "c"]);
        assert_eq!(catalog.databases["db2"].policies, [""; 0]);
        assert_eq!(catalog.databases.len(), 2);
    }

    #[test]
    fn a_backend_is_not_asked_about_its_databases_for_ever() {
        let names = r#"{"results":[{"statement_id":0,"series":[{"name":"databases","columns":["name"],
            "values":[["a"]]}]}]}"#;
        let client = answered("200 OK", names);
        let asked = databases_within(&client, Duration::ZERO);
        assert_eq!(asked, Err(CallFailure::Unreachable("it takes too long".to_owned())));
    }

    #[test]
    fn a_server_without_databases_of_its_own_has_a_catalog_if_it_is_influxdb() {
        for recorded in crate::golden::servers("databases") {
            let rows: Vec<_> = recorded["names"].as_array().unwrap().iter().map(|name| json!([name])).collect();
            let mut list = json!({"name": "databases", "columns": ["name"]});
            if !rows.is_empty() {
                list["values"] = rows.into();
            }
            let body = json!({"results": [{"statement_id": 0, "series": [list]}]}).to_string();
            let client = answered(&format!("200 OK{}", recorded_fields(&recorded)), &body);
            assert_eq!(names(&client).is_ok(), recorded["catalog"], "{recorded}");
        }
    }

    #[test]
    fn nothing_is_known_before_a_backend_has_answered() {
        assert_eq!(merge([None, None]), handoff::Catalog::default());
        assert!(merge([None, Some(&Databases::new())]).known);
    }
}

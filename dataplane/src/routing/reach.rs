//! Which data a statement is about, by database and measurement.
//!
//! The database of a source is the one it names, else the one after ON, else the parameter `db`. SHOW MEASUREMENTS, TAG
//! KEYS and TAG VALUES ignore a database in their sources, as InfluxDB does. A statement that InfluxDB refuses for lack
//! of a database may go to any backend, since all give the same error.

use std::collections::BTreeSet;

use crate::influxql::ast::{Measurement, Name, Select, Show, ShowKind, Source, Statement};
use crate::influxql::visit;
use crate::placement::{Place, Placement};
use crate::topology::BackendId;

/// Which backends together answer a statement that only reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The backends that hold these places.
    Places(BTreeSet<Place>),
    /// All backends of one circle.
    Circle,
    /// Any one backend. With a database: any that has the database.
    Any { db: Option<String> },
}

/// How a statement is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    Read(Reach),
    /// Tells about each server: every backend is asked and nothing is merged.
    EveryServer,
    /// SELECT INTO: read first, then written through this proxy.
    Into,
    /// Changes databases, policies or data on all backends of all circles.
    Structure,
    Unsupported,
}

/// Classifies a statement. `default_db` is the parameter `db`, empty if there is none.
pub fn class(statement: &Statement, default_db: &str) -> Class {
    match statement {
        Statement::Select(select) if select.into.is_some() => Class::Into,
        Statement::Select(select) | Statement::Explain { select, .. } => Class::Read(of_select(select, default_db)),
        Statement::ShowDatabases | Statement::ShowContinuousQueries | Statement::ShowSubscriptions => {
            Class::Read(Reach::Circle)
        }
        Statement::ShowRetentionPolicies { db } => Class::Read(Reach::Any {
            db: Some(db.as_deref().unwrap_or(default_db).to_owned()).filter(|db| !db.is_empty()),
        }),
        Statement::Show(show) => Class::Read(of_show(show, default_db)),
        Statement::ShowServer { .. } => Class::EveryServer,
        Statement::CreateDatabase { .. }
        | Statement::DropDatabase { .. }
        | Statement::CreateRetentionPolicy(_)
        | Statement::AlterRetentionPolicy(_)
        | Statement::DropRetentionPolicy { .. }
        | Statement::Delete { .. }
        | Statement::DropSeries { .. }
        | Statement::DropMeasurement { .. } => Class::Structure,
        Statement::Unsupported { .. } => Class::Unsupported,
    }
}

/// Where the points lie that a statement reads, also one that writes what it has read; None: it reads none.
pub fn of_points(statement: &Statement, default_db: &str) -> Option<Reach> {
    match statement {
        Statement::Select(select) | Statement::Explain { select, .. } => Some(of_select(select, default_db)),
        Statement::Show(show) => Some(of_show(show, default_db)),
        _ => None,
    }
}

/// All measurements that a SELECT reads, in the order written, with those of subqueries.
pub fn leaves(select: &Select) -> Vec<&Measurement> {
    let mut leaves = Vec::new();
    visit::measurements(&select.sources, &mut |measurement| leaves.push(measurement));
    leaves
}

/// The same SELECT over only the measurements that `keep` accepts, and all regular expressions. None: no source is
/// left.
pub fn restrict(select: &Select, default_db: &str, keep: &dyn Fn(Place<&str>) -> bool) -> Option<Select> {
    let sources: Vec<Source> = select
        .sources
        .iter()
        .filter_map(|source| match source {
            Source::Measurement(m) => match &m.name {
                Name::Text(name) => keep(Place::new(m.db.as_deref().unwrap_or(default_db), name))
                    .then(|| Source::Measurement(m.clone())),
                Name::Regex(_) | Name::Same => Some(source.clone()),
            },
            Source::Subquery(inner) => restrict(inner, default_db, keep).map(|inner| Source::Subquery(Box::new(inner))),
        })
        .collect();
    (!sources.is_empty()).then(|| Select { sources, ..select.clone() })
}

fn of_select(select: &Select, default_db: &str) -> Reach {
    places(leaves(select).into_iter().map(|m| (m.db.as_deref().unwrap_or(default_db), &m.name)))
}

fn of_show(show: &Show, default_db: &str) -> Reach {
    let on = show.db.as_deref().unwrap_or(default_db);
    // SHOW MEASUREMENTS names its measurement in WITH, not in FROM.
    if show.what == ShowKind::Measurements {
        return match &show.with_measurement {
            Some(name) => places([(on, name)]),
            None if on.is_empty() => Reach::Any { db: None },
            None => Reach::Circle,
        };
    }
    let own_db_counts = !matches!(show.what, ShowKind::TagKeys | ShowKind::TagValues);
    let sources = show.sources.iter().filter_map(|source| match source {
        Source::Measurement(m) => Some((m.db.as_deref().filter(|_| own_db_counts).unwrap_or(on), &m.name)),
        Source::Subquery(_) => None,
    });
    if show.sources.is_empty() {
        return if on.is_empty() { Reach::Any { db: None } } else { Reach::Circle };
    }
    places(sources)
}

fn places<'a>(sources: impl IntoIterator<Item = (&'a str, &'a Name)>) -> Reach {
    let mut places = BTreeSet::new();
    for (db, name) in sources {
        match name {
            // InfluxDB asks for a database before it checks anything else.
            _ if db.is_empty() => return Reach::Any { db: None },
            Name::Text(name) => _ = places.insert(Place::new(db, name).owned()),
            Name::Regex(_) | Name::Same => return Reach::Circle,
        }
    }
    // Any backend refuses a statement without a source.
    if places.is_empty() { Reach::Any { db: None } } else { Reach::Places(places) }
}

/// The backends of one circle that answer together. Empty: any one backend will do.
pub fn backends_of(reach: &Reach, circle: usize, placement: &Placement) -> BTreeSet<BackendId> {
    match reach {
        Reach::Places(places) => places.iter().map(|place| placement.reader(circle, place.bytes())).collect(),
        Reach::Circle => placement.members(circle).iter().copied().collect(),
        Reach::Any { .. } => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(db: Option<&str>, name: &str) -> Source {
        Source::Measurement(Measurement { db: db.map(Into::into), rp: None, name: Name::Text(name.into()) })
    }

    fn select(sources: Vec<Source>) -> Select {
        Select { sources, ..Select::default() }
    }

    fn places_of(list: &[(&str, &str)]) -> Reach {
        Reach::Places(list.iter().map(|(db, m)| Place::new(*db, *m).owned()).collect())
    }

    #[test]
    fn a_select_reaches_the_owners_of_all_its_leaves() {
        let nested = Source::Subquery(Box::new(select(vec![measurement(Some("d2"), "b"), measurement(None, "a")])));
        let outer = select(vec![measurement(None, "a"), nested]);
        assert_eq!(of_select(&outer, "d1"), places_of(&[("d1", "a"), ("d2", "b")]));
        assert_eq!(of_select(&outer, ""), Reach::Any { db: None }, "refused by any backend for lack of a database");
        let regex = Source::Measurement(Measurement { db: None, rp: None, name: Name::Regex("a.*".into()) });
        assert_eq!(of_select(&select(vec![measurement(None, "a"), regex]), "d"), Reach::Circle);
    }

    #[test]
    fn a_restricted_select_keeps_what_its_backend_owns() {
        let nested = Source::Subquery(Box::new(select(vec![measurement(None, "b")])));
        let whole = select(vec![measurement(None, "a"), nested, measurement(Some("e"), "c")]);
        let left = restrict(&whole, "d", &|place| place == Place::new("d", "a")).unwrap();
        assert_eq!(left.sources, vec![measurement(None, "a")]);
        assert_eq!(restrict(&whole, "d", &|_| false), None);
    }

    #[test]
    fn show_ignores_a_database_in_its_sources_where_influxdb_does() {
        let show = |what| Show {
            what,
            db: Some("on".into()),
            sources: vec![measurement(Some("own"), "m")],
            with_measurement: None,
            with_key: None,
            condition: None,
            dimensions: vec![],
            order: None,
            limit: None,
            offset: None,
            slimit: None,
            soffset: None,
        };
        assert_eq!(of_show(&show(ShowKind::Series), "p"), places_of(&[("own", "m")]));
        assert_eq!(of_show(&show(ShowKind::TagKeys), "p"), places_of(&[("on", "m")]));
        assert_eq!(of_show(&Show { sources: vec![], ..show(ShowKind::TagKeys) }, "p"), Reach::Circle);
    }
}

//! Decides whether one backend alone can answer all statements of a request, and which backends can.

use std::collections::BTreeSet;

use crate::influxql::ast::Statement;
use crate::placement::Placement;
use crate::routing::reach::{Class, Reach, backends_of, class};
use crate::topology::{BackendId, Topology};

/// Who answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Any one of these backends, alone; not empty.
    Alone(BTreeSet<BackendId>),
    /// The control thread: several backends are needed, or something changes.
    Control,
}

/// `default_db` is the parameter `db`, empty if there is none.
pub fn route(statements: &[Statement], default_db: &str, topology: &Topology, placement: &Placement) -> Route {
    let mut reaches = Vec::new();
    for statement in statements {
        match class(statement, default_db) {
            // Not every backend may have the database: the control thread finds one that does.
            Class::Read(Reach::Any { db: Some(_) }) if topology.backends.len() > 1 => return Route::Control,
            Class::Read(reach) => reaches.push(reach),
            // With a single backend its own facts are complete.
            Class::EveryServer if topology.backends.len() == 1 => {}
            Class::EveryServer | Class::Into | Class::Structure | Class::Unsupported => return Route::Control,
        }
    }
    let alone = alone(&reaches, topology, placement);
    if alone.is_empty() { Route::Control } else { Route::Alone(alone) }
}

/// The backends that can answer everything alone, of all circles.
pub fn alone(reaches: &[Reach], topology: &Topology, placement: &Placement) -> BTreeSet<BackendId> {
    (0..topology.circles.len()).flat_map(|circle| of_circle(reaches, circle, placement)).collect()
}

/// The backends of one circle that can answer everything alone; usually one or none.
fn of_circle(reaches: &[Reach], circle: usize, placement: &Placement) -> BTreeSet<BackendId> {
    let together: BTreeSet<_> = reaches.iter().flat_map(|reach| backends_of(reach, circle, placement)).collect();
    match together.len() {
        0 => placement.members(circle).iter().copied().collect(),
        1 => together,
        _ => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influxql::ast::{Measurement, Name, Select, ServerFact, Source};
    use crate::placement::{Place, PlacementSettings};

    /// A cluster with circles of these sizes.
    fn cluster(sizes: &[usize]) -> (Topology, Placement) {
        let topology = Topology::of_sizes(sizes);
        let placement = Placement::new(&topology, &PlacementSettings::default());
        (topology, placement)
    }

    fn select(names: &[&str]) -> Statement {
        let source =
            |name: &&str| Source::Measurement(Measurement { db: None, rp: None, name: Name::Text((*name).into()) });
        Statement::Select(Box::new(Select { sources: names.iter().map(source).collect(), ..Select::default() }))
    }

    fn alone_at(ids: &[u16]) -> Route {
        Route::Alone(ids.iter().map(|&id| BackendId(id)).collect())
    }

    #[test]
    fn one_measurement_goes_to_its_owner_in_any_circle() {
        let (topology, placement) = cluster(&[2, 2]);
        let owners: BTreeSet<_> = (0..2).map(|c| placement.owner(c, Place::new(b"d", b"m"))).collect();
        assert_eq!(route(&[select(&["m"])], "d", &topology, &placement), Route::Alone(owners));
    }

    #[test]
    fn a_circle_of_one_backend_answers_all_reads() {
        let (topology, placement) = cluster(&[2, 1]);
        let names: Vec<_> = (0..20).map(|n| format!("m{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let both = [select(&names), Statement::ShowDatabases];
        assert_eq!(route(&both, "d", &topology, &placement), alone_at(&[2]));
        let (topology, placement) = cluster(&[2, 2]);
        assert_eq!(route(&both, "d", &topology, &placement), Route::Control);
    }

    #[test]
    fn statements_that_any_backend_answers_go_to_any_backend() {
        let (topology, placement) = cluster(&[2, 1]);
        let any = [Statement::ShowRetentionPolicies { db: None }];
        assert_eq!(route(&any, "", &topology, &placement), alone_at(&[0, 1, 2]));
        assert_eq!(route(&[], "", &topology, &placement), alone_at(&[0, 1, 2]), "no statement at all");
        let with_select = [any[0].clone(), select(&["m"])];
        let owners: BTreeSet<_> = (0..2).map(|c| placement.owner(c, Place::new(b"d", b"m"))).collect();
        assert_eq!(
            route(&with_select, "", &topology, &placement),
            alone_at(&[0, 1, 2]),
            "without a database: refused by any backend"
        );
        let of_a_database = [Statement::ShowRetentionPolicies { db: Some("d".into()) }];
        assert_eq!(
            route(&of_a_database, "", &topology, &placement),
            Route::Control,
            "not every backend has the database"
        );
        assert_eq!(route(&[select(&["m"])], "d", &topology, &placement), Route::Alone(owners));
    }

    #[test]
    fn changes_and_facts_of_several_servers_are_handed_over() {
        let (topology, placement) = cluster(&[1, 1]);
        let facts = Statement::ShowServer { what: ServerFact::Stats, module: None };
        let drop = Statement::DropDatabase { name: "d".into() };
        assert_eq!(route(&[select(&["m"]), drop], "d", &topology, &placement), Route::Control);
        assert_eq!(route(std::slice::from_ref(&facts), "d", &topology, &placement), Route::Control);
        let (topology, placement) = cluster(&[1]);
        assert_eq!(route(&[facts], "d", &topology, &placement), alone_at(&[0]));
    }
}

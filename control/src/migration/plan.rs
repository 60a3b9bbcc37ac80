//! The tasks of a migration, computed from where measurements are and where they belong. Pure.
//!
//! ```text
//!   inventory: by site, by database, the measurements there  ─┐
//!   placement: the owner in each circle                       ├─> tasks, in chains
//!   goal of the migration                                     ─┘
//! ```
//!
//! A *site* is a backend of the topology, by its number, or a backend that has left it, numbered after those. Tasks of
//! one (database, measurement) form a *chain*: they run one after another, so that two copies to one backend never
//! overlap. In a resync a chain goes by source circle, after which all circles hold the same. Where two circles differ,
//! the one with the lower number wins.
//!
//! Not here: calls to backends (`live_world.rs`), how points are copied (`copy.rs`), when a chain has failed
//! (`job.rs`).

use std::collections::{BTreeMap, BTreeSet};

use fluxgate_dataplane::placement::{FormerMember, Place, Placement};
use fluxgate_dataplane::topology::{Backend, BackendId, Topology};
use serde::{Deserialize, Serialize};

/// Number of a backend. Backends that have left the configuration are numbered after the last one.
pub type Site = usize;

/// By site: what it holds, by database. A site that could not be asked is not in it.
pub type Inventory = BTreeMap<Site, BTreeMap<String, BTreeSet<String>>>;

/// The goal of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Goal {
    /// Move all data of the circle, and of backends that left it, to where the ring puts it.
    Rebalance { circle: usize, removed: Vec<Removed> },
    /// Copy from the backends of one circle to the owners in another. `urls` = only to these, empty = to all.
    Recovery { from: usize, to: usize, urls: Vec<String> },
    /// Copy to each circle what the others have.
    Resync,
    /// Remove from each backend of the circle the measurements that it does not own.
    Clear { circle: usize },
}

/// A backend that has left the configuration, from the body of the request. Its password is never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    #[serde(default)]
    pub name: String,
    pub url: String,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub password: String,
}

/// Its credentials are not known.
impl From<FormerMember> for Removed {
    fn from(FormerMember { name, url, .. }: FormerMember) -> Self {
        Self { name, url, username: String::new(), password: String::new() }
    }
}

impl std::fmt::Debug for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Removed").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

impl Goal {
    /// The name in `/migrate/stats?type=`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rebalance { .. } => "rebalance",
            Self::Recovery { .. } => "recovery",
            Self::Resync => "resync",
            Self::Clear { .. } => "clear",
        }
    }

    /// The circle that is shown as migrating meanwhile. A resync has its own flag.
    pub fn migrating(&self) -> Option<usize> {
        match self {
            Self::Rebalance { circle, .. } | Self::Clear { circle } => Some(*circle),
            Self::Recovery { to, .. } => Some(*to),
            Self::Resync => None,
        }
    }

    pub fn removed(&self) -> &[Removed] {
        match self {
            Self::Rebalance { removed, .. } => removed,
            _ => &[],
        }
    }

    /// What an operator can do about a source that does not answer.
    pub fn advice(&self, topology: &Topology, site: Site) -> String {
        let Self::Rebalance { circle, .. } = self else {
            return "the rest is done: start the backend, then this migration again".to_owned();
        };
        if topology.circles.len() == 1 {
            return "the rest is moved: start the backend, then this migration again; no other circle has its data"
                .to_owned();
        }
        let gone = if site < topology.backends.len() { "remove it from the configuration, restart, " } else { "" };
        format!(
            "the rest is moved: start the backend, then this migration again; if its data is lost, \
             {gone}run a recovery of circle {circle} from another one, then a rebalance with `operation=add`"
        )
    }

    /// The sites whose measurements are listed.
    pub fn sources(&self, topology: &Topology) -> Vec<Site> {
        let of = |circle: usize| topology.circles[circle].backends.iter().map(|id| id.index());
        match self {
            Self::Rebalance { circle, removed } => {
                let left = (0..removed.len()).map(|n| topology.backends.len() + n);
                of(*circle).chain(left).collect()
            }
            Self::Recovery { from, .. } => of(*from).collect(),
            Self::Resync => (0..topology.circles.len()).flat_map(of).collect(),
            Self::Clear { circle } => of(*circle).collect(),
        }
    }
}

/// What to do with one measurement at one site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    pub place: Place,
    pub at: Site,
    pub work: Work,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    /// Copy it to `to`. The source keeps it.
    Copy { to: Site },
    /// Remove it from `at`, provided that its owner `right` has it.
    Delete { right: Site },
}

impl Work {
    pub fn other(self) -> Site {
        match self {
            Self::Copy { to } => to,
            Self::Delete { right } => right,
        }
    }
}

/// Tasks of one place, in the order in which they run.
pub type Chain = Vec<Task>;

/// The chains that reach the goal, by database and measurement. They cover only measurements in `inventory`, and of
/// these only the databases `dbs` (empty = all).
pub fn chains(
    goal: &Goal,
    inventory: &Inventory,
    topology: &Topology,
    placement: &Placement,
    dbs: &[String],
) -> Vec<Chain> {
    let mut chains = BTreeMap::<Place<&str>, Chain>::new();
    let sources = goal.sources(topology);
    for &at in &sources {
        for place in names(inventory, at, dbs) {
            let owner = |circle| placement.owner(circle, place.bytes()).index();
            let mut add = |work| {
                let task = Task { place: place.owned(), at, work };
                chains.entry(place).or_default().push(task);
            };
            // A removed backend may be a present one under another name: nothing is copied onto itself.
            match goal {
                Goal::Rebalance { circle, removed } => {
                    let to = owner(*circle);
                    let is_itself = at >= topology.backends.len()
                        && removed[at - topology.backends.len()].url == topology.backends[to].url;
                    if to != at && !is_itself {
                        add(Work::Copy { to });
                    }
                }
                Goal::Recovery { to, urls, .. } => {
                    let to = owner(*to);
                    if urls.is_empty() || urls.contains(&topology.backends[to].url) {
                        add(Work::Copy { to });
                    }
                }
                Goal::Resync => {
                    let here = topology.backends[at].circle;
                    for circle in (0..topology.circles.len()).filter(|&circle| circle != here) {
                        add(Work::Copy { to: owner(circle) });
                    }
                }
                Goal::Clear { circle } => {
                    let right = owner(*circle);
                    if right != at {
                        add(Work::Delete { right });
                    }
                }
            }
        }
    }
    // The last copy of a chain wins. A place that is written to has newer values than other places. Of two such places
    // the former owner is the one with complete data, so it comes last.
    for chain in chains.values_mut() {
        chain.sort_by_key(|task| {
            let circle = topology.backends.get(task.at).map(|backend| backend.circle);
            let rank = circle.map_or(0, |circle| {
                let place = task.place.bytes();
                let is_former = placement.former(circle, place).is_some_and(|id| id.index() == task.at);
                let owns = placement.owner(circle, place).index() == task.at;
                if is_former { 2 } else { u8::from(owns) }
            });
            (circle, rank, task.at, task.work)
        });
    }
    chains.into_values().collect()
}

/// All sites by number: the backends, and those that have left.
pub fn sites(topology: &Topology, goal: &Goal) -> Vec<Backend> {
    let circle = goal.migrating().unwrap_or(0);
    let left = goal.removed().iter().enumerate().map(|(n, removed)| Backend {
        id: BackendId((topology.backends.len() + n) as u16),
        // Its own name may be in use by a present backend.
        name: format!("{} ({})", removed.name, removed.url),
        url: removed.url.clone(),
        circle,
        index: n,
        username: removed.username.clone(),
        password: removed.password.clone(),
        write_only: false,
        catalog: None,
        leaving: true,
    });
    topology.backends.iter().cloned().chain(left).collect()
}

/// The measurements that `site` is known to hold.
pub fn names<'a>(inventory: &'a Inventory, site: Site, dbs: &'a [String]) -> impl Iterator<Item = Place<&'a str>> + 'a {
    let databases = inventory.get(&site).into_iter().flatten();
    let wanted = databases
        .filter(move |(db, _)| *db != crate::influx::catalog::INTERNAL && (dbs.is_empty() || dbs.contains(db)));
    wanted.flat_map(|(db, measurements)| measurements.iter().map(move |m| Place::new(db.as_str(), m.as_str())))
}

#[cfg(test)]
pub mod tests {
    use fluxgate_dataplane::placement::{Former, PlacementSettings};
    use proptest::prelude::*;

    use super::*;

    /// Circles with these numbers of backends.
    pub fn topology(circles: &[usize]) -> Topology {
        let mut topology = Topology::default();
        for (circle, &size) in circles.iter().enumerate() {
            let first = topology.backends.len();
            let backend = |index| Backend::new(format!("b{circle}-{index}"), format!("http://b{}", first + index));
            topology.add_circle(format!("c{circle}"), (0..size).map(backend));
        }
        topology
    }

    fn removed(url: &str) -> Removed {
        Removed { name: "gone".into(), url: url.into(), username: String::new(), password: String::new() }
    }

    /// Runs the planned tasks.
    fn run(inventory: &mut Inventory, chains: &[Chain]) {
        for task in chains.iter().flatten() {
            let holds = |inventory: &Inventory, site: Site| {
                names(inventory, site, &[]).any(|place| place == task.place.as_str())
            };
            assert!(holds(inventory, task.at), "{task:?}: the source has it");
            match task.work {
                Work::Copy { to } => {
                    assert_ne!(to, task.at);
                    let there = inventory.entry(to).or_default().entry(task.place.db.clone()).or_default();
                    there.insert(task.place.measurement.clone());
                }
                Work::Delete { right } => {
                    assert!(holds(inventory, right), "{task:?}: the right place has it");
                    inventory
                        .get_mut(&task.at)
                        .unwrap()
                        .get_mut(&task.place.db)
                        .unwrap()
                        .remove(&task.place.measurement);
                }
            }
        }
    }

    /// All places at `sites`.
    fn anywhere(inventory: &Inventory, sites: impl Iterator<Item = Site>) -> BTreeSet<Place> {
        let at = |site| names(inventory, site, &[]).map(|place| place.owned()).collect::<Vec<_>>();
        sites.flat_map(at).collect()
    }

    prop_compose! {
        fn world()(circles in prop::collection::vec(1..4usize, 1..4))(
            placed in prop::collection::vec((0..3u8, 0..12u8, 0..circles.iter().sum::<usize>() + 1), 0..60),
            circles in Just(circles),
        ) -> (Topology, Inventory) {
            let topology = topology(&circles);
            let mut inventory = Inventory::new();
            for (db, m, site) in placed {
                let db = if db == 2 { "_internal".to_owned() } else { format!("db{db}") };
                inventory.entry(site).or_default().entry(db).or_default().insert(format!("m{m}"));
            }
            (topology, inventory)
        }
    }

    proptest! {
        #[test]
        fn afterwards_every_measurement_is_where_the_ring_says_and_nowhere_else((topology, start) in world()) {
            let placement = Placement::new(&topology, &PlacementSettings::default());
            let owner = |circle: usize, place: &Place| placement.owner(circle, place.bytes()).index();
            let mut inventory = start.clone();
            let plan = |goal: Goal, inventory: &Inventory| chains(&goal, inventory, &topology, &placement, &[]);
            let sites = |circle: usize| topology.circles[circle].backends.iter().map(|id| id.index());
            let gone = topology.backends.len();
            for circle in 0..topology.circles.len() {
                let all = anywhere(&inventory, sites(circle).chain([gone]));
                let todo = plan(Goal::Rebalance { circle, removed: vec![removed("http://gone")] }, &inventory);
                run(&mut inventory, &todo);
                for name in &all {
                    let here = anywhere(&inventory, [owner(circle, name)].into_iter());
                    prop_assert!(here.contains(name), "{name:?}");
                }
            }
            let all = anywhere(&inventory, 0..gone);
            let todo = plan(Goal::Resync, &inventory);
            run(&mut inventory, &todo);
            for circle in 0..topology.circles.len() {
                let todo = plan(Goal::Clear { circle }, &inventory);
                run(&mut inventory, &todo);
                for site in sites(circle) {
                    let right = all.iter().filter(|name| owner(circle, name) == site).cloned().collect();
                    prop_assert_eq!(anywhere(&inventory, [site].into_iter()), right);
                }
                let again = plan(Goal::Clear { circle }, &inventory);
                prop_assert!(again.is_empty());
                let again = plan(Goal::Rebalance { circle, removed: vec![] }, &inventory);
                prop_assert!(again.is_empty());
            }
            let internal = |inventory: &Inventory| -> Vec<_> {
                let internal = |dbs: &BTreeMap<String, BTreeSet<String>>| dbs.get("_internal").cloned();
                inventory.iter().filter_map(|(site, dbs)| Some((*site, internal(dbs)?))).collect()
            };
            prop_assert_eq!(internal(&inventory), internal(&start), "_internal belongs to its server");
        }

        #[test]
        fn recovery_fills_the_owners_of_the_other_circle((topology, start) in world()) {
            prop_assume!(topology.circles.len() > 1);
            let placement = Placement::new(&topology, &PlacementSettings::default());
            let mut inventory = start;
            let from = anywhere(&inventory, topology.circles[0].backends.iter().map(|id| id.index()));
            let only = topology.backend(topology.circles[1].backends[0]).url.clone();
            let goal = |urls: Vec<String>| Goal::Recovery { from: 0, to: 1, urls };
            let first = chains(&goal(vec![only.clone()]), &inventory, &topology, &placement, &[]);
            for task in first.iter().flatten() {
                prop_assert_eq!(&topology.backends[task.work.other()].url, &only);
            }
            let todo = chains(&goal(vec![]), &inventory, &topology, &placement, &[]);
            run(&mut inventory, &todo);
            for name in &from {
                let owner = placement.owner(1, name.bytes()).index();
                prop_assert!(anywhere(&inventory, [owner].into_iter()).contains(name));
            }
        }
    }

    #[test]
    fn only_requested_databases_are_touched() {
        let topology = topology(&[1, 1]);
        let placement = Placement::new(&topology, &PlacementSettings::default());
        let names = BTreeSet::from(["m".to_owned()]);
        let dbs = ["a", "b", "_internal"].map(|db| (db.to_owned(), names.clone()));
        let inventory = Inventory::from([(0, BTreeMap::from(dbs))]);
        let plan = |dbs: &[String]| chains(&Goal::Resync, &inventory, &topology, &placement, dbs);
        assert_eq!(plan(&["b".to_owned()]).concat().iter().map(|task| &task.place.db[..]).collect::<Vec<_>>(), ["b"]);
        assert_eq!(plan(&[]).len(), 2);
        assert_eq!(plan(&["_internal".to_owned()]).len(), 0);
    }

    #[test]
    fn a_resync_goes_by_source_circle_and_the_owner_comes_last() {
        let topology = topology(&[2, 1, 1]);
        let placement = Placement::new(&topology, &PlacementSettings::default());
        let everywhere = |site| (site, BTreeMap::from([("d".to_owned(), BTreeSet::from(["m".to_owned()]))]));
        let inventory: Inventory = (0..4).map(everywhere).collect();
        let plan = chains(&Goal::Resync, &inventory, &topology, &placement, &[]);
        let owner = placement.owner(0, Place::new("d", "m").bytes()).index();
        let order: Vec<_> = plan[0].iter().map(|task| (task.at, task.work.other())).collect();
        let want = [(1 - owner, 2), (1 - owner, 3), (owner, 2), (owner, 3), (2, owner), (2, 3), (3, owner), (3, 2)];
        assert_eq!(order, want);
    }

    /// The former owner has had all writes, so its copy repairs values that an older copy may have overwritten.
    #[test]
    fn in_a_rebalance_the_former_owner_comes_last() {
        let topology = topology(&[3]);
        let member = FormerMember { name: "b0-0".into(), url: "http://b0".into(), gone: false };
        let former = Former { settings: PlacementSettings::default(), members: vec![member], as_written: None };
        let placement = Placement::new(&topology, &PlacementSettings::default()).with_former(&topology, 0, &former);
        let name = (0..)
            .map(|n| format!("m{n}"))
            .find(|m| placement.owner(0, Place::new("d", &**m).bytes()).index() == 2)
            .unwrap();
        let everywhere = |site| (site, BTreeMap::from([("d".to_owned(), BTreeSet::from([name.clone()]))]));
        let inventory: Inventory = (0..4).map(everywhere).collect();
        let goal = Goal::Rebalance { circle: 0, removed: vec![removed("http://gone")] };
        let plan = chains(&goal, &inventory, &topology, &placement, &[]);
        assert_eq!(plan[0].iter().map(|task| task.at).collect::<Vec<_>>(), [3, 1, 0]);
    }

    #[test]
    fn a_backend_named_in_the_body_that_is_the_owner_itself_is_not_copied_onto_itself() {
        let topology = topology(&[1]);
        let placement = Placement::new(&topology, &PlacementSettings::default());
        let inventory = Inventory::from([(1, BTreeMap::from([("d".to_owned(), BTreeSet::from(["m".to_owned()]))]))]);
        let goal = |url: &str| Goal::Rebalance { circle: 0, removed: vec![removed(url)] };
        assert!(chains(&goal("http://b0"), &inventory, &topology, &placement, &[]).is_empty());
        assert_eq!(chains(&goal("http://b9"), &inventory, &topology, &placement, &[]).len(), 1);
    }
}

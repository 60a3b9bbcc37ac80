//! Circles in transition: every read finds all data, whatever changes; without a transition nothing differs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::placement_test::{hash_key, settings, topology};
use super::*;

const DB: &[u8] = b"db";

fn names() -> Vec<String> {
    (0..60).map(|i| format!("m{i}")).collect()
}

/// The ring of the backends with these names; urls as in `topology`.
fn former(settings: &PlacementSettings, topology: &Topology, names: &[&str]) -> Former {
    let member = |name: &&str| FormerMember {
        name: (*name).to_owned(),
        url: topology.by_name(name).map_or_else(String::new, |backend| backend.url.clone()),
        gone: false,
    };
    Former { settings: settings.clone(), members: names.iter().map(member).collect(), as_written: None }
}

fn place(name: &str) -> Place<&[u8]> {
    Place::new(DB, name.as_bytes())
}

fn routes(placement: &Placement, name: &str) -> Vec<u16> {
    let mut route = Vec::new();
    placement.route(place(name), &mut route);
    route.into_iter().map(|id| id.0).collect()
}

#[test]
fn a_measurement_is_read_where_it_was_until_it_is_marked_and_written_to_both_until_the_end() {
    let topology = topology(&[3, 2]);
    let settings = settings(HashKey::Idx);
    let plain = Placement::new(&topology, &settings);
    let placement =
        plain.clone().with_former(&topology, 0, &former(&settings, &topology, &["influxdb-1-1", "influxdb-1-2"]));
    assert!(placement.in_transition(0) && !placement.in_transition(1));
    let moves = |name: &&String| placement.former(0, place(name)).is_some();
    let all = names();
    let (moving, staying): (Vec<_>, Vec<_>) = all.iter().partition(moves);
    assert!(moving.len() > 5 && staying.len() > 5, "{} of {}", moving.len(), all.len());
    let (first, second) = (moving[0], moving[1]);
    let marked =
        placement.with_moved(0, [Place::new("db", &first[..]).bytes(), Place::new("other", &second[..]).bytes()]);
    let settled = marked.with_settled(0);
    let ended = settled.with_ended(0);
    for name in &all {
        let (owner, was) = (plain.owner(0, place(name)), placement.former(0, place(name)));
        let single = routes(&plain, name);
        let both: Vec<_> = single.iter().copied().chain(was.map(|id| id.0)).collect();
        for (version, (placement, reader, route)) in [
            (&placement, was.unwrap_or(owner), &both),
            (&marked, if name == first { owner } else { was.unwrap_or(owner) }, &both),
            (&settled, owner, &both),
            (&ended, owner, &single),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(placement.version(), version as u64);
            assert_eq!(placement.owner(0, place(name)), owner, "an owner never changes");
            assert_eq!(placement.reader(0, place(name)), reader, "{name} {version}");
            assert_eq!(&routes(placement, name), route, "{name} {version}");
            assert_eq!(placement.reader(1, place(name)), plain.owner(1, place(name)));
        }
    }
}

#[test]
fn a_leaving_backend_owns_nothing_and_is_read_until_the_end() {
    let mut topology = topology(&[3]);
    topology.backends[1].leaving = true;
    let settings = settings(HashKey::Idx);
    let all = ["influxdb-1-1", "influxdb-1-2", "influxdb-1-3"];
    let placement = Placement::new(&topology, &settings).with_former(&topology, 0, &former(&settings, &topology, &all));
    // The others are placed as if it were not in the list.
    let mut without = super::placement_test::topology(&[2]);
    without.backends[1].name = "influxdb-1-3".to_owned();
    let without_it = Placement::new(&without, &settings);
    let leaving = BackendId(1);
    assert!(placement.members(0).contains(&leaving));
    let mut read_there = 0;
    for name in names() {
        let owner = placement.owner(0, place(&name));
        assert_eq!(owner.0, if without_it.owner(0, place(&name)).0 == 0 { 0 } else { 2 });
        read_there += u32::from(placement.reader(0, place(&name)) == leaving);
    }
    assert!(read_there > 5);
    let ended = placement.with_settled(0).with_ended(0);
    assert_eq!(ended.members(0), [BackendId(0), BackendId(2)]);
    assert!(names().iter().all(|name| routes(&ended, name).len() == 1));
}

#[test]
fn what_a_backend_held_that_is_gone_belongs_to_its_owner_at_once() {
    let topology = topology(&[2]);
    let settings = settings(HashKey::Idx);
    let mut before = former(&settings, &topology, &["removed", "influxdb-1-1", "influxdb-1-2"]);
    let check = |before: &Former, present: &dyn Fn(&str) -> bool| {
        let placement = Placement::new(&topology, &settings).with_former(&topology, 0, before);
        let was = Placement::new(&super::placement_test::topology(&[3]), &settings);
        for name in names() {
            let member = &before.members[was.owner(0, place(&name)).index()];
            let reader = topology.backend(placement.reader(0, place(&name)));
            let owner = topology.backend(placement.owner(0, place(&name)));
            assert_eq!(reader.name, if present(&member.name) { &member.name[..] } else { &owner.name[..] });
        }
    };
    check(&before, &|name| name != "removed");
    before.members[1].gone = true;
    check(&before, &|name| name == "influxdb-1-2");
}

#[test]
fn rings_that_place_alike_make_no_transition() {
    let topology = topology(&[3]);
    let all = ["influxdb-1-1", "influxdb-1-2", "influxdb-1-3"];
    for key in ["idx", "exi", "name", "url", "b%idx"] {
        let settings = settings(hash_key(key));
        let same = former(&settings, &topology, &all);
        let moved_host = Former {
            members: same.members.iter().map(|m| FormerMember { url: format!("{}0", m.url), ..m.clone() }).collect(),
            ..same.clone()
        };
        let in_transition =
            |former| Placement::new(&topology, &settings).with_former(&topology, 0, former).in_transition(0);
        assert!(!in_transition(&same), "{key}");
        assert_eq!(in_transition(&moved_host), key == "url", "an address matters only where it is the key");
        let other = PlacementSettings { shard_key: "%mm".to_owned(), ..settings.clone() };
        assert!(in_transition(&former(&other, &topology, &all)), "{key}");
    }
}

#[test]
fn a_table_goes_by_its_new_placement_and_keeps_the_routes_it_gave() {
    let topology = topology(&[3]);
    let settings = settings(HashKey::Idx);
    let placement = Arc::new(Placement::new(&topology, &settings).with_former(
        &topology,
        0,
        &former(&settings, &topology, &["influxdb-1-1", "influxdb-1-2"]),
    ));
    let name = names().into_iter().find(|m| placement.former(0, place(m)).is_some()).unwrap();
    let mut table = RouteTable::new(placement.clone());
    let both = table.lookup(place(&name));
    let (owner, was) = (placement.owner(0, place(&name)), placement.former(0, place(&name)));
    assert_eq!(table.backends(both), [Some(owner), was]);
    table.replace(Arc::new(placement.with_settled(0).with_ended(0)));
    let alone = table.lookup(place(&name));
    assert_eq!(table.backends(alone), [Some(owner)]);
    assert_eq!(table.backends(both), [Some(owner), was], "lines on their way to the log keep their route");
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum MoveStep {
    Write(usize),
    Mark(usize),
    End,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    /// Backends are sets of points. A mark copies first, as a migration does.
    #[test]
    fn a_reader_has_every_point_whatever_changes(
        before in proptest::collection::btree_set(0usize..6, 1..6),
        listed in proptest::collection::btree_set(0usize..6, 1..6),
        was_key in prop_oneof![Just("idx"), Just("name"), Just("b%idx")],
        key in prop_oneof![Just("idx"), Just("name"), Just("url")],
        steps in proptest::collection::vec(
            prop_oneof![
                4 => (0usize..60).prop_map(MoveStep::Write),
                3 => (0usize..60).prop_map(MoveStep::Mark),
                1 => Just(MoveStep::End),
            ],
            0..150,
        ),
    ) {
        // Backends that are no longer listed are leaving; none is gone.
        let mut topology = topology(&[6]);
        topology.circles[0].backends.retain(|id| before.contains(&id.index()) || listed.contains(&id.index()));
        for backend in &mut topology.backends {
            backend.leaving = !listed.contains(&backend.id.index());
        }
        let all = names();
        let old_names: Vec<_> = before.iter().map(|i| topology.backends[*i].name.clone()).collect();
        let old_names: Vec<_> = old_names.iter().map(String::as_str).collect();
        let was = former(&settings(hash_key(was_key)), &topology, &old_names);
        let plain = Placement::new(&topology, &settings(hash_key(key)));
        let mut placement = plain.clone().with_former(&topology, 0, &was);

        let mut data: BTreeMap<(BackendId, usize), BTreeSet<usize>> = BTreeMap::new();
        let mut written: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (name, text) in all.iter().enumerate() {
            let at = placement.former(0, place(text)).unwrap_or(plain.owner(0, place(text)));
            data.entry((at, name)).or_default().insert(0);
            written.entry(name).or_default().insert(0);
        }
        let mut next = 1;
        for step in steps {
            match step {
                MoveStep::Write(name) => {
                    for id in routes(&placement, &all[name]) {
                        data.entry((BackendId(id), name)).or_default().insert(next);
                    }
                    written.entry(name).or_default().insert(next);
                    next += 1;
                }
                MoveStep::Mark(name) => {
                    if let Some(from) = placement.former(0, place(&all[name])) {
                        let all_of_it = data.get(&(from, name)).cloned().unwrap_or_default();
                        data.entry((plain.owner(0, place(&all[name])), name)).or_default().extend(all_of_it);
                        placement = placement.with_moved(0, [place(&all[name])]);
                    }
                }
                MoveStep::End => {
                    // Only when all has been moved, as a rebalance does.
                    let whole = all.iter().all(|m| {
                        placement.former(0, place(m)).is_none() || placement.has_moved(0, place(m))
                    });
                    if whole {
                        placement = placement.with_settled(0).with_ended(0);
                    }
                }
            }
            for (name, points) in &written {
                let reader = placement.reader(0, place(&all[*name]));
                prop_assert!(placement.members(0).contains(&reader));
                prop_assert_eq!(data.get(&(reader, *name)), Some(points), "{} after {:?}", &all[*name], step);
                let route = routes(&placement, &all[*name]);
                prop_assert!(route.len() <= crate::limits::ROUTE_BACKENDS_MAX);
                prop_assert_eq!(route.iter().collect::<BTreeSet<_>>().len(), route.len(), "each once");
            }
        }
    }
}

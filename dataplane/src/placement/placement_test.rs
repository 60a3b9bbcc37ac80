//! Recorded placements of influx-proxy, each rule on its own, and the fast code against naive code.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::limits::{ROUTE_CACHE_ENTRIES_MAX, ROUTE_CACHE_KEY_BYTES_MAX};
use crate::lineproto::unescape_measurement;
use crate::topology::Backend;

/// Circles of the given sizes, names and urls as in the recorded configurations.
pub(super) fn topology(sizes: &[usize]) -> Topology {
    let mut topology = Topology::default();
    for (circle, &size) in sizes.iter().enumerate() {
        let backend = |index| {
            let port = 18_201 + index + 100 * circle;
            Backend::new(format!("influxdb-{}-{}", circle + 1, index + 1), format!("http://127.0.0.1:{port}"))
        };
        topology.add_circle(format!("circle-{}", circle + 1), (0..size).map(backend));
    }
    topology
}

pub(super) fn hash_key(text: &str) -> HashKey {
    match text {
        "idx" => HashKey::Idx,
        "exi" => HashKey::Exi,
        "name" => HashKey::Name,
        "url" => HashKey::Url,
        template => HashKey::Template(template.to_owned()),
    }
}

pub(super) fn settings(hash_key: HashKey) -> PlacementSettings {
    PlacementSettings { hash_key, ..Default::default() }
}

/// The ring by definition: the smallest point above the hash, or else the smallest of all; of equal points the one
/// added last.
mod naive {
    use super::*;

    pub fn owner(
        topology: &Topology,
        settings: &PlacementSettings,
        circle: usize,
        db: &[u8],
        measurement: &[u8],
    ) -> BackendId {
        let hash = |bytes: &[u8]| match settings.hash {
            RingHash::Crc32 => u64::from(crc32(bytes)),
            RingHash::Xxh3 => twox_hash::XxHash3_64::oneshot(bytes),
        };
        let key = hash(&[db, b",", measurement].concat());
        let mut points: Vec<(u64, BackendId)> = Vec::new();
        for &id in &topology.circles[circle].backends {
            let backend = topology.backend(id);
            let member = match &settings.hash_key {
                HashKey::Idx => format!("{}", backend.index),
                HashKey::Exi => format!("|{}", backend.index),
                HashKey::Name => backend.name.clone(),
                HashKey::Url => backend.url.clone(),
                HashKey::Template(text) => text.replace("%idx", &format!("{}", backend.index)),
            };
            for i in 0..settings.vnode_size {
                let value = hash(format!("{i}{member}").as_bytes());
                points.retain(|p| p.0 != value);
                points.push((value, id));
            }
        }
        let next = points.iter().filter(|p| p.0 > key).min_by_key(|p| p.0);
        next.or_else(|| points.iter().min_by_key(|p| p.0)).expect("points").1
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for &byte in bytes {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            }
        }
        !crc
    }
}

/// Rows of a CSV file with quoted fields (`""` for a quote; line breaks inside quotes).
fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            '\r' if !quoted => {}
            _ => field.push(c),
        }
    }
    rows
}

#[test]
fn every_recorded_placement_of_influx_proxy_is_kept() {
    let rows = csv_rows(include_str!("../../../tests/golden/placement.csv"));
    assert_eq!(rows[0], ["version", "hash_key", "n_backends", "db", "measurement", "backend_index"]);
    let mut placements = std::collections::HashMap::new();
    let mut checked = 0;
    for row in &rows[1..] {
        let [_, key, size, db, measurement, index] = row.as_slice() else { panic!("a row of six fields: {row:?}") };
        let placement = placements
            .entry((key.clone(), size.clone()))
            .or_insert_with(|| Placement::new(&topology(&[size.parse().expect("a number")]), &settings(hash_key(key))));
        let owner = placement.owner(0, Place::new(db.as_bytes(), measurement.as_bytes()));
        assert_eq!(owner.0.to_string(), *index, "{row:?}");
        checked += 1;
    }
    assert_eq!(checked, 3561);
}

#[test]
fn idx_loses_the_recorded_number_of_points_from_eleven_backends_on() {
    for (key, size, lost) in [
        ("idx", 10, 0),
        ("idx", 11, 25),
        ("idx", 12, 50),
        ("idx", 20, 250),
        ("exi", 20, 0),
        ("name", 20, 0),
        ("url", 20, 0),
        ("backend-%idx", 20, 0),
    ] {
        let placement = Placement::new(&topology(&[size]), &settings(hash_key(key)));
        assert_eq!(256 * size - placement.circles[0].len(), lost, "{key} {size}");
    }
}

#[test]
fn a_key_on_a_point_goes_to_the_next_one_and_past_the_last_to_the_first() {
    let members = [(BackendId(0), "0".to_owned()), (BackendId(1), "1".to_owned())];
    let ring = Ring::new(members.into_iter(), 1, RingHash::Crc32);
    let (p0, p1) = (RingHash::Crc32.hash(b"00"), RingHash::Crc32.hash(b"01"));
    let (low, high) = if p0 < p1 { ((p0, 0), (p1, 1)) } else { ((p1, 1), (p0, 0)) };
    for (hash, owner) in [
        (0, low.1),
        (low.0 - 1, low.1),
        (low.0, high.1),
        (high.0 - 1, high.1),
        (high.0, low.1),
        (u64::from(u32::MAX), low.1),
    ] {
        assert_eq!(ring.owner(hash), BackendId(owner), "{hash}");
    }
}

#[test]
fn shard_key_templates_shape_the_lookup_key() {
    let topology = topology(&[10]);
    let with = |shard_key: &str| {
        Placement::new(&topology, &PlacementSettings { shard_key: shard_key.to_owned(), ..Default::default() })
    };
    let key = |template: &str, db: &[u8], mm: &[u8]| -> Vec<u8> {
        key_parts(template)
            .iter()
            .flat_map(|part| match part {
                KeyPart::Text(text) => text.clone(),
                KeyPart::Db => db.to_vec(),
                KeyPart::Measurement => mm.to_vec(),
            })
            .collect()
    };
    for (template, want) in [
        ("%db,%mm", "d,m"),
        ("%mm", "m"),
        ("%db", "d"),
        ("x%mm/%db/%mmy", "xm/d/my"),
        ("%%db%", "%d%"),
        ("監%mm控", "監m控"),
        ("%d%m", "%d%m"),
    ] {
        assert_eq!(key(template, b"d", b"m"), want.as_bytes(), "{template}");
    }
    assert_eq!(key("%db,%mm", b"%mm", b"%db"), b"%mm,%db", "a name that looks like a placeholder is a name");
    let by_db = with("%db");
    for i in 0..50 {
        assert_eq!(
            by_db.owner(0, Place::new(b"db1", b"cpu")),
            by_db.owner(0, Place::new(b"db1", format!("m{i}").as_bytes()))
        );
    }
}

#[test]
fn shares_add_up_and_match_what_keys_do() {
    for hash in [RingHash::Crc32, RingHash::Xxh3] {
        let settings = PlacementSettings { hash, ..Default::default() };
        let placement = Placement::new(&topology(&[4, 1]), &settings);
        assert_eq!(placement.share(1), [(BackendId(4), 1.0)]);
        let shares = placement.share(0);
        assert!((shares.iter().map(|s| s.1).sum::<f64>() - 1.0).abs() < 1e-9);
        let mut counts = [0u32; 4];
        for i in 0..40_000 {
            counts[placement.owner(0, Place::new(b"db", format!("measurement_{i}").as_bytes())).index()] += 1;
        }
        for ((id, share), count) in shares.iter().zip(counts) {
            let seen = f64::from(count) / 40_000.0;
            assert!((seen - share).abs() < 0.02, "{hash:?} {id:?}: expected {share}, seen {seen}");
        }
    }
}

#[test]
fn escaped_and_plain_forms_of_one_name_share_a_route() {
    let mut table = RouteTable::new(Arc::new(Placement::new(&topology(&[12, 12]), &settings(HashKey::Name))));
    let escaped = table.lookup(Place::new(b"db1", br"my\ meas"));
    let mut want = Vec::new();
    table.placement().clone().route(Place::new(b"db1", b"my meas"), &mut want);
    assert_eq!(table.backends(escaped), want.into_iter().map(Some).collect::<Vec<_>>());
}

#[test]
fn at_its_bounds_the_table_empties_and_routes_stay_good() {
    let placement = Arc::new(Placement::new(&topology(&[3]), &settings(HashKey::Idx)));
    let mut table = RouteTable::new(placement.clone());
    let first = table.lookup(Place::new(b"db", b"m0"));
    let check = |table: &mut RouteTable, name: &[u8]| {
        let route = table.lookup(Place::new(b"db", name));
        assert_eq!(table.backends(route), [Some(placement.owner(0, Place::new(b"db", name)))]);
    };
    for i in 0..ROUTE_CACHE_ENTRIES_MAX + 10 {
        check(&mut table, format!("m{i}").as_bytes());
    }
    assert_eq!(table.entries(), 10);
    assert_eq!(table.lookup(Place::new(b"db", b"m0")), first);
    let long = vec![b'x'; 60_000];
    for i in 0..2 * ROUTE_CACHE_KEY_BYTES_MAX / long.len() {
        check(&mut table, &[&long, i.to_string().as_bytes()].concat());
        assert!(table.key_bytes() <= ROUTE_CACHE_KEY_BYTES_MAX);
    }
    let before = table.entries();
    check(&mut table, &vec![b'y'; 70_000]);
    assert_eq!(table.entries(), before, "a key beyond 16-bit lengths is answered but not kept");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn fast_lookup_agrees_with_the_naive_ring(
        sizes in proptest::collection::vec(1usize..13, 1..4),
        key in prop_oneof![Just("idx"), Just("exi"), Just("name"), Just("url"), Just("n%idxn")],
        hash in prop_oneof![Just(RingHash::Crc32), Just(RingHash::Xxh3)],
        vnode_size in prop_oneof![Just(1u32), Just(7), Just(32)],
        // Few distinct bytes and lengths, so that the boundary between db and measurement moves and keys repeat.
        names in proptest::collection::vec(("[ab,]{0,3}", r#"[ab,\\ ="]{0,4}"#), 1..60),
    ) {
        let topology = topology(&sizes);
        let settings = PlacementSettings { hash_key: hash_key(key), vnode_size, hash, ..Default::default() };
        let mut table = RouteTable::new(Arc::new(Placement::new(&topology, &settings)));
        for (db, raw) in names.iter().chain(&names) {
            let route = table.lookup(Place::new(db.as_bytes(), raw.as_bytes()));
            let name = unescape_measurement(raw.as_bytes());
            for circle in 0..sizes.len() {
                let want = naive::owner(&topology, &settings, circle, db.as_bytes(), &name);
                prop_assert_eq!(table.placement().owner(circle, Place::new(db.as_bytes(), &name)), want);
                prop_assert_eq!(table.backends(route)[circle], Some(want));
            }
        }
    }
}

//! Tests of merging against a model of one server: merged answers of shards equal the answer of a server with all data.

use std::collections::{BTreeMap, BTreeSet};

use fluxgate_dataplane::influxql::ast::{Show, ShowKind, Statement};
use fluxgate_dataplane::influxql::{Params, parse};
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::topology::BackendId;
use proptest::prelude::*;

use super::order::window;
use super::{cardinality, listing, merge, nowhere, rewrite};
use crate::influx::answer::{Answer, Message, Row, Series};

fn show(text: &str) -> Show {
    match parse(text, &Params::default()).unwrap().pop() {
        Some(Statement::Show(show)) => *show,
        other => panic!("{text}: {other:?}"),
    }
}

fn series(name: &str, tags: &[(&str, &str)], column: &[&str], rows: &[&[&str]]) -> Series {
    let json = |text: &&str| if text.parse::<u64>().is_ok() { (*text).to_owned() } else { format!("{text:?}") };
    let row = |row: &&[&str]| Row::of(row.iter().map(json).collect::<Vec<_>>().iter().map(|text| &text[..]));
    Series {
        name: name.to_owned(),
        tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        columns: column.iter().map(|column| (*column).to_owned()).collect(),
        rows: rows.iter().map(row).collect(),
        partial: false,
        ..Series::default()
    }
}

fn answers(list: impl IntoIterator<Item = Vec<Series>>) -> Vec<(BackendId, Answer)> {
    let answer = |series| Answer { series, ..Answer::default() };
    list.into_iter().enumerate().map(|(at, series)| (BackendId(at as u16), answer(series))).collect()
}

fn names(list: &[&str]) -> Vec<Series> {
    let rows: Vec<&[&str]> = list.iter().map(std::slice::from_ref).collect();
    vec![series("measurements", &[], &["name"], &rows)]
}

#[test]
fn names_are_one_sorted_set_before_offset_and_limit() {
    let merged = |text: &str| {
        let (a, b) = (names(&["Disk", "cpu", "cpu!"]), names(&["_x", "cpu", "cpu load", "été"]));
        merge(&show(text), answers([a, vec![], b])).series
    };
    assert_eq!(merged("SHOW MEASUREMENTS"), names(&["Disk", "_x", "cpu", "cpu load", "cpu!", "été"]));
    assert_eq!(merged("SHOW MEASUREMENTS LIMIT 2 OFFSET 2"), names(&["cpu", "cpu load"]));
    assert_eq!(merged("SHOW MEASUREMENTS OFFSET 6"), vec![]);
}

#[test]
fn series_are_marked_partial_as_influxdb_would() {
    let many = |from: usize, count: usize, partial| {
        let rows = (from..from + count).map(|n| Row::of([&format!("\"m,h={n:06}\"")[..]])).collect();
        vec![Series { columns: vec!["key".into()], rows, partial, ..Series::default() }]
    };
    let partial = |text: &str, a, b| merge(&show(text), answers([a, b])).series[0].partial;
    assert!(partial("SHOW SERIES", many(0, 6000, false), many(6000, 6000, false)));
    assert!(!partial("SHOW SERIES", many(0, 5000, false), many(5000, 5000, false)));
    assert!(partial("SHOW SERIES", many(0, 11_000, true), many(11_000, 1, false)));
    assert!(!partial("SHOW SERIES", many(0, 11_000, false), many(11_000, 1, false)), "of InfluxDB 1.8");
    assert!(!partial("SHOW SERIES LIMIT 9000", many(0, 9000, false), many(9000, 9000, false)));
}

#[test]
fn a_measurement_on_two_backends_is_shown_once() {
    let keys = |rows: &[&[&str]]| series("cpu", &[], &["key", "value"], rows);
    let (a, b) = (keys(&[&["host", "a"], &["host", "c"]]), keys(&[&["host", "a"], &["host", "b"], &["az", "z"]]));
    let mem = series("mem", &[], &["key", "value"], &[&["host", "a"]]);
    let merged = |text: &str| merge(&show(text), answers([vec![a.clone(), mem.clone()], vec![b.clone()]])).series;
    let whole = keys(&[&["az", "z"], &["host", "a"], &["host", "b"], &["host", "c"]]);
    assert_eq!(merged("SHOW TAG VALUES WITH KEY = host"), vec![whole, mem.clone()]);
    assert_eq!(
        merged("SHOW TAG VALUES WITH KEY = host LIMIT 2 OFFSET 1"),
        vec![keys(&[&["host", "a"], &["host", "b"]])],
        "mem has no second row"
    );
}

#[test]
fn long_key_lists_keep_their_mark_while_they_are_long() {
    let fields = || {
        let rows = (0..10_001).map(|n| Row::of([&format!("\"f{n:06}\"")[..], "\"float\""])).collect();
        vec![Series { name: "m".into(), rows, partial: true, ..Series::default() }]
    };
    let marked = |text: &str, list: Vec<Vec<Series>>| merge(&show(text), answers(list)).series[0].partial;
    assert!(marked("SHOW FIELD KEYS", vec![fields()]));
    assert!(marked("SHOW FIELD KEYS", vec![fields(), fields()]));
    assert!(!marked("SHOW FIELD KEYS LIMIT 10000", vec![fields()]));
}

#[test]
fn counts_of_measurements_add_up_and_counts_in_a_measurement_do_not() {
    let count = |name, tags: &[(&str, &str)], n| series(name, tags, &["count"], &[&[n]]);
    let a = vec![count("", &[("host", "a")], "2"), count("", &[("host", "b")], "1"), count("m", &[], "3")];
    let b = vec![count("", &[("host", "")], "4"), count("", &[("host", "a")], "5"), count("m", &[], "7")];
    let expected = vec![
        count("", &[("host", "")], "4"),
        count("", &[("host", "a")], "7"),
        count("", &[("host", "b")], "1"),
        count("m", &[], "7"),
    ];
    assert_eq!(cardinality::merge([a.clone(), b].concat()), expected);
    assert_eq!(cardinality::tag_keys(&answers([a])), BTreeSet::from(["host".to_owned()]));
}

#[test]
fn lists_keep_the_order_of_the_first_backend() {
    let db = |rows: &[&[&str]]| series("databases", &[], &["name"], rows);
    let (a, b) = (db(&[&["z"], &["a"]]), db(&[&["a"], &["m"], &["z"]]));
    assert_eq!(listing::merge(answers([vec![a], vec![b]])).series, vec![db(&[&["z"], &["a"], &["m"]])]);
    let query = |name, rows: &[&[&str]]| series(name, &[], &["name", "query"], rows);
    let a = vec![query("d2", &[]), query("d1", &[&["q", "x"]])];
    let b = vec![query("d1", &[&["q", "x"], &["r", "y"]]), query("d3", &[])];
    let expected = vec![query("d2", &[]), query("d1", &[&["q", "x"], &["r", "y"]]), query("d3", &[])];
    assert_eq!(listing::merge(answers([a, b])).series, expected);
}

#[test]
fn a_message_of_several_backends_appears_once() {
    let answer = || Answer { messages: vec![Message { level: "info".into(), text: "x".into() }], ..Answer::default() };
    let merged = merge(&show("SHOW SERIES"), vec![(BackendId(0), answer()), (BackendId(1), answer())]);
    assert_eq!(merged, answer());
}

#[test]
fn statements_for_backends_can_be_merged() {
    for (text, expected) in [
        ("SHOW MEASUREMENTS LIMIT 2 OFFSET 3", r#"SHOW MEASUREMENTS LIMIT 5"#),
        ("SHOW SERIES FROM cpu OFFSET 3", r#"SHOW SERIES FROM "cpu""#),
        ("SHOW TAG KEYS LIMIT 0 OFFSET 3", "SHOW TAG KEYS"),
        ("SHOW FIELD KEYS ORDER BY time LIMIT 1 OFFSET 1", "SHOW FIELD KEYS ORDER BY time LIMIT 2"),
        ("SHOW SERIES EXACT CARDINALITY LIMIT 1 OFFSET 1", "SHOW SERIES EXACT CARDINALITY LIMIT 1 OFFSET 1"),
        ("SHOW SERIES WHERE time > NOW() - 1h", r#"SHOW SERIES WHERE "time" > 42 - 1h"#),
        ("SHOW MEASUREMENT CARDINALITY GROUP BY *", "SHOW MEASUREMENT EXACT CARDINALITY GROUP BY *"),
    ] {
        // Both through the printer, which adds ASC.
        let print = |show: Show| Statement::Show(Box::new(show)).to_string();
        assert_eq!(print(rewrite::sent(&show(text), 42).unwrap()), print(show(expected)), "{text}");
    }
    for text in ["SHOW FIELD KEYS ORDER BY time DESC", "SHOW SERIES EXACT CARDINALITY GROUP BY time(1h)"] {
        assert!(rewrite::sent(&show(text), 42).is_err(), "{text}");
    }
}

#[test]
fn a_backend_is_asked_only_about_its_own_sources() {
    let place = |db: &str, m: &str| Place::new(db, m).owned();
    let share = BTreeSet::from([place("d", "cpu"), place("e", "mem")]);
    for (text, expected) in [
        ("SHOW SERIES FROM cpu, mem, e..mem, /x/", r#"SHOW SERIES FROM cpu, e..mem, /x/"#),
        ("SHOW TAG KEYS FROM e..cpu, e..mem", "SHOW TAG KEYS FROM e..cpu"),
        ("SHOW TAG KEYS ON e FROM cpu, mem", "SHOW TAG KEYS ON e FROM mem"),
    ] {
        assert_eq!(rewrite::restrict(&show(text), "d", &share), show(expected), "{text}");
    }
}

#[test]
fn a_database_that_all_asked_backends_lack_is_missing_though_others_answer() {
    let missing = |text: &str, parts: [&str; 2], errors: [Option<&str>; 2]| {
        let answer = |error: Option<&str>| error.map_or(Answer::default(), Answer::failed);
        let answers: Vec<_> = errors.into_iter().enumerate().map(|(n, e)| (BackendId(n as u16), answer(e))).collect();
        let parts = parts.map(show);
        nowhere(&answers, |backend, error| rewrite::names(&show(text), &parts[backend.index()], "d", error))
    };
    let db = "database not found: e";
    let split = ["SHOW SERIES FROM m", "SHOW SERIES FROM e..n"];
    assert_eq!(missing("SHOW SERIES FROM m, e..n", split, [None, Some(db)]).as_deref(), Some(db));
    let split = ["SHOW SERIES FROM e..m", "SHOW SERIES FROM e..n"];
    assert_eq!(missing("SHOW SERIES FROM e..m, e..n", split, [None, Some(db)]), None);
    let rp = "retention policy not found: r";
    let split = ["SHOW SERIES FROM m", "SHOW SERIES FROM r.n"];
    assert_eq!(missing("SHOW SERIES FROM m, r.n", split, [None, Some(rp)]).as_deref(), Some(rp));
    let split = ["SHOW SERIES FROM m", "SHOW SERIES FROM n"];
    assert_eq!(missing("SHOW SERIES FROM m, n", split, [None, Some(rp)]), None);
    assert_eq!(missing("SHOW SERIES FROM m, n", split, [None, Some("other")]), None);
}

/// A database in memory: by measurement, its series (each a list of tags) and its fields.
type Data = BTreeMap<String, (BTreeSet<Vec<(String, String)>>, BTreeSet<(String, String)>)>;

fn escaped(text: &str, also: &[char]) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c == ',' || c == ' ' || also.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The answer of one server with `data`.
fn server(data: &Data, show: &Show) -> Answer {
    let json = |text: &str| serde_json::to_string(text).unwrap().replace('<', "\\u003c");
    let row = |texts: &[&str]| Row::of(texts.iter().map(|text| json(text)).collect::<Vec<_>>().iter().map(|t| &t[..]));
    let one = |name: &str, columns: &[&str], rows: Vec<Row>| Series {
        name: name.to_owned(),
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        rows: window(rows.into_iter(), show.limit, show.offset).collect(),
        ..Series::default()
    };
    use ShowKind::{FieldKeys, MeasurementCardinality, Measurements, SeriesCardinality, TagKeys, TagValues};
    let series: Vec<Series> = match show.what {
        Measurements => vec![one("measurements", &["name"], data.keys().map(|name| row(&[name])).collect())],
        ShowKind::Series => {
            let key = |name: &str, tags: &[(String, String)]| {
                let tag = |(k, v): &(String, String)| format!(",{}={}", escaped(k, &['=']), escaped(v, &['=']));
                escaped(name, &[]) + &tags.iter().map(tag).collect::<String>()
            };
            let mut keys: Vec<_> =
                data.iter().flat_map(|(n, (all, _))| all.iter().map(move |tags| key(n, tags))).collect();
            if show.condition.is_some() {
                keys.sort();
            }
            vec![one("", &["key"], keys.iter().map(|key| row(&[key])).collect())]
        }
        TagKeys | TagValues => {
            let rows = |all: &BTreeSet<Vec<(String, String)>>| -> Vec<Row> {
                let tags: BTreeSet<_> = all.iter().flatten().collect();
                let keys: BTreeSet<_> = tags.iter().map(|(key, _)| key).collect();
                match show.what {
                    TagKeys => keys.into_iter().map(|key| row(&[key])).collect(),
                    _ => tags.into_iter().map(|(key, value)| row(&[key, value])).collect(),
                }
            };
            let columns: &[&str] = if show.what == TagKeys { &["tagKey"] } else { &["key", "value"] };
            data.iter().map(|(name, (all, _))| one(name, columns, rows(all))).collect()
        }
        FieldKeys => {
            let rows = |fields: &BTreeSet<(String, String)>| fields.iter().map(|(k, t)| row(&[k, t])).collect();
            data.iter().map(|(name, (_, fields))| one(name, &["fieldKey", "fieldType"], rows(fields))).collect()
        }
        SeriesCardinality { exact: true } => {
            let rows = |n: usize| vec![Row::of([&n.to_string()[..]])];
            data.iter().map(|(name, (all, _))| one(name, &["count"], rows(all.len()))).collect()
        }
        MeasurementCardinality { .. } if data.is_empty() => vec![],
        MeasurementCardinality { .. } => vec![one("", &["count"], vec![Row::of([&data.len().to_string()[..]])])],
        other => panic!("{other:?} has no model"),
    };
    let series = series.into_iter().filter(|series| !series.rows.is_empty()).collect();
    Answer { series, ..Answer::default() }
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        proptest::sample::select(vec!["a", "b", "cpu", "!", " ", ",", "=", "é", "<", "\"", "-", "_", "Z"]),
        1..4,
    )
    .prop_map(|parts| parts.concat())
}

fn data() -> impl Strategy<Value = Data> {
    let tags =
        proptest::collection::btree_map(text(), text(), 0..3).prop_map(|tags| tags.into_iter().collect::<Vec<_>>());
    let fields = (text(), proptest::sample::select(vec!["float", "integer"])).prop_map(|(k, t)| (k, t.to_owned()));
    let one = (proptest::collection::btree_set(tags, 1..6), proptest::collection::btree_set(fields, 1..4));
    proptest::collection::btree_map(text(), one, 0..12)
}

const FORMS: [&str; 8] = [
    "SHOW MEASUREMENTS",
    "SHOW SERIES",
    "SHOW SERIES WHERE time > 0",
    "SHOW TAG KEYS",
    "SHOW TAG VALUES WITH KEY =~ /./",
    "SHOW FIELD KEYS",
    "SHOW SERIES EXACT CARDINALITY",
    "SHOW MEASUREMENT EXACT CARDINALITY",
];

proptest! {
    /// Each measurement is on one shard, some on two (the second may have only a part).
    #[test]
    fn merged_shards_equal_one_server(
        whole in data(),
        owners in proptest::collection::vec((0usize..4, proptest::option::of(0usize..4), 0usize..4), 12),
        form in 0..FORMS.len(),
        limit in proptest::option::of(0u64..5),
        offset in proptest::option::of(0u64..4),
    ) {
        let mut asked = show(FORMS[form]);
        (asked.limit, asked.offset) = (limit, offset);
        let mut shards = vec![Data::new(); 4];
        for ((name, (all, fields)), (owner, second, part)) in whole.iter().zip(owners) {
            shards[owner].insert(name.clone(), (all.clone(), fields.clone()));
            // Measurements on two backends are counted twice.
            let counted_twice = FORMS[form].contains("MEASUREMENT EXACT");
            if let Some(second) = second.filter(|&second| second != owner && !counted_twice) {
                let some: BTreeSet<_> = all.iter().skip(part.min(all.len() - 1)).cloned().collect();
                shards[second].insert(name.clone(), (some, fields.clone()));
            }
        }
        let sent = rewrite::sent(&asked, 0).unwrap();
        let answers = shards.iter().enumerate().map(|(at, data)| (BackendId(at as u16), server(data, &sent))).collect();
        prop_assert_eq!(merge(&asked, answers), server(&whole, &asked));
    }
}

//! `docs/configuration.md` says of each key what the types say: its table is generated, and its defaults are tried.

use std::path::Path;

use super::config_test::json;
use super::file::{File, KeyDoc, Kind};
use super::parse;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
const BEGIN: &str =
    "<!-- The table is generated from src/config/file.rs: UPDATE=1 cargo test -p fluxgate --lib config -->\n";
const END: &str = "<!-- End of the generated table. -->\n";

/// One row for each key that holds a value; those of a table in it follow under its name.
fn rows(keys: &[KeyDoc], prefix: &str, out: &mut String) {
    for key in keys {
        let name = format!("{prefix}{}", key.name);
        let meaning = key.meaning.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        *out += &format!("| `{name}` | {} | {meaning} |\n", key.default);
        match key.kind {
            Kind::Table(keys) => rows(keys, &format!("{name}."), out),
            Kind::Tables(keys) => rows(keys, &format!("{name}[]."), out),
            Kind::Text | Kind::Whole | Kind::Flag | Kind::Texts => {}
        }
    }
}

#[test]
fn the_documented_table_is_the_one_of_the_types() {
    let mut table = String::from("| key | default | meaning |\n|---|---|---|\n");
    rows(File::KEYS, "", &mut table);
    let text = std::fs::read_to_string(DOCUMENT).expect("docs/configuration.md");
    let (head, rest) = text.split_once(BEGIN).expect("the mark before the table");
    let (shown, tail) = rest.split_once(END).expect("the mark behind the table");
    if std::env::var_os("UPDATE").is_some() {
        return std::fs::write(DOCUMENT, format!("{head}{BEGIN}\n{table}\n{END}{tail}")).expect("it can be written");
    }
    let advice = "docs/configuration.md differs from src/config/file.rs; UPDATE=1 rewrites it";
    assert_eq!(shown, format!("\n{table}\n"), "{advice}");
}

#[test]
fn documented_defaults_are_the_real_ones() {
    let settings = |keys: &str| {
        let config = parse(Path::new("f.json"), &json(&format!("{keys}, \"influx_proxy\": \"none\"")))
            .unwrap_or_else(|error| panic!("{error}"));
        format!("{config:?}")
    };
    let without = settings("\"log_enabled\": false");
    let mut tried = 0;
    for key in File::KEYS {
        let Some(value) = key.default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { continue };
        let value = match key.kind {
            Kind::Text => format!("{value:?}"),
            _ => value.to_owned(),
        };
        assert_eq!(settings(&format!("\"{}\": {value}", key.name)), without, "{}", key.name);
        tried += 1;
    }
    assert!(tried > 20, "only {tried} defaults are documented as values");
}

#[test]
fn every_key_has_a_meaning() {
    fn check(keys: &[KeyDoc]) {
        for key in keys {
            assert!(!key.meaning.is_empty(), "{} has no comment", key.name);
            assert!(key.meaning.iter().all(|line| !line.contains('|')), "{}: `|` ends a cell", key.name);
            if let Kind::Table(keys) | Kind::Tables(keys) = key.kind {
                check(keys);
            }
        }
    }
    check(File::KEYS);
}

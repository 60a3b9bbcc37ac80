//! Which version of influx-proxy a file is for, and the keys that this version ignores.
//!
//! Some keys exist in one version only. In a file of the other one they are left over, and have never had an effect: a
//! `vnode_size` in a file of 2.5 would put a sixth of all measurements on other backends. So they are taken out here,
//! before anything reads them, with a warning.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::document::FileFormat;
use super::problem::{Problem, key, problem};

/// Keys that only 2.4 has.
const OLDER: [&str; 4] = ["mlog_dir", "vnode_size", "auth_secure", "log_enabled"];
/// Keys that only 2.5 has. Not `pprof_enabled`: without it, profiles of 2.4 could not be switched off.
const NEWER: [&str; 9] = [
    "tlog_dir",
    "shard_key",
    "rewrite_threads",
    "conn_pool_size",
    "auth_encrypt",
    "ping_auth_enabled",
    "write_tracing",
    "query_tracing",
    "tls",
];
/// Keys of a backend that only 2.5 has.
const NEWER_OF_BACKEND: [&str; 2] = ["auth_encrypt", "write_only"];

/// Why it is this version, where the file has the key `influx_proxy`.
pub const SAID: &str = "the file says so";

/// Whose meaning the keys of a file have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// influx-proxy 2.4.
    Older,
    /// influx-proxy 2.5.
    Newer,
    /// No version of influx-proxy: no key is ignored.
    Any,
}

impl Version {
    /// As the key `influx_proxy` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Older => "2.4",
            Self::Newer => "2.5",
            Self::Any => "none",
        }
    }
}

/// What a file was written for.
pub(super) struct Decision {
    pub(super) version: Version,
    /// Why this one, for people.
    pub(super) why: String,
    pub(super) warning: Option<String>,
}

/// Decides, and takes the keys out that the version ignores. The keys of `tree` have been checked.
///
/// # Errors
/// When the keys of both versions are equally many and their values make a difference.
pub(super) fn settle(tree: &mut Value, format: FileFormat) -> Result<Decision, Problem> {
    let Value::Object(file) = tree else { unreachable!("a checked file is a table") };
    let older = present(file, &OLDER);
    let newer = [present(file, &NEWER), of_backends(file)].concat();
    let said = |version| (version, SAID.to_owned());
    let (version, why) = match text(file, "influx_proxy") {
        "2.4" => said(Version::Older),
        "2.5" => said(Version::Newer),
        "none" => said(Version::Any),
        "" => guess(file, format, &older, &newer)?,
        _ => return Err(problem(key("influx_proxy"), "influx_proxy must be \"2.4\", \"2.5\" or \"none\"")),
    };
    let (ignored, of, by) = match version {
        Version::Older => (newer, "2.5", "2.4"),
        Version::Newer => (older, "2.4", "2.5"),
        Version::Any => return Ok(Decision { version, why, warning: None }),
    };
    let warning = (!ignored.is_empty()).then(|| {
        // A wrong guess would look for data where it is not.
        let or_of = if why == SAID { String::new() } else { format!("\"{of}\" if it was used with {of}, or to ") };
        format!(
            "this file is for influx-proxy {by} ({why}), which ignores these keys of {of}, and so does fluxgate: {}; \
             remove them, or set influx_proxy to {or_of}\"none\" to have all keys count",
            ignored.join(", ")
        )
    });
    file.retain(|name, _| !ignored.iter().any(|ignored| ignored == name));
    if version == Version::Older {
        for backend in backends(file) {
            backend.retain(|name, _| !NEWER_OF_BACKEND.contains(&&name[..]));
        }
    }
    Ok(Decision { version, why, warning })
}

/// 2.4 reads only JSON, and refuses the newer kinds of `hash_key`. A key under its newer name was renamed for 2.5.
/// Otherwise the version with more keys has it; with equally many, the one whose keys change something.
fn guess(
    file: &Map<String, Value>,
    format: FileFormat,
    older: &[String],
    newer: &[String],
) -> Result<(Version, String), Problem> {
    let hash_key = text(file, "hash_key");
    let renamed = |name: &&String| *name == "tlog_dir" || name.ends_with("auth_encrypt");
    let guessed = |version, why: &str| Ok((version, why.to_owned()));
    if format != FileFormat::Json {
        return guessed(Version::Newer, "2.4 reads only JSON");
    }
    if hash_key == "exi" || hash_key.contains("%idx") {
        return guessed(Version::Newer, "2.4 does not take its hash_key");
    }
    if let Some(name) = newer.iter().find(renamed) {
        return Ok((Version::Newer, format!("only 2.5 has {name}")));
    }
    let counts = format!("keys of 2.4: {}, of 2.5: {}", older.len(), newer.len());
    match older.len().cmp(&newer.len()) {
        Ordering::Less => return Ok((Version::Newer, counts)),
        Ordering::Greater => return Ok((Version::Older, counts)),
        Ordering::Equal if newer.is_empty() => return guessed(Version::Any, "no key is of one version only"),
        Ordering::Equal => {}
    }
    if older.iter().all(|name| is_default(file, name)) {
        return guessed(Version::Newer, "its keys of 2.4 change nothing");
    }
    if newer.iter().all(|name| is_default(file, name)) {
        return guessed(Version::Older, "its keys of 2.5 change nothing");
    }
    let what = format!(
        "influx-proxy 2.5 ignores {}, and 2.4 ignores {}: set influx_proxy to \"2.4\" or \"2.5\", whichever this file \
         was used with, or to \"none\" to have all keys count",
        older.join(", "),
        newer.join(", ")
    );
    Err(problem(key(&older[0]), what))
}

/// Those of `names` that have a value.
fn present(table: &Map<String, Value>, names: &[&str]) -> Vec<String> {
    let has = |name: &&&str| table.get(**name).is_some_and(|value| !value.is_null());
    names.iter().filter(has).map(|name| (*name).to_owned()).collect()
}

fn of_backends(file: &mut Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for backend in backends(file) {
        for name in present(backend, &NEWER_OF_BACKEND) {
            let name = format!("circles[].backends[].{name}");
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

fn backends(file: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let circles = file.get_mut("circles").and_then(Value::as_array_mut).into_iter().flatten();
    let of_circle = |circle| Value::as_array_mut(Value::get_mut(circle, "backends")?);
    circles.filter_map(of_circle).flatten().filter_map(Value::as_object_mut)
}

fn text<'a>(file: &'a Map<String, Value>, name: &str) -> &'a str {
    file.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Whether the value is what the key means when it is missing.
fn is_default(file: &Map<String, Value>, name: &str) -> bool {
    let number = |default: i64| file[name].as_i64().is_some_and(|number| number <= 0 || number == default);
    let text = |default: &str| file[name].as_str().is_some_and(|text| text.is_empty() || text == default);
    match name {
        "mlog_dir" => text("log"),
        "shard_key" => text("%db,%mm"),
        "vnode_size" => number(256),
        // They have no effect, whatever they say.
        "rewrite_threads" | "conn_pool_size" => true,
        _ => file.get(name).is_some_and(|value| value == &Value::Bool(false)),
    }
}

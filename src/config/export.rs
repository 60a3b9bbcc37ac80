//! Writes a file of influx-proxy or influxdb-relay as a commented one of fluxgate's, in TOML: `fluxgate import-config`.
//!
//! Each key is there with its meaning, as in `docs/configuration.md`. Keys that have no effect are left out. User names
//! and passwords stay as they are, encrypted or not.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::file::{File, KeyDoc, Kind};
use super::source::{Checked, Content, Source};
use super::version::{Decision, Version};
use super::{ConfigError, relay};
use crate::tls;

/// Keys of influx-proxy that fluxgate takes and does not use.
const WITHOUT_EFFECT: [&str; 3] = ["flush_time", "rewrite_threads", "conn_pool_size"];
/// Columns of a comment.
const WIDTH: usize = 100;

/// The text of a file that means the same as `text`, which was read from `path`.
///
/// # Errors
/// As [`super::parse`].
pub fn import(path: &Path, text: &str) -> Result<String, ConfigError> {
    let source = Source::new(path, text);
    let name = path.file_name().unwrap_or_default().display().to_string();
    let (from, keys, mut notes) = match source.read()? {
        Content::Relay(tree) => {
            let mut relay = relay::translate(&tree).map_err(|problem| source.located(problem))?;
            // TOML without it is taken for a file of influx-proxy 2.5.
            relay.keys.insert("influx_proxy".to_owned(), Version::Any.name().into());
            ("influxdb-relay", relay.keys, relay.notes)
        }
        Content::Proxy(Checked { tree, loose, decision: Decision { version, warning, .. } }) => {
            let notes = loose.into_iter().map(|warning| warning.what).chain(warning).collect();
            let Value::Object(mut keys) = tree else { unreachable!("a checked file is a table") };
            keys.insert("influx_proxy".to_owned(), version.name().into());
            if version == Version::Older {
                keys.entry("ignore_rp").or_insert(true.into());
            }
            ("influx-proxy", keys, notes)
        }
    };
    let idle: Vec<_> = WITHOUT_EFFECT.into_iter().filter(|name| keys.contains_key(*name)).collect();
    if !idle.is_empty() {
        notes.push(format!("left out, since they have no effect here: {}", idle.join(", ")));
    }
    let mut out = String::new();
    comment(&mut out, &format!("fluxgate's configuration, made from {name} of {from}."));
    comment(&mut out, "All keys and their defaults: docs/configuration.md.");
    notes.iter().for_each(|note| comment(&mut out, &format!("NOTE: {note}")));
    table(&mut out, &keys, File::KEYS, "");
    Ok(out)
}

/// Plain values first, then the tables: TOML knows no way back.
fn table(out: &mut String, keys: &Map<String, Value>, known: &[KeyDoc], prefix: &str) {
    let present = |key: &&KeyDoc| keys.get(key.name).is_some_and(|value| !is_empty(value));
    for key in known.iter().filter(present).filter(|key| !WITHOUT_EFFECT.contains(&key.name)) {
        let value = &keys[key.name];
        let name = format!("{prefix}{}", key.name);
        match (key.kind, value) {
            (Kind::Table(_) | Kind::Tables(_), _) => {}
            _ => {
                if prefix.is_empty() {
                    out.push('\n');
                    comment(out, &meaning(key));
                }
                let _ = writeln!(out, "{} = {}", key.name, plain(value));
                hint(out, &name, value, keys);
            }
        }
    }
    for key in known.iter().filter(present) {
        let name = format!("{prefix}{}", key.name);
        match (key.kind, &keys[key.name]) {
            (Kind::Table(known), Value::Object(keys)) => {
                let _ = writeln!(out, "\n[{name}]");
                table(out, keys, known, &format!("{name}."));
            }
            (Kind::Tables(known), Value::Array(items)) => {
                for keys in items.iter().filter_map(Value::as_object) {
                    let _ = writeln!(out, "\n[[{name}]]");
                    table(out, keys, known, &format!("{name}."));
                }
            }
            _ => {}
        }
    }
}

/// influx-proxy verifies no certificate.
fn hint(out: &mut String, name: &str, value: &Value, keys: &Map<String, Value>) {
    let is_https = value.as_str().is_some_and(|url| tls::is_https(&url.to_ascii_lowercase()));
    if name == "circles.backends.url" && is_https && !keys.contains_key("insecure_skip_verify") {
        comment(
            out,
            "Its certificate is verified here. One of your own authority needs ca_file, one that signs itself:",
        );
        out.push_str("# insecure_skip_verify = true\n");
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.values().all(is_empty),
        _ => false,
    }
}

/// As TOML has it, which is JSON for these, but for one character.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        value => value.to_string().replace('\u{7f}', "\\u007f"),
    }
}

/// The meaning of a key, without links.
fn meaning(key: &KeyDoc) -> String {
    let text = key.meaning.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    match (text.find(" (["), text.find("))")) {
        (Some(begin), Some(end)) if begin < end => text[..begin].to_owned() + &text[end + 2..],
        _ => text,
    }
    .replace("**", "")
}

/// Text in lines of a comment.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && line.len() > 1 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

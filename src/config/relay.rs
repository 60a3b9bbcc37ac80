//! The configuration of influxdb-relay, as keys of ours. A relay sends each write to all its outputs: each output
//! becomes a circle of one backend.
//!
//! What has no counterpart is told in notes, for the operator to read. Not here: writing the keys down (`export`).

use std::ptr;

use serde_json::{Map, Value, json};

use super::document::KeyStep;
use super::problem::{Problem, problem};

/// Keys of ours, and what an operator must know of the rest.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) keys: Map<String, Value>,
    pub(super) notes: Vec<String>,
}

/// Whether this is a relay's file: its listeners are under `http` and `udp`, each with a `bind-addr`.
pub(super) fn is_relay(tree: &Value) -> bool {
    let is_listener = |table: &Value| table.get("bind-addr").is_some() || table.get("output").is_some();
    ["http", "udp"].iter().any(|kind| tables(tree, kind).any(is_listener))
}

/// What to say when fluxgate is started with such a file.
pub(super) fn refusal() -> Problem {
    let what = "this is a file of influxdb-relay; `fluxgate import-config FILE > fluxgate.toml` writes one of \
                fluxgate's from it: each output becomes a circle with one backend";
    problem(Vec::new(), what)
}

/// Translates.
///
/// # Errors
/// When no output can be written to over HTTP.
pub(super) fn translate(tree: &Value) -> Result<Relay, Problem> {
    let mut relay = Relay { keys: Map::new(), notes: Vec::new() };
    let Some(http) = tables(tree, "http").find(|http| tables(http, "output").next().is_some()) else {
        let what = "this file of influxdb-relay has no [[http]] with an output: fluxgate delivers over HTTP, so write \
                    circles with the HTTP addresses of the servers";
        return Err(problem(vec![KeyStep::Key("udp".to_owned())], what));
    };
    relay.set("listen_addr", text(http, "bind-addr"));
    let pem = text(http, "ssl-combined-pem");
    if pem.is_some() {
        relay.keys.insert("https_enabled".to_owned(), true.into());
        relay.set("https_cert", pem.clone());
        relay.set("https_key", pem);
    }
    if let Some(policy) = text(http, "default-retention-policy") {
        relay.notes.push(format!(
            "default-retention-policy {policy:?} is left out: make it the default policy of the databases \
             (ALTER RETENTION POLICY ... DEFAULT)"
        ));
    }
    for other in tables(tree, "http").filter(|other| !ptr::eq(*other, http)) {
        let addr = text(other, "bind-addr").unwrap_or_default();
        relay.notes.push(format!("fluxgate listens on one address: [[http]] with bind-addr {addr:?} is left out"));
    }
    relay.outputs(http);
    relay.udp(tree);
    Ok(relay)
}

impl Relay {
    fn set(&mut self, key: &str, value: Option<String>) {
        if let Some(value) = value {
            self.keys.insert(key.to_owned(), value.into());
        }
    }

    fn outputs(&mut self, http: &Value) {
        let mut circles: Vec<Value> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let (mut write_timeout, mut rewrite_interval) = (None, None);
        for (index, output) in tables(http, "output").enumerate() {
            let mut name = text(output, "name").unwrap_or_else(|| format!("backend-{}", index + 1)).replace('/', "-");
            if names.contains(&name) {
                name = format!("{name}-{}", index + 1);
            }
            let location = text(output, "location").unwrap_or_default();
            let mut backend = json!({"name": name, "url": self.url(&location)});
            for (theirs, ours) in [("http-user", "username"), ("http-pass", "password")] {
                if let Some(value) = text(output, theirs) {
                    backend[ours] = value.into();
                }
            }
            if output.get("skip-tls-verification") == Some(&Value::Bool(true)) {
                backend["insecure_skip_verify"] = true.into();
            }
            write_timeout = write_timeout.max(text(output, "timeout").and_then(|text| seconds(&text)));
            let delay = text(output, "max-delay-interval").and_then(|text| seconds(&text));
            rewrite_interval = rewrite_interval.max(delay);
            circles.push(json!({"name": name, "backends": [backend]}));
            names.push(name);
        }
        for (key, value) in [("write_timeout", write_timeout), ("rewrite_interval", rewrite_interval)] {
            if let Some(value) = value {
                self.keys.insert(key.to_owned(), value.into());
            }
        }
        if tables(http, "output").any(|output| output.get("buffer-size-mb").is_some()) {
            self.notes.push(
                "buffer-size-mb is left out: every write is in a log on disk before it is answered; backlog_max_bytes \
                 bounds it"
                    .to_owned(),
            );
        }
        if tables(http, "output").any(|output| output.get("max-batch-kb").is_some()) {
            self.notes.push("max-batch-kb is left out: flush_size says how many points are in one batch".to_owned());
        }
        self.keys.insert("circles".to_owned(), circles.into());
    }

    /// The server of a location, which names the path of writes as well.
    fn url(&mut self, location: &str) -> String {
        let (scheme, rest) = location.split_once("://").unwrap_or(("http", location));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, "write"));
        if path != "write" {
            self.notes.push(format!("the path of location {location:?} is left out: fluxgate writes to /write"));
        }
        format!("{scheme}://{authority}")
    }

    fn udp(&mut self, tree: &Value) {
        let mut listeners = Vec::new();
        for udp in tables(tree, "udp") {
            let Some(bind) = text(udp, "bind-addr") else { continue };
            let mut listener = json!({"bind": bind, "database": "udp"});
            if let Some(precision) = text(udp, "precision") {
                listener["precision"] = precision.into();
            }
            if let Some(bytes) = udp.get("read-buffer").and_then(Value::as_i64).filter(|&bytes| bytes > 0) {
                listener["read_buffer"] = bytes.into();
            }
            listeners.push(listener);
            self.notes.push(format!(
                "udp {bind}: set database to the one that the servers named for what they received over UDP; the \
                 points now go to all circles, over HTTP"
            ));
        }
        if !listeners.is_empty() {
            self.keys.insert("udp".to_owned(), listeners.into());
        }
    }
}

fn tables<'a>(tree: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    tree.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text(table: &Value, name: &str) -> Option<String> {
    let text = table.get(name)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Whole seconds of a time as Go writes it, at least 1; None for what is not understood.
fn seconds(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let mut sum = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let (unit, factor) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        sum += number.parse::<f64>().ok()? * factor;
        rest = &tail[unit.len()..];
    }
    Some((sum.ceil() as i64).max(1))
}

//! `/migrate/state` and `/migrate/stats` (`/transfer/state` and `/transfer/stats` in 2.5): which circles are migrating,
//! and the progress of a migration.
//!
//! Counters are per backend; for a recovery, per backend that it reads from. Each type of migration shows the counters
//! of its last run.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::ser::SerializeMap as _;

use super::{Action, AdminCall, AdminState, Dialect, json, order};
use crate::clock::unix_ms;
use crate::migration::job::Job;
use crate::migration::jobs;
use crate::migration::order::TaskState;
use crate::migration::peers::{self, INSTANCE, PeerChange, WAITING};

struct CircleState<'a> {
    form: Dialect,
    id: usize,
    name: &'a str,
    migrating: bool,
}

impl Serialize for CircleState<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = match self.form {
            Dialect::Older => ["circle_id", "circle_name", "is_migrating"],
            Dialect::Newer => ["id", "name", "transferring"],
        };
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(names[0], &self.id)?;
        map.serialize_entry(names[1], self.name)?;
        map.serialize_entry(names[2], &self.migrating)?;
        map.end()
    }
}

#[derive(Serialize)]
struct Older<'a> {
    circles: Vec<CircleState<'a>>,
    is_resyncing: bool,
}

#[derive(Serialize)]
struct Newer<'a> {
    circles: Vec<CircleState<'a>>,
    resyncing: bool,
}

#[derive(Serialize)]
struct Set<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    circle: Option<CircleState<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resyncing: Option<bool>,
}

pub fn state(state: &AdminState, call: &AdminCall<'_>) -> Action {
    if call.method == "POST" {
        return set(state, call);
    }
    let circle = |id| circle(state, call.form, id, state.jobs.is_migrating(id));
    let circles = (0..state.topology.circles.len()).map(circle).collect();
    let resyncing = state.jobs.is_resyncing();
    let mut response = match call.form {
        Dialect::Older => json(&Older { circles, is_resyncing: resyncing }, call.query.pretty()),
        Dialect::Newer => json(&Newer { circles, resyncing }, call.query.pretty()),
    };
    response.headers.push((INSTANCE.to_owned(), state.jobs.instance().to_owned()));
    Action::Answer(response)
}

fn circle(state: &AdminState, form: Dialect, id: usize, migrating: bool) -> CircleState<'_> {
    CircleState { form, id, name: &state.topology.circles[id].name, migrating }
}

fn set(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let name = match call.form {
        Dialect::Older => "migrating",
        Dialect::Newer => "transferring",
    };
    let (resyncing, id, migrating) = (call.text("resyncing"), call.text("circle_id"), call.text(name));
    let mut changes = Vec::new();
    let mut answer = Set { circle: None, resyncing: None };
    if !resyncing.is_empty() {
        let Some(resyncing) = boolean(&resyncing) else { return call.refuse(400, "illegal resyncing") };
        changes.push(PeerChange::Resyncing(resyncing));
        answer.resyncing = Some(resyncing);
    }
    if !id.is_empty() || !migrating.is_empty() {
        let id = match order::circle(state, call, "circle_id") {
            Ok(id) => id,
            Err(refused) => return refused,
        };
        let Some(migrating) = boolean(&migrating) else { return call.refuse(400, &format!("illegal {name}")) };
        let moved = !migrating && boolean(&call.text("moved")) == Some(true);
        changes.push(PeerChange::Migrating { circle: id, migrating, moved });
        answer.circle = Some(circle(state, call.form, id, migrating));
    }
    if changes.is_empty() {
        return call.refuse(400, "missing query parameter");
    }
    let mut response = json(&answer, call.query.pretty());
    let waiting = peers::waiting(&state.stats, unix_ms());
    if !waiting.is_empty() {
        response.headers.push((WAITING.to_owned(), waiting));
    }
    Action::SetMigration { changes, response }
}

/// Parses a boolean as Go does.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// influx-proxy's counters of one backend.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counters {
    database_total: u64,
    database_done: u64,
    measurement_total: u64,
    measurement_done: u64,
    migrate_count: u64,
    inplace_count: u64,
}

struct MigrationStats {
    form: Dialect,
    by_url: BTreeMap<String, Counters>,
}

impl Serialize for MigrationStats {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = |(url, counters)| (url, InWords(self.form, counters));
        serializer.collect_map(self.by_url.iter().map(shown))
    }
}

/// Counters with the field names of a dialect.
struct InWords<'a>(Dialect, &'a Counters);

impl Serialize for InWords<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(form, counters) = self;
        let count = if *form == Dialect::Older { "migrate_count" } else { "transfer_count" };
        serializer.collect_map([
            ("database_total", counters.database_total),
            ("database_done", counters.database_done),
            ("measurement_total", counters.measurement_total),
            ("measurement_done", counters.measurement_done),
            (count, counters.migrate_count),
            ("inplace_count", counters.inplace_count),
        ])
    }
}

pub fn stats(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let circle = match order::circle(state, call, "circle_id") {
        Ok(circle) => circle,
        Err(refused) => return refused,
    };
    let kind = match (&*call.text("type"), call.form) {
        ("clear", Dialect::Older) | ("cleanup", Dialect::Newer) => "clear",
        ("rebalance", _) => "rebalance",
        ("recovery", _) => "recovery",
        ("resync", _) => "resync",
        _ => return call.refuse(400, "invalid stats type"),
    };
    let backends = state.topology.circles[circle].backends.iter();
    let mut by_url: BTreeMap<_, _> =
        backends.map(|&id| (state.topology.backend(id).url.clone(), Counters::default())).collect();
    if let Some(job) = jobs::last_of(&state.jobs, kind, circle) {
        by_url.extend(counters(job, circle));
    }
    Action::Answer(json(&MigrationStats { form: call.form, by_url }, call.query.pretty()))
}

/// influx-proxy's counters of the backends of one circle, by URL.
pub fn counters(job: &Job, circle: usize) -> BTreeMap<String, Counters> {
    let inner = job.look();
    // By backend and (database, measurement): whether all tasks have ended, and whether all ended well.
    let mut work = BTreeMap::<&str, BTreeMap<(&str, &str), (bool, bool)>>::new();
    for entry in &inner.entries {
        let measurement = (&entry.key.db[..], &entry.key.measurement[..]);
        let (ended, well) = work.entry(&entry.key.from).or_default().entry(measurement).or_insert((true, true));
        *ended &= matches!(entry.state, TaskState::Done | TaskState::Failed);
        *well &= entry.state == TaskState::Done;
    }
    let nothing = BTreeMap::new();
    let of = |counts: &crate::migration::order::Counts| {
        let work = work.get(&counts.name[..]).unwrap_or(&nothing);
        let total: u64 = counts.databases.values().sum();
        let open: BTreeSet<&str> = work.iter().filter(|(_, (ended, _))| !ended).map(|((db, _), _)| *db).collect();
        let unended = work.values().filter(|(ended, _)| !ended).count() as u64;
        Counters {
            database_total: counts.databases.len() as u64,
            database_done: (counts.databases.len() - open.len().min(counts.databases.len())) as u64,
            measurement_total: total,
            measurement_done: total.saturating_sub(unended),
            migrate_count: work.values().filter(|(_, well)| *well).count() as u64,
            inplace_count: total.saturating_sub(work.len() as u64),
        }
    };
    let mut by_url = BTreeMap::<String, Counters>::new();
    for counts in inner.counts.iter().filter(|counts| counts.circle == circle) {
        by_url.insert(counts.url.clone(), of(counts));
    }
    by_url
}

//! `/migrate/jobs`: the state and the control of migrations. `GET` lists them, `GET /migrate/jobs/<id>` shows one with
//! its measurements, `DELETE` cancels it, `POST /migrate/jobs/<id>/pause` and `/resume` pause and resume it.

use std::sync::atomic::Ordering::Relaxed;

use serde::Serialize;
use serde_json::{Map, Value, json as value};

use super::{Action, AdminCall, AdminState, json};
use crate::limits;
use crate::migration::job::{Job, TaskEntry};
use crate::migration::order::{Phase, TaskState};
use crate::migration::plan::{Goal, Work};
use crate::migration::steering::Steer;

#[derive(Serialize)]
struct JobView {
    id: u64,
    #[serde(flatten)]
    order: Map<String, Value>,
    state: &'static str,
    doing: String,
    /// Seconds since 1970.
    started: u64,
    ended: Option<u64>,
    percent: f64,
    /// Counted since this process started; a repeated copy counts again.
    rows: u64,
    bytes: u64,
    /// Points that are left out: the target refuses them, since they are older than their retention policy allows.
    rows_expired: u64,
    bytes_per_second: u64,
    eta_seconds: Option<u64>,
    tasks: TaskTotals,
    errors: Vec<String>,
    errors_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    measurements: Option<Vec<MeasurementView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    measurements_left_out: Option<usize>,
}

#[derive(Default, Serialize)]
struct TaskTotals {
    total: usize,
    waiting: usize,
    running: usize,
    done: usize,
    failed: usize,
}

#[derive(Serialize)]
struct MeasurementView {
    db: String,
    measurement: String,
    work: &'static str,
    from: String,
    to: String,
    state: TaskState,
    percent: f64,
    rows: u64,
    bytes: u64,
    rows_expired: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    let rest = call.rest;
    let (id, steer) = rest.split_once('/').unwrap_or((rest, ""));
    if rest.is_empty() {
        return match call.method {
            "GET" => {
                let all: Vec<_> = state.jobs.all().map(|job| shown(job, false)).collect();
                Action::Answer(json(&all, call.query.pretty()))
            }
            _ => call.refuse(405, "method not allow"),
        };
    }
    let Some(job) = id.parse().ok().and_then(|id| state.jobs.by_id(id)) else {
        return call.refuse(404, &format!("migration {id} is not known"));
    };
    let steer = match (call.method, steer) {
        ("GET", "") => return Action::Answer(json(&shown(job, true), call.query.pretty())),
        ("DELETE", "") => Steer::Cancel,
        ("POST", "pause") => Steer::Pause,
        ("POST", "resume") => Steer::Resume,
        (_, "" | "pause" | "resume") => return call.refuse(405, "method not allow"),
        _ => return super::not_found(),
    };
    if !job.is_active() {
        return call.refuse(400, &format!("migration {id} has ended"));
    }
    Action::SteerMigration { id: job.id, steer, response: super::text(202, "accepted") }
}

fn shown(job: &Job, in_full: bool) -> JobView {
    let inner = job.look();
    let mut tasks = TaskTotals { total: inner.entries.len(), ..TaskTotals::default() };
    let (mut rows, mut bytes, mut rows_expired, mut parts) = (0, 0, 0, 0.0);
    for entry in &inner.entries {
        match entry.state {
            TaskState::Waiting => tasks.waiting += 1,
            TaskState::Running => tasks.running += 1,
            TaskState::Done => tasks.done += 1,
            TaskState::Failed => tasks.failed += 1,
        }
        rows += entry.progress.points.load(Relaxed);
        bytes += entry.progress.bytes.load(Relaxed);
        rows_expired += entry.progress.points_expired.load(Relaxed);
        parts += part(entry);
    }
    let is_over = inner.phase != Phase::Running;
    let done = if tasks.total == 0 { f64::from(u8::from(is_over)) } else { parts / tasks.total as f64 };
    let seconds = job.since.elapsed().as_secs_f64();
    // Work done before a restart is not in it, so the estimate is then too short.
    let worked = inner.working_since.elapsed().as_secs_f64();
    let eta = (!is_over && done > 0.0 && tasks.total > 0).then(|| (worked * (1.0 - done) / done) as u64);
    let (measurements, left_out) = if in_full {
        let mut all: Vec<&TaskEntry> = inner.entries.iter().collect();
        all.sort_by_key(|entry| match entry.state {
            TaskState::Running => 0,
            TaskState::Failed => 1,
            TaskState::Waiting => 2,
            TaskState::Done => 3,
        });
        let left_out = all.len().saturating_sub(limits::MIGRATION_SHOWN_MAX);
        let shown = all.into_iter().take(limits::MIGRATION_SHOWN_MAX).map(measurement).collect();
        (Some(shown), Some(left_out))
    } else {
        (None, None)
    };
    JobView {
        id: job.id,
        order: order(job),
        state: match inner.phase {
            Phase::Running if job.steering.is_cancelled() => "cancelling",
            Phase::Running if job.steering.is_paused() => "paused",
            Phase::Running => "running",
            Phase::Done => "done",
            Phase::Failed => "failed",
            Phase::Cancelled => "cancelled",
        },
        doing: inner.doing.clone(),
        started: job.started,
        ended: inner.ended,
        percent: percent(done),
        rows,
        bytes,
        rows_expired,
        bytes_per_second: if is_over { 0 } else { (bytes as f64 / seconds.max(0.001)) as u64 },
        eta_seconds: eta,
        tasks,
        errors: inner.errors.clone(),
        errors_left_out: inner.errors_left_out,
        measurements,
        measurements_left_out: left_out,
    }
}

/// The order of a job, without users and passwords of removed backends.
fn order(job: &Job) -> Map<String, Value> {
    let order = &job.order;
    let mut shown = Map::new();
    shown.insert("type".to_owned(), order.goal.name().into());
    match &order.goal {
        Goal::Rebalance { circle, removed } => {
            shown.insert("circle_id".to_owned(), value!(circle));
            let removed: Vec<_> = removed.iter().map(|r| value!({"name": r.name, "url": r.url})).collect();
            shown.insert("removed".to_owned(), removed.into());
        }
        Goal::Recovery { from, to, urls } => {
            shown.insert("from_circle_id".to_owned(), value!(from));
            shown.insert("to_circle_id".to_owned(), value!(to));
            shown.insert("backend_urls".to_owned(), value!(urls));
        }
        Goal::Resync => {}
        Goal::Clear { circle } => _ = shown.insert("circle_id".to_owned(), value!(circle)),
    }
    shown.insert("db".to_owned(), value!(order.dbs));
    shown.insert("cpus".to_owned(), value!(order.cpus));
    shown.insert("since_ns".to_owned(), value!(order.since_ns));
    shown.insert("rate".to_owned(), value!(order.rate));
    shown.insert("ha_addrs".to_owned(), value!(order.ha_addrs));
    shown
}

fn measurement(entry: &TaskEntry) -> MeasurementView {
    MeasurementView {
        db: entry.key.db.clone(),
        measurement: entry.key.measurement.clone(),
        work: match entry.task.work {
            Work::Copy { .. } => "copy",
            Work::Delete { .. } => "delete",
        },
        from: entry.key.from.clone(),
        to: entry.key.to.clone(),
        state: entry.state,
        percent: percent(part(entry)),
        rows: entry.progress.points.load(Relaxed),
        bytes: entry.progress.bytes.load(Relaxed),
        rows_expired: entry.progress.points_expired.load(Relaxed),
        error: entry.error.clone(),
    }
}

/// The completed share of a task, 0 to 1. All slices of a measurement count as equally large.
fn part(entry: &TaskEntry) -> f64 {
    match entry.state {
        TaskState::Done | TaskState::Failed => 1.0,
        TaskState::Waiting => 0.0,
        TaskState::Running => {
            let slices = entry.progress.slices_total.load(Relaxed);
            let done = entry.progress.slices_done.load(Relaxed);
            if slices == 0 { 0.0 } else { (done as f64 / slices as f64).min(1.0) }
        }
    }
}

fn percent(part: f64) -> f64 {
    (part * 1000.0).round() / 10.0
}

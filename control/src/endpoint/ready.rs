//! `GET /ready`: whether all workers take writes, and since when this proxy has been running; in InfluxDB 2's form.
//! influx-proxy has no such path.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::{Action, AdminCall, AdminState, json};
use crate::clock::since_1970;

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    started: String,
    up: String,
}

pub fn decide(state: &AdminState, call: &AdminCall<'_>) -> Action {
    if let Some(worker) = state.stats.workers.iter().position(|worker| !worker.ready.load(Relaxed)) {
        return call.refuse(503, &format!("worker {worker} takes no writes: it is starting, or its log has failed"));
    }
    let started = humantime::format_rfc3339_nanos(UNIX_EPOCH + state.started).to_string();
    let up = go_duration(since_1970().saturating_sub(state.started));
    Action::Answer(json(&Ready { status: "ready", started, up }, call.query.pretty()))
}

/// As Go prints it, in milliseconds.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let last = format!("{}s", (duration.as_millis() % 60_000) as f64 / 1000.0);
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => last,
        (0, minutes) => format!("{minutes}m{last}"),
        (hours, minutes) => format!("{hours}h{minutes}m{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (ms, want) in
            [(0, "0s"), (1_500, "1.5s"), (60_000, "1m0s"), (3_600_000, "1h0m0s"), (90_061_001, "25h1m1.001s")]
        {
            assert_eq!(go_duration(Duration::from_millis(ms)), want);
        }
    }
}

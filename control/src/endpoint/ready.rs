//! `GET /ready`: since when this proxy has been running, in InfluxDB 2's form. influx-proxy has no such path.

use std::time::Duration;

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
    let up = since_1970().saturating_sub(state.started);
    let ready = Ready { status: "ready", started: rfc_3339(state.started), up: go_duration(up) };
    Action::Answer(json(&ready, call.query.pretty()))
}

/// A time since 1970, in UTC.
fn rfc_3339(since_1970: Duration) -> String {
    let (days, second) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    // Years begin in March here, so that a leap day is the last one (Howard Hinnant, "chrono-compatible low-level date
    // algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second, nanos) = (second / 3600, second / 60 % 60, second % 60, since_1970.subsec_nanos());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
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
    fn times_are_in_rfc_3339() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_799, "2000-02-29T23:59:59"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc_3339(Duration::new(seconds, 5)), format!("{want}.000000005Z"));
        }
    }

    #[test]
    fn durations_are_those_of_go() {
        for (ms, want) in
            [(0, "0s"), (1_500, "1.5s"), (60_000, "1m0s"), (3_600_000, "1h0m0s"), (90_061_001, "25h1m1.001s")]
        {
            assert_eq!(go_duration(Duration::from_millis(ms)), want);
        }
    }
}

//! The system time, as the units in which control uses it. All count from 1970.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

pub fn unix_ms() -> u64 {
    since_1970().as_millis() as u64
}

pub fn unix_ns() -> i64 {
    since_1970().as_nanos() as i64
}

//! Clocks: one monotonic clock for all, one wall clock per host.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::exec::{self, HostId};

/// The wall clock of every host when the machine starts.
const START: Duration = Duration::from_secs(1_800_000_000);

/// Virtual time as the program sees it.
pub fn instant() -> Instant {
    exec::with(|m| m.base.get() + m.now())
}

/// The wall clock of the host whose task runs now.
pub fn system_time() -> SystemTime {
    exec::with(|m| {
        let step = m.hosts.borrow()[m.current_host().0 as usize].clock_step;
        let now = START + m.now();
        UNIX_EPOCH
            + if step < 0 { now - Duration::from_nanos(-step as u64) } else { now + Duration::from_nanos(step as u64) }
    })
}

/// Sets a host's wall clock by so many milliseconds, from what it shows now.
pub fn step(host: HostId, millis: i64) {
    exec::with(|m| m.hosts.borrow_mut()[host.0 as usize].clock_step += millis * 1_000_000);
}

/// Waits so long.
pub async fn sleep(duration: Duration) {
    exec::sleep(duration).await;
}

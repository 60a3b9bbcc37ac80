//! Ends the process at a chosen point, as `kill -9` would: for `make crash`, which tries each of [`POINTS`].
//!
//! With the feature `crash-points` only, which the tests of the program turn on. In the product [`point`] is empty.
//!
//! `FLUXGATE_CRASH_AT=written:17` ends the process when it comes to the point `written` for the 17th time.

/// Every point: what each store call of the log is about to do and has done, and the steps of a takeover. `save` is the
/// state (cursors and ledger), `remove` and `rename` let go of segments, `rename` also ends a compaction.
pub const POINTS: &[&str] = &[
    "create",
    "created",
    "write",
    "written",
    "sync",
    "synced",
    "rename",
    "renamed",
    "rename-durable",
    "remove",
    "removed",
    "save",
    "half-saved",
    "saved",
    "compact",
    "compact-written",
    "compacted",
    "letter",
    "letter-written",
    "letter-synced",
    "reroute",
    "reroute-appended",
    "reroute-saved",
    "rerouted",
];

/// The process comes to a point.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

/// The process comes to a point: it ends here if this is the one.
#[cfg(feature = "crash-points")]
pub(crate) fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    static WANTED: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    debug_assert!(POINTS.contains(&name), "{name} is not in the list");
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("FLUXGATE_CRASH_AT").ok()?;
        let (name, times) = text.split_once(':').expect("FLUXGATE_CRASH_AT is point:times");
        assert!(POINTS.contains(&name), "FLUXGATE_CRASH_AT: there is no point {name}");
        Some((name.to_owned(), AtomicI64::new(times.parse().expect("FLUXGATE_CRASH_AT is point:times"))))
    });
    let Some((wanted, times)) = wanted else { return };
    if wanted == name && times.fetch_sub(1, Relaxed) == 1 {
        // SAFETY: ends this process; no memory is involved.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
}

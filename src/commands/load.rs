//! `fluxgate load`: runs the load generator, and prints its progress and its summary.

use std::io::{self, Write};
use std::sync::atomic::AtomicBool;

use crate::lab::load::{LoadArgs, Snapshot, run};

/// Runs the command. False if a request failed, or none was sent; an inner error if the summary cannot be printed.
/// `stop` ends the run early, with a summary.
///
/// # Errors
/// One sentence, when it cannot be run.
pub fn main(args: &LoadArgs, stop: &AtomicBool, out: &mut dyn Write) -> Result<io::Result<bool>, String> {
    let mut progress = |snapshot: &Snapshot| {
        // If standard error is closed, there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "{:>6.1} s  {:>10.0} points/s  p50 {:.3} ms  p99 {:.3} ms  {} failed",
            snapshot.elapsed.as_secs_f64(),
            snapshot.points_per_second,
            snapshot.p50_us as f64 / 1e3,
            snapshot.p99_us as f64 / 1e3,
            snapshot.failed_requests
        );
    };
    let summary = run(args, stop, &mut progress)?;
    let printed = if args.json { writeln!(out, "{:#}", summary.json()) } else { writeln!(out, "{summary}") };
    Ok(printed.map(|()| summary.succeeded()))
}

//! `fluxgate load`: runs the load generator, and prints its progress and its summary.

use std::sync::atomic::AtomicBool;

use crate::lab::load::{LoadArgs, Snapshot, run};

/// Runs the command; the error is the exit status. `stop` ends the run early, with a summary.
pub fn main(args: &LoadArgs, stop: &AtomicBool) -> Result<(), u8> {
    let mut progress = |snapshot: &Snapshot| {
        eprintln!(
            "{:>6.1} s  {:>10.0} points/s  p50 {:.3} ms  p99 {:.3} ms  {} failed",
            snapshot.elapsed.as_secs_f64(),
            snapshot.points_per_second,
            snapshot.p50_us as f64 / 1e3,
            snapshot.p99_us as f64 / 1e3,
            snapshot.failed_requests
        );
    };
    match run(args, stop, &mut progress) {
        Ok(summary) => {
            if args.json {
                println!("{:#}", summary.json());
            } else {
                println!("{summary}");
            }
            if summary.succeeded() { Ok(()) } else { Err(1) }
        }
        Err(why) => {
            eprintln!("fluxgate load: {why}");
            Err(2)
        }
    }
}

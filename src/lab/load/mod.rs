//! The load generator: writes numbered points and reports what became of them.
//!
//! Each point carries its serial in the field `n` and has its own timestamp ([`points`]). So after a run `count(n)`
//! over all measurements equals the acknowledged points, and missing ones can be listed. One thread serves many
//! connections ([`engine`]); [`report`] has its counters.

mod args;
mod engine;
#[cfg(test)]
mod load_test;
mod points;
mod report;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use args::{LoadArgs, LoadTarget, Unit};
pub use points::MEASUREMENTS;
pub use report::{Counts, Range, RequestFailure, Snapshot, Summary};

/// Time between two snapshots.
const SNAPSHOT: Duration = Duration::from_secs(1);
/// Timeout of `CREATE DATABASE`.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs a load to its end. `progress` gets a snapshot once a second. Errors are those of the caller: invalid options, a
/// name that does not resolve, a database that cannot be created. Failures of the server are in the summary.
pub fn run(args: &LoadArgs, stop: &AtomicBool, progress: &mut dyn FnMut(&Snapshot)) -> Result<Summary, String> {
    args.check()?;
    let target = LoadTarget::resolve(&args.url)?;
    if args.create_db {
        create_database(args)?;
    }
    let start = Instant::now();
    let interval = |requests: u64| Duration::from_secs_f64((requests * args.lines) as f64 / args.rate as f64);
    let shared = engine::LoadRun {
        points: points::Points::new(args, &target),
        addr: target.addr,
        lines: args.lines,
        next_serial: AtomicU64::new(args.first),
        end_serial: args.points.map_or(u64::MAX, |points| args.first.saturating_add(points)),
        start,
        end: args.seconds_max().map(|seconds| start + Duration::from_secs_f64(seconds)),
        timeout: Duration::from_secs_f64(args.timeout),
        interval: (args.rate > 0).then(|| interval(args.threads as u64)),
        stop,
    };
    let mut total = Counts::default();
    let (ticks, received) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|thread| {
                let connections =
                    args.connections / args.threads + usize::from(thread < args.connections % args.threads);
                let offset = if args.rate > 0 { interval(thread as u64) } else { Duration::ZERO };
                let (shared, ticks) = (&shared, ticks.clone());
                scope.spawn(move || engine::Engine::new(shared, connections, offset)?.run(&ticks))
            })
            .collect();
        drop(ticks);
        gather(start, &received, &mut total, progress);
        threads.into_iter().try_for_each(|thread| thread.join().expect("a load thread panicked"))
    })
    .map_err(|e: std::io::Error| format!("the event loop failed: {e}"))?;
    let last = shared.next_serial.load(Relaxed).min(shared.end_serial) - 1;
    Ok(Summary {
        url: args.url.clone(),
        db: args.db.clone(),
        threads: args.threads,
        connections: args.connections,
        lines: args.lines,
        rate: args.rate,
        gzip: args.gzip,
        elapsed: start.elapsed(),
        serials: (total.sent_points > 0).then_some((args.first, last)),
        counts: total,
    })
}

/// Sums ticks until all threads have ended, and turns them into snapshots.
fn gather(start: Instant, received: &mpsc::Receiver<Counts>, total: &mut Counts, progress: &mut dyn FnMut(&Snapshot)) {
    let (mut since, mut last) = (Counts::default(), start);
    while let Ok(counts) = received.recv() {
        since.add(counts);
        if last.elapsed() < SNAPSHOT {
            continue;
        }
        let interval = last.elapsed().as_secs_f64();
        last = Instant::now();
        let mut snapshot = Snapshot {
            elapsed: start.elapsed(),
            points_per_second: since.acked_points as f64 / interval,
            p50_us: since.latency_us.value_at_quantile(0.5),
            p99_us: since.latency_us.value_at_quantile(0.99),
            ..Snapshot::default()
        };
        total.add(std::mem::take(&mut since));
        snapshot.sent_points = total.sent_points;
        snapshot.acked_points = total.acked_points;
        snapshot.failed_requests = total.failed_requests();
        progress(&snapshot);
    }
    total.add(since);
}

fn create_database(args: &LoadArgs) -> Result<(), String> {
    let urls = if args.backend.is_empty() { std::slice::from_ref(&args.url) } else { &args.backend };
    let statement = format!("CREATE DATABASE \"{}\"", args.db.replace('\\', "\\\\").replace('"', "\\\""));
    for url in urls {
        let mut request = ureq::post(format!("{}/query", url.trim_end_matches('/')))
            .config()
            .timeout_global(Some(CREATE_TIMEOUT))
            .build();
        if let Some(user) = &args.username {
            request = request.query("u", user).query("p", &args.password);
        }
        let answer = request.send_form([("q", statement.as_str())]).map_err(|e| format!("{url}: {statement}: {e}"))?;
        let text = answer.into_body().read_to_string().map_err(|e| format!("{url}: {statement}: {e}"))?;
        if text.contains("\"error\"") {
            return Err(format!("{url}: {statement}: {}", text.trim()));
        }
    }
    Ok(())
}

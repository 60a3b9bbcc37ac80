//! Tests of the copy engine between two real InfluxDB servers while clients overwrite the copied values, and with
//! servers that hang.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::intercept::{Then, intercept};
use super::migration::{PATIENCE, T0, everything, side, task, write};
use super::support::{Influxd, StandIn};
use fluxgate_control::migration::{CopyError, Progress, Steering, Undelivered, Writes, copy};

/// A and B, both with the database, A with points of `value`.
fn pair(value: u64) -> (Influxd, Influxd) {
    let (a, b) = (Influxd::start(), Influxd::start());
    a.run("CREATE DATABASE db");
    b.run("CREATE DATABASE db");
    write(&a, "autogen", points(0..100, value).as_bytes());
    (a, b)
}

fn points(range: std::ops::Range<i64>, value: u64) -> String {
    range.map(|at| format!("m,host=h{} n={value}i,s=\"{value}\" {}\n", at % 7, T0 + at * 1_000_000_000)).collect()
}

/// A client's write while writes go to both.
fn write_both(urls: &[String], lines: &str) {
    for url in urls {
        side(url.clone()).client.write("db", "autogen", lines.as_bytes(), PATIENCE).unwrap();
    }
}

#[test]
fn a_value_overwritten_between_read_and_write_of_the_copy_is_not_undone() {
    let (a, b) = pair(1);
    let (both, first) = ([a.url(), b.url()], AtomicBool::new(true));
    // The copy has read 1 when its write comes. Before the write is passed on, a client's 2 reaches both.
    let target = intercept(&b, move |request| {
        if request.starts_with("POST /write") && first.swap(false, Relaxed) {
            write_both(&both, &points(10..13, 2));
        }
        Then::Pass
    });
    let progress = Progress::default();
    let writes = Writes::ToBoth(&|| Ok(()));
    let copied =
        copy(&task("m"), &side(a.url()), &side(target), writes, &Steering::new(0), &progress, &mut |_| ()).unwrap();
    assert_eq!(copied.values, 200);
    assert_eq!(everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));
    assert_eq!(everything(&b, "autogen", "m").iter().filter(|value| value.ends_with("Int(2)")).count(), 3);
    assert_eq!(progress.points.load(Relaxed), 103, "only wrong values are copied again");
}

#[test]
fn a_copy_waits_for_a_source_that_gets_a_point_later_than_the_target() {
    let (a, b) = pair(1);
    let (to_b, first) = ([b.url()], AtomicBool::new(true));
    let target = intercept(&b, move |request| {
        if request.starts_with("POST /write") && first.swap(false, Relaxed) {
            write_both(&to_b, &points(10..13, 2));
        }
        Then::Pass
    });
    // A gets it at the barrier; until then it has 1.
    let calls = AtomicUsize::new(0);
    let delivered = || {
        if calls.fetch_add(1, Relaxed) == 0 {
            write(&a, "autogen", points(10..13, 2).as_bytes());
        }
        Ok(())
    };
    let (source, target) = (side(a.url()), side(target));
    let writes = Writes::ToBoth(&delivered);
    copy(&task("m"), &source, &target, writes, &Steering::new(0), &Progress::default(), &mut |_| ()).unwrap();
    assert_eq!(everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));

    // When the barrier takes too long, no value counts as right.
    let late = Writes::ToBoth(&|| Err(Undelivered::Late("points still wait for a".to_owned())));
    let copied = copy(&task("m"), &source, &target, late, &Steering::new(0), &Progress::default(), &mut |_| {
        panic!("the slice is not verified");
    });
    let Err(CopyError::Slices { failed: 1, failures }) = copied else { panic!("{copied:?}") };
    assert_eq!(failures[0].why, "points still wait for a");

    // When another proxy is gone, no other slice is tried.
    write(&a, "autogen", format!("m,host=h0 n=1i,s=\"1\" {}\n", T0 - 30 * 86_400_000_000_000).as_bytes());
    let asked = AtomicUsize::new(0);
    let gone = || {
        asked.fetch_add(1, Relaxed);
        Err(Undelivered::Gone("p is gone".to_owned()))
    };
    let gone = Writes::ToBoth(&gone);
    let copied = copy(&task("m"), &source, &target, gone, &Steering::new(0), &Progress::default(), &mut |_| {
        panic!("the slice is not verified");
    });
    assert_eq!((copied, asked.into_inner()), (Err(CopyError::Proxy("p is gone".to_owned())), 1));
}

/// Points that are too old for the target are counted after the copy, where there may be some.
#[test]
fn expired_points_are_looked_for_where_something_expires_and_tried_again_like_slices() {
    let (a, b) = pair(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let keep = Arc::clone(&asked);
    let source = side(intercept(&a, move |request| {
        keep.fetch_add(usize::from(request.contains("SHARD")), Relaxed);
        Then::Pass
    }));
    let (target, steering, progress) = (side(b.url()), Steering::new(0), Progress::default());
    copy(&task("m"), &source, &target, Writes::ToTarget, &steering, &progress, &mut |_| ()).unwrap();
    assert_eq!(asked.swap(0, Relaxed), 1, "the policy keeps points for ever");

    let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    write(&a, "autogen", format!("old n=1i {}\n", now_ns - 2 * 3_600_000_000_000).as_bytes());
    a.run("ALTER RETENTION POLICY autogen ON db DURATION 1h SHARD DURATION 1h");
    let late = Writes::ToBoth(&|| Err(Undelivered::Late("points still wait for a".to_owned())));
    let copied = copy(&task("old"), &source, &target, late, &steering, &progress, &mut |_| ());
    let Err(CopyError::Slices { failed: 1, failures }) = copied else { panic!("{copied:?}") };
    assert_eq!(failures[0].why, "counting expired points: points still wait for a");
    assert_eq!((asked.load(Relaxed), progress.retries.load(Relaxed)), (2, 2));
}

#[test]
fn a_slice_that_is_overwritten_all_the_time_is_copied() {
    let (a, b) = pair(0);
    let urls = [a.url(), b.url()];
    let (stop, taken, delivered) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let barrier = || {
        let now = taken.load(Relaxed);
        let end = Instant::now() + PATIENCE;
        while delivered.load(Relaxed) < now {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let progress = Progress::default();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                let value = taken.fetch_add(1, Relaxed) + 1;
                write_both(&urls, &points(0..50, value));
                delivered.store(value, Relaxed);
            }
        });
        for _ in 0..5 {
            let before = taken.load(Relaxed);
            let (writes, steering) = (Writes::ToBoth(&barrier), Steering::new(0));
            let copied =
                copy(&task("m"), &side(a.url()), &side(b.url()), writes, &steering, &progress, &mut |_| ()).unwrap();
            assert_eq!(copied.values, 200);
            assert!(taken.load(Relaxed) > before, "nothing was overwritten");
        }
        stop.store(true, Relaxed);
    });
    assert_eq!(everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));
}

#[test]
fn values_of_the_target_are_newer_than_those_of_a_source_without_writes() {
    let (a, b) = pair(1);
    write(&b, "autogen", points(10..13, 2).as_bytes());
    // One of two fields.
    write(&b, "autogen", format!("m,host=h0 n=3i {T0}\n").as_bytes());
    let progress = Progress::default();
    let (source, target) = (side(a.url()), side(b.url()));
    let copied =
        copy(&task("m"), &source, &target, Writes::ToTarget, &Steering::new(0), &progress, &mut |_| ()).unwrap();
    assert_eq!((copied.values, progress.points.load(Relaxed)), (200, 97));
    let (there, here) = (everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));
    assert_eq!((here.len(), here.difference(&there).count()), (200, 7));
    assert_eq!(here.iter().filter(|value| value.ends_with("Int(3)")).count(), 1);
    // A second copy has nothing to do.
    copy(&task("m"), &source, &target, Writes::ToTarget, &Steering::new(0), &progress, &mut |_| ()).unwrap();
    assert_eq!((progress.points.load(Relaxed), progress.retries.load(Relaxed)), (97, 0));
}

/// Whether the request asks for rows of a slice.
fn asks_for_rows(request: &str) -> bool {
    request.contains("chunked=true")
}

#[test]
fn a_source_that_hangs_is_a_failure_that_names_it() {
    let (a, b) = pair(1);
    let hangs = Arc::new(AtomicUsize::new(0));
    let hung = Arc::clone(&hangs);
    let source = intercept(&a, move |request| {
        // Only the first time.
        if asks_for_rows(request) && hung.fetch_add(1, Relaxed) == 0 { Then::Hang } else { Then::Pass }
    });
    let mut source = side(source);
    source.silence_max = Duration::from_millis(300);
    let (writes, progress) = (Writes::ToBoth(&|| Ok(())), Progress::default());
    let begin = Instant::now();
    copy(&task("m"), &source, &side(b.url()), writes, &Steering::new(0), &progress, &mut |_| ()).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(300) && progress.retries.load(Relaxed) == 1);
    assert_eq!(everything(&a, "autogen", "m"), everything(&b, "autogen", "m"));

    let mut source = side(intercept(&a, |request| if asks_for_rows(request) { Then::Hang } else { Then::Pass }));
    source.silence_max = Duration::from_millis(300);
    let copied = copy(&task("m"), &source, &side(b.url()), writes, &Steering::new(0), &progress, &mut |_| ());
    let Err(CopyError::Slices { failed: 1, failures }) = copied else { panic!("{copied:?}") };
    assert!(failures[0].why.contains(&source.name) && failures[0].why.contains("timeout"), "{failures:?}");
}

#[test]
fn a_cancel_does_not_wait_for_a_server_that_hangs() {
    let (a, b) = pair(1);
    let silent = StandIn::start(None);
    // Three cases: everything hangs; only rows hang; the target's writes hang.
    let rows = intercept(&a, |request| if asks_for_rows(request) { Then::Hang } else { Then::Pass });
    let writes = intercept(&b, |request| if request.starts_with("POST /write") { Then::Hang } else { Then::Pass });
    for (source, target) in [(silent.url(), b.url()), (rows, b.url()), (a.url(), writes)] {
        let (source, target, steering) = (side(source), side(target), Steering::new(0));
        thread::scope(|scope| {
            let copying = scope.spawn(|| {
                let writes = Writes::ToBoth(&|| Ok(()));
                copy(&task("m"), &source, &target, writes, &steering, &Progress::default(), &mut |_| ())
            });
            thread::sleep(Duration::from_millis(500));
            assert!(!copying.is_finished());
            let begin = Instant::now();
            steering.cancel();
            assert_eq!(copying.join().unwrap(), Err(CopyError::Cancelled));
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        });
    }
    let cancelled = Steering::new(0);
    cancelled.cancel();
    let (source, target) = (side(a.url()), side(b.url()));
    let copied = copy(&task("m"), &source, &target, Writes::ToTarget, &cancelled, &Progress::default(), &mut |_| ());
    assert_eq!(copied, Err(CopyError::Cancelled));
}

//! Promise: damage to the log is named exactly and counted, everything else is delivered, and `fluxgate log` tells the
//! same.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::circles::{Circles, Points, assert_nothing_lost, balanced, drained, log_command, missing};
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Ledger, Proxy, eventually};

const POINTS: u64 = 40_000;
const BLOCK: usize = 4096;

/// A proxy that was killed with all points in its only worker's log, and nothing delivered.
fn killed_with_a_backlog() -> (Proxy, Circles, Points) {
    let mut circles = Circles::new(2, 1);
    // Segments of 2 MiB.
    let config = circles.config().set("workers", 1).set("backlog_max_bytes", 16 << 20);
    let mut proxy = start(&config.set("hot_tail_bytes", 4 << 20));
    circles.stop();
    let mut points = Points::default();
    let summary = points.load(&LoadArgs { points: Some(POINTS), lines: 200, ..points.args(&proxy) }, || {});
    assert!(summary.succeeded(), "{summary}");
    let log = proxy.data_dir().join("worker-0");
    // The state that is saved once a second knows how far the log goes.
    let knows_all = || std::fs::read_to_string(log.join("state")).is_ok_and(|s| s.contains(&format!(" {POINTS} ")));
    assert!(eventually(std::time::Duration::from_secs(10), knows_all));
    proxy.kill();
    (proxy, circles, points)
}

fn segments(proxy: &Proxy) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(proxy.data_dir().join("worker-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "seg")).collect();
    segments.sort();
    segments
}

/// Where frames begin in a file that has never been used before.
fn frames(segment: &Path) -> Vec<u64> {
    let bytes = std::fs::read(segment).unwrap();
    (0..bytes.len()).step_by(BLOCK).filter(|at| bytes[*at..].starts_with(b"FXF1")).map(|at| at as u64).collect()
}

fn flip(file: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[!byte[0]], at).unwrap();
}

/// Sum of the numbers before " points lost" and " points are missing".
fn lost_in(text: &str) -> u64 {
    let number = |line: &str| {
        let before = line.split(" points lost").next().filter(|before| before.len() < line.len());
        let before = before.or_else(|| line.split(" points are missing").next().filter(|b| b.len() < line.len()))?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    };
    text.lines().filter_map(number).sum()
}

/// Verifies, counts what is left, starts, drains: all accounts of the loss must agree.
fn check(mut proxy: Proxy, mut circles: Circles, points: &Points) -> (u64, Ledger) {
    let (output, verified) = log_command("verify", &proxy.data_dir());
    assert_eq!(output.status.code(), Some(1), "{verified}");
    let (output, cat) = log_command("cat", &proxy.data_dir());
    assert!(output.status.success());
    let left = cat.lines().filter(|line| !line.starts_with('#')).count() as u64;
    let lost = POINTS - left;
    assert!(lost > 0);
    let said = lost_in(&verified);
    assert_eq!(said, lost, "{verified}\n{}", log_command("ls", &proxy.data_dir()).1);
    let (output, listed) = log_command("ls", &proxy.data_dir());
    assert!(output.status.success() && listed.contains("cursor"), "{listed}");

    proxy.restart().unwrap();
    circles.restart();
    let ledger = drained(&proxy);
    for circle in 0..2 {
        assert_eq!(missing(&points.acked, &circles.held(circle)).len() as u64, lost, "{ledger:?}\n{}", proxy.stderr());
    }
    assert_eq!(
        (ledger.totals.dropped, ledger.totals.delivered),
        (2 * lost, 2 * left),
        "{ledger:?}\n{}",
        proxy.stderr()
    );
    let told = proxy.stderr();
    assert_eq!(lost_in(&told), lost, "{told}");
    // It goes on, and the loss is not counted again.
    let mut more = Points::default();
    let args = LoadArgs { points: Some(500), first: POINTS + 1, ..more.args(&proxy) };
    assert!(more.load(&args, || {}).succeeded());
    let after = drained(&proxy);
    assert_eq!((after.totals.dropped, after.totals.delivered), (2 * lost, 2 * (left + 500)), "{after:?}");
    assert!(proxy.terminate(std::time::Duration::from_secs(5)).unwrap().success());
    proxy.restart().unwrap();
    assert_eq!(balanced(&proxy).totals, after.totals);
    (lost, ledger)
}

#[test]
fn a_flipped_byte_in_an_old_segment_loses_one_frame() {
    let (proxy, circles, points) = killed_with_a_backlog();
    let old = segments(&proxy).remove(0);
    let frames = frames(&old);
    assert!(frames.len() > 3, "{frames:?}");
    flip(&old, frames[frames.len() / 2] + 100);
    let (lost, ledger) = check(proxy, circles, &points);
    assert!(lost < POINTS / 4, "{lost}");
    let reasons: Vec<_> = ledger.databases[0].backends.iter().flat_map(|b| b.dropped.keys()).collect();
    assert_eq!(reasons, ["damaged log", "damaged log"]);
}

#[test]
fn garbage_in_two_segments_is_counted_in_both() {
    let (proxy, circles, points) = killed_with_a_backlog();
    let segments = segments(&proxy);
    assert!(segments.len() > 2, "{segments:?}");
    for segment in &segments[..2] {
        let frames = frames(segment);
        let file = std::fs::File::options().write(true).open(segment).unwrap();
        file.write_all_at(&[0xa5; 3 * BLOCK], frames[frames.len() / 3]).unwrap();
    }
    check(proxy, circles, &points);
}

#[test]
fn a_missing_segment_is_counted() {
    let (proxy, circles, points) = killed_with_a_backlog();
    std::fs::remove_file(&segments(&proxy)[1]).unwrap();
    let (mut proxy, mut circles) = (proxy, circles);
    let (output, verified) = log_command("verify", &proxy.data_dir());
    assert_eq!(output.status.code(), Some(1));
    assert!(verified.contains("are missing, "), "{verified}");
    proxy.restart().unwrap();
    circles.restart();
    let ledger = drained(&proxy);
    let lost = missing(&points.acked, &circles.held(0)).len() as u64;
    assert!(lost > 0 && lost < POINTS / 2);
    assert!(verified.contains(&format!("are missing, {lost} points")), "{lost}\n{verified}");
    assert_eq!((ledger.totals.dropped, ledger.totals.delivered), (2 * lost, 2 * (POINTS - lost)));
    assert_eq!(lost_in(&proxy.stderr()), lost, "{}", proxy.stderr());
}

#[test]
fn a_newest_segment_cut_off_is_counted() {
    let (proxy, circles, points) = killed_with_a_backlog();
    let newest = segments(&proxy).into_iter().rfind(|segment| !frames(segment).is_empty()).unwrap();
    let last = *frames(&newest).last().unwrap();
    std::fs::File::options().write(true).open(&newest).unwrap().set_len(last + 512).unwrap();
    check(proxy, circles, &points);
}

/// The length of a frame that begins at `at`.
fn frame_bytes(segment: &[u8], at: u64) -> usize {
    u32::from_le_bytes(segment[at as usize + 4..][..4].try_into().unwrap()) as usize
}

/// A write that a crash cut short was not acknowledged, so nothing is missing.
#[test]
fn a_torn_tail_loses_nothing() {
    let (mut proxy, mut circles, points) = killed_with_a_backlog();
    let newest = segments(&proxy).into_iter().rfind(|segment| !frames(segment).is_empty()).unwrap();
    let frames = frames(&newest);
    let bytes = std::fs::read(&newest).unwrap();
    let last = *frames.last().unwrap();
    let end = last as usize + frame_bytes(&bytes, last).next_multiple_of(BLOCK);
    // The first bytes of a next frame, and no more.
    let torn = &bytes[last as usize..last as usize + 1024];
    std::fs::File::options().write(true).open(&newest).unwrap().write_all_at(torn, end as u64).unwrap();
    let (output, verified) = log_command("verify", &proxy.data_dir());
    assert_eq!(output.status.code(), Some(0), "{verified}");
    proxy.restart().unwrap();
    circles.restart();
    let ledger = assert_nothing_lost(&proxy, &circles, &points);
    assert_eq!(ledger.totals.dropped, 0);
}

/// The last frames before a crash, which no saved state knows. All had been acknowledged.
#[test]
fn damage_of_what_was_acknowledged_last_is_told() {
    for damaged in [1, 2, 3] {
        let (mut proxy, mut circles, points) = killed_with_a_backlog();
        // As if the state had not been saved since: everything is behind it.
        for copy in ["state", "state.2"] {
            std::fs::remove_file(proxy.data_dir().join("worker-0").join(copy)).unwrap();
        }
        let newest = segments(&proxy).into_iter().rfind(|segment| !frames(segment).is_empty()).unwrap();
        let frames = frames(&newest);
        assert!(frames.len() > 3, "{frames:?}");
        for &frame in frames.iter().rev().take(damaged) {
            flip(&newest, frame + 100);
        }
        let (output, verified) = log_command("verify", &proxy.data_dir());
        assert_eq!(output.status.code(), Some(1), "{verified}");
        assert!(verified.contains("may be missing") && !verified.contains("not been acknowledged"), "{verified}");
        let (_, cat) = log_command("cat", &proxy.data_dir());
        let left = cat.lines().filter(|line| !line.starts_with('#')).count() as u64;
        // Exactly what lay before the last frame, and at most what lay in it.
        let at_most = |text: &str| {
            let up_to = text.split("up to ").nth(1).and_then(|rest| rest.split(' ').next());
            up_to.and_then(|number| number.parse::<u64>().ok()).unwrap()
        };
        assert_eq!(lost_in(&verified) + at_most(&verified), POINTS - left, "{verified}");
        assert_eq!(lost_in(&verified) > 0, damaged > 1, "{verified}");
        proxy.restart().unwrap();
        circles.restart();
        drained(&proxy);
        let told = proxy.stderr();
        assert_eq!(lost_in(&told) + at_most(&told), missing(&points.acked, &circles.held(0)).len() as u64, "{told}");
    }
}

/// One of the two copies is enough.
#[test]
fn a_damaged_copy_of_the_state_changes_nothing() {
    for copy in ["state", "state.2"] {
        let (mut proxy, mut circles, points) = killed_with_a_backlog();
        flip(&proxy.data_dir().join("worker-0").join(copy), 30);
        proxy.restart().unwrap();
        assert_eq!(balanced(&proxy).totals.queued, 2 * POINTS);
        circles.restart();
        let ledger = assert_nothing_lost(&proxy, &circles, &points);
        assert_eq!((ledger.totals.accepted, ledger.totals.dropped), (2 * POINTS, 0));
    }
}

/// Without its state the log is delivered from its beginning; only the ledger's history is gone.
#[test]
fn a_damaged_state_loses_no_point() {
    let (mut proxy, mut circles, points) = killed_with_a_backlog();
    for copy in ["state", "state.2"] {
        flip(&proxy.data_dir().join("worker-0").join(copy), 30);
    }
    proxy.restart().unwrap();
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
    assert!(proxy.stderr().contains("damaged"), "{}", proxy.stderr());
}

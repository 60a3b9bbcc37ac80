//! Promise: when `data_dir`, or a part of it, is removed, renamed or replaced under the running proxy, this is noticed
//! within seconds: writes are refused and told why, `/health` and the log say so, and what had been acknowledged and is
//! in memory is delivered all the same.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::circles::{Circles, DB, DRAIN, Points, assert_nothing_lost, balanced};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Proxy, eventually};

const REFUSAL: &str = "log lost: data_dir was removed, renamed or replaced while the proxy ran";
/// It is noticed within this, on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);

/// A proxy with a backlog for the first circle.
fn with_backlog(workers: u64) -> (Proxy, Circles, Points) {
    let mut circles = Circles::new(2, 1);
    let proxy = start(&circles.config().set("workers", workers));
    let mut points = Points::default();
    circles.0[0].iter_mut().for_each(|backend| backend.stop());
    // More connections than the kernel would ever give to one of two workers.
    let args = LoadArgs { points: Some(5_000), connections: 32, ..points.args(&proxy) };
    let summary = points.load(&args, || {});
    assert!(summary.succeeded(), "{summary}");
    (proxy, circles, points)
}

/// Waits until these workers take no writes.
fn noticed(proxy: &Proxy, workers: &[usize]) {
    let failed = || proxy.health().unwrap().iter().all(|circle| circle.workers_failed == workers);
    assert!(eventually(NOTICED, failed), "{:?}\n{}", proxy.health(), proxy.stderr());
}

/// How often the log says it.
fn told(proxy: &Proxy) -> usize {
    proxy.stderr().lines().filter(|line| line.contains("removed, renamed or replaced")).count()
}

fn all_refused(proxy: &Proxy) {
    for _ in 0..8 {
        let reply = Client::connect(proxy.addr()).unwrap().write(DB, "m n=1i 1\n").unwrap();
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(reply.text().contains(REFUSAL) && reply.text().contains("restart the proxy"), "{}", reply.text());
    }
}

/// Loses the folder in some way, for each number of workers, and starts anew.
fn lost(lose: impl Fn(&Path)) {
    for workers in [1, 2] {
        let (mut proxy, mut circles, mut points) = with_backlog(workers);
        assert!(proxy.health().unwrap().iter().all(|circle| circle.workers_failed.is_empty()));
        lose(&proxy.data_dir());
        noticed(&proxy, &(0..workers as usize).collect::<Vec<_>>());
        all_refused(&proxy);
        circles.restart();
        let delivered = eventually(DRAIN, || proxy.ledger().unwrap().totals.queued == 0);
        assert!(delivered, "{:?}\n{}", proxy.ledger(), proxy.stderr());
        assert_nothing_lost(&proxy, &circles, &points);
        // At most once by what looks, once by what refuses, for each worker. Not once a second.
        std::thread::sleep(Duration::from_secs(3));
        assert!((1..=2 * workers as usize).contains(&told(&proxy)), "{}", proxy.stderr());
        let end = proxy.terminate(Duration::from_secs(10)).unwrap();
        assert!(end.success() && proxy.stderr().contains("ledger, points by database"), "{}", proxy.stderr());
        proxy.restart().unwrap();
        points.load(&LoadArgs { points: Some(1_000), ..points.args(&proxy) }, || {});
        let all = eventually(DRAIN, || balanced(&proxy).totals.queued == 0 && circles.held(0) == points.acked);
        assert!(all, "{:?}\n{}", proxy.ledger(), proxy.stderr());
    }
}

#[test]
fn a_data_dir_that_is_removed() {
    lost(|dir| fs::remove_dir_all(dir).unwrap());
}

#[test]
fn a_data_dir_that_is_renamed_and_replaced_by_an_empty_one() {
    lost(|dir| {
        fs::rename(dir, dir.with_extension("old")).unwrap();
        fs::create_dir(dir).unwrap();
    });
}

#[test]
fn a_data_dir_that_is_replaced_by_a_copy() {
    lost(|dir| {
        let old = dir.with_extension("old");
        fs::rename(dir, &old).unwrap();
        let copied = std::process::Command::new("cp").arg("-a").args([&old, dir]).status().unwrap();
        assert!(copied.success());
    });
}

#[test]
fn the_files_of_the_logs_that_are_removed() {
    lost(|dir| {
        for worker in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            let files = fs::read_dir(worker).unwrap().map(|entry| entry.unwrap().path());
            files.filter(|path| path.extension().is_some_and(|e| e == "seg")).for_each(|path| {
                fs::remove_file(path).unwrap();
            });
        }
    });
}

/// Others go on, and clients come to them.
#[test]
fn the_folder_of_one_worker_that_is_removed() {
    let (proxy, mut circles, mut points) = with_backlog(2);
    let mut open: Vec<_> = (0..24).map(|_| Client::connect(proxy.addr()).unwrap()).collect();
    for client in &mut open {
        assert_eq!(client.get("/ping").unwrap().status, 204);
    }
    fs::remove_dir_all(proxy.data_dir().join("worker-1")).unwrap();
    noticed(&proxy, &[1]);
    let statuses: Vec<_> = open.iter_mut().map(|client| client.get("/ping").unwrap().status).collect();
    assert!(statuses.iter().all(|status| *status == 204), "{statuses:?}");
    let replies: Vec<_> = open.iter_mut().map(|client| client.write(DB, "m n=0i 1\n").unwrap()).collect();
    assert!(replies.iter().any(|reply| reply.status == 503 && reply.text().contains(REFUSAL)));
    assert!(replies.iter().any(|reply| reply.status != 503));
    // The listener closes a moment after it is noticed.
    let taken =
        || (0..8).all(|_| Client::connect(proxy.addr()).unwrap().write(DB, "m n=0i 1\n").unwrap().status == 204);
    assert!(eventually(NOTICED, taken), "{}", proxy.stderr());
    points.load(&LoadArgs { points: Some(1_000), connections: 8, ..points.args(&proxy) }, || {});
    circles.restart();
    assert!(eventually(DRAIN, || proxy.ledger().unwrap().totals.queued == 0), "{}", proxy.stderr());
    for circle in 0..2 {
        assert!(points.acked.iter().all(|n| circles.held(circle).contains(n)));
    }
}

/// What was renamed by mistake is put back before the restart: nothing is lost.
#[test]
fn a_data_dir_that_comes_back() {
    let (mut proxy, mut circles, points) = with_backlog(2);
    let away = proxy.data_dir().with_extension("away");
    fs::rename(proxy.data_dir(), &away).unwrap();
    noticed(&proxy, &[0, 1]);
    fs::rename(&away, proxy.data_dir()).unwrap();
    // It may have got points in between that were refused: only a restart begins anew.
    all_refused(&proxy);
    proxy.kill();
    proxy.restart().unwrap();
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
}

//! Promise: a full disk is back-pressure. Writes are refused with 503 and Retry-After, or the oldest points go and are
//! counted; nothing acknowledged is lost otherwise, and all goes on when backends are back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::circles::{Circles, DB, DRAIN, Points, assert_nothing_lost, balanced, drained, missing};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::load::{LoadArgs, Summary};
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};

/// A small file system of its own.
struct SmallDisk {
    mounted: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    /// ext4 on a loop device. None, with a line on stderr, where this process may not mount.
    fn new() -> Option<Self> {
        Self::of(64 << 20, Command::new("mkfs.ext4").args(["-q", "-m", "0"]))
    }

    fn of(bytes: u64, mkfs: &mut Command) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (image, mounted) = (dir.path().join("image"), dir.path().join("mounted"));
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(&mounted).unwrap();
        let done = run(mkfs.arg(&image))
            .and_then(|()| run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted)));
        match done {
            Ok(()) => Some(Self { mounted, _dir: dir }),
            Err(why) => {
                eprintln!("SKIPPED: a small file system cannot be mounted here: {why}");
                None
            }
        }
    }

    fn data_dir(&self) -> String {
        self.mounted.join("data").display().to_string()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("umount").arg("-l").arg(&self.mounted)) {
            eprintln!("{}: {why}", self.mounted.display());
        }
    }
}

pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Writes until every worker answers 503.
fn fill(proxy: &Proxy, points: &mut Points) -> Summary {
    let mut summaries = Vec::new();
    let full = eventually(Duration::from_secs(60), || {
        let args = LoadArgs { points: Some(20_000), lines: 500, connections: 16, ..points.args(proxy) };
        summaries.push(points.load(&args, || {}));
        summaries.last().unwrap().counts.acked_points == 0
    });
    assert!(full, "never full\n{}", proxy.stderr());
    let summary = summaries.pop().unwrap();
    assert!(summary.counts.statuses.keys().all(|status| [204, 503].contains(status)), "{summary}");
    assert!(summary.counts.failures.is_empty(), "{summary}\n{}", proxy.stderr());
    summary
}

/// What a refusal looks like. Its lines have numbers far above those of any load.
fn assert_refused(proxy: &Proxy, points: &mut Points) {
    let mut client = Client::connect(proxy.addr()).unwrap();
    let (mut next, mut refusal) = (1_000_000_000, None);
    // Not with the first write: the worker may have found a little more space.
    let refused = eventually(DRAIN, || {
        let numbers = next..next + 2_000;
        next = numbers.end;
        let lines: String = numbers.clone().map(|n| format!("filler n={n}i {n}\n")).collect();
        let reply = client.write(DB, &lines).unwrap();
        for n in numbers {
            points.sent.insert(n);
            if reply.status == 204 {
                points.acked.insert(n);
            }
        }
        refusal.insert(reply).status == 503
    });
    let reply = refusal.unwrap();
    assert!(refused, "{} {}", reply.status, reply.text());
    assert!(reply.header("Retry-After").is_some_and(|seconds| seconds.parse::<u64>().is_ok()));
    assert!(reply.text().contains("backlog full"), "{}", reply.text());
    // Other requests are still answered.
    assert_eq!(client.get("/ping").unwrap().status, 204);
}

/// Fills the log with all backends down, kills the proxy in that state if asked to, and lets the backends come back.
fn full_and_back(mut circles: Circles, mut proxy: Proxy, kill: bool) {
    circles.stop();
    let mut points = Points::default();
    fill(&proxy, &mut points);
    assert_refused(&proxy, &mut points);
    let queued = balanced(&proxy).totals.queued;
    assert!(queued >= 2 * points.acked.len(), "{queued} {}", points.acked.len());
    if kill {
        proxy.restart().unwrap();
        assert_eq!(balanced(&proxy).totals.queued, queued);
        let health = proxy.health().unwrap();
        assert!(health.iter().flat_map(|c| &c.backends).all(|b| b.backlog), "{health:?}");
    }
    circles.restart();
    let ledger = assert_nothing_lost(&proxy, &circles, &points);
    assert_eq!(ledger.totals.dropped, 0);
    let accepts = || {
        let mut client = Client::connect(proxy.addr()).unwrap();
        client.write("other", "after v=1 1\n").unwrap().status != 503
    };
    assert!(eventually(DRAIN, accepts), "{}", proxy.stderr());
    // As much again, once the space of what has been delivered is free: until then a write may still be refused.
    let mut again = || {
        let args = LoadArgs { points: Some(10_000), ..points.args(&proxy) };
        points.load(&args, || {}).succeeded()
    };
    assert!(eventually(DRAIN, &mut again), "{}", proxy.stderr());
    let ledger = drained(&proxy);
    assert!(missing(&points.acked, &circles.held(0)).is_empty() && missing(&points.acked, &circles.held(1)).is_empty());
    assert_eq!(ledger.totals.dropped, 0);
}

/// `backlog_max_bytes` is larger than the disk, so that the disk is full first.
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let Some(disk) = SmallDisk::new() else { return };
    let circles = Circles::new(2, 2);
    let config = circles.config().set("data_dir", disk.data_dir()).set("backlog_max_bytes", 1 << 30);
    full_and_back(circles, start(&config), false);
}

#[test]
fn a_proxy_killed_on_a_full_disk_starts_again_and_loses_nothing() {
    let Some(disk) = SmallDisk::new() else { return };
    let circles = Circles::new(2, 2);
    let config = circles.config().set("data_dir", disk.data_dir()).set("backlog_max_bytes", 1 << 30);
    full_and_back(circles, start(&config), true);
}

/// There is room again: writes are taken, and none is lost.
fn goes_on(proxy: &Proxy, circles: &Circles, points: &mut Points) {
    let accepted = eventually(DRAIN, || {
        let args = LoadArgs { points: Some(2_000), ..points.args(proxy) };
        points.load(&args, || {}).succeeded()
    });
    assert!(accepted, "{}", proxy.stderr());
    assert_nothing_lost(proxy, circles, points);
}

/// Another file fills the disk to the last byte. Nothing acknowledged is lost, and writes go on when there is room.
#[test]
fn a_disk_that_others_fill_is_back_pressure_too() {
    let Some(disk) = SmallDisk::new() else { return };
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config().set("data_dir", disk.data_dir()).set("workers", 1));
    let mut points = Points::default();
    assert!(points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {}).succeeded());
    assert_nothing_lost(&proxy, &circles, &points);
    let junk = disk.mounted.join("junk");
    fill_to_the_last_byte(&junk);
    circles.stop();
    fill(&proxy, &mut points);
    assert_refused(&proxy, &mut points);
    circles.restart();
    assert_nothing_lost(&proxy, &circles, &points);
    proxy.restart().unwrap_or_else(|e| panic!("with a full disk it must start: {e}"));
    assert_nothing_lost(&proxy, &circles, &points);
    std::fs::remove_file(&junk).unwrap();
    goes_on(&proxy, &circles, &mut points);
}

/// Somebody else takes every block, again and again. All the same: kill -9 and a start, the backlog is delivered, a
/// stop is orderly, and what was delivered is not delivered again.
fn a_backlog_on_a_disk_without_a_free_block(disk: &SmallDisk) {
    let mut circles = Circles::new(2, 1);
    let mut proxy = start(&circles.config().set("data_dir", disk.data_dir()).set("workers", 1));
    let mut points = Points::default();
    assert!(points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {}).succeeded());
    assert_nothing_lost(&proxy, &circles, &points);
    circles.stop();
    assert!(points.load(&LoadArgs { points: Some(2_000), ..points.args(&proxy) }, || {}).succeeded());
    let junk = disk.mounted.join("junk");
    fill_to_the_last_byte(&junk);
    fill(&proxy, &mut points);
    for _ in 0..3 {
        fill_to_the_last_byte(&junk);
        proxy.restart().unwrap_or_else(|e| panic!("with a full disk it must start: {e}"));
    }
    let queued = balanced(&proxy).totals.queued;
    assert!(queued >= 2 * 2_000, "{queued}");
    fill_to_the_last_byte(&junk);
    circles.restart();
    let ledger = assert_nothing_lost(&proxy, &circles, &points);
    fill_to_the_last_byte(&junk);
    let ended = proxy.terminate(Duration::from_secs(10)).unwrap();
    assert!(ended.success() && proxy.stderr().contains("ledger, points by database"), "{}", proxy.stderr());
    assert!(!proxy.stderr().contains("cannot save"), "{}", proxy.stderr());
    for kill in [true, false] {
        proxy.restart().unwrap();
        if kill {
            fill_to_the_last_byte(&junk);
            proxy.restart().unwrap();
        }
        assert_eq!(drained(&proxy).totals, ledger.totals);
    }
    std::fs::remove_file(&junk).unwrap();
    goes_on(&proxy, &circles, &mut points);
}

/// Dead letters wait for space; the attempts leave no files that would push out others.
#[test]
fn dead_letters_on_a_full_disk_wait_in_one_file() {
    let Some(disk) = SmallDisk::new() else { return };
    let server = Influxd::start().unwrap();
    server.create_database(DB).unwrap();
    let config = ProxyConfig::new(&[vec![server.url()]]).set("data_dir", disk.data_dir()).set("workers", 1);
    let proxy = start(&config);
    let write = |line: &str| {
        let mut client = Client::connect(proxy.addr()).unwrap();
        assert_eq!(client.write(DB, line).unwrap().status, 204);
    };
    let files = || -> Vec<_> {
        let folders = std::fs::read_dir(Path::new(&disk.data_dir()).join("rejected")).into_iter().flatten();
        folders
            .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|f| f.unwrap().path())
            .collect()
    };
    write("m v=1i 1\n");
    drained(&proxy);
    let junk = disk.mounted.join("junk");
    fill_to_the_last_byte(&junk);
    write("m v=\"text\" 2\n");
    let tried = || proxy.stderr().contains("cannot write dead letters");
    assert!(eventually(DRAIN, tried), "{}", proxy.stderr());
    // Some more attempts.
    std::thread::sleep(Duration::from_secs(4));
    assert!(files().len() <= 1, "{:?}", files());
    assert_eq!(balanced(&proxy).totals.queued, 1);
    std::fs::remove_file(&junk).unwrap();
    assert_eq!(drained(&proxy).totals.rejected, 1);
    let files = files();
    assert_eq!(files.len(), 1, "{files:?}");
    let text = std::fs::read_to_string(&files[0]).unwrap();
    assert_eq!((text.matches("m v=\"text\" 2\n").count(), text.lines().count()), (1, 2), "{text}");
}

#[test]
fn a_backlog_is_delivered_without_a_free_block() {
    let Some(disk) = SmallDisk::new() else { return };
    a_backlog_on_a_disk_without_a_free_block(&disk);
}

#[test]
fn a_backlog_is_delivered_without_a_free_block_on_btrfs() {
    let Some(disk) = SmallDisk::of(256 << 20, Command::new("mkfs.btrfs").arg("-q")) else { return };
    a_backlog_on_a_disk_without_a_free_block(&disk);
}

fn fill_to_the_last_byte(junk: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::options().create(true).append(true).open(junk).unwrap();
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![0x55; size]).and_then(|()| file.sync_data()).is_ok() {}
    }
}

/// 80 % of a disk of 64 MiB.
#[test]
fn a_small_data_dir_works_with_default_bounds() {
    let Some(disk) = SmallDisk::new() else { return };
    let circles = Circles::new(2, 2);
    let config = circles.config().set("data_dir", disk.data_dir()).set("workers", 2);
    full_and_back(circles, start(&config), false);
}

#[test]
fn a_small_backlog_max_bytes_is_kept() {
    let circles = Circles::new(2, 2);
    let proxy = start(&circles.config().set("workers", 2).set("backlog_max_bytes", 24 << 20));
    full_and_back(circles, proxy, true);
}

/// Killed again and again at full speed: what was dropped had been booked before it was gone.
#[test]
fn drop_oldest_keeps_its_accounts_when_killed_at_full_speed() {
    let mut circles = Circles::new(2, 1);
    let config = circles.config().set("workers", 1).set("backlog_max_bytes", 8 << 20);
    let mut proxy = start(&config.set("backlog_full", "drop_oldest").set("hot_tail_bytes", 4 << 20));
    circles.0[1][0].stop();
    let mut points = Points::default();
    let args = LoadArgs { lines: 500, ..points.args(&proxy) };
    let summary = points.load_during(&args, || {
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(900 + 330 * round));
            proxy.restart().unwrap();
        }
        std::thread::sleep(Duration::from_millis(500));
    });
    assert!(summary.counts.failed_requests() > 0, "nobody noticed the kills\n{summary}");
    proxy.restart().unwrap();
    assert!(!proxy.stderr().contains("damaged"), "{}", proxy.stderr());
    circles.0[1][0].restart().unwrap();
    let ledger = drained(&proxy);
    let (served, lagging) = (ledger.backend("influxdb-1-1"), ledger.backend("influxdb-2-1"));
    assert!(lagging.dropped > 0, "{ledger:?}");
    assert_eq!(lagging.accepted, served.accepted, "{ledger:?}");
    assert!((points.acked.len()..=points.sent.len()).contains(&served.accepted), "{ledger:?}\n{summary}");
    assert_eq!(lagging.delivered, circles.held(1).len(), "{ledger:?}");
    let missing = missing(&points.acked, &circles.held(0)).len() as u64;
    assert!(missing <= served.dropped, "{missing} are missing: {ledger:?}");
}

/// It waits for all circles, and its points go before one of them has had them.
#[test]
fn a_write_that_waits_is_told_that_its_points_were_dropped() {
    let mut circles = Circles::new(2, 1);
    let config = circles.config().set("workers", 1).set("backlog_max_bytes", 8 << 20).set("write_timeout", 60);
    let proxy = start(&config.set("backlog_full", "drop_oldest").set("hot_tail_bytes", 4 << 20));
    circles.0[1][0].stop();
    let mut points = Points::default();
    let load = |points| LoadArgs { points: Some(points), lines: 500, ..Points::default().args(&proxy) };
    // What its courier tries is not dropped.
    assert!(points.load(&load(1_000), || {}).succeeded());
    let write = |level: &str| {
        let mut client = Client::connect(proxy.addr()).unwrap();
        client.request("POST", &format!("/write?db={DB}&consistency={level}"), &[], b"waits v=1 1").unwrap()
    };
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| write("all"));
        std::thread::sleep(Duration::from_millis(500));
        assert!(points.load(&load(100_000), || {}).succeeded());
        let reply = waits.join().unwrap();
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("10")), "{reply:?}");
        assert!(reply.text().contains("points of this write were dropped"), "{reply:?}");
    });
    assert_eq!(write("one").status, 204, "the other circle has it");
}

/// The oldest points are dropped and counted, and writes are never refused.
#[test]
fn drop_oldest_keeps_accepting_and_counts() {
    let mut circles = Circles::new(2, 1);
    let config = circles.config().set("workers", 1).set("backlog_max_bytes", 8 << 20);
    let mut proxy = start(&config.set("backlog_full", "drop_oldest").set("hot_tail_bytes", 4 << 20));
    // One circle is served, so that only the other one loses.
    circles.0[1][0].stop();
    let mut points = Points::default();
    let summary = points.load(&LoadArgs { points: Some(100_000), lines: 500, ..points.args(&proxy) }, || {});
    assert!(summary.succeeded(), "{summary}");
    let dropped = |proxy: &Proxy| balanced(proxy).backend("influxdb-2-1").dropped;
    assert!(eventually(DRAIN, || dropped(&proxy) > 0), "{}", proxy.stderr());
    // A crash more than a second after the last write: the ledger has been saved since.
    std::thread::sleep(Duration::from_millis(2_500));
    proxy.restart().unwrap();
    assert!(!proxy.stderr().contains("damaged"), "{}", proxy.stderr());
    let used: u64 = std::fs::read_dir(proxy.data_dir().join("worker-0"))
        .unwrap()
        .map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(used <= 9 << 20, "{used}");
    circles.0[1][0].restart().unwrap();
    let ledger = drained(&proxy);
    assert!(missing(&points.acked, &circles.held(0)).is_empty());
    let lost = missing(&points.acked, &circles.held(1));
    let row = ledger.backend("influxdb-2-1");
    assert_eq!((row.dropped, row.delivered), (lost.len() as u64, circles.held(1).len()), "{ledger:?}");
    let reasons: Vec<_> = ledger.databases[0].backends.iter().flat_map(|b| b.dropped.keys()).collect();
    assert_eq!(reasons, ["backlog full"]);
    // The oldest: no lost point is newer than the newest that was kept, by more than what is written side by side.
    assert!(*lost.iter().max().unwrap() < points.acked.len() * 3 / 4, "{:?}", lost.iter().max());
}

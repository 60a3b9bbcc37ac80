//! Promise: what was acknowledged survives a power cut, on ext4, xfs and btrfs. The file system with the log lies in a
//! file on another one, whose plug is pulled under load: what was not flushed to it is gone, as with a real disk.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::circles::{Circles, DRAIN, Points, assert_nothing_lost};
use crate::crash_rounds::now_ns;
use crate::disk_full::run;
use crate::support::start;
use fluxgate::lab::load::LoadArgs;
use fluxgate::lab::proxy::{Proxy, eventually};
use rustix::process::Signal;

/// `FS_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;
/// Without writing anything more, not even the journal.
static AT_ONCE: u32 = 2;
/// xfs takes no less than 300 MiB.
const INNER_BYTES: u64 = 320 << 20;
const OUTER_BYTES: u64 = INNER_BYTES + (64 << 20);

/// A file system of one kind in a file on an ext4 in a file.
pub struct PowerCutDisk {
    pub outer: PathBuf,
    pub inner: PathBuf,
    dir: tempfile::TempDir,
}

impl PowerCutDisk {
    /// None, with a line on stderr, where that cannot be made.
    pub fn new(kind: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Self { outer: dir.path().join("outer"), inner: dir.path().join("inner"), dir };
        std::fs::create_dir(&disk.outer).unwrap();
        std::fs::create_dir(&disk.inner).unwrap();
        match disk.make(kind) {
            Ok(()) => Some(disk),
            Err(why) => {
                eprintln!("SKIPPED: no {kind} can be made and mounted here: {why}");
                None
            }
        }
    }

    fn outer_image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    pub fn inner_image(&self) -> PathBuf {
        self.outer.join("image")
    }

    fn make(&self, kind: &str) -> Result<(), String> {
        std::fs::File::create(self.outer_image()).unwrap().set_len(OUTER_BYTES).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(self.outer_image()))?;
        mount(&self.outer_image(), &self.outer)?;
        run(Command::new("fallocate").arg("-l").arg(INNER_BYTES.to_string()).arg(self.inner_image()))?;
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(self.inner_image()))?;
        mount(&self.inner_image(), &self.inner)?;
        // What was made must not go with the first cut.
        run(Command::new("sync").arg("-f").arg(&self.inner))?;
        run(Command::new("sync").arg("-f").arg(&self.outer))
    }

    /// Nothing reaches the disk from now on.
    pub fn cut(&self) {
        let folder = std::fs::File::open(&self.outer).unwrap();
        // SAFETY: the call reads one u32, which lives to its end.
        let done = unsafe { libc::ioctl(folder.as_raw_fd(), SHUTDOWN, &raw const AT_ONCE) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// Forgets what was in memory, and mounts what had reached the disk. Nobody may use it any more.
    fn power_on(&self) {
        // The kernel lets go of a killed io_uring process's files a little later.
        for folder in [&self.inner, &self.outer] {
            let mut told = Ok(());
            let done = eventually(DRAIN, || {
                told = run(Command::new("umount").arg(folder));
                told.is_ok()
            });
            assert!(done, "{told:?}");
        }
        mount(&self.outer_image(), &self.outer).unwrap();
        mount(&self.inner_image(), &self.inner).unwrap();
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        for folder in [&self.inner, &self.outer] {
            let _ = run(Command::new("umount").arg("-l").arg(folder));
        }
    }
}

pub fn mount(image: &Path, folder: &Path) -> Result<(), String> {
    run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(folder))
}

/// Stops all threads of the process where they are.
fn stand_still(proxy: &Proxy) {
    proxy.signal(Signal::STOP).unwrap();
    let threads = format!("/proc/{}/task", proxy.pid().unwrap());
    let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        // The name may hold anything, and ends with the last parenthesis.
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
    };
    assert!(eventually(DRAIN, || std::fs::read_dir(&threads).unwrap().all(is_stopped)));
}

/// Three cuts under load, or a tenth of `CRASH_ROUNDS`; with and without a backend down. A file that nobody synced
/// shows that each took something.
fn cuts(kind: &str) {
    let Some(disk) = PowerCutDisk::new(kind) else { return };
    let count = std::env::var("CRASH_ROUNDS").map_or(3, |text| text.parse::<u64>().unwrap() / 10).max(3);
    let mut circles = Circles::new(2, 2);
    let config = circles.config().set("data_dir", disk.inner.join("data").display().to_string());
    let mut proxy = start(&config.set("workers", 2).set("hot_tail_bytes", 4 << 20));
    let mut points = Points::default();
    for round in 0..count {
        if round % 2 == 1 {
            circles.0[1][1].stop();
        }
        // Another file each time: ext4 writes at once what replaces a file.
        let unsynced = disk.inner.join(format!("unsynced-{round}"));
        let moment = Duration::from_millis(300 + now_ns() % 2_000);
        let args = LoadArgs { rate: 10_000, ..points.args(&proxy) };
        let summary = points.load_during(&args, || {
            std::thread::sleep(moment);
            // A machine without power acknowledges nothing. The file system would: a sync that has begun when the plug
            // is pulled may end as if it had succeeded.
            stand_still(&proxy);
            std::fs::write(&unsynced, [1; 1 << 20]).unwrap();
            disk.cut();
            proxy.kill();
            disk.power_on();
            let survived = std::fs::read(&unsynced).unwrap_or_default().iter().filter(|byte| **byte == 1).count();
            assert!(survived < 1 << 20, "the cut took nothing");
            proxy.restart().unwrap();
            std::thread::sleep(Duration::from_millis(200));
        });
        assert!(summary.counts.acked_points > 200, "{summary}\n{}", proxy.stderr());
        if round % 2 == 1 {
            circles.0[1][1].restart().unwrap();
        }
        let ledger = assert_nothing_lost(&proxy, &circles, &points);
        assert_eq!(ledger.totals.dropped, 0, "{ledger:?}\n{}", proxy.stderr());
    }
    println!("{kind}: {count} power cuts, {} points acknowledged", points.acked.len());
}

#[test]
fn on_ext4() {
    cuts("ext4");
}

#[test]
fn on_xfs() {
    cuts("xfs");
}

#[test]
fn on_btrfs() {
    cuts("btrfs");
}

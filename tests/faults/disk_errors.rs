//! Promise: a disk that returns errors is told in `/health` and in the log, with what to do. The file system with the
//! log lies in a file on another one, which fails as a whole or for some blocks.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::circles::{Circles, DB};
use crate::disk_full::run;
use crate::power_cut::{PowerCutDisk, mount};
use crate::support::start;
use fluxgate::lab::client::Client;
use fluxgate::lab::proxy::{Proxy, eventually};
use serde_json::Value;

/// It is noticed within this, on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);

/// A proxy with its log on that disk.
fn on(disk: &PowerCutDisk) -> (Proxy, Circles) {
    let circles = Circles::new(2, 1);
    let config = circles.config().set("workers", 1).set("data_dir", disk.inner.join("data").display().to_string());
    let proxy = start(&config.set("hot_tail_bytes", 4 << 20));
    assert_eq!(write(&proxy, 1), 204, "{}", proxy.stderr());
    (proxy, circles)
}

fn write(proxy: &Proxy, n: u64) -> u16 {
    Client::connect(proxy.addr()).unwrap().write(DB, &format!("m n={n}i {n}\n")).unwrap().status
}

/// What `/health` says of the machine, of each circle.
fn faults(proxy: &Proxy) -> Vec<(String, String)> {
    let health: Value = serde_json::from_str(&proxy.get("/health").unwrap().1).unwrap();
    let faults = |circle: &Value| circle["faults"].as_array().cloned().unwrap_or_default();
    assert_eq!(faults(&health[0]), faults(&health[1]));
    let text = |of: &Value, name: &str| of[name].as_str().unwrap().to_owned();
    faults(&health[0]).iter().map(|fault| (text(fault, "name"), text(fault, "message"))).collect()
}

/// Waits until that is the only fault.
fn is_told(proxy: &Proxy, part: &str) {
    let told = || {
        let faults = faults(proxy);
        let says = |message: &str| message.contains(part) && message.contains("check the disk");
        faults.len() == 1 && faults[0].0 == "worker 0" && says(&faults[0].1)
    };
    assert!(eventually(NOTICED, told), "{:?}\n{}", faults(proxy), proxy.stderr());
}

#[test]
fn a_log_that_cannot_be_written() {
    let Some(disk) = PowerCutDisk::new("ext4") else { return };
    let (proxy, _circles) = on(&disk);
    assert_eq!(faults(&proxy), []);
    disk.cut();
    assert!(eventually(NOTICED, || write(&proxy, 2) == 503), "{}", proxy.stderr());
    is_told(&proxy, "takes no writes until a restart");
    let log = proxy.stderr();
    let line = log.lines().find(|line| line.contains("the log of worker 0 has failed")).expect("it is logged");
    assert!(line.contains("restarted; check the disk of") && line.contains("os error 5"), "{line}");
}

#[test]
fn a_state_that_cannot_be_saved() {
    let Some(disk) = PowerCutDisk::new("ext4") else { return };
    write_all_blocks(&disk);
    let (proxy, _circles) = on(&disk);
    std::thread::sleep(Duration::from_secs(2));
    for name in ["state", "state.2"] {
        take_blocks(&disk, &disk.inner.join("data/worker-0").join(name));
    }
    let filler = disk.outer.join("filler");
    fill(&filler);
    let mut n = 1;
    let mut writes_go_on = || {
        n += 1;
        assert_eq!(write(&proxy, n), 204, "{}", proxy.stderr());
        proxy.stderr().contains("cannot save cursors and ledger")
    };
    assert!(eventually(NOTICED, &mut writes_go_on), "{}", proxy.stderr());
    is_told(&proxy, "cursors and ledger cannot be saved");
    let log = proxy.stderr();
    let line = log.lines().find(|line| line.contains("cannot save cursors and ledger")).expect("it is logged");
    assert!(line.contains("after a crash") && line.contains("check the disk of"), "{line}");
    std::fs::remove_file(filler).unwrap();
    let saved = || {
        writes_go_on();
        faults(&proxy).is_empty() && proxy.stderr().contains("cursors and ledger are saved again")
    };
    assert!(eventually(NOTICED, saved), "{:?}\n{}", faults(&proxy), proxy.stderr());
}

/// A block that has been written can be written again on a full disk.
fn write_all_blocks(disk: &PowerCutDisk) {
    let image = disk.inner_image();
    run(Command::new("umount").arg(&disk.inner)).unwrap();
    let [from, to] = ["if", "of"].map(|end| format!("{end}={}", image.display()));
    run(Command::new("dd").args([from, to]).args(["bs=1M", "conv=notrunc,fsync"])).unwrap();
    mount(&image, &disk.inner).unwrap();
}

/// Takes away the blocks in which a file lies: each write to them needs new ones.
fn take_blocks(disk: &PowerCutDisk, file: &Path) {
    const BLOCK: u64 = 4096;
    let output = Command::new("filefrag").args(["-e", "-b4096"]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // "  0:  0..  15:  34816.. 34831:  16: ..."
    let numbers = |part: &str| part.split("..").map(|number| number.trim().parse().unwrap()).collect::<Vec<u64>>();
    let extents = text.lines().filter_map(|line| line.split(':').nth(2).filter(|part| part.contains("..")));
    for extent in extents.map(numbers) {
        let (offset, length) = (extent[0] * BLOCK, (extent[1] - extent[0] + 1) * BLOCK);
        let range = ["-p", "-o", &offset.to_string(), "-l", &length.to_string()];
        run(Command::new("fallocate").args(range).arg(disk.inner_image())).unwrap();
    }
}

/// Takes all space of a file system.
fn fill(file: &Path) {
    let file = std::fs::File::create(file).unwrap();
    let all = (0..26).rev().map(|power| 1_u64 << power);
    let mut length = 0;
    for bytes in all {
        while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, bytes).is_ok() {
            length += bytes;
        }
    }
}

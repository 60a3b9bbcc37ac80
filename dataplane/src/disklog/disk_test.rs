//! The log on a real disk: behaviour that needs a real system, and the tools that read its directories.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Error, Log, LogSettings, Opened, RecordKey, Seq, fuzz, inspect, pending, segment, worker_dir};
use crate::io::{block_on, sleep};
use crate::limits::HOT_TAIL_BYTES_MIN;
use crate::order::RecordOrder;
use crate::precision::Precision;
use crate::settings::{BacklogFull, Durability};
use crate::topology::{Backend, BackendId, Topology};

fn topology(names: &[&str]) -> Arc<Topology> {
    let mut topology = Topology::default();
    for (circle, name) in names.iter().enumerate() {
        topology.add_circle(format!("circle-{circle}"), [Backend::new(*name, "")]);
    }
    Arc::new(topology)
}

async fn open(dir: &Path, names: &[&str], durability: Durability) -> Result<(Rc<Log>, Opened), Error> {
    Log::open(LogSettings {
        dir: dir.to_owned(),
        worker: 0,
        number: 0,
        written: true,
        order: Arc::new(RecordOrder::new(1, 3, Duration::ZERO)),
        workers: 1,
        topology: topology(names),
        durability,
        linger: Duration::ZERO,
        hot_tail_bytes: HOT_TAIL_BYTES_MIN,
        max_bytes: 64 << 20,
        backlog_full: BacklogFull::Reject,
    })
    .await
}

async fn append(log: &Log, rp: &[u8], to: [Option<BackendId>; 2], text: &str) -> Seq {
    let key = RecordKey { db: b"telegraf", rp, precision: Precision::Second, route: &to };
    let lines = text.lines().count() as u32;
    log.append(&key, lines, text.len(), false, |out| out.copy_from_slice(text.as_bytes())).await.unwrap()
}

const BOTH: [Option<BackendId>; 2] = [Some(BackendId(0)), Some(BackendId(1))];
const FIRST: [Option<BackendId>; 2] = [Some(BackendId(0)), None];

/// CPU time of this executor's thread.
fn thread_cpu() -> Duration {
    // SAFETY: all-zero bytes are a valid rusage, which is made of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable for the whole call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[test]
fn lines_are_read_back_after_a_clean_end_and_after_a_crash() {
    for durability in [Durability::Disk, Durability::Os] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker-0");
        block_on(move || {
            let path = path.clone();
            async move {
                for life in 0..4u64 {
                    let (log, opened) = open(&path, &["a", "b"], durability).await.unwrap();
                    assert_eq!(opened.damage, []);
                    let locked = open(&path, &["a", "b"], durability).await.map(|_| ());
                    assert!(matches!(locked, Err(Error::Locked { .. })), "{locked:?}");
                    let seq = append(&log, b"", BOTH, &format!("m life={life}i 1\n")).await;
                    log.committed(seq, Durability::Disk).await.unwrap();
                    let mut reader = log.reader(BackendId(1));
                    let mut text = String::new();
                    while text.lines().count() <= life as usize {
                        let sink = &mut |r: super::RecordView<'_>| {
                            text.push_str(std::str::from_utf8(r.bytes).unwrap());
                            true
                        };
                        reader.fetch(true, sink).await.unwrap();
                    }
                    let want: String = (0..=life).map(|n| format!("m life={n}i 1\n")).collect();
                    assert_eq!(text, want);
                    if life == 1 {
                        log.save_state(b"so far".to_vec(), false).await.unwrap();
                        log.close().await.unwrap();
                    }
                    assert_eq!(opened.ledger, if life >= 2 { &b"so far"[..] } else { b"" });
                }
            }
        });
    }
}

#[test]
fn a_backend_added_after_the_saved_state_gets_its_points_from_before_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    block_on(move || {
        let path = path.clone();
        async move {
            let (log, _) = open(&path, &["a"], Durability::Disk).await.unwrap();
            append(&log, b"", FIRST, "m v=1 1\n").await;
            log.save_state(Vec::new(), false).await.unwrap();
            drop(log);
            let (log, _) = open(&path, &["a", "b"], Durability::Disk).await.unwrap();
            let seq = append(&log, b"", BOTH, "m v=2 2\n").await;
            log.committed(seq, Durability::Disk).await.unwrap();
            drop(log);
            let (log, opened) = open(&path, &["a", "b"], Durability::Disk).await.unwrap();
            assert_eq!(opened.uncounted, [(b"telegraf".to_vec(), vec![BackendId(0), BackendId(1)], 1)]);
            let mut text = Vec::new();
            let sink = &mut |record: super::RecordView<'_>| {
                text.extend_from_slice(record.bytes);
                true
            };
            log.reader(BackendId(1)).fetch(true, sink).await.unwrap();
            assert_eq!(text, b"m v=2 2\n");
        }
    });
}

#[test]
fn an_idle_log_and_a_write_under_way_burn_no_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    block_on(move || {
        let path = path.clone();
        async move {
            let (log, _) = open(&path, &["a", "b"], Durability::Disk).await.unwrap();
            let seq = append(&log, b"", BOTH, "m v=1 1\n").await;
            log.committed(seq, Durability::Disk).await.unwrap();
            let before = thread_cpu();
            sleep(Duration::from_millis(500)).await;
            let used = thread_cpu() - before;
            assert!(used < Duration::from_millis(100), "{used:?} of 500 ms without work");

            // A device that is polled takes the CPU for up to 4 ms per write.
            let before = thread_cpu();
            for n in 0..100 {
                let seq = append(&log, b"", BOTH, &format!("m v={n} 1\n")).await;
                log.committed(seq, Durability::Disk).await.unwrap();
            }
            let used = thread_cpu() - before;
            assert!(used < Duration::from_millis(200), "{used:?} for 100 writes");
        }
    });
}

#[test]
fn records_of_backends_that_left_are_found_without_an_open_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    assert!(pending(&path.join("nowhere")).unwrap().next_record().unwrap().is_none());
    block_on(move || {
        let path = path.clone();
        async move {
            let (log, _) = open(&path, &["a", "b"], Durability::Disk).await.unwrap();
            append(&log, b"", BOTH, "m v=1 1\n").await;
            append(&log, b"week", FIRST, "m v=2 2\nm v=3 3\n").await;
            let last = append(&log, b"", BOTH, "m v=4 4\n").await;
            log.committed(last, Durability::Disk).await.unwrap();
            log.reader(BackendId(1)).fetch(true, &mut |_| true).await.unwrap();
            log.confirm(BackendId(1), last);
            log.save_state(Vec::new(), false).await.unwrap();
            drop(log);

            let mut left = pending(&path).unwrap();
            let mut found = Vec::new();
            while let Some(next) = left.next_record().unwrap() {
                let text = String::from_utf8(next.record.bytes.to_vec()).unwrap();
                let by: Vec<_> =
                    next.needed_by.iter().map(|(circle, name)| format!("{}{name}", circle.unwrap())).collect();
                found.push((next.record.rp.to_vec(), text, by.join(",")));
            }
            let want =
                [(&b""[..], "m v=1 1\n", "0a"), (b"week", "m v=2 2\nm v=3 3\n", "0a"), (b"", "m v=4 4\n", "0a,1b")];
            assert_eq!(found, want.map(|(rp, text, by)| (rp.to_vec(), text.to_owned(), by.to_owned())));
            assert_eq!(left.lost(), 0);
        }
    });
}

#[test]
fn a_running_log_can_be_listed_printed_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_owned();
    block_on(move || {
        let data_dir = data_dir.clone();
        async move {
            let path = worker_dir(&data_dir, 0);
            let (log, _) = open(&path, &["a", "b"], Durability::Disk).await.unwrap();
            append(&log, b"week", FIRST, "m v=1 1\nm v=2 2\n").await;
            let seq = append(&log, b"", BOTH, "m v=3 3\n").await;
            log.committed(seq, Durability::Disk).await.unwrap();
            log.save_state(Vec::new(), false).await.unwrap();

            let mut out = Vec::new();
            inspect::cat(&data_dir, &mut out).unwrap();
            let want = "# db=telegraf rp=week precision=s seq=1 route=a\nm v=1 1\nm v=2 2\n\
                        # db=telegraf rp= precision=s seq=2 route=a,b\nm v=3 3\n";
            assert_eq!(String::from_utf8(out).unwrap(), want);

            let mut out = Vec::new();
            inspect::ls(&path, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("00000000000000000001.seg seq=1..open"), "{text}");
            assert!(text.contains("cursor seq=1 backend=a\n"), "{text}");

            let mut out = Vec::new();
            assert!(inspect::verify(&data_dir, &mut out).unwrap());
            let text = String::from_utf8(out).unwrap();
            assert!(text.ends_with("1 segments, 1 frames, 2 records, 3 points\n"), "{text}");

            let file = path.join(segment::file_name(Seq(1)));
            let mut bytes = std::fs::read(&file).unwrap();
            bytes[segment::FRAMES_AT + 100] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            let mut out = Vec::new();
            assert!(!inspect::verify(&data_dir, &mut out).unwrap());
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("the last 3 points are missing"), "{text}");
        }
    });
}

#[test]
fn a_damaged_segment_yields_only_frames_with_correct_checksums() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let writer = path.clone();
    block_on(move || {
        let path = writer.clone();
        async move {
            let (log, _) = open(&path, &["a", "b"], Durability::Os).await.unwrap();
            for n in 0..5 {
                let seq = append(&log, b"", BOTH, &format!("m v={n} {n}\n")).await;
                log.committed(seq, Durability::Os).await.unwrap();
            }
        }
    });
    let mut bytes = std::fs::read(path.join(segment::file_name(Seq(1)))).unwrap();
    bytes.truncate(segment::FRAMES_AT + 6 * 4096);
    fuzz::fuzz_open(&bytes);
    for at in (0..bytes.len()).filter(|at| at % 4096 < 150) {
        for value in [0, 0xff, bytes[at] ^ 1] {
            let mut bad = bytes.clone();
            bad[at] = value;
            fuzz::fuzz_open(&bad);
        }
    }
    for len in (0..bytes.len()).step_by(509) {
        fuzz::fuzz_open(&bytes[..len]);
    }
}

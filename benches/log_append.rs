//! Measures what one durable acknowledgement costs the log: append and commit on a recycled segment, for each
//! durability, with one small write, 32 small writes in one commit (a group), and one large write.
//!
//! The disk is that of the system's temporary directory (`TMPDIR`). On tmpfs a sync costs nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use fluxgate_dataplane::disklog::{Log, LogSettings, RecordKey};
use fluxgate_dataplane::io;
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::precision::Precision;
use fluxgate_dataplane::settings::{BacklogFull, Durability};
use fluxgate_dataplane::topology::Topology;

const LINE_BYTES: usize = 160;
/// Small segments, so that the warm-up writes each of them once: a long-lived log writes to recycled segments.
const BACKLOG_BYTES: u64 = 64 << 20;
/// Segments are released after this many bytes, outside the measured time.
const RELEASE_BYTES: usize = 16 << 20;

/// The appends before each commit.
#[derive(Clone, Copy)]
struct Group {
    name: &'static str,
    appends: usize,
    lines: u32,
}

const GROUPS: [Group; 3] = [
    Group { name: "1x1_line", appends: 1, lines: 1 },
    Group { name: "32x1_line", appends: 32, lines: 1 },
    Group { name: "1x1000_lines", appends: 1, lines: 1000 },
];

/// Runs on an executor: for each number received, makes that many commits and sends back the time they took.
async fn serve(dir: PathBuf, durability: Durability, group: Group, asked: Receiver<u64>, told: Sender<Duration>) {
    let settings = LogSettings {
        dir,
        worker: 0,
        number: 0,
        written: true,
        order: Arc::new(RecordOrder::new(1, 0, Duration::ZERO)),
        workers: 1,
        topology: Arc::new(Topology::default()),
        durability,
        linger: Duration::ZERO,
        hot_tail_bytes: 0,
        max_bytes: BACKLOG_BYTES,
        backlog_full: BacklogFull::Reject,
    };
    let (log, _) = Log::open(settings).await.expect("an empty directory");
    let key = RecordKey { db: b"bench", rp: b"", precision: Precision::Nanosecond, route: &[] };
    let len = LINE_BYTES * group.lines as usize;
    let mut unreleased = 0;
    loop {
        let commits = match asked.try_recv() {
            Ok(commits) => commits,
            Err(TryRecvError::Empty) => {
                io::sleep(Duration::from_millis(1)).await;
                continue;
            }
            Err(TryRecvError::Disconnected) => break,
        };
        let mut took = Duration::ZERO;
        let mut start = Instant::now();
        for _ in 0..commits {
            let mut last = log.end();
            for _ in 0..group.appends {
                last = log.append(&key, group.lines, len, false, |out| out.fill(b'x')).await.expect("there is room");
            }
            log.committed(last, durability).await.expect("the disk works");
            unreleased += len * group.appends;
            if unreleased >= RELEASE_BYTES {
                took += start.elapsed();
                log.save_state(Vec::new(), false).await.expect("the disk works");
                unreleased = 0;
                start = Instant::now();
            }
        }
        took += start.elapsed();
        told.send(took).expect("somebody asked");
    }
    log.close().await.expect("the disk works");
}

fn commits(c: &mut Criterion) {
    let mut benches = c.benchmark_group("log");
    benches.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2)).sample_size(20);
    for (level, durability) in [("memory", Durability::Memory), ("os", Durability::Os), ("disk", Durability::Disk)] {
        for group in GROUPS {
            let bytes = LINE_BYTES * group.lines as usize * group.appends;
            benches.throughput(Throughput::Bytes(bytes as u64));
            benches.bench_function(format!("{level}/{}", group.name), |bencher| {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let (path, (ask, asked), (told, answers)) = (dir.path().join("log"), bounded(1), bounded(1));
                let log = io::executor("log", None, move || serve(path, durability, group, asked, told));
                let log = log.expect("io_uring works here");
                bencher.iter_custom(|iterations| {
                    ask.send(iterations).expect("the log runs");
                    answers.recv().expect("the log runs")
                });
                drop(ask);
                log.join().expect("the log ends well");
            });
        }
    }
    benches.finish();
}

criterion_group!(benches, commits);
criterion_main!(benches);

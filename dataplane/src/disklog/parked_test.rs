//! Parked points: the cursor passes them, and they stay in the log until they are confirmed themselves.

use std::rc::Rc;
use std::time::Duration;

use super::model_test::{SIZES, append, fetch, line, open, settings as settings_of};
use super::sim::Sim;
use super::{Dropped, Log, LogReader, LogSettings, RecordView, Seq};
use crate::io::{block_on, sleep};
use crate::parked::ParkedKey;
use crate::settings::{BacklogFull, Durability};
use crate::topology::BackendId;

const C: BackendId = BackendId(2);
/// Databases of `db0` to `db2` in turn, all for the third backend.
const LINES: u64 = 300;

fn settings() -> LogSettings {
    settings_of(Durability::Os)
}

fn key(db: &[u8]) -> ParkedKey {
    ParkedKey { db: db.into(), rps: None }
}

async fn fill(log: &Log) {
    for n in 0..LINES {
        let seq = append(log, n as usize % 3, &line(n, 900)).await.unwrap();
        log.committed(seq, Durability::Disk).await.unwrap();
    }
}

/// Everything that the reader has, and where it is then.
async fn all(reader: &mut LogReader) -> (Vec<u64>, Seq) {
    let mut got = (Vec::new(), reader.position());
    while reader.behind() {
        let mut take = |record: RecordView<'_>| {
            let text = std::str::from_utf8(record.bytes).unwrap();
            got.0.push(text.strip_prefix("m v=").unwrap().split('i').next().unwrap().parse().unwrap());
            true
        };
        got.1 = reader.fetch(false, &mut take).await.unwrap().next;
    }
    got
}

fn of_db(db: u64) -> Vec<u64> {
    (0..LINES).filter(|n| n % 3 == db).collect()
}

fn files(log: &Log) -> usize {
    log.shared.inner.borrow().segments.len()
}

#[test]
fn parked_points_outlive_the_cursor_and_a_restart_and_keep_their_segments_alone() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings()).await.unwrap();
        fill(&log).await;
        let segments = files(&log);
        assert!(segments > 3, "{segments}");
        log.park(C, &key(b"db0"), Seq(1));
        let mut reader = log.reader(C);
        let (got, end) = all(&mut reader).await;
        assert_eq!(got.len() as u64, LINES, "whoever reads leaves parked ones out");
        log.confirm(C, end);
        for backend in 0..2 {
            let next = all(&mut log.reader(BackendId(backend))).await.1;
            log.confirm(BackendId(backend), next);
        }
        assert!(!log.is_served(C) && log.parked_reach(C, b"db1", end) && !log.parked_reach(C, b"db0", end));
        log.save_state(Vec::new(), false).await.unwrap();
        assert_eq!(files(&log), segments, "they are still needed");
        drop((reader, log));

        let (log, opened) = open(&sim.restart(), settings()).await.unwrap();
        assert_eq!(log.parked(C), [key(b"db0")]);
        assert!(opened.absent.is_empty());
        assert!(all(&mut log.reader(C)).await.0.is_empty(), "the cursor has passed all");
        let mut parked = log.parked_reader(C, key(b"db0"));
        let (got, next) = all(&mut parked).await;
        assert_eq!(got, of_db(0));
        log.confirm_parked(C, &key(b"db0"), next);
        assert!(log.parked_reach(C, b"db0", end));
        log.unpark(C, &key(b"db0"));
        assert!(parked.fetch(true, &mut |_| true).await.is_err(), "its reader ends");
        // A segment that is being rewritten stays until that is done.
        for n in 0.. {
            log.save_state(vec![n], false).await.unwrap();
            if files(&log) < 3 {
                break;
            }
            assert!(n < 200, "{} segments", files(&log));
            sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_part_that_is_confirmed_is_not_given_again() {
    block_on(|| async {
        let sim = Sim::new(2);
        let (log, _) = open(&sim, settings()).await.unwrap();
        fill(&log).await;
        log.park(C, &key(b"db1"), Seq(1));
        log.park(C, &key(b"db1"), Seq(200));
        let (_, end) = all(&mut log.reader(C)).await;
        log.confirm(C, end);
        let mut parked = log.parked_reader(C, key(b"db1"));
        let (first, next, _) = fetch(&mut parked, 40).await.unwrap();
        assert_eq!(first, of_db(1)[..first.len()]);
        log.confirm_parked(C, &key(b"db1"), next);
        log.save_state(Vec::new(), false).await.unwrap();
        drop((parked, log));
        let (log, _) = open(&sim.restart(), settings()).await.unwrap();
        let rest = all(&mut log.parked_reader(C, key(b"db1"))).await.0;
        assert_eq!([first, rest].concat(), of_db(1));
    });
}

/// A log that drops its oldest points. Ten of the key `db2` are parked for C, which has all others; `given`: to their
/// reader, too. They have been dropped.
async fn dropped_parked(given: bool) -> Rc<Log> {
    let limits =
        LogSettings { max_bytes: 8 * SIZES.segment_bytes, backlog_full: BacklogFull::DropOldest, ..settings() };
    let (log, _) = open(&Sim::new(3), limits).await.unwrap();
    for n in 0..30 {
        append(&log, n % 3, &line(n as u64, 900)).await.unwrap();
    }
    let last = append(&log, 0, &line(30, 0)).await.unwrap();
    log.committed(last, Durability::Disk).await.unwrap();
    log.park(C, &key(b"db2"), Seq(1));
    let (_, end) = all(&mut log.reader(C)).await;
    log.confirm(C, end);
    if given {
        assert_eq!(all(&mut log.parked_reader(C, key(b"db2"))).await.0.len(), 10);
    }
    // Only for other backends than the third.
    for n in 0..2_000 {
        append(&log, 3, &line(n, 900)).await.unwrap();
        sleep(Duration::ZERO).await;
    }
    log
}

#[test]
fn of_what_is_dropped_only_parked_points_count_behind_the_cursor() {
    block_on(|| async {
        let log = dropped_parked(false).await;
        let dropped: Vec<_> = log.take_dropped().into_iter().filter(|dropped| dropped.backend == C).collect();
        assert_eq!(dropped, [Dropped { db: b"db2".to_vec(), backend: C, lines: 10 }]);
        assert_eq!(log.unpark(C, &key(b"db2")), None);
    });
}

#[test]
fn dropped_points_that_only_their_reader_has_are_told_when_it_ends() {
    block_on(|| async {
        let log = dropped_parked(true).await;
        assert!(
            log.take_dropped().iter().all(|dropped| dropped.backend != C),
            "they are counted when they are confirmed"
        );
        assert_eq!(log.unpark(C, &key(b"db2")), Some(Seq(1)..Seq(31)));
    });
}

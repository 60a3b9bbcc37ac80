//! The log compared with a small model, on a faulty disk. A failure prints its seed; each bug found once stays below as
//! a named test.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::sim::{DiskFault, Rng, Sim};
use super::{Damage, DamageKind, Error, Log, LogReader, LogSettings, Opened, RecordKey, Seq, Sizes, segment};
use crate::io::{block_on, timeout};
use crate::order::RecordOrder;
use crate::precision::Precision;
use crate::settings::{BacklogFull, Durability};
use crate::topology::{Backend, BackendId, Topology};

/// Small enough that a few hundred lines fill several segments and wrap the ring.
pub(super) const SIZES: Sizes = Sizes {
    segment_bytes: 96 * 1024,
    frame_bytes_max: 8 * 1024,
    record_bytes_max: 3 * 1024,
    ring_bytes: 40 * 1024,
    spares_max: 2,
};
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Two circles: `a` and `b` share the first, `c` is the second.
fn topology(names: &[&str]) -> Arc<Topology> {
    let mut topology = Topology::default();
    for (circle, names) in names.chunks(2).enumerate() {
        topology.add_circle(format!("circle-{circle}"), names.iter().map(|name| Backend::new(*name, "")));
    }
    Arc::new(topology)
}

const A: Option<BackendId> = Some(BackendId(0));
const C: Option<BackendId> = Some(BackendId(2));
const ROUTES: [[Option<BackendId>; 2]; 4] = [[A, C], [Some(BackendId(1)), C], [None, C], [A, None]];

pub(super) fn settings(durability: Durability) -> LogSettings {
    LogSettings {
        dir: PathBuf::from("sim"),
        worker: 0,
        number: 0,
        written: true,
        order: Arc::new(RecordOrder::new(1, 3, Duration::ZERO)),
        workers: 1,
        topology: topology(&["a", "b", "c"]),
        durability,
        linger: Duration::ZERO,
        hot_tail_bytes: SIZES.ring_bytes,
        max_bytes: 1 << 40,
        backlog_full: BacklogFull::Reject,
    }
}

pub(super) async fn open(sim: &Sim, settings: LogSettings) -> Result<(Rc<Log>, Opened), Error> {
    Log::open_on(Rc::new(sim.clone()), None, settings, SIZES).await
}

fn key(route: usize) -> RecordKey<'static> {
    const DBS: [&[u8]; 4] = [b"db0", b"db1", b"db2", b"db3"];
    RecordKey { db: DBS[route], rp: b"", precision: Precision::Nanosecond, route: &ROUTES[route] }
}

/// One line that contains its number, of `width` bytes or a little more.
pub(super) fn line(n: u64, width: usize) -> String {
    format!("m v={n}i,p=\"{}\"\n", "x".repeat(width))
}

fn number(line: &str) -> u64 {
    line.strip_prefix("m v=").and_then(|l| l.split('i').next()).and_then(|n| n.parse().ok()).expect("a line of ours")
}

pub(super) async fn append(log: &Log, route: usize, text: &str) -> Result<Seq, Error> {
    let lines = text.lines().count() as u32;
    log.append(&key(route), lines, text.len(), false, |out| out.copy_from_slice(text.as_bytes())).await
}

/// Reads at least one record, at most `max`. Returns line numbers, the reader's position, and the points lost.
pub(super) async fn fetch(reader: &mut LogReader, max: usize) -> Result<(Vec<u64>, Seq, u64), Error> {
    let mut got = Vec::new();
    let mut records = 0;
    let fetched = timeout(
        PATIENCE,
        reader.fetch(true, &mut |record| {
            if records == max {
                return false;
            }
            records += 1;
            let text = std::str::from_utf8(record.bytes).expect("our own text");
            assert_eq!(text.lines().count(), record.lines as usize);
            got.extend(text.split_inclusive('\n').map(number));
            true
        }),
    )
    .await
    .expect("a fetch hangs")?;
    assert_eq!((fetched.records, fetched.lines), (records as u64, got.len() as u64));
    Ok((got, fetched.next, fetched.lost))
}

/// What must be true, over several restarts of a log.
struct LogWorld {
    sim: Sim,
    durability: Durability,
    rng: Rng,
    next_line: u64,
    /// By backend: the lines for it, in order.
    wanted: [Vec<u64>; 3],
    acked: HashSet<u64>,
    /// By backend: how many of `wanted` are confirmed.
    confirmed: [usize; 3],
}

struct Life {
    log: Rc<Log>,
    readers: Vec<LogReader>,
    /// By backend: how many of `wanted` have been read, and the reader's position.
    read: [(usize, Seq); 3],
}

impl LogWorld {
    fn new(seed: u64, durability: Durability) -> Self {
        Self {
            sim: Sim::new(seed),
            durability,
            rng: Rng(seed.wrapping_mul(0x9e37_79b9) | 1),
            next_line: 1,
            wanted: Default::default(),
            acked: HashSet::new(),
            confirmed: [0; 3],
        }
    }

    async fn append(&mut self, life: &Life) -> Result<(Seq, Vec<u64>), Error> {
        let route = self.rng.below(4) as usize;
        let count = 1 + self.rng.below(3);
        let wide = self.rng.below(4) == 0;
        let width = self.rng.below(if wide { 900 } else { 60 }) as usize;
        let numbers: Vec<u64> = (self.next_line..self.next_line + count).collect();
        let text: String = numbers.iter().map(|&n| line(n, width)).collect();
        self.next_line += count;
        let seq = append(&life.log, route, &text).await?;
        for backend in ROUTES[route].iter().flatten() {
            self.wanted[backend.index()].extend(&numbers);
        }
        Ok((seq, numbers))
    }

    /// Opens the log and reads all of it, from every cursor: every line that was acknowledged and not confirmed is
    /// there, in order, once, and no other line.
    async fn open(&mut self) -> Result<(Life, Opened), Error> {
        let (log, opened) = open(&self.sim, settings(self.durability)).await?;
        let readers: Vec<_> = (0..3).map(|b| log.reader(BackendId(b))).collect();
        let mut life = Life { log, readers, read: [(0, Seq(0)); 3] };
        for route in [0, 1] {
            let n = self.next_line;
            self.next_line += 1;
            let seq = append(&life.log, route, &line(n, 0)).await?;
            for backend in ROUTES[route].iter().flatten() {
                self.wanted[backend.index()].push(n);
            }
            life.log.committed(seq, Durability::Disk).await?;
            self.acked.insert(n);
        }
        for b in 0..3 {
            let last = *self.wanted[b].last().expect("just appended");
            let mut got = Vec::new();
            while got.last() != Some(&last) {
                let max = 1 + self.rng.below(20) as usize;
                let (lines, next, _) = fetch(&mut life.readers[b], max).await?;
                life.read[b].1 = next;
                got.extend(lines);
            }
            let from = self.wanted[b].iter().position(|n| *n == got[0]).expect("nothing is invented");
            let from = from.min(self.confirmed[b]);
            // Compaction may have removed what was confirmed after the cursors were last saved.
            let there: HashSet<u64> = got.iter().copied().collect();
            let confirmed: HashSet<u64> = self.wanted[b][..self.confirmed[b]].iter().copied().collect();
            let gone: HashSet<u64> = self.wanted[b][from..].iter().copied().filter(|n| !there.contains(n)).collect();
            let lost: Vec<&u64> = gone.iter().filter(|n| self.acked.contains(n) && !confirmed.contains(n)).collect();
            assert!(
                lost.is_empty(),
                "backend {b}: acknowledged and lost, {lost:?}; {opened:?}; {}",
                self.describe(&life.log)
            );
            self.wanted[b].retain(|n| !gone.contains(n));
            self.confirmed[b] -= confirmed.intersection(&gone).count();
            assert_eq!(self.wanted[b][from..], got, "backend {b}: order");
            life.read[b].0 = self.wanted[b].len();
        }
        Ok((life, opened))
    }

    /// The state of the log, for a failure's message.
    fn describe(&self, log: &Log) -> String {
        let inner = log.shared.inner.borrow();
        let mut text = format!("{:?} cursors {:?} written {:?}", self.durability, inner.cursors, inner.written);
        for s in &inner.segments {
            let compacted = s.header.compacted.is_some();
            text += &format!(
                "\n  {:?}..{:?} used {} compacted {compacted} {:?}",
                s.first(),
                s.end,
                s.used,
                s.bytes_by_backend
            );
        }
        text
    }

    /// Runs random operations until a call fails or `steps` are done.
    async fn live(&mut self, life: &mut Life, steps: u64) -> Result<(), Error> {
        let mut waiting: Vec<(Seq, Vec<u64>)> = Vec::new();
        for _ in 0..steps {
            match self.rng.below(20) {
                0..=10 => {
                    let appended = self.append(life).await?;
                    waiting.push(appended);
                }
                11..=13 => {
                    let Some((seq, _)) = waiting.last() else { continue };
                    life.log.committed(*seq, Durability::Disk).await?;
                    self.acked.extend(waiting.drain(..).flat_map(|(_, numbers)| numbers));
                }
                14..=16 => {
                    let b = self.rng.below(3) as usize;
                    let read = life.read[b].0;
                    if !self.wanted[b][read..].iter().any(|n| self.acked.contains(n)) {
                        continue;
                    }
                    let max = 1 + self.rng.below(30) as usize;
                    let (got, next, lost) = fetch(&mut life.readers[b], max).await?;
                    assert_eq!(lost, 0);
                    assert_eq!(self.wanted[b][read..read + got.len()], got, "backend {b}");
                    life.read[b] = (read + got.len(), next);
                }
                17 | 18 => {
                    // One backend lags far behind the others.
                    let b = self.rng.below(3) as usize;
                    if b > 0 || self.rng.below(8) == 0 {
                        life.log.confirm(BackendId(b as u16), life.read[b].1);
                        self.confirmed[b] = life.read[b].0;
                    }
                }
                _ => life.log.save_state(b"ledger".to_vec(), false).await?,
            }
        }
        Ok(())
    }
}

#[test]
fn random_lives_agree_with_the_model() {
    block_on(|| async {
        for seed in 1..=9u64 {
            let durability = [Durability::Disk, Durability::Os, Durability::Memory][(seed % 3) as usize];
            let mut world = LogWorld::new(seed, durability);
            for life_number in 0..6 {
                let (mut life, opened) = world.open().await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                if durability == Durability::Disk {
                    assert_eq!(opened.damage, [], "seed {seed}");
                }
                let steps = 50 + world.rng.below(300);
                world.live(&mut life, steps).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                match life_number % 3 {
                    0 => {
                        life.log.save_state(Vec::new(), false).await.unwrap();
                        life.log.close().await.unwrap();
                    }
                    // Killed: what was written to the system stays.
                    1 => world.sim = world.sim.copy(),
                    // Power loss.
                    _ => world.sim = world.sim.restart(),
                }
            }
        }
    });
}

#[test]
fn what_is_acknowledged_survives_a_stop_at_every_call() {
    block_on(|| async {
        for (seed, durability) in [(3, Durability::Disk), (4, Durability::Os)] {
            let mut call = 0;
            loop {
                call += 1;
                let mut world = LogWorld::new(seed, durability);
                world.sim.fault_at(call, DiskFault::Stops);
                if let Ok((mut life, _)) = world.open().await {
                    let _ = world.live(&mut life, 200).await;
                }
                let done = world.sim.calls() < call;
                // Some tasks of the stopped log may still be running; they use another disk.
                world.sim = world.sim.restart();
                let (mut life, _) = world.open().await.unwrap_or_else(|e| panic!("stopped at {call}: {e}"));
                world.live(&mut life, 10).await.unwrap_or_else(|e| panic!("stopped at {call}: {e}"));
                if done {
                    break;
                }
            }
            assert!(call > 40, "the script must do enough to be stopped at: {call}");
        }
    });
}

#[test]
fn a_failed_call_poisons_the_log_and_loses_nothing() {
    block_on(|| async {
        for call in 4..40 {
            let mut world = LogWorld::new(call, Durability::Os);
            world.sim.fault_at(call, DiskFault::Fails);
            let Ok((mut life, _)) = world.open().await else { continue };
            if world.live(&mut life, 150).await.is_err() && life.log.poison().is_some() {
                let again = append(&life.log, 0, &line(0, 0)).await;
                assert!(matches!(again, Err(Error::Poisoned { .. })), "{again:?}");
                assert!(matches!(life.log.check_append(), Err(Error::Poisoned { .. })));
            }
            drop(life);
            world.sim = world.sim.restart();
            world.open().await.unwrap();
        }
    });
}

#[test]
fn short_writes_are_completed() {
    block_on(|| async {
        let mut world = LogWorld::new(9, Durability::Disk);
        for call in 1..400 {
            world.sim.fault_at(call, DiskFault::Short);
        }
        let (mut life, _) = world.open().await.unwrap();
        world.live(&mut life, 500).await.unwrap();
        drop(life);
        world.sim = world.sim.restart();
        let (_, opened) = world.open().await.unwrap();
        assert_eq!(opened.damage, []);
    });
}

/// A closed log of two segments with a few frames each, one record and one line per frame. Returns the number of lines.
async fn small_log(sim: &Sim) -> u64 {
    let mut n = 0;
    for _ in 0..2 {
        let (log, _) = open(sim, settings(Durability::Disk)).await.unwrap();
        for _ in 0..3 {
            n += 1;
            let seq = append(&log, 2, &line(n, 30)).await.unwrap();
            log.committed(seq, Durability::Disk).await.unwrap();
        }
        log.save_state(b"the ledger".to_vec(), false).await.unwrap();
        log.close().await.unwrap();
    }
    n
}

/// Opens the log and reads it for the third backend. Returns lines, points lost, and the report of the open.
pub(super) async fn read_all(sim: &Sim) -> (Vec<u64>, u64, Opened) {
    let (log, opened) = open(sim, settings(Durability::Disk)).await.unwrap();
    let seq = append(&log, 2, &line(u64::MAX, 0)).await.unwrap();
    log.committed(seq, Durability::Disk).await.unwrap();
    let mut reader = log.reader(BackendId(2));
    let (mut lines, mut lost) = (Vec::new(), 0);
    while lines.last() != Some(&u64::MAX) {
        let (more, _, passed) = fetch(&mut reader, usize::MAX).await.unwrap();
        lines.extend(more);
        lost += passed;
    }
    lines.pop();
    let missing = opened.damage.iter().filter(|d| d.kind == DamageKind::Segment).map(|d| d.lines).sum::<u64>();
    // What is missing at the end is named by the open alone.
    let at_open = opened.damage.iter().map(|d| d.lines).sum::<u64>();
    let named = log.take_damage().iter().map(|d| d.lines).sum::<u64>();
    assert!([named, named + missing, at_open].contains(&lost), "each loss is named once: {lost} {named} {opened:?}");
    (lines, lost, opened)
}

#[test]
fn a_flipped_byte_is_harmless_or_its_loss_is_named_exactly() {
    block_on(|| async {
        let sim = Sim::new(1);
        let count = small_log(&sim).await;
        let all: Vec<u64> = (1..=count).collect();
        for name in sim.names().into_iter().filter(|n| segment::parse_file_name(n).is_some()) {
            let len = sim.bytes(&name).len();
            // Some bytes of the headers, and all bytes of the frames and around them.
            let interesting = |at: &usize| match at % 4096 {
                near if *at < segment::FRAMES_AT => near < 120 && near % 11 == 0,
                near => near < 140,
            };
            for at in (0..len.min(segment::FRAMES_AT + 4 * 4096)).filter(interesting) {
                let copy = sim.copy();
                copy.edit(&name, |bytes| bytes[at] ^= 0x10);
                let (lines, lost, opened) = read_all(&copy).await;
                let reported: u64 = opened.damage.iter().map(|d| d.lines).sum();
                let gone = all.len() - lines.len();
                assert!(lines.iter().all(|n| all.contains(n)) && lines.is_sorted(), "{name} {at}: {lines:?}");
                assert_eq!(gone as u64, lost.max(reported), "{name} {at}: {lines:?} {opened:?}");
                assert!(gone <= 1, "{name} {at}: one flip, one frame");
                assert_eq!(opened.ledger, b"the ledger");
            }
        }
    });
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings(Durability::Disk)).await.unwrap();
        for n in 1..=3 {
            let seq = append(&log, 2, &line(n, 30)).await.unwrap();
            log.committed(seq, Durability::Disk).await.unwrap();
        }
        drop(log);
        let name = segment::file_name(Seq(1));
        let third = segment::FRAMES_AT + 2 * 4096;
        let whole = sim.bytes(&name)[third..].iter().rposition(|&b| b != 0).unwrap() + 1;
        for keep in 0..=whole {
            let copy = sim.copy();
            copy.edit(&name, |bytes| bytes[third + keep..].fill(0));
            let (lines, lost, opened) = read_all(&copy).await;
            assert_eq!((lines.len(), lost), (if keep == whole { 3 } else { 2 }, 0), "{keep}");
            assert_eq!(opened.damage, [], "{keep}");
            assert_eq!(opened.torn.is_some(), keep >= 4 && keep < whole, "{keep}");
            assert!(keep == whole || copy.bytes(&name).len() == third, "{keep}: cut");
        }
    });
}

#[test]
fn a_missing_file_is_named_and_the_rest_is_read() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings(Durability::Disk)).await.unwrap();
        let mut last = Seq(0);
        for n in 1..=300 {
            last = append(&log, 2, &line(n, 700)).await.unwrap();
        }
        log.committed(last, Durability::Disk).await.unwrap();
        log.save_state(Vec::new(), false).await.unwrap();
        log.close().await.unwrap();
        drop(log);
        let names: Vec<String> = sim.names().into_iter().filter(|n| segment::parse_file_name(n).is_some()).collect();
        assert!(names.len() >= 3, "{names:?}");
        for missing in &names {
            let copy = sim.copy();
            copy.delete(missing);
            let (lines, lost, opened) = read_all(&copy).await;
            let gone = 300 - lines.len() as u64;
            assert!(gone > 0 && lines.is_sorted());
            let reported: u64 = opened.damage.iter().map(|d| d.lines).sum();
            assert!(opened.damage.iter().all(|d| d.kind == DamageKind::Segment), "{opened:?}");
            assert_eq!(gone, reported, "{missing}: {opened:?}");
            assert!(lost == gone || lost == 0, "{missing}: {lost}");
        }
        // All files are missing: still, the next sequence does not repeat.
        let copy = sim.copy();
        names.iter().for_each(|name| copy.delete(name));
        let (log, opened) = open(&copy, settings(Durability::Disk)).await.unwrap();
        assert_eq!(opened.damage.iter().map(|d| d.lines).sum::<u64>(), 300);
        assert!(log.end() > last);
    });
}

#[test]
fn an_unknown_version_is_refused_and_nothing_is_touched() {
    block_on(|| async {
        let sim = Sim::new(1);
        small_log(&sim).await;
        let name = segment::file_name(Seq(1));
        sim.edit(&name, |bytes| {
            bytes[8] = 200;
            bytes[2 * 4096 + 8] = 200;
        });
        let calls = sim.calls();
        let refused = open(&sim, settings(Durability::Disk)).await.map(|_| ());
        assert!(matches!(refused, Err(Error::UnknownVersion { version: 200, .. })), "{refused:?}");
        assert_eq!(sim.calls(), calls);
    });
}

#[test]
fn a_damaged_state_file_repeats_but_loses_nothing() {
    block_on(|| async {
        let sim = Sim::new(1);
        let count = small_log(&sim).await;
        super::state::FILES.iter().for_each(|name| sim.edit(name, |bytes| bytes[40] ^= 1));
        let (lines, lost, opened) = read_all(&sim).await;
        assert_eq!((lines.len() as u64, lost), (count, 0));
        assert_eq!(opened.damage.iter().map(|d| d.kind).collect::<Vec<_>>(), [DamageKind::State]);
        assert_eq!(sim.aside(), super::state::FILES);
        assert_eq!(opened.ledger, b"");
        assert_eq!(opened.uncounted, [(b"db2".to_vec(), vec![BackendId(2)], count)]);
    });
}

/// Appends until refused. Returns the number of lines that were appended and committed.
async fn fill(log: &Log, limit: u64) -> u64 {
    for n in 0..limit {
        match append(log, 2, &line(n, 900)).await {
            Ok(seq) => {
                log.committed(seq, Durability::Disk).await.expect("what is taken is committed");
            }
            Err(Error::Full) => return n,
            Err(e) => panic!("{e}"),
        }
    }
    limit
}

pub(super) async fn read_and_confirm(log: &Rc<Log>, reader: &mut LogReader, count: u64) -> Vec<u64> {
    let mut got = Vec::new();
    while (got.len() as u64) < count {
        let (lines, next, lost) = fetch(reader, usize::MAX).await.unwrap();
        assert_eq!(lost, 0);
        got.extend(lines);
        log.confirm(BackendId(2), next);
    }
    got
}

#[test]
fn a_full_disk_is_back_pressure_and_ends() {
    for limit_by_disk in [false, true] {
        block_on(move || async move {
            let sim = Sim::new(1);
            let mut settings = settings(Durability::Disk);
            if limit_by_disk {
                sim.set_space(5 * SIZES.segment_bytes);
            } else {
                settings.max_bytes = 5 * SIZES.segment_bytes;
            }
            let (log, _) = open(&sim, settings).await.unwrap();
            let mut readers = [0, 1, 2].map(|b| log.reader(BackendId(b)));
            for _ in 0..3 {
                let taken = fill(&log, 10_000).await;
                assert!(taken > 20 && taken < 2000, "{taken}");
                assert!(matches!(log.check_append(), Err(Error::Full)));
                let got = read_and_confirm(&log, &mut readers[2], taken).await;
                assert_eq!(got, (0..taken).collect::<Vec<_>>());
                // The others need nothing of it; their readers skip it.
                for b in [0, 1] {
                    let waiting = timeout(Duration::from_millis(20), readers[b].fetch(true, &mut |_| true)).await;
                    assert!(waiting.is_err(), "{waiting:?}");
                }
                log.save_state(Vec::new(), false).await.unwrap();
                timeout(PATIENCE, async {
                    while log.check_append().is_err() {
                        crate::io::sleep(Duration::from_millis(5)).await;
                    }
                })
                .await
                .expect("space that was freed is found");
                assert_eq!(log.poison(), None);
            }
        });
    }
}

#[test]
fn drop_oldest_deletes_the_oldest_segment_and_counts_its_points() {
    block_on(|| async {
        let sim = Sim::new(1);
        let mut settings = settings(Durability::Disk);
        settings.max_bytes = 5 * SIZES.segment_bytes;
        settings.backlog_full = BacklogFull::DropOldest;
        let (log, _) = open(&sim, settings).await.unwrap();
        let mut reader = log.reader(BackendId(2));
        assert_eq!(fill(&log, 1500).await, 1500, "never refused");
        let mut got = Vec::new();
        while got.last() != Some(&1499) {
            got.extend(fetch(&mut reader, usize::MAX).await.unwrap().0);
        }
        let dropped = log.take_dropped();
        assert_eq!((dropped.len(), &dropped[0].db[..], dropped[0].backend), (1, &b"db2"[..], BackendId(2)));
        assert_eq!(got, (dropped[0].lines..1500).collect::<Vec<_>>());
        assert!(log.disk_bytes() <= 5 * SIZES.segment_bytes);
    });
}

#[test]
fn compaction_keeps_what_a_lagging_backend_needs_in_order() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings(Durability::Disk)).await.unwrap();
        let (mut to_a, mut last) = (Vec::new(), Seq(0));
        for n in 0..1200u64 {
            // Backend a (route 3) gets every tenth line, c (route 2) the rest.
            let route = if n % 10 == 0 { 3 } else { 2 };
            last = append(&log, route, &line(n, 500)).await.unwrap();
            if n % 10 == 0 {
                to_a.push(n);
            }
        }
        log.committed(last, Durability::Disk).await.unwrap();
        let before = log.disk_bytes();
        let mut c = log.reader(BackendId(2));
        read_and_confirm(&log, &mut c, 1080).await;
        let end = log.end();
        log.confirm(BackendId(1), end);
        log.save_state(Vec::new(), false).await.unwrap();
        timeout(PATIENCE, async {
            while log.disk_bytes() > before / 2 {
                crate::io::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the disk is given back");
        let mut a = log.reader(BackendId(0));
        let mut got = Vec::new();
        while got.len() < 50 {
            let (lines, _, lost) = fetch(&mut a, 7).await.unwrap();
            assert_eq!(lost, 0);
            got.extend(lines);
        }
        assert_eq!(got, to_a[..got.len()]);
        log.close().await.unwrap();
        drop((a, c, log));
        // The same after a restart.
        let (log, opened) = open(&sim.restart(), settings(Durability::Disk)).await.unwrap();
        assert_eq!(opened.damage, []);
        let mut a = log.reader(BackendId(0));
        let mut got = Vec::new();
        while got.len() < to_a.len() {
            got.extend(fetch(&mut a, usize::MAX).await.unwrap().0);
        }
        assert_eq!(got, to_a);
    });
}

#[test]
fn frames_read_from_disk_equal_those_from_memory() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings(Durability::Os)).await.unwrap();
        let mut early = log.reader(BackendId(2));
        let mut by_size: BTreeMap<u64, ()> = BTreeMap::new();
        for n in 0..400u64 {
            let seq = append(&log, 2, &line(n, (n as usize * 37) % 900)).await.unwrap();
            log.committed(seq, Durability::Os).await.unwrap();
            if n % 3 == 0 {
                fetch(&mut early, 2).await.unwrap();
            }
            by_size.insert(n, ());
        }
        let mut late = log.reader(BackendId(2));
        let got = read_and_confirm(&log, &mut late, 400).await;
        assert_eq!(got, by_size.into_keys().collect::<Vec<_>>());
    });
}

#[test]
fn backends_that_left_keep_their_records_until_settled_and_new_ones_start_at_the_end() {
    block_on(|| async {
        let sim = Sim::new(1);
        let (log, _) = open(&sim, settings(Durability::Disk)).await.unwrap();
        for n in 0..4 {
            let seq = append(&log, 3, &line(n, 10)).await.unwrap();
            log.committed(seq, Durability::Disk).await.unwrap();
        }
        log.save_state(Vec::new(), false).await.unwrap();
        drop(log);
        let renamed = || LogSettings { topology: topology(&["new", "b", "c"]), ..settings(Durability::Disk) };
        for _ in 0..2 {
            let (log, opened) = open(&sim, renamed()).await.unwrap();
            assert_eq!(opened.absent, ["a"]);
            assert_eq!(log.cursor(BackendId(0)), log.end());
            // No backend of this topology needs anything, but the segment stays.
            let end = log.end();
            (0..3).for_each(|b| log.confirm(BackendId(b), end));
            log.save_state(Vec::new(), false).await.unwrap();
        }
        let (log, _) = open(&sim, renamed()).await.unwrap();
        log.settle_absent();
        let end = log.end();
        (0..3).for_each(|b| log.confirm(BackendId(b), end));
        log.save_state(Vec::new(), false).await.unwrap();
        log.close().await.unwrap();
        drop(log);
        let (_, opened) = open(&sim, renamed()).await.unwrap();
        assert_eq!(opened.absent, [""; 0]);
    });
}

#[test]
fn damage_is_described_in_one_line() {
    let damage = Damage {
        kind: DamageKind::Frames,
        file: PathBuf::from("worker-0/1.seg"),
        bytes: 10..20,
        seqs: Seq(3)..Seq(5),
        lines: 7,
    };
    assert_eq!(damage.to_string(), "worker-0/1.seg: bytes 10..20, records 3..5, 7 points lost");
}

//! Takes over undelivered points at start: records for backends that are no longer configured, from all logs, and
//! influx-proxy's cache files.
//!
//! Points are appended to the first worker's log and synced, and only then removed from where they were. A crash in
//! between may deliver them twice, which changes nothing in InfluxDB. They are counted once: one save of that log says
//! which backends' records have been appended again, and what was appended before a crash that came earlier is removed
//! by the next start. Records are appended in their order over all logs, before any worker accepts: so they come before
//! all new ones. Cache files may be long, so workers accept before they are imported; only writes wait. Reads block: of
//! a cache file a whole block, or the search for the next one behind damage, at a time.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use crate::crash;
use crate::disklog::{self, Pending, RecordKey, Seq};
use crate::io;
use crate::limits::REROUTE_PAUSE;
use crate::lineproto::{Item, Scanner, unescape_measurement};
use crate::placement::Place;
use crate::precision::Precision;
use crate::settings::Durability;
use crate::takeover::cache_files::CacheFile;
use crate::topology::BackendId;
use crate::worker::{Worker, WorkerError};

/// What is undelivered in all logs, as they were before they were opened.
pub struct Backlog(Vec<Pending>);

impl Backlog {
    /// Lists the logs in these directories, in the order of their numbers. To be called before any of them is opened.
    ///
    /// # Errors
    /// When a log cannot be read or has a later format version. Nothing has been changed then.
    pub fn list(dirs: &[PathBuf]) -> Result<Self, disklog::Error> {
        Ok(Self(dirs.iter().map(|dir| disklog::pending(dir)).collect::<Result<_, _>>()?))
    }

    /// Routes the records of backends that are no longer configured again: each line to the current owner of its
    /// measurement. `before`: by backend, what has been routed again before, below this stamp.
    ///
    /// # Errors
    /// When a log fails. What was not saved is routed again at the next start.
    pub async fn reroute(mut self, worker: &Worker, before: Vec<(String, u64)>) -> Result<(), WorkerError> {
        worker.own.log.note_rerouted(before.clone());
        worker.own.begin_rerouting().await?;
        let mut stamps = Vec::new();
        for pending in &mut self.0 {
            stamps.push(pending.next_stamp()?);
        }
        let (mut done, mut last) = (Rerouted { before, ..Rerouted::default() }, None);
        loop {
            let first = stamps.iter().enumerate().filter_map(|(log, stamp)| Some(((*stamp)?, log))).min();
            let Some((_, log)) = first else { break };
            let found = self.0[log].next_record()?.expect("it has been looked at");
            reroute_record(worker, &found, &mut done, &mut last).await?;
            stamps[log] = self.0[log].next_stamp()?;
        }
        crash::point("reroute");
        if let Some(seq) = last {
            worker.own.log.committed(seq, Durability::Disk).await?;
        }
        let lost: u64 = self.0.iter().map(Pending::lost).sum();
        if lost > 0 {
            log::error!("{lost} points in damaged places of the logs could not be routed again");
        }
        crash::point("reroute-appended");
        worker.own.log.note_rerouted(done.names(worker.feeds.order.began()));
        worker.own.save(true).await?;
        crash::point("reroute-saved");
        if done.without_circle > 0 {
            log::warn!(
                "{} points waited for circles that are no longer configured: they are dropped",
                done.without_circle
            );
        }
        log::info!("routed {} points of backends that are no longer configured again", done.points);
        Ok(())
    }
}

/// Imports influx-proxy's cache files. Writes wait meanwhile, so that their points come behind these older ones.
///
/// # Errors
/// When the log or a file fails. What was not removed is imported again at the next start.
pub async fn import_all(worker: &Rc<Worker>, cache_files: Vec<CacheFile>) -> Result<(), WorkerError> {
    for file in &cache_files {
        log::info!("importing {}: writes wait until all cache files are in the log", file.data.display());
        match import(worker, file).await {
            Err(WorkerError::Stopped) => {
                log::warn!("stopped: the import of {} begins again at the next start", file.data.display());
                return Ok(());
            }
            other => other?,
        }
    }
    worker.all_stats.importing.store(false, SeqCst);
    Ok(())
}

/// Lines of an old record, for some of the circles, on their way into the log.
struct OldRecord<'a> {
    db: &'a [u8],
    rp: &'a [u8],
    precision: Precision,
    bytes: &'a [u8],
}

/// What has become of old records.
#[derive(Default)]
struct Rerouted {
    points: u64,
    /// Points for which there is no circle any more.
    without_circle: u64,
    /// By backend: what an earlier start has done.
    before: Vec<(String, u64)>,
    /// The backends whose records were met.
    met: BTreeSet<String>,
}

impl Rerouted {
    /// Whether a record of this backend has been routed again by an earlier start.
    fn is_done(&self, name: &str, stamp: u64) -> bool {
        self.before.iter().any(|(done, below)| done == name && stamp < *below)
    }

    /// All backends of which everything below this stamp has been routed again.
    fn names(&self, below: u64) -> Vec<(String, u64)> {
        let before = self.before.iter().map(|(name, _)| name);
        let all: BTreeSet<_> = before.chain(&self.met).collect();
        all.into_iter().map(|name| (name.clone(), below)).collect()
    }
}

/// Routes the lines of a record again for those circles in which its backend is gone.
async fn reroute_record(
    worker: &Worker,
    found: &disklog::PendingRecord<'_>,
    done: &mut Rerouted,
    last: &mut Option<Seq>,
) -> Result<(), WorkerError> {
    let topology = &worker.settings.topology;
    let record = found.record;
    let old = OldRecord { db: record.db, rp: record.rp, precision: record.precision, bytes: record.bytes };
    for (circle, name) in &found.needed_by {
        // Otherwise a courier delivers it; or this is a former owner, and the route also has the owner.
        let Some(circle) = circle.filter(|_| topology.by_name(name).is_none()) else { continue };
        if done.is_done(name, record.stamp) {
            continue;
        }
        if !done.met.contains(*name) {
            done.met.insert((*name).to_owned());
        }
        if circle < topology.circles.len() {
            done.points += reroute(worker, &old, circle, last).await?;
        } else {
            done.without_circle += u64::from(record.lines);
            worker.own.ledger.borrow_mut().lost_with_circle(old.db, name, u64::from(record.lines));
        }
    }
    Ok(())
}

/// The owners in one circle may have changed: sends each line to the current owner of its measurement.
async fn reroute(
    worker: &Worker,
    old: &OldRecord<'_>,
    circle: usize,
    last: &mut Option<Seq>,
) -> Result<u64, WorkerError> {
    let mut lines = Vec::new();
    Scanner::new(Precision::Nanosecond).scan(old.bytes, true, |item| {
        if let Item::Line(line) = item {
            lines.push(line);
        }
    });
    for line in &lines {
        let raw = &old.bytes[line.start as usize..line.measurement_end as usize];
        let mut route = vec![None; worker.settings.topology.circles.len()];
        let (placement, measurement) = (worker.placement(), unescape_measurement(raw));
        let place = Place::new(old.db, &*measurement);
        route[circle] = Some(placement.owner(circle, place));
        route.extend(placement.former(circle, place).map(Some));
        let copy = |out: &mut [u8]| {
            line.encode(old.bytes, b"", out);
        };
        *last = Some(append(worker, old, &route, 1, line.encoded_len(0), copy).await?);
    }
    Ok(lines.len() as u64)
}

/// Appends lines and counts them in the ledger. While the log is full, waits for couriers to make room. Ends when the
/// proxy stops.
async fn append(
    worker: &Worker,
    old: &OldRecord<'_>,
    route: &[Option<BackendId>],
    lines: u32,
    len: usize,
    copy: impl Fn(&mut [u8]),
) -> Result<Seq, WorkerError> {
    let key = RecordKey { db: old.db, rp: old.rp, precision: old.precision, route };
    let seq = loop {
        if worker.all_stats.stopping.load(Relaxed) {
            return Err(WorkerError::Stopped);
        }
        match worker.own.log.append(&key, lines, len, false, &copy).await {
            Err(disklog::Error::Full | disklog::Error::NoNextFile) => io::sleep(REROUTE_PAUSE).await,
            other => break other?,
        }
    };
    worker.own.ledger.borrow_mut().accepted(old.db, route.iter().flatten().copied(), u64::from(lines));
    Ok(seq)
}

/// Imports a cache file of influx-proxy. All its blocks are for one backend.
async fn import(worker: &Worker, file: &CacheFile) -> Result<(), WorkerError> {
    let topology = worker.settings.topology.clone();
    let Some(backend) = topology.by_name(&file.backend) else {
        log::warn!("{} is not imported: {}", file.data.display(), file.no_backend());
        return Ok(());
    };
    if let Some(writer) = file.writer() {
        log::error!("{} is not imported: {writer}", file.data.display());
        return Ok(());
    }
    let mut route = vec![None; topology.circles.len()];
    route[backend.circle] = Some(backend.id);
    let (mut points, mut refused, mut last) = (0u64, 0u64, None);
    let mut blocks = file.blocks()?;
    let stamp = file.stamp();
    while let Some(piece) = blocks.next_piece()? {
        let old = OldRecord { db: &piece.db, rp: &piece.rp, precision: Precision::Nanosecond, bytes: &piece.lines };
        let mut lines = Vec::new();
        Scanner::new(Precision::Nanosecond).scan(&piece.lines, true, |item| match item {
            Item::Line(line) => lines.push(line),
            Item::Refused(_) => refused += 1,
        });
        for line in lines {
            let copy = |out: &mut [u8]| {
                line.encode(old.bytes, &stamp, out);
            };
            last = Some(append(worker, &old, &route, 1, line.encoded_len(stamp.len()), copy).await?);
            points += 1;
        }
    }
    if let Some(seq) = last {
        worker.own.log.committed(seq, Durability::Disk).await?;
    }
    worker.own.save(false).await?;
    file.put_aside()?;
    log::info!(
        "imported {points} points for {} from {}; {refused} invalid lines and {} damaged bytes were left out",
        file.backend,
        file.data.display(),
        blocks.damaged_bytes
    );
    Ok(())
}

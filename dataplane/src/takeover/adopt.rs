//! Takes over undelivered points at start: from logs of former workers, from records for backends that are no longer
//! configured, and from influx-proxy's cache files.
//!
//! Points are appended to this worker's own log and synced, and only then removed from where they were. A crash in
//! between delivers them twice, which changes nothing in InfluxDB. Reads block, which is allowed because the worker
//! does not accept connections yet.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::crash;
use crate::disklog::{self, Pending, RecordKey, Seq};
use crate::io;
use crate::limits::ADOPT_PAUSE;
use crate::lineproto::{Item, Scanner, unescape_measurement};
use crate::placement::Place;
use crate::precision::Precision;
use crate::settings::Durability;
use crate::takeover::cache_files::{self, CacheFile};
use crate::topology::BackendId;
use crate::worker::{Worker, WorkerError};

/// What a worker takes over.
pub struct Legacy {
    /// This worker's own log as it was before it was opened.
    own: Pending,
    /// Directories of former workers.
    former: Vec<(PathBuf, Pending)>,
    cache_files: Vec<CacheFile>,
}

/// Lines of an old record, for some of the circles, on their way into the log.
struct OldRecord<'a> {
    db: &'a [u8],
    rp: &'a [u8],
    precision: Precision,
    /// As in the old record: these points are older than those of clients now.
    appended_ms: u64,
    bytes: &'a [u8],
}

impl Legacy {
    /// Finds what there is to take over. Must be called before the worker's own log is opened.
    ///
    /// # Errors
    /// When a log cannot be read or has a later format version. Nothing has been changed then.
    pub fn find(own_dir: &Path, former: Vec<PathBuf>, cache_files: Vec<CacheFile>) -> Result<Self, disklog::Error> {
        let former =
            former.into_iter().map(|dir| disklog::pending(&dir).map(|p| (dir, p))).collect::<Result<_, _>>()?;
        Ok(Self { own: disklog::pending(own_dir)?, former, cache_files })
    }
}

/// Takes everything over. `absent`: this worker's own log holds records for backends that are no longer configured.
///
/// # Errors
/// When a log fails. What was not removed is taken over again at the next start.
pub async fn adopt(worker: &Rc<Worker>, legacy: Legacy, absent: bool) -> Result<(), WorkerError> {
    let Legacy { mut own, former, cache_files } = legacy;
    if absent {
        let points = take_over(worker, &mut own, false).await?;
        worker.log.settle_absent();
        worker.save_state().await?;
        log::info!("rerouted {points} points of backends that are no longer configured");
    }
    for (dir, mut pending) in former {
        let text = String::from_utf8_lossy(pending.ledger()).into_owned();
        crash::point("adopt");
        worker.ledger.borrow_mut().absorb(&text);
        let points = take_over(worker, &mut pending, true).await?;
        crash::point("adopt-appended");
        worker.save_state().await?;
        crash::point("adopt-saved");
        io::remove_folder(&dir)?;
        crash::point("adopted");
        log::info!("took over {points} points from {}", dir.display());
    }
    for file in cache_files {
        import(worker, &file).await?;
    }
    Ok(())
}

/// Appends every record that is still needed. `present`: also those for configured backends, which a courier cannot
/// read from a log of a former worker.
async fn take_over(worker: &Worker, pending: &mut Pending, present: bool) -> Result<u64, WorkerError> {
    let topology = worker.settings.topology.clone();
    let mut points = 0;
    while let Some(found) = pending.next_record()? {
        let record = found.record;
        let old = OldRecord {
            db: record.db,
            rp: record.rp,
            precision: record.precision,
            appended_ms: record.appended_ms,
            bytes: record.bytes,
        };
        let mut route = vec![None; topology.circles.len()];
        for (circle, name) in found.needed_by {
            match (topology.by_name(name), circle) {
                (Some(backend), _) if present => match &mut route[backend.circle] {
                    free @ None => *free = Some(backend.id),
                    // Data of this circle was being moved: both backends get the record.
                    Some(_) => route.push(Some(backend.id)),
                },
                (Some(_), _) => {}
                (None, Some(circle)) if circle < topology.circles.len() => {
                    points += reroute(worker, &old, circle).await?;
                }
                // The circle is no longer configured, or this is a former owner and the route also has the owner.
                (None, _) => {}
            }
        }
        if route.iter().any(Option::is_some) {
            append(worker, &old, &route, record.lines, record.bytes.len(), |out| out.copy_from_slice(record.bytes))
                .await?;
            points += u64::from(record.lines);
        }
    }
    if pending.lost() > 0 {
        log::error!("{} points in damaged places of a log could not be taken over", pending.lost());
    }
    Ok(points)
}

/// The owners in one circle may have changed: sends each line to the current owner of its measurement.
async fn reroute(worker: &Worker, old: &OldRecord<'_>, circle: usize) -> Result<u64, WorkerError> {
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
        append(worker, old, &route, 1, line.encoded_len(0), copy).await?;
    }
    Ok(lines.len() as u64)
}

/// Appends lines and counts them in the ledger. While the log is full, waits for couriers to make room.
async fn append(
    worker: &Worker,
    old: &OldRecord<'_>,
    route: &[Option<BackendId>],
    lines: u32,
    len: usize,
    copy: impl Fn(&mut [u8]),
) -> Result<Seq, WorkerError> {
    let key = RecordKey { db: old.db, rp: old.rp, precision: old.precision, appended_ms: old.appended_ms, route };
    let seq = loop {
        match worker.log.append(&key, lines, len, &copy).await {
            Err(disklog::Error::Full | disklog::Error::NoNextFile) => io::sleep(ADOPT_PAUSE).await,
            other => break other?,
        }
    };
    let mut ledger = worker.ledger.borrow_mut();
    let db = ledger.database(old.db);
    for &backend in route.iter().flatten() {
        ledger.accepted(db, backend, u64::from(lines));
    }
    Ok(seq)
}

/// Imports a cache file of influx-proxy. All its blocks are for one backend.
async fn import(worker: &Worker, file: &CacheFile) -> Result<(), WorkerError> {
    let topology = worker.settings.topology.clone();
    let Some(backend) = topology.by_name(&file.backend) else {
        log::warn!("{} is not imported: no backend of that name is configured", file.data.display());
        return Ok(());
    };
    let mut route = vec![None; topology.circles.len()];
    route[backend.circle] = Some(backend.id);
    let (mut points, mut refused, mut last) = (0u64, 0u64, None);
    let mut blocks = cache_files::blocks(file)?;
    while let Some(block) = blocks.next_block()? {
        let old = OldRecord {
            db: &block.db,
            rp: &block.rp,
            precision: Precision::Nanosecond,
            appended_ms: 0,
            bytes: &block.lines,
        };
        let mut lines = Vec::new();
        Scanner::new(Precision::Nanosecond).scan(&block.lines, true, |item| match item {
            Item::Line(line) => lines.push(line),
            Item::Refused(_) => refused += 1,
        });
        let stamp = cache_files::stamp(file);
        for line in lines {
            let copy = |out: &mut [u8]| {
                line.encode(old.bytes, &stamp, out);
            };
            last = Some(append(worker, &old, &route, 1, line.encoded_len(stamp.len()), copy).await?);
            points += 1;
        }
    }
    if let Some(seq) = last {
        worker.log.committed(seq, Durability::Disk).await?;
    }
    worker.save_state().await?;
    blocks.finish()?;
    log::info!(
        "imported {points} points for {} from {}; {refused} invalid lines were left out",
        file.backend,
        file.data.display()
    );
    Ok(())
}

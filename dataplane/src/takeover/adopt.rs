//! Takes over, at start, what other owners have left undelivered: logs of workers that no longer exist, records for
//! backends that have left the configuration, and influx-proxy's cache files.
//!
//! Everything is appended to this worker's own log, synced, and only then forgotten where it was; a crash in between
//! delivers it twice, which changes nothing in InfluxDB. Blocking reads: the worker does not accept yet.

use std::path::{Path, PathBuf};
use std::rc::Rc;

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

/// What a worker is to take over.
pub struct Legacy {
    /// This worker's own log, as it was before it was opened.
    own: Pending,
    /// Directories of former workers.
    former: Vec<(PathBuf, Pending)>,
    cache_files: Vec<CacheFile>,
}

/// A record's lines for some of the circles, on their way into the log.
struct Handed<'a> {
    db: &'a [u8],
    rp: &'a [u8],
    precision: Precision,
    /// As it was: what is taken over is older than what comes in now.
    appended_ms: u64,
    bytes: &'a [u8],
}

impl Legacy {
    /// Looks at what is there. To be called before the worker's own log is opened.
    ///
    /// # Errors
    /// When a log cannot be read or is of a later version; nothing has been touched then.
    pub fn find(own_dir: &Path, former: Vec<PathBuf>, cache_files: Vec<CacheFile>) -> Result<Self, disklog::Error> {
        let former =
            former.into_iter().map(|dir| disklog::pending(&dir).map(|p| (dir, p))).collect::<Result<_, _>>()?;
        Ok(Self { own: disklog::pending(own_dir)?, former, cache_files })
    }
}

/// Takes it all over. `absent`: this worker's own log holds records for backends that have left the configuration.
///
/// # Errors
/// Of the logs. What was not forgotten is taken over again at the next start.
pub async fn adopt(worker: &Rc<Worker>, legacy: Legacy, absent: bool) -> Result<(), WorkerError> {
    let Legacy { mut own, former, cache_files } = legacy;
    if absent {
        let points = take_over(worker, &mut own, false).await?;
        worker.log.settle_absent();
        worker.save_state().await?;
        log::info!("{points} points of backends that have left the configuration were routed anew");
    }
    for (dir, mut pending) in former {
        let text = String::from_utf8_lossy(pending.ledger()).into_owned();
        worker.ledger.borrow_mut().absorb(&text);
        let points = take_over(worker, &mut pending, true).await?;
        worker.save_state().await?;
        io::remove_folder(&dir)?;
        log::info!("took over {points} points from {}", dir.display());
    }
    for file in cache_files {
        import(worker, &file).await?;
    }
    Ok(())
}

/// Appends every record that is still needed. `present`: also for backends that are still configured (they cannot read
/// that log themselves).
async fn take_over(worker: &Worker, pending: &mut Pending, present: bool) -> Result<u64, WorkerError> {
    let topology = worker.settings.topology.clone();
    let mut points = 0;
    while let Some(found) = pending.next_record()? {
        let record = found.record;
        let handed = Handed {
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
                    // Data of this circle was being moved: both get it.
                    Some(_) => route.push(Some(backend.id)),
                },
                (Some(_), _) => {}
                (None, Some(circle)) if circle < topology.circles.len() => {
                    points += reroute(worker, &handed, circle).await?;
                }
                // Its whole circle has left, or it was a former owner and the owner has a place of its own in the
                // route.
                (None, _) => {}
            }
        }
        if route.iter().any(Option::is_some) {
            append(worker, &handed, &route, record.lines, record.bytes.len(), |out| out.copy_from_slice(record.bytes))
                .await?;
            points += u64::from(record.lines);
        }
    }
    if pending.lost() > 0 {
        log::error!("{} points in damaged places of a log could not be taken over", pending.lost());
    }
    Ok(points)
}

/// The lines' owners in one circle may be different ones today: each line goes where its measurement belongs now.
async fn reroute(worker: &Worker, handed: &Handed<'_>, circle: usize) -> Result<u64, WorkerError> {
    let mut lines = Vec::new();
    Scanner::new(Precision::Nanosecond).scan(handed.bytes, true, |item| {
        if let Item::Line(line) = item {
            lines.push(line);
        }
    });
    for line in &lines {
        let raw = &handed.bytes[line.start as usize..line.measurement_end as usize];
        let mut route = vec![None; worker.settings.topology.circles.len()];
        let (placement, measurement) = (worker.placement(), unescape_measurement(raw));
        let place = Place::new(handed.db, &*measurement);
        route[circle] = Some(placement.owner(circle, place));
        route.extend(placement.former(circle, place).map(Some));
        let copy = |out: &mut [u8]| {
            line.encode(handed.bytes, b"", out);
        };
        append(worker, handed, &route, 1, line.encoded_len(0), copy).await?;
    }
    Ok(lines.len() as u64)
}

/// Appends and accounts; while the log is full, waits for couriers to make room.
async fn append(
    worker: &Worker,
    handed: &Handed<'_>,
    route: &[Option<BackendId>],
    lines: u32,
    len: usize,
    copy: impl Fn(&mut [u8]),
) -> Result<Seq, WorkerError> {
    let key =
        RecordKey { db: handed.db, rp: handed.rp, precision: handed.precision, appended_ms: handed.appended_ms, route };
    let seq = loop {
        match worker.log.append(&key, lines, len, &copy).await {
            Err(disklog::Error::Full) => io::sleep(ADOPT_PAUSE).await,
            other => break other?,
        }
    };
    let mut ledger = worker.ledger.borrow_mut();
    let db = ledger.database(handed.db);
    for &backend in route.iter().flatten() {
        ledger.accepted(db, backend, u64::from(lines));
    }
    Ok(seq)
}

/// Imports one of influx-proxy's cache files: its blocks are for one backend only.
async fn import(worker: &Worker, file: &CacheFile) -> Result<(), WorkerError> {
    let topology = worker.settings.topology.clone();
    let Some(backend) = topology.by_name(&file.backend) else {
        log::warn!("{} is left alone: no backend of that name is configured", file.data.display());
        return Ok(());
    };
    let mut route = vec![None; topology.circles.len()];
    route[backend.circle] = Some(backend.id);
    let (mut points, mut refused, mut last) = (0u64, 0u64, None);
    let mut blocks = cache_files::blocks(file)?;
    while let Some(block) = blocks.next_block()? {
        let handed = Handed {
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
                line.encode(handed.bytes, &stamp, out);
            };
            last = Some(append(worker, &handed, &route, 1, line.encoded_len(stamp.len()), copy).await?);
            points += 1;
        }
    }
    if let Some(seq) = last {
        worker.log.committed(seq, Durability::Disk).await?;
    }
    worker.save_state().await?;
    blocks.finish()?;
    log::info!(
        "imported {points} points for {} from {}; {refused} lines in it no InfluxDB would take",
        file.backend,
        file.data.display()
    );
    Ok(())
}

//! Turns the bytes of a body into records in the log: scan, route, stamp, append. Refused lines are kept for the
//! answer.

use std::time::UNIX_EPOCH;

use crate::disklog::{self, RecordKey, Seq};
use crate::io;
use crate::limits::{ROUTE_BACKENDS_MAX, SCAN_PIECE_BYTES};
use crate::lineproto::{Item, Line, Scanner};
use crate::placement::Place;
use crate::precision::Precision;
use crate::request::refusals::Refusals;
use crate::worker::Worker;
use crate::worker::awaited::Awaited;
use crate::worker::grouping::Grouping;

/// One write request: where it goes, and what has become of it so far.
pub struct Intake {
    pub db_name: Vec<u8>,
    pub rp: Vec<u8>,
    precision: Precision,
    scanner: Scanner,
    /// The last record appended. Once it is committed, so is the whole request.
    pub last_seq: Option<Seq>,
    /// Backends that got a record, by `BackendId`; needed for consistency levels.
    pub touched: Vec<bool>,
    /// Set when the answer waits for backends: what they refuse of this request.
    pub awaited: Option<Awaited>,
    pub accepted: u64,
    pub refusals: Refusals,
    /// Set when the request fails whatever its lines are (unknown policy, bad consistency level). Good lines are then
    /// counted and not appended: InfluxDB reports bad lines first when all lines are bad.
    pub count_only: bool,
    /// Timestamp for lines that have none: the clock at the first such line, as text in units of `precision`. One value
    /// for the whole request, as in InfluxDB.
    timestamp: Option<Vec<u8>>,
    /// Each timestamp tells its unit itself; `precision` is for lines that have none.
    pub by_magnitude: bool,
    newlines_before: u64,
}

impl Intake {
    pub fn new(db_name: Vec<u8>, rp: Vec<u8>, precision: Precision, backends: usize) -> Self {
        Self {
            db_name,
            rp,
            precision,
            scanner: Scanner::new(precision),
            last_seq: None,
            touched: vec![false; backends],
            awaited: None,
            accepted: 0,
            refusals: Refusals::default(),
            count_only: false,
            timestamp: None,
            by_magnitude: false,
            newlines_before: 0,
        }
    }

    /// For the same lines, which are only counted.
    pub fn for_a_look(&self) -> Self {
        let same = Self::new(self.db_name.clone(), self.rp.clone(), self.precision, self.touched.len());
        Self { count_only: true, ..same }
    }

    /// Logs a line about the whole write, where that is wanted.
    pub fn trace(&self, worker: &Worker) {
        if worker.settings.write_tracing {
            let (db, rp) = (self.db_name.escape_ascii(), self.rp.escape_ascii());
            log::info!("write db={db} rp={rp} points={} refused={}", self.accepted, self.refusals.count);
        }
    }

    /// Takes the complete lines of `body`, or all of it if `last`. Returns the number of bytes taken. The caller passes
    /// the rest again with more bytes behind it.
    ///
    /// # Errors
    /// When the log fails. What was appended before stays and is not acknowledged.
    pub async fn take(&mut self, worker: &Worker, body: &[u8], last: bool) -> Result<usize, disklog::Error> {
        let mut at = 0;
        while at < body.len() {
            let end = body.len().min(at + SCAN_PIECE_BYTES);
            let piece = &body[at..end];
            let consumed = self.take_piece(worker, piece, last && end == body.len()).await?;
            at += consumed;
            if last && at == body.len() {
                break;
            }
            self.newlines_before += memchr::memchr_iter(b'\n', &piece[..consumed]).count() as u64;
            if end == body.len() {
                break;
            }
        }
        Ok(at)
    }

    async fn take_piece(&mut self, worker: &Worker, piece: &[u8], last: bool) -> Result<usize, disklog::Error> {
        let mut grouping = worker.groupings.take();
        let consumed = {
            let mut routes = worker.routes.borrow_mut();
            let mut previous = None;
            self.scanner.scan(piece, last, |item| match item {
                Item::Line(line) => {
                    if !line.has_timestamp && self.timestamp.is_none() {
                        self.timestamp = Some(clock_text(self.precision));
                    }
                    let measurement = &piece[line.start as usize..line.measurement_end as usize];
                    let route = match previous {
                        Some((name, route)) if name == measurement => route,
                        _ => routes.lookup(Place::new(&self.db_name, measurement)),
                    };
                    previous = Some((measurement, route));
                    let stamp_bytes = self.timestamp.as_ref().map_or(0, Vec::len);
                    let unit = if self.by_magnitude { unit_of(&line, piece) } else { self.precision };
                    grouping.add(line, line.encoded_len(stamp_bytes), route, unit);
                }
                Item::Refused(refused) => self.refusals.add(piece, &refused, self.newlines_before),
            })
        };
        let stamp = self.timestamp.take().unwrap_or_default();
        let result = self.append(worker, &grouping, piece, &stamp).await;
        self.timestamp = (!stamp.is_empty()).then_some(stamp);
        grouping.clear();
        worker.groupings.give(grouping);
        result.map(|()| consumed)
    }

    async fn append(
        &mut self,
        worker: &Worker,
        grouping: &Grouping,
        piece: &[u8],
        stamp: &[u8],
    ) -> Result<(), disklog::Error> {
        for chain in grouping.chains() {
            self.accepted += u64::from(chain.lines);
            if self.count_only {
                continue;
            }
            // A copy, because the table may grow while the append waits for room.
            let mut route = [None; ROUTE_BACKENDS_MAX];
            let route = {
                let routes = worker.routes.borrow();
                let backends = routes.backends(chain.route);
                route[..backends.len()].copy_from_slice(backends);
                &route[..backends.len()]
            };
            let key = RecordKey { db: &self.db_name, rp: &self.rp, precision: chain.precision, route };
            let copy = |out: &mut [u8]| grouping.copy(chain, piece, stamp, out);
            let seq = worker.own.log.append(&key, chain.lines, chain.bytes, self.awaited.is_some(), copy).await?;
            self.last_seq = Some(seq);
            if let Some(awaited) = &mut self.awaited {
                awaited.add(seq);
            }
            let backends = || route.iter().flatten().copied();
            backends().for_each(|backend| self.touched[backend.index()] = true);
            worker.own.ledger.borrow_mut().accepted(&self.db_name, backends(), u64::from(chain.lines));
        }
        Ok(())
    }
}

/// The unit that the timestamp of a line tells. The clock's is nanoseconds.
fn unit_of(line: &Line, piece: &[u8]) -> Precision {
    let text = piece.get(line.fields_end as usize..line.end as usize).filter(|_| line.has_timestamp);
    let text = text.map_or("", |text| std::str::from_utf8(text).unwrap_or_default().trim());
    text.parse().map_or(Precision::Nanosecond, Precision::of_magnitude)
}

/// The server's clock in units of `precision`, rounded down as InfluxDB does.
fn clock_text(precision: Precision) -> Vec<u8> {
    let nanos = io::system_time().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let units = nanos / precision.nanos() as u128;
    units.to_string().into_bytes()
}

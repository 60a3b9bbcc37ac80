//! Offers the logs of this worker to couriers on other workers, and books what comes back from them. At the start it
//! books what had been settled before.
//!
//! Not here: the couriers' end (`delivery`).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::delivery::say_unreadable;
use crate::disklog::{self, LogReader, RecordView, Seq};
use crate::io::{self, Event};
use crate::limits::{CHUNK_BYTES_MIN, LOCAL_FAILURE_PAUSE};
use crate::order::SettledBefore;
use crate::parked::ParkedKey;
use crate::topology::{Backend, BackendId};
use crate::unsaved::UnsavedRefusal;
use crate::worker::Worker;
use crate::worker::feed::{Feed, ParkOrder, Report, Settled};
use crate::worker::journal::Journal;

/// Offers the records of a log of this worker to a courier on another one, and books what comes back.
async fn feed_courier(
    worker: Rc<Worker>,
    journal: Rc<Journal>,
    backend: BackendId,
    feed: Arc<Feed>,
    rung: Rc<Event>,
    key: Option<ParkedKey>,
) {
    let is_side = key.is_some();
    let mut reader = match key {
        None => journal.log.reader(backend),
        Some(key) => journal.log.parked_reader(backend, key),
    };
    let mut loud_at = None;
    while !feed.closed.load(SeqCst) {
        let room = rung.wait();
        if !feed.has_room() {
            reader.rest();
            room.await;
            continue;
        }
        drop(room);
        let mut chunk = feed.spare();
        let bytes_max = if is_side { CHUNK_BYTES_MIN } else { worker.feeds.chunk_bytes };
        match reader.fetch(false, &mut |record| chunk.push(&record, bytes_max)).await {
            Ok(fetched) => {
                feed.unreadable.store(false, SeqCst);
                if fetched.lost > 0 {
                    journal.met_damage(backend);
                }
                let is_new = !chunk.is_empty() || fetched.lost > 0;
                if is_new {
                    (chunk.next, chunk.lost) = (fetched.next, fetched.lost);
                    feed.offer(chunk);
                } else {
                    feed.give_back(chunk);
                }
                // No await since the fetch: nothing was written in between.
                if !reader.behind() {
                    feed.offered_all();
                }
                if !is_new
                    && let Ok(fetched) = reader.fetch(true, &mut |_| false).await
                    && fetched.lost > 0
                {
                    journal.met_damage(backend);
                }
            }
            Err(disklog::Error::Closed) => return,
            Err(error) => {
                say_unreadable(&mut loud_at, &worker, backend, &error);
                feed.give_back(chunk);
                if !feed.unreadable.swap(true, SeqCst) {
                    feed.to_courier.ring();
                }
                io::sleep(LOCAL_FAILURE_PAUSE).await;
            }
        }
    }
}

/// Books what couriers of other workers have reported about a log of this worker.
async fn book_reports(
    worker: Rc<Worker>,
    journal: Rc<Journal>,
    backend: BackendId,
    feed: Arc<Feed>,
    rung: Rc<Event>,
    key: Option<ParkedKey>,
) {
    while !feed.closed.load(SeqCst) {
        let more = rung.wait();
        take_reports(&worker, &journal, backend, &feed, key.as_ref());
        more.await;
    }
}

/// `key`: the feed is that of a side courier.
fn take_reports(worker: &Rc<Worker>, journal: &Rc<Journal>, backend: BackendId, feed: &Feed, key: Option<&ParkedKey>) {
    while let Some(report) = feed.next_report() {
        match report {
            Report::Settled(settled) => {
                journal.settled(backend, &worker.settings.topology.backend(backend).name, key, &settled);
                worker.publish(backend);
            }
            Report::Partly(settled) => journal.partly_settled(backend, settled),
            Report::Refused(refused) => refused.iter().for_each(|refused| journal.refused(backend, refused)),
            Report::Park(order) => start_side_feed(worker, journal, backend, *order),
            Report::Unpark(key) => end_side_feed(worker, journal, backend, &key),
        }
    }
}

/// Parks points in this log, and offers them to their side courier.
fn start_side_feed(worker: &Rc<Worker>, journal: &Rc<Journal>, backend: BackendId, order: ParkOrder) {
    let ParkOrder { key, from, feed } = order;
    if let Some(settled) = from {
        journal.park(backend, &key, &settled);
    }
    worker.add_side_feed(journal.number, backend, &feed);
    journal.log.tell_parked_written(backend, &key, feed.behind.clone());
    journal.side_feeds.borrow_mut().push((backend, key.clone(), feed.clone()));
    spawn_feed(worker, journal, backend, &feed, Some(&key));
}

/// Starts both tasks of a feed. They may begin after it has ended: both orders can come at once.
fn spawn_feed(
    worker: &Rc<Worker>,
    journal: &Rc<Journal>,
    backend: BackendId,
    feed: &Arc<Feed>,
    key: Option<&ParkedKey>,
) {
    let rung = worker.feed_event(feed);
    let (worker, journal, feed) = (worker.clone(), journal.clone(), feed.clone());
    io::spawn(feed_courier(worker.clone(), journal.clone(), backend, feed.clone(), rung.clone(), key.cloned()));
    io::spawn(book_reports(worker, journal, backend, feed, rung, key.cloned()));
}

/// Books the last reports of a side courier; its points are not parked any more.
fn end_side_feed(worker: &Rc<Worker>, journal: &Rc<Journal>, backend: BackendId, key: &ParkedKey) {
    let at = journal.side_feeds.borrow().iter().position(|(of, side, _)| *of == backend && side == key);
    if let Some(at) = at {
        let (_, _, feed) = journal.side_feeds.borrow_mut().swap_remove(at);
        take_reports(worker, journal, backend, &feed, Some(key));
        feed.closed.store(true, SeqCst);
        worker.remove_side_feed(&feed);
    }
    journal.unpark(backend, key);
}

/// Books all that couriers of other workers have reported so far.
pub fn take_all_reports(worker: &Rc<Worker>) {
    for_feeds(worker, |journal, backend, feed| take_reports(worker, journal, backend, feed, None));
    for journal in worker.journals() {
        let sides: Vec<_> = journal.side_feeds.borrow().clone();
        sides.iter().for_each(|(backend, key, feed)| take_reports(worker, journal, *backend, feed, Some(key)));
    }
}

/// Calls `each` for every log of this worker and every courier elsewhere.
fn for_feeds(worker: &Worker, mut each: impl FnMut(&Rc<Journal>, BackendId, &Arc<Feed>)) {
    for journal in worker.journals() {
        for backend in &worker.settings.topology.backends {
            if let Some(feed) = worker.feeds.feed(journal.number, backend.id) {
                each(journal, backend.id, feed);
            }
        }
    }
}

/// Starts to offer the logs of this worker to the couriers of other workers.
pub fn start_feeds(worker: &Rc<Worker>) {
    for_feeds(worker, |journal, backend, feed| {
        journal.log.tell_written(backend, feed.behind.clone());
        spawn_feed(worker, journal, backend, feed, None);
    });
}

/// Books what had been settled before the start, although the log's own state does not say so: the state of another log
/// was saved later. Sent again from this log alone, old values would replace newer ones.
///
/// # Errors
/// When a log cannot be read.
pub async fn pass_settled(worker: &Rc<Worker>) -> Result<(), disklog::Error> {
    for journal in worker.journals() {
        for backend in &worker.settings.topology.backends {
            pass_settled_of(worker, journal, backend).await?;
        }
    }
    Ok(())
}

/// As [`pass_settled`], for one log and one backend.
async fn pass_settled_of(worker: &Worker, journal: &Journal, backend: &Backend) -> Result<(), disklog::Error> {
    let order = &worker.feeds.order;
    let SettledBefore { below, parked, refusals, dropped, .. } = order.settled_state(backend.id);
    let number = worker.feeds.number(journal.number);
    let mut books = Books { journal, backend, refusals: BTreeMap::new() };
    for refusal in refusals.into_iter().filter(|refusal| refusal.worker == number) {
        books.refusals.entry(Seq(refusal.record)).or_default().push(refusal);
    }
    let dropped_of =
        |key: Option<&ParkedKey>| dropped.iter().find(|(of, _)| of.as_ref() == key).map_or(0, |(_, stamp)| *stamp);
    // What is settled, and below which stamp the rest is dropped.
    let stamps_of = |record: &RecordView<'_>| {
        let own = parked.iter().find(|(key, _)| key.has(record.db, record.rp));
        own.map_or((below, dropped_of(None)), |(key, stamp)| (*stamp, dropped_of(Some(key))))
    };
    let became_of = |record: &RecordView<'_>| match stamps_of(record) {
        (settled, _) if record.stamp < settled => Some(Before::Settled),
        (_, dropped) if record.stamp < dropped => Some(Before::Dropped),
        _ => None,
    };
    let end = parked.iter().map(|(_, stamp)| *stamp).fold(below, u64::max);
    let end = dropped.iter().map(|(_, stamp)| *stamp).fold(end, u64::max);
    // As this log's state has it: each key from a place of its own.
    let (saved, cursor) = (journal.log.parked(backend.id), journal.log.cursor(backend.id));
    let is_of = |keys: &[ParkedKey], record: &RecordView<'_>| keys.iter().any(|k| k.has(record.db, record.rp));
    for key in &saved {
        let reader = journal.log.parked_reader(backend.id, key.clone());
        let is_still = parked.iter().any(|(other, _)| other == key);
        let passes = |record: &RecordView<'_>| {
            // Of a key that is no more, what is not settled belongs to the cursor or to another key now.
            let elsewhere = (!is_still && record.stamp < end).then_some(Before::Elsewhere);
            became_of(record).or(elsewhere)
        };
        books.pass(reader, Some(key), &passes).await?;
    }
    // Parked after this log's state was saved: its cursor had not passed them. A key may stand for points of a
    // saved one, which have been booked.
    let new = parked.iter().filter(|(key, _)| !saved.contains(key));
    for (key, stamp) in new {
        journal.log.park(backend.id, key, cursor);
        let reader = journal.log.parked_reader(backend.id, key.clone());
        let last = dropped_of(Some(key)).max(*stamp);
        let passes = |record: &RecordView<'_>| match is_of(&saved, record) {
            true => (record.stamp < last).then_some(Before::Elsewhere),
            false => became_of(record),
        };
        books.pass(reader, Some(key), &passes).await?;
    }
    let last = dropped_of(None).max(below);
    let passes = |record: &RecordView<'_>| {
        let is_parked = is_of(&saved, record) || parked.iter().any(|(key, _)| key.has(record.db, record.rp));
        if is_parked { (record.stamp < last).then_some(Before::Elsewhere) } else { became_of(record) }
    };
    books.pass(journal.log.reader(backend.id), None, &passes).await?;
    let ended = saved.iter().filter(|key| !parked.iter().any(|(other, _)| other == *key));
    ended.for_each(|key| journal.unpark(backend.id, key));
    // The log had saved the others before, or they are sent again.
    order.retain_refusals(backend.id, number, |refusal| !books.refusals.contains_key(&Seq(refusal.record)));
    Ok(())
}

type PointsByDb = BTreeMap<Box<[u8]>, u64>;

/// What had become of a record before the start.
enum Before {
    Settled,
    /// Its log has it, but a newer one was dropped that may have been delivered.
    Dropped,
    /// It is booked with other records.
    Elsewhere,
}

/// Books of one log what a backend had settled before the start.
struct Books<'a> {
    journal: &'a Journal,
    backend: &'a Backend,
    /// What the backend had refused of the log and is not booked here, by record.
    refusals: BTreeMap<Seq, Vec<UnsavedRefusal>>,
}

impl Books<'_> {
    /// Books the first records of a reader. `passes`: None = this one and all later ones stay.
    async fn pass(
        &mut self,
        mut reader: LogReader,
        key: Option<&ParkedKey>,
        passes: &dyn Fn(&RecordView<'_>) -> Option<Before>,
    ) -> Result<(), disklog::Error> {
        let (mut settled, mut delivered, mut dropped) = (Settled::default(), PointsByDb::new(), PointsByDb::new());
        loop {
            let mut pass = |record: RecordView<'_>| {
                let Some(before) = passes(&record) else { return false };
                let points = match before {
                    Before::Settled => &mut delivered,
                    Before::Dropped => &mut dropped,
                    Before::Elsewhere => return true,
                };
                match points.get_mut(record.db) {
                    Some(points) => *points += u64::from(record.lines),
                    None => _ = points.insert(record.db.into(), u64::from(record.lines)),
                }
                if let Before::Settled = before {
                    for refusal in self.refusals.remove(&record.seq).into_iter().flatten() {
                        settled.reject(&refusal.db, refusal.reason, refusal.points);
                    }
                }
                true
            };
            let fetched = reader.fetch(false, &mut pass).await?;
            if fetched.lost > 0 {
                self.journal.met_damage(self.backend.id);
            }
            if fetched.records > 0 {
                settled.next = fetched.next;
            }
            if fetched.lost == 0 {
                break;
            }
        }
        for (db, _, points) in &settled.rejected {
            if let Some(delivered) = delivered.get_mut(db) {
                *delivered = delivered.saturating_sub(*points);
            }
        }
        settled.delivered = delivered.into_iter().collect();
        settled.dropped = dropped.into_iter().collect();
        if settled.next > Seq(0) {
            self.journal.settled(self.backend.id, &self.backend.name, key, &settled);
        }
        Ok(())
    }
}

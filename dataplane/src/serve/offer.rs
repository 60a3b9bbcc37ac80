//! Offers the logs of this worker to couriers on other workers, and books what comes back from them. At the start it
//! books what had been settled before.
//!
//! Not here: the couriers' end (`delivery`).

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use super::delivery::{say_unreadable, split};
use crate::courier::KnownLetters;
use crate::disklog::{self, RecordView};
use crate::io;
use crate::limits::{LOCAL_FAILURE_PAUSE, PASSED_RECORDS_MAX};
use crate::topology::BackendId;
use crate::worker::Worker;
use crate::worker::feed::{Feed, Report, Settled};
use crate::worker::journal::Journal;

/// Offers the records of a log of this worker to a courier on another one, and books what comes back.
async fn feed_courier(worker: Rc<Worker>, journal: Rc<Journal>, backend: BackendId, feed: Arc<Feed>) {
    let mut reader = journal.log.reader(backend);
    let rung = worker.feed_event(journal.number, backend);
    let mut loud_at = None;
    loop {
        let room = rung.wait();
        if !feed.has_room() {
            room.await;
            continue;
        }
        drop(room);
        let mut chunk = feed.spare();
        let bytes_max = worker.feeds.chunk_bytes;
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
                    feed.behind.store(false, SeqCst);
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
async fn book_reports(worker: Rc<Worker>, journal: Rc<Journal>, backend: BackendId, feed: Arc<Feed>) {
    let rung = worker.feed_event(journal.number, backend);
    loop {
        let more = rung.wait();
        take_reports(&worker, &journal, backend, &feed);
        more.await;
    }
}

fn take_reports(worker: &Worker, journal: &Journal, backend: BackendId, feed: &Feed) {
    while let Some(report) = feed.next_report() {
        match report {
            Report::Settled(settled) => {
                journal.settled(backend, &worker.settings.topology.backend(backend).name, &settled);
                worker.publish(backend);
            }
            Report::Partly(settled) => journal.partly_settled(backend, settled),
            Report::Refused(refused) => refused.iter().for_each(|refused| journal.refused(backend, refused)),
        }
    }
}

/// Books all that couriers of other workers have reported so far.
pub fn take_all_reports(worker: &Worker) {
    for_feeds(worker, |journal, backend, feed| take_reports(worker, journal, backend, feed));
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
        io::spawn(feed_courier(worker.clone(), journal.clone(), backend, feed.clone()));
        io::spawn(book_reports(worker.clone(), journal.clone(), backend, feed.clone()));
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
            let below = worker.feeds.order.settled(backend.id);
            let mut reader = journal.log.reader(backend.id);
            let mut letters = None;
            loop {
                let mut settled = Settled::default();
                let (mut records, mut more, mut unread) = (0, false, Ok(()));
                let mut pass = |record: RecordView<'_>| {
                    more = records == PASSED_RECORDS_MAX && record.stamp < below;
                    if record.stamp >= below || more {
                        return false;
                    }
                    records += 1;
                    let letters = letters.get_or_insert_with(|| {
                        KnownLetters::read(&worker.settings.data_dir, &backend.name).unwrap_or_else(|error| {
                            unread = Err(error);
                            KnownLetters::default()
                        })
                    });
                    settled.count(&record, letters);
                    true
                };
                let fetched = reader.fetch(false, &mut pass).await?;
                if let Err(error) = unread {
                    log::warn!("{}: dead letters cannot be read, they count as delivered: {error}", backend.name);
                }
                if fetched.lost > 0 {
                    journal.met_damage(backend.id);
                }
                if fetched.records > 0 {
                    settled.next = fetched.next;
                    journal.settled(backend.id, &backend.name, &settled);
                }
                if !more && fetched.lost == 0 {
                    break;
                }
            }
        }
    }
    Ok(())
}

impl Settled {
    /// Counts a record that has been settled before: a line that is a dead letter was refused, the others were
    /// delivered.
    fn count(&mut self, record: &RecordView<'_>, letters: &KnownLetters) {
        let mut delivered = u64::from(record.lines);
        if !letters.is_empty() {
            for line in split(record.bytes) {
                if let Some(reason) = letters.reason(record.db, &record.bytes[line]) {
                    self.rejected.push((record.db.into(), reason, 1));
                    delivered = delivered.saturating_sub(1);
                }
            }
        }
        self.delivered.push((record.db.into(), delivered));
    }
}

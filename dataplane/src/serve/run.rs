//! The life of a worker: open the log, take over what others left, serve, stop.
//!
//! Starts the tasks (`accept`, `delivery`, `adopt`) that share one [`Worker`].

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::disklog::{self, Log, LogSettings, Loss, Opened};
use crate::handoff::{LedgerRow, ToWorker, WorkerEnd};
use crate::io::{self, Listener, Signal, Socket};
use crate::ledger::Ledger;
use crate::limits::{
    IDLE_SWEEP_INTERVAL, LOUD_INTERVAL, MEMORY_BACK_CONNECTIONS, MEMORY_BACK_INTERVAL, SHUTDOWN_GRACE,
    STATE_SAVE_INTERVAL,
};
use crate::placement::Placement;
use crate::request::pool;
use crate::serve::{accept, delivery, errand};
use crate::settings::Settings;
use crate::stats::Stats;
use crate::takeover::adopt::{self, Legacy};
use crate::takeover::cache_files::CacheFile;
use crate::worker::link::Link;
use crate::worker::{self, Worker, WorkerError};

/// What a worker needs to start.
pub struct Start {
    pub id: usize,
    pub settings: Arc<Settings>,
    pub placement: Arc<Placement>,
    pub socket: Socket,
    pub end: WorkerEnd,
    pub stats: Arc<Stats>,
    /// This worker's share of the bound on connections.
    pub connections_max: usize,
    /// This worker's share of the bound on the backlog.
    pub backlog_max_bytes: u64,
    /// Logs of workers that no longer exist, and cache files of influx-proxy. This worker takes them over.
    pub former: Vec<PathBuf>,
    pub cache_files: Vec<CacheFile>,
}

/// Runs a worker until it stops. Returns its final ledger.
///
/// # Errors
/// When the log cannot be opened or closed, or the socket cannot listen.
pub async fn run(start: Start) -> Result<Vec<LedgerRow>, WorkerError> {
    // The first timer of a glommio 0.9 executor fires some 10 ms late. Use it up here, so that no client waits for it.
    io::sleep(Duration::from_millis(1)).await;
    let Start { id, settings, placement, socket, end, stats, connections_max, backlog_max_bytes, former, cache_files } =
        start;
    let signal = end.signal()?;
    let log_settings = LogSettings {
        dir: settings.data_dir.join(format!("worker-{id}")),
        worker: id,
        workers: settings.workers,
        topology: settings.topology.clone(),
        durability: settings.durability,
        linger: settings.commit_linger,
        hot_tail_bytes: settings.hot_tail_bytes,
        max_bytes: backlog_max_bytes,
        backlog_full: settings.backlog_full,
    };
    let legacy = Legacy::find(&log_settings.dir, former, cache_files)?;
    let (log, opened) = Log::open(log_settings).await?;
    let ledger = reopen_ledger(&settings, &opened);
    let link = Link::new(id, end);
    let worker = Rc::new(Worker::new(id, settings, placement, stats, link, log, ledger));
    worker.serve_with(delivery::start_couriers(&worker)?);
    io::spawn(read_messages(worker.clone(), signal));
    adopt::adopt(&worker, legacy, !opened.absent.is_empty()).await?;
    let listener = Rc::new(Listener::new(socket)?);
    io::spawn(tick(worker.clone(), listener.clone()));
    io::spawn(accept::accept(worker.clone(), listener.clone(), connections_max));
    // Show what was left from before the start at once.
    worker.settings.topology.backends.iter().for_each(|backend| worker.publish(backend.id));
    worker.stats().ready.store(true, Relaxed);

    worker.stopped().await;
    worker.stats().ready.store(false, Relaxed);
    listener.close();
    finish_requests(&worker).await;
    close_log(&worker).await?;
    let rows = worker.ledger.borrow().rows();
    Ok(rows)
}

/// Saves the state and closes the log. Without space neither may be possible, and nothing is lost by that.
async fn close_log(worker: &Worker) -> Result<(), disklog::Error> {
    let closed = match worker.save_state().await {
        Ok(()) => worker.log.close().await,
        Err(error) => Err(error),
    };
    match closed {
        Err(disklog::Error::Full) => {
            log::warn!(
                "worker {}: no space: cursors and ledger stay as they were last saved; what has been delivered since \
                 is delivered again",
                worker.id
            );
            Ok(())
        }
        other => other,
    }
}

/// Restores the ledger: its saved state, plus what was appended after the save.
fn reopen_ledger(settings: &Settings, opened: &Opened) -> Ledger {
    let text = String::from_utf8_lossy(&opened.ledger);
    let (mut ledger, unreadable) = Ledger::from_text(settings.topology.clone(), &text);
    if unreadable > 0 {
        log::warn!("{unreadable} lines of the saved ledger cannot be read; their points are not accounted for");
    }
    for (db, backends, points) in &opened.uncounted {
        let db = ledger.database(db);
        backends.iter().for_each(|&backend| ledger.accepted(db, backend, *points));
    }
    for damage in &opened.damage {
        log::error!("the log is damaged: {damage}");
    }
    match &opened.torn {
        Some(torn) if torn.loss == Loss::CutShort => log::warn!("{torn}"),
        Some(torn) => log::error!("{torn}"),
        None => {}
    }
    ledger
}

async fn read_messages(worker: Rc<Worker>, signal: Signal) {
    loop {
        while let Some(message) = worker.link.next_message() {
            match message {
                // Done here and not in a task, so that everything taken from now on lies after the hold.
                ToWorker::Drain { ticket, db, timeout } => errand::drain(&worker, ticket, &db, timeout),
                ToWorker::Write { ticket, db, rp, lines, timeout } => {
                    let task = errand::write(worker.clone(), ticket, errand::Lines { db, rp, lines }, timeout);
                    io::spawn(task);
                }
                message => worker.receive(message),
            }
        }
        worker.link.fail_if_gone();
        if signal.wait().await.is_err() {
            return;
        }
    }
}

/// Work at intervals: the clock of answers, idle connections, counters, the saved state.
async fn tick(worker: Rc<Worker>, listener: Rc<Listener>) {
    let (mut saved, mut save_failed) = (io::now(), None);
    // The most connections that were open since memory was given back.
    let (mut most, mut given_back) = (0, io::now());
    loop {
        io::sleep(IDLE_SWEEP_INTERVAL).await;
        if worker.process_stops() && !worker.conns.stopping() {
            worker.stop();
        }
        worker.responder.borrow_mut().set_time(worker::unix_time());
        worker.conns.sweep(io::now());
        most = most.max(worker.conns.len());
        if most - worker.conns.len() >= MEMORY_BACK_CONNECTIONS && io::elapsed(given_back) >= MEMORY_BACK_INTERVAL {
            pool::give_memory_back();
            (most, given_back) = (worker.conns.len(), io::now());
        }
        worker.latency.borrow_mut().publish(worker.stats(), io::now());
        worker.stats().connections_open.store(worker.conns.len() as u64, Relaxed);
        worker.stats().body_bytes.store(worker.pool.held_bytes() as u64, Relaxed);
        for backend in &worker.settings.topology.backends {
            worker.publish(backend.id);
        }
        worker.report_damage();
        if let Some(reason) = worker.log.poison() {
            if worker.stats().ready.swap(false, Relaxed) {
                log::error!("the log of worker {} has failed: it takes no writes until a restart: {reason}", worker.id);
            }
            // Others take its connections. The last one goes on with queries and `/health`.
            if worker.all_stats.workers.iter().any(|other| other.ready.load(Relaxed)) {
                listener.close();
            }
        } else if io::elapsed(saved) >= STATE_SAVE_INTERVAL {
            saved = io::now();
            match worker.save_state().await {
                Ok(()) => save_failed = None,
                // Once, and again from time to time.
                Err(error) if save_failed.is_none_or(|told| io::elapsed(told) >= LOUD_INTERVAL) => {
                    save_failed = Some(io::now());
                    log::error!("cannot save cursors and ledger: {error}");
                }
                Err(_) => {}
            }
        }
    }
}

/// Waits until running requests have ended, for at most `SHUTDOWN_GRACE`.
async fn finish_requests(worker: &Worker) {
    let all_ended = async {
        while !worker.conns.is_empty() {
            let ended = worker.conns.ended.wait();
            if worker.conns.is_empty() {
                break;
            }
            ended.await;
        }
    };
    if io::timeout(SHUTDOWN_GRACE, all_ended).await.is_err() {
        worker.conns.end_all();
    }
}

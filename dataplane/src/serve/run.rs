//! The life of a worker: open the logs, take over what others left, serve, stop.
//!
//! Starts the tasks (`accept`, `delivery`, `offer`, `errand`) that share one [`Worker`]. At the start the workers wait
//! for each other twice: all logs must have been listed before one is opened, and all must be open before a record gets
//! a place in the order. At the end they wait until all couriers have ended, so that every log can save what became of
//! its points.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use crate::crash;
use crate::disklog::{self, Log, LogSettings, Loss, Opened, worker_dir};
use crate::handoff::{LedgerRow, ToWorker, WorkerEnd};
use crate::io::{self, Datagrams, Listener, Signal, Socket};
use crate::ledger::Ledger;
use crate::limits::{
    COURIERS_END_WAIT, DIR_LOOK_INTERVAL, IDLE_SWEEP_INTERVAL, LOUD_INTERVAL, MEMORY_BACK_CONNECTIONS,
    MEMORY_BACK_INTERVAL, SHUTDOWN_GRACE, START_LOOK_INTERVAL, STATE_SAVE_INTERVAL,
};
use crate::memory;
use crate::order::SettledBefore;
use crate::placement::Placement;
use crate::serve::{accept, delivery, errand, offer, udp};
use crate::settings::Settings;
use crate::stats::Stats;
use crate::takeover::cache_files::CacheFile;
use crate::takeover::reroute::{self, Backlog};
pub use crate::worker::feed::Feeds;
use crate::worker::journal::{Journal, doubt};
use crate::worker::link::Link;
use crate::worker::{self, Worker, WorkerError};

/// What a worker needs to start.
pub struct Start {
    pub id: usize,
    pub settings: Arc<Settings>,
    pub placement: Arc<Placement>,
    pub socket: Socket,
    /// For packets, by address.
    pub udp_sockets: Vec<Socket>,
    pub end: WorkerEnd,
    pub stats: Arc<Stats>,
    /// This worker's share of the bound on connections.
    pub connections_max: usize,
    /// This worker's share of the bound on the backlog.
    pub backlog_max_bytes: u64,
    /// What all workers share.
    pub feeds: Arc<Feeds>,
    /// Cache files of influx-proxy, which this worker takes over.
    pub cache_files: Vec<CacheFile>,
}

/// Runs a worker until it stops. Returns the final ledgers of its logs; none when it was stopped during the start.
///
/// # Errors
/// When a log cannot be opened or closed, or the socket cannot listen.
pub async fn run(start: Start) -> Result<Vec<LedgerRow>, WorkerError> {
    match live(start).await {
        Err(WorkerError::Stopped) => Ok(Vec::new()),
        ended => ended,
    }
}

async fn live(start: Start) -> Result<Vec<LedgerRow>, WorkerError> {
    // The first timer of a glommio 0.9 executor fires some 10 ms late. Use it up here, so that no client waits for it.
    io::sleep(Duration::from_millis(1)).await;
    let Start { id, settings, placement, socket, udp_sockets, end, stats, connections_max, .. } = start;
    let (backlog_max_bytes, feeds, cache_files) = (start.backlog_max_bytes, start.feeds, start.cache_files);
    let signal = end.signal()?;
    let dir = |log: usize| worker_dir(&settings.data_dir, feeds.number(log));
    let mut backlog = None;
    if id == 0 {
        backlog = Some(Backlog::list(&(0..feeds.logs()).map(dir).collect::<Vec<_>>())?);
        feeds.listed.store(true, SeqCst);
    }
    come_to(&stats, || feeds.listed.load(SeqCst)).await?;
    let mut journals = Vec::new();
    let mut has_absent = Vec::new();
    let (mut undone, mut rerouted) = (false, Vec::new());
    for log in (0..feeds.logs()).filter(|&log| feeds.owner_of(log) == id) {
        let (opened_log, opened) = Log::open(LogSettings {
            dir: dir(log),
            worker: feeds.number(log),
            number: log,
            written: log == id,
            order: feeds.order.clone(),
            workers: settings.workers,
            topology: settings.topology.clone(),
            durability: settings.durability,
            linger: settings.commit_linger,
            hot_tail_bytes: if log == id { settings.hot_tail_bytes } else { 0 },
            max_bytes: backlog_max_bytes,
            backlog_full: settings.backlog_full,
        })
        .await?;
        let ledger = reopen_ledger(&settings, &opened);
        opened.refused.iter().for_each(|(record, lines)| feeds.tell_refused(log, *record, lines));
        feeds.order.opened(opened.last_stamp, &known_logs(&feeds, &opened.settled));
        has_absent.push(!opened.absent.is_empty());
        if !opened.absent.is_empty() {
            feeds.absent.store(true, SeqCst);
        }
        undone |= opened.rerouting;
        rerouted.extend(opened.rerouted);
        let backends = settings.topology.backends.len();
        let journal = Rc::new(Journal::new(log, opened_log, ledger, settings.backlog_full, backends));
        journal.keep_books();
        journals.push(journal);
    }
    come_to(&stats, || feeds.order.is_ready()).await?;
    let link = Link::new(id, end);
    let worker = Rc::new(Worker::new(id, settings, placement, stats, link, feeds, journals));
    offer::pass_settled(&worker).await?;
    if undone && !worker.feeds.absent.load(SeqCst) {
        // Or the next start would remove what is appended from now on.
        worker.own.save(true).await?;
    }
    worker.serve_with(delivery::start_couriers(&worker)?);
    offer::start_feeds(&worker);
    // Before the couriers run: a change of structure that has begun meanwhile holds points.
    take_messages(&worker);
    io::spawn(read_messages(worker.clone(), signal));
    if worker.feeds.absent.load(SeqCst) {
        route_again(&worker, backlog, rerouted, &has_absent).await?;
    }
    let listener = Rc::new(Listener::new(socket)?);
    io::spawn(tick(worker.clone(), listener.clone()));
    for (number, socket) in udp_sockets.into_iter().enumerate() {
        io::spawn(udp::receive(worker.clone(), Datagrams::new(socket)?, number));
    }
    io::spawn(accept::accept(worker.clone(), listener.clone(), connections_max));
    // Show what was left from before the start at once.
    worker.settings.topology.backends.iter().for_each(|backend| worker.publish(backend.id));
    worker.stats().ready.store(true, Relaxed);
    if id == 0 {
        reroute::import_all(&worker, cache_files).await?;
    }

    worker.stopped().await;
    worker.stats().ready.store(false, Relaxed);
    listener.close();
    finish_requests(&worker).await;
    end_couriers(&worker).await;
    close_logs(&worker).await?;
    Ok(worker.ledger_rows())
}

/// Saves the states and closes the logs. Without space neither may be possible, and nothing is lost by that.
async fn close_logs(worker: &Worker) -> Result<(), disklog::Error> {
    let mut result = Ok(());
    for journal in worker.journals() {
        let closed = match journal.save(false).await {
            Ok(()) => journal.log.close().await,
            Err(error) => Err(error),
        };
        result = result.and(match closed {
            // Said when it was found. Only the ledger is left to be told.
            Err(disklog::Error::Gone { .. }) => Ok(()),
            Err(disklog::Error::Full) => {
                log::warn!(
                    "{}: no space: cursors and ledger stay as they were last saved; what has been delivered since \
                     is delivered again",
                    journal.log.dir().display()
                );
                Ok(())
            }
            other => other,
        });
    }
    result
}

/// Without what is known of logs that are no more.
fn known_logs(feeds: &Feeds, settled: &[SettledBefore]) -> Vec<SettledBefore> {
    let mut settled = settled.to_vec();
    let is_log = |worker: usize| (0..feeds.logs()).any(|log| feeds.number(log) == worker);
    settled.iter_mut().for_each(|of_backend| of_backend.refusals.retain(|refusal| is_log(refusal.worker)));
    settled
}

/// Waits until all workers have come to a point of the start.
async fn come_to(stats: &Stats, there: impl Fn() -> bool) -> Result<(), WorkerError> {
    while !there() {
        if stats.stopping.load(Relaxed) {
            return Err(WorkerError::Stopped);
        }
        io::sleep(START_LOOK_INTERVAL).await;
    }
    Ok(())
}

/// The first worker routes the records of backends that are gone again. The logs need not keep them any longer then.
/// `rerouted`: what an earlier start has done of it.
async fn route_again(
    worker: &Worker,
    backlog: Option<Backlog>,
    rerouted: Vec<(String, u64)>,
    has_absent: &[bool],
) -> Result<(), WorkerError> {
    if let Some(backlog) = backlog {
        backlog.reroute(worker, rerouted).await?;
        worker.feeds.rerouted.store(true, SeqCst);
    }
    come_to(&worker.all_stats, || worker.feeds.rerouted.load(SeqCst)).await?;
    for (journal, _) in worker.journals().zip(has_absent).filter(|(_, absent)| **absent) {
        journal.log.settle_absent();
        journal.ledger.borrow_mut().hand_over();
        journal.save(false).await?;
        crash::point("rerouted");
    }
    Ok(())
}

/// Ends this worker's couriers, waits for those of the others, and books what they have reported.
async fn end_couriers(worker: &Rc<Worker>) {
    worker.stop_couriers();
    worker.feeds.couriers_running.fetch_sub(1, SeqCst);
    let all_ended = async {
        while worker.feeds.couriers_running.load(SeqCst) > 0 {
            io::sleep(START_LOOK_INTERVAL).await;
        }
    };
    _ = io::timeout(COURIERS_END_WAIT, all_ended).await;
    offer::take_all_reports(worker);
}

/// Restores the ledger: its saved state, plus what was appended after the save.
fn reopen_ledger(settings: &Settings, opened: &Opened) -> Ledger {
    let text = String::from_utf8_lossy(&opened.ledger);
    let (mut ledger, unreadable) = Ledger::from_text(settings.topology.clone(), &text);
    if unreadable > 0 {
        log::warn!("{unreadable} lines of the saved ledger cannot be read; their points are not accounted for");
    }
    for (db, backends, points) in &opened.uncounted {
        ledger.accepted(db, backends.iter().copied(), *points);
    }
    let lost = ledger.settle_retired(&opened.absent, doubt(settings.backlog_full));
    if lost > 0 {
        log::error!(
            "{lost} points for backends that are no longer configured are lost: {}",
            doubt(settings.backlog_full)
        );
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

fn take_messages(worker: &Rc<Worker>) {
    while let Some(message) = worker.link.next_message() {
        match message {
            // Not in a task: the hold begins at once.
            ToWorker::Drain { ticket, db, from, timeout } => errand::drain(worker, ticket, db, from, timeout),
            ToWorker::Write { ticket, db, rp, lines, timeout } => {
                io::spawn(errand::write(worker.clone(), ticket, errand::Lines { db, rp, lines }, timeout));
            }
            message => worker.receive(message),
        }
    }
}

async fn read_messages(worker: Rc<Worker>, signal: Signal) {
    loop {
        take_messages(&worker);
        worker.look_at_feeds();
        worker.link.fail_if_gone();
        if signal.wait().await.is_err() {
            return;
        }
    }
}

/// Work at intervals: the clock of answers, idle connections, counters, the saved state.
async fn tick(worker: Rc<Worker>, listener: Rc<Listener>) {
    let (mut saved, mut save_failed, mut looked) = (io::now(), None, io::now());
    // The most connections that were open since memory was given back.
    let (mut most, mut given_back) = (0, io::now());
    loop {
        io::sleep(IDLE_SWEEP_INTERVAL).await;
        if worker.process_stops() && !worker.conns.stopping() {
            worker.stop();
        }
        worker.responder.borrow_mut().set_time(worker::unix_time());
        worker.learn_version();
        worker.conns.sweep(io::now());
        most = most.max(worker.conns.len());
        if most - worker.conns.len() >= MEMORY_BACK_CONNECTIONS && io::elapsed(given_back) >= MEMORY_BACK_INTERVAL {
            memory::give_memory_back();
            (most, given_back) = (worker.conns.len(), io::now());
        }
        worker.latency.borrow_mut().publish(worker.stats(), io::now());
        worker.stats().connections_open.store(worker.conns.len() as u64, Relaxed);
        worker.stats().body_bytes.store(worker.pool.held_bytes() as u64, Relaxed);
        for backend in &worker.settings.topology.backends {
            // A courier may wait for records that never come.
            worker.journals().for_each(|journal| journal.close_accounts(backend.id, &backend.name));
            worker.publish(backend.id);
        }
        worker.report_damage();
        if io::elapsed(looked) >= DIR_LOOK_INTERVAL {
            looked = io::now();
            for journal in worker.journals() {
                if let Err(gone) = journal.log.look_at_dir().await {
                    log::error!("{gone}. What had been acknowledged is delivered as far as it is in memory");
                }
            }
        }
        if let Some(reason) = worker.own.log.poison() {
            if worker.stats().ready.swap(false, Relaxed) {
                worker.stats().log_failed.store(true, Relaxed);
                log::error!(
                    "the log of worker {} has failed: it takes no writes until the proxy is restarted; check the disk \
                     of {} first: {reason}",
                    worker.id,
                    worker.settings.data_dir.display()
                );
            }
            // Others take its connections. The last one goes on with queries and `/health`.
            if worker.leaves_clients() {
                listener.close();
            }
        } else if io::elapsed(saved) >= STATE_SAVE_INTERVAL {
            saved = io::now();
            let result = worker.save_state().await;
            worker.stats().state_unsaved.store(result.is_err(), Relaxed);
            match result {
                Ok(()) if save_failed.take().is_some() => log::info!("cursors and ledger are saved again"),
                Ok(()) => {}
                // Once, and again from time to time.
                Err(error) if save_failed.is_none_or(|told| io::elapsed(told) >= LOUD_INTERVAL) => {
                    save_failed = Some(io::now());
                    log::error!(
                        "cannot save cursors and ledger, so after a crash points are delivered again; check the disk \
                         of {}: {error}",
                        worker.settings.data_dir.display()
                    );
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

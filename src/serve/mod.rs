//! Starts the proxy, waits for a signal or a failure, and stops it.
//!
//! ```text
//!   main thread: checks, binds, starts the control thread and the workers, waits for a signal or an end
//! ```

pub mod drain;
mod ledger_report;
pub(crate) mod older;
mod preflight;

use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use fluxgate_control::migration::survey;
use fluxgate_control::transition::Transitions;
use fluxgate_control::{Control, ControlSettings};
use fluxgate_dataplane::handoff::{self, LedgerRow, WorkerEnd};
use fluxgate_dataplane::io::{self, PortGuard, Socket, rings};
use fluxgate_dataplane::limits::BACKLOG_DEFAULT_PERCENT;
use fluxgate_dataplane::memory;
use fluxgate_dataplane::one_line::one_line;
use fluxgate_dataplane::serve::run::{self, Feeds, Start};
use fluxgate_dataplane::settings::Settings;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::takeover::cache_files;
use rustix::process::geteuid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::preflight::DataDirLock;
use crate::config::Config;
use crate::limits::STOP_TIMEOUT;
use crate::tls::{self, Https};

/// One sentence for the operator.
#[derive(Debug)]
pub enum ServeError {
    /// It could not start: the configuration or the machine does not allow it.
    Start(String),
    /// It ended without a signal.
    Running(String),
}

/// How a start went.
enum Begun {
    /// Every worker accepts.
    Ready,
    /// A signal came first. That is no failure.
    Stopped,
}

enum News {
    Signal(i32),
    WorkerEnded(usize, Result<Vec<LedgerRow>, String>),
}

/// Serves until SIGTERM or SIGINT; SIGHUP reloads the certificate for clients.
///
/// # Errors
/// One sentence that names the key, the file or the cause.
pub fn serve(config: &Config) -> Result<(), ServeError> {
    config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let ended = run(config, Clients::Accepted, |running| {
        if !rings::coop_applied() {
            log::warn!("the kernel does not support IORING_SETUP_COOP_TASKRUN: small requests cost more CPU");
        }
        let tls = if running.settings.tls.is_some() { " (TLS)" } else { "" };
        log::info!("listening on {}{tls} with {} workers", running.listening, running.settings.workers);
        running.wait()
    })?;
    let queued = ledger_report::queued(&config.data.topology, &ended.ledger);
    if !queued.is_empty() {
        log::warn!(
            "not delivered yet, and kept in data_dir for the next start: {queued}. influx-proxy cannot read them: \
             before you go back to it, run `fluxgate drain` in this folder, as the same user"
        );
    }
    Ok(())
}

/// Whether requests are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    Accepted,
    /// Nobody listens where clients expect it.
    None,
}

/// What is known after the stop.
struct Ended {
    ledger: Vec<LedgerRow>,
    /// Every worker had opened its log, and has told its part.
    is_whole: bool,
}

/// Starts, does `meanwhile` unless a signal came first, and stops.
fn run(
    config: &Config,
    clients: Clients,
    meanwhile: impl FnOnce(&mut Running) -> Option<String>,
) -> Result<Ended, ServeError> {
    let mut running = start(config, clients).map_err(ServeError::Start)?;
    let (failure, was_ready) = match running.wait_until_ready() {
        Err(why) => (Some(ServeError::Start(why)), false),
        Ok(Begun::Stopped) => (None, false),
        Ok(Begun::Ready) => (meanwhile(&mut running).map(ServeError::Running), true),
    };
    let (late, mut ended) = running.stop();
    ended.is_whole &= was_ready;
    failure.or(late.map(ServeError::Running)).map_or(Ok(ended), Err)
}

/// What runs between start and stop.
struct Running {
    settings: Arc<Settings>,
    https: Https,
    listening: SocketAddr,
    stats: Arc<Stats>,
    control: Control,
    incoming: Receiver<News>,
    /// Workers that have not ended.
    workers_running: usize,
    ledger: Vec<LedgerRow>,
    _lock: DataDirLock,
    _port: PortGuard,
    _udp_ports: Vec<PortGuard>,
}

fn start(config: &Config, clients: Clients) -> Result<Running, String> {
    memory::keep_large_buffers();
    let mut settings = config.data.clone();
    if clients == Clients::None {
        settings.listen = (Ipv4Addr::LOCALHOST, 0).into();
        settings.udp.clear();
    }
    let settings = Arc::new(settings);
    memory::share_arenas(settings.workers);
    preflight::io_uring()?;
    preflight::locked_memory(settings.workers)?;
    preflight::raise_descriptor_limit();
    preflight::same_user(&settings.data_dir, geteuid().as_raw())?;
    if clients == Clients::None {
        older::is_here(&settings.data_dir)?;
    }
    let lock = preflight::data_dir(&settings.data_dir)?;
    let (port, sockets) = io::bind(settings.listen, settings.workers).map_err(|e| cannot_listen(&settings, &e))?;
    let listening = sockets[0].local_addr().ok().and_then(|a| a.as_socket()).unwrap_or(settings.listen);

    let (udp_ports, mut udp_sockets) = bind_udp(&settings)?;

    let (news, incoming) = unbounded();
    wait_for_signals(news.clone()).map_err(|e| format!("cannot start: {e}"))?;

    if clients == Clients::Accepted {
        older::ask(&settings.data_dir)?;
    }
    let file = Transitions::file_in(&settings.data_dir);
    let older_circles = older::circles(&file, &settings.data_dir);
    let survey = || survey(&settings.topology, &settings.trust);
    let influx_proxy_ran = older_circles.is_some();
    let transitions =
        Transitions::open_after(&file, &settings.topology, &settings.placement, influx_proxy_ran, survey)?;
    transitions.changes().iter().for_each(|change| log::warn!("{change}"));
    if let Some(warning) = older_circles.filter(|_| !transitions.changes().is_empty()) {
        log::warn!("{warning}");
    }
    let placement = transitions.placement();
    let stats = Stats::new(settings.workers, settings.topology.backends.len(), settings.topology.circles.len());
    let stats = Arc::new(stats.with_udp(settings.udp.len()));
    let (control_end, worker_ends) = handoff::pair(settings.workers).map_err(|e| format!("cannot start: {e}"))?;
    let cpus = preflight::allowed_cpus();
    let connections_max = match clients {
        Clients::Accepted => preflight::connections_per_worker(&settings),
        Clients::None => 0,
    };
    let backlog_max_bytes = backlog_max_bytes(&settings)? / settings.workers as u64;
    let former = logs_of_former_workers(&settings)?;
    let bells: Vec<_> = worker_ends.iter().map(WorkerEnd::bell).collect();
    let since_1970 = UNIX_EPOCH.elapsed().unwrap_or_default();
    let feeds = Arc::new(Feeds::new(&former, settings.topology.backends.len(), &bells, since_1970));
    let mut cache_files = cache_files::find(&settings.data_dir);
    stats.importing.store(!cache_files.is_empty(), SeqCst);
    let names = settings.topology.backends.iter().map(|backend| backend.name.as_str());
    cache_files::remove_empty(&settings.data_dir, names)
        .map_err(|e| format!("an empty cache file of influx-proxy in data_dir cannot be removed: {e}"))?;
    for (id, (socket, end)) in sockets.into_iter().zip(worker_ends).enumerate() {
        let start = Start {
            id,
            settings: settings.clone(),
            placement: placement.clone(),
            socket,
            udp_sockets: udp_sockets.pop().unwrap_or_default(),
            end,
            stats: stats.clone(),
            connections_max,
            backlog_max_bytes,
            feeds: feeds.clone(),
            cache_files: std::mem::take(&mut cache_files),
        };
        let cpu = cpus.get(id % cpus.len().max(1)).copied();
        start_worker(start, cpu, news.clone()).map_err(|e| format!("cannot start worker {id}: {e}"))?;
    }
    let control_settings = ControlSettings {
        topology: settings.topology.clone(),
        order: feeds.order.clone(),
        transitions,
        credentials: settings.credentials.clone(),
        check_interval: settings.check_interval,
        query: settings.query.clone(),
        trust: settings.trust.clone(),
        dialect: config.dialect,
        pprof_enabled: config.pprof_enabled,
        hot_tail_bytes: settings.hot_tail_bytes,
        data_dir: settings.data_dir.clone(),
        mlog_dir: config.mlog_dir.clone(),
        former_backends: config.former_backends.clone(),
        peers: config.peers.clone(),
    };
    let control =
        Control::start(control_settings, control_end, stats.clone()).map_err(|e| format!("cannot start: {e}"))?;

    Ok(Running {
        workers_running: settings.workers,
        settings,
        https: config.https.clone(),
        listening,
        stats,
        control,
        incoming,
        ledger: Vec::new(),
        _lock: lock,
        _port: port,
        _udp_ports: udp_ports,
    })
}

/// The sockets of each worker for packets.
fn bind_udp(settings: &Settings) -> Result<(Vec<PortGuard>, Vec<Vec<Socket>>), String> {
    let mut guards = Vec::new();
    let mut by_worker: Vec<Vec<Socket>> = (0..settings.workers).map(|_| Vec::new()).collect();
    for (number, udp) in settings.udp.iter().enumerate() {
        let (guard, sockets) = io::bind_datagrams(udp.bind, settings.workers, udp.read_buffer).map_err(|error| {
            let why = match error.kind() {
                ErrorKind::AddrInUse => "another program receives there".to_owned(),
                _ => error.to_string(),
            };
            format!("udp[{number}].bind: cannot receive on {}: {why}", udp.bind)
        })?;
        guards.push(guard);
        by_worker.iter_mut().zip(sockets).for_each(|(worker, socket)| worker.push(socket));
        log::info!("receiving UDP packets on {} for database {}", udp.bind, one_line(&udp.db));
    }
    Ok((guards, by_worker))
}

impl Running {
    /// Waits until every worker accepts, or for a signal. The error is that of a worker that does not.
    fn wait_until_ready(&mut self) -> Result<Begun, String> {
        let started = Instant::now();
        let mut told = started;
        let ready = |stats: &Stats| stats.workers.iter().filter(|w| w.ready.load(Relaxed)).count();
        while ready(&self.stats) < self.settings.workers {
            match self.incoming.recv_timeout(Duration::from_millis(5)) {
                Ok(News::WorkerEnded(id, end)) => {
                    return Err(self
                        .note_end(id, end)
                        .unwrap_or_else(|| format!("worker {id} ended during the start")));
                }
                Ok(News::Signal(SIGHUP)) => self.reload(),
                Ok(News::Signal(signal)) => {
                    log_stop(signal);
                    return Ok(Begun::Stopped);
                }
                Err(_) if told.elapsed() > Duration::from_secs(2) => {
                    told = Instant::now();
                    let (ready, all) = (ready(&self.stats), self.settings.workers);
                    log::info!("opening logs: {ready} of {all} workers ready after {} s", started.elapsed().as_secs());
                }
                Err(_) => {}
            }
        }
        Ok(Begun::Ready)
    }

    /// Waits for a signal, or for a worker that ends without one, which is a failure.
    fn wait(&mut self) -> Option<String> {
        loop {
            let news = self.incoming.recv();
            if let ControlFlow::Break(end) = self.hear(news.ok()) {
                return end;
            }
        }
    }

    /// As [`Running::wait`], but no longer than that.
    fn wait_for(&mut self, time: Duration) -> ControlFlow<Option<String>> {
        match self.incoming.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => ControlFlow::Continue(()),
            news => self.hear(news.ok()),
        }
    }

    /// None: all threads have ended.
    fn hear(&mut self, news: Option<News>) -> ControlFlow<Option<String>> {
        ControlFlow::Break(match news {
            Some(News::Signal(SIGHUP)) => {
                self.reload();
                return ControlFlow::Continue(());
            }
            Some(News::Signal(signal)) => {
                log_stop(signal);
                None
            }
            Some(News::WorkerEnded(id, end)) => {
                self.note_end(id, end).or(Some(format!("worker {id} ended unexpectedly")))
            }
            None => Some("all threads ended".into()),
        })
    }

    /// Reloads certificate and key for new connections. Open connections keep the old ones.
    fn reload(&self) {
        let Some(tls) = &self.settings.tls else {
            return log::info!("SIGHUP: https is not enabled, so there is no certificate to reload");
        };
        match tls::certificate(&self.https) {
            Ok(certificate) => {
                tls.replace(certificate);
                log::info!("SIGHUP: new connections use the certificate that is now in {}", self.https.cert);
            }
            Err(fault) => log::error!("SIGHUP: {}; the previous certificate stays in use", fault.what),
        }
    }

    /// Ends workers, then the control thread, and prints the ledger.
    fn stop(mut self) -> (Option<String>, Ended) {
        let mut failure = None;
        self.stats.stopping.store(true, Relaxed);
        self.control.shutdown_workers();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.workers_running > 0 {
            match self.incoming.recv_deadline(deadline) {
                Ok(News::WorkerEnded(id, end)) => failure = failure.or(self.note_end(id, end)),
                Ok(News::Signal(_)) => {}
                Err(_) => {
                    log::warn!(
                        "{} workers did not stop in time; all acknowledged points are in their logs",
                        self.workers_running
                    );
                    break;
                }
            }
        }
        self.control.stop();
        // If standard error is closed, there is nobody to tell.
        let _ = std::io::stderr().write_all(ledger_report::text(&self.settings.topology, &self.ledger).as_bytes());
        (failure, Ended { is_whole: self.workers_running == 0, ledger: self.ledger })
    }

    fn note_end(&mut self, id: usize, end: Result<Vec<LedgerRow>, String>) -> Option<String> {
        self.workers_running -= 1;
        match end {
            Ok(rows) => {
                self.ledger.extend(rows);
                None
            }
            Err(error) => Some(format!("worker {id}: {error}")),
        }
    }
}

fn log_stop(signal: i32) {
    log::info!("stopping on {}", if signal == SIGINT { "SIGINT" } else { "SIGTERM" });
}

fn start_worker(start: Start, cpu: Option<usize>, news: Sender<News>) -> std::io::Result<()> {
    let id = start.id;
    let handle = io::executor(&format!("worker-{id}"), cpu, move || run::run(start))?;
    // A panic of the executor shows only in its join.
    thread::Builder::new().name(format!("watch-{id}")).spawn(move || {
        let end = match handle.join() {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("ended by a panic or by the kernel: {error}")),
        };
        // The main thread is gone only when the process is ending.
        let _ = news.send(News::WorkerEnded(id, end));
    })?;
    Ok(())
}

fn wait_for_signals(news: Sender<News>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let wait = move || signals.forever().map(News::Signal).try_for_each(|signal| news.send(signal));
    thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

fn cannot_listen(settings: &Settings, error: &std::io::Error) -> String {
    let addr = settings.listen;
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("listen_addr {addr} is in use by another program, or by another instance of this one")
        }
        _ => format!("cannot listen on listen_addr {addr}: {error}"),
    }
}

/// The configured bound, or a share of the file system.
fn backlog_max_bytes(settings: &Settings) -> Result<u64, String> {
    if let Some(bytes) = settings.backlog_max_bytes {
        return Ok(bytes);
    }
    preflight::file_system_bytes(&settings.data_dir).map(|bytes| bytes / 100 * BACKLOG_DEFAULT_PERCENT)
}

/// Numbers of logs whose workers do not exist any more, because `workers` is smaller now, ascending. They are delivered
/// from where they lie.
fn logs_of_former_workers(settings: &Settings) -> Result<Vec<usize>, String> {
    let numbers = older::logs(&settings.data_dir)?.into_iter().map(|(number, _)| number);
    Ok(numbers.filter(|&number| number >= settings.workers).collect())
}

//! `fluxgate drain`: delivers what is in the logs without taking anything new, and ends. For those who go back to
//! influx-proxy, which cannot read the logs, or take a machine away.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use clap::Args;
use fluxgate_dataplane::one_line::one_line;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::takeover::cache_files;
use fluxgate_dataplane::topology::Topology;

use super::{Clients, Running, ServeError, ledger_report};
use crate::config::Config;
use crate::limits::{DRAIN_LOOK_INTERVAL, DRAIN_TELL_INTERVAL};

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DrainArgs {
    /// Give up after this many seconds, with exit status 1. What is left stays in the log.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    wait: u64,
}

/// Delivers everything.
///
/// # Errors
/// One sentence, when it cannot start, or when points or cache files are left at the end.
pub fn drain(args: &DrainArgs, config: &Config) -> Result<(), ServeError> {
    let mut is_importing = false;
    let ended = super::run(config, Clients::None, |running| {
        log::info!("delivering what is in {}; clients are not served", config.data.data_dir.display());
        let failure = deliver(running, Duration::from_secs(args.wait));
        is_importing = running.stats.importing.load(SeqCst);
        failure
    })?;
    let queued = ledger_report::queued(&config.data.topology, &ended.ledger);
    let left = if !queued.is_empty() {
        format!("{queued} are left")
    } else if is_importing {
        "cache files of influx-proxy are left".to_owned()
    } else if !ended.is_whole {
        "it was stopped before it knew all logs".to_owned()
    } else {
        return nothing_lies_there(&config.data.data_dir);
    };
    Err(ServeError::Running(format!("not everything has been delivered: {left}; start `fluxgate drain` again")))
}

/// A cache file without a backend, or with another writer, is not imported, and stays.
fn nothing_lies_there(data_dir: &Path) -> Result<(), ServeError> {
    let files = cache_files::find(data_dir);
    let names: Vec<_> = files.iter().map(|file| one_line(&file.backend) + ".dat").collect();
    if !names.is_empty() {
        return Err(ServeError::Running(format!(
            "the logs have been delivered, but these cache files of influx-proxy still lie in data_dir {}: {}; the log \
             above says why they were not imported",
            data_dir.display(),
            names.join(", ")
        )));
    }
    log::info!("everything has been delivered");
    Ok(())
}

/// Waits until nothing is queued any more, for a signal, or as long as it may.
fn deliver(running: &mut Running, wait: Duration) -> Option<String> {
    let begun = Instant::now();
    let mut told = begun;
    while begun.elapsed() < wait {
        if !running.stats.importing.load(SeqCst) && left(&running.stats, &running.settings.topology) == 0 {
            return None;
        }
        if told.elapsed() >= DRAIN_TELL_INTERVAL {
            told = Instant::now();
            tell(&running.stats, &running.settings.topology);
        }
        if let ControlFlow::Break(end) = running.wait_for(DRAIN_LOOK_INTERVAL) {
            return end;
        }
    }
    None
}

/// Points that backends have not got.
fn left(stats: &Stats, topology: &Topology) -> u64 {
    topology.backends.iter().map(|backend| stats.queued_points(backend.id.index())).sum()
}

fn tell(stats: &Stats, topology: &Topology) {
    for backend in &topology.backends {
        let queued = stats.queued_points(backend.id.index());
        if queued > 0 {
            log::info!("{queued} points for {} are left", backend.name);
        }
    }
}

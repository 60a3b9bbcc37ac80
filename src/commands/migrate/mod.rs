//! `fluxgate migrate`: starts, watches and controls the migrations of a running proxy.
//!
//! The proxy does the work and continues when the command ends. While the proxy restarts, a watching command waits.
//! Not here: what a migration does (`control/src/migration`).

mod args;
mod remote;
mod view;

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

pub use args::MigrateArgs;
use args::MigrateCommand;
use remote::{Remote, RemoteError};
use view::View;

use crate::limits::MIGRATE_AWAY_MAX;

/// How often the progress is asked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often the stop flag is checked.
const NAP: Duration = Duration::from_millis(50);

/// Why the migration is not known to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum MigrateFailure {
    /// The arguments, the proxy, or another migration do not allow it; or the proxy cannot be asked any more.
    NotBegun(String),
    /// It failed or was cancelled. The errors are listed.
    NotDone(String),
    /// We were told to stop. The migration goes on.
    Interrupted,
}

impl From<RemoteError> for MigrateFailure {
    fn from(fault: RemoteError) -> Self {
        Self::NotBegun(fault.into_sentence())
    }
}

impl From<io::Error> for MigrateFailure {
    fn from(error: io::Error) -> Self {
        Self::NotDone(format!("cannot print: {error}"))
    }
}

/// Carries it out. With `stop` raised, a watched migration is left alone.
///
/// # Errors
/// See [`MigrateFailure`].
pub fn main(args: &MigrateArgs, stop: &AtomicBool, out: &mut dyn Write) -> Result<(), MigrateFailure> {
    let what = match (&args.what, args.watch) {
        (Some(what), false) => what,
        (None, true) => &MigrateCommand::Watch { id: None },
        (Some(_), true) => {
            return Err(MigrateFailure::NotBegun(
                "--watch is for use without a command: one that starts a migration watches it anyway".to_owned(),
            ));
        }
        (None, false) => {
            return Err(MigrateFailure::NotBegun(
                "the command is missing: `fluxgate migrate --help` lists all".to_owned(),
            ));
        }
    };
    let remote = Remote::new(&args.proxy).map_err(MigrateFailure::NotBegun)?;
    let number = |circle: &str| remote.circle(circle);
    let (order, common) = match what {
        MigrateCommand::Rebalance(args) => (args.order(&number).map_err(MigrateFailure::NotBegun)?, &args.common),
        MigrateCommand::Recovery(args) => (args.order(&number).map_err(MigrateFailure::NotBegun)?, &args.common),
        MigrateCommand::Resync(args) => (args.order(), &args.common),
        MigrateCommand::Clear(args) => (args.order(&number).map_err(MigrateFailure::NotBegun)?, &args.common),
        MigrateCommand::Watch { id } => {
            let id = match id {
                Some(id) => *id,
                None => under_way(&remote)?,
            };
            return watch(&remote, id, stop, out);
        }
        MigrateCommand::Jobs => return Ok(view::list(&remote.jobs()?, out)?),
        MigrateCommand::Pause { id } => return steer(&remote, *id, "pause", out),
        MigrateCommand::Resume { id } => return steer(&remote, *id, "resume", out),
        MigrateCommand::Cancel { id } => return steer(&remote, *id, "cancel", out),
    };
    let id = remote.begin(&order)?;
    if common.detach {
        return Ok(writeln!(out, "{id}")?);
    }
    watch(&remote, id, stop, out)
}

/// The only migration that has not ended.
fn under_way(remote: &Remote) -> Result<u64, MigrateFailure> {
    let active: Vec<_> = remote.jobs()?.into_iter().filter(|job| !job.is_over()).collect();
    match &active[..] {
        [job] => Ok(job.id),
        [] => Err(MigrateFailure::NotBegun(
            "no migration is running; `fluxgate migrate jobs` lists those that have ended".to_owned(),
        )),
        several => {
            let names: Vec<_> = several.iter().map(ToString::to_string).collect();
            let what = format!("several migrations are running, give the number of one: {}", names.join(", "));
            Err(MigrateFailure::NotBegun(what))
        }
    }
}

fn steer(remote: &Remote, id: u64, word: &str, out: &mut dyn Write) -> Result<(), MigrateFailure> {
    remote.steer(id, word)?;
    Ok(writeln!(out, "migration {id}: {word} is accepted")?)
}

/// Shows it until it has ended, then says how.
fn watch(remote: &Remote, id: u64, stop: &AtomicBool, out: &mut dyn Write) -> Result<(), MigrateFailure> {
    let mut view = View::new(out);
    let (mut away, mut seen): (Option<Instant>, bool) = (None, false);
    let job = loop {
        match remote.job(id) {
            Ok(job) => {
                (away, seen) = (None, true);
                view.show(&job)?;
                if job.is_over() {
                    break job;
                }
            }
            Err(RemoteError::Away(why)) if seen && away.is_none_or(|since| since.elapsed() < MIGRATE_AWAY_MAX) => {
                if away.is_none() {
                    view.say(&format!("{why}; waiting until it answers again"))?;
                    away = Some(Instant::now());
                }
            }
            Err(fault) => {
                view.close();
                return Err(fault.into());
            }
        }
        if !sleep(LOOK_INTERVAL, stop) {
            view.say(&format!(
                "migration {id} continues: watch it with `migrate watch {id}`, stop it with `migrate cancel {id}`"
            ))?;
            view.close();
            return Err(MigrateFailure::Interrupted);
        }
    };
    view.close();
    if job.state == "done" {
        return Ok(writeln!(out, "{}", view::end(&job))?);
    }
    Err(MigrateFailure::NotDone(view::end(&job)))
}

/// False: stop was raised.
fn sleep(time: Duration, stop: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if stop.load(Relaxed) {
            return false;
        }
        thread::sleep(NAP);
    }
    true
}

//! `fluxgate log`: lists, prints and verifies logs. It only reads, so that the proxy may be running.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use fluxgate_dataplane::disklog::inspect;

#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(after_help = "\
Examples:
  fluxgate log ls data                  segments and cursors of all workers
  fluxgate log cat data/worker-0        one worker's log as line protocol
  fluxgate log cat --pending data       what has not been delivered, and to which backends
  fluxgate log verify data && echo ok   check that nothing is damaged")]
pub struct LogArgs {
    #[command(subcommand)]
    pub what: LogCommand,
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum LogCommand {
    /// List segments and cursors.
    Ls(DirArg),
    /// Print all records as line protocol, each after a comment with database, policy, precision and route.
    Cat(CatArgs),
    /// Check every frame. Prints each damaged place; the exit status is 1 if there is one, or no log at all.
    Verify(DirArg),
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct CatArgs {
    /// Only what has not been delivered, each record after a comment that names the backends which still need it.
    #[arg(long)]
    pub pending: bool,
    #[command(flatten)]
    pub dir: DirArg,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct DirArg {
    /// A data directory, or the log of one worker in it.
    pub dir: PathBuf,
}

/// Runs the command; false if `verify` found damage, or no log.
///
/// # Errors
/// One sentence, when the directory cannot be read or has no log, or nothing can be printed.
pub fn run(args: &LogArgs, out: &mut dyn Write) -> Result<bool, String> {
    let done = match &args.what {
        LogCommand::Ls(arg) => inspect::ls(&arg.dir, out).map(|()| true),
        LogCommand::Cat(CatArgs { pending: true, dir }) => inspect::cat_pending(&dir.dir, out).map(|()| true),
        LogCommand::Cat(CatArgs { dir, .. }) => inspect::cat(&dir.dir, out).map(|()| true),
        LogCommand::Verify(arg) => inspect::verify(&arg.dir, out),
    };
    done.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_without_a_log_is_not_verified() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("worker-0")).unwrap();
        let mut out = Vec::new();
        let args = LogArgs { what: LogCommand::Verify(DirArg { dir: dir.path().to_owned() }) };
        assert_eq!(run(&args, &mut out), Ok(false));
        assert!(String::from_utf8(out).unwrap().ends_with(": there is no log\n"));
    }

    #[test]
    fn a_folder_without_a_log_is_no_empty_log() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lock"), "").unwrap();
        let dir = || DirArg { dir: folder.path().to_owned() };
        let cat = |pending| LogCommand::Cat(CatArgs { pending, dir: dir() });
        let all = || [LogCommand::Ls(dir()), cat(false), cat(true), LogCommand::Verify(dir())];
        for what in all() {
            let mut out = Vec::new();
            let why = run(&LogArgs { what }, &mut out).unwrap_err();
            assert!(why.starts_with(&format!("there is no log in {}: ", folder.path().display())), "{why}");
            assert_eq!(out, b"");
        }
        std::fs::write(folder.path().join("state"), "").unwrap();
        for what in all() {
            run(&LogArgs { what }, &mut Vec::new()).unwrap();
        }
    }
}

//! Runs the command that the command line names. Exit status: 0 done, 1 the work failed, 2 it could not be started.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fluxgate::cli::{Cli, Command};
use fluxgate::commands::{check, demo, hashdist, load, log_files, migrate, sink};
use fluxgate::config::{self, Config};
use fluxgate::logger;
use fluxgate::serve::{self, ServeError, drain};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status after a second signal: what a shell reports for SIGINT.
const INTERRUPTED: i32 = 130;

/// Why the program ends early.
enum End {
    /// The configuration, the arguments or the machine do not allow a start.
    CannotStart(String),
    Failed(String),
    /// The error was printed already.
    Status(u8),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // As in `fluxgate check | head`: who reads has had enough.
            io::ErrorKind::BrokenPipe => Self::Status(0),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ServeError> for End {
    fn from(failure: ServeError) -> Self {
        match failure {
            ServeError::Start(sentence) => Self::CannotStart(sentence),
            ServeError::Running(sentence) => Self::Failed(sentence),
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::parse_from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => answer.exit(),
    };
    let (sentence, status) = match run(&cli) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(End::CannotStart(sentence)) => (sentence, 2),
        Err(End::Failed(sentence)) => (sentence, 1),
        Err(End::Status(status)) => return ExitCode::from(status),
    };
    // If standard error is closed, there is nobody to tell.
    let _ = writeln!(io::stderr(), "fluxgate: {sentence}");
    ExitCode::from(status)
}

fn run(cli: &Cli) -> Result<(), End> {
    let mut out = io::stdout().lock();
    match cli.command_or_serve() {
        Command::Serve => {
            let config = load_config(cli)?;
            logger::install(config.log_enabled);
            Ok(serve::serve(&config)?)
        }
        Command::Drain(args) => {
            let config = load_config(cli)?;
            logger::install(config.log_enabled);
            Ok(drain::drain(&args, &config)?)
        }
        Command::Check => Ok(check::print(&load_config(cli)?, &mut out)?),
        Command::ImportConfig(args) => {
            let text = args.import().map_err(|error| End::CannotStart(error.to_string()))?;
            Ok(out.write_all(text.as_bytes())?)
        }
        Command::Hashdist(args) => Ok(hashdist::run(&args, &load_config(cli)?, &mut io::stdin().lock(), &mut out)?),
        Command::Encrypt(args) => Ok(args.encrypt(&mut io::stdin().lock(), &mut out)?),
        Command::Decrypt(args) => {
            args.decrypt(&mut io::stdin().lock(), &mut out)?.map_err(|e| End::Failed(e.to_string()))
        }
        Command::Load(args) => load::main(&args, &*stop_flag()?).map_err(End::Status),
        Command::Sink(args) => Ok(sink::main(&args, &mut out, &*stop_flag()?)?),
        Command::Demo(args) => demo::main(&args, &*stop_flag()?).map_err(End::Status),
        Command::Log(args) => match log_files::run(&args, &mut out).map_err(End::Failed)? {
            true => Ok(()),
            // The damage was printed.
            false => Err(End::Status(1)),
        },
        Command::Migrate(args) => migrate::main(&args, &*stop_flag()?, &mut out).map_err(|failure| match failure {
            migrate::MigrateFailure::NotBegun(sentence) => End::CannotStart(sentence),
            migrate::MigrateFailure::NotDone(sentence) => End::Failed(sentence),
            migrate::MigrateFailure::Interrupted => End::Status(INTERRUPTED as u8),
        }),
    }
}

/// A flag that the first SIGTERM or SIGINT sets; the second one ends the process at once.
fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order, so that the first signal finds the flag not set.
        flag::register_conditional_shutdown(signal, INTERRUPTED, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

fn load_config(cli: &Cli) -> Result<Config, End> {
    config::load(&cli.config).map_err(|error| End::CannotStart(error.to_string()))
}

//! Runs the command that the command line names. Exit status: 0 done, 1 the work failed, 2 it could not be started,
//! 130 a second signal, 141 nobody reads the output any more.

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
/// Exit status when the reader of the output has gone, as in `fluxgate log cat | head`: what a shell reports for
/// SIGPIPE. Not 0: the output may have been cut where it mattered.
const OUTPUT_CUT: u8 = 141;

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
        Self::Failed(error.to_string())
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

/// Standard output of a command.
struct Output {
    to: io::StdoutLock<'static>,
    /// The reader has gone. Whatever the command makes of that error, this says how it ends.
    is_cut: bool,
}

impl Output {
    fn note<T>(&mut self, done: io::Result<T>) -> io::Result<T> {
        self.is_cut |= done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        done
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let done = self.to.write(bytes);
        self.note(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        let done = self.to.flush();
        self.note(done)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::parse_from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => answer.exit(),
    };
    let mut out = Output { to: io::stdout().lock(), is_cut: false };
    let done = run(&cli, &mut out).and_then(|()| Ok(out.flush()?));
    if out.is_cut {
        return ExitCode::from(OUTPUT_CUT);
    }
    let (sentence, status) = match done {
        Ok(()) => return ExitCode::SUCCESS,
        Err(End::CannotStart(sentence)) => (sentence, 2),
        Err(End::Failed(sentence)) => (sentence, 1),
        Err(End::Status(status)) => return ExitCode::from(status),
    };
    // If standard error is closed, there is nobody to tell.
    let _ = writeln!(io::stderr(), "fluxgate: {sentence}");
    ExitCode::from(status)
}

fn run(cli: &Cli, out: &mut Output) -> Result<(), End> {
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
        Command::Check => Ok(check::print(&load_config(cli)?, out)?),
        Command::ImportConfig(args) => {
            let text = args.import().map_err(|error| End::CannotStart(error.to_string()))?;
            Ok(out.write_all(text.as_bytes())?)
        }
        Command::Hashdist(args) => Ok(hashdist::run(&args, &load_config(cli)?, &mut io::stdin().lock(), out)?),
        Command::Encrypt(args) => Ok(args.encrypt(&mut io::stdin().lock(), out)?),
        Command::Decrypt(args) => args.decrypt(&mut io::stdin().lock(), out)?.map_err(|e| End::Failed(e.to_string())),
        Command::Load(args) => told(load::main(&args, &*stop_flag()?, out).map_err(End::CannotStart)??),
        Command::Sink(args) => Ok(sink::main(&args, out, &*stop_flag()?)?),
        Command::Demo(args) => {
            told(demo::main(&args, &*stop_flag()?, out).map_err(|error| End::CannotStart(error.to_string()))?)
        }
        Command::Log(args) => told(log_files::run(&args, out).map_err(End::Failed)?),
        Command::Migrate(args) => migrate::main(&args, &*stop_flag()?, out).map_err(|failure| match failure {
            migrate::MigrateFailure::NotBegun(sentence) => End::CannotStart(sentence),
            migrate::MigrateFailure::NotDone(sentence) => End::Failed(sentence),
            migrate::MigrateFailure::Interrupted => End::Status(INTERRUPTED as u8),
        }),
    }
}

/// The end of a command that has printed what it found.
fn told(is_good: bool) -> Result<(), End> {
    if is_good { Ok(()) } else { Err(End::Status(1)) }
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

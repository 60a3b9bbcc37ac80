//! The command line: what may be asked of the program, and the help that teaches it.
//!
//! influx-proxy's own spelling works too: Go programs take long options with one dash, so `-config FILE` and `-version`
//! are read as `--config FILE` and `--version`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::hashdist::HashdistArgs;
use crate::commands::log_files::LogArgs;
use crate::commands::migrate::MigrateArgs;
use crate::commands::secret::TextArgs;
use crate::lab::demo::DemoArgs;
use crate::lab::load::LoadArgs;
use crate::lab::sink::SinkArgs;

/// Replicates and shards InfluxDB line protocol over several InfluxDB 1.x servers, and loses none of it.
///
/// Without a command it serves. It takes influx-proxy's configuration files (2.4 and 2.5; JSON, TOML or YAML) unchanged.
#[derive(Parser, Clone, Debug, PartialEq)]
#[command(name = "fluxgate", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Configuration file: .toml, .yaml or .yml, else JSON. Also -config FILE.
    #[arg(long, global = true, value_name = "FILE", default_value = "proxy.json")]
    pub config: PathBuf,

    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  fluxgate -config proxy.json            serve with this configuration
  fluxgate check -config proxy.json      say what it means, start nothing
  fluxgate hashdist --count 5000         how evenly 5000 measurements would spread
  echo s3cret | fluxgate encrypt         a password for a file with auth_encrypt";

#[derive(Subcommand, Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT (this is also what happens without a command).
    Serve,

    /// Validate the configuration and print what it means, with each backend's share of the data.
    ///
    /// Prints circles, backends with their expected share in percent, and every key with its value, defaults filled in
    /// and passwords as ***. Starts nothing and asks no backend. Exit status 2 and one sentence naming file, line and key
    /// when the file is not valid.
    #[command(
        after_help = "Example:\n  fluxgate check --config /etc/fluxgate/proxy.toml && systemctl restart fluxgate"
    )]
    Check,

    /// Show how measurement names spread over the backends.
    ///
    /// Places names as a server with this configuration would. Use it before choosing hash_key, shard_key or hash, and
    /// before adding a backend. Names are plain, not escaped as in line protocol.
    #[command(after_help = "\
Examples:
  fluxgate hashdist                                10000 made-up names
  fluxgate hashdist --db telegraf cpu mem disk     where these three go
  influx -database telegraf -format csv -execute 'SHOW MEASUREMENTS' | tail -n +2 | cut -d, -f2 |
    fluxgate hashdist --db telegraf --stdin        how the existing ones would spread")]
    Hashdist(HashdistArgs),

    /// Write numbered, Telegraf-like points as fast as wanted, and prove what became of them.
    ///
    /// Prints points/s, MB/s, latency percentiles and errors by kind. Exit status 1 when any request failed.
    #[command(after_help = "\
Examples:
  fluxgate load --create-db --seconds 10
  fluxgate load --lines 1 --connections 64 --rate 20000 --seconds 30 --json")]
    Load(Box<LoadArgs>),

    /// Show the main job in half a minute: load, a backend killed and brought back, every point accounted for.
    ///
    /// Starts two circles of two backends (real influxd where it is installed, built-in stand-ins otherwise) and a proxy, all
    /// on free loopback ports and in temporary directories. Exit status 0 only if nothing is missing.
    Demo(DemoArgs),

    /// Look into the logs of a data directory, also of a running proxy.
    Log(LogArgs),

    /// Move and repair data through a running proxy, and watch it do so.
    ///
    /// The proxy does the work, while it goes on serving: the command begins it, shows its progress and tells how it ended.
    /// Interrupted, the command ends and the work goes on (`migrate watch`); stop it with `migrate cancel`.
    ///
    /// Exit status: 0 done, 1 failed or cancelled (each error is listed), 2 it could not begin, or the proxy is not there,
    /// 130 interrupted.
    Migrate(Box<MigrateArgs>),

    /// Encrypt a user name or password for a file with auth_secure or auth_encrypt.
    ///
    /// influx-proxy's cipher. Its key is public, so that it hides a password from a glance, not from anyone who wants it; with --key it is
    /// as secret as that key, which stands in the same file.
    #[command(after_help = "Example:\n  echo s3cret | fluxgate encrypt")]
    Encrypt(TextArgs),

    /// Decrypt what `encrypt` or influx-proxy made.
    #[command(after_help = "Example:\n  fluxgate decrypt YgvEyuPZlDYAH8sGDkC!Ag")]
    Decrypt(TextArgs),

    /// Serve as InfluxDB stand-ins that throw everything away, for benchmarks.
    #[command(hide = true)]
    Sink(SinkArgs),
}

impl Cli {
    /// Reads the arguments, the program's name first. The error is what to print, help and version included; its
    /// `exit()` prints it and ends with the right status.
    pub fn parse_from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut definition = definition();
        let matches = definition.try_get_matches_from_mut(args.into_iter().map(two_dashes))?;
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))
    }

    /// What is to be done.
    pub fn command_or_serve(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

/// The command line as defined; `--config` goes with any command, and is shown where it has a meaning.
fn definition() -> clap::Command {
    let mut whole = Cli::command();
    // Hands it down to all commands.
    whole.build();
    whole.mut_subcommands(|command| match command.get_name() {
        "serve" | "check" | "hashdist" => command,
        _ => without_config(command),
    })
}

fn without_config(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| if arg.get_id() == "config" { arg.hide(true) } else { arg }).mut_subcommands(without_config)
}

/// Gives Go's one-dash form of the options influx-proxy has its second dash.
fn two_dashes(arg: OsString) -> OsString {
    let name = arg.to_str().and_then(|text| text.strip_prefix('-')).map(|text| text.split('=').next().unwrap_or(text));
    match name {
        Some("config" | "version" | "help") => {
            let mut two = OsString::from("-");
            two.push(arg);
            two
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::parse_from_args(line.split(' ').map(OsString::from))
    }

    #[test]
    fn one_dash_and_two_dashes_mean_the_same_before_and_after_a_command() {
        for (line, config, command) in [
            ("fluxgate", "proxy.json", Command::Serve),
            ("fluxgate serve", "proxy.json", Command::Serve),
            ("fluxgate -config a.toml", "a.toml", Command::Serve),
            ("fluxgate -config=a.toml", "a.toml", Command::Serve),
            ("fluxgate --config a.toml", "a.toml", Command::Serve),
            ("fluxgate --config=a=b.toml check", "a=b.toml", Command::Check),
            ("fluxgate check -config a.toml", "a.toml", Command::Check),
            (
                "fluxgate encrypt -x",
                "proxy.json",
                Command::Encrypt(TextArgs { text: Some("-x".to_owned()), key: None }),
            ),
            ("fluxgate decrypt", "proxy.json", Command::Decrypt(TextArgs::default())),
        ] {
            let cli = parse(line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert_eq!((cli.config.to_str(), cli.command_or_serve()), (Some(config), command), "{line}");
        }
    }

    #[test]
    fn hashdist_takes_names_a_count_or_standard_input_but_one_of_them() {
        let args = |line: &str| match parse(line).map(|cli| cli.command_or_serve()) {
            Ok(Command::Hashdist(args)) => Ok(args),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.kind()),
        };
        let default = HashdistArgs { db: "db".to_owned(), count: 10_000, ..Default::default() };
        assert_eq!(args("fluxgate hashdist"), Ok(default.clone()));
        assert_eq!(args("fluxgate hashdist --count 5"), Ok(HashdistArgs { count: 5, ..default.clone() }));
        let names = vec!["cpu".to_owned(), "mem".to_owned()];
        assert_eq!(args("fluxgate hashdist cpu mem"), Ok(HashdistArgs { names, ..default }));
        for line in
            ["fluxgate hashdist --count 5 cpu", "fluxgate hashdist --stdin cpu", "fluxgate hashdist --stdin --count 5"]
        {
            assert_eq!(args(line), Err(clap::error::ErrorKind::ArgumentConflict), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_answers_not_errors() {
        for (line, shows) in [
            ("fluxgate -version", env!("CARGO_PKG_VERSION")),
            ("fluxgate -help", "fluxgate check -config proxy.json"),
            ("fluxgate -h", "Examples:"),
            ("fluxgate check --help", "Example:"),
            ("fluxgate hashdist --help", "--stdin"),
        ] {
            let answer = parse(line).expect_err(line);
            assert_eq!(answer.exit_code(), 0, "{line}");
            assert!(answer.to_string().contains(shows), "{line}: {answer}");
        }
        assert_eq!(parse("fluxgate -confg x").expect_err("a mistake").exit_code(), 2);
    }

    #[test]
    fn config_is_shown_where_it_has_a_meaning_and_taken_everywhere() {
        for (line, shown) in [
            ("fluxgate -help", true),
            ("fluxgate check -help", true),
            ("fluxgate load -help", false),
            ("fluxgate migrate recovery -help", false),
        ] {
            assert_eq!(parse(line).expect_err(line).to_string().contains("--config"), shown, "{line}");
        }
        let load = parse("fluxgate load --seconds 1 -config a.toml").expect("one word for all commands");
        assert_eq!(load.config.to_str(), Some("a.toml"));
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn encrypt_and_decrypt_take_the_key_of_the_file() {
        let Ok(Command::Encrypt(args)) =
            parse("fluxgate encrypt --key 0123456789abcdef admin").map(|c| c.command_or_serve())
        else {
            panic!("not encrypt")
        };
        let (mut cipher, mut text) = (Vec::new(), Vec::new());
        args.encrypt(&mut &b""[..], &mut cipher).expect("memory takes all");
        assert_ne!(cipher, b"YgvEyuPZlDYAH8sGDkC!Ag\n");
        let same_key = TextArgs { text: None, ..args };
        assert_eq!(same_key.decrypt(&mut &cipher[..], &mut text).expect("memory takes all"), Ok(()));
        assert_eq!(text, b"admin\n");
        let wrong = parse("fluxgate decrypt --key short x").expect_err("a short key").to_string();
        assert!(wrong.contains("a key is 16 bytes long, not 5"), "{wrong}");
    }
}

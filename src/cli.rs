//! The command line: commands, options shared by all, and help texts.
//!
//! influx-proxy's own spelling works too: Go programs take long options with one dash, so `-config FILE` and `-version`
//! are read as `--config FILE` and `--version`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::hashdist::HashdistArgs;
use crate::commands::import_config::ImportArgs;
use crate::commands::log_files::LogArgs;
use crate::commands::migrate::MigrateArgs;
use crate::commands::secret::TextArgs;
use crate::lab::demo::DemoArgs;
use crate::lab::load::LoadArgs;
use crate::lab::sink::SinkArgs;
use crate::serve::drain::DrainArgs;

/// Replicates and shards InfluxDB line protocol over several InfluxDB 1.x servers, and loses none of it.
///
/// Without a command it runs the proxy. It reads the configuration files of influx-proxy 2.4 and 2.5 (JSON, TOML or
/// YAML) unchanged.
#[derive(Parser, Clone, Debug, PartialEq)]
#[command(name = "fluxgate", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Configuration file: TOML (.toml), YAML (.yaml, .yml) or JSON (any other ending). Also -config FILE.
    #[arg(long, global = true, value_name = "FILE", default_value = "proxy.json")]
    pub config: PathBuf,

    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  fluxgate -config proxy.json            run the proxy with this configuration
  fluxgate check -config proxy.json      check the file and print every setting
  fluxgate hashdist --count 5000         how evenly 5000 measurements would spread
  echo s3cret | fluxgate encrypt         encrypt a password for a file with auth_encrypt";

#[derive(Subcommand, Clone, Debug, PartialEq)]
pub enum Command {
    /// Run the proxy until SIGTERM or SIGINT. This is the default without a command.
    Serve,

    /// Deliver what is in the logs, take nothing new, and end: before you go back to influx-proxy.
    ///
    /// Starts with the same configuration as the proxy, which must have been stopped, but serves no client. The exit
    /// status is 0 when every backend has got everything, and 1 when points are left, which stay in the logs, or cache
    /// files of influx-proxy that could not be imported.
    #[command(after_help = "\
Example, in the folder and as the user of the service:
  systemctl stop fluxgate
  cd /var/lib/fluxgate && sudo -u fluxgate fluxgate drain --config /etc/fluxgate/proxy.toml")]
    Drain(DrainArgs),

    /// Check the configuration and print every setting, with each backend's share of the data.
    ///
    /// Prints the circles, their backends with the expected share of the data in percent, and the value of every key,
    /// defaults included. Passwords are shown as ***. Nothing is started and no backend is contacted. If the file is
    /// not valid, one sentence names file, line and key, and the exit status is 2.
    #[command(
        after_help = "Example:\n  fluxgate check --config /etc/fluxgate/proxy.toml && systemctl restart fluxgate"
    )]
    Check,

    /// Write a configuration file of influx-proxy or influxdb-relay as a commented one of fluxgate's, in TOML.
    ///
    /// Prints it to standard output, with a note for what is taken otherwise or has no counterpart. fluxgate takes the
    /// files of influx-proxy as they are: this is for those who want to go on with a file of fluxgate's.
    #[command(after_help = "Example:\n  fluxgate import-config relay.toml > fluxgate.toml")]
    ImportConfig(ImportArgs),

    /// Show how measurement names spread over the backends.
    ///
    /// Distributes names as a proxy with this configuration does. Use it before you choose hash_key, shard_key or hash,
    /// and before you add a backend. Write names plainly, without the escapes of line protocol.
    #[command(after_help = "\
Examples:
  fluxgate hashdist                                10000 generated names
  fluxgate hashdist --list --db telegraf cpu mem   where these two go
  influx -database telegraf -format csv -execute 'SHOW MEASUREMENTS' | tail -n +2 | cut -d, -f2 |
    fluxgate hashdist --db telegraf --stdin        how the existing ones would spread")]
    Hashdist(HashdistArgs),

    /// Generate load: write numbered points, and report how many were acknowledged and how fast.
    ///
    /// Prints points/s, MB/s, latency percentiles and errors by kind. The exit status is 1 if a request failed.
    #[command(after_help = "\
Examples:
  fluxgate load --create-db --seconds 10
  fluxgate load --lines 1 --connections 64 --rate 20000 --seconds 30 --json")]
    Load(Box<LoadArgs>),

    /// Run a demo of half a minute: kill a backend under load, bring it back, and check that no point is lost.
    ///
    /// Starts two circles of two backends (real influxd if it is installed, else built-in stand-ins) and a proxy, all
    /// on free loopback ports and in temporary directories. The exit status is 0 only if no point is missing.
    Demo(DemoArgs),

    /// Inspect the logs in a data directory. Works while the proxy is running.
    Log(LogArgs),

    /// Move and repair data in a running proxy: start migrations, watch and control them.
    ///
    /// The proxy does the work and keeps serving meanwhile. The command starts the migration, shows its progress, and
    /// reports how it ended. If you interrupt the command, the migration continues: `migrate watch` shows it again,
    /// `migrate cancel` stops it.
    ///
    /// Exit status: 0 done, 1 failed or cancelled (each error is listed), 2 it could not start or the proxy does not
    /// answer, 130 interrupted, 141 nobody reads the output any more (the migration continues).
    Migrate(Box<MigrateArgs>),

    /// Encrypt a user name or password for a file with auth_secure or auth_encrypt.
    ///
    /// Uses influx-proxy's cipher. Its key is public, so that anyone can decrypt the result. With --key, only those who
    /// know that key can; it stands in the same configuration file.
    #[command(after_help = "Example:\n  echo s3cret | fluxgate encrypt")]
    Encrypt(TextArgs),

    /// Decrypt a text that `encrypt` or influx-proxy has encrypted.
    #[command(after_help = "Example:\n  fluxgate decrypt YgvEyuPZlDYAH8sGDkC!Ag")]
    Decrypt(TextArgs),

    /// Serve as stand-ins for InfluxDB that discard all data, for benchmarks.
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

    /// The command; `serve` when none is given.
    pub fn command_or_serve(&self) -> Command {
        self.command.clone().unwrap_or(Command::Serve)
    }
}

/// The command line. Every command accepts `--config`; only the help of those that read it shows it.
fn definition() -> clap::Command {
    let mut whole = Cli::command();
    // Hands it down to all commands.
    whole.build();
    whole.mut_subcommands(|command| match command.get_name() {
        "serve" | "check" | "drain" | "hashdist" => command,
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

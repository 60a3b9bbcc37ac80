//! The arguments of `fluxgate migrate`, and the request to the proxy that each command becomes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What RFC 3986 calls unreserved stays as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  fluxgate migrate rebalance --circle 0               after a backend was added to circle 0 and the proxy restarted
  fluxgate migrate recovery --from 0 --to 1           circle 1 lost data: it gets what circle 0 has
  fluxgate migrate resync --hours 6                   each circle gets what the others have of the last six hours
  fluxgate migrate clear --circle 0                   after a rebalance: remove the old copies
  fluxgate migrate --watch                            show the running migration
  fluxgate migrate jobs --url http://proxy-2:7076     list another proxy's migrations"
)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub proxy: ProxyArgs,

    /// Show the running migration; the same as `migrate watch`.
    #[arg(long)]
    pub watch: bool,

    #[command(subcommand)]
    pub what: Option<MigrateCommand>,
}

/// Where the proxy is.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ProxyArgs {
    /// URL of the running proxy.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "URL", value_parser = proxy_url)]
    #[arg(default_value = "http://127.0.0.1:7076")]
    pub url: String,

    /// User name, if the proxy requires one.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "NAME")]
    pub user: Option<String>,

    /// Password; better in the environment variable FLUXGATE_PASSWORD, since other users can see arguments.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "PASSWORD")]
    pub password: Option<Password>,

    /// PEM file with the certificate authorities to trust for an https proxy, instead of the system's.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Do not verify the certificate of an https proxy.
    #[arg(long, global = true, help_heading = "Proxy", conflicts_with = "ca_file")]
    pub insecure: bool,
}

/// `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum MigrateCommand {
    /// Move each measurement of a circle to the backend that owns it now.
    ///
    /// Use it after a change of the circle's backends: change the configuration, restart the proxy, then rebalance.
    /// Each measurement is copied and verified; then the proxy reads and writes it at its new place. Nothing is
    /// removed: run `clear` afterwards.
    #[command(after_help = "\
Examples:
  fluxgate migrate rebalance --circle 0 --rate 20M                          a backend was added, or is `leaving`
  fluxgate migrate rebalance --circle 0 --remove old=http://10.0.0.7:8086   a backend was removed from the file
  fluxgate migrate rebalance --circle 0 --remove-file old.json              the same, with user and password")]
    Rebalance(RebalanceArgs),

    /// Copy the data of one circle to another one, or to some of its backends.
    ///
    /// Use it for a backend that lost its data, or for a new circle. Existing points stay; nothing is removed.
    #[command(after_help = "\
Examples:
  fluxgate migrate recovery --from 0 --to 1
  fluxgate migrate recovery --from 0 --to 1 --backend-url http://10.0.0.9:8086 --db telegraf")]
    Recovery(RecoveryArgs),

    /// Copy missing points between all circles.
    ///
    /// Use it when circles differ and none of them is known to be complete. Without --days, --hours, --minutes,
    /// --seconds or --since it covers all time.
    #[command(after_help = "Example:\n  fluxgate migrate resync --days 1 --hours 12 --rate 20M")]
    Resync(ResyncArgs),

    /// Remove measurements from those backends of a circle that do not own them any more.
    ///
    /// Use it after a rebalance. A measurement is removed only if all of its points are found at its owner. If one is
    /// missing there, nothing is removed, and the migration fails and names the measurement.
    #[command(after_help = "Example:\n  fluxgate migrate clear --circle 0")]
    Clear(ClearArgs),

    /// Show the progress of a migration until it ends.
    #[command(after_help = "Examples:\n  fluxgate migrate watch      the running one\n  fluxgate migrate watch 3")]
    Watch {
        /// Number of the migration, from `migrate jobs`. Without it, the running one.
        id: Option<u64>,
    },

    /// List the running migrations and those that ended last.
    #[command(after_help = "Example:\n  fluxgate migrate jobs")]
    Jobs,

    /// Pause a migration. It stays paused when the proxy restarts.
    #[command(after_help = "Example:\n  fluxgate migrate pause 3")]
    Pause {
        /// Number of the migration, from `migrate jobs`.
        id: u64,
    },

    /// Resume a paused migration.
    #[command(after_help = "Example:\n  fluxgate migrate resume 3")]
    Resume {
        /// Number of the migration, from `migrate jobs`.
        id: u64,
    },

    /// Cancel a migration. What it has copied stays.
    #[command(after_help = "Example:\n  fluxgate migrate cancel 3")]
    Cancel {
        /// Number of the migration, from `migrate jobs`.
        id: u64,
    },
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RebalanceArgs {
    /// Number of the circle, from 0, or its name.
    #[arg(long, value_name = "CIRCLE")]
    pub circle: String,

    /// What changed in the circle. --remove and --remove-file imply `rm`.
    #[arg(long, value_name = "OPERATION")]
    pub operation: Option<Operation>,

    /// A backend that is not in the configuration any more; all of its data is moved. May be repeated.
    #[arg(long, value_name = "NAME=URL", value_parser = removed)]
    pub remove: Vec<Value>,

    /// The same as a JSON file in influx-proxy's form: {"backends": [{"name", "url", "username", "password"}]}.
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    pub remove_file: Option<PathBuf>,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add,
    Rm,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RecoveryArgs {
    /// Number of the circle to copy from, from 0, or its name.
    #[arg(long, value_name = "CIRCLE")]
    pub from: String,

    /// Number or name of the circle to copy to.
    #[arg(long, value_name = "CIRCLE")]
    pub to: String,

    /// Copy only to this backend, given by its url in the configuration. May be repeated.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub backend_url: Vec<String>,

    /// Only points at or after this time, in seconds since 1970-01-01 UTC.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<u64>,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ResyncArgs {
    /// Only points of the last N days. --days, --hours, --minutes and --seconds add up.
    #[arg(long, value_name = "N")]
    pub days: Option<u64>,

    /// Only points of the last N hours.
    #[arg(long, value_name = "N")]
    pub hours: Option<u64>,

    /// Only points of the last N minutes.
    #[arg(long, value_name = "N")]
    pub minutes: Option<u64>,

    /// Only points of the last N seconds.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,

    /// Only points at or after this time, in seconds since 1970-01-01 UTC.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<u64>,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ClearArgs {
    /// Number of the circle, from 0, or its name.
    #[arg(long, value_name = "CIRCLE")]
    pub circle: String,

    #[command(flatten)]
    pub common: CommonArgs,
}

/// Arguments of all commands that start a migration.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonArgs {
    /// Only this database. May be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub db: Vec<String>,

    /// Number of measurements to copy in parallel [default: 1].
    #[arg(long, value_name = "N")]
    pub cpus: Option<u64>,

    /// Limit in bytes of line protocol per second for the whole migration, as in 20M (k, M or G).
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub rate: Option<u64>,

    /// All proxies in front of these backends, as host:port with commas between. They are told of the migration.
    #[arg(long, value_name = "ADDRS")]
    pub ha_addrs: Option<String>,

    /// Start the migration, print its number, and do not wait for its end.
    #[arg(long)]
    pub detach: bool,
}

/// The number of the circle that an argument names, as text.
pub type CircleNumber<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

/// The request that starts a migration: POST this target with this body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub target: String,
    /// JSON, or empty.
    pub body: String,
}

impl CommonArgs {
    fn order<'a>(&self, path: &str, own: impl IntoIterator<Item = (&'a str, Option<String>)>, body: String) -> Order {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let common = [
            ("db", (!self.db.is_empty()).then(|| self.db.join(","))),
            ("cpus", number(self.cpus)),
            ("rate", number(self.rate)),
            ("ha_addrs", self.ha_addrs.clone()),
        ];
        let given = own.into_iter().chain(common).filter_map(|(name, value)| Some((name, value?)));
        let encoded = |value: &str| utf8_percent_encode(value, RESERVED).to_string();
        let parameters: Vec<_> = given.map(|(name, value)| format!("{name}={}", encoded(&value))).collect();
        Order { target: format!("{path}?{}", parameters.join("&")), body }
    }
}

impl RebalanceArgs {
    /// # Errors
    /// One sentence, when the options contradict each other or the file cannot be read.
    pub fn order(&self, number: &CircleNumber<'_>) -> Result<Order, String> {
        let removed = match &self.remove_file {
            Some(file) => {
                let text =
                    std::fs::read_to_string(file).map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
                Some(text)
            }
            None if self.remove.is_empty() => None,
            None => Some(json!({ "backends": self.remove }).to_string()),
        };
        let (operation, body) = match (self.operation, removed) {
            (None | Some(Operation::Add), None) => ("add", String::new()),
            (None | Some(Operation::Rm), Some(body)) => ("rm", body),
            (Some(Operation::Rm), None) => {
                return Err("--operation rm needs the removed backends: --remove or --remove-file".to_owned());
            }
            (Some(Operation::Add), Some(_)) => {
                return Err("--operation add takes no removed backends".to_owned());
            }
        };
        let own = [("circle_id", Some(number(&self.circle)?)), ("operation", Some(operation.to_owned()))];
        Ok(self.common.order("/rebalance", own, body))
    }
}

impl RecoveryArgs {
    /// # Errors
    /// One sentence, when there is no such circle.
    pub fn order(&self, number: &CircleNumber<'_>) -> Result<Order, String> {
        let own = [
            ("from_circle_id", Some(number(&self.from)?)),
            ("to_circle_id", Some(number(&self.to)?)),
            ("backend_urls", (!self.backend_url.is_empty()).then(|| self.backend_url.join(","))),
            ("since", self.since.map(|seconds| seconds.to_string())),
        ];
        Ok(self.common.order("/recovery", own, String::new()))
    }
}

impl ResyncArgs {
    pub fn order(&self) -> Order {
        let own = [
            ("days", self.days),
            ("hours", self.hours),
            ("minutes", self.minutes),
            ("seconds", self.seconds),
            ("since", self.since),
        ];
        let own = own.map(|(name, number)| (name, number.map(|number| number.to_string())));
        self.common.order("/resync", own, String::new())
    }
}

impl ClearArgs {
    /// # Errors
    /// One sentence, when there is no such circle.
    pub fn order(&self, number: &CircleNumber<'_>) -> Result<Order, String> {
        Ok(self.common.order("/clear", [("circle_id", Some(number(&self.circle)?))], String::new()))
    }
}

fn proxy_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host.map(|host| host.trim_end_matches('/')) {
        // A user name in the URL would be shown in messages.
        Some(host) if !host.is_empty() && !host.contains(['@', '?', '#']) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write http://host:port or https://host:port".to_owned()),
    }
}

fn removed(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && url.starts_with("http") => Ok(json!({ "name": name, "url": url })),
        _ => Err("write NAME=URL, as in influxdb-1-3=http://10.0.0.7:8086".to_owned()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.filter(|&bytes| bytes > 0).ok_or_else(|| "write bytes per second, as in 500000, 20M or 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: MigrateArgs,
    }

    fn parse(line: &str) -> Result<MigrateArgs, clap::Error> {
        Alone::try_parse_from(std::iter::once("migrate").chain(line.split(' '))).map(|alone| alone.args)
    }

    fn order(line: &str) -> Result<Order, String> {
        let same = |circle: &str| Ok(circle.to_owned());
        match parse(line).map_err(|e| e.to_string())?.what {
            Some(MigrateCommand::Rebalance(args)) => args.order(&same),
            Some(MigrateCommand::Recovery(args)) => args.order(&same),
            Some(MigrateCommand::Resync(args)) => Ok(args.order()),
            Some(MigrateCommand::Clear(args)) => args.order(&same),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_become_the_parameters_of_the_endpoint() {
        for (line, target, body) in [
            ("rebalance --circle 0", "/rebalance?circle_id=0&operation=add", ""),
            (
                "rebalance --circle 1 --remove a=http://h:1 --remove b=http://h:2 --rate 20M",
                "/rebalance?circle_id=1&operation=rm&rate=20000000",
                r#"{"backends":[{"name":"a","url":"http://h:1"},{"name":"b","url":"http://h:2"}]}"#,
            ),
            (
                "recovery --from 0 --to 1 --backend-url http://h:1 --backend-url http://h:2 --since 5 --db a --db b&c \
                 --cpus 2",
                "/recovery?from_circle_id=0&to_circle_id=1&backend_urls=http%3A%2F%2Fh%3A1%2Chttp%3A%2F%2Fh%3A2&since=5\
                 &db=a%2Cb%26c&cpus=2",
                "",
            ),
            ("resync --days 1 --seconds 5", "/resync?days=1&seconds=5", ""),
            (
                "clear --circle 0 --ha-addrs a:1,b:2 --rate 5k",
                "/clear?circle_id=0&rate=5000&ha_addrs=a%3A1%2Cb%3A2",
                "",
            ),
        ] {
            let want = Order { target: target.to_owned(), body: body.to_owned() };
            assert_eq!(order(line), Ok(want), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for (line, hint) in [
            ("rebalance", "--circle"),
            ("rebalance --circle 0 --operation rm", "--remove-file"),
            ("rebalance --circle 0 --operation add --remove a=http://h:1", "takes no removed backends"),
            ("rebalance --circle 0 --remove http://h:1", "write NAME=URL"),
            ("rebalance --circle 0 --remove-file /nonexistent", "cannot be read"),
            ("clear --circle 0 --rate 0", "20M"),
            ("clear --circle 0 --rate 99999999999G", "20M"),
            ("jobs --url proxy:7076", "write http://host:port"),
            ("jobs --url http://user:pw@proxy:7076", "write http://host:port"),
        ] {
            let refused = order(line).expect_err(line);
            assert!(refused.contains(hint), "{line}: {refused}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let args = parse("jobs --user u --password geheim --url http://h:1/").unwrap();
        assert_eq!(args.proxy.password, Some(Password("geheim".to_owned())));
        assert_eq!(args.proxy.url, "http://h:1");
        assert!(!format!("{args:?}").contains("geheim"));
    }
}

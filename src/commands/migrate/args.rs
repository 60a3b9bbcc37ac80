//! What `fluxgate migrate` may be asked, and the request to the proxy that each question becomes.

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
  fluxgate migrate clear --circle 0                   after a rebalance: remove what lies at its old place
  fluxgate migrate --watch                            attach to the one that is under way
  fluxgate migrate jobs --url http://proxy-2:7076     what another proxy has done and does"
)]
pub struct MigrateArgs {
    #[command(flatten)]
    pub proxy: ProxyArgs,

    /// Attach to the migration that is under way: short for `migrate watch`.
    #[arg(long)]
    pub watch: bool,

    #[command(subcommand)]
    pub what: Option<MigrateCommand>,
}

/// Where the proxy is.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ProxyArgs {
    /// The running proxy.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "URL", default_value = "http://127.0.0.1:7076", value_parser = proxy_url)]
    pub url: String,

    /// Its user, where it has one.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "NAME")]
    pub user: Option<String>,

    /// Its password; better in the environment as FLUXGATE_PASSWORD (other users can see arguments).
    #[arg(long, global = true, help_heading = "Proxy", value_name = "PASSWORD")]
    pub password: Option<Password>,

    /// PEM file of the authorities to verify an https proxy with, instead of the system's.
    #[arg(long, global = true, help_heading = "Proxy", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Believe whatever certificate an https proxy shows.
    #[arg(long, global = true, help_heading = "Proxy", conflicts_with = "ca_file")]
    pub insecure: bool,
}

/// Shows itself to nobody.
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
    /// Bring everything in a circle to the backend that owns it now.
    ///
    /// For after the circle's backends have changed: change the configuration, restart the proxy, then rebalance. Each
    /// measurement is copied and verified; reads and writes change over by themselves. Nothing is removed: `clear` does
    /// that afterwards.
    #[command(after_help = "\
Examples:
  fluxgate migrate rebalance --circle 0 --rate 20M                          a backend was added, or is `leaving`
  fluxgate migrate rebalance --circle 0 --remove old=http://10.0.0.7:8086   one was taken out of the file already
  fluxgate migrate rebalance --circle 0 --remove-file old.json              the same, with user and password")]
    Rebalance(RebalanceArgs),

    /// Give a circle, or some of its backends, what another circle has.
    ///
    /// For a backend that lost its data, or a new circle. Points that are there stay; nothing is removed.
    #[command(after_help = "\
Examples:
  fluxgate migrate recovery --from 0 --to 1
  fluxgate migrate recovery --from 0 --to 1 --backend-url http://10.0.0.9:8086 --db telegraf")]
    Recovery(RecoveryArgs),

    /// Give every circle what the others have.
    ///
    /// For circles that differ and nobody knows which one is right about what. Without days, hours, minutes, seconds or
    /// since, over all time.
    #[command(after_help = "Example:\n  fluxgate migrate resync --days 1 --hours 12 --rate 20M")]
    Resync(ResyncArgs),

    /// Remove from the backends of a circle what another one of its backends owns, and has.
    ///
    /// For after a rebalance. A measurement is removed only where all of its points are found at its owner; where one is
    /// missing, nothing is removed and the migration fails with its name.
    #[command(after_help = "Example:\n  fluxgate migrate clear --circle 0")]
    Clear(ClearArgs),

    /// Attach to a migration and show its progress to the end.
    #[command(after_help = "Examples:\n  fluxgate migrate watch      the one under way\n  fluxgate migrate watch 3")]
    Watch {
        /// Its number, as `migrate jobs` shows it; without it, the one that is under way.
        id: Option<u64>,
    },

    /// List the migrations under way and the last that have ended.
    #[command(after_help = "Example:\n  fluxgate migrate jobs")]
    Jobs,

    /// Let a migration rest, also over restarts of the proxy.
    #[command(after_help = "Example:\n  fluxgate migrate pause 3")]
    Pause {
        /// Its number, as `migrate jobs` shows it.
        id: u64,
    },

    /// Let a paused migration go on.
    #[command(after_help = "Example:\n  fluxgate migrate resume 3")]
    Resume {
        /// Its number, as `migrate jobs` shows it.
        id: u64,
    },

    /// End a migration; what it has copied stays.
    #[command(after_help = "Example:\n  fluxgate migrate cancel 3")]
    Cancel {
        /// Its number, as `migrate jobs` shows it.
        id: u64,
    },
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct RebalanceArgs {
    /// Number of the circle, the first is 0.
    #[arg(long, value_name = "N")]
    pub circle: usize,

    /// What happened to the circle; `rm` follows from --remove and --remove-file.
    #[arg(long, value_name = "OPERATION")]
    pub operation: Option<Operation>,

    /// A backend that is not in the configuration any more and gives all it has; may be repeated.
    #[arg(long, value_name = "NAME=URL", value_parser = removed)]
    pub remove: Vec<Value>,

    /// The same as JSON, as influx-proxy takes it: {"backends": [{"name", "url", "username", "password"}]}.
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
    /// Number of the circle that has the data, the first is 0.
    #[arg(long, value_name = "N")]
    pub from: usize,

    /// Number of the circle that gets it.
    #[arg(long, value_name = "N")]
    pub to: usize,

    /// Only this backend of that circle, by its url in the configuration; may be repeated.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub backend_url: Vec<String>,

    /// Only points at or after this time, in seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<u64>,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ResyncArgs {
    /// Only points of the last days; days, hours, minutes and seconds add up.
    #[arg(long, value_name = "N")]
    pub days: Option<u64>,

    /// And of so many hours.
    #[arg(long, value_name = "N")]
    pub hours: Option<u64>,

    /// And of so many minutes.
    #[arg(long, value_name = "N")]
    pub minutes: Option<u64>,

    /// And of so many seconds.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,

    /// Only points at or after this time, in seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<u64>,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ClearArgs {
    /// Number of the circle, the first is 0.
    #[arg(long, value_name = "N")]
    pub circle: usize,

    #[command(flatten)]
    pub common: CommonArgs,
}

/// What all that begin a migration take.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonArgs {
    /// Only this database; may be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub db: Vec<String>,

    /// Measurements copied at a time [default: 1].
    #[arg(long, value_name = "N")]
    pub cpus: Option<u64>,

    /// Most bytes of line protocol per second, over all of it; k, M and G are taken.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub rate: Option<u64>,

    /// All proxies before these backends as host:port, with commas, so that they stay out of each other's way.
    #[arg(long, value_name = "ADDRS")]
    pub ha_addrs: Option<String>,

    /// Begin it, print its number, and do not wait for its end.
    #[arg(long)]
    pub detach: bool,
}

/// What begins a migration: POST this target with this body.
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
    pub fn order(&self) -> Result<Order, String> {
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
        let own = [("circle_id", Some(self.circle.to_string())), ("operation", Some(operation.to_owned()))];
        Ok(self.common.order("/rebalance", own, body))
    }
}

impl RecoveryArgs {
    pub fn order(&self) -> Order {
        let own = [
            ("from_circle_id", Some(self.from.to_string())),
            ("to_circle_id", Some(self.to.to_string())),
            ("backend_urls", (!self.backend_url.is_empty()).then(|| self.backend_url.join(","))),
            ("since", self.since.map(|seconds| seconds.to_string())),
        ];
        self.common.order("/recovery", own, String::new())
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
    pub fn order(&self) -> Order {
        self.common.order("/clear", [("circle_id", Some(self.circle.to_string()))], String::new())
    }
}

fn proxy_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host.map(|host| host.trim_end_matches('/')) {
        // A user in it would end up in messages.
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
        match parse(line).map_err(|e| e.to_string())?.what {
            Some(MigrateCommand::Rebalance(args)) => args.order(),
            Some(MigrateCommand::Recovery(args)) => Ok(args.order()),
            Some(MigrateCommand::Resync(args)) => Ok(args.order()),
            Some(MigrateCommand::Clear(args)) => Ok(args.order()),
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
                "recovery --from 0 --to 1 --backend-url http://h:1 --backend-url http://h:2 --since 5 --db a --db b&c --cpus 2",
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

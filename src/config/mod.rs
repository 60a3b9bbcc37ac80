//! Reads configuration files into typed settings.
//!
//! ```text
//!   text --document--> tree --loose, file::check, version--> checked tree --file (serde)--> File --resolve--> Config
//! ```
//!
//! `source` goes as far as the checked tree, for a start as for `import-config`. `document` turns JSON, TOML and YAML
//! into the same tree, so that there is one set of keys, rules and messages. A key may be influx-proxy's, of either
//! generation, or our own; a missing, empty or non-positive value means the default; where 0 means no limit
//! (`max_body_bytes`, `max_concurrent_queries`, `max_result_rows`), a negative number is refused. What influx-proxy
//! converts silently is taken with a warning (`loose`), and a key that the version of the file ignores is ignored with
//! one (`version`).
//!
//! influx-proxy ignores unknown keys; here they are errors. Each error is one sentence that names file, line and key,
//! and never shows a password. Not here: starting anything, and what the settings mean to their users.

mod circles;
#[cfg(test)]
mod circles_test;
#[cfg(test)]
mod config_test;
mod document;
mod export;
#[cfg(test)]
mod export_test;
mod file;
#[cfg(test)]
mod file_test;
mod loose;
#[cfg(test)]
mod loose_test;
mod problem;
mod relay;
#[cfg(test)]
mod relay_test;
mod resolve;
mod source;
#[cfg(test)]
mod tls_test;
mod udp;
mod version;
#[cfg(test)]
mod version_test;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fluxgate_control::Dialect;
use fluxgate_control::migration::Removed;
use fluxgate_dataplane::settings::Settings;

pub use export::import;
pub(crate) use resolve::{BACKLOG_FULL, CONSISTENCY_MAX, DURABILITY, HASH, MISSING_DB};
use source::{Checked, Content, Source};
pub use version::SAID;

use crate::tls::Https;

/// Everything a configuration file says, defaults filled in. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub file: PathBuf,
    /// What the data plane is told.
    pub data: Settings,
    /// `mlog_dir` or `tlog_dir`: where migrations log.
    pub mlog_dir: PathBuf,
    pub log_enabled: bool,
    /// `cipher_key` is set. The key itself is not kept: everything is decrypted already.
    pub own_cipher_key: bool,
    /// The version of influx-proxy whose keys count, as the key `influx_proxy` has it.
    pub influx_proxy: &'static str,
    /// Why this version, for people.
    pub influx_proxy_why: String,
    /// 2.5's when the file is for it, else 2.4's.
    pub dialect: Dialect,
    /// `/debug/pprof`. Default: on, as in 2.4.7; off, as in 2.5, in its dialect.
    pub pprof_enabled: bool,
    /// Longest wait for a batch to fill. Without effect: couriers send what has gathered and do not wait.
    pub flush_time: Duration,
    /// Without effect: the order of points limits how much may be in flight.
    pub rewrite_threads: usize,
    /// Without effect, for the same reason.
    pub conn_pool_size: usize,
    pub https: Https,
    /// Certificates of authorities in PEM form, instead of the system's; empty = the system's.
    pub ca_file: String,
    /// Backends that have left the circles, for a rebalance.
    pub former_backends: Vec<Removed>,
    /// The other proxies before the same backends.
    pub peers: Vec<String>,
    /// Logged at each start.
    pub warnings: Vec<String>,
}

/// Why a file is not a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1; none where the whole file is meant.
    pub line: Option<usize>,
    /// One sentence.
    pub what: String,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.what),
            None => write!(f, "{}: {}", self.file.display(), self.what),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads a file: TOML for `.toml`, YAML for `.yaml` and `.yml`, else JSON. Blocks (file, and name lookup when
/// `listen_addr` holds a name).
pub fn load(path: impl AsRef<Path>) -> Result<Config, ConfigError> {
    let path = path.as_ref();
    parse(path, &read(path)?)
}

/// The text of a file. Blocks.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read(path).map_err(|e| error(path, None, format!("cannot be read: {e}")))?;
    String::from_utf8(text).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        error(path, Some(line), "the file must be UTF-8, and this line is not".to_owned())
    })
}

/// As [`load`], with the text at hand; `path` gives format and name.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let source = Source::new(path, text);
    let located = |problem| source.located(problem);
    let Content::Proxy(Checked { tree, loose, decision }) = source.read()? else {
        return Err(located(relay::refusal()));
    };
    let file = file::read(tree).map_err(located)?;
    let (mut config, warnings) = resolve::resolve(path, file, decision).map_err(located)?;
    let in_file = loose.into_iter().chain(warnings).map(|warning| located(warning).to_string());
    config.warnings = in_file.chain(config.warnings).collect();
    Ok(config)
}

fn error(file: &Path, line: Option<usize>, what: String) -> ConfigError {
    ConfigError { file: file.to_owned(), line, what }
}

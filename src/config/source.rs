//! The text of a file as a tree whose keys are checked, or as a tree of influxdb-relay's. Not here: what the values
//! mean (`resolve`, `relay`).

use std::path::Path;

use serde_json::Value;

use super::document::{self, FileFormat};
use super::problem::Problem;
use super::version::{self, Decision};
use super::{ConfigError, error, file, loose, relay};

/// A text, and where its mistakes are.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    format: FileFormat,
}

/// What a text holds.
pub(super) enum Content {
    /// A file of influxdb-relay, nothing of which is checked.
    Relay(Value),
    Proxy(Checked),
}

/// A file of influx-proxy or fluxgate, with known keys only.
pub(super) struct Checked {
    /// A table, without the keys that its version ignores.
    pub(super) tree: Value,
    /// Values that are taken although they have another form, as influx-proxy takes them; each one is warned of.
    pub(super) loose: Vec<Problem>,
    pub(super) decision: Decision,
}

impl<'a> Source<'a> {
    /// `path` gives format and name.
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        // Some editors begin a file with a byte order mark.
        Self { path, text: text.strip_prefix('\u{feff}').unwrap_or(text), format: FileFormat::of(path) }
    }

    pub(super) fn read(&self) -> Result<Content, ConfigError> {
        let parsed = document::parse(self.text, self.format);
        let (mut tree, twice) = parsed.map_err(|fault| error(self.path, fault.line, fault.what))?;
        if relay::is_relay(&tree) {
            return Ok(Content::Relay(tree));
        }
        let located = |problem| self.located(problem);
        let loose = loose::accept(&mut tree, &twice, self.format).map_err(located)?;
        file::check(&tree).map_err(located)?;
        let decision = version::settle(&mut tree, self.format).map_err(located)?;
        Ok(Content::Proxy(Checked { tree, loose, decision }))
    }

    /// A problem with the line of its key.
    pub(super) fn located(&self, problem: Problem) -> ConfigError {
        error(self.path, document::line_of(self.text, self.format, &problem.path), problem.what)
    }
}

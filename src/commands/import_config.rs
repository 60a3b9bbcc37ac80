//! `fluxgate import-config`: prints a file of influx-proxy or influxdb-relay as one of fluxgate's.

use std::path::PathBuf;

use clap::Args;

use crate::config::{self, ConfigError};

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ImportArgs {
    /// The file: TOML (.toml), YAML (.yaml, .yml) or JSON (any other ending).
    pub file: PathBuf,
}

impl ImportArgs {
    /// The text of the new file.
    ///
    /// # Errors
    /// When the file cannot be read or means nothing.
    pub fn import(&self) -> Result<String, ConfigError> {
        config::import(&self.file, &config::read(&self.file)?)
    }
}

//! Log lines on standard error: `2026-01-02T03:04:05.678Z INFO backend influxdb-1-1: up`. Each is one line, whatever
//! clients and backends have sent.

use std::io::Write as _;
use std::time::SystemTime;

use fluxgate_dataplane::one_line::one_line;

/// Installs the logger. `RUST_LOG` decides what is shown; without it everything from `info`, or from `debug`
/// (`log_enabled`), of our own crates.
pub fn install(debug: bool) {
    let default = if debug { "warn,fluxgate=debug,fluxgate_control=debug,fluxgate_dataplane=debug" } else { "info" };
    let env = env_logger::Env::default().default_filter_or(default);
    let mut builder = env_logger::Builder::from_env(env);
    // glommio probes for polled I/O with a read that must fail on our write-only log, and calls that an error.
    builder.filter_module("glommio", log::LevelFilter::Off);
    builder.format(|out, record| {
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        writeln!(out, "{now} {} {}", record.level(), one_line(&record.args().to_string()))
    });
    // A second call (tests) keeps the first logger.
    let _ = builder.try_init();
}

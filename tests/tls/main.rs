//! Promise: TLS changes nothing but who can listen: clients, and backends, get what they get without it.

mod backends;
mod clients;
mod command;
mod support;

/// Starts the real binary with this configuration. Panics, with what it printed, if it does not start.
fn start(config: &fluxgate::lab::proxy::ProxyConfig) -> fluxgate::lab::proxy::Proxy {
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_fluxgate"));
    config.start(executable).unwrap_or_else(|e| panic!("{e}"))
}

//! What the tests of the real binary share: where it is. The rest lives in the library, where the demo uses it too: the
//! proxy as a process (`fluxgate::lab::proxy`), backends (`fluxgate::lab::stand_in`, `fluxgate::lab::influxd`),
//! numbered points (`fluxgate::lab::load`) and a client that sends exactly the bytes it is given
//! (`fluxgate::lab::client`).

use fluxgate::lab::proxy::{Proxy, ProxyConfig};

/// Starts the real binary with this configuration. Panics, with what it printed, if it does not start.
pub fn start(config: &ProxyConfig) -> Proxy {
    let executable = std::path::Path::new(env!("CARGO_BIN_EXE_fluxgate"));
    config.start(executable).unwrap_or_else(|e| panic!("{e}"))
}

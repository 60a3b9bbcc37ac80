//! The laboratory: what the demo, the benchmarks and the tests measure and check the proxy with. No part of the proxy.
//!
//! Servers to put behind it (a real `influxd`, an in-memory stand-in), the proxy as a child process, a client that
//! sends exact bytes, and a reader of HTTP/1.1 of its own, so that the proxy's parser is not checked with itself.
//! Nothing here uses the rest of `src`, `control` or `dataplane`; `tests/tidy.rs` checks it.

pub mod client;
pub mod demo;
pub mod http1;
pub mod influxd;
pub mod load;
pub mod proxy;
pub mod serials;
pub mod sink;
pub mod stand_in;
#[cfg(test)]
mod stand_in_test;

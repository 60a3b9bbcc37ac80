//! The laboratory: tools of the demo, the benchmarks and the tests. It is not part of the proxy.
//!
//! Servers to put behind the proxy (a real `influxd`, an in-memory stand-in), the proxy as a child process, a client
//! that sends exact bytes, and its own HTTP/1.1 parser, so that the proxy's parser is not checked with itself. Nothing
//! here uses the rest of `src`, `control` or `dataplane`; `tests/tidy.rs` checks this.

pub mod client;
pub mod demo;
pub mod http1;
pub mod influxd;
pub mod load;
pub mod port;
pub mod proxy;
pub mod serials;
pub mod sink;
pub mod stand_in;
#[cfg(test)]
mod stand_in_test;

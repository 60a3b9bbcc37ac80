//! Tries the promises by machine: the whole data plane, unchanged, in one thread and under one seed, with clients,
//! InfluxDB servers, network, disk and clock around it that fail as real ones do. `make sim` runs seeds;
//! docs/reliability.md says how to use it.
//!
//! ```text
//!   plan ── what clients write, what breaks        world ── who is where, what everybody has seen
//!   sim ── one run: proxy (the process), backend (a server, with influx as its store), client, faults; then check
//! ```

#![cfg(feature = "sim")]

mod backend;
pub mod check;
mod client;
mod faults;
pub mod hosts;
pub mod influx;
pub mod known;
pub mod plan;
mod proxy;
mod randomness;
mod says;
mod setup;
pub mod shrink;
pub mod sim;
mod statement;
mod world;

pub use world::Violation;

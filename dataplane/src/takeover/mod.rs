//! What is taken over at start: points for backends that are no longer configured, and influx-proxy's cache files.
//!
//! `cache_files` finds cache files, `cache_blocks` reads them. `reroute` appends the points of both kinds to the first
//! worker's log.

mod cache_blocks;
#[cfg(test)]
mod cache_blocks_test;
pub mod cache_files;
pub(crate) mod reroute;

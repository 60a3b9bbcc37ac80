//! What is taken over at start: points for backends that are no longer configured, and influx-proxy's cache files.
//!
//! `cache_files` finds and reads cache files. `reroute` appends the points of both kinds to the first worker's log.

pub mod cache_files;
pub(crate) mod reroute;

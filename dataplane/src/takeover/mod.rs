//! What a worker takes over at start: logs of former workers, and influx-proxy's cache files.
//!
//! `cache_files` finds and reads cache files. `adopt` appends the points of both kinds to the worker's own log.

pub(crate) mod adopt;
pub mod cache_files;

//! What a worker takes over at its start: logs of workers that are gone, and influx-proxy's cache files.
//!
//! `cache_files` finds and reads such files; `adopt` appends what they hold to the worker's own log.

pub(crate) mod adopt;
pub mod cache_files;

//! The data plane: accepts, parses, logs, acknowledges and delivers every point.
//!
//! One *worker* per core owns its listener, its connections, its log and its couriers. Workers share counters, feeds
//! and the order of records. Deliberately absent: locks (but for one in `order`), blocking calls after the start (but
//! for the import of cache files), a JSON parser (but for the `params` of queries), configuration files, allocation per
//! line, and code whose cost grows with connections x backends. Only `io` and `disklog/store` name the runtime.
//! Whatever else may block is done by the control thread, which is asked through [`handoff`].

mod courier;
pub mod crash;
pub mod deep;
pub mod disklog;
#[cfg(test)]
mod fuzz_corpus_test;
#[cfg(test)]
mod golden;
pub mod handoff;
pub mod http;
pub mod influxql;
pub mod io;
mod ledger;
pub mod limits;
pub mod lineproto;
pub mod memory;
pub mod must_see;
pub mod one_line;
pub mod order;
pub mod parked;
pub mod placement;
pub mod precision;
pub mod prometheus;
mod query;
mod request;
pub mod routing;
pub mod serve;
pub mod settings;
pub mod stats;
pub mod takeover;
pub mod tls;
pub mod topology;
pub mod unsaved;
mod worker;
mod write;

//! The way of a point: accept, parse, log, acknowledge, deliver.
//!
//! One *worker* per core owns its listener, its connections, its log and its couriers; workers share nothing but
//! counters. What is deliberately absent here: locks, blocking calls after the start, a JSON parser (save for the
//! `params` of queries), configuration files, per-line allocation, and any code whose cost grows with connections x
//! backends. Only `io` and `disklog/store` name the runtime. Anything that may block is asked of the control thread
//! through [`handoff`].

mod courier;
pub mod disklog;
#[cfg(test)]
mod fuzz_corpus_test;
pub mod handoff;
pub mod http;
pub mod influxql;
pub mod io;
mod ledger;
pub mod limits;
pub mod lineproto;
pub mod placement;
pub mod precision;
mod query;
mod request;
pub mod routing;
pub mod serve;
pub mod settings;
pub mod stats;
pub mod takeover;
pub mod tls;
pub mod topology;
mod worker;
mod write;

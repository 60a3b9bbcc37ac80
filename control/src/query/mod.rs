//! Queries that need more than one backend, or change something: asked in shares, merged, rendered.
//!
//! ```text
//!   event_loop ─> job (a thread per request) ─> statement ─┬─> select/   several owners, typed columns, one now()
//!                     │                                    ├─> show/     union, sort, LIMIT and OFFSET of the whole
//!                     │                                    ├─> server    SHOW STATS ...: every server side by side
//!                     │                                    ├─> into      read, then written through the workers
//!                     │                                    └─> structure all backends, in order with points
//!                     ├─> prometheus: remote reads
//!                     └─> render/  JSON, chunked JSON, CSV, msgpack; gzip
//!   ahead: statements that only read are tried before their turn, so that many are asked together
//!   context: the backends to ask, deadline, memory, cancellation; `influx`: the calls and their answers
//! ```
//!
//! The rule for all of it: the answer is that of one InfluxDB with all data, or an error that says why not.

mod ahead;
pub mod context;
mod errors;
mod into;
mod job;
mod prometheus;
pub mod render;
pub mod select;
pub mod server;
pub mod show;
mod statement;
mod structure;
mod tagged;
pub mod workers;

pub use context::QueryShared;
pub use job::run;

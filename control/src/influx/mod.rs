//! InfluxDB as control speaks to it: the calls, what answers say, line protocol, databases and policies.
//!
//! ```text
//!   client    one backend: ping, statements, writes
//!   reader    one backend's /query, read as it streams      budget   the memory that answers may take
//!   wire/     answers in JSON and msgpack      answer   what they say
//!   catalog   databases, policies, measurements  policy   the statements that create one
//!   line      rows as line protocol
//! ```
//!
//! Not here: when a backend is asked, and what its answer is for (`event_loop`, `query`, `migration`).

pub mod answer;
pub(crate) mod budget;
pub mod catalog;
pub mod client;
pub(crate) mod line;
pub mod policy;
pub(crate) mod reader;
pub mod wire;

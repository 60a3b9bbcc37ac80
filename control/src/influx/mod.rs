//! InfluxDB for control: the calls, the answers, line protocol, databases and policies.
//!
//! ```text
//!   client    one backend: ping, statements, writes
//!   reader    answers of /query, read as a stream    budget   the memory that answers may take
//!   wire/     answers in JSON and msgpack            answer   the model of an answer
//!   catalog   databases, policies, measurements      policy   the statements that create a policy
//!   line      rows as line protocol
//! ```
//!
//! Not here: when a backend is asked, and what its answer is for (`event_loop`, `query`, `migration`).

pub mod answer;
pub mod budget;
pub mod catalog;
pub mod client;
pub(crate) mod line;
pub mod policy;
pub mod prometheus;
pub(crate) mod reader;
pub mod wire;

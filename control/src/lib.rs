//! The control thread: the one ordinary thread that may block, and what it does for workers and operators.
//!
//! ```text
//!   workers ── handoff ──> event_loop ──> endpoint/*   what an admin request asks for, as an action
//!                            │
//!                            ├─ probe        one thread per backend: name resolution and GET /ping
//!                            ├─ refresh      when to ask for the catalog
//!                            ├─ census       the ledgers of all workers
//!                            ├─ create       a database or policy that a backend lacks
//!                            │
//!                            ├─ query        answers that need several backends
//!                            ├─ transition   where data lies while a circle's backends change
//!                            └─ migration    copies measurements between backends, on threads of its own
//!                                   │
//!                                   └─ influx   the calls to a backend, its answers, lines, catalogs
//! ```
//!
//! Each call to a backend runs on a thread of its own and sends its result as an event, so that a hung backend delays
//! neither another backend nor an admin request. Nothing here can slow a worker down: the handoff is bounded, and
//! workers notice when the control thread has ended.

pub mod cipher;
mod clock;
pub mod endpoint;
mod event_loop;
#[cfg(test)]
#[path = "../../dataplane/src/golden.rs"]
mod golden;
pub mod influx;
mod limits;
pub mod migration;
mod parallel;
pub mod query;
pub mod transition;

pub use endpoint::Dialect;
pub use event_loop::{Control, ControlSettings};

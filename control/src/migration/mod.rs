//! Migrations: copy measurements between backends, or delete them where they do not belong.
//!
//! The copy engine handles one measurement of one database:
//!
//! ```text
//!   copy ─┬─> policies   gives the target the source's database and policies, with their settings
//!         ├─> slices     parts of one shard group; each is read, verified and noted as done as a whole
//!         ├─> rows       reads a slice from the source, typed
//!         ├─> pour       writes rows to the target as lines, in bounded batches
//!         ├─> verify     every value of the slice is at the target, and stays right while clients write
//!         └─> expired    counts the points that are too old for the target
//!   delete ──> verify    the owner has everything: only then the measurement is dropped elsewhere
//!   steering: pause, cancel, rate limit, retries; progress: counters; side: a backend as source or target
//! ```
//!
//! One slice is verified while the next one is read and written. Every step may be repeated: a point written twice
//! exists once. Memory is bounded by pieces of answers, batches of lines and a few numbers per value of a slice, not by
//! the size of a measurement.
//!
//! The jobs run the engine:
//!
//! ```text
//!   jobs          all jobs, and which may begin; belongs to the control thread
//!     └─> job     one job: its order and its state
//!           ├─> work         its threads: peers -> settle -> inventory -> plan -> chains -> peers
//!           ├─> coordination its waits, and its messages to other proxies
//!           ├─> order        its order, and types for its progress: plain data
//!           ├─> plan         which measurement is copied where; pure
//!           ├─> world        the engine, couriers' counters and transitions, as a trait
//!           ├─> peers        calls to other proxies
//!           ├─> marks        when reads switch to the new place
//!           ├─> checkpoint   the file of a job
//!           └─> journal      the migration log
//! ```
//!
//! Before them, at the first start only: `survey`, the question whether influx-proxy has left names with a backslash.

pub(crate) mod checkpoint;
mod coordination;
mod copy;
mod delete;
mod expired;
pub(crate) mod job;
#[cfg(test)]
pub(crate) mod job_test;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod live_world;
mod marks;
pub(crate) mod order;
pub(crate) mod peers;
pub(crate) mod plan;
mod policies;
mod pour;
mod progress;
pub mod rows;
pub mod side;
pub mod slices;
pub(crate) mod steering;
mod survey;
mod verify;
mod work;
mod world;

pub use crate::limits::PEERS_MAX;
pub use copy::{Copied, CopyError, CopyTask, SliceFailure, Writes, copy};
pub use delete::{NotCleared, clear};
pub use order::Undelivered;
pub use peers::is_addr;
pub use plan::Removed;
pub use progress::Progress;
pub use side::CopySide;
pub use slices::Slice;
pub use steering::Steering;
pub use survey::survey;

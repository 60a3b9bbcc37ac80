//! Migration. Its copy engine: one measurement of one database, from one backend to another, or out of a place where it
//! does not belong.
//!
//! ```text
//!   copy ─┬─> policies   the target gets the source's database and policies, with their settings
//!         ├─> slices     what is read, verified and noted as done at a time: part of one shard group
//!         ├─> rows       a slice, typed, as the source answers it
//!         ├─> pour       rows as lines, written to the target in bounded batches
//!         └─> verify     every value of the slice is at the target, and stays right whatever clients write meanwhile
//!   delete ──> verify    everything lies at its right place: only then it is dropped at the wrong one
//!   steering: pause, cancel, rate limit, retries; progress: counters; side: a backend as source or target
//! ```
//!
//! Every step may be repeated: a point written twice is there once. Memory is bounded by a piece of an answer, a batch
//! of lines and two numbers per value of a slice; never by the size of a measurement.
//!
//! Around it, the jobs:
//!
//! ```text
//!   jobs          which there are and may begin; the control thread's
//!     └─> job     one of them: its order, how far it is
//!           ├─> work         what its threads do: peers -> settle -> inventory -> plan -> chains -> peers
//!           ├─> coordination what is waited for, and who is told
//!           ├─> order        what it is asked to do, and how far it is: plain data
//!           ├─> plan         what is to be copied where, pure
//!           ├─> world        the engine, couriers' counters and transitions, as a job sees them
//!           ├─> peers        other proxies
//!           ├─> marks        when reads may go to the new place
//!           ├─> checkpoint   the file of a job
//!           └─> journal      the migration log
//! ```

pub(crate) mod checkpoint;
mod coordination;
mod copy;
mod delete;
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
mod verify;
mod work;
mod world;

pub use copy::{Copied, CopyError, CopyTask, SliceFailure, Writes, copy};
pub use delete::{NotCleared, clear};
pub use order::Undelivered;
pub use progress::Progress;
pub use side::CopySide;
pub use slices::Slice;
pub use steering::Steering;

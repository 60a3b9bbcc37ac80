//! What a job does to the world, as a trait: backends, couriers' counters and transitions, or a stand-in for them in
//! tests.
//!
//! Not here: the real one (`live_world.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::topology::{Backend, BackendId};

use super::order::Undelivered;
use super::plan::Task;
use super::progress::Progress;
use super::slices::Slice;
use super::steering::Steering;

/// What a copy is given beside its task.
pub struct CopyContext<'a> {
    pub since_ns: Option<i64>,
    pub steering: &'a Steering,
    pub progress: &'a Progress,
    /// Waits until a source, and if that does not take long the target, have got what proxies took before the call.
    pub delivered: &'a dyn Fn(&Backend, &Backend) -> Result<(), Undelivered>,
    /// Slices that are done, perhaps before a restart.
    pub done: Vec<Slice>,
    /// Notes another one, which a repeat need not do again.
    pub note: &'a dyn Fn(&Slice),
}

/// What jobs do to the world; a double stands in for it in tests. Calls block, and come from several threads.
pub trait World: Send + Sync {
    /// Databases of a backend with their measurements.
    fn inventory(&self, at: &Backend, steering: &Steering) -> Result<BTreeMap<String, BTreeSet<String>>, String>;
    /// Copies and verifies one measurement. An error is for the operator; retries are over by then.
    fn copy(&self, task: &Task, from: &Backend, to: &Backend, context: &CopyContext<'_>) -> Result<(), String>;
    /// Removes one measurement from `at` after finding all of it at `right`.
    fn delete(&self, task: &Task, at: &Backend, right: &Backend, context: &CopyContext<'_>) -> Result<(), String>;
    /// True while statements that remove data, begun before the job, are under way.
    fn is_removing(&self) -> bool;
    /// True while points that this proxy accepted before `ms` (since 1970) are not delivered to `backend`.
    fn is_behind(&self, backend: BackendId, ms: u64) -> bool;
    /// Queries that began before the end of a transition may read former owners of the circle until then; None: there
    /// are no such queries.
    fn former_read_until(&self, circle: usize) -> Option<Instant>;
    /// It has another place than before, and the transition has not ended.
    fn is_moving(&self, circle: usize, place: &Place) -> bool;
    /// These are verified at their new places; reads go there from now on.
    fn mark_moved(&self, circle: usize, places: &[Place]) -> Result<(), String>;
    /// All is at its new place; writes go there only.
    fn end(&self, circle: usize) -> Result<(), String>;
}

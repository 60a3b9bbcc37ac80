//! The effects of a job as a trait: backends, couriers' counters and transitions, or a stand-in for them in tests.
//!
//! Not here: the real implementation (`live_world.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::topology::{Backend, BackendId};

use super::order::Undelivered;
use super::plan::Task;
use super::progress::Progress;
use super::slices::Slice;
use super::steering::Steering;

/// What a copy needs besides its task.
pub struct CopyContext<'a> {
    pub since_ns: Option<i64>,
    pub steering: &'a Steering,
    pub progress: &'a Progress,
    /// Waits until the source has received all points that proxies accepted before the call; for the target it waits
    /// only a short time.
    pub delivered: &'a (dyn Fn(&Backend, &Backend) -> Result<(), Undelivered> + Sync),
    /// Slices that are already done, also before a restart.
    pub done: Vec<Slice>,
    /// Notes a slice as done, so that a repeated copy leaves it out.
    pub note: &'a dyn Fn(&Slice),
}

/// All effects of jobs. Tests use a stand-in. Calls block and come from several threads.
pub trait World: Send + Sync {
    /// Databases of a backend with their measurements.
    fn inventory(&self, at: &Backend, steering: &Steering) -> Result<BTreeMap<String, BTreeSet<String>>, String>;
    /// Copies and verifies one measurement. An error comes after all retries and is shown to the operator.
    fn copy(&self, task: &Task, from: &Backend, to: &Backend, context: &CopyContext<'_>) -> Result<(), String>;
    /// Removes one measurement from `at` after finding all of it at `right`.
    fn delete(&self, task: &Task, at: &Backend, right: &Backend, context: &CopyContext<'_>) -> Result<(), String>;
    /// True while statements that remove data, begun before the job, are under way.
    fn is_removing(&self) -> bool;
    /// True while points that this proxy accepted before `ms` (since 1970) are not delivered to `backend`.
    fn is_behind(&self, backend: BackendId, ms: u64) -> bool;
    /// Points that this proxy has not delivered to `backend` yet.
    fn queued_points(&self, backend: BackendId) -> u64;
    /// Queries that began before the end of a transition may read former owners of the circle until then; None: there
    /// are no such queries any more.
    fn former_read_until(&self, circle: usize) -> Option<Instant>;
    /// True while the measurement has a new owner and the transition has not ended.
    fn is_moving(&self, circle: usize, place: &Place) -> bool;
    /// Reads of these measurements go to their new owners from now on; they must be verified there.
    fn mark_moved(&self, circle: usize, places: &[Place]) -> Result<(), String>;
    /// Ends the transition: all data is at its new owners, and writes go only there. `has_others`: other proxies take
    /// part in it.
    fn end(&self, circle: usize, has_others: bool) -> Result<(), String>;
}

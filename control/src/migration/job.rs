//! One migration: its order and its state.
//!
//! A job with a failed task, or with a backend that could not be asked, is `failed`, never `done`. After a restart a
//! job begins from the start again, but finished tasks stay finished.
//!
//! Nothing here calls a backend: [`World`] does that. Not here: the work of its threads (`work.rs`), the list of jobs
//! (`jobs.rs`), the file (`checkpoint.rs`).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fluxgate_dataplane::placement::{Place, Placement};
use fluxgate_dataplane::topology::{Backend, BackendId, Circle, Topology};

use super::checkpoint::{Saved, SavedTask, TaskKey};
use super::journal::Journal;
use super::order::{Counts, Order, Phase, TaskState, Verified};
use super::peers::{PeerBacklog, Peers};
use super::plan::{Goal, Site, Task, Work};
use super::progress::Progress;
use super::slices::Slice;
use super::steering::Steering;
use super::world::World;
use crate::clock::unix_seconds;
use crate::limits;

/// What all jobs share.
pub struct MigrationShared {
    pub topology: Arc<Topology>,
    /// A copy of its own: that of queries would tell that one is running.
    pub placement: Placement,
    pub world: Box<dyn World>,
    pub peers: Peers,
    pub journal: Journal,
    /// Folder of the checkpoints.
    pub folder: PathBuf,
}

impl MigrationShared {
    /// Description of the rings.
    pub fn rings(&self) -> String {
        let backend = |id: &BackendId| {
            let Backend { name, url, leaving, .. } = self.topology.backend(*id);
            format!("{name} {url} {leaving}")
        };
        let circle = |circle: &Circle| circle.backends.iter().map(backend).collect::<Vec<_>>().join(",");
        self.topology.circles.iter().map(circle).collect::<Vec<_>>().join(";")
    }
}

/// One task and its state.
#[derive(Debug)]
pub struct TaskEntry {
    pub task: Task,
    pub key: TaskKey,
    /// Entries of one chain are adjacent.
    pub chain: usize,
    pub state: TaskState,
    pub progress: Arc<Progress>,
    pub slices: Vec<Slice>,
    pub error: Option<String>,
}

/// The state of a job that changes while it runs.
#[derive(Debug)]
pub struct JobState {
    pub phase: Phase,
    pub ended: Option<u64>,
    /// The current step, for the operator.
    pub doing: String,
    /// Since when work is done: the wait of a clear is not counted.
    pub working_since: Instant,
    pub errors: Vec<String>,
    pub errors_left_out: u64,
    pub counts: Vec<Counts>,
    pub entries: Vec<TaskEntry>,
    /// Tasks from before a restart that need not be done again, by key.
    pub(super) former: HashMap<TaskKey, SavedTask>,
    saved: Option<(Instant, Duration)>,
    /// For a rebalance: copied, but not marked yet.
    pub(super) verified: Vec<Verified>,
    pub(super) marked: Option<Instant>,
    /// The last answers of other proxies, by address.
    pub(super) peer_backlogs: HashMap<String, PeerBacklog>,
}

/// One migration. Shared by its threads, the control thread and readers. The lock is held only for moments, never
/// during a call to a backend or a write to disk.
#[derive(Debug)]
pub struct Job {
    pub id: u64,
    pub order: Order,
    /// Seconds since 1970.
    pub started: u64,
    /// When this process began to work on the job.
    pub since: Instant,
    pub steering: Steering,
    rings: String,
    inner: Mutex<JobState>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    file: Mutex<()>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// `rings` as from [`MigrationShared::rings`].
    pub fn new(id: u64, order: Order, rings: &str) -> Self {
        let saved = Saved {
            version: Saved::version(),
            id,
            order,
            phase: Phase::Running,
            paused: false,
            cancelled: false,
            rings: rings.to_owned(),
            started: unix_seconds(),
            ended: None,
            errors: Vec::new(),
            errors_left_out: 0,
            counts: Vec::new(),
            tasks: Vec::new(),
        };
        Self::from_saved(saved, rings, &|_| None)
    }

    /// A job from its file. `site` finds backends by name; tasks of unknown backends are dropped.
    pub fn from_saved(saved: Saved, rings: &str, site: &dyn Fn(&str) -> Option<Site>) -> Self {
        let entry = |(chain, task): (usize, &SavedTask)| {
            let (at, other) = (site(&task.key.from)?, site(&task.key.to)?);
            let work = match saved.order.goal {
                Goal::Clear { .. } => Work::Delete { right: other },
                _ => Work::Copy { to: other },
            };
            let place = Place::new(task.key.db.clone(), task.key.measurement.clone());
            Some(TaskEntry::former(Task { place, at, work }, chain, task))
        };
        let is_over = saved.phase != Phase::Running;
        let entries = if is_over { saved.tasks.iter().enumerate().filter_map(entry).collect() } else { Vec::new() };
        let former = if is_over || saved.rings != rings { Vec::new() } else { saved.tasks };
        let steering = Steering::new(saved.order.rate.unwrap_or(0));
        steering.pause(saved.paused);
        if saved.cancelled {
            steering.cancel();
        }
        Self {
            id: saved.id,
            order: saved.order,
            started: saved.started,
            since: Instant::now(),
            steering,
            rings: if is_over { saved.rings } else { rings.to_owned() },
            inner: Mutex::new(JobState {
                phase: saved.phase,
                ended: saved.ended,
                working_since: Instant::now(),
                doing: String::new(),
                errors: if is_over { saved.errors } else { Vec::new() },
                errors_left_out: if is_over { saved.errors_left_out } else { 0 },
                counts: saved.counts,
                entries,
                former: former.into_iter().map(|task| (task.key.clone(), task)).collect(),
                saved: None,
                verified: Vec::new(),
                marked: None,
                peer_backlogs: HashMap::new(),
            }),
            file: Mutex::new(()),
        }
    }

    /// Locks the state. Release it at once.
    pub fn look(&self) -> MutexGuard<'_, JobState> {
        lock(&self.inner)
    }

    pub fn is_active(&self) -> bool {
        self.look().phase == Phase::Running
    }

    /// Writes the job's file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, shared: &MigrationShared) -> std::io::Result<()> {
        let _file = lock(&self.file);
        let started = Instant::now();
        let saved = self.saved();
        let result = saved.write(&shared.folder);
        self.look().saved = Some((Instant::now(), started.elapsed()));
        result
    }

    fn saved(&self) -> Saved {
        let inner = self.look();
        let mut tasks: Vec<_> = inner.entries.iter().map(TaskEntry::saved).collect();
        // Tasks from before a restart that are not planned again yet are still finished.
        tasks.extend(inner.former.values().cloned());
        Saved {
            version: Saved::version(),
            id: self.id,
            order: self.order.clone(),
            phase: inner.phase,
            paused: self.steering.is_paused(),
            cancelled: self.steering.is_cancelled(),
            rings: self.rings.clone(),
            started: self.started,
            ended: inner.ended,
            errors: inner.errors.clone(),
            errors_left_out: inner.errors_left_out,
            counts: inner.counts.clone(),
            tasks,
        }
    }

    /// Writes the file if due. When that fails, the job gets an error and goes on.
    pub(super) fn save_if_due(&self, shared: &MigrationShared) {
        let due = match self.look().saved {
            Some((at, cost)) => at.elapsed() >= limits::CHECKPOINT_INTERVAL.max(cost * limits::CHECKPOINT_SHARE),
            None => true,
        };
        if due && let Err(error) = self.save(shared) {
            self.note_error(shared, format!("cannot save the progress: {error}"));
        }
    }

    pub(super) fn doing(&self, shared: &MigrationShared, text: &str) {
        self.doing_with(shared, text, "");
    }

    /// As [`Job::doing`], with a detail that changes too often for the journal.
    pub(super) fn doing_with(&self, shared: &MigrationShared, text: &str, detail: &str) {
        let mut inner = self.look();
        let is_news = !inner.doing.starts_with(text);
        inner.doing = format!("{text}{detail}");
        drop(inner);
        if is_news {
            shared.journal.note(self.id, text);
        }
    }

    /// Notes an error; the job will not be `done`.
    pub(super) fn note_error(&self, shared: &MigrationShared, text: String) {
        shared.journal.note(self.id, &format!("error: {text}"));
        let mut inner = self.look();
        if inner.errors.len() < limits::MIGRATION_ERRORS_MAX {
            inner.errors.push(text);
        } else {
            inner.errors_left_out += 1;
        }
    }

    /// Runs the job to its end, also after a panic.
    pub fn run(&self, shared: &MigrationShared, is_resumed: bool) {
        let result = catch_unwind(AssertUnwindSafe(|| self.work(shared, is_resumed)));
        if result.is_err() {
            self.note_error(shared, "the migration panicked".to_owned());
        }
        let phase = match self.steering.is_cancelled() {
            true => Phase::Cancelled,
            false if result.is_ok() && self.look().errors.is_empty() => Phase::Done,
            false => Phase::Failed,
        };
        shared.journal.note(self.id, &format!("{} {phase:?}", self.order.goal.name()).to_lowercase());
        self.end(shared, phase);
    }

    /// Ends the job without any work.
    pub(super) fn give_up(&self, shared: &MigrationShared, why: &str) {
        self.note_error(shared, why.to_owned());
        self.end(shared, Phase::Failed);
    }

    fn end(&self, shared: &MigrationShared, phase: Phase) {
        {
            let mut inner = self.look();
            (inner.phase, inner.ended) = (phase, Some(unix_seconds()));
            inner.doing.clear();
        }
        if let Err(error) = self.save(shared) {
            shared.journal.note(self.id, &format!("error: cannot save the end: {error}"));
        }
    }
}

impl TaskEntry {
    pub(super) fn former(task: Task, chain: usize, saved: &SavedTask) -> Self {
        let progress = Progress::default();
        progress.points.store(saved.points, Relaxed);
        progress.bytes.store(saved.bytes, Relaxed);
        // An unfinished task counts them again.
        if saved.state == TaskState::Done {
            progress.points_expired.store(saved.points_expired, Relaxed);
        }
        Self {
            task,
            key: saved.key.clone(),
            chain,
            state: saved.state,
            progress: Arc::new(progress),
            slices: saved.slices.clone(),
            error: saved.error.clone(),
        }
    }

    fn saved(&self) -> SavedTask {
        SavedTask {
            key: self.key.clone(),
            state: self.state,
            points: self.progress.points.load(Relaxed),
            bytes: self.progress.bytes.load(Relaxed),
            points_expired: self.progress.points_expired.load(Relaxed),
            slices: self.slices.clone(),
            error: self.error.clone(),
        }
    }
}

//! All migrations of this proxy: running and ended jobs, conflicts, and the flags of `/migrate/state`.
//!
//! Owned by the control thread, so nothing here blocks: calls to other proxies and to the disk run on the job's own
//! thread, which sends a [`JobEvent`]. A circle counts as migrating as soon as its migration is requested.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;

use crossbeam::channel::Sender;
use fluxgate_dataplane::stats::Stats;

use super::checkpoint::{self, Saved};
use super::coordination;
use super::job::{Job, MigrationShared};
use super::order::Order;
use super::peers::{PeerAnswer, PeerChange};
use super::plan::{self, Goal};
use super::steering::Steer;
use crate::limits;

/// Events of a job's thread.
#[derive(Debug)]
pub enum JobEvent {
    /// The job begins, or not; then with the reason.
    Begun {
        id: u64,
        result: Result<(), NotBegun>,
    },
    Ended {
        id: u64,
    },
}

/// Why a migration does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotBegun {
    /// Another migration prevents it, here or at another proxy.
    Conflict(String),
    /// An error of this proxy.
    Failed(String),
}

/// Running migrations and the last finished ones, by id.
pub struct Jobs {
    shared: Arc<MigrationShared>,
    stats: Arc<Stats>,
    /// Events to the control thread.
    events: Sender<JobEvent>,
    jobs: BTreeMap<u64, Arc<Job>>,
    last_id: u64,
    /// Flags of each circle, and of resyncs, that operators or other proxies have set.
    migrating: Vec<bool>,
    resyncing: bool,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("jobs", &self.jobs.keys()).finish_non_exhaustive()
    }
}

impl Jobs {
    /// The other proxies of the configuration.
    pub fn peers(&self) -> &[String] {
        self.shared.peers.configured()
    }

    /// Reads the jobs on disk. [`Jobs::resume`] continues unfinished ones.
    pub fn open(shared: MigrationShared, stats: Arc<Stats>, events: Sender<JobEvent>) -> Self {
        let (saved, last_id) = checkpoint::read_all(&shared.folder);
        let rings = shared.rings();
        let name = |name: &str| shared.topology.by_name(name).map(|backend| backend.id.index());
        let job = |saved: Saved| {
            let removed = plan::sites(&shared.topology, &saved.order.goal);
            let site = |wanted: &str| name(wanted).or_else(|| removed.iter().position(|site| site.name == wanted));
            (saved.id, Arc::new(Job::from_saved(saved, &rings, &site)))
        };
        let jobs = saved.into_iter().map(job).collect();
        let migrating = vec![false; shared.topology.circles.len()];
        Self { shared: Arc::new(shared), stats, events, jobs, last_id, migrating, resyncing: false }
    }

    /// Starts the threads of all unfinished jobs. A job whose circle no longer exists fails at once.
    pub fn resume(&mut self) {
        self.show();
        for job in self.jobs.values().filter(|job| job.is_active()).cloned().collect::<Vec<_>>() {
            let (shared, events, id) = (Arc::clone(&self.shared), self.events.clone(), job.id);
            let is_possible = fits(&job.order.goal, shared.topology.circles.len());
            let run = move || {
                if is_possible {
                    job.run(&shared, true);
                } else {
                    job.give_up(&shared, "its circle is no longer in the configuration");
                }
                // Closed = the process is stopping.
                let _ = events.send(JobEvent::Ended { id });
            };
            if let Err(error) = spawn(id, run) {
                log::error!("migration {id} is not resumed: cannot start a thread: {error}");
            }
        }
    }

    /// Starts a job for `order` and returns its id. [`JobEvent::Begun`] says later whether it begins.
    ///
    /// # Errors
    /// What prevents it at this proxy.
    pub fn start(&mut self, order: Order) -> Result<u64, NotBegun> {
        if let Some(text) = self.conflict(&order.goal) {
            return Err(NotBegun::Conflict(text));
        }
        if self.jobs.values().filter(|job| job.is_active()).count() >= limits::MIGRATIONS_MAX {
            return Err(NotBegun::Failed(format!(
                "too many migrations are under way (limit {})",
                limits::MIGRATIONS_MAX
            )));
        }
        self.last_id += 1;
        let id = self.last_id;
        let job = Arc::new(Job::new(id, order, &self.shared.rings()));
        let (shared, events) = (Arc::clone(&self.shared), self.events.clone());
        let starting = Arc::clone(&job);
        // Inserted before its thread asks other proxies, so that they see it.
        self.jobs.insert(id, job);
        self.show();
        let run = move || {
            let result = begin(&starting, &shared);
            let is_begun = result.is_ok();
            // Closed = the process is stopping.
            let _ = events.send(JobEvent::Begun { id, result });
            if is_begun {
                starting.run(&shared, false);
                let _ = events.send(JobEvent::Ended { id });
            }
        };
        if let Err(error) = spawn(id, run) {
            self.jobs.remove(&id);
            self.show();
            return Err(NotBegun::Failed(format!("cannot start a thread: {error}")));
        }
        Ok(id)
    }

    /// Handles an event of a job's thread.
    pub fn event(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Begun { result: Ok(()), .. } => {}
            JobEvent::Begun { id, result: Err(_) } => _ = self.jobs.remove(id),
            JobEvent::Ended { id } => log::debug!("migration {id} has ended"),
        }
        let ended: Vec<u64> = self.jobs.values().filter(|job| !job.is_active()).map(|job| job.id).collect();
        for &id in &ended[..ended.len().saturating_sub(limits::MIGRATIONS_KEPT)] {
            self.jobs.remove(&id);
            checkpoint::remove(&self.shared.folder, id);
        }
        self.show();
    }

    /// Sets a flag of `/migrate/state`. A migration that runs here is shown in any case.
    pub fn set(&mut self, change: PeerChange) {
        match change {
            PeerChange::Migrating { circle, migrating, .. } => self.migrating[circle] = migrating,
            PeerChange::Resyncing(resyncing) => self.resyncing = resyncing,
        }
        self.show();
    }

    /// Ends the transition of a circle after another proxy has moved all its data. The call blocks; its error goes to
    /// the other proxy.
    pub fn ending(&self, circle: usize) -> impl FnOnce() -> Result<(), String> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.world.end(circle, true)
    }

    /// Cancels, pauses or resumes a running job.
    pub fn steer(&self, id: u64, steer: Steer) {
        let Some(job) = self.jobs.get(&id).cloned() else { return };
        match steer {
            Steer::Cancel => job.steering.cancel(),
            Steer::Pause => job.steering.pause(true),
            Steer::Resume => job.steering.pause(false),
        }
        let shared = Arc::clone(&self.shared);
        let save = move || {
            shared.journal.note(id, &format!("{steer:?} requested").to_lowercase());
            // An ended job has saved itself, and a pause means nothing to it.
            if job.is_active()
                && let Err(error) = job.save(&shared)
            {
                shared.journal.note(id, &format!("error: cannot save this: {error}"));
            }
        };
        if let Err(error) = spawn(id, save) {
            log::warn!("migration {id}: {steer:?} is not saved for a restart: cannot start a thread: {error}");
        }
    }

    pub fn is_migrating(&self, circle: usize) -> bool {
        let here = |job: &Arc<Job>| job.order.goal.migrating() == Some(circle) && job.is_active();
        self.migrating[circle] || self.jobs.values().any(here)
    }

    pub fn is_resyncing(&self) -> bool {
        self.resyncing || self.jobs.values().any(|job| job.order.goal == Goal::Resync && job.is_active())
    }

    /// Why `goal` cannot begin now, in influx-proxy's text.
    pub fn conflict(&self, goal: &Goal) -> Option<String> {
        let migrating = (0..self.migrating.len()).map(|circle| self.is_migrating(circle)).collect();
        coordination::conflict(goal, &PeerAnswer::State { migrating, resyncing: self.is_resyncing() })
    }

    /// Running and ended jobs, by id.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Arc<Job>> {
        self.jobs.values()
    }

    pub fn by_id(&self, id: u64) -> Option<&Arc<Job>> {
        self.jobs.get(&id)
    }

    /// The name of this process for other proxies.
    pub fn instance(&self) -> &str {
        self.shared.peers.instance()
    }

    /// Lets reads avoid migrating circles, and prevents statements that remove data meanwhile.
    fn show(&self) {
        let is_moving = self.is_resyncing() || (0..self.migrating.len()).any(|circle| self.is_migrating(circle));
        self.stats.moving.store(is_moving, SeqCst);
        for (circle, flag) in self.stats.migrating.iter().enumerate() {
            flag.store(self.is_migrating(circle), Relaxed);
        }
    }
}

/// Asks the other proxies and saves the job, so that an accepted job survives a crash. A proxy that does not answer
/// does not prevent the job, which then waits for it.
fn begin(job: &Job, shared: &MigrationShared) -> Result<(), NotBegun> {
    let said: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = job.order.ha_addrs.iter().map(|addr| scope.spawn(|| shared.peers.ask(addr))).collect();
        asked.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    let conflict = said.into_iter().flatten().flatten().find_map(|said| coordination::conflict(&job.order.goal, &said));
    if let Some(text) = conflict {
        return Err(NotBegun::Conflict(text));
    }
    job.save(shared).map_err(|error| NotBegun::Failed(format!("cannot save the migration: {error}")))
}

/// Whether all circles of `goal` exist.
fn fits(goal: &Goal, circles: usize) -> bool {
    match goal {
        Goal::Rebalance { circle, .. } | Goal::Clear { circle } => *circle < circles,
        Goal::Recovery { from, to, .. } => *from < circles && *to < circles,
        Goal::Resync => true,
    }
}

fn spawn(id: u64, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(format!("migration-{id}")).spawn(run).map(drop)
}

/// The last run of a type that involved `circle`.
pub fn last_of<'a>(jobs: &'a Jobs, kind: &str, circle: usize) -> Option<&'a Arc<Job>> {
    let is_it = |job: &&Arc<Job>| {
        job.order.goal.name() == kind && job.look().counts.iter().any(|counts| counts.circle == circle)
    };
    jobs.all().rev().find(is_it)
}

//! The work of a migration's thread, from start to end.
//!
//! ```text
//!   tell peers -> settle -> [ inventory -> plan -> chains on `cpus` threads ] -> tell peers -> end of the transition
//!                             ^______________ a rebalance, until nothing is left ____|
//! ```
//!
//! A failed task does not stop the others. Not here: waiting and other proxies (`coordination.rs`), when reads switch
//! over (`marks.rs`), the state of the job (`job.rs`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::thread;

use fluxgate_dataplane::topology::Backend;
use serde::Serialize;

use super::checkpoint::TaskKey;
use super::coordination::{self, Awaited};
use super::job::{Job, JobState, MigrationShared, TaskEntry};
use super::order::{Counts, Order, TaskState};
use super::plan::{self, Chain, Goal, Inventory, Site, Task, Work};
use super::slices::Slice;
use super::world::CopyContext;
use crate::clock::unix_ms;
use crate::limits;

impl Job {
    pub(super) fn work(&self, shared: &MigrationShared, is_resumed: bool) {
        let text = if is_resumed { "resumed" } else { "started" };
        shared.journal.note(
            self.id,
            &format!("{text}: {}", serde_json::to_string(&WithoutPasswords(&self.order)).unwrap_or_default()),
        );
        let (begun_ms, mut peers) = (unix_ms(), self.order.ha_addrs.clone());
        if !self.announce_begin(shared, &mut peers, is_resumed) {
            return self.announce_end(shared, &peers, false);
        }
        let is_whole = self.while_reminding(shared, &peers, || self.move_all(shared, begun_ms));
        let ends = match self.order.goal {
            // Other databases may still be at their old places.
            Goal::Rebalance { circle, .. } if is_whole && self.order.dbs.is_empty() => Some(circle),
            _ => None,
        };
        self.announce_end(shared, &peers, ends.is_some());
        if let Some(circle) = ends.filter(|_| !self.is_failing())
            && let Err(error) = shared.world.end(circle, !peers.is_empty())
        {
            self.note_error(shared, format!("the transition of circle {circle} cannot end: {error}"));
        }
    }

    /// True when all is moved and all backends could be asked.
    fn move_all(&self, shared: &MigrationShared, begun_ms: u64) -> bool {
        let settled = self.wait_for_removals(shared) && self.settle(shared, begun_ms);
        let mut complete = false;
        for pass in 0..limits::REBALANCE_PASSES {
            let Some(asked_all) = self.take_inventory(shared, pass == 0) else { break };
            complete = settled && asked_all;
            let is_more = self.run_chains(shared, complete);
            // The next pass finds measurements that appeared at wrong places meanwhile, for example written by a proxy
            // with the old placement.
            let again = is_more && matches!(self.order.goal, Goal::Rebalance { .. });
            if !again || self.steering.is_cancelled() || self.is_failing() {
                break;
            }
            if pass + 1 == limits::REBALANCE_PASSES {
                self.note_error(
                    shared,
                    "measurements keep appearing at wrong places; perhaps a proxy with another placement is writing"
                        .into(),
                );
            }
        }
        complete && !self.steering.is_cancelled() && !self.is_failing()
    }

    fn is_failing(&self) -> bool {
        !self.look().errors.is_empty()
    }

    /// Plans from where measurements are now. Some = whether all backends could be asked; None = cancelled.
    fn take_inventory(&self, shared: &MigrationShared, is_first: bool) -> Option<bool> {
        let sites = plan::sites(&shared.topology, &self.order.goal);
        let wanted = self.order.goal.sources(&shared.topology);
        self.doing(shared, "looking for measurements");
        let mut inventory = Inventory::new();
        let mut complete = true;
        let answers: Vec<_> = thread::scope(|scope| {
            let asked = wanted.iter().map(|&site| {
                let backend = &sites[site];
                (site, scope.spawn(move || self.ask_inventory(shared, backend)))
            });
            let asked: Vec<_> = asked.collect();
            let panicked = || Err("the call panicked".to_owned());
            asked.into_iter().map(|(site, thread)| (site, thread.join().unwrap_or_else(|_| panicked()))).collect()
        });
        if self.steering.is_cancelled() {
            return None;
        }
        for (site, answer) in answers {
            match answer {
                Ok(databases) => _ = inventory.insert(site, databases),
                Err(error) => {
                    complete = false;
                    let (name, advice) = (&sites[site].name, self.order.goal.advice(&shared.topology, site));
                    self.note_error(shared, format!("backend {name}: cannot list its measurements: {error}; {advice}"));
                }
            }
        }
        let Order { goal, dbs, .. } = &self.order;
        let chains = plan::chains(goal, &inventory, &shared.topology, &shared.placement, dbs);
        let count = |&site: &Site| {
            let mut databases = BTreeMap::new();
            for place in plan::names(&inventory, site, dbs) {
                *databases.entry(place.db.to_owned()).or_default() += 1;
            }
            let Backend { circle, name, url, .. } = &sites[site];
            Counts { circle: *circle, name: name.clone(), url: url.clone(), databases }
        };
        let mut inner = self.look();
        // Later passes also see the copies of earlier ones.
        if is_first {
            inner.counts = wanted.iter().map(count).collect();
        }
        inner.plan(&chains, &sites);
        let (tasks, measurements) = (inner.entries.len(), chains.len());
        drop(inner);
        shared.journal.note(self.id, &format!("{measurements} measurements in this pass, {tasks} tasks in all"));
        self.save_if_due(shared);
        Some(complete)
    }

    fn ask_inventory(
        &self,
        shared: &MigrationShared,
        at: &Backend,
    ) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
        let mut attempt = 1;
        loop {
            match shared.world.inventory(at, &self.steering) {
                Err(_) if attempt < limits::INVENTORY_ATTEMPTS && self.steering.sleep(limits::INVENTORY_PAUSE) => {
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Runs all open tasks on `cpus` threads. False = there were none.
    fn run_chains(&self, shared: &MigrationShared, complete: bool) -> bool {
        let sites = plan::sites(&shared.topology, &self.order.goal);
        let mut chains = BTreeMap::<usize, Vec<usize>>::new();
        for (index, entry) in self.look().entries.iter().enumerate() {
            chains.entry(entry.chain).or_default().push(index);
        }
        let is_open = |index: &usize, inner: &JobState| inner.entries[*index].state == TaskState::Waiting;
        let (open, done): (Vec<_>, Vec<_>) = {
            let inner = self.look();
            chains.into_values().partition(|chain| chain.iter().any(|index| is_open(index, &inner)))
        };
        // Chains done before a restart may not have been marked yet.
        for chain in &done {
            self.note_verified(chain, complete);
        }
        self.doing(shared, coordination::MOVING);
        let (next, gone) = (AtomicUsize::new(0), Once::new());
        thread::scope(|scope| {
            for _ in 0..self.order.cpus.clamp(1, open.len().max(1)) {
                scope.spawn(|| {
                    while let Some(chain) = open.get(next.fetch_add(1, Relaxed)) {
                        self.run_chain(shared, &sites, chain, &gone);
                        self.note_verified(chain, complete);
                        self.mark_moved(shared, false);
                        self.save_if_due(shared);
                    }
                });
            }
        });
        self.mark_moved(shared, true);
        !open.is_empty()
    }

    /// `gone`: it is noted that another proxy is not waited for any more. Nothing more is copied then.
    fn run_chain(&self, shared: &MigrationShared, sites: &[Backend], chain: &[usize], gone: &Once) {
        for &index in chain {
            if !self.steering.wait_while_paused() {
                return;
            }
            let is_copy = matches!(self.look().entries[index].task.work, Work::Copy { .. });
            // A copy would move a slice and wait for the answer of that proxy before it knows.
            if is_copy && let Awaited::Gone(why) = self.awaited(shared) {
                return gone.call_once(|| self.note_error(shared, why));
            }
            let (task, slices, progress) = {
                let entry = &mut self.look().entries[index];
                if entry.state != TaskState::Waiting {
                    continue;
                }
                entry.state = TaskState::Running;
                (entry.task.clone(), entry.slices.clone(), Arc::clone(&entry.progress))
            };
            let note = |slice: &Slice| {
                self.look().entries[index].slices.push(slice.clone());
                self.save_if_due(shared);
            };
            let delivered = |source: &Backend, target: &Backend| self.delivered(shared, source, target);
            let context = CopyContext {
                since_ns: self.order.since_ns,
                steering: &self.steering,
                progress: &progress,
                delivered: &delivered,
                done: slices,
                note: &note,
            };
            let done = catch_unwind(AssertUnwindSafe(|| self.run_task(shared, sites, &task, &context)));
            let done = done.unwrap_or_else(|_| Err("panicked".to_owned()));
            let (state, error) = match done {
                Ok(()) => (TaskState::Done, None),
                Err(_) if self.steering.is_cancelled() => (TaskState::Waiting, None),
                Err(error) => (TaskState::Failed, Some(error)),
            };
            if let Some(error) = &error {
                let (at, other) = (&sites[task.at].name, &sites[task.work.other()].name);
                let verb = if matches!(task.work, Work::Copy { .. }) { "to" } else { "for" };
                self.note_error(
                    shared,
                    format!("{:?}.{:?} from {at} {verb} {other}: {error}", task.place.db, task.place.measurement),
                );
            }
            let expired = progress.points_expired.load(Relaxed);
            if state == TaskState::Done && expired > 0 {
                let (at, other) = (&sites[task.at].name, &sites[task.work.other()].name);
                let text = format!(
                    "{:?}.{:?} from {at}: {expired} points are left out, which {other} refuses: they are older than \
                     their retention policy allows",
                    task.place.db, task.place.measurement
                );
                shared.journal.note(self.id, &text);
            }
            let entry = &mut self.look().entries[index];
            (entry.state, entry.error) = (state, error);
            if state == TaskState::Done {
                entry.slices = Vec::new();
            }
        }
    }

    fn run_task(
        &self,
        shared: &MigrationShared,
        sites: &[Backend],
        task: &Task,
        context: &CopyContext<'_>,
    ) -> Result<(), String> {
        let (at, other) = (&sites[task.at], &sites[task.work.other()]);
        match task.work {
            Work::Copy { .. } => shared.world.copy(task, at, other, context),
            Work::Delete { .. } if shared.world.is_moving(other.circle, &task.place) => {
                Err("it is not moved yet and queries still read it here: rebalance the circle first".to_owned())
            }
            Work::Delete { .. } if !self.wait_for_readers(shared, other.circle) => Err("cancelled".to_owned()),
            Work::Delete { .. } => shared.world.delete(task, at, other, context),
        }
    }
}

impl JobState {
    /// Adds the new tasks of `chains`. Known tasks stay as they are.
    fn plan(&mut self, chains: &[Chain], sites: &[Backend]) {
        let known: HashSet<TaskKey> = self.entries.iter().map(|entry| entry.key.clone()).collect();
        let first = self.entries.last().map_or(0, |entry| entry.chain + 1);
        for (number, chain) in chains.iter().enumerate() {
            for task in chain {
                let key = TaskKey {
                    db: task.place.db.clone(),
                    measurement: task.place.measurement.clone(),
                    from: sites[task.at].name.clone(),
                    to: sites[task.work.other()].name.clone(),
                };
                if known.contains(&key) {
                    continue;
                }
                let entry = match self.former.remove(&key) {
                    // A task that failed before a restart is tried again; within one run its error is final.
                    Some(mut former) => {
                        if former.state != TaskState::Done {
                            (former.state, former.error) = (TaskState::Waiting, None);
                        }
                        TaskEntry::former(task.clone(), first + number, &former)
                    }
                    None => TaskEntry {
                        task: task.clone(),
                        key,
                        chain: first + number,
                        state: TaskState::Waiting,
                        progress: Arc::default(),
                        slices: Vec::new(),
                        error: None,
                    },
                };
                self.entries.push(entry);
            }
        }
    }
}

/// An order without passwords.
struct WithoutPasswords<'a>(&'a Order);

impl Serialize for WithoutPasswords<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut order = self.0.clone();
        if let Goal::Rebalance { removed, .. } = &mut order.goal {
            removed.iter_mut().for_each(|removed| removed.password.clear());
        }
        order.serialize(serializer)
    }
}

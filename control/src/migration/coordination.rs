//! What a job waits for, and what it tells other proxies.
//!
//! Other proxies hear of a migration before it begins, while it runs and when it ends. A job waits until points
//! accepted before it began are delivered, those of other proxies too.
//!
//! Not here: the calls to other proxies themselves (`peers.rs`).

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use fluxgate_dataplane::topology::{Backend, BackendId};

use super::job::{Job, MigrationShared, unix_ms};
use super::order::Undelivered;
use super::peers::{self, Heard, PeerChange, Said};
use super::plan::Goal;
use crate::limits;

/// What a job says it is at while its chains run.
pub(super) const MOVING: &str = "moving measurements";

impl Job {
    /// Tells all other proxies, and takes this one out of the list. One that does not answer is asked until it does;
    /// false = cancelled, or another one does what would conflict.
    pub(super) fn meet_peers(&self, shared: &MigrationShared, peers: &mut Vec<String>, is_resumed: bool) -> bool {
        let mut told = HashSet::new();
        let mut attempt = 0;
        loop {
            let mut silent = Vec::new();
            for addr in peers.clone().into_iter().filter(|addr| !told.contains(addr)).collect::<Vec<_>>() {
                match shared.peers.ask(&addr) {
                    Ok(Said::Myself) => peers.retain(|peer| *peer != addr),
                    // After a restart it may still have been told of this very migration.
                    Ok(said) if !is_resumed && conflict(&self.order.goal, &said).is_some() => {
                        self.complain(
                            shared,
                            format!("{addr}: {}", conflict(&self.order.goal, &said).unwrap_or_default()),
                        );
                        // This one has never been told anything.
                        peers.retain(|peer| told.contains(peer));
                        return false;
                    }
                    Ok(_) => match self.remind(shared, &addr) {
                        Ok(()) => _ = told.insert(addr),
                        Err(error) => silent.push(format!("{addr}: {error}")),
                    },
                    Err(error) => silent.push(format!("{addr}: {error}")),
                }
            }
            if silent.is_empty() {
                return !self.steering.is_cancelled();
            }
            self.doing(shared, &format!("waiting for other proxies: {}", silent.join(", ")));
            if !self.steering.sleep(peers::pause(attempt)) {
                peers.retain(|peer| told.contains(peer));
                return false;
            }
            attempt += 1;
        }
    }

    /// Does `work`, and meanwhile tells all other proxies again and again: one that was started again knows nothing.
    /// What they say is kept.
    pub(super) fn while_reminding<T>(&self, shared: &MigrationShared, peers: &[String], work: impl FnOnce() -> T) -> T {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Also when `work` panics: the scope waits for all threads.
            let _over = Over(&is_over);
            for addr in peers {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut reminded = Instant::now();
                    while !is_over.load(Relaxed) {
                        if reminded.elapsed() >= limits::PEER_REMINDER {
                            // It may only be starting again.
                            let _ = self.remind(shared, addr);
                            reminded = Instant::now();
                        }
                        thread::sleep(limits::MIGRATION_NAP);
                    }
                });
            }
            work()
        })
    }

    /// Tells another proxy that this migration goes on, and notes what it says.
    fn remind(&self, shared: &MigrationShared, addr: &str) -> Result<(), String> {
        let at_ms = unix_ms();
        let result = shared.peers.tell(addr, self.change(true, false));
        let mut inner = self.look();
        match result {
            Ok(waiting) => _ = inner.heard.insert(addr.to_owned(), Heard { at_ms, waiting, is_silent: false }),
            Err(error) => {
                if let Some(heard) = inner.heard.get_mut(addr) {
                    heard.is_silent = true;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// True while points that were accepted before `ms` (since 1970), here or by another proxy, are not delivered to
    /// `backend`, or another proxy has not been heard of since.
    pub(super) fn is_behind(&self, shared: &MigrationShared, backend: BackendId, ms: u64) -> bool {
        shared.world.is_behind(backend, ms) || self.look().heard.values().any(|heard| heard.is_behind(backend, ms))
    }

    /// True while another proxy does not answer, whose points may be waited for: nobody knows for how long.
    pub(super) fn waits_for_peers(&self, shared: &MigrationShared) -> bool {
        let silent = self
            .look()
            .heard
            .iter()
            .filter(|(_, heard)| heard.is_silent)
            .map(|(addr, _)| &addr[..])
            .collect::<Vec<_>>()
            .join(", ");
        if !silent.is_empty() {
            self.doing(shared, &format!("waiting for other proxies, which may hold points: {silent}"));
        }
        !silent.is_empty()
    }

    /// Tells all other proxies of the end. One that does not answer is told again until it does, or the job is
    /// cancelled.
    pub(super) fn part_from_peers(&self, shared: &MigrationShared, peers: &[String], moved: bool) {
        let mut left: Vec<String> = peers.to_vec();
        let (mut attempt, mut give_up) = (0, None);
        loop {
            let mut silent = Vec::new();
            left.retain(|addr| match shared.peers.tell(addr, self.change(false, moved)) {
                Ok(_) => false,
                Err(error) => {
                    silent.push(format!("{addr}: {error}"));
                    true
                }
            });
            if left.is_empty() {
                return;
            }
            self.doing(shared, &format!("telling other proxies of the end: {}", silent.join(", ")));
            if self.steering.is_cancelled() {
                let until = *give_up.get_or_insert(Instant::now() + limits::PEER_CANCEL_TIMEOUT);
                if Instant::now() >= until {
                    return self.complain(shared, format!("not told of the end: {}", silent.join(", ")));
                }
                thread::sleep(limits::MIGRATION_STEP);
            } else {
                self.steering.sleep(peers::pause(attempt));
            }
            attempt += 1;
        }
    }

    fn change(&self, begins: bool, moved: bool) -> PeerChange {
        match self.order.goal.migrating() {
            Some(circle) => PeerChange::Migrating { circle, migrating: begins, moved },
            None => PeerChange::Resyncing(begins),
        }
    }

    /// Waits for statements that remove data: what they have not reached yet must not be copied. They end with
    /// `query_timeout`. False = cancelled.
    pub(super) fn wait_for_removals(&self, shared: &MigrationShared) -> bool {
        while shared.world.is_removing() {
            self.doing(shared, "waiting for a DELETE or DROP that is under way");
            if !self.steering.sleep(limits::MIGRATION_STEP) {
                return false;
            }
        }
        true
    }

    /// Waits until what was acknowledged before `ms` (since 1970) is delivered: a copy made earlier would lack it.
    /// False = not in time.
    pub(super) fn settle(&self, shared: &MigrationShared, ms: u64) -> bool {
        let mut until = Instant::now() + limits::SETTLE_TIMEOUT;
        let sources = self.order.goal.sources(&shared.topology);
        let mut behind: Vec<&Backend> = sources.iter().filter_map(|&site| shared.topology.backends.get(site)).collect();
        loop {
            behind.retain(|backend| self.is_behind(shared, backend.id, ms));
            let names: Vec<_> = behind.iter().map(|backend| backend.name.as_str()).collect();
            if names.is_empty() {
                return true;
            }
            if self.waits_for_peers(shared) {
                until = Instant::now() + limits::SETTLE_TIMEOUT;
            } else if Instant::now() >= until {
                let text = format!("points from before this migration still wait for {}", names.join(", "));
                self.complain(shared, text);
                return false;
            } else {
                self.doing(shared, &format!("waiting until earlier points are delivered to {}", names.join(", ")));
            }
            if !self.steering.sleep(limits::MIGRATION_STEP) {
                return false;
            }
        }
    }
}

impl Job {
    /// The barrier before a look at a slice (see `verify`): waits until the source, and the target if that does not
    /// take long, have got what this proxy and the others had taken when it was called.
    pub(super) fn delivered(
        &self,
        shared: &MigrationShared,
        source: &Backend,
        target: &Backend,
    ) -> Result<(), Undelivered> {
        let (now_ms, begun) = (unix_ms(), Instant::now());
        // Else each slice would wait for the next reminder.
        let others: Vec<String> = self.look().heard.keys().cloned().collect();
        for addr in &others {
            // A silent one counts as behind, and is waited for below.
            let _ = self.remind(shared, addr);
        }
        let mut until = begun + limits::BARRIER_TIMEOUT;
        let (mut pause, mut is_told) = (limits::BARRIER_STEP_MIN, false);
        let result = loop {
            let is_late = |backend: &Backend| self.is_behind(shared, backend.id, now_ms);
            // What the target lacks comes after all that is there, and so does no harm.
            let waits_for = match is_late(source) {
                true => &source.name,
                false if begun.elapsed() < limits::BARRIER_TARGET_TIMEOUT && is_late(target) => &target.name,
                false => break Ok(()),
            };
            if begun.elapsed() >= limits::BARRIER_QUIET {
                if self.waits_for_peers(shared) {
                    until = Instant::now() + limits::BARRIER_TIMEOUT;
                } else {
                    self.doing(shared, &format!("waiting until earlier points are delivered to {waits_for}"));
                }
                is_told = true;
            }
            if Instant::now() >= until {
                break Err(Undelivered::Late(format!("points taken meanwhile still wait for {waits_for}")));
            }
            if !self.steering.sleep(pause) {
                break Err(Undelivered::Cancelled);
            }
            pause = (pause * 2).min(limits::MIGRATION_STEP);
        };
        if is_told {
            self.doing(shared, MOVING);
        }
        result
    }

    /// Before anything is removed: waits until no query can be reading it where it was. False = cancelled.
    pub(super) fn wait_for_readers(&self, shared: &MigrationShared, circle: usize) -> bool {
        let mut is_told = false;
        while let Some(until) = shared.world.former_read_until(circle).filter(|until| *until > Instant::now()) {
            self.doing(shared, "waiting for the end of queries that began before the transition ended (query_timeout)");
            is_told = true;
            let left = until.saturating_duration_since(Instant::now());
            if !self.steering.sleep(left.min(limits::MIGRATION_STEP)) {
                return false;
            }
        }
        if is_told {
            self.doing(shared, MOVING);
        }
        !self.steering.is_cancelled()
    }
}

/// Why `goal` cannot begin while a proxy is in this state, in influx-proxy's words.
pub fn conflict(goal: &Goal, said: &Said) -> Option<String> {
    let Said::State { migrating, resyncing } = said else { return None };
    let is = |circle: &usize| migrating.get(*circle) == Some(&true);
    let text = match goal {
        Goal::Rebalance { circle, .. } | Goal::Clear { circle } => {
            is(circle).then(|| format!("circle {circle} is migrating"))
        }
        Goal::Recovery { from, to, .. } => (is(from) || is(to)).then(|| format!("circle {from} or {to} is migrating")),
        Goal::Resync => {
            (0..migrating.len()).find(|circle| is(circle)).map(|circle| format!("circle {circle} is migrating"))
        }
    };
    text.or_else(|| resyncing.then(|| "proxy is resyncing".to_owned()))
}

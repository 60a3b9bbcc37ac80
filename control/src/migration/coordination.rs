//! Waits of a job, and its messages to other proxies.
//!
//! Other proxies are told of a migration before it begins, while it runs and when it ends. A job waits until points
//! accepted before it began are delivered, by this proxy and by the others.
//!
//! Not here: the calls to other proxies themselves (`peers.rs`).

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Instant;

use fluxgate_dataplane::topology::{Backend, BackendId};

use super::job::{Job, MigrationShared};
use super::order::Undelivered;
use super::peers::{self, PeerAnswer, PeerBacklog, PeerChange, PeerKind, PeerTold};
use super::plan::Goal;
use crate::clock::unix_ms;
use crate::limits;

/// What a job shows while its chains run.
pub(super) const MOVING: &str = "moving measurements";

/// Whom a job waits for.
pub(super) enum Awaited {
    /// Only backends that get points.
    Backends,
    /// Other proxies that do not say what they hold, and may do so again: points may wait for an unknown time. The text
    /// names them.
    Peers(String),
    /// One of them is not waited for any more. The text says why the job cannot be done.
    Gone(String),
}

/// Another proxy has not said which points it holds.
struct Unheard {
    /// It knows of the migration, so it must be told of the end.
    is_told: bool,
    error: String,
}

impl Job {
    /// Tells all other proxies, and removes this proxy from the list. A proxy that does not answer is asked until it
    /// does, or for as long as it may be silent. False = cancelled, not told, or another proxy has a conflict: the list
    /// then has those that may know of it.
    pub(super) fn announce_begin(&self, shared: &MigrationShared, peers: &mut Vec<String>, is_resumed: bool) -> bool {
        let (mut told, mut heard) = (HashSet::new(), HashSet::new());
        // Before a restart it may have been told as well.
        let may_know = |told: &HashSet<String>, addr: &String| is_resumed || told.contains(addr);
        let (mut attempt, begun) = (0, Instant::now());
        loop {
            let mut silent = Vec::new();
            for addr in peers.clone().into_iter().filter(|addr| !heard.contains(addr)).collect::<Vec<_>>() {
                match shared.peers.ask(&addr) {
                    Ok(PeerAnswer::ThisProxy) => peers.retain(|peer| *peer != addr),
                    // One that has been told names this same migration.
                    Ok(said) if !may_know(&told, &addr) && conflict(&self.order.goal, &said).is_some() => {
                        self.note_error(
                            shared,
                            format!("{addr}: {}", conflict(&self.order.goal, &said).unwrap_or_default()),
                        );
                        peers.retain(|peer| may_know(&told, peer));
                        return false;
                    }
                    Ok(_) => match self.remind(shared, &addr) {
                        Ok(()) => {
                            self.note_kind(shared, &addr);
                            told.insert(addr.clone());
                            heard.insert(addr);
                        }
                        Err(Unheard { is_told, error }) => {
                            silent.push(format!("{addr}: {error}"));
                            if is_told {
                                told.insert(addr);
                            }
                        }
                    },
                    Err(error) => silent.push(format!("{addr}: {error}")),
                }
            }
            if silent.is_empty() {
                return !self.steering.is_cancelled();
            }
            if begun.elapsed() >= shared.peers.silence_max {
                self.note_error(shared, format!("other proxies cannot be told of this: {}", silent.join(", ")));
                peers.retain(|peer| may_know(&told, peer));
                return false;
            }
            self.doing(shared, &format!("waiting for other proxies: {}", silent.join(", ")));
            if !self.steering.sleep(peers::pause(attempt)) {
                peers.retain(|peer| may_know(&told, peer));
                return false;
            }
            attempt += 1;
        }
    }

    /// Says what is not known of the points that an influx-proxy holds.
    fn note_kind(&self, shared: &MigrationShared, addr: &str) {
        let note = self.look().peer_backlogs.get(addr).and_then(|heard| heard.kind.note());
        if let Some(note) = note {
            log::warn!("migration {}: {addr} {note}", self.id);
            shared.journal.note(self.id, &format!("{addr} {note}"));
        }
    }

    /// Runs `work`. Meanwhile repeats the message to all other proxies, since a restarted proxy knows nothing, and
    /// keeps their answers.
    pub(super) fn while_reminding<T>(&self, shared: &MigrationShared, peers: &[String], work: impl FnOnce() -> T) -> T {
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Set when `work` panics, too: the scope waits for all threads.
            let _over = Over(&is_over);
            for addr in peers {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut reminded = Instant::now();
                    while !is_over.load(Relaxed) {
                        if reminded.elapsed() >= limits::PEER_REMINDER {
                            // On an error it may just be restarting.
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

    /// Tells another proxy that this migration goes on, and notes its answer.
    fn remind(&self, shared: &MigrationShared, addr: &str) -> Result<(), Unheard> {
        let at_ms = unix_ms();
        let heard = match shared.peers.tell(addr, self.change(true, false)) {
            Ok(PeerTold { kind: kind @ PeerKind::Newer, .. }) => {
                let cached = shared.peers.cached(addr).map(|waiting| (waiting, kind));
                cached.map_err(|error| Unheard { is_told: true, error })
            }
            Ok(PeerTold { waiting, kind }) => Ok((waiting, kind)),
            Err(error) => Err(Unheard { is_told: false, error }),
        };
        let mut inner = self.look();
        match heard {
            Ok((waiting, kind)) => {
                let heard = PeerBacklog { at_ms, waiting, kind, silent: None };
                _ = inner.peer_backlogs.insert(addr.to_owned(), heard);
            }
            Err(unheard) => {
                if let Some(heard) = inner.peer_backlogs.get_mut(addr) {
                    heard.silent = Some(unheard.error.clone());
                }
                return Err(unheard);
            }
        }
        Ok(())
    }

    /// True while points accepted before `ms` (since 1970), by this proxy or another, are not delivered to `backend`,
    /// or another proxy has not answered since.
    pub(super) fn is_behind(&self, shared: &MigrationShared, backend: BackendId, ms: u64) -> bool {
        shared.world.is_behind(backend, ms)
            || self.look().peer_backlogs.values().any(|heard| heard.is_behind(backend, ms))
    }

    /// The same, for points of which an influx-proxy says nothing as well.
    fn may_be_behind(&self, shared: &MigrationShared, backend: BackendId, ms: u64) -> bool {
        shared.world.is_behind(backend, ms)
            || self.look().peer_backlogs.values().any(|heard| heard.may_be_behind(backend, ms))
    }

    /// Whom a job waits for while points are not delivered.
    pub(super) fn awaited(&self, shared: &MigrationShared) -> Awaited {
        let (now_ms, silence_max) = (unix_ms(), shared.peers.silence_max);
        let inner = self.look();
        let mut silent = Vec::new();
        for (addr, heard) in &inner.peer_backlogs {
            let why = heard.silent.as_deref().unwrap_or_default();
            if heard.is_gone(now_ms, silence_max) {
                return Awaited::Gone(format!(
                    "the proxy {addr} has not said for {} s which points it holds: {why}: run this again when it does, \
                     or, if it is gone for good, without it in peers and ha_addrs",
                    silence_max.as_secs()
                ));
            }
            if heard.is_awaited(now_ms, silence_max) {
                silent.push(format!("{addr}: {why}"));
            }
        }
        match silent.is_empty() {
            true => Awaited::Backends,
            false => Awaited::Peers(format!("waiting for other proxies that may hold points: {}", silent.join(", "))),
        }
    }

    /// Tells all other proxies of the end. A proxy that does not answer is told again until it does, or for as long as
    /// it may be silent; its silence before the end counts.
    pub(super) fn announce_end(&self, shared: &MigrationShared, peers: &[String], moved: bool) {
        let mut left: Vec<String> = peers.to_vec();
        let (mut attempt, mut give_up) = (0, Instant::now() + shared.peers.silence_max);
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
            let now_ms = unix_ms();
            let is_gone = |addr: &String| {
                let silence_max = shared.peers.silence_max;
                self.look().peer_backlogs.get(addr).is_some_and(|heard| heard.is_gone(now_ms, silence_max))
            };
            if Instant::now() >= give_up || left.iter().all(is_gone) {
                return self.note_error(shared, format!("other proxies do not know of the end: {}", silent.join(", ")));
            }
            if self.steering.is_cancelled() {
                give_up = give_up.min(Instant::now() + limits::PEER_CANCEL_TIMEOUT);
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

    /// Waits for running statements that remove data: data that they have not reached yet must not be copied. They end
    /// within `query_timeout`. False = cancelled.
    pub(super) fn wait_for_removals(&self, shared: &MigrationShared) -> bool {
        while shared.world.is_removing() {
            self.doing(shared, "waiting for a DELETE or DROP that is under way");
            if !self.steering.sleep(limits::MIGRATION_STEP) {
                return false;
            }
        }
        true
    }

    /// Waits until points acknowledged before `ms` (since 1970) are delivered: an earlier copy would lack them. False =
    /// not in time, or cancelled.
    pub(super) fn settle(&self, shared: &MigrationShared, ms: u64) -> bool {
        let mut until = Instant::now() + limits::SETTLE_TIMEOUT;
        let sources = self.order.goal.sources(&shared.topology);
        let mut behind: Vec<&Backend> = sources.iter().filter_map(|&site| shared.topology.backends.get(site)).collect();
        loop {
            behind.retain(|backend| self.may_be_behind(shared, backend.id, ms));
            let names: Vec<_> = behind.iter().map(|backend| backend.name.as_str()).collect();
            if names.is_empty() {
                return true;
            }
            match self.awaited(shared) {
                Awaited::Gone(why) => {
                    self.note_error(shared, why);
                    return false;
                }
                Awaited::Peers(text) => {
                    self.doing(shared, &text);
                    until = Instant::now() + limits::SETTLE_TIMEOUT;
                }
                Awaited::Backends if Instant::now() >= until => {
                    let text =
                        format!("points accepted before this migration are not delivered to {} yet", names.join(", "));
                    self.note_error(shared, text);
                    return false;
                }
                Awaited::Backends => self.waits_for_points(shared, &behind),
            }
            if !self.steering.sleep(limits::MIGRATION_STEP) {
                return false;
            }
        }
    }
}

impl Job {
    /// The barrier before a comparison of a slice (see `verify`): waits until the source, and for a short time the
    /// target, have received all points that this proxy and the others accepted before the call.
    pub(super) fn delivered(
        &self,
        shared: &MigrationShared,
        source: &Backend,
        target: &Backend,
    ) -> Result<(), Undelivered> {
        let (now_ms, begun) = (unix_ms(), Instant::now());
        // Without this each slice would wait for the next reminder.
        let others: Vec<String> = self.look().peer_backlogs.keys().cloned().collect();
        for addr in &others {
            // On an error the proxy counts as behind; the loop below waits for it.
            let _ = self.remind(shared, addr);
        }
        let mut until = begun + limits::BARRIER_TIMEOUT;
        let (mut pause, mut is_told) = (limits::BARRIER_STEP_MIN, false);
        let result = loop {
            let is_late = |backend: &Backend| self.is_behind(shared, backend.id, now_ms);
            // Points that the target lacks are newer than all it has, so they do no harm.
            let waits_for = match is_late(source) {
                true => source,
                false if begun.elapsed() < limits::BARRIER_TARGET_TIMEOUT && is_late(target) => target,
                false => break Ok(()),
            };
            let is_long = begun.elapsed() >= limits::BARRIER_QUIET;
            match self.awaited(shared) {
                Awaited::Gone(why) => break Err(Undelivered::Gone(why)),
                Awaited::Peers(text) => {
                    if is_long {
                        self.doing(shared, &text);
                    }
                    until = Instant::now() + limits::BARRIER_TIMEOUT;
                }
                Awaited::Backends if Instant::now() >= until => {
                    let text = format!("points accepted meanwhile are not delivered to {} yet", waits_for.name);
                    break Err(Undelivered::Late(text));
                }
                Awaited::Backends if is_long => self.waits_for_points(shared, &[waits_for]),
                Awaited::Backends => {}
            }
            is_told |= is_long;
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

    /// Says that the job waits for these backends, and how much they still have to get.
    fn waits_for_points(&self, shared: &MigrationShared, behind: &[&Backend]) {
        let names: Vec<_> = behind.iter().map(|backend| backend.name.as_str()).collect();
        let points = |backend: &&Backend| {
            (backend.id.index() < shared.topology.backends.len())
                .then(|| format!("{} for {}", shared.world.queued_points(backend.id), backend.name))
        };
        let points: Vec<_> = behind.iter().filter_map(points).collect();
        let text = format!("waiting until earlier points are delivered to {}", names.join(", "));
        self.doing_with(shared, &text, &format!(" (points: {})", points.join(", ")));
    }

    /// Before data is removed: waits until no query can still be reading it there. False = cancelled.
    pub(super) fn wait_for_readers(&self, shared: &MigrationShared, circle: usize) -> bool {
        let mut is_told = false;
        while let Some(until) = shared.world.former_read_until(circle).filter(|until| *until > Instant::now()) {
            let left = until.saturating_duration_since(Instant::now());
            let text = "waiting for the end of queries that began before the transition ended, up to query_timeout";
            self.doing_with(shared, text, &format!(" ({} s left)", left.as_secs()));
            is_told = true;
            if !self.steering.sleep(left.min(limits::MIGRATION_STEP)) {
                return false;
            }
        }
        if is_told {
            self.doing(shared, MOVING);
            self.look().working_since = Instant::now();
        }
        !self.steering.is_cancelled()
    }
}

/// Why `goal` cannot begin while a proxy is in this state, in influx-proxy's text.
pub fn conflict(goal: &Goal, said: &PeerAnswer) -> Option<String> {
    let PeerAnswer::State { migrating, resyncing } = said else { return None };
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

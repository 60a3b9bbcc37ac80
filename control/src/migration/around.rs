//! What a job does around its work: other proxies are told, and points and queries from before are waited for.
//!
//! Not here: the calls to other proxies themselves (`peers.rs`).

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use fluxgate_dataplane::topology::Backend;

use super::copy::Undelivered;
use super::job::{House, Job, unix_ms};
use super::peers::{self, Change, Said};
use super::plan::Goal;
use crate::limits;

/// What a job says it is at while its chains run.
pub(super) const MOVING: &str = "moving measurements";

impl Job {
    /// Tells all other proxies, and takes this one out of the list. One that does not answer is asked until it does;
    /// false = cancelled, or another one does what would conflict.
    pub(super) fn meet_peers(&self, house: &House, peers: &mut Vec<String>, is_resumed: bool) -> bool {
        let mut told = HashSet::new();
        let mut attempt = 0;
        loop {
            let mut silent = Vec::new();
            for addr in peers.clone().into_iter().filter(|addr| !told.contains(addr)).collect::<Vec<_>>() {
                match house.peers.ask(&addr) {
                    Ok(Said::Myself) => peers.retain(|peer| *peer != addr),
                    // After a restart it may still have been told of this very migration.
                    Ok(said) if !is_resumed && conflict(&self.order.goal, &said).is_some() => {
                        self.complain(
                            house,
                            format!("{addr}: {}", conflict(&self.order.goal, &said).unwrap_or_default()),
                        );
                        // This one has never been told anything.
                        peers.retain(|peer| told.contains(peer));
                        return false;
                    }
                    Ok(_) => match house.peers.tell(&addr, self.change(true, false)) {
                        Ok(()) => _ = told.insert(addr),
                        Err(error) => silent.push(format!("{addr}: {error}")),
                    },
                    Err(error) => silent.push(format!("{addr}: {error}")),
                }
            }
            if silent.is_empty() {
                return !self.steering.is_cancelled();
            }
            self.doing(house, &format!("waiting for other proxies: {}", silent.join(", ")));
            if !self.steering.sleep(peers::pause(attempt)) {
                peers.retain(|peer| told.contains(peer));
                return false;
            }
            attempt += 1;
        }
    }

    /// Tells all other proxies of the end. One that does not answer is told again until it does, or the job is cancelled.
    pub(super) fn part_from_peers(&self, house: &House, peers: &[String], moved: bool) {
        let mut left: Vec<String> = peers.to_vec();
        let (mut attempt, mut give_up) = (0, None);
        loop {
            let mut silent = Vec::new();
            left.retain(|addr| match house.peers.tell(addr, self.change(false, moved)) {
                Ok(()) => false,
                Err(error) => {
                    silent.push(format!("{addr}: {error}"));
                    true
                }
            });
            if left.is_empty() {
                return;
            }
            self.doing(house, &format!("telling other proxies of the end: {}", silent.join(", ")));
            if self.steering.is_cancelled() {
                let until = *give_up.get_or_insert(Instant::now() + limits::PEER_CANCEL_TIMEOUT);
                if Instant::now() >= until {
                    return self.complain(house, format!("not told of the end: {}", silent.join(", ")));
                }
                thread::sleep(limits::MIGRATION_STEP);
            } else {
                self.steering.sleep(peers::pause(attempt));
            }
            attempt += 1;
        }
    }

    fn change(&self, begins: bool, moved: bool) -> Change {
        match self.order.goal.migrating() {
            Some(circle) => Change::Migrating { circle, migrating: begins, moved },
            None => Change::Resyncing(begins),
        }
    }

    /// Waits until what was acknowledged before the job is delivered to where it is copied from: before that, points may yet appear there in
    /// places that have been found empty. False = not in time.
    pub(super) fn settle(&self, house: &House) -> bool {
        let sources = self.order.goal.sources(&house.topology);
        let sources: Vec<&Backend> = sources.iter().filter_map(|&site| house.topology.backends.get(site)).collect();
        match self.caught_up(house, &sources, limits::SETTLE_TIMEOUT) {
            Ok(()) => true,
            Err(Undelivered::Cancelled) => false,
            Err(Undelivered::Late(whom)) => {
                self.complain(house, format!("points from before this migration still wait for {whom}"));
                false
            }
        }
    }

    /// The barrier before a look at a slice: see `verify`.
    pub(super) fn delivered(&self, house: &House, source: &Backend, target: &Backend) -> Result<(), Undelivered> {
        let late = |whom| Undelivered::Late(format!("points taken meanwhile still wait for {whom}"));
        match self.caught_up(house, &[source, target], limits::BARRIER_TARGET_TIMEOUT) {
            // What the target lacks comes after all that is there, and so does no harm.
            Err(Undelivered::Late(_)) => match self.caught_up(house, &[source], limits::BARRIER_TIMEOUT) {
                Err(Undelivered::Late(whom)) => Err(late(whom)),
                result => result,
            },
            result => result,
        }
    }

    /// Waits until all that this proxy and the others had taken when this was called is delivered to `backends`. A proxy that does not
    /// answer is asked until it does: what it holds is not known. Each one's time is compared with its own clock only.
    pub(super) fn caught_up(
        &self,
        house: &House,
        backends: &[&Backend],
        patience: Duration,
    ) -> Result<(), Undelivered> {
        let now_ms = unix_ms();
        let begun = Instant::now();
        let mut until = begun + patience;
        let mut behind = backends.to_vec();
        // With the time at which each was asked first.
        let mut peers: Vec<(String, Option<u64>)> = self.look().peers.iter().map(|addr| (addr.clone(), None)).collect();
        let (mut pause, mut attempt, mut is_told) = (limits::BARRIER_STEP_MIN, 0, false);
        let result = loop {
            behind.retain(|backend| house.ground.is_behind(backend.id, now_ms));
            let mut waits_for: Vec<String> = behind.iter().map(|backend| backend.name.clone()).collect();
            let mut silent = 0;
            peers.retain_mut(|(addr, since_ms)| match house.peers.backlog(addr) {
                Ok(Some(backlog)) => {
                    let since_ms = *since_ms.get_or_insert(backlog.now_ms);
                    let late = backends.iter().filter(|backend| backlog.is_behind(backend, since_ms));
                    let before = waits_for.len();
                    waits_for.extend(late.map(|backend| format!("{} (at proxy {addr})", backend.name)));
                    waits_for.len() > before
                }
                Ok(None) => {
                    self.look().peers.retain(|peer| peer != addr);
                    house.log.note(self.id, &format!("proxy {addr} does not tell what it has not delivered yet"));
                    false
                }
                Err(error) => {
                    silent += 1;
                    waits_for.push(format!("proxy {addr}: {error}"));
                    true
                }
            });
            if waits_for.is_empty() {
                break Ok(());
            }
            if silent > 0 {
                until = Instant::now() + patience;
                pause = peers::pause(attempt);
                attempt += 1;
            }
            let waits_for = waits_for.join(", ");
            if Instant::now() >= until {
                break Err(Undelivered::Late(waits_for));
            }
            if begun.elapsed() >= limits::BARRIER_QUIET {
                self.doing(house, &format!("waiting until earlier points are delivered to {waits_for}"));
                is_told = true;
            }
            if !self.steering.sleep(pause) {
                break Err(Undelivered::Cancelled);
            }
            pause = (pause * 2).min(limits::MIGRATION_STEP);
        };
        if is_told {
            self.doing(house, MOVING);
        }
        result
    }

    /// Before anything is removed: waits until no query can be reading it where it was. False = cancelled.
    pub(super) fn wait_for_readers(&self, house: &House, circle: usize) -> bool {
        let mut is_told = false;
        while let Some(until) = house.ground.former_read_until(circle).filter(|until| *until > Instant::now()) {
            self.doing(house, "waiting for the end of queries that began before the transition ended (query_timeout)");
            is_told = true;
            let left = until.saturating_duration_since(Instant::now());
            if !self.steering.sleep(left.min(limits::MIGRATION_STEP)) {
                return false;
            }
        }
        if is_told {
            self.doing(house, MOVING);
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

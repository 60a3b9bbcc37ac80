//! Reads switch over to what a rebalance has moved: measurement by measurement, many at a time.
//!
//! Not here: what a mark means for reads and writes (`transition`), and the end, when all reads switch (`job.rs`).

use std::collections::BTreeSet;
use std::time::Instant;

use fluxgate_dataplane::topology::{Backend, BackendId};

use super::copy::Undelivered;
use super::job::{House, Job, TaskState, unix_ms};
use super::plan::{Goal, Task};
use crate::limits;

/// A measurement that is whole at its owner, once that has got what was taken before `at_ms` (since 1970).
#[derive(Debug)]
pub(super) struct Verified {
    circle: usize,
    /// Database, measurement.
    place: (String, String),
    owner: BackendId,
    at_ms: u64,
}

impl Job {
    /// Reads may switch once all of a measurement is at its new place, and no place is unknown where there could be more.
    pub(super) fn note_verified(&self, chain: &[usize], complete: bool) {
        let Goal::Rebalance { circle, .. } = self.order.goal else { return };
        let mut inner = self.look();
        if complete && chain.iter().all(|&index| inner.entries[index].state == TaskState::Done) {
            let Task { db, measurement, work, .. } = &inner.entries[chain[0]].task;
            let verified = Verified {
                circle,
                place: (db.clone(), measurement.clone()),
                owner: BackendId(work.other() as u16),
                at_ms: unix_ms(),
            };
            inner.verified.push(verified);
        }
    }

    /// Switches reads over for what is verified, if that is due: once its owner has got all that was taken while it was being
    /// copied.
    pub(super) fn mark_moved(&self, house: &House, wait: bool) {
        let until = Instant::now() + limits::SETTLE_TIMEOUT;
        loop {
            let mut verified = {
                let mut inner = self.look();
                let is_due = inner.marked.is_none_or(|at| at.elapsed() >= limits::MARK_INTERVAL);
                if inner.verified.is_empty() || !(is_due || wait) {
                    return;
                }
                inner.marked = Some(Instant::now());
                std::mem::take(&mut inner.verified)
            };
            let mut behind: Vec<_> = verified.extract_if(.., |v| house.ground.is_behind(v.owner, v.at_ms)).collect();
            let mut waits_for = behind.first().map(|v| house.topology.backend(v.owner).name.clone());
            if let Err(late) = self.others_delivered(house, &verified) {
                waits_for = Some(late);
                behind.append(&mut verified);
            }
            if let Some(Verified { circle, .. }) = verified.first() {
                let moving = |v: &Verified| house.ground.is_moving(v.circle, &v.place.0, &v.place.1);
                let places: Vec<_> = verified.iter().filter(|v| moving(v)).map(|v| v.place.clone()).collect();
                if !places.is_empty()
                    && let Err(error) = house.ground.mark_moved(*circle, &places)
                {
                    // Reads go on at the old places, which have everything; the end of the transition switches them.
                    house.log.note(self.id, &format!("reads are not switched over yet: {error}"));
                }
            }
            self.look().verified.extend(behind);
            let Some(name) = waits_for.filter(|_| wait) else { return };
            if Instant::now() >= until {
                return self
                    .complain(house, format!("points taken while measurements were moved still wait for {name}"));
            }
            if !self.steering.sleep(limits::MIGRATION_STEP) {
                return;
            }
        }
    }

    /// Whether owners have got what other proxies had taken; Err = who has not.
    fn others_delivered(&self, house: &House, verified: &[Verified]) -> Result<(), String> {
        if verified.is_empty() || self.look().peers.is_empty() {
            return Ok(());
        }
        let owners: BTreeSet<BackendId> = verified.iter().map(|v| v.owner).collect();
        let owners: Vec<&Backend> = owners.into_iter().map(|owner| house.topology.backend(owner)).collect();
        match self.caught_up(house, &owners, limits::BARRIER_TARGET_TIMEOUT) {
            Ok(()) => Ok(()),
            Err(Undelivered::Late(whom)) => Err(whom),
            Err(Undelivered::Cancelled) => Err("nobody any more".to_owned()),
        }
    }
}

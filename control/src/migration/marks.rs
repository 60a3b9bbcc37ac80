//! When reads of a measurement switch to its new place during a rebalance.
//!
//! They switch when the measurement is copied and verified, and when its new owner has received all points that this
//! proxy and others accepted meanwhile.

use std::time::Instant;

use fluxgate_dataplane::topology::BackendId;

use super::coordination::Awaited;
use super::job::{Job, MigrationShared};
use super::order::{TaskState, Verified};
use super::plan::{Goal, Task};
use crate::clock::unix_ms;
use crate::limits;

impl Job {
    /// Notes that reads may switch once the measurement is complete at its new place and all backends could be asked
    /// for what they have.
    pub(super) fn note_verified(&self, chain: &[usize], complete: bool) {
        let Goal::Rebalance { circle, .. } = self.order.goal else { return };
        let mut inner = self.look();
        if complete && chain.iter().all(|&index| inner.entries[index].state == TaskState::Done) {
            let Task { place, work, .. } = &inner.entries[chain[0]].task;
            let verified =
                Verified { circle, place: place.clone(), owner: BackendId(work.other() as u16), at_ms: unix_ms() };
            inner.verified.push(verified);
        }
    }

    /// Switches reads over for verified measurements, if due, once their owners have received all points accepted
    /// during the copy.
    pub(super) fn mark_moved(&self, shared: &MigrationShared, wait: bool) {
        let mut until = Instant::now() + limits::SETTLE_TIMEOUT;
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
            let behind: Vec<_> = verified.extract_if(.., |v| self.is_behind(shared, v.owner, v.at_ms)).collect();
            if let Some(Verified { circle, .. }) = verified.first() {
                let moving = |v: &Verified| shared.world.is_moving(v.circle, &v.place);
                let places: Vec<_> = verified.iter().filter(|v| moving(v)).map(|v| v.place.clone()).collect();
                if !places.is_empty()
                    && let Err(error) = shared.world.mark_moved(*circle, &places)
                {
                    // Reads stay at the old places, which have everything; the end of the transition switches them.
                    shared.journal.note(self.id, &format!("reads cannot switch over yet: {error}"));
                }
            }
            let waits_for = behind.first().map(|v| shared.topology.backend(v.owner).name.clone());
            self.look().verified.extend(behind);
            let Some(name) = waits_for.filter(|_| wait) else { return };
            match self.awaited(shared) {
                Awaited::Gone(why) => return self.note_error(shared, why),
                Awaited::Peers(text) => {
                    self.doing(shared, &text);
                    until = Instant::now() + limits::SETTLE_TIMEOUT;
                }
                Awaited::Backends if Instant::now() >= until => {
                    let text = format!("points accepted during the move are not delivered to {name} yet");
                    return self.note_error(shared, text);
                }
                Awaited::Backends => {}
            }
            if !self.steering.sleep(limits::MIGRATION_STEP) {
                return;
            }
        }
    }
}

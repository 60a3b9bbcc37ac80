//! One circle's consistent-hash ring.
//!
//! Point number i of a member lies at `hash(decimal(i) + member key)`. A key belongs to the first point strictly
//! greater than its hash; past the last point, to the smallest one. When two members have a point of the same value,
//! the one added later gets it. These are influx-proxy's rules, ambiguities included (`1` + `10` and `11` + `0` are one
//! text).

use super::RingHash;
use crate::topology::BackendId;

#[derive(Clone, Debug)]
pub(super) struct Ring {
    members: Vec<BackendId>,
    /// Sorted, distinct.
    points: Vec<u64>,
    /// Position in `members` of the owner of each point.
    owners: Vec<u16>,
}

impl Ring {
    pub(super) fn new(members: impl Iterator<Item = (BackendId, String)>, vnodes: u32, hash: RingHash) -> Self {
        let mut ids = Vec::new();
        let mut claims: Vec<(u64, u16)> = Vec::new();
        for (member, (id, key)) in members.enumerate() {
            ids.push(id);
            let member = u16::try_from(member).expect("a BackendId has 16 bits, so has a position in a circle");
            claims.extend((0..vnodes).map(|i| (hash.hash(format!("{i}{key}").as_bytes()), member)));
        }
        // Equal values lie in member order; the last one, which is the later member, keeps the value.
        claims.sort_unstable();
        claims.reverse();
        claims.dedup_by_key(|claim| claim.0);
        claims.reverse();
        assert!(!claims.is_empty(), "a circle has a backend and a backend has a point");
        let (points, owners) = claims.into_iter().unzip();
        Self { members: ids, points, owners }
    }

    /// Distinct points.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    pub(super) fn owner(&self, hash: u64) -> BackendId {
        let after = self.points.partition_point(|&point| point <= hash);
        let point = if after == self.points.len() { 0 } else { after };
        self.members[usize::from(self.owners[point])]
    }

    pub(super) fn members(&self) -> &[BackendId] {
        &self.members
    }

    /// Each point with the member that owns it.
    pub(super) fn points(&self) -> impl Iterator<Item = (u64, BackendId)> {
        self.points.iter().copied().zip(self.owners.iter().map(|&owner| self.members[usize::from(owner)]))
    }

    /// Each member's part of all hash values. The values from a point up to just before the next one belong to that
    /// next one.
    pub(super) fn share(&self, hash: RingHash) -> Vec<(BackendId, f64)> {
        let mut owned = vec![0u128; self.members.len()];
        let last = u128::from(self.points[self.points.len() - 1]);
        let mut before = 0;
        for (&point, &owner) in self.points.iter().zip(&self.owners) {
            owned[usize::from(owner)] += u128::from(point) - before;
            before = u128::from(point);
        }
        owned[usize::from(self.owners[0])] += hash.values() - last;
        let all = hash.values() as f64;
        self.members.iter().zip(owned).map(|(&id, values)| (id, values as f64 / all)).collect()
    }
}

//! A worker's memory of routes: (db, measurement as written) to a small number that stands for one backend per circle.
//!
//! An open table of 16-byte slots, linear probing, at most half full, over an arena that holds the keys:
//!
//! ```text
//!   slots  | hash 32 | key at 32 | db len 16 | measurement len 16 | route 32 |
//!   keys   ...telegrafcpu telegrafdisk...
//! ```
//!
//! Keys are compared in full, so two measurements never share a route by accident. A hit allocates nothing and touches
//! one slot and one key. Bounded by [`ROUTE_CACHE_ENTRIES_MAX`] and [`ROUTE_CACHE_KEY_BYTES_MAX`]: at either bound the
//! table is emptied and fills again, so names that are seen once cannot take memory for ever. Routes stay; there are no
//! more of them than combinations of one backend per circle, and a [`RouteId`] stays good as long as its table.
//!
//! The hash is seeded per table, so that a client cannot prepare names that fall into one slot.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::{Placement, unescape_measurement};
use crate::limits::{ROUTE_CACHE_ENTRIES_MAX, ROUTE_CACHE_KEY_BYTES_MAX};
use crate::topology::BackendId;

const SLOTS_MIN: usize = 1024;

/// Stands for one backend per circle; meaningful only to the [`RouteTable`] that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

#[derive(Clone, Copy)]
struct Slot {
    /// The high half of the hash; the low half chose the slot.
    hash: u32,
    key_at: u32,
    db_len: u16,
    measurement_len: u16,
    route: u32,
}

/// `route` of a free slot.
const FREE: u32 = u32::MAX;
const FREE_SLOT: Slot = Slot { hash: 0, key_at: 0, db_len: 0, measurement_len: 0, route: FREE };

/// One worker's route cache.
pub struct RouteTable {
    placement: Arc<Placement>,
    seed: u64,
    /// Length is a power of two, at least twice `entries`.
    slots: Vec<Slot>,
    entries: usize,
    keys: Vec<u8>,
    /// All routes, each `placement.circles()` long.
    routes: Vec<Option<BackendId>>,
    interned: HashMap<Vec<BackendId>, RouteId>,
    scratch: Vec<BackendId>,
}

impl RouteTable {
    pub fn new(placement: Arc<Placement>) -> Self {
        Self {
            placement,
            seed: RandomState::new().hash_one(0u8),
            slots: vec![FREE_SLOT; SLOTS_MIN],
            entries: 0,
            keys: Vec::new(),
            routes: Vec::new(),
            interned: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// The route of a measurement as written on its line, escapes included.
    #[inline]
    pub fn lookup(&mut self, db: &[u8], raw_measurement: &[u8]) -> RouteId {
        let hash = self.hash(db, raw_measurement);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.route == FREE {
                return self.miss(db, raw_measurement, hash);
            }
            if slot.hash == (hash >> 32) as u32 && self.key_is(slot, db, raw_measurement) {
                return RouteId(slot.route);
            }
            at = (at + 1) & mask;
        }
    }

    /// One backend per circle, in circle order.
    pub fn backends(&self, route: RouteId) -> &[Option<BackendId>] {
        let circles = self.placement.circles();
        let start = route.0 as usize * circles;
        &self.routes[start..start + circles]
    }

    /// The rings behind this table.
    pub fn placement(&self) -> &Arc<Placement> {
        &self.placement
    }

    /// Entries held now.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of the keys held now.
    pub fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    #[inline]
    fn hash(&self, db: &[u8], measurement: &[u8]) -> u64 {
        XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot_with_seed(self.seed, db), measurement)
    }

    #[inline]
    fn key_is(&self, slot: Slot, db: &[u8], measurement: &[u8]) -> bool {
        let at = slot.key_at as usize;
        let (db_len, len) = (usize::from(slot.db_len), usize::from(slot.measurement_len));
        if db_len != db.len() || len != measurement.len() {
            return false;
        }
        let key = &self.keys[at..at + db_len + len];
        key[db_len..] == *measurement && key[..db_len] == *db
    }

    #[cold]
    #[inline(never)]
    fn miss(&mut self, db: &[u8], measurement: &[u8], hash: u64) -> RouteId {
        let route = self.intern(db, measurement);
        // Longer than any line or name can be: right, but not worth a place.
        let (Ok(db_len), Ok(measurement_len)) = (u16::try_from(db.len()), u16::try_from(measurement.len())) else {
            return route;
        };
        let key_bytes = db.len() + measurement.len();
        if self.entries == ROUTE_CACHE_ENTRIES_MAX || self.keys.len() + key_bytes > ROUTE_CACHE_KEY_BYTES_MAX {
            self.slots.fill(FREE_SLOT);
            self.keys.clear();
            self.entries = 0;
        } else if (self.entries + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let key_at = self.keys.len() as u32;
        self.keys.extend_from_slice(db);
        self.keys.extend_from_slice(measurement);
        place(
            &mut self.slots,
            hash,
            Slot { hash: (hash >> 32) as u32, key_at, db_len, measurement_len, route: route.0 },
        );
        self.entries += 1;
        route
    }

    fn intern(&mut self, db: &[u8], measurement: &[u8]) -> RouteId {
        self.scratch.clear();
        self.placement.route(db, &unescape_measurement(measurement), &mut self.scratch);
        if let Some(&route) = self.interned.get(&self.scratch) {
            return route;
        }
        let route =
            u32::try_from(self.interned.len()).ok().filter(|&id| id != FREE).expect("fewer than 2^32 - 1 routes");
        self.routes.extend(self.scratch.iter().copied().map(Some));
        self.interned.insert(self.scratch.clone(), RouteId(route));
        RouteId(route)
    }

    fn grow(&mut self) {
        let mut slots = vec![FREE_SLOT; self.slots.len() * 2];
        for slot in self.slots.iter().filter(|slot| slot.route != FREE) {
            let at = slot.key_at as usize;
            let (db, rest) = self.keys[at..].split_at(usize::from(slot.db_len));
            place(&mut slots, self.hash(db, &rest[..usize::from(slot.measurement_len)]), *slot);
        }
        self.slots = slots;
    }
}

/// Puts an entry that is not there yet into the first free slot from its own on.
fn place(slots: &mut [Slot], hash: u64, entry: Slot) {
    let mask = slots.len() - 1;
    let mut at = hash as usize & mask;
    while slots[at].route != FREE {
        at = (at + 1) & mask;
    }
    slots[at] = entry;
}

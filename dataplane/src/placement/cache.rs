//! A worker's route cache: maps (database, measurement as written) to a small number. The number stands for one backend
//! per circle, and the former owners of what is being moved.
//!
//! An open-addressing table of 16-byte slots, with linear probing, at most half full. The keys lie in an arena:
//!
//! ```text
//!   slots  | hash 32 | key at 32 | db len 16 | measurement len 16 | route 32 |
//!   keys   ...telegrafcpu telegrafdisk...
//! ```
//!
//! Keys are compared in full, so two measurements never share a route by accident. A hit allocates nothing and reads
//! one slot and one key. At [`ROUTE_CACHE_ENTRIES_MAX`] or [`ROUTE_CACHE_KEY_BYTES_MAX`] the table is emptied and fills
//! again, so that names used only once cannot hold memory for ever. It is also emptied when the placement changes.
//! Routes are kept: there are at most as many as combinations of one backend per circle (two where data is being
//! moved), and a [`RouteId`] is valid as long as its table.
//!
//! A search ends after [`ROUTE_CACHE_PROBES_MAX`] used slots. Names made to collide cost only their sender: a search of
//! the rings each time. A hit costs 8 to 10 ns (`benches/placement.rs`, 10 to 1000 names, thread CPU time); a seeded
//! XXH3 and a `memcmp` for each part of the key cost twice that.

use std::collections::HashMap;
use std::sync::Arc;

use twox_hash::XxHash3_64;

use super::{Place, Placement};
use crate::limits::{ROUTE_CACHE_ENTRIES_MAX, ROUTE_CACHE_KEY_BYTES_MAX, ROUTE_CACHE_PROBES_MAX};
use crate::lineproto::unescape_measurement;
use crate::topology::BackendId;

const SLOTS_MIN: usize = 1024;

/// Stands for the backends of a route; valid only for the [`RouteTable`] that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

#[derive(Clone, Copy)]
struct Slot {
    /// The high half of the hash; the low half selects the slot.
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
    /// Length is a power of two, at least twice `entries`.
    slots: Vec<Slot>,
    entries: usize,
    keys: Vec<u8>,
    /// All routes, one after the other.
    routes: Vec<Option<BackendId>>,
    /// Start of each route in `routes`; the last entry is the end.
    starts: Vec<usize>,
    interned: HashMap<Vec<BackendId>, RouteId>,
    scratch: Vec<BackendId>,
}

impl RouteTable {
    pub fn new(placement: Arc<Placement>) -> Self {
        Self {
            placement,
            slots: vec![FREE_SLOT; SLOTS_MIN],
            entries: 0,
            keys: Vec::new(),
            routes: Vec::new(),
            starts: vec![0],
            interned: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// The route of a place. `raw.measurement` is as written on its line, escapes included.
    #[inline]
    pub fn lookup(&mut self, raw: Place<&[u8]>) -> RouteId {
        let hash = hash(raw);
        let mask = self.slots.len() - 1;
        for probe in 0..ROUTE_CACHE_PROBES_MAX {
            let slot = self.slots[(hash as usize).wrapping_add(probe) & mask];
            if slot.route == FREE {
                break;
            }
            if slot.hash == (hash >> 32) as u32 && self.key_is(slot, raw) {
                return RouteId(slot.route);
            }
        }
        self.miss(raw, hash)
    }

    /// One backend per circle, in circle order, then former owners: at most `ROUTE_BACKENDS_MAX`, each once.
    pub fn backends(&self, route: RouteId) -> &[Option<BackendId>] {
        let at = route.0 as usize;
        &self.routes[self.starts[at]..self.starts[at + 1]]
    }

    /// Uses this placement from now on. Routes returned before do not change.
    pub fn replace(&mut self, placement: Arc<Placement>) {
        self.placement = placement;
        self.forget();
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
    fn key_is(&self, slot: Slot, raw: Place<&[u8]>) -> bool {
        let Place { db, measurement } = raw;
        let at = slot.key_at as usize;
        let (db_len, len) = (usize::from(slot.db_len), usize::from(slot.measurement_len));
        if db_len != db.len() || len != measurement.len() {
            return false;
        }
        let key = &self.keys[at..at + db_len + len];
        same(&key[db_len..], measurement) && same(&key[..db_len], db)
    }

    #[cold]
    #[inline(never)]
    fn miss(&mut self, raw: Place<&[u8]>, hash: u64) -> RouteId {
        let Place { db, measurement } = raw;
        let route = self.intern(raw);
        // Longer than any line or name can be: answered, but not cached.
        let (Ok(db_len), Ok(measurement_len)) = (u16::try_from(db.len()), u16::try_from(measurement.len())) else {
            return route;
        };
        let key_bytes = db.len() + measurement.len();
        if self.entries == ROUTE_CACHE_ENTRIES_MAX || self.keys.len() + key_bytes > ROUTE_CACHE_KEY_BYTES_MAX {
            self.forget();
        } else if (self.entries + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let key_at = self.keys.len() as u32;
        let slot = Slot { hash: (hash >> 32) as u32, key_at, db_len, measurement_len, route: route.0 };
        if place(&mut self.slots, hash, slot) {
            self.keys.extend_from_slice(db);
            self.keys.extend_from_slice(measurement);
            self.entries += 1;
        }
        route
    }

    fn forget(&mut self) {
        self.slots.fill(FREE_SLOT);
        self.keys.clear();
        self.entries = 0;
    }

    fn intern(&mut self, raw: Place<&[u8]>) -> RouteId {
        self.scratch.clear();
        let measurement = unescape_measurement(raw.measurement);
        self.placement.route(Place { measurement: &*measurement, ..raw }, &mut self.scratch);
        if let Some(&route) = self.interned.get(&self.scratch) {
            return route;
        }
        let route =
            u32::try_from(self.interned.len()).ok().filter(|&id| id != FREE).expect("fewer than 2^32 - 1 routes");
        self.routes.extend(self.scratch.iter().copied().map(Some));
        self.starts.push(self.routes.len());
        self.interned.insert(self.scratch.clone(), RouteId(route));
        RouteId(route)
    }

    /// Doubles the slots. An entry that finds no slot is dropped, which costs one more miss.
    fn grow(&mut self) {
        let mut slots = vec![FREE_SLOT; self.slots.len() * 2];
        let keys = &self.keys;
        let placed = |slot: &&Slot| {
            let (db, rest) = keys[slot.key_at as usize..].split_at(usize::from(slot.db_len));
            place(&mut slots, hash(Place::new(db, &rest[..usize::from(slot.measurement_len)])), **slot)
        };
        self.entries = self.slots.iter().filter(|slot| slot.route != FREE).filter(placed).count();
        self.slots = slots;
    }
}

/// XXH3 of the measurement, mixed with the database. Most databases have up to 16 bytes: two loads that cover the name
/// are cheaper than a second XXH3.
#[inline]
fn hash(raw: Place<&[u8]>) -> u64 {
    let Place { db, measurement } = raw;
    const MIX: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
    let db = match (db.first_chunk(), db.last_chunk()) {
        (Some(&head), Some(&tail)) if db.len() <= 16 => {
            let (head, tail) = (u64::from_le_bytes(head), u64::from_le_bytes(tail));
            head.wrapping_mul(MIX[0]) ^ tail.wrapping_mul(MIX[1]).wrapping_add(db.len() as u64).rotate_left(32)
        }
        (Some(_), _) => XxHash3_64::oneshot(db),
        _ => db.iter().fold(db.len() as u64, |word, &byte| word << 8 | u64::from(byte)).wrapping_mul(MIX[0]),
    };
    XxHash3_64::oneshot(measurement) ^ db ^ (db >> 32)
}

/// Whether two slices of equal length are equal. Most names have 4 to 16 bytes: two overlapping loads each are cheaper
/// than a call of `memcmp`.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    fn ends<const N: usize>(a: &[u8], b: &[u8]) -> bool {
        a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
    }
    match a.len() {
        8..=16 => ends::<8>(a, b),
        4..=7 => ends::<4>(a, b),
        _ => a == b,
    }
}

/// Puts a new entry into the first free slot from its own on; false when the run of used slots is too long.
fn place(slots: &mut [Slot], hash: u64, entry: Slot) -> bool {
    let mask = slots.len() - 1;
    let free = (0..ROUTE_CACHE_PROBES_MAX)
        .map(|probe| (hash as usize).wrapping_add(probe) & mask)
        .find(|&at| slots[at].route == FREE);
    if let Some(at) = free {
        slots[at] = entry;
    }
    free.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_taken_slots_ends_the_search_for_a_place() {
        let mut slots = vec![FREE_SLOT; SLOTS_MIN];
        let entry = Slot { route: 1, ..FREE_SLOT };
        // From the last slot on, so that the run wraps.
        let hash = u64::MAX;
        assert!((0..ROUTE_CACHE_PROBES_MAX).all(|_| place(&mut slots, hash, entry)));
        assert!(!place(&mut slots, hash, entry));
        assert_eq!(slots.iter().filter(|slot| slot.route == 1).count(), ROUTE_CACHE_PROBES_MAX);
        assert_eq!(
            (
                slots[SLOTS_MIN - 1].route,
                slots[ROUTE_CACHE_PROBES_MAX - 2].route,
                slots[ROUTE_CACHE_PROBES_MAX - 1].route
            ),
            (1, 1, FREE)
        );
    }

    #[test]
    fn databases_and_measurements_that_differ_in_any_byte_hash_apart() {
        let of = |db: &[u8], measurement: &[u8]| hash(Place::new(db, measurement));
        let mut seen = std::collections::HashSet::new();
        for len in 0..40 {
            let name = vec![b'a'; len];
            assert!(seen.insert(of(&name, b"m")) && (len == 0 || seen.insert(of(b"d", &name))), "{len}");
            for at in 0..len {
                let mut other = name.clone();
                other[at] = b'b';
                assert!(seen.insert(of(&other, b"m")) && seen.insert(of(b"d", &other)), "{len} {at}");
            }
        }
    }

    #[test]
    fn equal_means_equal_at_every_length() {
        for len in 0..40 {
            let name: Vec<u8> = (0..len).collect();
            assert!(same(&name, &name.clone()));
            for at in 0..name.len() {
                let mut other = name.clone();
                other[at] ^= 0x80;
                assert!(!same(&name, &other), "{len} {at}");
            }
        }
    }
}

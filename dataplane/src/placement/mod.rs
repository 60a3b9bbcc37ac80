//! Which backend of each circle holds a (database, measurement).
//!
//! A pure function of the topology and the settings: the owner of a measurement never changes while the process runs.
//! It places exactly as influx-proxy does, so that replacing influx-proxy moves no data. A different result here would
//! move data; the rows of `tests/golden/placement.csv` pin it.
//!
//! ```text
//!   (db, measurement) --shard_key--> lookup key --hash--> ring of each circle --> one backend per circle
//! ```
//!
//! While a circle's data is being moved because its backends have changed, the owner and the former owner get the
//! writes and one of them the reads (`moves.rs`). A [`Placement`] is immutable. When a measurement has been moved, a
//! new one with a higher version is made and given to every thread.
//!
//! Names with a backslash have two places in influx-proxy (`written.rs`).
//!
//! `ring.rs` is one circle's ring; `cache.rs` caches routes for a worker. Not here: where a measurement ends on its
//! line (`lineproto`), who sends to the backends of a route (couriers), what is moved and by whom.

mod cache;
mod moves;
#[cfg(test)]
mod moves_test;
mod place;
#[cfg(test)]
mod placement_test;
mod ring;
mod written;

use std::sync::Arc;

use crate::topology::{BackendId, Circle, Topology};
pub use cache::{RouteId, RouteTable};
use moves::Move;
pub use moves::{Former, FormerMember};
pub use place::Place;
use ring::Ring;

/// How the ring is built. Equal settings place alike; a changed setting moves data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementSettings {
    pub hash_key: HashKey,
    /// Points per member on the ring, at least 1.
    pub vnode_size: u32,
    /// Lookup key with `%db` and `%mm`, e.g. `%db,%mm`.
    pub shard_key: String,
    pub hash: RingHash,
}

/// influx-proxy's defaults.
impl Default for PlacementSettings {
    fn default() -> Self {
        Self { hash_key: HashKey::Idx, vnode_size: 256, shard_key: "%db,%mm".to_owned(), hash: RingHash::Crc32 }
    }
}

/// What names a member on the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    Idx,
    Exi,
    Name,
    Url,
    /// Text with `%idx`.
    Template(String),
}

impl HashKey {
    /// As written in configurations.
    pub fn text(&self) -> &str {
        match self {
            Self::Idx => "idx",
            Self::Exi => "exi",
            Self::Name => "name",
            Self::Url => "url",
            Self::Template(text) => text,
        }
    }

    /// Reads [`HashKey::text`]; None for a text that is neither a known name nor contains `%idx`.
    pub fn from_text(text: &str) -> Option<Self> {
        Some(match text {
            "idx" => Self::Idx,
            "exi" => Self::Exi,
            "name" => Self::Name,
            "url" => Self::Url,
            template if template.contains("%idx") => Self::Template(template.to_owned()),
            _ => return None,
        })
    }

    /// The name on the ring of the backend at position `index` of its circle.
    fn member(&self, index: usize, name: &str, url: &str) -> String {
        match self {
            Self::Idx => index.to_string(),
            Self::Exi => format!("|{index}"),
            Self::Name => name.to_owned(),
            Self::Url => url.to_owned(),
            Self::Template(text) => text.replace("%idx", &index.to_string()),
        }
    }
}

/// The hash of ring points and lookup keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingHash {
    /// influx-proxy's: CRC-32 (IEEE).
    Crc32,
    /// For new deployments: XXH3, 64 bit.
    Xxh3,
}

impl RingHash {
    fn hash(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Crc32 => u64::from(crc32fast::hash(bytes)),
            Self::Xxh3 => twox_hash::XxHash3_64::oneshot(bytes),
        }
    }

    /// Number of values the hash can take.
    fn values(self) -> u128 {
        match self {
            Self::Crc32 => 1 << 32,
            Self::Xxh3 => 1 << 64,
        }
    }
}

/// One part of a `shard_key` template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum KeyPart {
    Text(Vec<u8>),
    Db,
    Measurement,
}

/// How a [`Place`] becomes a position on a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lookup {
    hash: RingHash,
    shard_key: Vec<KeyPart>,
}

impl Lookup {
    fn new(settings: &PlacementSettings) -> Self {
        Self { hash: settings.hash, shard_key: key_parts(&settings.shard_key) }
    }

    fn hash(&self, place: Place<&[u8]>) -> u64 {
        let Place { db, measurement } = place;
        let mut key = Vec::with_capacity(db.len() + measurement.len() + 16);
        for part in &self.shard_key {
            key.extend_from_slice(match part {
                KeyPart::Text(text) => text,
                KeyPart::Db => db,
                KeyPart::Measurement => measurement,
            });
        }
        self.hash.hash(&key)
    }
}

/// The rings of all circles, and the former rings of circles in transition.
#[derive(Clone, Debug)]
pub struct Placement {
    lookup: Lookup,
    circles: Vec<Arc<Ring>>,
    /// By circle; None = not in transition.
    moves: Vec<Option<Move>>,
    /// By circle: the backends that have data of it.
    members: Vec<Vec<BackendId>>,
    version: u64,
}

impl Placement {
    /// Builds the ring of every circle from the backends that are not leaving.
    ///
    /// # Panics
    /// When all backends of a circle are leaving or `vnode_size` is 0; the configuration refuses both.
    pub fn new(topology: &Topology, settings: &PlacementSettings) -> Self {
        let ring = |circle: &Circle| {
            let members = circle
                .staying(topology)
                .enumerate()
                .map(|(index, backend)| (backend.id, settings.hash_key.member(index, &backend.name, &backend.url)));
            Arc::new(Ring::new(members, settings.vnode_size, settings.hash))
        };
        let staying = |circle: &Circle| circle.staying(topology).map(|backend| backend.id).collect();
        Self {
            lookup: Lookup::new(settings),
            circles: topology.circles.iter().map(ring).collect(),
            moves: vec![None; topology.circles.len()],
            members: topology.circles.iter().map(staying).collect(),
            version: 0,
        }
    }

    /// Number of circles; a route begins with the owner in each of them.
    pub fn circles(&self) -> usize {
        self.circles.len()
    }

    /// 0 at the start of the process; grows with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The backend of `circle` (position in the topology) that a place belongs to.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn owner(&self, circle: usize, place: Place<&[u8]>) -> BackendId {
        self.circles[circle].owner(self.lookup.hash(place))
    }

    /// Appends to `out` the owner in each circle, in circle order, and then the former owners of what is being moved:
    /// at most `limits::ROUTE_BACKENDS_MAX` backends, each once.
    pub fn route(&self, place: Place<&[u8]>, out: &mut Vec<BackendId>) {
        let hash = self.lookup.hash(place);
        out.extend(self.circles.iter().map(|ring| ring.owner(hash)));
        out.extend((0..self.circles.len()).filter_map(|circle| self.former(circle, place)));
    }

    /// The backends of `circle` that together have all of its data, in no order: those on the ring, and during a
    /// transition also the former ones.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn members(&self, circle: usize) -> &[BackendId] {
        &self.members[circle]
    }

    /// The expected share (0 to 1, in total 1) of each backend of `circle` that is not leaving, in its order.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn share(&self, circle: usize) -> Vec<(BackendId, f64)> {
        self.circles[circle].share(self.lookup.hash)
    }
}

/// Splits a `shard_key` template. The text that replaces `%db` is not searched for `%mm`.
fn key_parts(template: &str) -> Vec<KeyPart> {
    let mut parts = Vec::new();
    let mut text_start = 0;
    let mut at = 0;
    while at < template.len() {
        let part = match &template.as_bytes()[at..] {
            [b'%', b'd', b'b', ..] => KeyPart::Db,
            [b'%', b'm', b'm', ..] => KeyPart::Measurement,
            _ => {
                at += 1;
                continue;
            }
        };
        if text_start < at {
            parts.push(KeyPart::Text(template.as_bytes()[text_start..at].to_vec()));
        }
        parts.push(part);
        at += 3;
        text_start = at;
    }
    if text_start < template.len() {
        parts.push(KeyPart::Text(template.as_bytes()[text_start..].to_vec()));
    }
    parts
}

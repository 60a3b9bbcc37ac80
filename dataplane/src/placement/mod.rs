//! Which backend of each circle holds a (database, measurement).
//!
//! A pure function of the topology and the settings: built once at start, never changed. It places as influx-proxy
//! does, byte for byte, so that taking its place moves no data. A changed answer here moves data: the golden rows in
//! `tests/golden/placement.csv` pin them.
//!
//! ```text
//!   (db, measurement) --shard_key--> lookup key --hash--> ring of each circle --> one backend per circle
//! ```
//!
//! `ring.rs` is one circle's ring; `cache.rs` makes the answer cheap for a worker. Not here: where a measurement ends
//! on its line (`lineproto`), who sends to the backends of a route (couriers).

mod cache;
mod ring;
#[cfg(test)]
mod tests;

use crate::topology::{BackendId, Circle, Topology};
pub use cache::{RouteId, RouteTable};
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
#[derive(Clone, Debug)]
enum KeyPart {
    Text(Vec<u8>),
    Db,
    Measurement,
}

/// The rings of all circles.
#[derive(Clone, Debug)]
pub struct Placement {
    hash: RingHash,
    shard_key: Vec<KeyPart>,
    circles: Vec<Ring>,
}

impl Placement {
    /// Builds the ring of every circle.
    ///
    /// # Panics
    /// When a circle has no backend or `vnode_size` is 0; the configuration refuses both.
    pub fn new(topology: &Topology, settings: &PlacementSettings) -> Self {
        let ring = |circle: &Circle| {
            let members = circle.backends.iter().map(|&id| {
                let backend = topology.backend(id);
                (id, settings.hash_key.member(backend.index, &backend.name, &backend.url))
            });
            Ring::new(members, settings.vnode_size, settings.hash)
        };
        Self {
            hash: settings.hash,
            shard_key: key_parts(&settings.shard_key),
            circles: topology.circles.iter().map(ring).collect(),
        }
    }

    /// Number of circles, which is the length of every route.
    pub fn circles(&self) -> usize {
        self.circles.len()
    }

    /// The backend of `circle` (position in the topology) that holds `measurement` (unescaped) of `db`.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn owner(&self, circle: usize, db: &[u8], measurement: &[u8]) -> BackendId {
        self.circles[circle].owner(self.key_hash(db, measurement))
    }

    /// Appends the owner in each circle, in circle order, to `out`. `measurement` is unescaped.
    pub fn route(&self, db: &[u8], measurement: &[u8], out: &mut Vec<BackendId>) {
        let hash = self.key_hash(db, measurement);
        out.extend(self.circles.iter().map(|ring| ring.owner(hash)));
    }

    /// The expected share (0 to 1, together 1) of each backend of `circle`, in its order.
    ///
    /// # Panics
    /// When there is no such circle.
    pub fn share(&self, circle: usize) -> Vec<(BackendId, f64)> {
        self.circles[circle].share(self.hash)
    }

    fn key_hash(&self, db: &[u8], measurement: &[u8]) -> u64 {
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

/// Splits a `shard_key` template. What a `%db` stands for is never itself searched for `%mm`.
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

//! Which backend of each circle holds a (database, measurement).

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

/// The hash of ring points and lookup keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingHash {
    /// influx-proxy's: CRC-32 (IEEE).
    Crc32,
    /// For new deployments: XXH3, 64 bit.
    Xxh3,
}

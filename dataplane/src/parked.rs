//! Points that a backend does not take now are *parked*: the cursor of the backend moves past them, and a courier of
//! their own delivers them from a cursor of their own. Here: which points, and what is known of them.

/// One database, or some of its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedKey {
    pub db: Box<[u8]>,
    /// As writers name the policies, empty = the default one; None = all of them.
    pub rps: Option<Vec<Box<[u8]>>>,
}

impl ParkedKey {
    /// Whether a record of this database and policy belongs to it.
    pub fn has(&self, db: &[u8], rp: &[u8]) -> bool {
        *self.db == *db && self.rps.as_ref().is_none_or(|rps| rps.iter().any(|own| **own == *rp))
    }
}

/// The parked points of one key at one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedPoints {
    pub key: ParkedKey,
    /// Those with a smaller stamp are settled.
    pub below: u64,
    /// The stamp of the oldest one that waits; `u64::MAX` = none is known.
    pub oldest: u64,
    /// What the backend said to the last request with such points; empty = it took them, or has not been asked yet.
    pub why: String,
}

impl ParkedPoints {
    /// Those below that stamp are settled.
    pub fn new(key: ParkedKey, below: u64) -> Self {
        Self { key, below, oldest: below, why: String::new() }
    }
}

/// What parked points a query waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedWait {
    /// The stamp of the oldest one; `u64::MAX` = none.
    pub oldest: u64,
    /// The backend has not taken some of them when it was last asked.
    pub is_refused: bool,
}

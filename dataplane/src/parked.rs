//! Points that a backend does not take now are *parked*: the cursor of the backend moves past them, and a courier of
//! their own delivers them from a cursor of their own. Here: which points.

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

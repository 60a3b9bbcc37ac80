//! The memory that the answers of all requests may take together, and why the reading of an answer stops early.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Why a reader stops although the backend has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// Nobody waits for the answer any more.
    Cancelled,
    /// The answer needs more memory than is left of a [`MemoryBudget`].
    OverBudget { bytes_max: usize },
}

/// The number of bytes that may be held, and that are held.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: usize,
    held: AtomicUsize,
}

impl MemoryBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, held: AtomicUsize::new(0) }
    }

    pub fn held_bytes(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// The share of one request, empty at first.
    pub fn hold(&self) -> Held<'_> {
        Held { budget: self, bytes: AtomicUsize::new(0) }
    }
}

/// The bytes that one request has taken from the budget; dropping it returns them.
#[derive(Debug)]
pub struct Held<'a> {
    budget: &'a MemoryBudget,
    bytes: AtomicUsize,
}

impl Held<'_> {
    /// # Errors
    /// When all requests together would hold more than allowed.
    pub fn take(&self, bytes: usize) -> Result<(), Interrupted> {
        let before = self.budget.held.fetch_add(bytes, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        let bytes_max = self.budget.bytes_max;
        if before + bytes > bytes_max { Err(Interrupted::OverBudget { bytes_max }) } else { Ok(()) }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(*self.bytes.get_mut(), Relaxed);
    }
}

//! An answer of the control thread on its way to a client. Its bytes count in a sum of the control thread until they
//! are sent, and the control thread can give the answer up when its client does not read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// The pieces of an answer that are not sent yet.
#[derive(Debug)]
pub struct UnsentBody {
    pieces: VecDeque<Bytes>,
    bytes: Arc<UnsentBytes>,
}

/// What both sides know of an answer that waits for its client.
#[derive(Debug)]
pub struct UnsentBytes {
    all: usize,
    /// Still counted in `sum`.
    left: AtomicUsize,
    sum: Arc<AtomicUsize>,
    began: Instant,
    revoked: AtomicBool,
}

impl UnsentBody {
    /// `bytes` = what the pieces take in memory, which `sum` contains already.
    pub fn new(pieces: Vec<Bytes>, bytes: usize, sum: Arc<AtomicUsize>, now: Instant) -> Self {
        let bytes =
            UnsentBytes { all: bytes, left: AtomicUsize::new(bytes), sum, began: now, revoked: AtomicBool::new(false) };
        Self { pieces: pieces.into(), bytes: Arc::new(bytes) }
    }

    /// The sum of the pieces' lengths.
    pub fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    pub fn bytes(&self) -> &Arc<UnsentBytes> {
        &self.bytes
    }
}

/// The pieces in order; [`UnsentBytes::sent`] follows when the client has taken one.
impl Iterator for UnsentBody {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.pieces.pop_front()
    }
}

impl Drop for UnsentBody {
    fn drop(&mut self) {
        // Memory first: what the sum says is free must be free.
        self.pieces.clear();
        self.bytes.sum.fetch_sub(self.bytes.left.swap(0, Relaxed), Relaxed);
    }
}

impl UnsentBytes {
    /// The client has taken so many bytes.
    pub fn sent(&self, bytes: usize) {
        let left = self.left.load(Relaxed);
        let bytes = bytes.min(left);
        self.left.store(left - bytes, Relaxed);
        self.sum.fetch_sub(bytes, Relaxed);
    }

    /// What the client has not taken yet.
    pub fn left(&self) -> usize {
        self.left.load(Relaxed)
    }

    /// How far the client is behind one that reads so many bytes a second.
    pub fn late(&self, bytes_per_second: usize, now: Instant) -> Duration {
        let taken = self.all - self.left.load(Relaxed);
        let due = Duration::from_secs_f64(taken as f64 / bytes_per_second as f64);
        now.saturating_duration_since(self.began).saturating_sub(due)
    }

    /// Asks the worker to drop this answer, and its client's connection.
    pub fn revoke(&self) {
        self.revoked.store(true, Relaxed);
    }

    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_they_are_sent_or_dropped() {
        let (sum, now) = (Arc::new(AtomicUsize::new(1_010)), Instant::now());
        let pieces = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let mut body = UnsentBody::new(pieces, 10, Arc::clone(&sum), now);
        assert_eq!(body.length(), 3);
        let later = now + Duration::from_secs(5);
        assert_eq!(body.bytes().late(1, later), Duration::from_secs(5));
        assert_eq!(body.next().unwrap(), "ab");
        body.bytes().sent(2);
        assert_eq!((sum.load(Relaxed), body.bytes().late(1, later)), (1_008, Duration::from_secs(3)));
        drop(body);
        assert_eq!(sum.load(Relaxed), 1_000, "also what took memory beside the pieces' texts");
    }
}

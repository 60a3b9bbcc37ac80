//! The memory that all merged queries may take together, from their texts to the last byte of an answer that a client
//! has not taken yet, and why the reading of an answer stops early.
//!
//! An answer that is complete leaves its query and waits for its client as an [`UnsentBody`], which still counts. A
//! client that does not read must not stop other queries: when memory is short, the answers of clients that read too
//! slowly are given up, the slowest first. Requests wait for memory that others will return; when all wait for each
//! other, one is refused.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use fluxgate_dataplane::handoff::{UnsentBody, UnsentBytes};
use fluxgate_dataplane::memory::give_memory_back;

use crate::limits;

/// Why a reader stops although the backend has more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// Nobody waits for the answer any more.
    Cancelled,
    /// The answer needs more memory than is left of a [`MemoryBudget`].
    OverBudget { bytes_max: usize },
}

/// The number of bytes that may be held, and that are held. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    bytes_max: usize,
    held: Arc<AtomicUsize>,
    /// Freed since the allocator last gave memory back to the system, and when that was.
    freed: Arc<AtomicUsize>,
    given_back: Arc<Mutex<Option<Instant>>>,
    /// Requests that run.
    shares: Arc<Mutex<Vec<Weak<Share>>>>,
    /// Answers that wait for their clients.
    unsent: Arc<Mutex<Vec<Weak<UnsentBytes>>>>,
}

impl MemoryBudget {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            held: Arc::default(),
            freed: Arc::default(),
            given_back: Arc::default(),
            shares: Arc::default(),
            unsent: Arc::default(),
        }
    }

    pub fn held_bytes(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// The share of one request, empty at first. Nothing is waited for any more when it is `cancelled`.
    pub fn hold(&self, cancelled: Arc<AtomicBool>) -> Held {
        let share = Arc::<Share>::default();
        lock(&self.shares).push(Arc::downgrade(&share));
        Held { budget: self.clone(), share, cancelled }
    }

    /// Gives memory back to the system now and then: the allocator keeps what a thread has freed for that thread, and
    /// the process would take much more than this budget counts.
    fn freed(&self, bytes: usize) {
        let freed = self.freed.fetch_add(bytes, Relaxed) + bytes;
        if freed < limits::MEMORY_BACK_BYTES {
            return;
        }
        // Another thread is at it.
        let Ok(mut given_back) = self.given_back.try_lock() else { return };
        if given_back.is_none_or(|at| at.elapsed() >= limits::MEMORY_BACK_INTERVAL) {
            self.freed.store(0, Relaxed);
            give_memory_back();
            *given_back = Some(Instant::now());
        }
    }

    /// What a request may fill that holds so much: a part is left for small ones, so that they need not wait.
    fn bytes_max_for(&self, share_bytes: usize) -> usize {
        let is_small = share_bytes <= self.bytes_max / limits::MEMORY_SMALL_SHARE;
        self.bytes_max - if is_small { 0 } else { self.bytes_max / limits::MEMORY_FOR_SMALL_SHARE }
    }

    /// True when `bytes` more are held now.
    fn try_take(&self, bytes: usize, share: &Share) -> bool {
        let bytes_max = self.bytes_max_for(share.bytes.load(Relaxed).saturating_add(bytes));
        let more = |held: usize| held.checked_add(bytes).filter(|&held| held <= bytes_max);
        self.held.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Makes room for `bytes`, soon: gives up answers of clients that read too slowly, the slowest first. False: no
    /// answer waits for a client.
    fn make_room(&self, bytes: usize, now: Instant) -> bool {
        let unsent: Vec<_> = lock(&self.unsent).iter().filter_map(Weak::upgrade).collect();
        let any = !unsent.is_empty();
        let (revoked, mut kept): (Vec<_>, Vec<_>) = unsent.into_iter().partition(|answer| answer.is_revoked());
        let mut coming: usize = revoked.iter().map(|answer| answer.left()).sum();
        let missing = (self.held_bytes() + bytes).saturating_sub(self.bytes_max);
        let late = |answer: &Arc<UnsentBytes>| answer.late(limits::ANSWER_BYTES_PER_SECOND_MIN, now);
        kept.sort_by_cached_key(late);
        while coming < missing
            && let Some(slowest) = kept.pop()
            && late(&slowest) >= limits::ANSWER_PATIENCE
        {
            slowest.revoke();
            coming += slowest.left();
        }
        any
    }

    /// When all requests that hold memory wait for more, one must end: the one that holds most, but for the oldest.
    fn refuse_one(&self) {
        let shares: Vec<_> = lock(&self.shares).iter().filter_map(Weak::upgrade).collect();
        let bytes = |share: &Arc<Share>| share.bytes.load(Relaxed);
        let may_return =
            |share: &Arc<Share>| bytes(share) > 0 && (share.waiting.load(Relaxed) == 0 || share.refused.load(Relaxed));
        if shares.iter().any(may_return) {
            return;
        }
        let mut waiting = shares.iter().filter(|share| share.waiting.load(Relaxed) > 0);
        let oldest = waiting.next();
        if let Some(refused) = waiting.max_by_key(|share| bytes(share)).or(oldest) {
            refused.refused.store(true, Relaxed);
        }
    }
}

/// What one request has taken from the budget; dropping it returns the bytes.
#[derive(Debug)]
pub struct Held {
    budget: MemoryBudget,
    share: Arc<Share>,
    cancelled: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Share {
    bytes: AtomicUsize,
    /// Threads of the request that wait for memory.
    waiting: AtomicUsize,
    /// The request must end, so that others can go on.
    refused: AtomicBool,
}

impl Held {
    /// Waits for memory, as long as other requests may return some.
    ///
    /// # Errors
    /// When there is none, or not in time.
    pub fn take(&self, bytes: usize) -> Result<(), Interrupted> {
        if !self.budget.try_take(bytes, &self.share) {
            self.share.waiting.fetch_add(1, Relaxed);
            let taken = self.wait_for(bytes);
            self.share.waiting.fetch_sub(1, Relaxed);
            taken?;
        }
        self.share.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    fn wait_for(&self, bytes: usize) -> Result<(), Interrupted> {
        let bytes_max = self.budget.bytes_max;
        let deadline = Instant::now() + limits::MEMORY_WAIT_MAX;
        let wanted = self.share.bytes.load(Relaxed).saturating_add(bytes);
        let alone = wanted > self.budget.bytes_max_for(wanted);
        loop {
            let now = Instant::now();
            if self.cancelled.load(Relaxed) {
                return Err(Interrupted::Cancelled);
            }
            if alone || now >= deadline || self.share.refused.load(Relaxed) {
                return Err(Interrupted::OverBudget { bytes_max });
            }
            if !self.budget.make_room(bytes, now) {
                self.budget.refuse_one();
            }
            thread::sleep(limits::MEMORY_PAUSE);
            if self.budget.try_take(bytes, &self.share) {
                return Ok(());
            }
        }
    }

    /// Returns bytes that were taken and are not needed any more.
    pub fn give_back(&self, bytes: usize) {
        self.share.bytes.fetch_sub(bytes, Relaxed);
        self.budget.held.fetch_sub(bytes, Relaxed);
    }

    /// Lets a complete answer, for which `bytes` were taken here, wait for its client. They count until they are sent.
    pub fn send_off(&self, pieces: Vec<Bytes>, bytes: usize) -> UnsentBody {
        self.share.bytes.fetch_sub(bytes, Relaxed);
        let body = UnsentBody::new(pieces, bytes, Arc::clone(&self.budget.held), Instant::now());
        lock(&self.budget.unsent).push(Arc::downgrade(body.bytes()));
        body
    }

    /// The bytes that this request holds.
    pub fn bytes(&self) -> usize {
        self.share.bytes.load(Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes(), Relaxed);
        self.budget.freed(self.bytes());
    }
}

fn lock<T>(list: &Mutex<Vec<Weak<T>>>) -> MutexGuard<'_, Vec<Weak<T>>> {
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    list.retain(|entry| entry.strong_count() > 0);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(held: &Held, bytes: usize) -> bool {
        held.take(bytes).is_err()
    }

    fn hold(budget: &MemoryBudget) -> Held {
        budget.hold(Arc::default())
    }

    #[test]
    fn what_is_held_together_is_bounded_and_comes_back() {
        let budget = MemoryBudget::new(800);
        let (first, second) = (hold(&budget), hold(&budget));
        assert!(over(&first, 701), "more than there is for all but small ones");
        first.take(300).unwrap();
        assert!(over(&first, 401) && budget.held_bytes() == 300, "what is refused is not held");
        second.take(400).unwrap();
        let small = hold(&budget);
        small.take(10).expect("a part is left for small ones");
        drop(small);
        first.give_back(100);
        second.take(100).unwrap();
        drop(first);
        assert_eq!(budget.held_bytes(), 500);
        drop(second);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn of_requests_that_wait_for_each_other_the_largest_but_for_the_oldest_is_refused() {
        let budget = MemoryBudget::new(800);
        let held = [300, 250, 150].map(|bytes| {
            let held = hold(&budget);
            held.take(bytes).unwrap();
            held
        });
        let more = |held: Held| thread::spawn(move || (over(&held, 125), drop(held)).0);
        let refused: Vec<_> = held.map(more).map(|request| request.join().unwrap()).into();
        assert_eq!(refused, [false, true, false]);
        assert_eq!(budget.held_bytes(), 0);
    }

    #[test]
    fn a_request_without_a_client_waits_no_longer() {
        let budget = MemoryBudget::new(800);
        let other = hold(&budget);
        other.take(700).unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let held = budget.hold(Arc::clone(&cancelled));
        let waiting = thread::spawn(move || held.take(100));
        cancelled.store(true, Relaxed);
        assert_eq!(waiting.join().unwrap(), Err(Interrupted::Cancelled));
    }

    #[test]
    fn answers_that_nobody_reads_make_room_and_no_others() {
        let mib = 1 << 20;
        let budget = MemoryBudget::new(11 * mib);
        let query = hold(&budget);
        query.take(9 * mib).unwrap();
        let answers = [(); 2].map(|()| query.send_off(vec![Bytes::from_static(b"x")], 4 * mib));
        drop(query);
        assert_eq!(budget.held_bytes(), 8 * mib, "an answer counts when its query has ended");
        let [unread, other] = answers;
        let worker = {
            let unread = unread.bytes().clone();
            thread::spawn(move || {
                let begun = Instant::now();
                while !unread.is_revoked() {
                    assert!(begun.elapsed() < limits::ANSWER_PATIENCE * 5, "it is not given up");
                    thread::sleep(limits::MEMORY_PAUSE);
                }
            })
        };
        // The other client reads.
        other.bytes().sent(3 * mib);
        let next = hold(&budget);
        let waiting = thread::spawn(move || next.take(8 * mib).map(|()| next));
        worker.join().unwrap();
        drop(unread);
        let next = waiting.join().unwrap().expect("room");
        assert_eq!(budget.held_bytes(), 9 * mib);
        drop(next);
        assert!(!other.bytes().is_revoked());
    }
}

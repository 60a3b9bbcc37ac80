//! Memory for bodies that do not fit a connection's own buffer, bounded for each worker: reused buffers for writes, a
//! share of the same budget for bodies that are kept as a whole, and memory that is given back to the system.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use crate::io::Event;
use crate::limits::{
    BODY_PIECES_BYTES, BODY_POOL_BYTES, BODY_WHOLE_BYTES_MAX, POOL_BUFFER_BYTES_MIN, WHOLE_BODIES_BYTES_MAX,
};

const CLASSES: usize = (BODY_WHOLE_BYTES_MAX / POOL_BUFFER_BYTES_MIN).trailing_zeros() as usize + 1;
const _: () = assert!(POOL_BUFFER_BYTES_MIN << (CLASSES - 1) == BODY_WHOLE_BYTES_MAX);

/// The body buffers of one worker.
#[derive(Debug)]
pub struct Pool {
    /// Bytes lent plus bytes kept for reuse.
    held_bytes: Cell<usize>,
    /// The part of them that is reserved without a buffer.
    reserved_bytes: Cell<usize>,
    free: RefCell<[Vec<Box<[u8]>>; CLASSES]>,
    returned: Event,
}

/// A buffer lent by the pool. Dropping it returns it.
#[derive(Debug)]
pub struct PooledBuf {
    pool: Rc<Pool>,
    class: usize,
    buf: Box<[u8]>,
}

impl Deref for PooledBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.buf
    }
}

impl DerefMut for PooledBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        self.pool.free.borrow_mut()[self.class].push(std::mem::take(&mut self.buf));
        self.pool.returned.notify();
    }
}

/// A part of the budget, for memory that its owner allocates. Dropping it returns it.
#[derive(Debug)]
pub struct Reserved {
    pool: Rc<Pool>,
    bytes: usize,
}

impl Reserved {
    /// Reserves `bytes` more. False: there is no room.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let granted = self.pool.grant(bytes);
        self.bytes += if granted { bytes } else { 0 };
        granted
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.pool.held_bytes.set(self.pool.held_bytes.get() - self.bytes);
        self.pool.reserved_bytes.set(self.pool.reserved_bytes.get() - self.bytes);
        self.pool.returned.notify();
    }
}

impl Pool {
    #[allow(clippy::new_without_default)] // always shared
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            held_bytes: Cell::new(0),
            reserved_bytes: Cell::new(0),
            free: RefCell::default(),
            returned: Event::default(),
        })
    }

    /// Bytes lent plus bytes kept for reuse.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes.get()
    }

    /// A buffer of at least `bytes`, with arbitrary content. None: it would exceed the worker's bound or the largest
    /// class.
    pub fn take(self: &Rc<Self>, bytes: usize) -> Option<PooledBuf> {
        let class = (0..CLASSES).find(|&c| POOL_BUFFER_BYTES_MIN << c >= bytes)?;
        let reused = self.free.borrow_mut()[class].pop();
        let buf = match reused {
            Some(buf) => buf,
            None => self.allocate(class)?,
        };
        Some(PooledBuf { pool: self.clone(), class, buf })
    }

    /// Like [`Pool::take`], but waits for a buffer. `bytes` must not exceed the largest class.
    pub async fn take_waiting(self: &Rc<Self>, bytes: usize) -> PooledBuf {
        loop {
            let returned = self.returned.wait();
            match self.take(bytes) {
                Some(loan) => return loan,
                None => returned.await,
            }
        }
    }

    /// Waits for `bytes` of the budget; at most [`WHOLE_BODIES_BYTES_MAX`].
    pub async fn reserve_waiting(self: &Rc<Self>, bytes: usize) -> Reserved {
        loop {
            let returned = self.returned.wait();
            if self.grant(bytes) {
                return Reserved { pool: self.clone(), bytes };
            }
            returned.await;
        }
    }

    fn grant(&self, bytes: usize) -> bool {
        let reserved = self.reserved_bytes.get() + bytes;
        let granted = reserved <= WHOLE_BODIES_BYTES_MAX && self.make_room(bytes);
        if granted {
            self.reserved_bytes.set(reserved);
            self.held_bytes.set(self.held_bytes.get() + bytes);
        }
        granted
    }

    /// The size of the first buffer for a body: the whole body if its size is known and small, the smallest if the size
    /// is unknown, a middle one for a body that is appended in pieces anyway.
    pub fn suitable(&self, size_hint: Option<u64>) -> usize {
        match size_hint.map(usize::try_from) {
            None => POOL_BUFFER_BYTES_MIN,
            Some(Ok(bytes)) if bytes <= BODY_WHOLE_BYTES_MAX => bytes,
            Some(_) => BODY_PIECES_BYTES,
        }
    }

    fn allocate(&self, class: usize) -> Option<Box<[u8]>> {
        let bytes = POOL_BUFFER_BYTES_MIN << class;
        if !self.make_room(bytes) {
            return None;
        }
        self.held_bytes.set(self.held_bytes.get() + bytes);
        Some(vec![0; bytes].into_boxed_slice())
    }

    /// Frees idle buffers until `bytes` more are within the bound. False: they are not.
    fn make_room(&self, bytes: usize) -> bool {
        let mut free = self.free.borrow_mut();
        for idle in free.iter_mut().rev() {
            while self.held_bytes.get() + bytes > BODY_POOL_BYTES {
                let Some(buf) = idle.pop() else { break };
                self.held_bytes.set(self.held_bytes.get() - buf.len());
            }
        }
        self.held_bytes.get() + bytes <= BODY_POOL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loans_never_pass_the_bound_and_come_back() {
        let pool = Pool::new();
        let mut loans = Vec::new();
        while let Some(loan) = pool.take(BODY_WHOLE_BYTES_MAX) {
            loans.push(loan);
        }
        assert_eq!(loans.len(), BODY_POOL_BYTES / BODY_WHOLE_BYTES_MAX);
        assert!(pool.take(1).is_none());
        loans.pop();
        // The idle large buffer makes room for small ones.
        let small: Vec<_> = std::iter::from_fn(|| pool.take(1)).collect();
        assert_eq!(small.len(), BODY_WHOLE_BYTES_MAX / POOL_BUFFER_BYTES_MIN);
        assert!(pool.take(BODY_WHOLE_BYTES_MAX + 1).is_none());
    }

    #[test]
    fn a_returned_buffer_is_used_again() {
        let pool = Pool::new();
        let first = pool.take(100_000).unwrap().as_ptr();
        assert_eq!(pool.take(100_000).unwrap().as_ptr(), first);
    }

    #[test]
    fn reserved_bytes_and_buffers_share_the_bound() {
        let pool = Pool::new();
        let mut reserved = futures_lite::future::block_on(pool.reserve_waiting(1));
        assert!(reserved.grow(WHOLE_BODIES_BYTES_MAX - 1) && !reserved.grow(1));
        let large: Vec<_> = std::iter::from_fn(|| pool.take(BODY_WHOLE_BYTES_MAX)).collect();
        assert_eq!(large.len(), (BODY_POOL_BYTES - WHOLE_BODIES_BYTES_MAX) / BODY_WHOLE_BYTES_MAX);
        drop(large);
        drop(reserved);
        let loans: Vec<_> = std::iter::from_fn(|| pool.take(BODY_WHOLE_BYTES_MAX)).collect();
        assert_eq!(loans.len(), BODY_POOL_BYTES / BODY_WHOLE_BYTES_MAX);
        drop(loans);
        // Idle large buffers make room.
        let mut reserved = futures_lite::future::block_on(pool.reserve_waiting(1));
        assert!(reserved.grow(WHOLE_BODIES_BYTES_MAX - 1));
        drop(reserved);
        assert!(pool.held_bytes() <= BODY_POOL_BYTES - WHOLE_BODIES_BYTES_MAX);
    }
}

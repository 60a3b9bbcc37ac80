//! The open connections of a worker: counts them, ends idle and slow ones, ends all at a stop.
//!
//! One sweep checks all connections twice a second, instead of one timer for each read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::io::{self, Event};
use crate::limits::{BODY_BYTES_PER_SECOND_MIN, BODY_PATIENCE, HEAD_TIME_MAX};

/// What a connection is doing. Decides what an idle sweep or a stop does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A head or body is arriving.
    Receiving,
    /// A request is being served: never idle.
    Working,
}

/// The entry of one connection, shared with its task.
#[derive(Debug)]
pub struct ConnSlot {
    /// Owned by the task. The entry leaves the registry before the descriptor is closed.
    fd: RawFd,
    phase: Cell<Phase>,
    /// When a byte last arrived or an answer was last sent.
    active: Cell<Instant>,
    /// When what is awaited must be here, however many bytes arrive before. None: nothing is awaited.
    due: Cell<Option<Instant>>,
    /// How long the body of the request may still be awaited, and the most that it may become.
    patience: Cell<Duration>,
    patience_max: Duration,
    timed_out: Cell<bool>,
    /// Number of begins and ends of sends: odd while a send is running.
    sends: Cell<u32>,
    /// A running send that a sweep has seen, and when it first saw it.
    stuck: Cell<Option<(u32, Instant)>>,
}

impl ConnSlot {
    /// Between requests, in the middle of a head, or with a complete head.
    pub fn enter(&self, phase: Phase, now: Instant) {
        self.due.set(match phase {
            Phase::Idle | Phase::Working => None,
            Phase::Receiving => self.due.get().or(Some(now + HEAD_TIME_MAX)),
        });
        self.phase.set(phase);
        self.active.set(now);
        self.patience.set(BODY_PATIENCE);
    }

    /// The connection waits for bytes. Returns the phase that it had, for [`ConnSlot::wait_ends`].
    pub fn wait_begins(&self, now: Instant) -> Phase {
        let phase = self.phase.get();
        if phase == Phase::Working {
            self.phase.set(Phase::Receiving);
            self.active.set(now);
            self.due.set(Some(now + self.patience.get()));
        }
        phase
    }

    /// `bytes` have arrived.
    pub fn wait_ends(&self, was: Phase, bytes: usize, now: Instant) {
        self.active.set(now);
        if was == Phase::Working {
            let left = self.due.take().map_or(Duration::ZERO, |due| due.saturating_duration_since(now));
            let earned = Duration::from_millis(bytes as u64 * 1000 / BODY_BYTES_PER_SECOND_MIN);
            self.patience.set((left + earned).min(self.patience_max));
        }
        self.phase.set(if was == Phase::Working { was } else { Phase::Receiving });
    }

    /// To be called before and after each send.
    pub fn send_begins_or_ends(&self) {
        self.sends.set(self.sends.get().wrapping_add(1));
    }

    /// Sweeps have seen the same send running for at least `idle`.
    fn is_stuck(&self, now: Instant, idle: Duration) -> bool {
        let sends = self.sends.get();
        match self.stuck.get() {
            _ if sends.is_multiple_of(2) => false,
            Some((send, since)) if send == sends => now.saturating_duration_since(since) >= idle,
            _ => {
                self.stuck.set(Some((sends, now)));
                false
            }
        }
    }

    /// A sweep has ended this connection as idle or too slow. Reads return 0 from then on.
    pub fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    /// Ends both directions at once, and so a send that is running.
    pub fn cut(&self) {
        io::shut(self.fd, Shutdown::Both);
    }

    fn end_reading(&self) {
        io::shut(self.fd, Shutdown::Read);
    }
}

/// All connections of one worker.
#[derive(Debug)]
pub struct Conns {
    idle_timeout: Duration,
    open: RefCell<HashMap<RawFd, Rc<ConnSlot>>>,
    stopping: Cell<bool>,
    /// Notified when a connection ends.
    pub ended: Event,
}

/// Removes the entry when the connection's task ends, also by a panic.
pub struct ConnEntry {
    conns: Rc<Conns>,
    conn: Rc<ConnSlot>,
}

impl std::ops::Deref for ConnEntry {
    type Target = ConnSlot;
    fn deref(&self) -> &ConnSlot {
        &self.conn
    }
}

impl ConnEntry {
    /// The connection, for a part of its task that must not borrow the whole.
    pub fn connection(&self) -> Rc<ConnSlot> {
        self.conn.clone()
    }
}

impl Drop for ConnEntry {
    fn drop(&mut self) {
        self.conns.open.borrow_mut().remove(&self.conn.fd);
        self.conns.ended.notify();
    }
}

impl Conns {
    pub fn new(idle_timeout: Duration) -> Rc<Self> {
        Rc::new(Self { idle_timeout, open: RefCell::default(), stopping: Cell::new(false), ended: Event::default() })
    }

    /// Registers a connection. The entry must be dropped before the descriptor is closed.
    pub fn enter(self: &Rc<Self>, fd: RawFd, now: Instant) -> ConnEntry {
        let conn = Rc::new(ConnSlot {
            fd,
            phase: Cell::new(Phase::Idle),
            active: Cell::new(now),
            due: Cell::new(None),
            patience: Cell::new(BODY_PATIENCE),
            patience_max: BODY_PATIENCE.max(self.idle_timeout),
            timed_out: Cell::new(false),
            sends: Cell::new(0),
            stuck: Cell::new(None),
        });
        self.open.borrow_mut().insert(fd, conn.clone());
        ConnEntry { conns: self.clone(), conn }
    }

    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    pub fn stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Ends reading on each connection that has been idle for `idle_timeout` or sends too slowly, and closes each
    /// connection whose peer has not read a piece of an answer for that long.
    pub fn sweep(&self, now: Instant) {
        let idle = self.idle_timeout;
        for conn in self.open.borrow().values() {
            let is_idle = now.saturating_duration_since(conn.active.get()) >= idle;
            let is_slow = conn.due.get().is_some_and(|due| now >= due);
            if conn.phase.get() != Phase::Working && (is_idle || is_slow) && !conn.timed_out.replace(true) {
                conn.end_reading();
            }
            if conn.is_stuck(now, idle) {
                io::shut(conn.fd, Shutdown::Both);
            }
        }
    }

    /// Takes no further requests: idle connections end now, the others after their answer.
    pub fn stop(&self) {
        self.stopping.set(true);
        for conn in self.open.borrow().values().filter(|c| c.phase.get() == Phase::Idle) {
            conn.end_reading();
        }
    }

    /// The grace period is over: ends reading on all connections.
    pub fn end_all(&self) {
        self.open.borrow().values().for_each(|c| c.end_reading());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(4);

    /// After how many seconds a connection is ended that gets `bytes` each second.
    fn ended_after(phase: Phase, bytes: usize, seconds_max: u64) -> Option<u64> {
        let (conns, start) = (Conns::new(IDLE), io::now());
        let conn = conns.enter(-1, start);
        conn.enter(phase, start);
        (1..=seconds_max).find(|&second| {
            let was = conn.wait_begins(start + Duration::from_secs(second - 1));
            let now = start + Duration::from_secs(second);
            conns.sweep(now);
            conn.wait_ends(was, bytes, now);
            if was != Phase::Working {
                conn.enter(Phase::Receiving, now);
            }
            conn.timed_out()
        })
    }

    #[test]
    fn a_head_has_its_time_however_much_arrives() {
        assert_eq!(ended_after(Phase::Receiving, 1, 100), Some(HEAD_TIME_MAX.as_secs()));
        assert_eq!(ended_after(Phase::Idle, 1000, 100), Some(1 + HEAD_TIME_MAX.as_secs()));
    }

    #[test]
    fn a_body_must_bring_its_rate() {
        let rate = usize::try_from(BODY_BYTES_PER_SECOND_MIN).unwrap();
        assert_eq!(ended_after(Phase::Working, 1, 100), Some(BODY_PATIENCE.as_secs()));
        assert_eq!(ended_after(Phase::Working, rate / 2, 100), Some(2 * BODY_PATIENCE.as_secs() - 1));
        assert_eq!(ended_after(Phase::Working, rate, 100_000), None);
    }

    #[test]
    fn what_a_body_brings_at_once_does_not_pay_for_a_long_trickle() {
        let (conns, start) = (Conns::new(IDLE), io::now());
        let conn = conns.enter(-1, start);
        conn.enter(Phase::Working, start);
        let was = conn.wait_begins(start);
        conn.wait_ends(was, 1 << 30, start);
        conn.wait_begins(start);
        conns.sweep(start + IDLE - Duration::from_millis(1));
        assert!(!conn.timed_out());
        conn.wait_ends(was, 1, start + IDLE);
        conn.wait_begins(start + IDLE);
        conn.active.set(start + BODY_PATIENCE);
        conns.sweep(start + BODY_PATIENCE + Duration::from_millis(10));
        assert!(conn.timed_out());
    }

    #[test]
    fn the_next_request_begins_anew() {
        let (conns, start) = (Conns::new(IDLE), io::now());
        let conn = conns.enter(-1, start);
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            conn.enter(Phase::Working, now);
            let was = conn.wait_begins(now);
            conn.wait_ends(was, 1, now + Duration::from_secs(1));
            conns.sweep(now + Duration::from_secs(1));
            conn.enter(Phase::Idle, now + Duration::from_secs(1));
        }
        assert!(!conn.timed_out());
    }
}

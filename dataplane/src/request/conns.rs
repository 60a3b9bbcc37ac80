//! The open connections of a worker: counts them, ends idle ones, ends all at a stop.
//!
//! One sweep checks all connections twice a second, instead of one timer for each read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::io::{self, Event};

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
    timed_out: Cell<bool>,
    /// Number of begins and ends of sends: odd while a send is running.
    sends: Cell<u32>,
    /// A running send that a sweep has seen, and when it first saw it.
    stuck: Cell<Option<(u32, Instant)>>,
}

impl ConnSlot {
    pub fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.active.set(now);
    }

    pub fn phase(&self) -> Phase {
        self.phase.get()
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

    /// A sweep has ended this connection as idle. Reads return 0 from then on.
    pub fn timed_out(&self) -> bool {
        self.timed_out.get()
    }

    fn end_reading(&self) {
        io::shut(self.fd, Shutdown::Read);
    }
}

/// All connections of one worker.
#[derive(Debug, Default)]
pub struct Conns {
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

impl Drop for ConnEntry {
    fn drop(&mut self) {
        self.conns.open.borrow_mut().remove(&self.conn.fd);
        self.conns.ended.notify();
    }
}

impl Conns {
    /// Registers a connection. The entry must be dropped before the descriptor is closed.
    pub fn enter(self: &Rc<Self>, fd: RawFd, now: Instant) -> ConnEntry {
        let conn = Rc::new(ConnSlot {
            fd,
            phase: Cell::new(Phase::Idle),
            active: Cell::new(now),
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

    /// Ends reading on each connection that has been idle for `idle`, and closes each connection whose peer has not
    /// read an answer for that long.
    pub fn sweep(&self, now: Instant, idle: Duration) {
        for conn in self.open.borrow().values() {
            let due = conn.phase.get() != Phase::Working && now.saturating_duration_since(conn.active.get()) >= idle;
            if due && !conn.timed_out.replace(true) {
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

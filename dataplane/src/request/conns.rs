//! The open connections of a worker: counting them, ending idle ones, ending all.
//!
//! Instead of a timer per read, one sweep looks at every connection twice a second.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::io::{self, Event};

/// What a connection is doing; decides what an idle sweep or a stop does to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A head or body is arriving.
    Receiving,
    /// Its request is being worked on: never idle.
    Working,
}

/// One connection's entry, shared with its task.
#[derive(Debug)]
pub struct ConnSlot {
    /// The task owns the descriptor, and this entry leaves the registry before it is closed.
    fd: RawFd,
    phase: Cell<Phase>,
    /// Last time a byte arrived or an answer went out.
    active: Cell<Instant>,
    timed_out: Cell<bool>,
    /// Counts beginnings and ends of sends: odd while one is under way.
    sends: Cell<u32>,
    /// The send a sweep found under way, and when it first did.
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

    /// An answer begins to go out, or has gone out.
    pub fn send_begins_or_ends(&self) {
        self.sends.set(self.sends.get().wrapping_add(1));
    }

    /// A send has lasted for `idle`, as far as sweeps have seen.
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

    /// The sweep has ended this connection for idling; reads give 0 from then on.
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
    /// Notified whenever a connection ends.
    pub ended: Event,
}

/// Takes the entry out when the connection's task ends, however it ends.
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
    /// The entry must be dropped before the descriptor is closed.
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

    /// Ends reading on every connection that had no byte for `idle` while one was due, and every connection whose peer
    /// has not taken an answer for as long.
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

    /// No further request is taken: idle connections end now, the others after their answer.
    pub fn stop(&self) {
        self.stopping.set(true);
        for conn in self.open.borrow().values().filter(|c| c.phase.get() == Phase::Idle) {
            conn.end_reading();
        }
    }

    /// The grace is over: nothing more is read from anybody.
    pub fn end_all(&self) {
        self.open.borrow().values().for_each(|c| c.end_reading());
    }
}

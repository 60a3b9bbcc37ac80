//! The receive buffer of a connection: bytes that have arrived and are not used yet.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;

use crate::io::{Stream, now, sleep, timeout};
use crate::limits::{CONN_BUFFER_BYTES, GIVEN_UP_CHECK, SEND_PIECE_BYTES};
use crate::request::conns::{ConnEntry, Phase};
use crate::request::pool::{Pool, Reserved};

/// A stream and its receive buffer; `buf[start..end]` has arrived.
pub struct Inbox {
    // Declared before `stream`: the entry must leave the registry before the descriptor is closed.
    entry: ConnEntry,
    pub stream: Stream,
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// The memory of a buffer that is larger than usual.
    extra: Option<Reserved>,
}

impl Inbox {
    pub fn new(stream: Stream, entry: ConnEntry) -> Self {
        Self { entry, stream, buf: vec![0; CONN_BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0, extra: None }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    /// Marks the first `n` bytes as used.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
    }

    /// Receives more bytes behind those in the buffer, which must not be full. 0: the peer has ended, or was idle for
    /// too long ([`Inbox::timed_out`]).
    ///
    /// # Errors
    /// When `recv(2)` fails.
    pub async fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.extra.is_some() {
                self.buf = vec![0; CONN_BUFFER_BYTES].into_boxed_slice();
                self.extra = None;
            }
        } else if self.end == self.buf.len() {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        assert!(self.end < self.buf.len(), "a full buffer must be used first");
        let was = self.entry.wait_begins(now());
        let n = self.stream.read(&mut self.buf[self.end..]).await?;
        self.end += n;
        self.entry.wait_ends(was, n, now());
        Ok(n)
    }

    /// Whether [`Inbox::fill`] would find no room.
    pub fn is_full(&self) -> bool {
        self.end - self.start == self.buf.len()
    }

    /// Makes room for as much again, until all bytes have been used. False: `pool` has no memory for it within
    /// `patience`.
    pub async fn grow(&mut self, pool: &Rc<Pool>, patience: Duration) -> bool {
        let more = self.buf.len();
        match &mut self.extra {
            Some(extra) => {
                if !extra.grow(more) {
                    return false;
                }
            }
            None => match timeout(patience, pool.reserve_waiting(more)).await {
                Ok(extra) => self.extra = Some(extra),
                Err(_) => return false,
            },
        }
        let mut larger = vec![0; self.buf.len() + more].into_boxed_slice();
        larger[..self.end - self.start].copy_from_slice(&self.buf[self.start..self.end]);
        (self.start, self.end) = (0, self.end - self.start);
        self.buf = larger;
        true
    }

    /// Receives directly into `out`. The buffer must be empty.
    ///
    /// # Errors
    /// When `recv(2)` fails.
    pub async fn read_past(&mut self, out: &mut [u8]) -> io::Result<usize> {
        debug_assert!(self.start == self.end);
        let was = self.entry.wait_begins(now());
        let n = self.stream.read(out).await?;
        self.entry.wait_ends(was, n, now());
        Ok(n)
    }

    /// Resolves when the peer has ended, or when a sweep or a stop ends reading. Bytes that arrive meanwhile (the next
    /// request) are kept. With a full buffer nothing is read, and the end is not noticed. This wait does not count as
    /// idle. Dropping the future loses nothing.
    pub async fn gone(&mut self) {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        while self.end < self.buf.len() {
            match self.stream.read(&mut self.buf[self.end..]).await {
                Ok(0) | Err(_) => return,
                Ok(n) => self.end += n,
            }
        }
        std::future::pending().await
    }

    /// Sends all of `bytes`. The sweep ends a send that makes too little progress.
    ///
    /// # Errors
    /// When `send(2)` fails, or the peer reads less than a piece within `idle_timeout`.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(SEND_PIECE_BYTES) {
            self.entry.send_begins_or_ends();
            let sent = self.stream.write_all(piece).await;
            self.entry.send_begins_or_ends();
            sent?;
        }
        Ok(())
    }

    /// As [`Inbox::send`], but ends the connection when `given_up` becomes true meanwhile.
    ///
    /// # Errors
    /// As [`Inbox::send`], and when the connection has been ended.
    pub async fn send_unless(&mut self, bytes: &[u8], given_up: impl Fn() -> bool) -> io::Result<()> {
        let connection = self.entry.connection();
        future::or(self.send(bytes), async {
            while !given_up() {
                sleep(GIVEN_UP_CHECK).await;
            }
            // The send itself ends with an error; it is not dropped while the kernel reads from `bytes`.
            connection.cut();
            std::future::pending().await
        })
        .await
    }

    pub fn enter(&self, phase: Phase) {
        self.entry.enter(phase, now());
    }

    pub fn timed_out(&self) -> bool {
        self.entry.timed_out()
    }
}

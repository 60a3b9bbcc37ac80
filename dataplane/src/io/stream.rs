//! A byte stream to a client or to a backend.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::net::TcpStream;

/// A connected TCP socket of this executor. Dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    inner: TcpStream,
}

impl From<TcpStream> for Stream {
    fn from(inner: TcpStream) -> Self {
        Self { inner }
    }
}

impl Stream {
    /// # Errors
    /// Of `connect(2)`; `TimedOut` after `timeout`.
    pub async fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let inner = TcpStream::connect_timeout(addr, timeout).await.map_err(io::Error::from)?;
        inner.set_nodelay(true).map_err(io::Error::from)?;
        Ok(Self { inner })
    }

    /// Reads what is there, at least one byte; 0 = the peer has ended. Dropping the future loses no data.
    ///
    /// # Errors
    /// Of `recv(2)`.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).await
    }

    /// # Errors
    /// Of `send(2)`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes).await
    }

    /// Ends one or both directions; the peer sees it at once.
    ///
    /// # Errors
    /// Of `shutdown(2)`.
    pub async fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.inner.shutdown(how).await.map_err(io::Error::from)
    }

    /// Makes the end of this stream a reset, for a peer that would take a plain end for the end of the data.
    pub fn reset_at_end(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let len = size_of::<libc::linger>() as libc::socklen_t;
        // SAFETY: the descriptor is ours and open while `self` lives; `linger` is what SO_LINGER takes, with its size. A failure
        // leaves a plain end.
        unsafe { libc::setsockopt(self.raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len) };
    }

    /// # Errors
    /// Of `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.inner.peer_addr().map_err(io::Error::from)
    }

    /// For `shutdown(2)` from beside the reading task; valid while the stream lives.
    pub fn raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

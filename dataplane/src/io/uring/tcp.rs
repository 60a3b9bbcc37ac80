//! Connected TCP sockets.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

pub use glommio::net::TcpStream;

/// # Errors
/// Of `connect(2)`; `TimedOut` after `timeout`.
pub async fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(addr, timeout).await.map_err(io::Error::from)?;
    stream.set_nodelay(true).map_err(io::Error::from)?;
    Ok(stream)
}

/// Ends one or both directions.
///
/// # Errors
/// Of `shutdown(2)`.
pub async fn shutdown(stream: &TcpStream, how: Shutdown) -> io::Result<()> {
    stream.shutdown(how).await.map_err(io::Error::from)
}

/// # Errors
/// Of `getpeername(2)`.
pub fn peer_addr(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.peer_addr().map_err(io::Error::from)
}

/// Ends the stream with a reset. If this fails the end is a normal one.
pub fn reset_at_end(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = size_of::<libc::linger>() as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: the descriptor is the stream's and open while it lives; `linger` is what SO_LINGER takes, with its size.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len) };
}

/// Ends one or both directions of a stream from another task than the one that uses it. The stream must still be open.
pub fn shut(fd: RawFd, how: Shutdown) {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: shutdown takes two integers and touches no memory of ours.
    unsafe { libc::shutdown(fd, how) };
}

//! Listening sockets: one per worker on the same address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::time::{Duration, Instant};

use glommio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};

use crate::io::Stream;

/// Connections that wait for accept.
const LISTEN_BACKLOG: i32 = 4096;

/// Longest wait for a port that no running instance holds. Blocks: at start only.
const PORT_WAIT: Duration = Duration::from_secs(3);

/// Holds a port for this process. Workers share the port through SO_REUSEPORT, which would also silently let in a
/// second instance. So a socket in the abstract namespace is bound, named after the port: only one process can have it.
#[derive(Debug)]
pub struct PortGuard {
    _lock: UnixListener,
}

/// Binds `count` sockets to `addr` (port 0: the first one chooses the port). None accepts before [`Listener::new`].
///
/// # Errors
/// `AddrInUse` when another program listens there or another instance of this one holds the port.
pub fn bind(addr: SocketAddr, count: usize) -> io::Result<(PortGuard, Vec<Socket>)> {
    // Before the port itself: if another instance holds this it is running, and waiting would not help.
    let early = if addr.port() == 0 { None } else { Some(guard(&addr.to_string())?) };
    if early.is_some() {
        // Finds a program that does not share the port; with SO_REUSEPORT a process of another user would not show.
        drop(vacant(|| socket(addr, false))?);
    }
    let first = socket(addr, true)?;
    let addr = first.local_addr()?.as_socket().unwrap_or(addr);
    let guard = match early {
        Some(guard) => guard,
        None => guard(&addr.to_string())?,
    };
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(socket(addr, true)?);
    }
    Ok((guard, sockets))
}

/// Only one process can hold `what`, an address.
pub(super) fn guard(what: &str) -> io::Result<PortGuard> {
    let name = UnixAddr::from_abstract_name(format!("fluxgate-port-{what}"))?;
    Ok(PortGuard { _lock: UnixListener::bind_addr(&name)? })
}

/// Binds without sharing. After a process was killed, the kernel releases its ring, and the sockets of this ring, with
/// a delay: a restart must not fail because of it.
pub(super) fn vacant(bind: impl Fn() -> io::Result<Socket>) -> io::Result<Socket> {
    let deadline = Instant::now() + PORT_WAIT;
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Inherited by accepted sockets.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// A worker's listening socket.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    fd: RawFd,
}

impl Listener {
    /// Starts listening; must run on the worker's executor.
    ///
    /// # Errors
    /// Of `listen(2)`.
    pub fn new(socket: Socket) -> io::Result<Self> {
        socket.listen(LISTEN_BACKLOG)?;
        let fd = socket.as_raw_fd();
        // SAFETY: the descriptor is an open listening socket whose ownership moves into the listener here.
        let inner = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
        Ok(Self { inner, fd })
    }

    /// The next connection. Do not drop the future before it resolves: a cancelled accept loses a connection (glommio
    /// 0.9). [`Listener::close`] ends it instead.
    ///
    /// # Errors
    /// Of `accept(2)`; after [`Listener::close`] `InvalidInput`.
    pub async fn accept(&self) -> io::Result<Stream> {
        self.inner.accept().await.map(Stream::from).map_err(io::Error::from)
    }

    /// Refuses new connections from now on and ends a pending accept.
    pub fn close(&self) {
        // SAFETY: `fd` belongs to `inner`, which lives as long as `self`.
        unsafe { libc::shutdown(self.fd, libc::SHUT_RDWR) };
    }

    /// # Errors
    /// Of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr().map_err(io::Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_on_the_port_is_refused() {
        let (_guard, sockets) = bind("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let addr = sockets[0].local_addr().unwrap().as_socket().unwrap();
        assert_eq!(bind(addr, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}

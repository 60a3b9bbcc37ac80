//! UDP sockets that only receive: one per worker on the same address. The kernel gives all packets of one sender to the
//! same socket, so their order stays.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};

use glommio::net::UdpSocket;
use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::UDP_WAIT;

use super::listener::{PortGuard, guard, vacant};

/// Binds `count` sockets to `addr`. `buffer_bytes` is what each asks the kernel to keep of packets that nobody has read
/// yet; None = the system's default.
///
/// # Errors
/// `AddrInUse` when another program receives there or another instance of this one holds the port.
pub fn bind_datagrams(
    addr: SocketAddr,
    count: usize,
    buffer_bytes: Option<usize>,
) -> io::Result<(PortGuard, Vec<Socket>)> {
    let guard = guard(&format!("udp-{addr}"))?;
    // Finds a program that does not share the port.
    drop(vacant(|| socket(addr, false))?);
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let socket = socket(addr, true)?;
        if let Some(bytes) = buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        sockets.push(socket);
    }
    Ok((guard, sockets))
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM.cloexec(), Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// A worker's receiving socket.
#[derive(Debug)]
pub struct Datagrams {
    inner: UdpSocket,
    fd: RawFd,
}

impl Datagrams {
    /// Must run on the worker's executor.
    ///
    /// # Errors
    /// None that is known.
    pub fn new(socket: Socket) -> io::Result<Self> {
        let fd = socket.as_raw_fd();
        // SAFETY: the descriptor is an open UDP socket whose ownership moves here.
        let inner = unsafe { UdpSocket::from_raw_fd(socket.into_raw_fd()) };
        // A socket that is shut down would end a wait as well, but glommio 0.9 panics then.
        inner.set_read_timeout(Some(UDP_WAIT)).map_err(io::Error::from)?;
        Ok(Self { inner, fd })
    }

    /// The next packet: its length. What does not fit into `buf` is cut off. None: there was none for `UDP_WAIT`.
    ///
    /// # Errors
    /// Of `recvmsg(2)`.
    pub async fn receive(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match self.inner.recv_from(buf).await.map_err(io::Error::from) {
            Ok((len, _)) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Packets that the kernel had no room for since the socket was made, modulo 2^32.
    pub fn lost(&self) -> u32 {
        /// Index of SK_MEMINFO_DROPS in what SO_MEMINFO tells (linux/sock_diag.h).
        const DROPS: usize = 8;
        let mut told = [0_u32; DROPS + 1];
        let mut len = mem::size_of_val(&told) as libc::socklen_t;
        // SAFETY: `fd` belongs to `inner`; the kernel writes at most `len` bytes to `told`, which has that many.
        let result = unsafe {
            libc::getsockopt(self.fd, libc::SOL_SOCKET, libc::SO_MEMINFO, told.as_mut_ptr().cast(), &raw mut len)
        };
        if result == 0 { told[DROPS] } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io;
    use std::net::UdpSocket;

    fn bound(buffer_bytes: Option<usize>) -> (SocketAddr, PortGuard, Socket) {
        loop {
            let addr = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            // Somebody else may get the port in between.
            if let Ok((guard, mut sockets)) = bind_datagrams(addr, 1, buffer_bytes) {
                return (addr, guard, sockets.pop().unwrap());
            }
        }
    }

    #[test]
    fn a_second_instance_on_the_port_is_refused() {
        let (addr, _guard, _socket) = bound(None);
        assert_eq!(bind_datagrams(addr, 1, None).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    }

    #[test]
    fn packets_come_one_by_one_and_a_wait_ends() {
        io::block_on(|| async {
            let (addr, _guard, socket) = bound(None);
            let datagrams = Datagrams::new(socket).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut buf = [0; 16];
            for packet in [&b"first"[..], b"second", b"", b"longer than what fits"] {
                sender.send_to(packet, addr).unwrap();
                let received = datagrams.receive(&mut buf).await.unwrap().unwrap();
                assert_eq!(buf[..received], packet[..packet.len().min(16)]);
            }
            for _ in 0..2 {
                assert_eq!(datagrams.receive(&mut buf).await.unwrap(), None);
            }
            sender.send_to(b"last", addr).unwrap();
            assert_eq!(datagrams.receive(&mut buf).await.unwrap(), Some(4));
        });
    }

    #[test]
    fn packets_without_room_are_counted() {
        io::block_on(|| async {
            let (addr, _guard, socket) = bound(Some(4096));
            let datagrams = Datagrams::new(socket).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            for _ in 0..100 {
                sender.send_to(&[b'x'; 1000], addr).unwrap();
            }
            let (mut received, mut buf) = (0, [0; 2000]);
            while datagrams.receive(&mut buf).await.unwrap().is_some() {
                received += 1;
            }
            assert!(datagrams.lost() > 0, "{received}");
            assert_eq!(received + datagrams.lost(), 100);
        });
    }
}

//! Free ports of this machine: a TCP port that stays free for one server, also while that server is down, and any UDP
//! port.
//!
//! A server that is killed and started again must find its port free. Otherwise the kernel may give the port to
//! somebody else meanwhile: as the local port of an outgoing connection, or to a listener on port 0.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use socket2::{Domain, Socket, Type};

/// A socket that is bound and never listens: who connects is refused. With `SO_REUSEADDR` on both sides Linux lets a
/// server listen on the port, but gives it to nobody who asks for any port. Servers of Go and of Rust's standard
/// library set `SO_REUSEADDR`, and so does the proxy.
pub struct Port {
    addr: SocketAddr,
    _socket: Socket,
}

impl Port {
    /// A free port of 127.0.0.1.
    pub fn of_loopback() -> io::Result<Self> {
        Self::keep((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// A free port of this address of this machine.
    pub fn of(ip: IpAddr) -> io::Result<Self> {
        Self::keep((ip, 0).into())
    }

    /// This port, or a free one where it is 0. An error if somebody listens on it.
    pub fn keep(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        let addr = socket.local_addr()?.as_socket().expect("it was bound to an internet address");
        Ok(Self { addr, _socket: socket })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A UDP address of 127.0.0.1 on which nobody receives. It is not kept, but the kernel gives it to nobody who asks for
/// any port: it is below those (`net.ipv4.ip_local_port_range`).
pub fn free_for_udp() -> io::Result<SocketAddr> {
    const FROM: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in several processes at a time.
    let first = (std::process::id() as u16).wrapping_mul(101);
    for _ in 0..COUNT {
        let port = FROM + first.wrapping_add(NEXT.fetch_add(1, Relaxed)) % COUNT;
        let addr = (Ipv4Addr::LOCALHOST, port).into();
        if UdpSocket::bind(addr).is_ok() {
            return Ok(addr);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_kept_port_is_for_servers_that_name_it() {
        let port = Port::of_loopback().unwrap();
        for _ in 0..2 {
            assert_eq!(TcpStream::connect(port.addr()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(port.addr()).unwrap();
            TcpStream::connect(port.addr()).unwrap();
            assert_eq!(Port::keep(port.addr()).map(|_| ()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(listener);
        }
        // Without SO_REUSEADDR it is as good as in use.
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert_eq!(other.bind(&port.addr().into()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}

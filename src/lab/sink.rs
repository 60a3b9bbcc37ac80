//! The sink: InfluxDB stand-ins that cost next to nothing, so that `make bench` measures the proxy and not the
//! backends.
//!
//! One thread serves all of them over one epoll. `/ping` and `/write` answer 204, `/query` always lists the one
//! database [`DATABASE`], and bodies are dropped in the kernel without a copy. Nothing is stored; for a stand-in that
//! counts and misbehaves see [`crate::lab::stand_in`]. Chunked requests are refused, since couriers send none.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use clap::Args;
use rustix::event::epoll;
use rustix::time::Timespec;
use socket2::SockRef;

/// The database that every sink lists.
pub const DATABASE: &str = "bench";
/// Longest request head. Longer: the connection is closed.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Bytes of a body that one call drops at most.
const DROP_BYTES: usize = 4 * 1024 * 1024;
const EVENTS: usize = 64;
/// `stop` is checked this often.
const STOP_INTERVAL: Duration = Duration::from_millis(200);

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Build: OSS\r\nX-Influxdb-Version: 1.8.10\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct SinkArgs {
    /// Where to listen; port 0 takes a free one. Each address is printed, then the sinks serve until SIGTERM or SIGINT.
    #[arg(required = true, value_name = "ADDR")]
    pub addrs: Vec<SocketAddr>,
}

/// What the next byte of a connection belongs to.
enum SinkState {
    /// The bytes of a head so far.
    Head(Vec<u8>),
    /// Bytes of the body still to come, and whether it belongs to a query.
    Body { left: u64, query: bool },
}

struct Connection {
    stream: TcpStream,
    state: SinkState,
}

/// Bound sinks that do not serve yet.
pub struct Sinks {
    listeners: Vec<TcpListener>,
}

impl Sinks {
    pub fn bind(addrs: &[SocketAddr]) -> io::Result<Self> {
        let bind = |addr| {
            let listener = TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        Ok(Self { listeners: addrs.iter().map(bind).collect::<io::Result<_>>()? })
    }

    pub fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves on this thread until `stop`. A connection with HTTP beyond what is known here is closed.
    pub fn serve(self, stop: &AtomicBool) -> io::Result<()> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, listener) in self.listeners.iter().enumerate() {
            epoll::add(&epoll, listener, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        }
        // Tokens: listeners first, connections behind them.
        let mut connections: Vec<Option<Connection>> = Vec::new();
        let mut scratch = vec![0; HEAD_BYTES_MAX];
        let mut dropped = Vec::with_capacity(DROP_BYTES);
        let mut events = Vec::with_capacity(EVENTS);
        let timeout = Timespec { tv_sec: 0, tv_nsec: STOP_INTERVAL.as_nanos() as i64 };
        while !stop.load(Relaxed) {
            events.clear();
            match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let token = event.data.u64() as usize;
                match token.checked_sub(self.listeners.len()) {
                    None => self.accept(&epoll, token, &mut connections)?,
                    Some(index) => {
                        let slot = &mut connections[index];
                        let goes_on = slot.as_mut().is_some_and(|c| c.serve(&mut scratch, &mut dropped).is_ok());
                        if !goes_on {
                            // Dropping the stream removes it from the epoll set.
                            *slot = None;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&self, epoll: &OwnedFd, index: usize, connections: &mut Vec<Option<Connection>>) -> io::Result<()> {
        let stream = match self.listeners[index].accept() {
            Ok((stream, _)) => stream,
            // The peer may have gone already.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return Ok(()),
            Err(e) => return Err(e),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let free = connections.iter().position(Option::is_none).unwrap_or(connections.len());
        let token = epoll::EventData::new_u64((self.listeners.len() + free) as u64);
        epoll::add(epoll, &stream, token, epoll::EventFlags::IN)?;
        let connection = Some(Connection { stream, state: SinkState::Head(Vec::new()) });
        match connections.get_mut(free) {
            Some(slot) => *slot = connection,
            None => connections.push(connection),
        }
        Ok(())
    }
}

impl Connection {
    /// Reads available bytes and answers whole requests. Level-triggered: one read is enough, the rest is announced
    /// again.
    fn serve(&mut self, scratch: &mut [u8], dropped: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.state {
            SinkState::Head(head) => {
                let read = match self.stream.read(scratch) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(read) => read,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(e),
                };
                head.extend_from_slice(&scratch[..read]);
                self.take_heads()
            }
            SinkState::Body { left, query } => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(DROP_BYTES);
                let space = &mut dropped.spare_capacity_mut()[..len];
                // MSG_TRUNC on TCP discards bytes instead of copying them (tcp(7)).
                let read = match SockRef::from(&self.stream).recv_with_flags(space, libc::MSG_TRUNC) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(read) => read,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(e),
                };
                *left -= read as u64;
                if *left == 0 {
                    let query = *query;
                    self.state = SinkState::Head(Vec::new());
                    self.answer(query)?;
                }
                Ok(())
            }
        }
    }

    /// Answers every whole request in the head's bytes, then continues with the body of the last one.
    fn take_heads(&mut self) -> io::Result<()> {
        while let SinkState::Head(bytes) = &mut self.state {
            let Some(head) = Head::parse(bytes)? else {
                return if bytes.len() < HEAD_BYTES_MAX { Ok(()) } else { Err(ErrorKind::InvalidData.into()) };
            };
            let here = (bytes.len() - head.len).min(usize::try_from(head.body_len).unwrap_or(usize::MAX));
            let left = head.body_len - here as u64;
            bytes.drain(..head.len + here);
            if left > 0 {
                self.state = SinkState::Body { left, query: head.query };
                return if head.waits { self.stream.write_all(CONTINUE) } else { Ok(()) };
            }
            self.answer(head.query)?;
        }
        Ok(())
    }

    /// An answer fits into an empty socket buffer. If not, the peer does not read, and the connection ends.
    fn answer(&mut self, query: bool) -> io::Result<()> {
        if !query {
            return self.stream.write_all(NO_CONTENT);
        }
        let body = format!(
            "{{\"results\":[{{\"statement_id\":0,\"series\":[{{\"name\":\"databases\",\"columns\":[\"name\"],\
             \"values\":[[\"{DATABASE}\"]]}}]}}]}}\n"
        );
        write!(
            &self.stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             X-Influxdb-Version: 1.8.10\r\n\r\n{body}",
            body.len()
        )
    }
}

struct Head {
    len: usize,
    body_len: u64,
    query: bool,
    /// The client waits for `100 Continue`.
    waits: bool,
}

impl Head {
    /// None while the head is incomplete.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let len = match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(ErrorKind::InvalidData.into()),
        };
        let query = request.path.is_some_and(|path| path.starts_with("/query"));
        let mut head = Self { len, body_len: 0, query, waits: false };
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(header.value).ok().map(str::trim);
                let body_len = text.and_then(|text| text.parse().ok());
                head.body_len = body_len.ok_or(ErrorKind::InvalidData)?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(ErrorKind::Unsupported.into());
            } else if header.name.eq_ignore_ascii_case("expect") {
                head.waits = true;
            }
        }
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::http1::Response;

    /// Runs `talk` against a sink of its own.
    fn with_sink(talk: impl FnOnce(TcpStream)) {
        let sinks = Sinks::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let addr = sinks.addrs().unwrap()[0];
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| sinks.serve(&stop));
            let talked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let stream = TcpStream::connect(addr).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                talk(stream);
            }));
            stop.store(true, Relaxed);
            serving.join().unwrap().unwrap();
            talked.unwrap();
        });
    }

    fn response(stream: &mut TcpStream) -> (u16, String) {
        let mut bytes = Vec::new();
        loop {
            if let Some(response) = Response::parse(&bytes, false).unwrap() {
                return (response.status, String::from_utf8(response.body(&bytes).into_owned()).unwrap());
            }
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed early");
            bytes.push(byte[0]);
        }
    }

    #[test]
    fn writes_of_any_size_cut_anywhere_are_dropped_and_acknowledged() {
        with_sink(|mut stream| {
            for len in [0, 1, 1000, 3 * DROP_BYTES] {
                let mut request =
                    format!("POST /write?db=bench HTTP/1.1\r\nContent-Length: {len}\r\n\r\n").into_bytes();
                request.resize(request.len() + len, b'x');
                let (first, rest) = request.split_at(20);
                stream.write_all(first).unwrap();
                stream.write_all(rest).unwrap();
                assert_eq!(response(&mut stream), (204, String::new()), "{len}");
            }
            stream.write_all(&b"GET /ping HTTP/1.1\r\n\r\n".repeat(3)).unwrap();
            for _ in 0..3 {
                assert_eq!(response(&mut stream).0, 204);
            }
        });
    }

    #[test]
    fn the_database_of_the_benchmark_is_known() {
        with_sink(|mut stream| {
            stream.write_all(b"POST /query HTTP/1.1\r\nContent-Length: 16\r\n\r\nq=SHOW+DATABASES").unwrap();
            let (status, body) = response(&mut stream);
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &body["results"][0]["series"][0]["values"][0][0]), (200, &DATABASE.into()));
        });
    }

    #[test]
    fn an_unknown_request_ends_the_connection() {
        for request in ["SSH-2.0\r\n\r\n", "POST /write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"] {
            with_sink(|mut stream| {
                stream.write_all(request.as_bytes()).unwrap();
                assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)), "{request}");
            });
        }
    }
}

//! A blocking HTTP/1.1 client that sends exactly the given bytes, for tests.
//!
//! One connection, kept alive as long as the server allows. It cannot read answers to HEAD, whose length names a body
//! that does not come.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::lab::http1::Response;

/// A server that sends nothing for this long is an error.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Client {
    stream: TcpStream,
    /// Received, but not returned yet.
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// Head and body as received.
    pub raw: Vec<u8>,
    /// Without chunk framing; not inflated.
    pub body: Vec<u8>,
    response: Response,
}

impl Reply {
    /// The first header field called `name` (any case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.header(&self.raw, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The server said that it will close the connection.
    pub fn closes(&self) -> bool {
        self.response.close
    }
}

/// Sends bytes on a connection of their own; all that comes back until the other side closes.
///
/// # Errors
/// What the connection has, among it a server's silence for [`READ_TIMEOUT`].
pub fn exchange(addr: SocketAddr, bytes: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.write_all(bytes)?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    Ok(String::from_utf8_lossy(&got).into_owned())
}

impl Client {
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends bytes unchanged.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the sending side (half-close).
    pub fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The next final answer; 1xx answers before it are skipped. `Ok(None)` = the server closed the connection.
    pub fn receive(&mut self) -> io::Result<Option<Reply>> {
        let mut block = [0; 64 * 1024];
        let mut eof = false;
        loop {
            let parsed = Response::parse(&self.buffer, eof).or_else(|_| Response::parse(&printable(&self.buffer), eof));
            if let Some(response) = parsed.map_err(|_| io::Error::new(ErrorKind::InvalidData, "not HTTP/1.1"))? {
                let raw: Vec<u8> = self.buffer.drain(..response.len).collect();
                let body = response.body(&raw).into_owned();
                return Ok(Some(Reply { status: response.status, body, raw, response }));
            }
            match (eof, self.buffer.is_empty()) {
                (true, true) => return Ok(None),
                (true, false) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the answer was cut")),
                (false, _) => {}
            }
            match self.stream.read(&mut block) {
                Ok(0) => eof = true,
                Ok(got) => self.buffer.extend_from_slice(&block[..got]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => eof = true,
                Err(e) => return Err(e),
            }
        }
    }

    /// Bytes received so far that are not part of a returned answer, after waiting up to `timeout` for some.
    pub fn peek(&mut self, timeout: Duration) -> io::Result<&[u8]> {
        let mut block = [0; 64 * 1024];
        self.stream.set_read_timeout(Some(timeout))?;
        match self.stream.read(&mut block) {
            Ok(got) => self.buffer.extend_from_slice(&block[..got]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
        self.stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(&self.buffer)
    }

    /// Sends a request with these header lines (`"Name: value"`) and, unless it is empty, a body with its length.
    pub fn request(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> io::Result<Reply> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
        for header in headers {
            head += header;
            head += "\r\n";
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        self.send(&[head.as_bytes(), body].concat())?;
        let closed = || io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed without an answer");
        self.receive()?.ok_or_else(closed)
    }

    pub fn get(&mut self, target: &str) -> io::Result<Reply> {
        self.request("GET", target, &[], b"")
    }

    /// Writes lines to a database.
    pub fn write(&mut self, db: &str, lines: &str) -> io::Result<Reply> {
        self.request("POST", &format!("/write?db={}", crate::lab::http1::url_encoded(db)), &[], lines.as_bytes())
    }
}

/// Replaces control bytes, which InfluxDB lets through into header values, by spaces.
fn printable(message: &[u8]) -> Vec<u8> {
    let head_len = message.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(message.len());
    let (head, rest) = message.split_at(head_len);
    let blanked =
        head.iter().map(|&byte| if byte.is_ascii_control() && !b"\r\n".contains(&byte) { b' ' } else { byte });
    blanked.chain(rest.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::stand_in::{Fault, StandIn};

    #[test]
    fn a_connection_carries_one_answer_after_the_other() {
        let standin = StandIn::with_databases(&["db"]).unwrap();
        let mut client = Client::connect(standin.addr()).unwrap();
        assert_eq!(client.write("db", "m n=1i 1\n").unwrap().status, 204);
        let reply = client.get("/query?q=SHOW+DATABASES").unwrap();
        assert!(reply.text().contains("[\"db\"]"), "{}", reply.text());
        assert_eq!(reply.header("x-influxdb-version"), Some(crate::lab::stand_in::VERSION));
        // Two requests in one packet: two answers.
        client.send(b"GET /ping HTTP/1.1\r\n\r\nGET /no HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let statuses: Vec<_> = std::iter::from_fn(|| client.receive().unwrap()).map(|reply| reply.status).collect();
        assert_eq!(statuses, [204, 404]);
    }

    #[test]
    fn a_cut_connection_is_not_an_answer() {
        let standin = StandIn::with_databases(&["db"]).unwrap();
        standin.script([Fault::Reset]);
        let mut client = Client::connect(standin.addr()).unwrap();
        assert_eq!(client.write("db", "m n=1i 1\n").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn peeking_shows_what_came_without_waiting_for_more() {
        let standin = StandIn::with_databases(&["db"]).unwrap();
        let mut client = Client::connect(standin.addr()).unwrap();
        assert_eq!(client.peek(Duration::from_millis(50)).unwrap(), b"");
        client.send(b"POST /write?db=db HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n").unwrap();
        assert_eq!(client.peek(Duration::from_secs(5)).unwrap(), b"HTTP/1.1 100 Continue\r\n\r\n");
        client.send(b"m n=1i 1\n").unwrap();
        assert_eq!(client.receive().unwrap().unwrap().status, 204);
    }
}

//! TLS over a socket, with rustls's unbuffered interface, driven by reads and writes of the stream.
//!
//! ```text
//!   socket ─recv─> input ─rustls─> the caller's buffer, what does not fit into `plain`
//!   the caller's bytes ─rustls─> output ─send─> socket
//! ```
//!
//! All state lies here and not in a future: a read or a handshake that is dropped loses nothing. What rustls itself
//! sends (handshake, alerts, new keys) goes through the same `output`, so that records are sent in order.
//!
//! Not here: certificates and trust (`crate::tls`).

use std::fmt;
use std::io;
use std::net::Shutdown;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::runtime::TcpStream;
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_INPUT_BYTES, TLS_OUTPUT_BYTES, TLS_OUTPUT_KEPT_BYTES};

/// Why a TLS handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// The client speaks HTTP without TLS.
    PlainHttp,
    Failed(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// The TLS state of one connection.
pub(super) struct Tls {
    side: Side,
    /// Records that have arrived and are not decrypted yet.
    input: Buffer,
    /// Records to be sent.
    output: Buffer,
    /// Decrypted bytes for which the reader had no room.
    plain: Buffer,
    peer_closed: bool,
}

enum Side {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What a step is to achieve.
enum Want<'a> {
    Handshake,
    /// Plain bytes into this buffer.
    Read(&'a mut [u8]),
    /// Encrypt all of this into records.
    Write(&'a [u8]),
    Close,
}

/// The result of a step.
enum Step {
    Done(usize),
    /// Nothing can be done until more bytes arrive.
    NeedsInput,
    PeerClosed,
}

impl Tls {
    pub(super) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(Box::new(connection)))
    }

    pub(super) fn server(connection: UnbufferedServerConnection) -> Self {
        Self::new(Side::Server(Box::new(connection)))
    }

    fn new(side: Side) -> Self {
        let (input, output, plain) = Default::default();
        Self { side, input, output, plain, peer_closed: false }
    }

    /// Runs until application data may be sent.
    pub(super) async fn handshake(&mut self, tcp: &mut TcpStream) -> Result<(), HandshakeError> {
        if matches!(self.side, Side::Server(_)) {
            while self.input.filled().len() < HTTP_BEGINNING_BYTES {
                self.receive(tcp).await?;
                if self.peer_closed {
                    return Err(ended_early().into());
                }
            }
            if looks_like_http(self.input.filled()) {
                return Err(HandshakeError::PlainHttp);
            }
        }
        loop {
            let step = self.step(&mut Want::Handshake, tcp).await?;
            self.flush(tcp).await?;
            match step {
                Step::Done(_) => return Ok(()),
                Step::PeerClosed => return Err(ended_early().into()),
                Step::NeedsInput => self.receive(tcp).await?,
            }
            if self.peer_closed {
                return Err(ended_early().into());
            }
        }
    }

    pub(super) async fn read(&mut self, tcp: &mut TcpStream, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.plain.is_empty() {
                return Ok(self.plain.give(buf));
            }
            if self.peer_closed {
                return Ok(0);
            }
            let step = self.step(&mut Want::Read(&mut *buf), tcp).await?;
            // Before waiting: the peer may be waiting for these records.
            self.flush(tcp).await?;
            match step {
                Step::Done(0) => {}
                Step::Done(n) => return Ok(n),
                Step::PeerClosed => self.peer_closed = true,
                Step::NeedsInput => self.receive(tcp).await?,
            }
        }
    }

    pub(super) async fn write_all(&mut self, tcp: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(TLS_OUTPUT_BYTES) {
            match self.step(&mut Want::Write(piece), tcp).await? {
                Step::Done(_) => self.flush(tcp).await?,
                Step::NeedsInput | Step::PeerClosed => return Err(io::ErrorKind::NotConnected.into()),
            }
        }
        Ok(())
    }

    /// Sends close_notify, unless only reading ends.
    pub(super) async fn shutdown(&mut self, tcp: &mut TcpStream, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Read {
            // Without it the peer could not tell this end from a cut connection.
            self.step(&mut Want::Close, tcp).await?;
            self.flush(tcp).await?;
        }
        Ok(())
    }

    /// Processes available bytes until `want` is reached. After an error, sends the alert to the peer if possible.
    async fn step(&mut self, want: &mut Want<'_>, tcp: &mut TcpStream) -> io::Result<Step> {
        let error = match self.advance(want) {
            Ok(step) => return Ok(step),
            Err(error) => error,
        };
        // rustls has the alert ready; this call encodes it and then returns the same error again.
        let _ = self.advance(&mut Want::Handshake);
        let _ = self.flush(tcp).await;
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn advance(&mut self, want: &mut Want<'_>) -> Result<Step, rustls::Error> {
        let Self { side, input, output, plain, .. } = self;
        loop {
            let arrived = input.filled_mut();
            let (used, step) = match side {
                Side::Client(tls) => act(tls.process_tls_records(arrived), want, output, plain),
                Side::Server(tls) => act(tls.process_tls_records(arrived), want, output, plain),
            };
            input.consume(used);
            if let Some(step) = step? {
                return Ok(step);
            }
        }
    }

    /// Waits for more records. From a client, the end of the stream counts as a close, since requests have lengths. An
    /// answer of a server may have no length, and a cut answer must not be taken for a complete one.
    async fn receive(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        let n = tcp.read(self.input.room_for_records()?).await?;
        self.input.add(n);
        match (n, &self.side) {
            (0, Side::Server(_)) => self.peer_closed = true,
            (0, Side::Client(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
        Ok(())
    }

    async fn flush(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        while !self.output.is_empty() {
            let n = tcp.write(self.output.filled()).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.output.consume(n);
        }
        self.output.keep_at_most(TLS_OUTPUT_KEPT_BYTES);
        Ok(())
    }
}

impl fmt::Debug for Tls {
    /// Without the contents of the buffers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("peer_closed", &self.peer_closed).finish_non_exhaustive()
    }
}

/// Does what rustls asks for, or what is wanted if rustls asks for nothing. Returns how many input bytes were used, and
/// the outcome; None = continue.
fn act<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    want: &mut Want<'_>,
    output: &mut Buffer,
    plain: &mut Buffer,
) -> (usize, Result<Option<Step>, rustls::Error>) {
    let UnbufferedStatus { discard, state } = status;
    let outcome = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut record)) => {
            let mut needed = 0;
            loop {
                match record.encode(output.room(needed)) {
                    Ok(n) => {
                        output.add(n);
                        break Ok(None);
                    }
                    Err(EncodeError::InsufficientSize(size)) => needed = size.required_size,
                    Err(EncodeError::AlreadyEncoded) => unreachable!("it ends with the first success"),
                }
            }
        }
        Ok(ConnectionState::TransmitTlsData(records)) => {
            // The records are in `output`, in front of everything that follows.
            records.done();
            Ok(None)
        }
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut taken = 0;
            loop {
                match traffic.next_record() {
                    None => break,
                    Some(Err(error)) => return (discard, Err(error)),
                    Some(Ok(record)) => {
                        let mut bytes = record.payload;
                        // Bytes decrypted before come first.
                        if let Want::Read(buf) = want
                            && plain.is_empty()
                        {
                            let (now, later) = bytes.split_at(bytes.len().min(buf.len() - taken));
                            buf[taken..taken + now.len()].copy_from_slice(now);
                            taken += now.len();
                            bytes = later;
                        }
                        plain.append(bytes);
                    }
                }
            }
            Ok(matches!(want, Want::Read(_)).then_some(Step::Done(taken)))
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            let mut needed = 0;
            loop {
                let room = output.room(needed);
                let written = match want {
                    Want::Handshake => return (discard, Ok(Some(Step::Done(0)))),
                    Want::Read(_) => return (discard, Ok(Some(Step::NeedsInput))),
                    Want::Write(bytes) => traffic.encrypt(bytes, room),
                    Want::Close => traffic.queue_close_notify(room),
                };
                match written {
                    Ok(n) => {
                        output.add(n);
                        break Ok(Some(Step::Done(n)));
                    }
                    Err(EncryptError::InsufficientSize(size)) => needed = size.required_size,
                    Err(EncryptError::EncryptExhausted) => break Err(rustls::Error::EncryptError),
                }
            }
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Some(Step::NeedsInput)),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Some(Step::PeerClosed)),
        // Early data; it is not offered.
        Ok(_) => Err(rustls::Error::General("unexpected state".to_owned())),
    };
    (discard, outcome)
}

fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within the TLS handshake")
}

/// Enough bytes of a request to tell it from a TLS record; no record that starts a handshake is shorter.
const HTTP_BEGINNING_BYTES: usize = 5;

/// As in Go's `net/http` (`tlsRecordHeaderLooksLikeHTTP`).
fn looks_like_http(bytes: &[u8]) -> bool {
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"].iter().any(|beginning| bytes.starts_with(*beginning))
}

/// Bytes that are consumed at the front and added at the end.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Marks `n` bytes of the room as filled.
    fn add(&mut self, n: usize) {
        self.end += n;
    }

    /// Room for at least `n` more bytes.
    fn room(&mut self, n: usize) -> &mut [u8] {
        if self.bytes.len() < self.end + n {
            self.bytes.resize(self.end + n, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// Room for arriving bytes. A record always fits; only handshake messages are larger.
    fn room_for_records(&mut self) -> io::Result<&mut [u8]> {
        if self.is_empty() && self.bytes.len() != TLS_INPUT_BYTES {
            self.bytes = vec![0; TLS_INPUT_BYTES];
        }
        if self.start > 0 && self.bytes.len() - self.end < TLS_INPUT_BYTES / 2 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.bytes.len() {
            if self.end >= TLS_HANDSHAKE_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the TLS handshake is too large"));
            }
            self.bytes.resize((2 * self.end).min(TLS_HANDSHAKE_BYTES_MAX), 0);
        }
        Ok(&mut self.bytes[self.end..])
    }

    fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            self.add(bytes.len());
        }
    }

    /// Moves as many bytes as fit. Frees the memory when empty.
    fn give(&mut self, buf: &mut [u8]) -> usize {
        let n = self.filled().len().min(buf.len());
        buf[..n].copy_from_slice(&self.filled()[..n]);
        self.consume(n);
        self.keep_at_most(0);
        n
    }

    /// Frees the memory of an empty buffer if it is larger than this.
    fn keep_at_most(&mut self, bytes_max: usize) {
        if self.is_empty() && self.bytes.len() > bytes_max {
            self.bytes = Vec::new();
        }
    }
}

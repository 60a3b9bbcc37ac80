//! A byte stream to a client or to a backend, plain or with TLS.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;

use super::runtime::{self, TcpStream};
use super::tls::{HandshakeError, Tls};
use crate::tls::ServerTls;

/// A connected TCP socket of this executor. Dropping it closes it.
#[derive(Debug)]
pub struct Stream {
    inner: TcpStream,
    /// On the heap, so that plain connections stay small.
    tls: Option<Box<Tls>>,
}

impl From<TcpStream> for Stream {
    fn from(inner: TcpStream) -> Self {
        Self { inner, tls: None }
    }
}

impl Stream {
    /// # Errors
    /// Of `connect(2)`; `TimedOut` after `timeout`.
    pub async fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        runtime::connect(addr, timeout).await.map(Self::from)
    }

    /// Connects and does a TLS handshake with the server `name`, both within `timeout`.
    ///
    /// # Errors
    /// As [`Stream::connect`]; handshake errors, where `InvalidData` holds a [`rustls::Error`].
    pub async fn connect_tls(
        addr: SocketAddr,
        timeout: Duration,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let connected = async {
            let mut stream = Self::connect(addr, timeout).await?;
            let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
            stream.tls = Some(Box::new(Tls::client(connection)));
            match stream.handshake().await {
                Ok(()) => Ok(stream),
                Err(HandshakeError::Failed(error)) => Err(error),
                Err(HandshakeError::PlainHttp) => unreachable!("only servers look for it"),
            }
        };
        super::timeout(timeout, connected).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Makes this stream the server side of TLS; call [`Stream::handshake`] next.
    ///
    /// # Errors
    /// Those of rustls, for a configuration it cannot use.
    pub fn accept_tls(&mut self, tls: &ServerTls) -> Result<(), rustls::Error> {
        self.tls = Some(Box::new(Tls::server(UnbufferedServerConnection::new(tls.config())?)));
        Ok(())
    }

    /// Does the TLS handshake; nothing for a plain stream. Waits for as long as the peer keeps the connection open.
    ///
    /// # Errors
    /// After [`HandshakeError::PlainHttp`] the stream is plain, so that an answer can be sent to the client.
    pub async fn handshake(&mut self) -> Result<(), HandshakeError> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let result = tls.handshake(&mut self.inner).await;
        if matches!(result, Err(HandshakeError::PlainHttp)) {
            self.tls = None;
        }
        result
    }

    /// Reads available bytes, at least one; 0 = the peer has closed. Dropping the future loses no data.
    ///
    /// # Errors
    /// Of `recv(2)`; `InvalidData` for bytes that are not TLS.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.inner.read(buf).await,
            Some(tls) => tls.read(&mut self.inner, buf).await,
        }
    }

    /// # Errors
    /// Of `send(2)`.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.inner.write_all(bytes).await,
            Some(tls) => tls.write_all(&mut self.inner, bytes).await,
        }
    }

    /// Ends one or both directions; the peer sees it at once.
    ///
    /// # Errors
    /// Of `shutdown(2)`.
    pub async fn shutdown(&mut self, how: Shutdown) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            // A failure means that the peer is gone, or that the handshake is not finished.
            let _ = tls.shutdown(&mut self.inner, how).await;
        }
        runtime::shutdown(&self.inner, how).await
    }

    /// Ends this stream with a reset, for a peer that would take a normal end for the end of the data.
    pub fn reset_at_end(&self) {
        runtime::reset_at_end(&self.inner);
    }

    /// # Errors
    /// Of `getpeername(2)`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        runtime::peer_addr(&self.inner)
    }

    /// For [`super::shut`] from another task than the reading one; valid while the stream lives.
    pub fn raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

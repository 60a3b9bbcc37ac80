//! Sends one request and reads its answer on a kept connection, for writes and for queries.
//!
//! A backend may close a kept connection at any time. If it ends before the first byte of the answer, it is replaced
//! once by a new connection. Not here: what is sent and how an answer is read (`client.rs`, `query::forward`), who
//! keeps the connections.

use std::fmt;

use crate::io::Stream;
use crate::tls::TlsFault;

/// There was no answer. The lines may have been stored; writing them again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeFailure {
    /// The backend's name has not been resolved yet.
    NoAddress,
    /// The connection could not be opened.
    Refused(std::io::ErrorKind),
    /// TLS failed, or the certificate is not the backend's.
    Handshake(TlsFault),
    /// The connection ended before the answer was complete.
    Cut,
    /// No answer within the endpoint's timeout.
    TimedOut,
    /// The received bytes are not HTTP.
    Garbled,
}

impl fmt::Display for ExchangeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("its host name has not been resolved"),
            Self::Refused(kind) => write!(f, "no connection: {kind}"),
            Self::Handshake(fault) => fault.fmt(f),
            Self::Cut => f.write_str("connection lost before the answer"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Garbled => f.write_str("the answer is not HTTP"),
        }
    }
}

/// Why an attempt on one connection gave no answer.
pub enum AttemptFailure {
    /// The connection ended before any byte of the answer. A kept connection may just have been closed by the backend.
    Silent,
    Failed(ExchangeFailure),
}

impl From<AttemptFailure> for ExchangeFailure {
    fn from(failure: AttemptFailure) -> Self {
        match failure {
            AttemptFailure::Silent => Self::Cut,
            AttemptFailure::Failed(failure) => failure,
        }
    }
}

/// Makes the attempt on the kept connection, if there is one, and once more on a new connection if the first was
/// `Silent`. `connect` is awaited only if a new connection is needed.
///
/// # Errors
/// The [`ExchangeFailure`] of the last attempt or of `connect`.
pub async fn exchange<T>(
    kept: Option<Stream>,
    connect: impl Future<Output = Result<Stream, ExchangeFailure>>,
    mut attempt: impl AsyncFnMut(Stream) -> Result<T, AttemptFailure>,
) -> Result<T, ExchangeFailure> {
    if let Some(stream) = kept {
        match attempt(stream).await {
            Err(AttemptFailure::Silent) => {}
            ended => return Ok(ended?),
        }
    }
    Ok(attempt(connect.await?).await?)
}

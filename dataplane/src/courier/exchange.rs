//! One request and its answer on a kept connection, for writes and for queries alike.
//!
//! A backend may close a kept connection at any time. One that dies before the first byte of the answer is replaced
//! once, by a new connection. Not here: what is sent and how an answer is read (`client.rs`, `query::forward`), and who
//! keeps connections.

use std::fmt;

use crate::io::Stream;
use crate::tls::TlsFault;

/// No answer. Whether the lines have been stored is unknown; writing them again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeFailure {
    /// The backend's name has no address yet.
    NoAddress,
    /// No connection could be made.
    Refused(std::io::ErrorKind),
    /// No TLS came about, or the backend is not who it should be.
    Handshake(TlsFault),
    /// The connection ended before the answer did.
    Cut,
    /// No answer within the endpoint's timeout.
    TimedOut,
    /// What came back is not HTTP.
    Garbled,
}

impl fmt::Display for ExchangeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress => f.write_str("its name has no address"),
            Self::Refused(kind) => write!(f, "no connection: {kind}"),
            Self::Handshake(fault) => fault.fmt(f),
            Self::Cut => f.write_str("connection lost before the answer"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Garbled => f.write_str("the answer is not HTTP"),
        }
    }
}

/// How an attempt on one connection ended without an answer.
pub enum Lost {
    /// Before any byte of the answer: on a kept connection the backend may just have closed it.
    Silent,
    Failed(ExchangeFailure),
}

impl From<Lost> for ExchangeFailure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Silent => Self::Cut,
            Lost::Failed(failure) => failure,
        }
    }
}

/// Makes the attempt on the kept connection, if there is one, and on a new one if that was silent. `connect` is awaited
/// only when a new one is needed.
///
/// # Errors
/// [`ExchangeFailure`] of the last attempt, or of `connect`.
pub async fn exchange<T>(
    kept: Option<Stream>,
    connect: impl Future<Output = Result<Stream, ExchangeFailure>>,
    mut attempt: impl AsyncFnMut(Stream) -> Result<T, Lost>,
) -> Result<T, ExchangeFailure> {
    if let Some(stream) = kept {
        match attempt(stream).await {
            Err(Lost::Silent) => {}
            ended => return Ok(ended?),
        }
    }
    Ok(attempt(connect.await?).await?)
}

//! Sends a remote read of Prometheus to one backend and reads the answer as a whole, as the snappy block it is.
//!
//! Not here: what is in it (`fluxgate_dataplane::prometheus`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fluxgate_dataplane::prometheus::read::PANICKED;

use super::budget::{Held, Interrupted};
use super::client::{Client, authorized, why};
use super::reader::read_whole;
use super::wire::{WireError, json};
use crate::limits;

/// One request, and how to ask it.
#[derive(Debug, Clone)]
pub struct ReadCall {
    pub db: String,
    pub rp: String,
    /// A snappy block.
    pub block: Vec<u8>,
    pub time_left: Duration,
    pub cancelled: Arc<AtomicBool>,
}

/// What a backend says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadReply {
    /// A snappy block, whose bytes are held.
    Answer(Vec<u8>),
    /// It refuses the request, with this text.
    Refused(String),
}

/// Why a backend has not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFailure {
    /// It has failed over the request, as another one with the same data would.
    Panicked,
    Other(String),
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked => write!(f, "answered 500: {PANICKED}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl ReadReply {
    /// The bytes that are held for it.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Answer(block) => block.capacity(),
            Self::Refused(_) => 0,
        }
    }
}

impl Client {
    /// Asks a backend. The inner error says why there is no answer.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn prometheus_read(&self, call: &ReadCall, held: &Held) -> Result<Result<ReadReply, ReadFailure>, Interrupted> {
        let failed = |why: &str| Ok(Err(ReadFailure::Other(why.to_owned())));
        let request = self.agent.post(format!("{}/api/v1/prom/read", self.url)).config();
        let request = request.timeout_global(Some(call.time_left)).timeout_connect(Some(limits::QUERY_CONNECT_TIMEOUT));
        let request = authorized(request.build(), self.authorization.as_ref());
        let sent = request.query_pairs([("db", &call.db), ("rp", &call.rp)]).send(&call.block);
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return failed(&why(&error)),
        };
        match response.status().as_u16() {
            200 => {}
            400 => {
                let body = response.body_mut().with_config().limit(limits::FAILURE_BODY_BYTES_MAX).read_to_vec();
                return match json::parse(body.unwrap_or_default().into()) {
                    Err(WireError::Refused(text)) => Ok(Ok(ReadReply::Refused(text))),
                    _ => failed("answered 400"),
                };
            }
            500 => {
                let body = response.body_mut().with_config().limit(limits::FAILURE_BODY_BYTES_MAX).read_to_vec();
                let panicked = body.unwrap_or_default().trim_ascii() == PANICKED.as_bytes();
                return if panicked { Ok(Err(ReadFailure::Panicked)) } else { failed("answered 500") };
            }
            401 | 403 => return failed("refuses its configured user"),
            status => return failed(&format!("answered {status}")),
        }
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.contains("protobuf") {
            return failed("does not answer as InfluxDB does");
        }
        let body = read_whole(&mut response.into_body().into_reader(), &call.cancelled, held)?;
        Ok(body.map(ReadReply::Answer).map_err(|error| ReadFailure::Other(error.to_string())))
    }
}

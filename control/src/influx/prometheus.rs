//! Sends a remote read of Prometheus to one backend and reads the answer as a whole, as the snappy block it is.
//!
//! Not here: what is in it (`fluxgate_dataplane::prometheus`).

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
    /// Asks a backend. The inner error says why there is no answer: [`PANICKED`] when it has failed over the request,
    /// as another one with the same data would.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn prometheus_read(&self, call: &ReadCall, held: &Held) -> Result<Result<ReadReply, String>, Interrupted> {
        let request = self.agent.post(format!("{}/api/v1/prom/read", self.url)).config();
        let request = request.timeout_global(Some(call.time_left)).timeout_connect(Some(limits::QUERY_CONNECT_TIMEOUT));
        let request = authorized(request.build(), self.authorization.as_ref());
        let sent = request.query_pairs([("db", &call.db), ("rp", &call.rp)]).send(&call.block);
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Ok(Err(why(&error))),
        };
        match response.status().as_u16() {
            200 => {}
            400 => {
                let body = response.body_mut().with_config().limit(limits::FAILURE_BODY_BYTES_MAX).read_to_vec();
                return Ok(match json::parse(body.unwrap_or_default().into()) {
                    Err(WireError::Refused(text)) => Ok(ReadReply::Refused(text)),
                    _ => Err("answered 400".to_owned()),
                });
            }
            500 => {
                let body = response.body_mut().with_config().limit(limits::FAILURE_BODY_BYTES_MAX).read_to_vec();
                let panicked = body.unwrap_or_default().trim_ascii() == PANICKED.as_bytes();
                return Ok(Err(if panicked { PANICKED } else { "answered 500" }.to_owned()));
            }
            401 | 403 => return Ok(Err("refuses its configured user".to_owned())),
            status => return Ok(Err(format!("answered {status}"))),
        }
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.contains("protobuf") {
            return Ok(Err("does not answer as InfluxDB does".to_owned()));
        }
        let body = read_whole(&mut response.into_body().into_reader(), &call.cancelled, held)?;
        Ok(body.map(ReadReply::Answer).map_err(|error| error.to_string()))
    }
}

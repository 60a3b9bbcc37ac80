//! Sends one statement to one backend and reads the answer, as a whole or document by document.
//!
//! Not here: which backend is asked, and what a failure means for the request (`query/context`).

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use fluxgate_dataplane::influxql::unbind;

use super::answer::Answer;
use super::budget::{Held, Interrupted};
use super::client::{Client, why};
use super::wire::{self, StatementAnswer, WireError, as_json, frame};
use crate::limits;

const NOT_INFLUX: &str = "does not answer as InfluxDB does";

/// Why an answer was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// The backend refuses the statement, with this text.
    Refused(String),
    /// No answer, or a cut or malformed one. A retry may succeed.
    Cut(String),
}

/// One statement, and how to ask it.
#[derive(Debug, Clone)]
pub struct Call {
    pub statement: String,
    pub db: String,
    pub rp: String,
    /// Empty = times as text.
    pub epoch: String,
    /// Ask for msgpack, which tells floats from integers.
    pub typed: bool,
    /// Use GET. InfluxDB then adds a warning to statements that change something.
    pub by_get: bool,
    /// Rows of a piece, when the answer comes in pieces.
    pub piece_rows: usize,
    /// Bytes of one piece. Longer: it counts as no answer.
    pub piece_bytes_max: u64,
    pub time_left: Duration,
    /// Time between two parts of the answer. Longer: it counts as no answer. None = `time_left`.
    pub silence_max: Option<Duration>,
    pub cancelled: Arc<AtomicBool>,
}

/// Reads a body to its end, in memory that is held. The inner error says why it cannot be read.
///
/// # Errors
/// [`Interrupted`].
pub fn read_whole(
    reader: &mut impl Read,
    cancelled: &AtomicBool,
    held: &Held,
) -> Result<std::io::Result<Vec<u8>>, Interrupted> {
    let mut body = Vec::new();
    loop {
        let before = body.capacity();
        body.reserve(limits::QUERY_READ_BYTES);
        held.take(body.capacity() - before)?;
        let read = reader.by_ref().take(limits::QUERY_READ_BYTES as u64).read_to_end(&mut body);
        if cancelled.load(Relaxed) {
            return Err(Interrupted::Cancelled);
        }
        match read {
            Ok(0) => return Ok(Ok(body)),
            Ok(_) => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

impl Client {
    /// The whole answer; the inner error says why there is none.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn statement(&self, call: &Call, held: &Held) -> Result<Result<Answer, String>, Interrupted> {
        Ok(match self.whole(call, held)? {
            Ok(mut statements) if statements.len() == 1 => Ok(statements.pop().map(|s| s.answer).unwrap_or_default()),
            Err(WholeFailure::Refused(error)) => Ok(Answer::failed(error)),
            Err(WholeFailure::None(why)) => Err(why),
            Err(WholeFailure::BeyondJson) => return self.beyond_json(call, held),
            Ok(_) => Err(NOT_INFLUX.to_owned()),
        })
    }

    /// The answers to all statements of a call, in order. Empty when it has none for all.
    ///
    /// # Errors
    /// [`Interrupted`].
    pub fn statements(&self, call: &Call, held: &Held) -> Result<Vec<Answer>, Interrupted> {
        let statements = self.whole(call, held)?.unwrap_or_default();
        Ok(statements.into_iter().map(|statement| statement.answer).collect())
    }

    fn whole(&self, call: &Call, held: &Held) -> Result<Result<Vec<StatementAnswer>, WholeFailure>, Interrupted> {
        let mut reader = match self.begin(call, false) {
            Ok(AnswerStart::Body(reader)) => reader,
            Ok(AnswerStart::Refused(error)) => return Ok(Err(WholeFailure::Refused(error))),
            Err(why) => return Ok(Err(WholeFailure::None(why))),
        };
        let mut body = match read_whole(&mut reader, &call.cancelled, held)? {
            Ok(body) => body,
            Err(e) => return Ok(Err(WholeFailure::None(e.to_string()))),
        };
        held.give_back(fit(&mut body));
        if !call.typed && as_json::is_unwritable(&body) {
            held.give_back(body.capacity());
            drop(body);
            return Ok(Err(WholeFailure::BeyondJson));
        }
        Ok(measured(call, body, held)?.map_err(|error| match error {
            WireError::Malformed => WholeFailure::None(NOT_INFLUX.to_owned()),
            WireError::Refused(error) => WholeFailure::Refused(error),
        }))
    }

    /// The answer that the backend cannot write as JSON.
    fn beyond_json(&self, call: &Call, held: &Held) -> Result<Result<Answer, String>, Interrupted> {
        let as_text = call.epoch.is_empty();
        let epoch = if as_text { "ns".to_owned() } else { call.epoch.clone() };
        let mut answer = self.statement(&Call { typed: true, epoch, ..call.clone() }, held)?;
        if let Ok(answer) = &mut answer {
            as_json::rewrite(answer, as_text);
        }
        Ok(answer)
    }

    /// The answer in pieces, each with at most `piece_rows` rows of one series. Before an inner error some pieces may
    /// have been passed on.
    ///
    /// # Errors
    /// [`Interrupted`], and those of `piece`.
    pub fn pieces<E: From<Interrupted>>(
        &self,
        call: &Call,
        held: &Held,
        piece: &mut dyn FnMut(Answer) -> Result<(), E>,
    ) -> Result<Result<(), String>, E> {
        let documents = self.documents::<E>(call, &mut |mut body| {
            fit(&mut body);
            let before = held.bytes();
            held.take(body.capacity())?;
            match measured(call, body, held)? {
                Ok(statements) => {
                    for StatementAnswer { answer, .. } in statements {
                        piece(answer)?;
                    }
                }
                Err(WireError::Refused(error)) => piece(Answer::failed(error))?,
                Err(WireError::Malformed) => return Ok(Err(NOT_INFLUX.to_owned())),
            }
            held.give_back(held.bytes() - before);
            Ok(Ok(()))
        })?;
        Ok(match documents {
            Err(Unread::Refused(error)) => return piece(Answer::failed(error)).map(Ok),
            Err(Unread::Cut(why)) => Err(why),
            Ok(()) => Ok(()),
        })
    }

    /// As [`Client::pieces`], with each document as it came. An inner error of `take` ends the reading.
    ///
    /// # Errors
    /// [`Interrupted`], and those of `take`.
    pub fn documents<E: From<Interrupted>>(
        &self,
        call: &Call,
        take: &mut dyn FnMut(Vec<u8>) -> Result<Result<(), String>, E>,
    ) -> Result<Result<(), Unread>, E> {
        let mut reader = match self.begin(call, true) {
            Ok(AnswerStart::Body(reader)) => BufReader::with_capacity(limits::QUERY_READ_BYTES, reader),
            Ok(AnswerStart::Refused(error)) => return Ok(Err(Unread::Refused(error))),
            Err(why) => return Ok(Err(Unread::Cut(why))),
        };
        loop {
            let bytes_max = call.piece_bytes_max;
            let read =
                if call.typed { frame::msgpack(&mut reader, bytes_max) } else { frame::line(&mut reader, bytes_max) };
            let read_whole = match read {
                Ok(Some(document)) => document,
                Ok(None) => return Ok(Ok(())),
                Err(e) => return Ok(Err(Unread::Cut(e.to_string()))),
            };
            if call.cancelled.load(Relaxed) {
                return Err(Interrupted::Cancelled.into());
            }
            if let Err(why) = take(read_whole)? {
                return Ok(Err(Unread::Cut(why)));
            }
        }
    }

    fn begin(&self, call: &Call, chunked: bool) -> Result<AnswerStart, String> {
        let rows = call.piece_rows.to_string();
        let (statement, params) = unbind(&call.statement);
        let params = params.unwrap_or_default();
        let mut form = vec![("q", &statement[..]), ("db", &call.db), ("rp", &call.rp), ("epoch", &call.epoch)];
        form.push(("params", &params));
        form.retain(|(_, value)| !value.is_empty());
        if chunked {
            form.extend([("chunked", "true"), ("chunk_size", &rows)]);
        }
        let mut headers = vec![("Accept", if call.typed { "application/x-msgpack" } else { "application/json" })];
        headers.extend(self.authorization.iter().map(|value| ("Authorization", value.as_str())));
        let (url, timeout) = (format!("{}/query", self.url), Some(call.time_left));
        let connect = Some(limits::QUERY_CONNECT_TIMEOUT);
        let sent = if call.by_get {
            let request = self.agent.get(&url).config().timeout_global(timeout).timeout_connect(connect).build();
            headers
                .iter()
                .fold(request, |request, (name, value)| request.header(*name, *value))
                .query_pairs(form)
                .call()
        } else {
            let config = self.agent.post(&url).config().timeout_global(timeout).timeout_connect(connect);
            let request = config.timeout_per_read(call.silence_max).build();
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send_form(form)
        };
        let mut response = sent.map_err(|e| why(&e))?;
        let status = response.status().as_u16();
        match status {
            200 => Ok(AnswerStart::Body(Box::new(response.into_body().into_reader()))),
            // InfluxDB parses all before it runs anything; another backend would refuse it too.
            400 => {
                let body = response.body_mut().with_config().limit(limits::FAILURE_BODY_BYTES_MAX).read_to_vec();
                match document(call, body.unwrap_or_default().into()) {
                    Err(WireError::Refused(error)) => Ok(AnswerStart::Refused(error)),
                    _ => Err("answered 400".to_owned()),
                }
            }
            401 | 403 => Err("refuses its configured user".to_owned()),
            _ => Err(format!("answered {status}")),
        }
    }
}

/// Frees what a body does not need; returns its bytes.
fn fit(body: &mut Vec<u8>) -> usize {
    let before = body.capacity();
    body.shrink_to_fit();
    before - body.capacity()
}

/// Parses a document whose bytes are in `held`, and adds what the answer takes beside it.
///
/// # Errors
/// When there is no memory for it.
fn measured(call: &Call, body: Vec<u8>, held: &Held) -> Result<Result<Vec<StatementAnswer>, WireError>, Interrupted> {
    let length = body.capacity();
    let expected = if call.typed {
        length.saturating_mul(limits::PARSED_MSGPACK_FACTOR)
    } else {
        let count = |wanted: u8| body.iter().filter(|&&byte| byte == wanted).count();
        count(b'[') * limits::PARSED_ARRAY_BYTES + count(b'{') * limits::PARSED_OBJECT_BYTES
    };
    held.take(expected)?;
    let parsed = document(call, body.into());
    let answers = parsed.iter().flatten().map(|statement| &statement.answer);
    let real: usize = answers.map(|answer| answer.memory_bytes(call.typed)).sum();
    // Rows made from msgpack are texts of their own; the document is gone.
    held.give_back(expected + if call.typed { length } else { 0 });
    held.take(real)?;
    Ok(parsed)
}

fn document(call: &Call, body: Bytes) -> Result<Vec<StatementAnswer>, WireError> {
    if call.typed { wire::msgpack::parse(body) } else { wire::json::parse(body) }
}

/// Why there is no whole answer.
enum WholeFailure {
    /// The backend does not answer; why.
    None(String),
    /// The backend refuses the call, with this text.
    Refused(String),
    /// The backend cannot write it as JSON.
    BeyondJson,
}

/// How an answer begins.
enum AnswerStart {
    Body(Box<dyn Read>),
    Refused(String),
}

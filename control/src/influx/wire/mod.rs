//! Parses answers of backends to `/query`.
//!
//! `json` is the ordinary form: rows stay slices of the body. `msgpack` is for clients that accept msgpack: it tells
//! 1.0 from 1, which JSON does not; `as_json` takes that back. Both give the same types. `frame` splits chunked answers
//! into documents. Not here: the calls, merging.

pub mod as_json;
pub(crate) mod frame;
pub mod json;
pub mod msgpack;

use std::fmt;

use crate::influx::answer::Answer;

/// The answer of a backend to one statement.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementAnswer {
    pub statement_id: i64,
    pub answer: Answer,
    /// More documents about this statement follow (chunked answers only).
    pub partial: bool,
}

/// Why a body is not an answer to statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Cut, or not in InfluxDB's form.
    Malformed,
    /// The backend refuses the whole request with this text: a top-level `error`.
    Refused(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the answer is not in InfluxDB's form"),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for WireError {}

//! Answers of backends to `/query`, read.
//!
//! `json` is the ordinary way: rows stay slices of the body. `msgpack` is for clients that take msgpack: there 1.0 and
//! 1 differ, in JSON they do not. Both give the same types. `frame` cuts chunked answers into documents. Not here: the
//! calls, merging.

pub(crate) mod frame;
pub mod json;
pub mod msgpack;

use std::fmt;

use crate::influx::answer::Answer;

/// What a backend answered to one statement.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementAnswer {
    pub statement_id: i64,
    pub answer: Answer,
    /// More documents about this statement follow (chunked answers only).
    pub partial: bool,
}

/// Why a body is no answer to statements. The backend's fault, or its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Cut short, or not what InfluxDB writes.
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

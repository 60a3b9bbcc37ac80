//! Renders merged answers as InfluxDB 1.6 would write them.
//!
//! ```text
//!   outcomes ──part──> the content of one result of a document ──json, csv, msgpack──> pieces ──> gzip?
//! ```
//!
//! Bytes equal those of InfluxDB, except where InfluxDB is wrong or random: a CSV column of a Go `int` (`replicaN` of
//! SHOW RETENTION POLICIES, numbers of SHOW DIAGNOSTICS) holds its value, not its name; tags in msgpack are sorted. Not
//! here: which errors replace which results and how statements are numbered (the caller), the bodies of failed requests
//! (the worker).

mod csv;
mod json;
mod msgpack;
mod part;
mod pieces;
#[cfg(test)]
mod render_test;

use fluxgate_dataplane::handoff::{QueryReply, QueryRequest};
use fluxgate_dataplane::http::error_body::Format;
use fluxgate_dataplane::influxql::ast::{ShowKind, Statement};

use crate::influx::answer::Answer;
use crate::influx::budget::{Held, Interrupted};
use pieces::Pieces;

/// One result of the whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementOutcome {
    pub statement_id: i64,
    pub answer: Answer,
    pub chunking: Chunking,
}

/// How InfluxDB cuts the answer to a statement into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// At most `chunk_size` rows of one series each, marked `partial`: SELECT and statements that InfluxDB rewrites to
    /// one.
    Rows,
    /// One series each, never marked: SHOW TAG KEYS, SHOW TAG VALUES.
    Series,
    /// Not cut.
    Whole,
}

impl Chunking {
    pub fn of(statement: &Statement) -> Self {
        match statement {
            Statement::Select(_) => Self::Rows,
            Statement::Show(show) => match show.what {
                ShowKind::Measurements => Self::Whole,
                ShowKind::TagKeys | ShowKind::TagValues => Self::Series,
                // InfluxDB does not cut SHOW SERIES CARDINALITY without clauses either, but its answer has only one
                // row.
                ShowKind::Series
                | ShowKind::FieldKeys
                | ShowKind::SeriesCardinality { .. }
                | ShowKind::MeasurementCardinality { .. }
                | ShowKind::TagKeyCardinality { .. }
                | ShowKind::TagValuesCardinality { .. }
                | ShowKind::FieldKeyCardinality { .. } => Self::Rows,
            },
            _ => Self::Whole,
        }
    }
}

/// Writes `outcomes` in the format of `request`. For CSV and msgpack without `epoch`, a first column `time` must hold
/// integer nanoseconds. Otherwise values are written as the rows hold them.
///
/// # Errors
/// When `held` has no memory for it.
pub fn render(request: &QueryRequest, outcomes: &[StatementOutcome], held: &Held) -> Result<QueryReply, Interrupted> {
    let mut out = Pieces::new(request.gzip, held);
    match request.format {
        Format::Json => {
            documents(request, outcomes, |parts| json::document(&mut out, parts, request.pretty));
        }
        Format::Csv => {
            let mut table = csv::Table::default();
            documents(request, outcomes, |parts| table.document(&mut out, parts));
        }
        Format::Msgpack => {
            let times = request.epoch.is_empty();
            documents(request, outcomes, |parts| msgpack::document(&mut out, parts, times));
        }
    }
    let mut fields = vec![("Content-Type", request.format.content_type().to_owned())];
    if request.gzip {
        fields.push(("Content-Encoding", "gzip".to_owned()));
    }
    Ok(QueryReply::Answer { fields, body: out.finish()? })
}

/// Calls `write` with the results of each document: one document, or one per part when chunked.
fn documents<'a>(
    request: &QueryRequest,
    outcomes: &'a [StatementOutcome],
    mut write: impl FnMut(&[part::ResultPart<'a>]),
) {
    if request.chunked {
        for outcome in outcomes {
            part::cut(outcome, request.chunk_size, |part| write(&[part]));
        }
    } else {
        write(&outcomes.iter().map(part::whole).collect::<Vec<_>>());
    }
}

//! The part of an answer that one result of a document shows, and its `partial` marks.

use super::{Chunking, StatementOutcome};
use crate::influx::answer::{Message, Row, Series};
use crate::limits::ROWS_UNMARKED_MAX;

/// One element of `results`.
pub(super) struct ResultPart<'a> {
    pub(super) statement_id: i64,
    pub(super) messages: &'a [Message],
    pub(super) error: Option<&'a str>,
    /// More parts of this statement follow.
    pub(super) partial: bool,
    series: &'a [Series],
    extent: Extent,
}

#[derive(Clone, Copy)]
enum Extent {
    /// All rows. Answers of SELECT are marked when they have many.
    All(Chunking),
    /// Some rows of the only series, marked when more follow.
    Rows { start: usize, end: usize },
    /// All rows, never marked.
    Unmarked,
}

/// One series of a part.
pub(super) struct SeriesPart<'a> {
    pub(super) series: &'a Series,
    pub(super) rows: &'a [Row],
    pub(super) partial: bool,
}

impl<'a> ResultPart<'a> {
    pub(super) fn series_count(&self) -> usize {
        self.series.len()
    }

    pub(super) fn series(&self) -> impl Iterator<Item = SeriesPart<'a>> + use<'a> {
        let extent = self.extent;
        self.series.iter().map(move |series| {
            let all = &series.rows[..];
            let (rows, partial) = match extent {
                Extent::All(Chunking::Rows) => (all, series.partial || all.len() > ROWS_UNMARKED_MAX),
                Extent::All(_) => (all, series.partial),
                Extent::Rows { start, end } => (&all[start..end], end < all.len()),
                Extent::Unmarked => (all, false),
            };
            SeriesPart { series, rows, partial }
        })
    }
}

/// The whole outcome as one result.
pub(super) fn whole(outcome: &StatementOutcome) -> ResultPart<'_> {
    let answer = &outcome.answer;
    ResultPart {
        statement_id: outcome.statement_id,
        messages: &answer.messages,
        error: answer.error.as_deref(),
        partial: false,
        series: &answer.series,
        extent: Extent::All(outcome.chunking),
    }
}

/// The parts of an outcome for a client that wants chunks: at least one. Messages are in the first part; an error is a
/// part of its own at the end.
pub(super) fn cut<'a>(outcome: &'a StatementOutcome, chunk_size: usize, mut each: impl FnMut(ResultPart<'a>)) {
    let answer = &outcome.answer;
    let failed = answer.error.is_some();
    let mut messages = &answer.messages[..];
    let mut emit = |series: &'a [Series], extent, partial, error| {
        let messages = std::mem::take(&mut messages);
        each(ResultPart { statement_id: outcome.statement_id, messages, error, partial, series, extent });
    };
    let last = answer.series.len().saturating_sub(1);
    match outcome.chunking {
        Chunking::Rows => {
            for (index, series) in answer.series.iter().enumerate() {
                let mut start = 0usize;
                loop {
                    let end = series.rows.len().min(start.saturating_add(chunk_size.max(1)));
                    let more = end < series.rows.len() || index < last || failed;
                    emit(std::slice::from_ref(series), Extent::Rows { start, end }, more, None);
                    start = end;
                    if start == series.rows.len() {
                        break;
                    }
                }
            }
        }
        Chunking::Series => {
            answer.series.chunks(1).for_each(|series| emit(series, Extent::Unmarked, false, None));
        }
        Chunking::Whole if !answer.series.is_empty() => emit(&answer.series, Extent::Unmarked, false, None),
        Chunking::Whole => {}
    }
    if failed || answer.series.is_empty() {
        emit(&[], Extent::Unmarked, false, answer.error.as_deref());
    }
}

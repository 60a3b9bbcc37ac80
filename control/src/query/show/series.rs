//! SHOW SERIES: merges the keys, with LIMIT and OFFSET over all.
//!
//! InfluxDB has two orders: by the unescaped parts of the key, or by the whole escaped key when WHERE mentions time.

use fluxgate_dataplane::influxql::ast::{Expr, Show};
use fluxgate_dataplane::influxql::visit;
use fluxgate_dataplane::topology::BackendId;

use super::order::{by_parts, string, window};
use crate::influx::answer::{Answer, Series};
use crate::limits::ROWS_UNMARKED_MAX;

pub fn merge(show: &Show, answers: Vec<(BackendId, Answer)>) -> Vec<Series> {
    let all: Vec<Series> = answers.into_iter().flat_map(|(_, answer)| answer.series).collect();
    let Some(first) = all.first() else { return Vec::new() };
    let mut keys: Vec<_> = all.iter().flat_map(|series| &series.rows).map(|row| (string(row, 0), row)).collect();
    // Merge sort: sorted parts are only merged.
    if show.condition.as_ref().is_some_and(mentions_time) {
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    } else {
        keys.sort_by(|(a, _), (b, _)| by_parts(a, b));
    }
    keys.dedup_by(|(a, _), (b, _)| a == b);
    let rows: Vec<_> = window(keys.into_iter(), show.limit, show.offset).map(|(_, row)| row.clone()).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    // InfluxDB 1.6 marks long answers, later versions do not: a long answer without a mark is from a later one.
    let unmarked = all.iter().any(|series| series.rows.len() > ROWS_UNMARKED_MAX && !series.partial);
    let partial = rows.len() > ROWS_UNMARKED_MAX && !unmarked;
    vec![Series { rows, partial, name: first.name.clone(), columns: first.columns.clone(), ..Series::default() }]
}

/// Whether the condition mentions `time`, in any case of letters.
fn mentions_time(condition: &Expr) -> bool {
    let mut found = false;
    visit::walk(condition, &mut |expr| {
        found |=
            matches!(expr, Expr::Variable { parts, .. } if parts.len() == 1 && parts[0].eq_ignore_ascii_case("time"));
    });
    found
}

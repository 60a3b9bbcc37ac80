//! SHOW MEASUREMENTS: merges the names, sorted, with LIMIT and OFFSET over all.

use fluxgate_dataplane::influxql::ast::Show;
use fluxgate_dataplane::topology::BackendId;

use super::order::{string, window};
use crate::influx::answer::{Answer, Series};

pub fn merge(show: &Show, answers: Vec<(BackendId, Answer)>) -> Vec<Series> {
    let all: Vec<Series> = answers.into_iter().flat_map(|(_, answer)| answer.series).collect();
    let Some(first) = all.first() else { return Vec::new() };
    let mut names: Vec<_> = all.iter().flat_map(|series| &series.rows).map(|row| (string(row, 0), row)).collect();
    // Merge sort: sorted parts are only merged.
    names.sort_by(|(a, _), (b, _)| a.cmp(b));
    names.dedup_by(|(a, _), (b, _)| a == b);
    let rows: Vec<_> = window(names.into_iter(), show.limit, show.offset).map(|(_, row)| row.clone()).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    vec![Series { rows, name: first.name.clone(), columns: first.columns.clone(), ..Series::default() }]
}

//! SHOW SERIES: the keys of all, LIMIT and OFFSET over the whole.
//!
//! InfluxDB has two orders: by the unescaped parts of the key, and by the whole escaped key where WHERE speaks of time.

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
    // Stable: what is sorted already is only merged.
    if show.condition.as_ref().is_some_and(speaks_of_time) {
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    } else {
        keys.sort_by(|(a, _), (b, _)| by_parts(a, b));
    }
    keys.dedup_by(|(a, _), (b, _)| a == b);
    let rows: Vec<_> = window(keys.into_iter(), show.limit, show.offset).map(|(_, row)| row.clone()).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    // InfluxDB 1.6 marks what is long; a backend that has shown that it does not is a later one.
    let unmarked = all.iter().any(|series| series.rows.len() > ROWS_UNMARKED_MAX && !series.partial);
    let partial = rows.len() > ROWS_UNMARKED_MAX && !unmarked;
    vec![Series { rows, partial, name: first.name.clone(), columns: first.columns.clone(), ..Series::default() }]
}

/// `time` in any case, as InfluxDB has it.
fn speaks_of_time(condition: &Expr) -> bool {
    let mut found = false;
    visit::walk(condition, &mut |expr| {
        found |=
            matches!(expr, Expr::Variable { parts, .. } if parts.len() == 1 && parts[0].eq_ignore_ascii_case("time"));
    });
    found
}

//! SHOW SERIES: merges the keys, with LIMIT and OFFSET over all.
//!
//! InfluxDB has two orders: by the unescaped parts of the key, or by the whole escaped key when WHERE mentions time.

use fluxgate_dataplane::influxql::ast::{Expr, Show};
use fluxgate_dataplane::influxql::visit;

use super::order::{by_parts, one_list};
use crate::influx::answer::Series;
use crate::limits::ROWS_UNMARKED_MAX;
use crate::query::select::now::is_time;

pub fn merge(show: &Show, all: &[Series]) -> Vec<Series> {
    let by_key = if show.condition.as_ref().is_some_and(mentions_time) { str::cmp } else { by_parts };
    let merged = one_list(show, all, by_key).map(|series| {
        // InfluxDB 1.6 marks long answers, later versions do not: a long answer without a mark is from a later one.
        let unmarked = all.iter().any(|series| series.rows.len() > ROWS_UNMARKED_MAX && !series.partial);
        Series { partial: series.rows.len() > ROWS_UNMARKED_MAX && !unmarked, ..series }
    });
    merged.into_iter().collect()
}

/// Whether the condition mentions `time`, in any case of letters.
fn mentions_time(condition: &Expr) -> bool {
    let mut found = false;
    visit::walk(condition, &mut |expr| found |= is_time(expr));
    found
}

//! SHOW TAG KEYS, TAG VALUES and FIELD KEYS: merges one series per measurement, sorted by name, with LIMIT and OFFSET
//! inside each.
//!
//! A WHERE with time selects shard groups. With the index `inmem` InfluxDB shows all measurements of the database if
//! any group is selected; over several backends, measurements without data in that time are left out. With `tsi1` there
//! is no difference.

use fluxgate_dataplane::influxql::ast::Show;

use super::order::{string, window};
use crate::influx::answer::{Row, Series};
use crate::limits::ROWS_UNMARKED_MAX;

pub fn merge(show: &Show, mut all: Vec<Series>) -> Vec<Series> {
    all.sort_by(|a, b| a.name.cmp(&b.name));
    let mut merged: Vec<Series> = Vec::with_capacity(all.len());
    let mut several = false;
    for mut series in all {
        match merged.last_mut() {
            Some(last) if last.name == series.name => {
                last.rows.append(&mut series.rows);
                last.partial |= series.partial;
                several = true;
            }
            _ => {
                if let Some(last) = merged.last_mut() {
                    finish(last, several, show);
                }
                several = false;
                merged.push(series);
            }
        }
    }
    if let Some(last) = merged.last_mut() {
        finish(last, several, show);
    }
    merged.retain(|series| !series.rows.is_empty());
    merged
}

/// `several` = its rows come from more than one backend.
fn finish(series: &mut Series, several: bool, show: &Show) {
    if several {
        series.rows = union(&series.rows);
    }
    if show.limit.is_some_and(|limit| limit > 0) || show.offset.is_some() {
        series.rows = window(std::mem::take(&mut series.rows).into_iter(), show.limit, show.offset).collect();
    }
    series.partial &= series.rows.len() > ROWS_UNMARKED_MAX;
}

/// Sorted by first and second column, without duplicates.
fn union(rows: &[Row]) -> Vec<Row> {
    let mut keyed: Vec<_> = rows.iter().map(|row| (string(row, 0), string(row, 1), row)).collect();
    keyed.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    keyed.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    keyed.into_iter().map(|(_, _, row)| row.clone()).collect()
}

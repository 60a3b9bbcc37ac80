//! SHOW MEASUREMENTS: merges the names, sorted, with LIMIT and OFFSET over all.

use fluxgate_dataplane::influxql::ast::Show;

use super::order::one_list;
use crate::influx::answer::Series;

pub fn merge(show: &Show, all: &[Series]) -> Vec<Series> {
    one_list(show, all, str::cmp).into_iter().collect()
}

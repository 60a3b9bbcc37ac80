//! SHOW ... CARDINALITY: merges counts, by measurement and tags where a statement groups by them.
//!
//! A count with a measurement's name comes from its owner. While the measurement is being moved it comes from two
//! backends, and the larger one is from the backend with all data. Counts without a name (of measurements, and
//! estimates) are summed.

use std::collections::BTreeSet;

use fluxgate_dataplane::topology::BackendId;

use crate::influx::answer::{Answer, Row, Series};

pub fn merge(mut all: Vec<Series>) -> Vec<Series> {
    // Tags are sorted by key, and all have the same keys, so this sorts by value.
    all.sort_by(|a, b| (&a.name, &a.tags).cmp(&(&b.name, &b.tags)));
    let mut merged: Vec<Series> = Vec::with_capacity(all.len());
    for series in all {
        match merged.last_mut() {
            Some(last) if (&last.name, &last.tags) == (&series.name, &series.tags) => {
                let (a, b) = (count(last), count(&series));
                let both = if last.name.is_empty() { a.saturating_add(b) } else { a.max(b) };
                last.rows = vec![Row::of([&both.to_string()[..]])];
            }
            _ => merged.push(series),
        }
    }
    merged
}

/// The tags by which the answers are grouped.
pub fn tag_keys(answers: &[(BackendId, Answer)]) -> BTreeSet<String> {
    let series = answers.iter().flat_map(|(_, answer)| &answer.series);
    series.flat_map(|series| series.tags.iter().map(|(key, _)| key.clone())).collect()
}

fn count(series: &Series) -> u64 {
    series.rows.first().and_then(|row| row.value(0)?.parse().ok()).unwrap_or(0)
}

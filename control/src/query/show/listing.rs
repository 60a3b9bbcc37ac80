//! SHOW DATABASES, CONTINUOUS QUERIES and SUBSCRIPTIONS: merges the lists of all backends, in the order of the first
//! one; other entries follow.
//!
//! InfluxDB lists in the order of creation, which only the server itself knows.

use std::collections::{HashMap, HashSet};

use fluxgate_dataplane::topology::BackendId;

use crate::influx::answer::{Answer, Row, Series};

pub fn merge(answers: Vec<(BackendId, Answer)>) -> Answer {
    let mut merged = Answer { messages: super::messages(&answers), ..Answer::default() };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut seen: HashSet<(usize, Row)> = HashSet::new();
    for series in answers.into_iter().flat_map(|(_, answer)| answer.series) {
        let place = *places.entry(series.name.clone()).or_insert_with(|| {
            merged.series.push(Series { rows: Vec::new(), ..series.clone() });
            merged.series.len() - 1
        });
        let new = series.rows.into_iter().filter(|row| seen.insert((place, row.clone())));
        merged.series[place].rows.extend(new);
    }
    merged
}

//! Merges the answers of several backends to one SELECT.
//!
//! A series belongs to one measurement, and all limits apply within one measurement, so backends have applied them
//! already. Measurements come in bytewise order (reversed by ORDER BY time DESC); within one the order is its
//! backend's.

use std::collections::BTreeMap;

use fluxgate_dataplane::topology::BackendId;

use crate::influx::answer::{Answer, Series};

/// Merges answers without errors. `choose` names the backend whose answer counts for a measurement that several have.
///
/// # Errors
/// That of `choose`.
pub fn merge<E>(
    answers: Vec<(BackendId, Answer)>,
    descending: bool,
    choose: impl Fn(&str, &[BackendId]) -> Result<BackendId, E>,
) -> Result<Answer, E> {
    let mut merged = Answer::default();
    let mut by_name: BTreeMap<String, BTreeMap<BackendId, Vec<Series>>> = BTreeMap::new();
    for (backend, answer) in answers {
        for series in answer.series {
            by_name.entry(series.name.clone()).or_default().entry(backend).or_default().push(series);
        }
        for message in answer.messages {
            if !merged.messages.contains(&message) {
                merged.messages.push(message);
            }
        }
    }
    let mut names = Vec::with_capacity(by_name.len());
    for (name, mut parts) in by_name {
        let series = match parts.len() {
            1 => parts.pop_first().map(|(_, series)| series),
            _ => {
                let backends: Vec<_> = parts.keys().copied().collect();
                parts.remove(&choose(&name, &backends)?)
            }
        };
        names.push(series.unwrap_or_default());
    }
    if descending {
        names.reverse();
    }
    merged.series = names.into_iter().flatten().collect();
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influx::answer::Row;

    fn series(name: &str, value: &str) -> Series {
        Series { name: name.to_owned(), rows: vec![Row::of([value])], ..Series::default() }
    }

    fn answer(names: &[(&str, &str)]) -> Answer {
        Answer { series: names.iter().map(|(name, value)| series(name, value)).collect(), ..Answer::default() }
    }

    #[test]
    fn names_come_bytewise_and_series_as_their_backend_has_them() {
        let first = answer(&[("Disk", "1"), ("cpu", "b"), ("cpu", "a"), ("été", "1")]);
        let second = answer(&[("_x", "1"), ("cpu load", "1"), ("cpu!", "1"), ("cpu-total", "1")]);
        let given = vec![(BackendId(1), first), (BackendId(0), second), (BackendId(2), Answer::default())];
        let no_choice = |_: &str, _: &[BackendId]| Err(());
        let names = |merged: &Answer| merged.series.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(" ");
        let merged = merge(given.clone(), false, no_choice).unwrap();
        assert_eq!(names(&merged), "Disk _x cpu cpu cpu load cpu! cpu-total été");
        assert_eq!(merged.series[2], series("cpu", "b"));
        let merged = merge(given, true, no_choice).unwrap();
        assert_eq!(names(&merged), "été cpu-total cpu! cpu load cpu cpu _x Disk");
        assert_eq!(merged.series[4], series("cpu", "b"), "a backend has reversed its own");
    }

    #[test]
    fn only_the_chosen_backend_counts_for_a_measurement_on_two() {
        let given = vec![(BackendId(0), answer(&[("m", "old")])), (BackendId(1), answer(&[("m", "new")]))];
        let merged = merge(given, false, |name, backends| {
            assert_eq!((name, backends), ("m", &[BackendId(0), BackendId(1)][..]));
            Ok::<_, ()>(BackendId(1))
        });
        assert_eq!(merged.unwrap(), answer(&[("m", "new")]));
    }
}

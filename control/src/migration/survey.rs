//! Asks all backends, at a start that may follow influx-proxy, for their measurements with a backslash in their names.
//! Only these are listed, so the answers are short; a circle of one backend is not asked. Not here: what follows
//! (`transition::Survey`).

use std::collections::BTreeSet;
use std::time::Instant;

use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, Topology};

use crate::influx::answer::Answer;
use crate::influx::catalog::{INTERNAL, names_within};
use crate::influx::client::{CallFailure, Client};
use crate::limits;
use crate::parallel::in_parallel;
use crate::transition::Survey;

/// Asks the backends, side by side. Blocks for about [`limits::SURVEY_TIMEOUT`] at most.
pub fn survey(topology: &Topology, trust: &Trust) -> Survey {
    let is_asked =
        |backend: &&Backend| backend.takes_statements() && topology.circles[backend.circle].backends.len() > 1;
    let asked: Vec<_> = topology.backends.iter().filter(is_asked).collect();
    let until = Instant::now() + limits::SURVEY_TIMEOUT;
    let answers = in_parallel(&asked, |backend| backslashes(&Client::new(backend, trust), until));
    let mut found = vec![Some(BTreeSet::new()); topology.backends.len()];
    for (backend, answer) in asked.iter().zip(answers) {
        if let Err(failure) = &answer {
            let name = &backend.name;
            log::info!(
                "{name} does not say which measurements with a backslash influx-proxy has left there: {failure}; if \
                 there are some, run a rebalance when it is up"
            );
        }
        found[backend.id.index()] = answer.ok();
    }
    Survey(found)
}

fn backslashes(client: &Client, until: Instant) -> Result<BTreeSet<Place>, CallFailure> {
    let time_left = || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(CallFailure::Unreachable("it takes too long".to_owned())) } else { Ok(left) }
    };
    let dbs = match names_within(client, time_left()?.min(limits::SHOW_TIMEOUT)) {
        // Another kind of server.
        Err(failure) if failure.is_final() => return Ok(BTreeSet::new()),
        dbs => dbs?,
    };
    let dbs: Vec<_> = dbs.into_iter().filter(|db| db != INTERNAL).collect();
    let mut found = BTreeSet::new();
    for some in dbs.chunks(limits::STATEMENTS_MAX) {
        // InfluxDB would take the second of two backslashes for the escape of the slash behind it.
        let show = |db: &String| format!(r"SHOW MEASUREMENTS ON {} WITH MEASUREMENT =~ /\x5c/", print::name(db));
        let statements: Vec<_> = some.iter().map(show).collect();
        found.append(&mut measurements(some, &client.query(&statements.join(";"), time_left()?)?)?);
    }
    Ok(found)
}

/// The measurements of these databases: all or none, since a part says nothing about the others.
fn measurements(dbs: &[String], answers: &[Answer]) -> Result<BTreeSet<Place>, CallFailure> {
    if answers.len() != dbs.len() {
        return Err(CallFailure::Refused(format!("it answers {} of {} statements", answers.len(), dbs.len())));
    }
    let mut found = BTreeSet::new();
    for (db, Answer { series, error, .. }) in dbs.iter().zip(answers) {
        if let Some(error) = error {
            return Err(CallFailure::Refused(error.clone()));
        }
        if series.iter().any(|series| series.partial) {
            return Err(CallFailure::Refused("it answers in part".to_owned()));
        }
        let names = series.iter().flat_map(|series| series.strings(0));
        found.extend(names.map(|name| Place::new(db.clone(), name)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influx::answer::{Row, Series};

    #[test]
    fn an_answer_that_lacks_a_part_is_none() {
        let series = |name: &str| Series { rows: vec![Row::of([name])], ..Series::default() };
        let answer = |name: &str| Answer { series: vec![series(name)], ..Answer::default() };
        let (one, two) = (answer(r#""a\\b""#), answer(r#""c\\d""#));
        let cut = Answer { series: vec![Series { partial: true, ..series(r#""c\\d""#) }], ..Answer::default() };
        let dbs = ["db1".to_owned(), "db2".to_owned()];
        for (answers, found) in [
            (&[one.clone(), two][..], Some([r"a\b", r"c\d"])),
            (&[one.clone(), Answer::failed("timeout")], None),
            (&[Answer::failed("database not found: db1"), Answer::failed("not executed")], None),
            (&[one.clone(), cut], None),
            (&[one], None),
            (&[], None),
        ] {
            let place = |(db, name): (&String, &str)| Place::new(db.clone(), name.to_owned());
            let found = found.map(|names| dbs.iter().zip(names).map(place).collect());
            assert_eq!(measurements(&dbs, answers).ok(), found, "{answers:?}");
        }
    }
}

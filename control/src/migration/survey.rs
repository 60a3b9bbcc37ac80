//! Asks all backends, at a start that may follow influx-proxy, for their measurements with a backslash in their names.
//! Only these are listed, so the answers are short; a circle of one backend is not asked. Not here: what follows
//! (`transition::Survey`).

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, Topology};

use crate::influx::catalog::{INTERNAL, names};
use crate::influx::client::{CallFailure, Client};
use crate::limits;
use crate::transition::Survey;

/// Asks the backends, side by side. Blocks for about [`limits::SURVEY_TIMEOUT`] at most.
pub fn survey(topology: &Topology, trust: &Trust) -> Survey {
    let is_asked =
        |backend: &Backend| backend.takes_statements() && topology.circles[backend.circle].backends.len() > 1;
    let until = Instant::now() + limits::SURVEY_TIMEOUT;
    let ask = |backend: &Backend| {
        if !is_asked(backend) {
            return Some(BTreeSet::new());
        }
        match backslashes(&Client::new(backend, trust), until) {
            Ok(found) => Some(found),
            Err(failure) if failure.is_final() => Some(BTreeSet::new()),
            Err(failure) => {
                let name = &backend.name;
                log::info!(
                    "{name} does not say which measurements with a backslash influx-proxy has left there: {failure}; \
                     if there are some, run a rebalance when it is up"
                );
                None
            }
        }
    };
    let mut found = Vec::with_capacity(topology.backends.len());
    for some in topology.backends.chunks(limits::CALLS_AT_A_TIME) {
        thread::scope(|scope| {
            let calls: Vec<_> = some.iter().map(|backend| scope.spawn(move || ask(backend))).collect();
            found.extend(calls.into_iter().map(|call| call.join().unwrap_or_default()));
        });
    }
    Survey(found)
}

fn backslashes(client: &Client, until: Instant) -> Result<BTreeSet<Place>, CallFailure> {
    let time_left = || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(CallFailure::Unreachable("it takes too long".to_owned())) } else { Ok(left) }
    };
    time_left()?;
    let dbs: Vec<_> = names(client)?.into_iter().filter(|db| db != INTERNAL).collect();
    let mut found = BTreeSet::new();
    for some in dbs.chunks(limits::STATEMENTS_MAX) {
        // InfluxDB would take the second of two backslashes for the escape of the slash behind it.
        let show = |db: &String| format!(r"SHOW MEASUREMENTS ON {} WITH MEASUREMENT =~ /\x5c/", print::name(db));
        let statements: Vec<_> = some.iter().map(show).collect();
        for (db, answer) in some.iter().zip(client.query(&statements.join(";"), time_left()?)?) {
            let series = answer.series.iter().flat_map(|series| series.strings(0));
            found.extend(series.map(|name| Place::new(db.clone(), name)));
        }
    }
    Ok(found)
}

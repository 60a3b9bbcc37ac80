//! Creates on one backend a database or policy that another backend has, with the same settings.
//!
//! The other backends are asked at that moment. A creation is rare, and with an older answer it could create again what
//! an operator has just dropped.

use std::thread;

use fluxgate_dataplane::handoff::Created;

use crate::influx::catalog;
use crate::influx::client::{CallFailure, Client};
use crate::influx::policy::{Policy, has, run, statements};

/// Another backend, which may have the database or policy.
#[derive(Debug)]
pub struct Other {
    pub name: String,
    pub client: Client,
    /// It has answered as InfluxDB before, so no answer now means that it is unknown what it has. Otherwise it is
    /// another kind of server, without databases.
    pub is_influx: bool,
}

/// Makes sure that `target` has `db` and in it `rp` (empty = a default policy). `others` are all other backends; the
/// first one that has them is the model. Takes as long as its calls: some seconds when one hangs.
pub fn create(target: &Client, others: &[Other], db: &str, rp: &str) -> Created {
    let there = match catalog::database(target, db) {
        Ok(there) => there,
        Err(failure) => return Created::Failed(failure.to_string()),
    };
    if there.as_deref().is_some_and(|policies| has(policies, rp)) {
        return Created::Done;
    }
    let answers: Vec<Result<Option<Vec<Policy>>, CallFailure>> = thread::scope(|scope| {
        let asked: Vec<_> = others.iter().map(|other| scope.spawn(|| catalog::database(&other.client, db))).collect();
        let broken = || Err(CallFailure::Unreachable("the call panicked".to_owned()));
        asked.into_iter().map(|thread| thread.join().unwrap_or_else(|_| broken())).collect()
    });
    let mut unasked = None;
    let mut model = None;
    for (other, answer) in others.iter().zip(answers) {
        match answer {
            Ok(Some(policies)) if has(&policies, rp) => {
                model = Some(policies);
                break;
            }
            Ok(_) => {}
            Err(failure) if failure.is_final() && !other.is_influx => {}
            Err(failure) => unasked = Some(format!("{}: {failure}", other.name)),
        }
    }
    let Some(model) = model else {
        return unasked.map_or(Created::NowhereElse, Created::Failed);
    };
    for statement in statements(there.as_deref(), &model, db, rp) {
        if let Err(failure) = run(target, &statement) {
            return Created::Failed(failure.to_string());
        }
        log::info!("created: {statement}");
    }
    Created::Done
}

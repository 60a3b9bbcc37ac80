//! SELECT and EXPLAIN over several backends, with the answer of a single InfluxDB.
//!
//! ```text
//!   now             one now() for all shares, time bounds written out
//!   cross_database  one measurement name in two databases: refused when their owners differ
//!   probe           what the shares know: fields, types, tags        (first round of questions)
//!   rewrite         every column written out and typed               (types, functions, pattern)
//!   shares          each backend is asked about what it owns         (second round)
//!   merge           by measurement name
//! ```
//!
//! A SELECT never mixes measurements, and every limit applies within one of them. So once all backends read the
//! statement alike, their series only have to be sorted. Both rounds use the same backends, and both are repeated when
//! a backend does not answer.

mod cross_database;
mod explain;
pub(super) mod function_types;
mod functions;
mod merge;
pub(super) mod now;
mod pattern;
mod probe;
mod rewrite;
#[cfg(test)]
mod select_test;
mod shares;
pub(super) mod types;

use fluxgate_dataplane::influxql::ast::{Order, Select};
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::reach::{Reach, leaves};
use fluxgate_dataplane::topology::BackendId;

use self::probe::UnreadablePlan;
use self::shares::ChosenShares;
use self::types::KnownColumns;
use super::context::{Context, Stop, Times, Unanswered};
use super::errors::{bounded, is_missing, missing_database, missing_policy, settle};
use crate::influx::answer::Answer;

pub use explain::explain;

/// Runs a SELECT without INTO over its owners.
///
/// # Errors
/// What ends the request: no backend can answer, or the statement cannot be merged (400 with the reason).
pub fn run(context: &Context<'_>, select: &Select, reach: &Reach) -> Result<Answer, Stop> {
    let answers = match ask(context, select, reach, &Select::to_string)? {
        Ok(answers) => answers,
        Err(error) => return Ok(error),
    };
    let descending = matches!(&select.order, Some(Order { descending: true, .. }));
    let merged =
        merge::merge(answers, descending, |name, backends| cross_database::owner(context, select, name, backends))?;
    Ok(bounded(merged, context.shared.settings.rows_max))
}

/// Why an attempt ends without answers.
pub(super) enum TryEnd {
    Stop(Stop),
    /// The statement's answer is an error.
    Failed(Answer),
    /// A backend did not answer.
    Again,
}

impl From<Stop> for TryEnd {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl From<Unanswered> for TryEnd {
    fn from(_: Unanswered) -> Self {
        Self::Again
    }
}

/// The answers of all backends to their shares of `select`; `text` builds the statement. The inner error is the
/// statement's answer.
fn ask(
    context: &Context<'_>,
    select: &Select,
    reach: &Reach,
    text: &dyn Fn(&Select) -> String,
) -> Result<Result<Vec<(BackendId, Answer)>, Answer>, Stop> {
    // Each attempt leaves out at least one more backend.
    loop {
        match attempt(context, select, &ChosenShares::of(context, reach)?, text) {
            Ok(answers) => return Ok(Ok(answers)),
            Err(TryEnd::Failed(answer)) => return Ok(Err(answer)),
            Err(TryEnd::Stop(stop)) => return Err(stop),
            Err(TryEnd::Again) => {}
        }
    }
}

fn attempt(
    context: &Context<'_>,
    select: &Select,
    parts: &ChosenShares,
    text: &dyn Fn(&Select) -> String,
) -> Result<Vec<(BackendId, Answer)>, TryEnd> {
    cross_database::check(context, select, parts)?;
    let mut fixed = select.clone();
    now::fix(&mut fixed, context.now_ns());
    let known = learn(context, select, &fixed, parts)?;
    let functions = functions::Asker::new(context, parts.first(), select);
    let typed = rewrite::rewrite(&fixed, &known, &|name, types| functions.of(name, types)).map_err(|e| {
        refused(format!("a regular expression over names cannot be evaluated by fluxgate over several backends: {e}"))
    })?;
    functions.end()?;
    let asked = parts.restricted(context, &typed);
    let questions = asked.iter().map(|(backend, select)| (*backend, text(select))).collect();
    let answers: Vec<_> = context.ask_each(questions, Times::AsAsked)?.into_iter().collect::<Result<_, _>>()?;
    let some_answer = answers.iter().any(|answer| answer.error.is_none());
    for ((backend, select), answer) in asked.iter().zip(&answers) {
        if let Some(error) = answer.error.as_deref().filter(|error| is_missing(error))
            && some_answer
            && cross_database::databases(context, select).len() > 1
        {
            // Its rows of the other databases would be missing.
            let name = context.name(*backend);
            let text = format!("{error} on {name}, which holds other sources of the statement: create it there");
            return Err(refused(text).into());
        }
    }
    let backends = asked.iter().map(|(backend, _)| *backend);
    settle(backends.zip(answers).collect()).map_err(TryEnd::Failed)
}

/// The known columns for each SELECT in `fixed` (`select` with its `now()` replaced). A wrong statement fails here,
/// with the error of a backend that gets it as the client wrote it.
fn learn(
    context: &Context<'_>,
    select: &Select,
    fixed: &Select,
    parts: &ChosenShares,
) -> Result<Vec<KnownColumns>, TryEnd> {
    let (probes, of_level) = probe::probes(fixed);
    let mut questions = vec![(parts.first(), probe::check(select))];
    let mut about = Vec::new();
    for backend in parts.backends() {
        let keep = |place: Place<&str>| parts.keeps(context, backend, place);
        for (index, probe) in probes.iter().enumerate() {
            if let Some(text) = probe.text(&context.request.db, &keep) {
                questions.push((backend, text));
                about.push((backend, index));
            }
        }
    }
    let mut answers = context.ask_each(questions, Times::Nanoseconds)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let check = answers.remove(0);
    let is_final = |error: &str| {
        if is_missing(error) { is_nowhere(context, select, error) } else { !probe::depends_on_data(error) }
    };
    if check.error.as_deref().is_some_and(is_final) {
        return Err(TryEnd::Failed(check));
    }
    let mut known = vec![KnownColumns::default(); probes.len()];
    for ((backend, index), answer) in about.into_iter().zip(answers) {
        match answer.error.as_deref() {
            None => probe::learn(&mut known[index], &answer).map_err(|UnreadablePlan| {
                let name = context.name(backend);
                Stop::unavailable(format!("{name} answers EXPLAIN in an unknown form"))
            })?,
            // It lacks the database or policy.
            Some(error) if is_missing(error) => {}
            Some(_) => return Err(TryEnd::Failed(answer)),
        }
    }
    let of = |index: &Option<usize>| index.map_or_else(KnownColumns::default, |index| known[index].clone());
    Ok(of_level.iter().map(of).collect())
}

/// Whether the database or policy that a backend lacks is missing everywhere, as far as the catalog knows. A single
/// server would then give the same error.
fn is_nowhere(context: &Context<'_>, select: &Select, error: &str) -> bool {
    let may_have_policy = |policy: &str| {
        let named = leaves(select).into_iter().filter(|m| m.rp.as_deref() == Some(policy));
        let mut dbs = named.map(|m| m.db.as_deref().unwrap_or(&context.request.db));
        context.request.rp == policy || dbs.any(|db| context.catalog.may_have_policy(db, policy))
    };
    match (missing_database(error), missing_policy(error)) {
        (Some(db), _) => !context.catalog.may_have_database(db),
        (_, Some(policy)) => context.catalog.known && !may_have_policy(policy),
        _ => false,
    }
}

/// A 400: the statement cannot be merged.
fn refused(text: impl Into<String>) -> Stop {
    Stop::Failed { status: 400, text: text.into() }
}

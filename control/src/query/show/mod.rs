//! SHOW over several backends: each is asked for its part, and the parts are merged as one server would show them.
//!
//! ```text
//!   rewrite ── the statement for a backend ──> Context::scatter ──> errors::settle ──> merge, by family:
//!     measurements · series · keys (TAG KEYS, TAG VALUES, FIELD KEYS) · cardinality · listing (DATABASES, ...)
//! ```
//!
//! Merging is pure: [`merge`] and [`listing::merge`] turn answers into one. A measurement that is being moved is on two
//! backends, so duplicates are removed everywhere. Rows are not copied, only their handles.

mod cardinality;
mod keys;
mod listing;
mod measurements;
mod order;
mod rewrite;
mod series;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use fluxgate_dataplane::influxql::ast::{Expr, Show, ShowKind, Statement};
use fluxgate_dataplane::routing::reach::Reach;
use fluxgate_dataplane::topology::BackendId;

use super::context::{Context, Stop, Times};
use super::errors::{bounded, is_missing, missing_database, settle};
use crate::influx::answer::{Answer, Message};

/// Answers a SHOW that needs more than one backend.
///
/// # Errors
/// What ends the whole request. A statement that cannot be merged gives an error in its answer instead.
pub fn run(context: &Context<'_>, statement: &Statement, reach: &Reach) -> Result<Answer, Stop> {
    let answer = match statement {
        Statement::Show(show) => scattered(context, show, reach)?,
        Statement::ShowRetentionPolicies { .. } => policies(context, statement, reach)?,
        _ => {
            let answers = context.scatter(reach, Times::AsAsked, &|_, _| statement.to_string())?;
            settle(answers).map_or_else(|failed| failed, listing::merge)
        }
    };
    Ok(bounded(answer, context.shared.settings.rows_max))
}

/// Merges the backends' answers to `show`.
pub fn merge(show: &Show, answers: Vec<(BackendId, Answer)>) -> Answer {
    let messages = messages(&answers);
    let all: Vec<_> = answers.into_iter().flat_map(|(_, answer)| answer.series).collect();
    let series = match show.what {
        ShowKind::Measurements => measurements::merge(show, &all),
        ShowKind::Series => series::merge(show, &all),
        ShowKind::TagKeys | ShowKind::TagValues | ShowKind::FieldKeys => keys::merge(show, all),
        ShowKind::SeriesCardinality { .. }
        | ShowKind::MeasurementCardinality { .. }
        | ShowKind::TagKeyCardinality { .. }
        | ShowKind::TagValuesCardinality { .. }
        | ShowKind::FieldKeyCardinality { .. } => cardinality::merge(all),
    };
    Answer { series, messages, error: None }
}

fn scattered(context: &Context<'_>, show: &Show, reach: &Reach) -> Result<Answer, Stop> {
    let mut sent = match rewrite::sent(show, context.now_ns()) {
        Ok(sent) => sent,
        Err(why) => return Ok(Answer::failed(why)),
    };
    if rewrite::has_open_dimensions(show) {
        // Only all backends together know the tags of `*`.
        let keys = match ask(context, &rewrite::without_filters(&sent), reach)? {
            Ok(answers) => cardinality::tag_keys(&answers),
            Err(failed) => return Ok(failed),
        };
        sent.dimensions = keys.into_iter().map(|key| Expr::Variable { parts: vec![key], of: None }).collect();
    }
    Ok(ask(context, &sent, reach)?.map_or_else(|failed| failed, |answers| merge(show, answers)))
}

/// Asks each backend for its part of `show`. The inner error is the statement's.
fn ask(context: &Context<'_>, show: &Show, reach: &Reach) -> Result<Result<Vec<(BackendId, Answer)>, Answer>, Stop> {
    let default_db = &context.request.db;
    // The part of each backend in the successful attempt; later attempts overwrite.
    let asked = RefCell::new(BTreeMap::new());
    let mut answers = context.scatter(reach, Times::AsAsked, &|backend, share| {
        let part = match share {
            Some(share) => rewrite::restrict(show, default_db, share),
            None => show.clone(),
        };
        let text = Statement::Show(Box::new(part.clone())).to_string();
        asked.borrow_mut().insert(backend, part);
        text
    })?;
    let asked = asked.into_inner();
    if let Some(error) = nowhere(&answers, |backend, error| rewrite::names(show, &asked[&backend], default_db, error)) {
        return Ok(Err(Answer::failed(error)));
    }
    for (backend, answer) in &mut answers {
        let mut part = Cow::Borrowed(&asked[backend]);
        while let Some(error) = &answer.error
            && let Some(rest) = rewrite::without_missing(&part, default_db, error)
        {
            let text = Statement::Show(Box::new(rest.clone())).to_string();
            match context.ask(*backend, &text, Times::AsAsked)? {
                Ok(of_rest) => *answer = of_rest,
                // The backend has just failed: ask all again, without it.
                Err(_) => return ask(context, show, reach),
            }
            part = Cow::Owned(rest);
        }
    }
    Ok(settle(answers))
}

/// The error for a database or policy that all backends asked about it lack. A single server would report it, even
/// though other backends have answered about other sources.
fn nowhere(answers: &[(BackendId, Answer)], names: impl Fn(BackendId, &str) -> bool) -> Option<String> {
    let errors: BTreeSet<&str> = answers.iter().filter_map(|(_, answer)| answer.error.as_deref()).collect();
    errors
        .into_iter()
        .filter(|error| is_missing(error))
        .find(|error| {
            let asked = answers.iter().filter(|(backend, _)| names(*backend, error));
            asked.clone().count() > 0 && asked.clone().all(|(_, answer)| answer.error.as_deref() == Some(error))
        })
        .map(str::to_owned)
}

/// The policies as listed by one backend, the first that has the database.
fn policies(context: &Context<'_>, statement: &Statement, reach: &Reach) -> Result<Answer, Stop> {
    let text = statement.to_string();
    let mut answers = context.scatter(reach, Times::AsAsked, &|_, _| text.clone())?;
    let Some((first, answer)) = answers.pop() else { return Ok(Answer::default()) };
    let lacks = |answer: &Answer| answer.error.as_deref().and_then(missing_database).is_some();
    if lacks(&answer) {
        for backend in context.backends().filter(|&id| id != first) {
            if !context.is_down(backend)
                && let Ok(other) = context.ask(backend, &text, Times::AsAsked)?
                && !lacks(&other)
            {
                return Ok(other);
            }
        }
    }
    Ok(answer)
}

/// All messages, without duplicates.
fn messages(answers: &[(BackendId, Answer)]) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    for message in answers.iter().flat_map(|(_, answer)| &answer.messages) {
        if !all.contains(message) {
            all.push(message.clone());
        }
    }
    all
}

#[cfg(test)]
mod show_test;

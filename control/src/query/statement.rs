//! Decides who answers a statement: one backend alone, or several whose answers are merged.

use fluxgate_dataplane::influxql::ast::Statement;
use fluxgate_dataplane::routing::reach::{Class, Reach, class};

use super::context::{Context, Stop, Times};
use super::{into, select, server, show, structure};
use crate::influx::answer::Answer;

/// # Errors
/// What ends the whole request.
pub fn run(context: &Context<'_>, statement: &Statement) -> Result<Answer, Stop> {
    match class(statement, &context.request.db) {
        Class::Read(reach) => read(context, statement, &reach),
        Class::EveryServer => server::run(context, statement),
        Class::Into => into::run(context, statement),
        Class::Structure => structure::run(context, statement),
        // The worker has refused these already.
        Class::Unsupported => Ok(Answer::failed("not supported by fluxgate")),
    }
}

/// Runs a statement that only reads.
///
/// # Errors
/// What ends the whole request.
pub fn read(context: &Context<'_>, statement: &Statement, reach: &Reach) -> Result<Answer, Stop> {
    let shares = context.shares(reach)?;
    if shares.backends.len() <= 1 && !matches!(statement, Statement::ShowRetentionPolicies { .. }) {
        let mut answers = context.scatter(reach, Times::AsAsked, &|_, _| statement.to_string())?;
        // A second attempt may use several backends.
        if let [(_, answer)] = &mut answers[..] {
            return Ok(std::mem::take(answer));
        }
    }
    match statement {
        Statement::Select(select) => select::run(context, select, reach),
        Statement::Explain { analyze, select } => select::explain(context, *analyze, select, reach),
        _ => show::run(context, statement, reach),
    }
}

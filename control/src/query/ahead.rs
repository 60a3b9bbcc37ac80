//! Statements of one request that a backend answers alone are asked together, one request for each backend, before the
//! request goes through its statements in order. Reading changes nothing, so it may be done early, up to the first
//! statement that changes something.
//!
//! What is not answered here, for whatever reason, is asked as usual, with all that belongs to it: other backends, and
//! the errors of statements.

use std::collections::BTreeMap;

use fluxgate_dataplane::influxql::ast::Statement;
use fluxgate_dataplane::routing::reach::{Class, class};
use fluxgate_dataplane::topology::BackendId;

use super::context::{Context, Stop, Times};
use crate::influx::answer::Answer;
use crate::limits;

/// Answers by number of statement.
///
/// # Errors
/// What ends the whole request.
pub fn read(context: &Context<'_>, statements: &[Statement]) -> Result<BTreeMap<usize, Answer>, Stop> {
    let mut asked: BTreeMap<BackendId, Vec<usize>> = BTreeMap::new();
    for (id, statement) in statements.iter().enumerate() {
        let Class::Read(reach) = class(statement, &context.request.db) else { break };
        // One policy list may have to be looked for on several backends.
        if matches!(statement, Statement::ShowRetentionPolicies { .. }) {
            continue;
        }
        // That nobody can answer it matters when its turn comes.
        if let Ok(shares) = context.shares(&reach)
            && let (Some(&backend), 1) = (shares.backends.keys().next(), shares.backends.len())
        {
            asked.entry(backend).or_default().push(id);
        }
    }
    let mut groups = Vec::new();
    for (backend, ids) in asked {
        let several = ids.chunks(limits::STATEMENTS_MAX).filter(|ids| ids.len() > 1);
        groups.extend(several.map(|ids| (backend, ids.to_vec())));
    }
    let text = |ids: &[usize]| ids.iter().map(|&id| statements[id].to_string()).collect::<Vec<_>>().join("; ");
    let questions = groups.iter().map(|(backend, ids)| (*backend, text(ids))).collect();
    let mut answers = BTreeMap::new();
    for ((_, ids), group) in groups.iter().zip(context.ask_together(questions, Times::AsAsked)?) {
        // An error is worth nothing here: it may be numbered in another way than alone, and later ones were not run.
        let good = group.into_iter().take_while(|answer| answer.error.is_none());
        answers.extend(ids.iter().copied().zip(good));
    }
    Ok(answers)
}

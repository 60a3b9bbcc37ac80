//! Runs one request, from its text to its reply.
//!
//! Statements run in order. When one fails, the answers before it stay and no later statement runs. The error is shown
//! if the statement is the last one; otherwise its answer is `not executed`, as in InfluxDB (non-chunked).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use fluxgate_dataplane::deep;
use fluxgate_dataplane::handoff::{Catalog, QueryReply, QueryRequest};
use fluxgate_dataplane::influxql::ast::Statement;
use fluxgate_dataplane::influxql::{Depth, Unparsed, parse_request};

use super::ahead;
use super::context::{Context, QueryShared, Stop};
use super::prometheus;
use super::render::{Chunking, StatementOutcome, render};
use super::statement;
use crate::influx::answer::Answer;

/// Runs the statements of `request` and combines their answers.
/// Its time runs since `asked`.
pub fn run(shared: &QueryShared, catalog: Arc<Catalog>, request: &QueryRequest, asked: Instant) -> QueryReply {
    let failed = |status, text| QueryReply::Failed { status, text };
    // The worker has parsed it before.
    let parse = |depth| parse_request(depth, &request.q, request.params.as_deref().unwrap_or_default());
    match parse(Depth::USUAL) {
        Ok(statements) => run_statements(shared, catalog, request, asked, &statements),
        Err(Unparsed { too_deep: true, .. }) => {
            // The trees must be dropped on that stack, too.
            let deep = || match parse(Depth::SEVERAL) {
                Ok(statements) => run_statements(shared, catalog, request, asked, &statements),
                Err(unparsed) => failed(400, unparsed.text + ", since no backend can answer alone"),
            };
            deep::on_deep_stack(deep).unwrap_or_else(|error| failed(503, format!("cannot start a thread: {error}")))
        }
        Err(unparsed) => failed(400, unparsed.text),
    }
}

fn run_statements(
    shared: &QueryShared,
    catalog: Arc<Catalog>,
    request: &QueryRequest,
    asked: Instant,
    statements: &[Statement],
) -> QueryReply {
    let context = Context::new(shared, request, catalog, asked);
    let result = match &request.prometheus {
        Some(message) => prometheus::run(&context, message),
        None => answer(&context, statements),
    };
    match result {
        Ok(mut reply) => {
            if let QueryReply::Answer { fields, .. } = &mut reply
                && context.stale_ms() > 0
            {
                fields.push(("X-Fluxgate-Stale", context.stale_ms().div_ceil(1000).to_string()));
            }
            reply
        }
        Err(Stop::Cancelled | Stop::Later) => QueryReply::Failed { status: 503, text: "cancelled".to_owned() },
        Err(Stop::Failed { status, text }) => QueryReply::Failed { status, text },
    }
}

fn answer(context: &Context<'_>, statements: &[Statement]) -> Result<QueryReply, Stop> {
    let request = context.request;
    context.held.take(request.q.len() + request.params.as_ref().map_or(0, String::len))?;
    let outcomes = outcomes(context, statements)?;
    Ok(render(request, &outcomes, &context.held)?)
}

fn outcomes(context: &Context<'_>, statements: &[Statement]) -> Result<Vec<StatementOutcome>, Stop> {
    let mut outcomes: Vec<StatementOutcome> = Vec::new();
    let last = statements.len().saturating_sub(1);
    let mut ahead = VecDeque::new();
    for (id, statement) in statements.iter().enumerate() {
        if ahead.is_empty() {
            ahead.extend(ahead::read(context, &statements[id..])?);
        }
        context.begin_statement();
        let answer = match ahead.pop_front().flatten() {
            Some(answer) => answer,
            None => statement::run(context, statement)?,
        };
        let failed = answer.error.is_some();
        // Errors of InfluxDB's statement rewriter have id 0.
        let early = answer.error.as_deref().is_some_and(is_early);
        let outcome = |statement_id: usize, answer| StatementOutcome {
            statement_id: statement_id as i64,
            answer,
            chunking: Chunking::of(statement),
        };
        let not_executed = || Answer::failed("not executed");
        match (failed, early) {
            (false, _) => outcomes.push(outcome(id, answer)),
            (true, false) if context.request.chunked => {
                outcomes.push(outcome(id, answer));
                outcomes.extend((id..last).map(|_| outcome(id, not_executed())));
            }
            (true, false) => outcomes.push(outcome(id, if id == last { answer } else { not_executed() })),
            (true, true) => {
                // Right after the first statement it replaces that statement's answer.
                if id == 1 && !context.request.chunked {
                    outcomes.clear();
                }
                if id > 0 || id == last || context.request.chunked {
                    outcomes.push(outcome(0, answer));
                }
                if id < last {
                    outcomes.push(outcome(id, not_executed()));
                }
            }
        }
        if failed {
            break;
        }
    }
    Ok(outcomes)
}

/// Errors of InfluxDB's statement rewriter.
fn is_early(error: &str) -> bool {
    error.starts_with("unable to use system source") || error.ends_with("doesn't support time in WHERE clause")
}

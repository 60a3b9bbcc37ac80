//! Properties that hold for any text, as functions for the fuzz target and the tests.

use super::ast::Statement;
use super::{Params, may_change, parse, unbind};

/// `data` is the text up to the first NUL, then `params`.
///
/// Panics if a printed statement means something else, or if a statement that writes could pass as one that reads.
pub fn fuzz(data: &[u8]) {
    let Ok(data) = std::str::from_utf8(data) else { return };
    let (text, params) = data.split_once('\0').unwrap_or((data, ""));
    let params = Params::from_json(params).unwrap_or_default();
    let Ok(statements) = parse(text, &params) else { return };
    assert!(may_change(text) || !statements.iter().any(writes), "{text}");
    keeps_its_meaning(text, &statements);
}

/// Prints each statement, parses the result, and compares.
pub fn keeps_its_meaning(text: &str, statements: &[Statement]) {
    for statement in statements {
        let printed = statement.to_string();
        if printed.contains("[REDACTED]") {
            continue;
        }
        let (sent, params) = unbind(&printed);
        let params = params.map(|params| Params::from_json(&params).expect("it is JSON")).unwrap_or_default();
        let again = parse(&sent, &params);
        assert_eq!(again.as_deref(), Ok(std::slice::from_ref(statement)), "{text:?} as {printed:?}");
    }
}

/// Whether the statement changes something on a server.
pub fn writes(statement: &Statement) -> bool {
    match statement {
        Statement::Select(select) => select.into.is_some(),
        Statement::CreateDatabase { .. }
        | Statement::DropDatabase { .. }
        | Statement::CreateRetentionPolicy(_)
        | Statement::AlterRetentionPolicy(_)
        | Statement::DropRetentionPolicy { .. }
        | Statement::Delete { .. }
        | Statement::DropSeries { .. }
        | Statement::DropMeasurement { .. } => true,
        Statement::Unsupported { text, .. } => !text.starts_with("SHOW "),
        Statement::Explain { .. }
        | Statement::ShowDatabases
        | Statement::ShowRetentionPolicies { .. }
        | Statement::Show(_)
        | Statement::ShowServer { .. }
        | Statement::ShowContinuousQueries
        | Statement::ShowSubscriptions => false,
    }
}

//! Decides what errors of single backends mean for an answer that is merged from several.

use fluxgate_dataplane::topology::BackendId;

use crate::influx::answer::Answer;
use crate::limits::ROWS_UNMARKED_MAX;

/// Turns errors into answers where possible.
///
/// A backend that lacks the database or policy counts as empty while another backend has it.
///
/// # Errors
/// The answer to give instead: the first other error, which a single server would report too; "not found" when all
/// backends say so; or an error when a backend has cut its rows, since a part must not look like the whole.
pub fn settle(mut answers: Vec<(BackendId, Answer)>) -> Result<Vec<(BackendId, Answer)>, Answer> {
    let error = |answer: &Answer| answer.error.clone();
    if let Some(error) = answers.iter().filter_map(|(_, answer)| error(answer)).find(|error| !is_missing(error)) {
        return Err(Answer::failed(error));
    }
    if answers.iter().all(|(_, answer)| answer.error.is_some())
        && let Some(error) = answers.iter().find_map(|(_, answer)| error(answer))
    {
        return Err(Answer::failed(error));
    }
    if answers.iter().any(|(_, answer)| is_cut(answer)) {
        return Err(Answer::failed(
            "a backend has cut its answer, so the answers cannot be merged: set its max-row-limit to 0",
        ));
    }
    for (_, answer) in &mut answers {
        if answer.error.is_some() {
            *answer = Answer::default();
        }
    }
    Ok(answers)
}

/// Whether the error says that the server lacks the database or policy.
pub fn is_missing(error: &str) -> bool {
    missing_database(error).is_some() || missing_policy(error).is_some()
}

/// The database that a server says it lacks.
pub fn missing_database(error: &str) -> Option<&str> {
    error.strip_prefix("database not found: ")
}

/// The policy that a server says it lacks.
pub fn missing_policy(error: &str) -> Option<&str> {
    error.strip_prefix("retention policy not found: ")
}

/// The answer, or an error when it has more than `rows_max` rows (0 = no limit). It is never cut.
pub fn bounded(answer: Answer, rows_max: usize) -> Answer {
    let rows: usize = answer.series.iter().map(|series| series.rows.len()).sum();
    if rows_max == 0 || rows <= rows_max {
        return answer;
    }
    Answer::failed(format!(
        "the merged answer has {rows} rows, more than the {rows_max} allowed here (max_result_rows): use LIMIT, or \
         ask for less"
    ))
}

/// A complete answer is marked partial only when it is long; a short one was cut by the server's max-row-limit.
fn is_cut(answer: &Answer) -> bool {
    answer.series.iter().any(|series| series.partial && series.rows.len() <= ROWS_UNMARKED_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::servers;
    use crate::influx::answer::{Row, Series};

    #[test]
    fn recorded_errors_of_servers_say_what_is_missing() {
        for recorded in servers("query error") {
            let text = recorded["text"].as_str().unwrap();
            assert_eq!(missing_database(text), recorded["database"].as_str(), "{text}");
            assert_eq!(missing_policy(text), recorded["policy"].as_str(), "{text}");
        }
    }

    fn rows(count: usize, partial: bool) -> Answer {
        let rows = vec![Row::of(["1"]); count];
        Answer { series: vec![Series { rows, partial, ..Series::default() }], ..Answer::default() }
    }

    fn settled(answers: Vec<Answer>) -> Result<Vec<Answer>, Option<String>> {
        let answers = answers.into_iter().enumerate().map(|(at, answer)| (BackendId(at as u16), answer)).collect();
        settle(answers).map(|a| a.into_iter().map(|(_, a)| a).collect()).map_err(|a| a.error)
    }

    #[test]
    fn a_backend_without_the_database_is_empty_while_another_answers() {
        let missing = || Answer::failed("database not found: x");
        let policy = || Answer::failed("retention policy not found: y");
        assert_eq!(settled(vec![missing(), rows(1, false)]), Ok(vec![Answer::default(), rows(1, false)]));
        assert_eq!(settled(vec![Answer::default(), policy()]), Ok(vec![Answer::default(); 2]));
        assert_eq!(settled(vec![missing(), policy()]), Err(Some("database not found: x".into())));
        assert_eq!(settled(vec![]), Ok(vec![]));
    }

    #[test]
    fn any_other_error_is_the_error_of_the_whole() {
        let other = || Answer::failed("invalid tag comparison operator");
        let expected = Err(Some("invalid tag comparison operator".into()));
        assert_eq!(settled(vec![rows(1, false), other()]), expected);
        assert_eq!(settled(vec![Answer::failed("database not found: x"), other()]), expected);
    }

    #[test]
    fn a_cut_answer_is_refused_and_a_long_one_is_not() {
        assert!(settled(vec![rows(ROWS_UNMARKED_MAX, true), rows(1, false)]).is_err());
        assert!(settled(vec![rows(ROWS_UNMARKED_MAX + 1, true), rows(1, false)]).is_ok());
    }

    #[test]
    fn too_many_rows_are_refused_never_cut() {
        assert_eq!(bounded(rows(3, false), 3), rows(3, false));
        assert_eq!(bounded(rows(3, false), 0), rows(3, false));
        let refused = bounded(rows(4, false), 3);
        assert!(refused.series.is_empty() && refused.error.as_deref().unwrap().contains("4 rows"));
        assert!(refused.error.unwrap().contains("(max_result_rows)"), "the key to change");
    }
}

//! SHOW STATS, DIAGNOSTICS, SHARDS, SHARD GROUPS and QUERIES: the answers of all servers, side by side.
//!
//! Ids and counters of different servers are unrelated, so each series gets a tag `backend` and nothing is summed.

use std::collections::BTreeSet;

use fluxgate_dataplane::influxql::ast::Statement;
use fluxgate_dataplane::topology::BackendId;

use super::context::{Context, Stop, Times};
use super::errors::bounded;
use crate::influx::answer::{Answer, Message, Series};

/// Asks every backend that is up. Warnings name the others.
///
/// # Errors
/// 503 when none answers.
pub fn run(context: &Context<'_>, statement: &Statement) -> Result<Answer, Stop> {
    let text = statement.to_string();
    let up = context.backends().filter(|&id| !context.is_down(id));
    let questions: Vec<_> = up.map(|id| (id, text.clone())).collect();
    let asked: BTreeSet<BackendId> = questions.iter().map(|(id, _)| *id).collect();
    let mut answers = Vec::new();
    let mut silent = Vec::new();
    for (&id, answer) in asked.iter().zip(context.ask_each(questions, Times::AsAsked)?) {
        match answer {
            Ok(answer) => answers.push((context.name(id), answer)),
            Err(unanswered) => silent.push((context.name(id), unanswered.why)),
        }
    }
    if answers.is_empty() {
        return Err(context.unavailable(&context.backends().collect()));
    }
    let down = context.backends().filter(|id| !asked.contains(id));
    silent.extend(down.map(|id| (context.name(id), "down".to_owned())));
    Ok(bounded(merge(answers, &silent), context.shared.settings.rows_max))
}

/// Combines the answers, by name of the backend. `silent` are the backends without an answer, with the reason.
pub fn merge(answers: Vec<(&str, Answer)>, silent: &[(&str, String)]) -> Answer {
    let warning =
        |name: &str, why: &str| Message { level: "warning".to_owned(), text: format!("{name} is left out: {why}") };
    if answers.iter().all(|(_, answer)| answer.error.is_some()) {
        // All servers parse the statement alike.
        return answers.into_iter().next().map(|(_, answer)| answer).unwrap_or_default();
    }
    let mut merged = Answer::default();
    for (name, answer) in answers {
        if let Some(error) = &answer.error {
            merged.messages.push(warning(name, error));
            continue;
        }
        merged.messages.extend(answer.messages);
        merged.series.extend(answer.series.into_iter().map(|series| tagged(series, name)));
    }
    merged.messages.extend(silent.iter().map(|(name, why)| warning(name, why)));
    merged
}

fn tagged(mut series: Series, backend: &str) -> Series {
    let at = series.tags.partition_point(|(key, _)| key.as_str() < "backend");
    series.tags.insert(at, ("backend".to_owned(), backend.to_owned()));
    series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influx::answer::Row;

    fn stats(tags: &[(&str, &str)]) -> Answer {
        let tags = tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let series = Series { name: "shard".into(), tags, rows: vec![Row::of(["1"])], ..Series::default() };
        Answer { series: vec![series], ..Answer::default() }
    }

    #[test]
    fn each_series_gets_the_name_of_its_server() {
        let merged = merge(vec![("b1", stats(&[("a", "1"), ("id", "2")])), ("b2", stats(&[]))], &[]);
        let tags: Vec<Vec<_>> =
            merged.series.iter().map(|s| s.tags.iter().map(|(k, v)| (&k[..], &v[..])).collect()).collect();
        assert_eq!(tags, [vec![("a", "1"), ("backend", "b1"), ("id", "2")], vec![("backend", "b2")]]);
        assert!(merged.messages.is_empty());
    }

    #[test]
    fn a_warning_names_each_backend_without_an_answer() {
        let merged = merge(vec![("b1", stats(&[])), ("b2", Answer::failed("odd"))], &[("b3", "down".into())]);
        let texts: Vec<_> = merged.messages.iter().map(|m| (&m.level[..], &m.text[..])).collect();
        assert_eq!(texts, [("warning", "b2 is left out: odd"), ("warning", "b3 is left out: down")]);
        assert_eq!(merged.series.len(), 1);
        assert_eq!(merge(vec![("b1", Answer::failed("odd"))], &[]).error.as_deref(), Some("odd"));
    }
}

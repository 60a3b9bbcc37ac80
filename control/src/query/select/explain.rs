//! EXPLAIN over several backends.
//!
//! A plan describes what one server would do with its data: shards, files, blocks. Several plans follow one another,
//! with an empty row between them, as InfluxDB separates the parts of one plan; nothing is summed. EXPLAIN ANALYZE
//! measures one execution on one server, so it is refused.

use fluxgate_dataplane::influxql::ast::{Select, Statement};
use fluxgate_dataplane::routing::reach::Reach;

use super::{ask, refused};
use crate::influx::answer::{Answer, Row, Series};
use crate::query::context::{Context, Stop};

/// # Errors
/// As [`super::run`]; for ANALYZE always.
pub fn explain(context: &Context<'_>, analyze: bool, select: &Select, reach: &Reach) -> Result<Answer, Stop> {
    if analyze {
        return Err(refused(
            "EXPLAIN ANALYZE measures one server, and the sources of this statement lie on several: name measurements \
             of one backend",
        ));
    }
    // EXPLAIN writes nothing, so the target does not matter.
    let select = Select { into: None, ..select.clone() };
    let text = |share: &Select| Statement::Explain { analyze: false, select: Box::new(share.clone()) }.to_string();
    let answers = match ask(context, &select, reach, &text)? {
        Ok(answers) => answers,
        Err(error) => return Ok(error),
    };
    Ok(concatenate(answers.into_iter().map(|(_, answer)| answer)))
}

/// Joins plans, with empty rows between them. A plan of nothing is one empty row.
fn concatenate(plans: impl Iterator<Item = Answer>) -> Answer {
    let nothing = Row::of([r#""""#]);
    let mut all = Series { columns: vec!["QUERY PLAN".to_owned()], ..Series::default() };
    for series in plans.flat_map(|plan| plan.series) {
        if series.rows.iter().all(|row| *row == nothing) {
            continue;
        }
        if !all.rows.is_empty() {
            all.rows.push(nothing.clone());
        }
        all.rows.extend(series.rows);
    }
    if all.rows.is_empty() {
        all.rows.push(nothing);
    }
    Answer { series: vec![all], ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_follow_each_other_with_an_empty_row_between() {
        let plan = |rows: &[&str]| {
            let rows = rows.iter().map(|text| Row::of([*text])).collect();
            Answer { series: vec![Series { rows, ..Series::default() }], ..Answer::default() }
        };
        let rows = |plans: Vec<Answer>| concatenate(plans.into_iter()).series.remove(0).rows;
        let (a, b, nothing) = (plan(&["\"a\"", "\"a2\""]), plan(&["\"b\""]), plan(&["\"\""]));
        let wanted = ["\"a\"", "\"a2\"", "\"\"", "\"b\""].map(|text| Row::of([text]));
        assert_eq!(rows(vec![nothing.clone(), a, nothing.clone(), b]), wanted);
        assert_eq!(rows(vec![nothing.clone(), nothing]), [Row::of(["\"\""])]);
    }
}

//! The questions about the measurements of a SELECT: their fields, types and tags.
//!
//! `EXPLAIN SELECT *` over the same sources and time tells the columns of the wildcard there, by shard group as in
//! InfluxDB. SHOW FIELD KEYS ignores time and would add columns. There is one question per FROM with measurements and
//! backend, all in one round.

use std::collections::BTreeMap;

use fluxgate_dataplane::influxql::ast::{DataType, Expr, Field, Name, Select, Source, Statement};
use fluxgate_dataplane::influxql::visit;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::reach::restrict;

use super::now::time_part;
use super::shares::ABSENT_MEASUREMENT;
use super::types::KnownColumns;
use crate::influx::answer::Answer;

/// The question about one FROM, shared by all SELECTs with the same sources.
pub struct ColumnProbe {
    select: Select,
}

impl ColumnProbe {
    /// The question for a backend that keeps these measurements; None when it has none of them.
    pub fn text(&self, default_db: &str, keep: &dyn Fn(Place<&str>) -> bool) -> Option<String> {
        let select = restrict(&self.select, default_db, keep)?;
        Some(Statement::Explain { analyze: false, select: Box::new(select) }.to_string())
    }
}

/// The questions for `select`, and for each SELECT in it (in the order of [`visit::selects`]) the number of its
/// question; None for those without measurements.
pub fn probes(select: &Select) -> (Vec<ColumnProbe>, Vec<Option<usize>>) {
    let mut probes = Vec::new();
    let mut by_text: BTreeMap<String, usize> = BTreeMap::new();
    let mut of_level = Vec::new();
    // Subqueries expand their wildcards by the outermost time range.
    let time = select.condition.as_ref().and_then(time_part);
    visit::selects(select, &mut |inner| {
        let mut sources: Vec<Source> = Vec::new();
        for source in &inner.sources {
            if matches!(source, Source::Measurement(_)) && !sources.contains(source) {
                sources.push(source.clone());
            }
        }
        if sources.is_empty() {
            return of_level.push(None);
        }
        let all = Field { expr: Expr::Wildcard(None), alias: None };
        let question =
            Select { fields: vec![all], sources, condition: time.clone(), tz: select.tz.clone(), ..Select::default() };
        of_level.push(Some(*by_text.entry(question.to_string()).or_insert_with(|| {
            probes.push(ColumnProbe { select: question });
            probes.len() - 1
        })));
    });
    (probes, of_level)
}

/// The statement over a measurement that does not exist: InfluxDB's checks that do not depend on data, with its errors.
pub fn check(select: &Select) -> String {
    let mut select = select.clone();
    visit::sources_mut(&mut select.sources, &mut |source| {
        if let Source::Measurement(measurement) = source {
            measurement.name = Name::Text(ABSENT_MEASUREMENT.to_owned());
        }
    });
    select.to_string()
}

/// Whether an error of [`check`] may vanish with data. Without fields, types follow from the dimensions of subqueries,
/// and InfluxDB fails on some statements that read nothing.
pub fn depends_on_data(error: &str) -> bool {
    error.starts_with("type error: ") || error.contains(" iterator type: ") || error.contains("[panic:")
}

/// Adds the columns in a backend's answer.
///
/// # Errors
/// The answer is not InfluxDB's.
pub fn learn(known: &mut KnownColumns, answer: &Answer) -> Result<(), UnreadablePlan> {
    for row in answer.series.iter().flat_map(|series| &series.rows) {
        let line = row.string(0).ok_or(UnreadablePlan)?;
        if let Some(list) = line.strip_prefix("AUXILIARY FIELDS: ") {
            for (name, of) in names(list).ok_or(UnreadablePlan)? {
                match of {
                    DataType::Tag => _ = known.tags.insert(name),
                    of => known.field(&name, Some(of)),
                }
            }
        }
    }
    Ok(())
}

/// A backend's plan cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnreadablePlan;

/// `a::float, "b c"::string, host::tag`; names are quoted where necessary.
fn names(list: &str) -> Option<Vec<(String, DataType)>> {
    let mut names = Vec::new();
    let mut rest = list;
    loop {
        let (name, after) = name(rest)?;
        let after = after.strip_prefix("::")?;
        let end = after.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(after.len());
        let of = match &after[..end] {
            "float" => DataType::Float,
            "integer" => DataType::Integer,
            "unsigned" => DataType::Unsigned,
            "string" => DataType::String,
            "boolean" => DataType::Boolean,
            "tag" => DataType::Tag,
            _ => return None,
        };
        names.push((name, of));
        match after[end..].strip_prefix(", ") {
            Some(more) => rest = more,
            None => return after[end..].is_empty().then_some(names),
        }
    }
}

/// A name at the front, and what follows.
fn name(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find("::")?;
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((name, &quoted[at + 1..])),
            (_, '\\') => name.push(match chars.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            (_, c) => name.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::servers;
    use crate::influx::answer::{Row, Series};

    #[test]
    fn recorded_plans_of_servers_are_read_and_others_are_not() {
        for recorded in servers("plan") {
            let rows = vec![Row::of([&recorded["line"].to_string()[..]])];
            let answer = Answer { series: vec![Series { rows, ..Series::default() }], ..Answer::default() };
            let wanted: Option<Vec<(String, String)>> = serde_json::from_value(recorded["columns"].clone()).unwrap();
            let mut known = KnownColumns::default();
            let learnt = learn(&mut known, &answer).ok().map(|()| {
                let fields = known.fields.into_iter().map(|(name, of)| (name, of.unwrap().to_string()));
                fields.chain(known.tags.into_iter().map(|name| (name, "tag".to_owned()))).collect::<Vec<_>>()
            });
            assert_eq!(learnt, wanted, "{}", recorded["line"]);
        }
    }

    #[test]
    fn quoted_names_may_hold_separators() {
        let list = r#"a::float, "b, c::tag"::string, "d\"e\\\n"::integer, host::tag, "select"::boolean, é::float"#;
        let given: Vec<_> = names(list).unwrap();
        let wanted = [
            ("a", DataType::Float),
            ("b, c::tag", DataType::String),
            ("d\"e\\\n", DataType::Integer),
            ("host", DataType::Tag),
            ("select", DataType::Boolean),
            ("é", DataType::Float),
        ];
        assert_eq!(given, wanted.map(|(name, of)| (name.to_owned(), of)));
        for bad in ["", "a", "a::", "a::float,", "a::float b::tag", "\"a::float", "a::wrong"] {
            assert_eq!(names(bad), None, "{bad}");
        }
    }
}

//! Rewrites a SELECT with every column written out and typed, so that each backend reads it as one server with all data
//! would.
//!
//! ```text
//!   SELECT *, mean(/us/) ... GROUP BY *
//!   ->  "idle"::integer, "usage"::float, mean("usage"::float) AS "mean_usage" ... GROUP BY "host"
//! ```
//!
//! Subqueries come first: the columns of an inner SELECT are the fields of the outer one. What InfluxDB would refuse
//! stays unchanged, so that a backend refuses it with InfluxDB's error. Pure; `probe` supplies the known columns, one
//! entry per SELECT in the order of [`visit::selects`].

use std::collections::BTreeSet;

use fluxgate_dataplane::influxql::ast::{DataType, Expr, Field, FieldOrTag, Select, Source};
use fluxgate_dataplane::influxql::visit;

use super::now::is_time;
use super::pattern;
use super::types::{Functions, KnownColumns, Type, columns, field_name, is_open, of_expr, of_name, variable_name};

/// Matches no name: a column that expands to nothing. The checks that InfluxDB makes before it expands still see a
/// regular expression.
const NOTHING: &str = r"[^\x00-\x{10FFFF}]";
/// No line protocol can write a field with this name.
const ABSENT_FIELD: &str = "time\u{1}";

/// The SELECT with typed explicit columns.
///
/// # Errors
/// A regular expression that cannot be evaluated here.
pub fn rewrite(select: &Select, known: &[KnownColumns], functions: Functions<'_>) -> Result<Select, regex::Error> {
    let mut known = known.iter();
    level(select, &mut known, functions, true)
}

fn level<'a>(
    select: &Select,
    known: &mut impl Iterator<Item = &'a KnownColumns>,
    functions: Functions<'_>,
    outermost: bool,
) -> Result<Select, regex::Error> {
    let mut select = select.clone();
    let own = known.next().expect("one entry per SELECT");
    for source in &mut select.sources {
        if let Source::Subquery(inner) = source {
            **inner = level(inner, known, functions, false)?;
        }
    }
    let sources = std::mem::take(&mut select.sources);
    let type_of = |name: &str| of_name(name, &sources, own, functions);
    let mut typed = |expr: &mut Expr| annotate(expr, &type_of, outermost);
    select.fields.iter_mut().for_each(|field| visit::walk_mut(&mut field.expr, &mut typed));
    select.condition.iter_mut().for_each(|condition| visit::walk_mut(condition, &mut typed));
    let all_tags = select.dimensions.iter().any(|dim| matches!(dim, Expr::Wildcard(_) | Expr::Regex(_)));
    if all_tags || select.fields.iter().any(|field| is_open(&field.expr)) {
        let names = ColumnNames::of(&sources, own, &select.dimensions, all_tags, functions);
        let mut fields = Vec::with_capacity(select.fields.len());
        for field in &select.fields {
            names.expand(field, &mut fields)?;
        }
        select.fields = fields;
        let mut dimensions = Vec::with_capacity(select.dimensions.len());
        for dimension in &select.dimensions {
            names.expand_dimension(dimension, &mut dimensions)?;
        }
        select.dimensions = dimensions;
    }
    select.sources = sources;
    Ok(select)
}

/// Adds the type to a name. `::field` becomes the field's type.
fn annotate(expr: &mut Expr, type_of: &dyn Fn(&str) -> Type, outermost: bool) {
    // Only outside of subqueries InfluxDB reads DISTINCT without parentheses as the function.
    if outermost && let Expr::Distinct(name) = expr {
        let variable = Expr::Variable { parts: vec![std::mem::take(name)], of: None };
        *expr = Expr::Call { name: "distinct".to_owned(), args: vec![variable] };
        visit::walk_mut(expr, &mut |inner| annotate(inner, type_of, outermost));
        return;
    }
    if is_time(expr) {
        return;
    }
    let Expr::Variable { parts, of } = expr else { return };
    if !matches!(of, None | Some(DataType::AnyField)) {
        return;
    }
    match type_of(&parts.join(".")) {
        None => {}
        Some(DataType::Tag) if of.is_some() => {}
        found => *of = found,
    }
}

/// The names that wildcards and regular expressions of one SELECT match.
struct ColumnNames {
    /// Sorted as InfluxDB does: by name, a field before a tag.
    columns: Vec<(String, Type)>,
    tags: BTreeSet<String>,
}

impl ColumnNames {
    fn of(
        sources: &[Source],
        known: &KnownColumns,
        dimensions: &[Expr],
        all_tags: bool,
        functions: Functions<'_>,
    ) -> Self {
        let mut all = known.clone();
        for source in sources {
            if let Source::Subquery(inner) = source {
                for field in columns(inner) {
                    all.field(&field_name(field), of_expr(&field.expr, functions));
                }
                all.tags.extend(inner.dimensions.iter().filter_map(variable_name));
            }
        }
        let KnownColumns { fields, mut tags } = all;
        let mut columns: Vec<(String, Type)> = fields.into_iter().collect();
        if !all_tags {
            for grouped in dimensions.iter().filter_map(variable_name) {
                tags.remove(&grouped);
            }
            // A measurement without fields has no tags.
            if !columns.is_empty() {
                columns.extend(tags.iter().map(|tag| (tag.clone(), Some(DataType::Tag))));
            }
        }
        columns.sort_by(|(a, a_type), (b, b_type)| a.cmp(b).then(order(*a_type).cmp(&order(*b_type))));
        Self { columns, tags }
    }

    fn expand(&self, field: &Field, out: &mut Vec<Field>) -> Result<(), regex::Error> {
        let before = out.len();
        match &field.expr {
            Expr::Wildcard(which) => {
                let wanted = |of: Type| match which {
                    Some(FieldOrTag::Field) => of != Some(DataType::Tag),
                    Some(FieldOrTag::Tag) => of == Some(DataType::Tag),
                    None => true,
                };
                out.extend(self.columns.iter().filter(|(_, of)| wanted(*of)).map(column));
            }
            Expr::Regex(pattern) => {
                let regex = pattern::compile(pattern)?;
                out.extend(self.columns.iter().filter(|(name, _)| regex.is_match(name)).map(column));
            }
            Expr::Call { .. } => return self.expand_call(field, out),
            _ => out.push(field.clone()),
        }
        if out.len() == before {
            out.push(Field { expr: Expr::Regex(NOTHING.to_owned()), alias: None });
        }
        Ok(())
    }

    /// Expands `f(*)` and `f(/re/)`, also as the first argument of another function.
    fn expand_call(&self, field: &Field, out: &mut Vec<Field>) -> Result<(), regex::Error> {
        let mut template = field.expr.clone();
        let Some((function, argument)) = innermost(&mut template) else {
            out.push(field.clone());
            return Ok(());
        };
        let regex = match argument {
            Expr::Regex(pattern) => Some(pattern::compile(pattern)?),
            Expr::Wildcard(None | Some(FieldOrTag::Field)) => None,
            // Of tags: a backend refuses it.
            _ => {
                out.push(field.clone());
                return Ok(());
            }
        };
        let prefix = field_name(field);
        let before = out.len();
        for (name, of) in &self.columns {
            if takes(&function, *of) && regex.as_ref().is_none_or(|regex| regex.is_match(name)) {
                let mut expr = field.expr.clone();
                if let Some((_, argument)) = innermost(&mut expr) {
                    *argument = column(&(name.clone(), *of)).expr;
                }
                out.push(Field { expr, alias: Some(format!("{prefix}_{name}")) });
            }
        }
        if out.len() == before {
            *argument = Expr::Regex(NOTHING.to_owned());
            out.push(Field { expr: template, alias: field.alias.clone() });
        }
        Ok(())
    }

    fn expand_dimension(&self, dimension: &Expr, out: &mut Vec<Expr>) -> Result<(), regex::Error> {
        let variable = |name: &String| Expr::Variable { parts: vec![name.clone()], of: None };
        match dimension {
            Expr::Wildcard(_) => out.extend(self.tags.iter().map(variable)),
            Expr::Regex(pattern) => {
                let regex = pattern::compile(pattern)?;
                out.extend(self.tags.iter().filter(|name| regex.is_match(name)).map(variable));
            }
            _ => out.push(dimension.clone()),
        }
        Ok(())
    }
}

/// The order of types for equal names, by InfluxDB's numbers.
fn order(of: Type) -> u8 {
    match of {
        None => 0,
        Some(DataType::Float) => 1,
        Some(DataType::Integer) => 2,
        Some(DataType::String) => 3,
        Some(DataType::Boolean) => 4,
        Some(DataType::Tag) => 7,
        Some(DataType::AnyField) => 8,
        Some(DataType::Unsigned) => 9,
    }
}

/// A name written out. A column `time` of a subquery is not the time, and always null.
fn column((name, of): &(String, Type)) -> Field {
    if name == "time" {
        let absent = Expr::Variable { parts: vec![ABSENT_FIELD.to_owned()], of: None };
        return Field { expr: absent, alias: Some(name.clone()) };
    }
    Field { expr: Expr::Variable { parts: vec![name.clone()], of: *of }, alias: None }
}

/// The innermost call along first arguments, in lower case, and its first argument.
fn innermost(expr: &mut Expr) -> Option<(String, &mut Expr)> {
    let Expr::Call { name, args } = expr else { return None };
    let name = name.to_ascii_lowercase();
    let first = args.first_mut()?;
    if matches!(first, Expr::Call { .. }) { innermost(first) } else { Some((name, first)) }
}

/// Whether `function` of `*` includes fields of this type.
fn takes(function: &str, of: Type) -> bool {
    let any = matches!(function, "count" | "first" | "last" | "distinct" | "elapsed" | "mode" | "sample");
    match of {
        Some(DataType::Float | DataType::Integer) => true,
        Some(DataType::Unsigned) => !matches!(function, "holt_winters" | "holt_winters_with_fit"),
        Some(DataType::String) => any,
        Some(DataType::Boolean) => any || matches!(function, "min" | "max"),
        Some(DataType::Tag | DataType::AnyField) | None => false,
    }
}

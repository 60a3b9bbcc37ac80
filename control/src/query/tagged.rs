//! `top()` and `bottom()` with tags, as SELECT INTO reads them.
//!
//! With a target InfluxDB adds no columns for the arguments between the first and the last: it groups by them, and what
//! it finds are tags of the written point, empty where the name is no tag. Without a target they are columns. So the
//! SELECT is asked in a form that adds none (a product is no bare call), with a column `::tag` for each at its end.
//!
//! InfluxDB applies LIMIT and OFFSET to runs of rows with equal tags, which are others with a target than without. They
//! are left out of the SELECT then, and applied here.

use fluxgate_dataplane::influxql::ast::{DataType, Expr, Field, Op, Select, Source};
use fluxgate_dataplane::influxql::visit;

use super::select::types::{field_name, is_open, is_top_or_bottom, variable_name};

/// Begins the names of the added columns. No line protocol can write a field with such a name.
const ADDED: &str = "tag\u{1}";

/// What the rows of a SELECT without its INTO are as points.
#[derive(Debug, Default)]
pub struct Tagged {
    /// The last columns of each series are these tags.
    pub tags: Vec<String>,
    /// Rows of a run to be left out, and to be written then; 0 = all.
    offset: u64,
    limit: u64,
    run: Option<Vec<u8>>,
    in_run: u64,
}

/// The SELECT to ask instead of `select`, which has INTO.
pub fn read(select: &Select) -> (Select, Tagged) {
    let mut read = Select { into: None, ..select.clone() };
    let Some((tags, count)) = select.fields.iter().find_map(|field| arguments(&field.expr)) else {
        return (read, Tagged::default());
    };
    // InfluxDB refuses it then.
    let limit = select.limit.unwrap_or_default();
    if limit > 0 && count > limit {
        return (read, Tagged::default());
    }
    for field in &mut read.fields {
        if let Expr::Call { name, .. } = bare(&field.expr)
            && is_top_or_bottom(name)
        {
            let call = std::mem::replace(&mut field.expr, Expr::Integer(1));
            field.expr = Expr::Binary { op: Op::Mul, left: Box::new(call), right: Box::new(Expr::Integer(1)) };
        }
    }
    let column = |(at, tag): (usize, &String)| Field {
        expr: Expr::Variable { parts: vec![tag.clone()], of: Some(DataType::Tag) },
        alias: Some(format!("{ADDED}{at}")),
    };
    if select.fields.iter().all(|field| !is_open(&field.expr)) && select.dimensions.iter().all(|by| !is_open(by)) {
        let unnamed: Vec<_> = tags.iter().filter(|tag| !names(select, tag)).cloned().collect();
        read.sources.iter_mut().for_each(|source| group_by(source, &unnamed));
    }
    read.fields.extend(tags.iter().enumerate().map(column));
    (read.limit, read.offset) = (None, None);
    let offset = select.offset.unwrap_or_default();
    (read, Tagged { tags, offset, limit, run: None, in_run: 0 })
}

/// The names between the first and the last argument of `top()` or `bottom()`, and the number in the last one. None:
/// there are none.
fn arguments(expr: &Expr) -> Option<(Vec<String>, u64)> {
    let mut found = None;
    visit::walk(expr, &mut |inner| {
        if let Expr::Call { name, args } = inner
            && is_top_or_bottom(name)
            && let [_, tags @ .., Expr::Integer(count)] = &args[..]
            && !tags.is_empty()
        {
            let names = tags.iter().map(variable_name).collect::<Option<Vec<_>>>();
            found = found.take().or(names.zip(u64::try_from(*count).ok()));
        }
    });
    found
}

/// Whether the SELECT uses the name, but for the arguments of `top()` and `bottom()`.
fn names(select: &Select, name: &str) -> bool {
    let is_it = |expr: &Expr| variable_name(expr).as_deref() == Some(name);
    let mut used = 0;
    let mut count = |expr: &Expr| {
        if is_it(expr) {
            used += 1;
        } else if let Expr::Call { name, args } = expr
            && is_top_or_bottom(name)
            && args.len() > 2
        {
            used -= args[1..args.len() - 1].iter().filter(|arg| is_it(arg)).count() as i64;
        }
    };
    let exprs = select.fields.iter().map(|field| &field.expr).chain(&select.condition).chain(&select.dimensions);
    exprs.for_each(|expr| visit::walk(expr, &mut count));
    used > 0
}

/// Lets a subquery group by tags that none of its columns shows. InfluxDB does so anyway where the outer SELECT groups
/// by them; only then can it show them.
fn group_by(source: &mut Source, tags: &[String]) {
    let Source::Subquery(inner) = source else { return };
    if inner.fields.iter().any(|field| is_open(&field.expr)) || inner.dimensions.iter().any(is_open) {
        return;
    }
    for tag in tags {
        let is_it = |expr: &Expr| variable_name(expr).as_ref() == Some(tag);
        if !inner.fields.iter().any(|field| field_name(field) == *tag) && !inner.dimensions.iter().any(is_it) {
            inner.dimensions.push(Expr::Variable { parts: vec![tag.clone()], of: None });
        }
    }
    inner.sources.iter_mut().for_each(|source| group_by(source, tags));
}

fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Paren(inner) => bare(inner),
        _ => expr,
    }
}

impl Tagged {
    /// Begins to read again.
    pub fn begin_again(&mut self) {
        (self.run, self.in_run) = (None, 0);
    }

    /// Whether the row is written; `key` tells its measurement and tags.
    pub fn takes(&mut self, key: impl FnOnce() -> Vec<u8>) -> bool {
        if self.offset == 0 && self.limit == 0 {
            return true;
        }
        let key = Some(key());
        if self.run != key {
            (self.run, self.in_run) = (key, 0);
        }
        self.in_run += 1;
        self.in_run > self.offset && (self.limit == 0 || self.in_run - self.offset <= self.limit)
    }
}

#[cfg(test)]
mod tests {
    use fluxgate_dataplane::influxql::ast::Statement;
    use fluxgate_dataplane::influxql::{Params, parse};

    use super::*;

    fn asked(text: &str) -> (String, Tagged) {
        let Statement::Select(select) = parse(text, &Params::default()).unwrap().remove(0) else { panic!("{text}") };
        let (read, tagged) = read(&select);
        (read.to_string(), tagged)
    }

    #[test]
    fn tags_are_asked_for_as_last_columns() {
        let (text, tagged) = asked("SELECT x, Top(v, a, b, 2) AS t INTO o FROM m LIMIT 3 OFFSET 1");
        let want = "SELECT \"x\", Top(\"v\", \"a\", \"b\", 2) * 1 AS \"t\", \"a\"::tag AS \"tag\u{1}0\", \
                    \"b\"::tag AS \"tag\u{1}1\" FROM \"m\"";
        assert_eq!((text.as_str(), &tagged.tags[..]), (want, &["a".to_owned(), "b".to_owned()][..]));
        let (text, tagged) = asked("SELECT bottom(v, a, 2) + 1 INTO o FROM m");
        assert!(text.starts_with("SELECT bottom(\"v\", \"a\", 2) + 1, \"a\"::tag") && tagged.tags == ["a"], "{text}");
        for other in ["SELECT top(v, 2) INTO o FROM m", "SELECT top(v, a, 2) INTO o FROM m LIMIT 1"] {
            let (text, tagged) = asked(other);
            assert!(!text.contains("tag") && tagged.tags.is_empty(), "{text}");
        }
    }

    #[test]
    fn offset_and_limit_count_within_runs_of_equal_tags() {
        let mut tagged = Tagged { offset: 1, limit: 2, ..Tagged::default() };
        let taken = "aaaaabbab".bytes().filter(|&key| tagged.takes(|| vec![key])).collect::<Vec<_>>();
        assert_eq!(taken, b"aab");
    }
}

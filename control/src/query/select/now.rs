//! Fixes `now()` for all shares, and finds what a statement says about time.
//!
//! Each server has its own clock. InfluxDB ends a GROUP BY time() without an upper bound at now(), also in each
//! subquery, unless an outer SELECT has a bound.

use fluxgate_dataplane::influxql::ast::{Expr, Op, Select, Source};
use fluxgate_dataplane::influxql::visit;

/// From the year 1, where Go's time begins, to 1970.
const GO_EPOCH_NS: i128 = 62_135_596_800 * 1_000_000_000;

/// Writes `now_ns` (since 1970) wherever `select` or a subquery uses now().
pub fn fix(select: &mut Select, now_ns: i64) {
    visit::selects_mut(select, &mut |select| {
        if let Some(condition) = &mut select.condition {
            visit::walk_mut(condition, &mut |expr| replace(expr, now_ns));
        }
        select.dimensions.iter_mut().for_each(|dimension| fix_offset(dimension, now_ns));
    });
    bound(select, now_ns, false);
}

/// Writes `now_ns` wherever the condition of another statement than SELECT uses now().
pub fn replace_now(condition: &mut Expr, now_ns: i64) {
    visit::walk_mut(condition, &mut |expr| {
        if matches!(expr, Expr::Call { name, .. } if name.eq_ignore_ascii_case("now")) {
            *expr = Expr::Integer(now_ns);
        }
    });
}

fn replace(expr: &mut Expr, now_ns: i64) {
    if is_now(expr) {
        *expr = Expr::Integer(now_ns);
    }
    // InfluxDB adds a duration to an integer, but not an integer to a duration.
    if let Expr::Binary { op: Op::Add, left, right } = expr
        && matches!((&**left, &**right), (Expr::Duration(_), Expr::Integer(at)) if *at == now_ns)
    {
        std::mem::swap(left, right);
    }
}

fn is_now(expr: &Expr) -> bool {
    matches!(expr, Expr::Call { name, args } if name.eq_ignore_ascii_case("now") && args.is_empty())
}

/// `time(1h, now())`: shifts the windows by now() modulo the interval, counted from the year 1.
fn fix_offset(dimension: &mut Expr, now_ns: i64) {
    let Expr::Call { name, args } = dimension else { return };
    if let [Expr::Duration(every), offset] = &mut args[..]
        && name.eq_ignore_ascii_case("time")
        && *every > 0
        && is_now(offset)
    {
        let since = (GO_EPOCH_NS + i128::from(now_ns)) % i128::from(*every);
        *offset = Expr::Duration(i64::try_from(since).expect("a remainder is below its divisor"));
    }
}

/// Adds `time <= now` where InfluxDB would. `bounded`: an outer SELECT has an upper bound.
fn bound(select: &mut Select, now_ns: i64, bounded: bool) {
    let comparisons = select.condition.as_ref().map(time_comparisons).unwrap_or_default();
    let mut bounded = bounded || comparisons.iter().any(|comparison| is_upper_bound(comparison));
    if !bounded && groups_by_time(select) {
        let bound = Expr::Binary {
            op: Op::LtEq,
            left: Box::new(Expr::Variable { parts: vec!["time".to_owned()], of: None }),
            right: Box::new(Expr::Integer(now_ns)),
        };
        select.condition = Some(match select.condition.take() {
            Some(condition) => both(Expr::Paren(Box::new(condition)), bound),
            None => bound,
        });
        bounded = true;
    }
    for source in &mut select.sources {
        if let Source::Subquery(inner) = source {
            self::bound(inner, now_ns, bounded);
        }
    }
}

fn groups_by_time(select: &Select) -> bool {
    let is_time = |expr: &Expr| matches!(expr, Expr::Call { name, .. } if name.eq_ignore_ascii_case("time"));
    select.dimensions.iter().any(is_time)
}

/// The part of a condition that is about time. InfluxDB intersects all comparisons, also those joined by OR.
pub fn time_part(condition: &Expr) -> Option<Expr> {
    time_comparisons(condition).into_iter().cloned().reduce(both)
}

/// The rest of a condition, without what is about time. None: nothing is left.
pub fn without_time(condition: &Expr) -> Option<Expr> {
    match condition {
        Expr::Paren(inner) => without_time(inner).map(|inner| Expr::Paren(Box::new(inner))),
        Expr::Binary { op: op @ (Op::And | Op::Or), left, right } => match (without_time(left), without_time(right)) {
            (Some(left), Some(right)) => Some(Expr::Binary { op: *op, left: Box::new(left), right: Box::new(right) }),
            (left, right) => left.or(right),
        },
        Expr::Binary { left, right, .. } if is_time(left) || is_time(right) => None,
        _ => Some(condition.clone()),
    }
}

fn both(left: Expr, right: Expr) -> Expr {
    Expr::Binary { op: Op::And, left: Box::new(left), right: Box::new(right) }
}

fn time_comparisons(condition: &Expr) -> Vec<&Expr> {
    match condition {
        Expr::Paren(inner) => time_comparisons(inner),
        Expr::Binary { op: Op::And | Op::Or, left, right } => {
            let mut found = time_comparisons(left);
            found.extend(time_comparisons(right));
            found
        }
        Expr::Binary { left, right, .. } if is_time(left) || is_time(right) => vec![condition],
        _ => Vec::new(),
    }
}

fn is_upper_bound(comparison: &Expr) -> bool {
    match comparison {
        Expr::Binary { op: Op::Eq, .. } => true,
        Expr::Binary { op: Op::Lt | Op::LtEq, left, .. } => is_time(left),
        Expr::Binary { op: Op::Gt | Op::GtEq, right, .. } => is_time(right),
        _ => false,
    }
}

/// Whether `expr` is the column of times.
pub fn is_time(expr: &Expr) -> bool {
    matches!(expr, Expr::Variable { parts, .. } if parts.len() == 1 && parts[0].eq_ignore_ascii_case("time"))
}

#[cfg(test)]
mod tests {
    use fluxgate_dataplane::influxql::ast::Statement;
    use fluxgate_dataplane::influxql::{Params, parse};

    use super::*;

    fn select(text: &str) -> Select {
        match parse(text, &Params::default()).unwrap().pop() {
            Some(Statement::Select(select)) => *select,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn now_becomes_one_number_and_ends_windows() {
        let now = 1_700_000_000_000_000_007;
        for (before, after) in [
            ("select a from m where time > now() - 1h", "select a from m where time > 1700000000000000007 - 1h"),
            ("select a from m where time > 1h + NOW()", "select a from m where time > 1700000000000000007 + 1h"),
            (
                "select a from (select a from m where time < now())",
                "select a from (select a from m where time < 1700000000000000007)",
            ),
            (
                "select mean(a) from m group by time(1h)",
                "select mean(a) from m where time <= 1700000000000000007 group by time(1h)",
            ),
            (
                "select mean(a) from m where h = 'a' or h = 'b' group by time(1h)",
                "select mean(a) from m where (h = 'a' or h = 'b') and time <= 1700000000000000007 group by time(1h)",
            ),
            (
                "select mean(a) from m where 5 > time group by time(1h)",
                "select mean(a) from m where 5 > time group by time(1h)",
            ),
            (
                "select max(b) from (select mean(a) as b from m group by time(1h)) where time < 9",
                "select max(b) from (select mean(a) as b from m group by time(1h)) where time < 9",
            ),
            (
                "select max(b) from (select mean(a) as b from m group by time(1h))",
                "select max(b) from (select mean(a) as b from m where time <= 1700000000000000007 group by time(1h))",
            ),
            (
                "select mean(a) from m where time = 7 group by time(1s, now())",
                "select mean(a) from m where time = 7 group by time(1s, 7ns)",
            ),
        ] {
            let mut fixed = select(before);
            fix(&mut fixed, now);
            assert_eq!(fixed.to_string(), select(after).to_string(), "{before}");
        }
    }

    #[test]
    fn the_time_part_is_all_comparisons_with_time() {
        let part = |text| time_part(&select(text).condition.unwrap()).map(|part| part.to_string());
        let given = "select a from m where (h = 'a' or time > 5) and (b > 3 and 9 >= time)";
        let wanted = select("select a from m where time > 5 and 9 >= time").condition.unwrap().to_string();
        assert_eq!(part(given), Some(wanted));
        assert_eq!(part("select a from m where h = 'a'"), None);
    }
}

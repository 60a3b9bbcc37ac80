//! Visits all parts of a tree: expressions, sources, measurements and subqueries.
//!
//! Reading goes from the outside in. Changing goes from the inside out, so that what a change inserts is not visited
//! again. The recursion is as deep as the tree, which the parser limits.

use super::ast::{Expr, Measurement, Select, Source};

/// Visits `expr`, then all expressions in it.
pub fn walk(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    visit(expr);
    match expr {
        Expr::Call { args, .. } => args.iter().for_each(|arg| walk(arg, visit)),
        Expr::Binary { left, right, .. } => {
            walk(left, visit);
            walk(right, visit);
        }
        Expr::Paren(inner) | Expr::Negative(inner) => walk(inner, visit),
        Expr::Variable { .. }
        | Expr::Wildcard(_)
        | Expr::Regex(_)
        | Expr::String(_)
        | Expr::Integer(_)
        | Expr::Unsigned(_)
        | Expr::Number(_)
        | Expr::Duration(_)
        | Expr::Boolean(_)
        | Expr::Distinct(_) => {}
    }
}

/// Visits all expressions in `expr`, then `expr`.
pub fn walk_mut(expr: &mut Expr, visit: &mut dyn FnMut(&mut Expr)) {
    match expr {
        Expr::Call { args, .. } => args.iter_mut().for_each(|arg| walk_mut(arg, visit)),
        Expr::Binary { left, right, .. } => {
            walk_mut(left, visit);
            walk_mut(right, visit);
        }
        Expr::Paren(inner) | Expr::Negative(inner) => walk_mut(inner, visit),
        // Leaves; `walk` lists them.
        _ => {}
    }
    visit(expr);
}

/// Visits all expressions of `select`: fields, condition, dimensions, then those of its subqueries.
pub fn exprs(select: &Select, visit: &mut dyn FnMut(&Expr)) {
    select.fields.iter().for_each(|field| walk(&field.expr, visit));
    select.condition.iter().for_each(|condition| walk(condition, visit));
    select.dimensions.iter().for_each(|dimension| walk(dimension, visit));
    for source in &select.sources {
        if let Source::Subquery(inner) = source {
            exprs(inner, visit);
        }
    }
}

/// Like [`exprs`], but subqueries first.
pub fn exprs_mut(select: &mut Select, visit: &mut dyn FnMut(&mut Expr)) {
    for source in &mut select.sources {
        if let Source::Subquery(inner) = source {
            exprs_mut(inner, visit);
        }
    }
    select.fields.iter_mut().for_each(|field| walk_mut(&mut field.expr, visit));
    select.condition.iter_mut().for_each(|condition| walk_mut(condition, visit));
    select.dimensions.iter_mut().for_each(|dimension| walk_mut(dimension, visit));
}

/// Visits all sources, each subquery before the sources in it.
pub fn sources<'a>(sources: &'a [Source], visit: &mut dyn FnMut(&'a Source)) {
    for source in sources {
        visit(source);
        if let Source::Subquery(inner) = source {
            self::sources(&inner.sources, visit);
        }
    }
}

/// Visits all sources, each subquery after the sources in it.
pub fn sources_mut(sources: &mut [Source], visit: &mut dyn FnMut(&mut Source)) {
    for source in sources {
        if let Source::Subquery(inner) = source {
            sources_mut(&mut inner.sources, visit);
        }
        visit(source);
    }
}

/// Visits all measurements among the sources. Targets of INTO are not sources.
pub fn measurements<'a>(sources: &'a [Source], visit: &mut dyn FnMut(&'a Measurement)) {
    self::sources(sources, &mut |source| {
        if let Source::Measurement(measurement) = source {
            visit(measurement);
        }
    });
}

/// Visits `select` and its subqueries, outermost first.
pub fn selects(select: &Select, visit: &mut dyn FnMut(&Select)) {
    visit(select);
    for source in &select.sources {
        if let Source::Subquery(inner) = source {
            selects(inner, visit);
        }
    }
}

/// Visits `select` and its subqueries, innermost first.
pub fn selects_mut(select: &mut Select, visit: &mut dyn FnMut(&mut Select)) {
    for source in &mut select.sources {
        if let Source::Subquery(inner) = source {
            selects_mut(inner, visit);
        }
    }
    visit(select);
}

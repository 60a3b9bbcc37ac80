//! The statements that backends get in place of a SHOW, so that their answers can be merged.

use std::collections::BTreeSet;

use fluxgate_dataplane::influxql::ast::{Expr, Name, Show, ShowKind, Source};
use fluxgate_dataplane::placement::Place;

use super::order::widened;
use crate::query::errors::{missing_database, missing_policy};
use crate::query::select::now::replace_now;

/// The statement for every backend, before its sources are restricted: with one `now()` for all, and with a limit of
/// offset + limit where rows of several backends may mix.
///
/// # Errors
/// Why it cannot be merged, and what to use instead.
pub fn sent(show: &Show, now_ns: i64) -> Result<Show, String> {
    let mut sent = show.clone();
    if let Some(condition) = &mut sent.condition {
        replace_now(condition, now_ns);
    }
    match show.what {
        ShowKind::Measurements | ShowKind::Series | ShowKind::TagKeys | ShowKind::TagValues => widen(&mut sent),
        ShowKind::FieldKeys => {
            // A single server gives them in an order that depends on its shards.
            if show.order.as_ref().is_some_and(|order| order.descending) {
                return Err(
                    "SHOW FIELD KEYS ... ORDER BY time DESC has no defined order over several backends: leave \
                    ORDER BY out"
                        .into(),
                );
            }
            widen(&mut sent);
        }
        ShowKind::SeriesCardinality { .. }
        | ShowKind::MeasurementCardinality { .. }
        | ShowKind::TagKeyCardinality { .. }
        | ShowKind::TagValuesCardinality { .. }
        | ShowKind::FieldKeyCardinality { .. } => {
            let by_time = |dimension: &Expr| matches!(dimension, Expr::Call { .. });
            if show.dimensions.iter().any(by_time) {
                return Err("a CARDINALITY ... GROUP BY time() cannot be merged over several backends, since their \
                    clocks differ: group by tags only"
                    .into());
            }
            // With GROUP BY InfluxDB counts exactly. EXACT keeps that when no tag is left to group by.
            if !show.dimensions.is_empty() {
                sent.what = exact(show.what);
            }
        }
    }
    Ok(sent)
}

/// Whether GROUP BY names its tags by `*` or a regular expression.
pub fn has_open_dimensions(show: &Show) -> bool {
    show.dimensions.iter().any(|dimension| matches!(dimension, Expr::Wildcard(_) | Expr::Regex(_)))
}

/// `show` without its filters: the tags of `*` do not depend on them.
pub fn without_filters(show: &Show) -> Show {
    Show { condition: None, limit: None, offset: None, slimit: None, soffset: None, ..show.clone() }
}

/// `show` over those of its sources that are in `share`.
pub fn restrict(show: &Show, default_db: &str, share: &BTreeSet<Place>) -> Show {
    let kept = |source: &&Source| match source {
        Source::Measurement(m) => match &m.name {
            Name::Text(name) => share.contains(&Place::new(db_of(show, source, default_db), name).owned()),
            Name::Regex(_) | Name::Same => true,
        },
        Source::Subquery(_) => true,
    };
    Show { sources: show.sources.iter().filter(kept).cloned().collect(), ..show.clone() }
}

/// Whether the answer to `part` of `show` depends on the database or policy that `error` says is missing.
pub fn names(show: &Show, part: &Show, default_db: &str, error: &str) -> bool {
    let in_policy = |source: &Source, policy| match source {
        Source::Measurement(m) => m.rp.as_deref() == policy,
        Source::Subquery(_) => false,
    };
    match (missing_database(error), missing_policy(error)) {
        (Some(db), _) if part.sources.is_empty() => part.db.as_deref().unwrap_or(default_db) == db,
        (Some(db), _) => part.sources.iter().any(|source| db_of(part, source, default_db) == db),
        // A policy that no source names comes from the request, or is the default.
        (_, Some(policy)) => {
            let written = Some(policy).filter(|_| show.sources.iter().any(|source| in_policy(source, Some(policy))));
            part.sources.is_empty() || part.sources.iter().any(|source| in_policy(source, written))
        }
        _ => false,
    }
}

/// `part` without the sources whose database or policy is missing according to `error`: a server refuses all sources
/// because of one. None when nothing else is left, or no source names it.
pub fn without_missing(part: &Show, default_db: &str, error: &str) -> Option<Show> {
    let missing = |source: &Source| match (missing_database(error), missing_policy(error), source) {
        (Some(db), _, _) => db_of(part, source, default_db) == db,
        (_, Some(policy), Source::Measurement(m)) => m.rp.as_deref() == Some(policy),
        _ => false,
    };
    let sources: Vec<_> = part.sources.iter().filter(|source| !missing(source)).cloned().collect();
    (!sources.is_empty() && sources.len() < part.sources.len()).then(|| Show { sources, ..part.clone() })
}

/// The database in which a source is looked up.
fn db_of<'a>(show: &'a Show, source: &'a Source, default_db: &'a str) -> &'a str {
    let on = show.db.as_deref().unwrap_or(default_db);
    let own_db_counts = !matches!(show.what, ShowKind::TagKeys | ShowKind::TagValues);
    match source {
        Source::Measurement(m) if own_db_counts => m.db.as_deref().unwrap_or(on),
        _ => on,
    }
}

fn widen(show: &mut Show) {
    show.limit = widened(show.limit, show.offset);
    show.offset = None;
}

fn exact(what: ShowKind) -> ShowKind {
    match what {
        ShowKind::SeriesCardinality { .. } => ShowKind::SeriesCardinality { exact: true },
        ShowKind::MeasurementCardinality { .. } => ShowKind::MeasurementCardinality { exact: true },
        other => other,
    }
}

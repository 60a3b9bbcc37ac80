//! The part of a SELECT that each backend is asked.

use fluxgate_dataplane::influxql::ast::{Measurement, Name, Select, Source};
use fluxgate_dataplane::influxql::visit;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::choose::Shares;
use fluxgate_dataplane::routing::reach::{Reach, leaves};
use fluxgate_dataplane::topology::BackendId;

use crate::query::context::{Context, Stop};

/// A measurement name that is never written.
pub const ABSENT_MEASUREMENT: &str = "\u{1}nobody's";

/// The chosen backends, the same for both rounds of questions.
pub struct ChosenShares {
    shares: Shares,
}

impl ChosenShares {
    /// # Errors
    /// When no backend is left for some part.
    pub fn of(context: &Context<'_>, reach: &Reach) -> Result<Self, Stop> {
        Ok(Self { shares: context.shares(reach)? })
    }

    pub fn backends(&self) -> impl Iterator<Item = BackendId> {
        self.shares.backends.keys().copied()
    }

    /// Any of the backends.
    pub fn first(&self) -> BackendId {
        self.backends().next().expect("somebody answers")
    }

    /// Whether `backend` is asked about a named measurement. For a regular expression a backend answers with all it
    /// has.
    pub fn keeps(&self, context: &Context<'_>, backend: BackendId, place: Place<&str>) -> bool {
        match &self.shares.backends[&backend] {
            Some(share) => share.contains(&place.owned()),
            None => {
                let circle = context.shared.topology.backend(backend).circle;
                context.placement.reader(circle, place.bytes()) == backend
            }
        }
    }

    /// The backend that is asked about a measurement.
    pub fn owner(&self, context: &Context<'_>, place: Place<&str>) -> Option<BackendId> {
        self.backends().find(|&backend| self.keeps(context, backend, place))
    }

    /// `select` for each backend that has one of its sources. Every part keeps all subqueries, even without data: a
    /// subquery without a column makes some functions read the other sources' values of that column as floats, so that
    /// strings vanish. So all backends must have it.
    pub fn restricted(&self, context: &Context<'_>, select: &Select) -> Vec<(BackendId, Select)> {
        let part = |backend| {
            let keep = |m: &Measurement| match &m.name {
                Name::Text(name) => {
                    let db = m.db.as_deref().unwrap_or(&context.request.db);
                    self.keeps(context, backend, Place::new(db, name))
                }
                Name::Regex(_) | Name::Same => true,
            };
            let known = leaves(select).into_iter().find(|leaf| keep(leaf))?;
            // In an existing database and policy.
            let absent = Measurement { name: Name::Text(ABSENT_MEASUREMENT.to_owned()), ..known.clone() };
            let mut part = select.clone();
            keep_only(&mut part, &keep, &absent);
            Some((backend, part))
        };
        self.backends().filter_map(part).collect()
    }
}

/// Keeps only measurements that `keep` accepts. A FROM that would be empty gets `absent`.
fn keep_only(select: &mut Select, keep: &dyn Fn(&Measurement) -> bool, absent: &Measurement) {
    visit::selects_mut(select, &mut |select| {
        select.sources.retain(|source| match source {
            Source::Measurement(measurement) => keep(measurement),
            Source::Subquery(_) => true,
        });
        if select.sources.is_empty() {
            select.sources.push(Source::Measurement(absent.clone()));
        }
    });
}

#[cfg(test)]
mod tests {
    use fluxgate_dataplane::influxql::ast::Statement;
    use fluxgate_dataplane::influxql::{Params, parse};

    use super::*;

    #[test]
    fn a_share_has_all_subqueries_and_only_its_own_measurements() {
        let text = "select a from m, n, (select b from n), /r/, (select c from (select d from n, o))";
        let Some(Statement::Select(mut part)) = parse(text, &Params::default()).unwrap().pop() else {
            panic!("{text}")
        };
        let measurement = |name: &str| Measurement { db: None, rp: None, name: Name::Text(name.to_owned()) };
        keep_only(&mut part, &|m| *m != measurement("n"), &measurement("nobody"));
        let wanted = "select a from m, (select b from nobody), /r/, (select c from (select d from o))";
        assert_eq!(part.to_string(), parse(wanted, &Params::default()).unwrap()[0].to_string());
    }
}

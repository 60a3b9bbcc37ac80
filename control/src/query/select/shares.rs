//! Which part of a SELECT each backend is asked.

use fluxgate_dataplane::influxql::ast::{Measurement, Name, Select, Source};
use fluxgate_dataplane::influxql::visit;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::routing::choose::Shares;
use fluxgate_dataplane::routing::reach::{Reach, leaves};
use fluxgate_dataplane::topology::BackendId;

use crate::query::context::{Context, Stop};

/// No measurement of this name is written.
pub const NOBODYS: &str = "\u{1}nobody's";

/// One choice of backends, for both rounds of questions.
pub struct ChosenShares {
    shares: Shares,
}

impl ChosenShares {
    /// # Errors
    /// When nobody can answer for some part.
    pub fn of(context: &Context<'_>, reach: &Reach) -> Result<Self, Stop> {
        Ok(Self { shares: context.shares(reach)? })
    }

    pub fn backends(&self) -> impl Iterator<Item = BackendId> {
        self.shares.backends.keys().copied()
    }

    /// Any one of them.
    pub fn first(&self) -> BackendId {
        self.backends().next().expect("somebody answers")
    }

    /// Whether `backend` is the one asked about a measurement that is named. What a regular expression matches, it
    /// answers all it has of.
    pub fn keeps(&self, context: &Context<'_>, backend: BackendId, place: Place<&str>) -> bool {
        match &self.shares.backends[&backend] {
            Some(share) => share.contains(&place.owned()),
            None => {
                let circle = context.shared.topology.backend(backend).circle;
                context.placement.reader(circle, place.bytes()) == backend
            }
        }
    }

    /// Which of them is asked about a measurement.
    pub fn owner(&self, context: &Context<'_>, place: Place<&str>) -> Option<BackendId> {
        self.backends().find(|&backend| self.keeps(context, backend, place))
    }

    /// `select` for each that has a source in it. Subqueries stay though nothing they read is there: a subquery without
    /// a column turns what other sources have of it into a float for some functions, so that strings vanish, and so it
    /// is to be everywhere.
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
            // Of a database and a policy that are there.
            let nobodys = Measurement { name: Name::Text(NOBODYS.to_owned()), ..known.clone() };
            let mut part = select.clone();
            keep_only(&mut part, &keep, &nobodys);
            Some((backend, part))
        };
        self.backends().filter_map(part).collect()
    }
}

/// Leaves only such measurements in `select` that `keep` admits, and `nobodys` where there would be none.
fn keep_only(select: &mut Select, keep: &dyn Fn(&Measurement) -> bool, nobodys: &Measurement) {
    visit::selects_mut(select, &mut |select| {
        select.sources.retain(|source| match source {
            Source::Measurement(measurement) => keep(measurement),
            Source::Subquery(_) => true,
        });
        if select.sources.is_empty() {
            select.sources.push(Source::Measurement(nobodys.clone()));
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

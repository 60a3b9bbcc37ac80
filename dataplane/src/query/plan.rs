//! What is known of a query from its text: whether it is allowed, what it reads, and which backends can answer it
//! alone. Not here: which of them does (`fresh`, `routing::choose`).
//!
//! Statements may be nested too deep for the stack of a worker. They are looked at on a larger one, and only what is
//! here comes back.

use std::collections::BTreeSet;

use super::fresh;
use super::request::Query;
use crate::deep;
use crate::influxql::{Depth, Unparsed, parse_request};
use crate::placement::Placement;
use crate::routing::access::{self, Refusal};
use crate::routing::reach::{self, Class, Reach, class};
use crate::routing::route::{Route, route};
use crate::settings::Settings;
use crate::topology::BackendId;

/// What the worker decides by.
pub struct Plan {
    /// Backends that can answer alone; empty = the control thread answers.
    pub alone: BTreeSet<BackendId>,
    /// The databases whose points it reads.
    pub dbs: BTreeSet<String>,
    /// Where the points lie that several backends would read together; empty = there are none, or they cannot.
    pub together: Vec<Reach>,
    /// All that several backends would read together; empty = it does more than read, or they cannot.
    pub reads: Vec<Reach>,
}

/// Why there is no plan.
pub enum NoPlan {
    Unparsed(Unparsed),
    Refused(Refusal),
}

impl Plan {
    /// Blocks for as long as the text is long.
    ///
    /// # Errors
    /// The text is no query, or one that may not or cannot be answered.
    pub fn new(query: &Query, settings: &Settings, placement: &Placement) -> Result<Self, NoPlan> {
        let within = |depth| Self::within(depth, query, settings, placement);
        let deep = || match within(Depth::SEVERAL) {
            Err(NoPlan::Unparsed(Unparsed { too_deep: true, .. })) => {
                let plan = within(Depth::DEEP)?;
                // Too deep for several backends.
                Ok(Self { together: Vec::new(), reads: Vec::new(), ..plan })
            }
            plan => plan,
        };
        match within(Depth::USUAL) {
            Err(NoPlan::Unparsed(Unparsed { too_deep: true, .. })) => {
                let no_thread = |error| Refusal::new(503, format!("cannot start a thread: {error}"));
                deep::on_deep_stack(deep).map_err(|error| NoPlan::Refused(no_thread(error)))?
            }
            plan => plan,
        }
    }

    fn within(depth: Depth, query: &Query, settings: &Settings, placement: &Placement) -> Result<Self, NoPlan> {
        let statements = parse_request(depth, &query.q, &query.params).map_err(NoPlan::Unparsed)?;
        let db = &query.db[..];
        access::check(&statements, db, |db| settings.db_allowed(db.as_bytes())).map_err(NoPlan::Refused)?;
        let alone = match route(&statements, db, &settings.topology, placement) {
            Route::Alone(candidates) => candidates,
            Route::Control => BTreeSet::new(),
        };
        let read = |statement| match class(statement, db) {
            Class::Read(reach) => Some(reach),
            _ => None,
        };
        Ok(Self {
            alone,
            dbs: fresh::databases(&statements, db).into_iter().map(str::to_owned).collect(),
            together: statements.iter().filter_map(|statement| reach::of_points(statement, db)).collect(),
            reads: statements.iter().map(read).collect::<Option<_>>().unwrap_or_default(),
        })
    }
}

//! [`World`] with real backends, the couriers' counters and the transitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use fluxgate_dataplane::influxql::print;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, BackendId};

use super::copy::{self, Writes, copy};
use super::delete::{self, NotCleared};
use super::plan::Task;
use super::side::CopySide;
use super::steering::Steering;
use super::world::{CopyContext, World};
use crate::influx::catalog;
use crate::influx::client::{CallFailure, Client};
use crate::limits;
use crate::transition::Transitions;

/// The world outside of tests.
#[derive(Debug)]
pub struct LiveWorld {
    pub stats: Arc<Stats>,
    pub transitions: Transitions,
    pub trust: Trust,
    /// Timeout of a query.
    pub query_timeout: Duration,
}

impl LiveWorld {
    fn side(&self, backend: &Backend) -> CopySide {
        CopySide::new(backend, self.client(backend))
    }

    fn client(&self, backend: &Backend) -> Client {
        let client = Client::new(backend, &self.trust);
        // Backends that have left are numbered after those of the circles.
        if backend.id.index() < self.stats.reads.len() { client } else { client.without_texts() }
    }

    /// Whether a backend gets new points of a measurement: as the owner in its circle, or as the former owner.
    fn is_written_to(&self, backend: &Backend, place: &Place) -> bool {
        let placement = self.transitions.placement();
        // A backend that has left the configuration has a number that no owner has.
        placement.owner(backend.circle, place.bytes()) == backend.id
            || placement.former(backend.circle, place.bytes()) == Some(backend.id)
    }
}

impl World for LiveWorld {
    fn inventory(&self, at: &Backend, steering: &Steering) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
        let client = self.client(at);
        let _interrupts = steering.interrupts([client.agent()]);
        measurements(&client).map_err(|failure| failure.to_string())
    }

    fn copy(&self, task: &Task, from: &Backend, to: &Backend, context: &CopyContext<'_>) -> Result<(), String> {
        let task = copy::CopyTask {
            place: task.place.clone(),
            since_ns: context.since_ns,
            done: context.done.clone(),
            retry_for: limits::RETRY_FOR,
        };
        let delivered = || (context.delivered)(from, to);
        let writes = if self.is_written_to(from, &task.place) { Writes::ToBoth(&delivered) } else { Writes::ToTarget };
        let (source, target) = (self.side(from), self.side(to));
        let copied = copy(&task, &source, &target, writes, context.steering, context.progress, &mut |slice| {
            (context.note)(slice);
        });
        copied.map(drop).map_err(|error| error.to_string())
    }

    fn delete(&self, task: &Task, at: &Backend, right: &Backend, context: &CopyContext<'_>) -> Result<(), String> {
        let (at, right) = (self.side(at), self.side(right));
        let mut attempt = 1;
        loop {
            match delete::clear(&task.place, &at, &right, limits::RETRY_FOR, context.steering, context.progress) {
                // Points accepted before the end of a transition may still arrive.
                Err(NotCleared::Changing)
                    if attempt < limits::CLEAR_ATTEMPTS && context.steering.sleep(limits::CLEAR_PAUSE) =>
                {
                    attempt += 1;
                }
                cleared => return cleared.map(drop).map_err(|kept| kept.to_string()),
            }
        }
    }

    fn is_removing(&self) -> bool {
        self.stats.removing.load(SeqCst) > 0
    }

    fn is_behind(&self, backend: BackendId, ms: u64) -> bool {
        self.stats.couriers[backend.index()].oldest_ms.load(Relaxed) <= ms
    }

    fn queued_points(&self, backend: BackendId) -> u64 {
        self.stats.queued_points(backend.index())
    }

    fn former_read_until(&self, circle: usize) -> Option<Instant> {
        self.transitions.former_read_until(circle, self.query_timeout)
    }

    fn is_moving(&self, circle: usize, place: &Place) -> bool {
        self.transitions.is_moving(circle, place.as_str())
    }

    fn mark_moved(&self, circle: usize, places: &[Place]) -> Result<(), String> {
        self.transitions.mark_moved(circle, places)
    }

    fn end(&self, circle: usize, has_others: bool) -> Result<(), String> {
        self.transitions.end(circle, has_others)
    }
}

/// All measurements of a backend, by database. Unlike the counts of `/health`, all or none.
fn measurements(client: &Client) -> Result<BTreeMap<String, BTreeSet<String>>, CallFailure> {
    let mut databases = BTreeMap::new();
    for db in catalog::names(client)?.into_iter().filter(|db| db != catalog::INTERNAL) {
        let statement = format!("SHOW MEASUREMENTS ON {}", print::name(&db));
        let answer = client.statement_in("", &statement, limits::LOAD_TIMEOUT)?;
        let names = answer.series.iter().flat_map(|series| series.strings(0)).collect();
        databases.insert(db, names);
    }
    Ok(databases)
}

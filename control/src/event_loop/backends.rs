//! What the event loop does about backends: results of probes and couriers, catalogs, counts of measurements,
//! creations.
//!
//! Not here: the calls themselves (`influx`, `create`), when the catalog is refreshed (`refresh`).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use fluxgate_dataplane::handoff::{Created, ToWorker};
use fluxgate_dataplane::http::version::InfluxVersion;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, BackendId};

use super::EventLoop;
use crate::event_loop::create::{self, Other};
use crate::event_loop::probe::{Probe, Watch};
use crate::event_loop::report::{Asker, CreateKey, Report};
use crate::influx::catalog::{self, Databases, Load};
use crate::influx::client::{CallFailure, Client};
use crate::limits;

/// What is known of one backend, apart from what endpoints read.
#[derive(Debug)]
pub(super) struct KnownBackend {
    client: Client,
    probe: Probe,
    pub(super) addr: Option<SocketAddr>,
    pub(super) probed: Watch,
    /// As its last good answer to a probe told.
    version: Option<InfluxVersion>,
    /// By the results of its courier.
    writes: Watch,
    /// A job is counting measurements.
    counting: bool,
    counted_at: Option<Instant>,
}

impl KnownBackend {
    /// # Errors
    /// No thread for its probe.
    pub(super) fn start(
        backend: &Backend,
        trust: &Trust,
        check_interval: Duration,
        reports: &Sender<Report>,
    ) -> io::Result<Self> {
        let (client, now) = (Client::new(backend, trust), Instant::now());
        Ok(Self {
            probe: Probe::start(backend.id, client.clone(), check_interval, reports.clone())?,
            client,
            addr: None,
            probed: Watch::new(None, now),
            version: None,
            writes: Watch::new(Some(true), now),
            counting: false,
            counted_at: None,
        })
    }
}

impl EventLoop {
    pub(super) fn found(&mut self, backend: BackendId, addr: SocketAddr) {
        log::debug!("backend {}: {addr}", self.name(backend));
        self.backends[backend.index()].addr = Some(addr);
        self.broadcast(|| ToWorker::Address { backend, addr });
    }

    pub(super) fn probed(&mut self, backend: BackendId, result: &Result<Option<InfluxVersion>, String>) {
        let index = backend.index();
        let up = result.is_ok();
        if let Ok(version) = result {
            self.backends[index].version = *version;
        }
        let before = self.state.probed_up[index].replace(up);
        self.state.stats.reads[index].down.store(!up, Relaxed);
        let change = self.backends[index].probed.note(up, Instant::now());
        let up_now = self.backends.iter().filter(|backend| backend.probed.up() == Some(true));
        // With none up it stays what it was.
        if let Some(lowest) = up_now.filter_map(|backend| backend.version).min() {
            self.state.stats.influxdb_version.store(lowest.pack(), Relaxed);
        }
        let Some(lasted) = change else {
            // A courier whose writes fail may try again at once.
            if up && !self.state.stats.couriers[index].up.load(Relaxed) {
                self.broadcast(|| ToWorker::Probed { backend, up });
            }
            return;
        };
        let name = self.name(backend);
        match (result, before) {
            (Ok(_), None) => log::info!("backend {name}: up"),
            (Ok(_), Some(_)) => log::info!("backend {name}: up again after {lasted:.1?}"),
            (Err(why), None) => log::warn!("backend {name}: down: {why}"),
            (Err(why), Some(_)) => log::warn!("backend {name}: down after {lasted:.1?}: {why}"),
        }
        self.broadcast(|| ToWorker::Probed { backend, up });
        if up {
            // It may have come back with other databases.
            self.backends[index].counted_at = None;
            self.refresh.hurry(Instant::now());
        }
    }

    /// A courier found that writes fail, or succeed again.
    pub(super) fn written(&mut self, backend: BackendId, up: bool, reason: &str) {
        let known = &mut self.backends[backend.index()];
        known.probe.now();
        if let Some(lasted) = known.writes.note(up, Instant::now()) {
            let name = self.name(backend);
            if up {
                log::info!("backend {name}: writes succeed again after {lasted:.1?}");
            } else {
                log::warn!("backend {name}: writes fail: {reason}");
            }
        }
    }

    /// A query got no answer. The backend may have moved.
    pub(super) fn unanswered(&mut self, backend: BackendId) {
        self.backends[backend.index()].probe.now();
    }

    pub(super) fn list(&mut self, backend: BackendId) {
        let client = self.backends[backend.index()].client.clone();
        self.job(
            move || catalog::databases(&client),
            move |result| Report::Databases { backend, result: result.unwrap_or_else(no_answer) },
        );
    }

    pub(super) fn listed(&mut self, backend: BackendId, result: Result<Databases, CallFailure>) {
        if let Err(failure) = &result {
            log::debug!("backend {}: cannot list databases: {failure}", self.name(backend));
        }
        if let Ok(databases) = &result {
            self.query_shared.list(backend, Some(databases.clone()));
        }
        self.refresh.answered(backend, result.ok());
        if let Some(catalog) = self.refresh.changed() {
            self.broadcast(|| ToWorker::Catalog(Arc::clone(&catalog)));
        }
    }

    pub(super) fn count_where_due(&mut self, now: Instant) {
        for index in 0..self.backends.len() {
            if self.is_count_due(index, now) {
                self.count(index);
            }
        }
    }

    fn is_count_due(&self, index: usize, now: Instant) -> bool {
        let known = &self.backends[index];
        let takes_statements = self.state.topology.backends[index].takes_statements();
        let wanted = self.health_asked.is_some_and(|at| now.duration_since(at) < limits::LOAD_WANTED);
        let due = |at: Instant| wanted && now.duration_since(at) >= limits::LOAD_INTERVAL;
        takes_statements && !known.counting && known.probed.up() == Some(true) && known.counted_at.is_none_or(due)
    }

    fn count(&mut self, index: usize) {
        let (topology, placement) = (Arc::clone(&self.state.topology), Arc::clone(&self.state.placement));
        let backend = topology.backends[index].id;
        let client = self.backends[index].client.clone();
        self.backends[index].counting = true;
        self.job(
            move || catalog::load(&client, &placement, topology.backend(backend)),
            move |result| Report::Load { backend, result: result.unwrap_or_else(no_answer) },
        );
    }

    pub(super) fn counted(&mut self, backend: BackendId, result: Result<BTreeMap<String, Load>, CallFailure>) {
        let known = &mut self.backends[backend.index()];
        known.counting = false;
        known.counted_at = Some(Instant::now());
        match result {
            Ok(load) => self.state.loads[backend.index()] = load,
            Err(failure) => log::debug!("backend {}: cannot count measurements: {failure}", self.name(backend)),
        }
    }

    pub(super) fn create(&mut self, asker: Asker, key: CreateKey) {
        if let Some(askers) = self.creating.get_mut(&key) {
            return askers.push(asker);
        }
        if self.creating.len() >= limits::CREATES_MAX {
            let result = Created::Failed("too many databases and policies are being created".to_owned());
            return self.send(asker.0, ToWorker::Created { ticket: asker.1, result });
        }
        self.creating.insert(key.clone(), vec![asker]);
        let (backend, db, rp) = key.clone();
        let target = self.backends[backend.index()].client.clone();
        let other = |other: &Backend| Other {
            name: other.name.clone(),
            client: self.backends[other.id.index()].client.clone(),
            is_influx: self.refresh.is_influx(other.id),
        };
        let others = self.state.topology.backends.iter().filter(|b| b.id != backend && b.takes_statements());
        let others: Vec<_> = others.map(other).collect();
        self.job(
            move || create::create(&target, &others, &db, &rp),
            move |result| Report::Created { key, result: result.unwrap_or_else(Created::Failed) },
        );
    }

    pub(super) fn created(&mut self, key: &CreateKey, result: &Created) {
        let (backend, db, rp) = key;
        match result {
            Created::Done => self.refresh.hurry(Instant::now()),
            Created::NowhereElse => {
                log::debug!("backend {}: {db:?}.{rp:?} exists on no other backend", self.name(*backend))
            }
            Created::Failed(why) => log::warn!("backend {}: cannot create {db:?}.{rp:?}: {why}", self.name(*backend)),
        }
        for (worker, ticket) in self.creating.remove(key).unwrap_or_default() {
            self.send(worker, ToWorker::Created { ticket, result: result.clone() });
        }
    }
}

fn no_answer<T>(why: String) -> Result<T, CallFailure> {
    Err(CallFailure::Unreachable(why))
}

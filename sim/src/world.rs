//! What everybody has seen in a run: the writes and what became of them, and when what was broken.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fluxgate_dataplane::placement::{HashKey, Placement, PlacementSettings, RingHash};
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, Topology};

use crate::backend::Server;
use crate::hosts::{Place, backend_addr, database, measurement};
use crate::setup::{DATABASES, MEASUREMENTS, Op, Safety, Setup};
use crate::statement::Statement;

/// What the client knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Acked,
    /// An answer that says that nothing of it was taken.
    Refused,
    Unknown,
}

/// One line of one request; its value is its number in [`World::writes`].
#[derive(Clone, Debug)]
pub struct Write {
    pub place: Place,
    pub float: bool,
    pub begin: Duration,
    /// When its fate was known.
    pub end: Duration,
    pub fate: Fate,
    pub safety: Safety,
}

/// What has been found broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// One of a few names.
    pub kind: &'static str,
    pub text: String,
}

/// A write for which a client asked for all circles.
pub struct Asked {
    pub op: Op,
    /// Its points, by number of the write.
    pub writes: Vec<usize>,
    /// The status of the answer.
    pub answer: Option<u16>,
    pub begin: Duration,
    pub end: Duration,
}

pub struct World {
    pub setup: Setup,
    /// A call to the disk may fail: a log that has failed cannot write any more what was only in memory.
    pub log_may_fail: bool,
    pub placement: Arc<Placement>,
    pub topology: Arc<Topology>,
    pub backends: Vec<Rc<RefCell<Server>>>,
    pub writes: RefCell<Vec<Write>>,
    pub violations: RefCell<Vec<Violation>>,
    /// When the process was killed, and whether power was lost with it.
    pub crashes: RefCell<Vec<(Duration, bool)>>,
    /// When a fault that may delay everything began and ended: of one backend, or of all.
    pub troubles: RefCell<Vec<Trouble>>,
    /// Requests that asked for all circles, what came of them, from when to when.
    pub alls: RefCell<Vec<Asked>>,
    /// Databases that somebody dropped, by (backend, database).
    pub drops: RefCell<BTreeSet<(usize, usize)>>,
    /// Names mean nothing until then.
    pub no_names_until: Cell<Duration>,
    /// Backends that have lost everything.
    pub emptied: RefCell<BTreeSet<usize>>,
    /// Answers of [`World::owners`], by database and measurement.
    owners: Vec<OnceCell<Vec<usize>>>,
    /// Statements sent to the proxy that remove data.
    pub statements: RefCell<Vec<Statement>>,
}

/// A time in which deliveries may wait.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub backend: Option<usize>,
    pub db: Option<usize>,
    pub from: Duration,
    pub until: Duration,
}

impl World {
    pub fn new(setup: Setup, log_may_fail: bool) -> Rc<Self> {
        let (topology, placement) = layout(&setup);
        let backends = (0..setup.backends()).map(|number| Rc::new(RefCell::new(Server::new(number)))).collect();
        Rc::new(Self {
            setup,
            log_may_fail,
            placement,
            topology,
            backends,
            writes: RefCell::default(),
            violations: RefCell::default(),
            crashes: RefCell::default(),
            troubles: RefCell::default(),
            alls: RefCell::default(),
            drops: RefCell::default(),
            no_names_until: Cell::default(),
            emptied: RefCell::default(),
            owners: vec![OnceCell::new(); DATABASES * MEASUREMENTS],
            statements: RefCell::default(),
        })
    }

    pub fn broken(&self, kind: &'static str, text: String) {
        self.violations.borrow_mut().push(Violation { kind, text });
    }

    pub fn trouble(&self, backend: Option<usize>, db: Option<usize>, from: Duration, until: Duration) {
        self.troubles.borrow_mut().push(Trouble { backend, db, from, until });
    }

    /// The backends a place belongs on, one per circle.
    pub fn owners(&self, place: Place) -> &[usize] {
        self.owners[place.db * MEASUREMENTS + place.measurement].get_or_init(|| {
            let (db, measurement) = (database(place.db), measurement(place.measurement));
            let named = fluxgate_dataplane::placement::Place { db: db.as_bytes(), measurement: measurement.as_bytes() };
            (0..self.setup.circles).map(|circle| self.placement.owner(circle, named).index()).collect()
        })
    }
}

/// Certificates are read once.
pub fn trust() -> Trust {
    static TRUST: OnceLock<Trust> = OnceLock::new();
    TRUST.get_or_init(Trust::default).clone()
}

pub fn placement_settings() -> PlacementSettings {
    PlacementSettings { hash_key: HashKey::Idx, vnode_size: 16, shard_key: "%db,%mm".into(), hash: RingHash::Crc32 }
}

fn layout(setup: &Setup) -> (Arc<Topology>, Arc<Placement>) {
    let mut topology = Topology::default();
    for circle in 0..setup.circles {
        let first = circle * setup.backends_per_circle;
        let backend = |number| Backend::new(format!("b{number}"), format!("http://{}", backend_addr(number)));
        topology.add_circle(format!("c{circle}"), (first..first + setup.backends_per_circle).map(backend));
    }
    let placement = Placement::new(&topology, &placement_settings());
    (Arc::new(topology), Arc::new(placement))
}

/// By (database, backend).
pub type Counts = BTreeMap<(usize, usize), u64>;

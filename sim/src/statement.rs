//! A statement that removes data, as the control thread carries it out (`control/src/query/structure.rs`), and what
//! must hold of it: what was acknowledged before it began is gone, what was written after its end is not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use fluxgate_machine::{exec, net};
use futures_lite::FutureExt;

use crate::hosts::{self, Place};
use crate::proxy::{self, Life};
use crate::world::{Fate, World, Write};

/// `query_timeout`. Half of it is for waiting until earlier points are delivered.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a statement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Every backend has done it.
    Done,
    /// Refused before anything was changed.
    Unchanged,
    /// Some may have done it, and some not.
    Unknown,
}

/// A statement that was sent to the proxy.
#[derive(Clone, Debug)]
pub struct Statement {
    pub db: usize,
    /// None: DROP DATABASE.
    pub measurement: Option<usize>,
    pub begin: Duration,
    /// When its answer came.
    pub end: Duration,
    pub came: Came,
}

impl Statement {
    fn concerns(&self, place: Place) -> bool {
        self.db == place.db && self.measurement.is_none_or(|measurement| measurement == place.measurement)
    }
}

/// Notes how a statement ended, also when the process ends first: then nobody knows.
struct Noted {
    world: Rc<World>,
    number: usize,
    came: Cell<Came>,
    delays: Duration,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let statement = {
            let statement = &mut self.world.statements.borrow_mut()[self.number];
            statement.came = self.came.get();
            if statement.came != Came::Unknown {
                statement.end = exec::now();
            }
            statement.clone()
        };
        exec::trace(|| format!("{statement:?}"));
        self.world.trouble(None, None, statement.begin, exec::now() + self.delays);
        if statement.came == Came::Unknown {
            (0..self.world.setup.backends()).for_each(|backend| self.world.dropped(backend, statement.db));
        }
    }
}

/// A client sends it to the proxy, which does it while it lives. `delays`: for how long deliveries may be late after
/// it.
pub fn begin(world: &Rc<World>, life: &Rc<Life>, db: usize, measurement: Option<usize>, delays: Duration) {
    let number = world.statements.borrow().len();
    let begin = exec::now();
    let statement = Statement { db, measurement, begin, end: Duration::MAX, came: Came::Unknown };
    world.statements.borrow_mut().push(statement);
    let noted = Noted { world: world.clone(), number, came: Cell::new(Came::Unchanged), delays };
    let (world, life) = (world.clone(), life.clone());
    exec::spawn_in(life.control, async move {
        // One after the other.
        while life.changes_structure.replace(true) {
            let life = life.clone();
            exec::when(move || !life.changes_structure.get()).await;
        }
        run(&world, &life, &noted, db, measurement).await;
        life.changes_structure.set(false);
    });
}

async fn run(world: &Rc<World>, life: &Rc<Life>, noted: &Noted, db: usize, measurement: Option<usize>) {
    for backend in 0..world.setup.backends() {
        if !life.is_up(backend) || !proxy::asks(world, backend).await {
            return;
        }
    }
    let ticket = life.next_ticket();
    if life.clone().drain(ticket, hosts::database(db), TIMEOUT / 2).await {
        noted.came.set(Came::Unknown);
        let all: Vec<_> = (0..world.setup.backends()).map(|backend| change(world, backend, db, measurement)).collect();
        let done = Rc::new(Cell::new(0));
        for change in all {
            let done = done.clone();
            exec::spawn_in(life.control, async move {
                let answered = change.await;
                done.set(done.get() + usize::from(answered));
            });
        }
        let (count, backends) = (done.clone(), world.setup.backends());
        exec::when(move || count.get() == backends).or(exec::sleep(TIMEOUT / 2)).await;
        if done.get() == backends {
            noted.came.set(Came::Done);
        }
    }
    life.release(ticket);
    if measurement.is_none() {
        proxy::refresh(world, life).await;
    }
}

/// Sends the statement to a backend, which does it unless its process ends, whatever becomes of who sent it. True: the
/// answer has come.
fn change(
    world: &Rc<World>,
    backend: usize,
    db: usize,
    measurement: Option<usize>,
) -> impl Future<Output = bool> + 'static {
    let server = world.backends[backend].clone();
    async move {
        let is_open = || net::is_open(hosts::PROXY, hosts::backend_host(backend));
        exec::sleep(proxy::round_trip()).await;
        let Some(group) = server.borrow().group.filter(|_| is_open()) else { return false };
        let done = Rc::new(Cell::new(false));
        let (there, tell) = (server.clone(), done.clone());
        exec::spawn_in(group, async move {
            exec::sleep(proxy::round_trip()).await;
            let influx = &mut there.borrow_mut().influx;
            match measurement {
                Some(measurement) => influx.drop_measurement(db, measurement),
                None => influx.drop_database(db),
            }
            tell.set(true);
        });
        exec::when(move || done.get()).await;
        is_open()
    }
}

/// Per statement and point: no value that was acknowledged before it began stands after it, and it has taken none that
/// was written after its end.
pub fn check(world: &World, writes: &[Write], is_safe: impl Fn(&Write) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    let statements = world.statements.borrow();
    if statements.is_empty() {
        return broken;
    }
    for (number, write) in writes.iter().enumerate().filter(|(_, write)| write.fate == Fate::Acked) {
        let mut concerned = statements.iter().filter(|statement| statement.concerns(write.place)).peekable();
        if concerned.peek().is_none() {
            continue;
        }
        let after_all = concerned.clone().all(|statement| statement.end < write.begin);
        let before = concerned.find(|statement| statement.came == Came::Done && write.end <= statement.begin);
        for &owner in world.owners(write.place).iter() {
            let influx = &world.backends[owner].borrow().influx;
            let stands = influx.history_of(write.place).is_some_and(|all| all.iter().any(|(_, n)| *n == number));
            if let Some(statement) = before.filter(|_| stands) {
                broken.push(format!("b{owner}: write {number}, acknowledged before, stands after {statement:?}"));
            }
            let was_there = influx.applied.has(number);
            if after_all && was_there && !stands && is_safe(write) && !world.has_dropped(owner, write.place.db) {
                broken.push(format!("b{owner}: write {number} is gone, which was written after {:?}", write.place));
            }
        }
    }
    broken
}

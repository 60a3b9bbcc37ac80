//! Tests of jobs over backends in memory: copies, failures, restarts, pauses, other proxies.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use fluxgate_dataplane::placement::{Place, Placement, PlacementSettings};
use fluxgate_dataplane::settings::Credentials;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, BackendId};

use super::checkpoint::{Saved, read_all};
use super::job::*;
use super::journal::Journal;
use super::order::{Order, Phase, TaskState};
use super::peers::{PeerBacklog, PeerKind, Peers};
use super::plan::{self, Goal, Task};
use super::slices::Slice;
use super::steering::Steering;
use super::world::{CopyContext, World};
use crate::clock::unix_ms;
use crate::limits;

/// Backends in memory, and what jobs have done to them. Clones share their state.
#[derive(Clone, Default)]
pub struct MemoryWorld(Arc<Mutex<MemoryWorldState>>);

#[derive(Default)]
struct MemoryWorldState {
    /// By name of the backend: databases and measurements.
    holds: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    /// Backends that cannot be asked.
    down: BTreeSet<String>,
    /// Measurements that cannot be copied.
    stuck: BTreeSet<String>,
    /// Measurements whose copy waits until this is set.
    gate: Option<Arc<AtomicBool>>,
    /// A copy waits until its source has all points.
    has_barrier: bool,
    copies: Vec<(String, String, String)>,
    deletes: Vec<(String, String)>,
    moving: bool,
    removing: bool,
    former_read_until: Option<Instant>,
    behind: u64,
    moved: BTreeSet<Place>,
    ended: Vec<usize>,
    at_a_time: usize,
    at_a_time_max: usize,
}

impl MemoryWorld {
    fn state(&self) -> MutexGuard<'_, MemoryWorldState> {
        lock(&self.0)
    }

    fn put(&self, backend: &str, db: &str, measurement: &str) {
        let mut state = self.state();
        let dbs = state.holds.entry(backend.to_owned()).or_default();
        dbs.entry(db.to_owned()).or_default().insert(measurement.to_owned());
    }
}

impl World for MemoryWorld {
    fn inventory(&self, at: &Backend, _steering: &Steering) -> Result<BTreeMap<String, BTreeSet<String>>, String> {
        let state = self.state();
        if state.down.contains(&at.name) {
            return Err("is down".to_owned());
        }
        Ok(state.holds.get(&at.name).cloned().unwrap_or_default())
    }

    fn copy(&self, task: &Task, from: &Backend, to: &Backend, context: &CopyContext<'_>) -> Result<(), String> {
        let gate = {
            let mut state = self.state();
            state.copies.push((task.place.measurement.clone(), from.name.clone(), to.name.clone()));
            state.at_a_time += 1;
            state.at_a_time_max = state.at_a_time_max.max(state.at_a_time);
            state.gate.clone()
        };
        if self.state().has_barrier {
            (context.delivered)(from, to).map_err(|undelivered| format!("{undelivered:?}"))?;
        }
        (context.note)(&Slice { rp: "autogen".into(), begin_ns: 0, end_ns: 1 });
        while gate.as_ref().is_some_and(|gate| !gate.load(Relaxed)) && !context.steering.is_cancelled() {
            thread::sleep(Duration::from_millis(5));
        }
        self.state().at_a_time -= 1;
        if context.steering.is_cancelled() {
            return Err("cancelled".to_owned());
        }
        if self.state().stuck.contains(&task.place.measurement) {
            return Err("is stuck".to_owned());
        }
        self.put(&to.name, &task.place.db, &task.place.measurement);
        Ok(())
    }

    fn delete(&self, task: &Task, at: &Backend, _right: &Backend, _context: &CopyContext<'_>) -> Result<(), String> {
        let mut state = self.state();
        state.holds.get_mut(&at.name).unwrap().get_mut(&task.place.db).unwrap().remove(&task.place.measurement);
        state.deletes.push((task.place.measurement.clone(), at.name.clone()));
        Ok(())
    }

    fn queued_points(&self, _backend: BackendId) -> u64 {
        17
    }

    fn is_behind(&self, _backend: BackendId, _ms: u64) -> bool {
        let mut state = self.state();
        state.behind = state.behind.saturating_sub(1);
        state.behind > 0
    }

    fn former_read_until(&self, _circle: usize) -> Option<Instant> {
        self.state().former_read_until
    }

    fn is_removing(&self) -> bool {
        self.state().removing
    }

    fn is_moving(&self, _circle: usize, _place: &Place) -> bool {
        self.state().moving
    }

    fn mark_moved(&self, _circle: usize, places: &[Place]) -> Result<(), String> {
        self.state().moved.extend(places.iter().cloned());
        Ok(())
    }

    fn end(&self, circle: usize, _has_others: bool) -> Result<(), String> {
        self.state().ended.push(circle);
        Ok(())
    }
}

/// A proxy over backends in memory: circles of two backends each.
pub struct MemoryProxy {
    pub shared: Arc<MigrationShared>,
    pub world: MemoryWorld,
    _dir: tempfile::TempDir,
}

impl MemoryProxy {
    pub fn build() -> Self {
        let world = MemoryWorld::default();
        let topology = Arc::new(plan::tests::topology(&[2, 2]));
        let dir = tempfile::tempdir().unwrap();
        let shared = MigrationShared {
            placement: Placement::new(&topology, &PlacementSettings::default()),
            topology,
            world: Box::new(world.clone()),
            peers: Peers::new(&Credentials::default(), Vec::new(), &Trust::default()),
            journal: Journal::new(&dir.path().join("log")),
            folder: dir.path().join("migrations"),
        };
        Self { shared: Arc::new(shared), world, _dir: dir }
    }

    fn run(&self, order: Order) -> Job {
        let job = Job::new(1, order, &self.shared.rings());
        job.run(&self.shared, false);
        job
    }

    /// The backends of a circle that hold a measurement of `db`.
    fn holders(&self, circle: usize, db: &str, measurement: &str) -> Vec<usize> {
        let state = self.world.state();
        let holds = |id: &&BackendId| {
            let dbs = state.holds.get(&self.shared.topology.backend(**id).name);
            dbs.and_then(|dbs| dbs.get(db)).is_some_and(|names| names.contains(measurement))
        };
        self.shared.topology.circles[circle].backends.iter().filter(holds).map(|id| id.index()).collect()
    }

    fn owner(&self, circle: usize, measurement: &str) -> usize {
        self.shared.placement.owner(circle, Place::new("db", measurement).bytes()).index()
    }

    fn saved(&self) -> Saved {
        read_all(&self.shared.folder).0.remove(0)
    }
}

pub fn order(goal: Goal) -> Order {
    Order { goal, dbs: Vec::new(), cpus: 2, since_ns: None, rate: None, ha_addrs: Vec::new() }
}

const REBALANCE: Goal = Goal::Rebalance { circle: 0, removed: Vec::new() };

fn names() -> impl Iterator<Item = String> {
    (0..20).map(|n| format!("m{n}"))
}

/// All measurements on the first backend of circle 0.
fn crowded() -> MemoryProxy {
    let place = MemoryProxy::build();
    names().for_each(|name| place.world.put("b0-0", "db", &name));
    place
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_rebalance_moves_marks_and_ends_the_transition_and_a_clear_removes_what_is_left() {
    let place = crowded();
    place.world.state().moving = true;
    let job = place.run(order(REBALANCE));
    assert_eq!(job.look().errors, [""; 0]);
    assert_eq!(job.look().phase, Phase::Done);
    for name in names() {
        assert!(place.holders(0, "db", &name).contains(&place.owner(0, &name)), "{name}");
    }
    let away: BTreeSet<_> =
        names().filter(|name| place.owner(0, name) != 0).map(|name| Place::new("db".to_owned(), name)).collect();
    assert!(!away.is_empty());
    assert_eq!(place.world.state().moved, away);
    assert_eq!(place.world.state().ended, [0]);
    assert!(place.world.state().at_a_time_max <= 2);
    assert_eq!(place.saved().phase, Phase::Done);

    // While it is moving, queries may still read it at its former owner.
    let job = place.run(order(Goal::Clear { circle: 0 }));
    assert_eq!(job.look().phase, Phase::Failed);
    assert!(place.world.state().deletes.is_empty());
    place.world.state().moving = false;
    let job = place.run(order(Goal::Clear { circle: 0 }));
    assert_eq!(job.look().phase, Phase::Done);
    for name in names() {
        assert_eq!(place.holders(0, "db", &name), [place.owner(0, &name)]);
    }
}

#[test]
fn a_failed_task_fails_the_job_and_keeps_the_transition_but_other_tasks_run() {
    let place = crowded();
    place.world.state().moving = true;
    let stuck = names().find(|name| place.owner(0, name) != 0).unwrap();
    place.world.state().stuck.insert(stuck.clone());
    let job = place.run(order(REBALANCE));
    let inner = job.look();
    assert_eq!(inner.phase, Phase::Failed);
    assert_eq!(inner.errors.len(), 1);
    assert!(inner.errors[0].contains(&stuck) && inner.errors[0].contains("is stuck"), "{:?}", inner.errors);
    for name in names().filter(|name| *name != stuck) {
        assert!(place.holders(0, "db", &name).contains(&place.owner(0, &name)), "{name}");
    }
    let state = place.world.state();
    assert!(state.ended.is_empty() && !state.moved.iter().any(|place| place.measurement == stuck));
}

#[test]
fn a_backend_that_cannot_be_asked_makes_the_job_failed_and_nothing_is_marked() {
    let place = crowded();
    place.world.state().moving = true;
    place.world.state().down.insert("b0-1".to_owned());
    let job = place.run(order(REBALANCE));
    assert_eq!(job.look().phase, Phase::Failed);
    let state = place.world.state();
    assert!(!state.copies.is_empty() && state.moved.is_empty() && state.ended.is_empty());
}

#[test]
fn a_job_waits_for_points_accepted_before_it() {
    let place = crowded();
    place.world.state().behind = 3;
    let job = place.run(order(REBALANCE));
    assert_eq!((job.look().phase, place.world.state().behind), (Phase::Done, 0));
}

#[test]
fn a_rebalance_of_some_databases_does_not_end_the_transition() {
    let place = crowded();
    let job = place.run(Order { dbs: vec!["db".to_owned()], ..order(REBALANCE) });
    assert_eq!(job.look().phase, Phase::Done);
    assert!(place.world.state().ended.is_empty());
}

#[test]
fn recovery_and_resync_make_all_circles_equal() {
    let place = crowded();
    let job = place.run(order(Goal::Recovery { from: 0, to: 1, urls: Vec::new() }));
    assert_eq!(job.look().phase, Phase::Done);
    for name in names() {
        assert_eq!(place.holders(1, "db", &name), [place.owner(1, &name)]);
    }
    place.world.put("b1-0", "db", "only here");
    let job = place.run(order(Goal::Resync));
    assert_eq!(job.look().phase, Phase::Done);
    assert_eq!(place.holders(0, "db", "only here"), [place.owner(0, "only here")]);
}

#[test]
fn finished_tasks_are_not_repeated_after_a_restart() {
    let place = crowded();
    let gate = Arc::new(AtomicBool::new(false));
    let job = Arc::new(Job::new(
        1,
        Order { cpus: 1, ..order(Goal::Recovery { from: 0, to: 1, urls: vec![] }) },
        &place.shared.rings(),
    ));
    // One copy runs behind the gate; then all others follow.
    place.world.state().gate = None;
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    place.world.state().gate = Some(Arc::clone(&gate));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the first copy", || place.world.state().copies.len() == 1);
    place.world.state().gate = None;
    gate.store(true, Relaxed);
    eventually("the end", || thread.is_finished());
    thread.join().unwrap();
    // The file as after a crash: some tasks are done, others not.
    let mut saved = place.saved();
    assert_eq!((saved.phase, saved.tasks.len()), (Phase::Done, 20));
    saved.phase = Phase::Running;
    saved.ended = None;
    for (n, task) in saved.tasks.iter_mut().enumerate() {
        task.state = [TaskState::Done, TaskState::Running, TaskState::Failed, TaskState::Waiting][n % 4];
    }
    saved.write(&place.shared.folder).unwrap();
    let done: BTreeSet<_> =
        saved.tasks.iter().filter(|t| t.state == TaskState::Done).map(|t| t.key.measurement.clone()).collect();
    place.world.state().copies.clear();

    let resumed = Job::from_saved(place.saved(), &place.shared.rings(), &|_| None);
    resumed.run(&place.shared, true);
    assert_eq!(resumed.look().phase, Phase::Done);
    let copied: BTreeSet<_> = place.world.state().copies.iter().map(|(name, ..)| name.clone()).collect();
    assert_eq!(copied, names().filter(|name| !done.contains(name)).collect());
    assert_eq!(resumed.look().entries.len(), 20);

    // With other rings no finished task counts.
    saved.rings = "others".to_owned();
    place.world.state().copies.clear();
    let other = Job::from_saved(saved, &place.shared.rings(), &|_| None);
    other.run(&place.shared, true);
    assert_eq!(place.world.state().copies.len(), 20);
}

#[test]
fn a_paused_job_waits_and_a_cancelled_one_ends() {
    let place = crowded();
    let job = Arc::new(Job::new(1, order(Goal::Resync), &place.shared.rings()));
    job.steering.pause(true);
    job.save(&place.shared).unwrap();
    assert!(place.saved().paused);
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the plan", || !job.look().entries.is_empty());
    thread::sleep(Duration::from_millis(50));
    assert!(place.world.state().copies.is_empty() && job.is_active());
    place.world.state().gate = Some(Arc::default());
    job.steering.pause(false);
    eventually("a copy", || !place.world.state().copies.is_empty());
    job.steering.cancel();
    thread.join().unwrap();
    assert_eq!(job.look().phase, Phase::Cancelled);
    assert!(place.world.state().copies.len() <= 2);
    assert_eq!(place.saved().phase, Phase::Cancelled);
}

/// Another proxy: answers `GET` with `state` and `POST` with 200, and keeps the requests. The first `fails` requests
/// fail. It says that points wait for `backend`, unless that is negative.
fn peer(state: &'static str, fails: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    holding(state, fails, Arc::new(AtomicI64::new(-1)))
}

fn holding(state: &'static str, fails: usize, backend: Arc<AtomicI64>) -> (String, Arc<Mutex<Vec<String>>>) {
    answering(state, fails, usize::MAX, backend)
}

/// The same, but after so many answers nobody listens any more.
fn answering(
    state: &'static str,
    fails: usize,
    answers: usize,
    backend: Arc<AtomicI64>,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let got = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&got);
    thread::spawn(move || {
        for (n, stream) in listener.incoming().take(answers).enumerate() {
            let mut stream = stream.unwrap();
            let mut buf = vec![0; 4096];
            let read = stream.read(&mut buf).unwrap();
            let text = String::from_utf8_lossy(&buf[..read]).into_owned();
            let target = text.split(' ').take(2).collect::<Vec<_>>().join(" ");
            lock(&keep).push(target.clone());
            let status = if n < fails { "503 No" } else { "200 OK" };
            let body = if target.starts_with("GET") { state } else { "{}" };
            let length = body.len();
            let waiting = match backend.load(Relaxed) {
                ..0 => String::new(),
                backend => format!("{}: {backend}=60000\r\n", crate::migration::peers::WAITING),
            };
            let head = format!("HTTP/1.1 {status}\r\nX-Fluxgate-Version: 1\r\n{waiting}Content-Length: {length}");
            let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
        }
    });
    (addr, got)
}

const IDLE: &str = r#"{"circles":[{"circle_id":0,"is_migrating":false}],"is_resyncing":false}"#;
const BUSY: &str = r#"{"circles":[{"circle_id":0,"is_migrating":true}],"is_resyncing":false}"#;

#[test]
fn other_proxies_are_told_before_and_after_until_they_answer() {
    let place = crowded();
    let (addr, got) = peer(IDLE, 2);
    let job = place.run(Order { ha_addrs: vec![addr], ..order(REBALANCE) });
    assert_eq!(job.look().phase, Phase::Done);
    let want = [
        "GET /migrate/state",
        "GET /migrate/state",
        "GET /migrate/state",
        "POST /migrate/state?circle_id=0&migrating=true",
        "POST /migrate/state?circle_id=0&migrating=false&moved=true",
    ];
    // Reminders in between.
    let mut got = lock(&got).clone();
    got.dedup_by(|next, last| next == last && next.starts_with("POST"));
    assert_eq!(got, want);
    assert_eq!(place.world.state().ended, [0]);
}

#[test]
fn a_job_waits_for_a_removal_that_began_earlier() {
    let place = crowded();
    place.world.state().removing = true;
    let job = Arc::new(Job::new(1, order(REBALANCE), &place.shared.rings()));
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the wait", || job.look().doing == "waiting for a DELETE or DROP that is under way");
    assert!(place.world.state().copies.is_empty());
    place.world.state().removing = false;
    thread.join().unwrap();
    assert!(job.look().phase == Phase::Done && !place.world.state().copies.is_empty());
}

#[test]
fn a_job_waits_for_points_that_another_proxy_holds() {
    let place = crowded();
    let waits_for = Arc::new(AtomicI64::new(0));
    let (addr, _) = holding(IDLE, 0, Arc::clone(&waits_for));
    let order = Order { ha_addrs: vec![addr], ..order(REBALANCE) };
    let job = Arc::new(Job::new(1, order, &place.shared.rings()));
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the wait", || {
        job.look().doing == "waiting until earlier points are delivered to b0-0 (points: 17 for b0-0)"
    });
    thread::sleep(limits::PEER_REMINDER * 2);
    assert!(place.world.state().copies.is_empty());
    // Points for the target wait: reads do not switch over to it.
    place.world.state().moving = true;
    waits_for.store(1, Relaxed);
    let all =
        |job: &Job| !job.look().verified.is_empty() && job.look().entries.iter().all(|e| e.state == TaskState::Done);
    eventually("the copies", || job.is_active() && all(&job));
    thread::sleep(limits::PEER_REMINDER * 2);
    assert!(place.world.state().moved.is_empty() && place.world.state().ended.is_empty());
    waits_for.store(-1, Relaxed);
    thread.join().unwrap();
    assert_eq!((job.look().phase, &place.world.state().ended[..]), (Phase::Done, &[0][..]));
    assert!(!place.world.state().moved.is_empty());
}

#[test]
fn a_proxy_that_never_answers_is_not_waited_for_for_ever() {
    let mut place = crowded();
    Arc::get_mut(&mut place.shared).unwrap().peers.silence_max = Duration::from_millis(500);
    // Nobody listens there any more.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let job = place.run(Order { ha_addrs: vec![addr.clone()], ..order(REBALANCE) });
    assert_eq!(job.look().phase, Phase::Failed);
    assert!(job.look().errors[0].starts_with("other proxies cannot be told of this: "), "{:?}", job.look().errors);
    assert!(place.world.state().copies.is_empty());

    // Nor at the end.
    let job = Job::new(2, order(REBALANCE), &place.shared.rings());
    job.announce_end(&place.shared, &[addr], true);
    assert!(job.look().errors[0].starts_with("other proxies do not know of the end: "), "{:?}", job.look().errors);
}

#[test]
fn a_proxy_that_dies_in_the_middle_ends_the_job() {
    let mut place = crowded();
    Arc::get_mut(&mut place.shared).unwrap().peers.silence_max = Duration::from_millis(500);
    place.world.state().has_barrier = true;
    // It answers the question and the begin.
    let (addr, _) = answering(IDLE, 0, 2, Arc::new(AtomicI64::new(-1)));
    let order = Order { ha_addrs: vec![addr.clone()], ..order(REBALANCE) };
    let job = Arc::new(Job::new(1, order, &place.shared.rings()));
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the end", || !job.is_active());
    thread.join().unwrap();
    let (inner, state) = (job.look(), place.world.state());
    assert_eq!(inner.phase, Phase::Failed);
    let why = format!("the proxy {addr} has not said for 0 s which points it holds: io: Connection ");
    assert!(inner.errors[0].contains(&why), "{:?}", inner.errors);
    assert!(inner.errors.last().unwrap().starts_with("other proxies do not know of the end: "), "{:?}", inner.errors);
    let in_state = |state| inner.entries.iter().filter(|entry| entry.state == state).count();
    let failed = in_state(TaskState::Failed);
    assert!(failed <= state.copies.len() && state.copies.len() <= 2, "the others are not begun: {:?}", state.copies);
    assert_eq!(in_state(TaskState::Waiting), inner.entries.len() - failed);
    assert_eq!(inner.errors.len(), failed + 2, "one for the rest and one for the end: {:?}", inner.errors);
    assert!(state.moved.is_empty() && state.ended.is_empty());
}

#[test]
fn a_proxy_that_is_gone_is_waited_for_neither_before_the_copies_nor_at_the_end() {
    let place = crowded();
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let job = Arc::new(Job::new(1, order(REBALANCE), &place.shared.rings()));
    let at_ms = unix_ms() - limits::PEER_SILENCE_MAX.as_millis() as u64;
    let heard = PeerBacklog {
        at_ms,
        waiting: HashMap::new(),
        kind: PeerKind::Fluxgate,
        silent: Some("answered 401".to_owned()),
    };
    job.look().peer_backlogs.insert(addr.clone(), heard);
    let (waiting, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || {
        assert!(!waiting.settle(&shared, unix_ms()));
        waiting.announce_end(&shared, &[addr], false);
    });
    eventually("the end", || thread.is_finished());
    thread.join().unwrap();
    let errors = job.look().errors.clone();
    assert!(errors[0].contains(" has not said for 600 s which points it holds: answered 401: run this again when"));
    assert!(errors[1].starts_with("other proxies do not know"), "{errors:?}");
}

#[test]
fn a_proxy_that_migrates_the_circle_stops_a_job() {
    let place = crowded();
    let (addr, got) = peer(BUSY, 0);
    let job = place.run(Order { ha_addrs: vec![addr], ..order(REBALANCE) });
    assert_eq!(job.look().phase, Phase::Failed);
    assert!(job.look().errors[0].ends_with("circle 0 is migrating"));
    assert!(place.world.state().copies.is_empty());
    assert_eq!(*lock(&got), ["GET /migrate/state"], "it is told nothing");
}

#[test]
fn a_transition_does_not_end_while_a_proxy_has_not_been_told() {
    let place = crowded();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let job = Arc::new(Job::new(1, Order { ha_addrs: vec![nobody], ..order(REBALANCE) }, &place.shared.rings()));
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the report", || job.look().doing.starts_with("waiting for other proxies"));
    assert!(job.is_active() && place.world.state().ended.is_empty());
    job.steering.cancel();
    thread.join().unwrap();
    assert_eq!(job.look().phase, Phase::Cancelled);
    let state = place.world.state();
    assert!(state.copies.is_empty() && state.ended.is_empty());
}

#[test]
fn a_proxy_that_may_have_been_told_before_a_restart_is_told_of_the_end() {
    let place = crowded();
    let (addr, got) = peer(IDLE, 1);
    let job = Job::new(1, Order { ha_addrs: vec![addr], ..order(REBALANCE) }, &place.shared.rings());
    job.steering.cancel();
    job.run(&place.shared, true);
    assert_eq!(job.look().phase, Phase::Cancelled);
    assert_eq!(*lock(&got), ["GET /migrate/state", "POST /migrate/state?circle_id=0&migrating=false"]);
}

#[test]
fn nothing_is_removed_while_queries_may_still_read_it() {
    let place = crowded();
    assert_eq!(place.run(order(REBALANCE)).look().phase, Phase::Done);
    let until = Instant::now() + Duration::from_secs(1);
    place.world.state().former_read_until = Some(until);
    let job = Arc::new(Job::new(2, order(Goal::Clear { circle: 0 }), &place.shared.rings()));
    let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
    let thread = thread::spawn(move || running.run(&shared, false));
    eventually("the report", || job.look().doing.contains("query_timeout"));
    assert!(place.world.state().deletes.is_empty());
    thread.join().unwrap();
    assert!(Instant::now() >= until && !place.world.state().deletes.is_empty());
    assert_eq!(job.look().phase, Phase::Done);

    // A cancel ends the wait, and so does the end of the last query.
    for is_cancelled in [true, false] {
        let place = crowded();
        assert_eq!(place.run(order(REBALANCE)).look().phase, Phase::Done);
        place.world.state().former_read_until = Some(Instant::now() + Duration::from_secs(600));
        let job = Arc::new(Job::new(2, order(Goal::Clear { circle: 0 }), &place.shared.rings()));
        let (running, shared) = (Arc::clone(&job), Arc::clone(&place.shared));
        let thread = thread::spawn(move || running.run(&shared, false));
        eventually("the report", || job.look().doing.contains("query_timeout"));
        match is_cancelled {
            true => job.steering.cancel(),
            false => place.world.state().former_read_until = None,
        }
        thread.join().unwrap();
        let phase = if is_cancelled { Phase::Cancelled } else { Phase::Done };
        assert_eq!((job.look().phase, place.world.state().deletes.is_empty()), (phase, is_cancelled));
    }
}

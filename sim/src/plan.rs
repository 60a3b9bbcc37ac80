//! What happens in one run: who writes what when, and what breaks when. Made from a seed, and cut down again when it
//! has found something. What can break is in `faults.rs`.

use fluxgate_machine::Rng;

pub use crate::backend::Says;
pub use crate::faults::{DiskCall, DiskFile, Event, PlannedFault, Way, event};
pub use crate::setup::{Connection, DATABASES, Full, Level, MEASUREMENTS, Missing, Op, Point, Safety, Setup, op};

/// A whole run. Times are milliseconds since its start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides what the plan leaves open: delays, who goes first.
    pub seed: u64,
    pub profile: Profile,
    pub setup: Setup,
    pub ops: Vec<Op>,
    pub events: Vec<Event>,
}

/// What a plan is made of. `Mixed` has everything; the others have little, each for one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Mixed,
    Calm,
    /// One worker, nothing that makes a write's fate unknown.
    Strict,
    Alias,
    LongOutage,
    FewerWorkers,
    LateApply,
    ClockBack,
    NewConnections,
    Racing,
    Types,
    Poisoned,
    Impostor,
    Broken,
    Forbidden,
    Vanished,
    Descriptors,
    DropOldest,
    FormerKilled,
    Killed,
    FullDisk,
    JustAcked,
    Dropped,
    Emptied,
    Parked,
    DropFails,
}

pub const PROFILES: [Profile; 26] = [
    Profile::Mixed,
    Profile::Calm,
    Profile::Strict,
    Profile::Alias,
    Profile::LongOutage,
    Profile::FewerWorkers,
    Profile::LateApply,
    Profile::ClockBack,
    Profile::NewConnections,
    Profile::Racing,
    Profile::Types,
    Profile::Poisoned,
    Profile::Impostor,
    Profile::Broken,
    Profile::Forbidden,
    Profile::Vanished,
    Profile::Descriptors,
    Profile::DropOldest,
    Profile::FormerKilled,
    Profile::Killed,
    Profile::FullDisk,
    Profile::JustAcked,
    Profile::Dropped,
    Profile::Emptied,
    Profile::Parked,
    Profile::DropFails,
];

/// Milliseconds in which clients write and things break.
const SPAN: u64 = 40_000;

impl Plan {
    /// The plan of a seed.
    pub fn of_seed(seed: u64) -> Self {
        // Three in four have a bit of everything.
        let mut rng = Rng::new(seed ^ 0x51ed_270b);
        let profile = if rng.one_in(4) { *rng.pick(&PROFILES) } else { Profile::Mixed };
        Self::of_profile(seed, profile)
    }

    pub fn of_profile(seed: u64, profile: Profile) -> Self {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let mut plan = Self::quiet(seed, profile);
        plan.setup.safety = *rng.pick(&[Safety::Disk, Safety::Disk, Safety::Os, Safety::Memory]);
        plan.setup.flush_size = *rng.pick(&[10_000, 10_000, 20, 3]);
        match profile {
            Profile::Mixed => {
                plan.setup.workers = *rng.pick(&[1, 2, 2, 2, 3]);
                plan.setup.full = *rng.pick(&[Full::Reject, Full::Reject, Full::DropOldest]);
                plan.setup.missing = *rng.pick(&[Missing::Create, Missing::Create, Missing::Hold]);
                plan.writers(rng, 8, 300, SPAN);
                plan.some_floats(rng, 10);
                for _ in 0..12 {
                    let at = rng.below(SPAN);
                    let fault = PlannedFault::any(rng, plan.setup.backends(), plan.setup.workers);
                    plan.events.push(Event { at, fault });
                }
            }
            Profile::Calm => plan.writers(rng, 8, 300, 10_000),
            Profile::Strict => {
                plan.setup.workers = 1;
                plan.writers(rng, 8, 200, SPAN);
                plan.exclusive();
                plan.without_alias();
                plan.some_floats(rng, 20);
                for _ in 0..8 {
                    let (at, backend) = (rng.below(SPAN), rng.below(4) as usize);
                    let for_ms = 100 + rng.below(20_000);
                    let fault = match rng.below(6) {
                        0 => PlannedFault::BackendSays { backend, for_ms, db: None, what: Says::Unavailable },
                        1 => PlannedFault::DiskSlow { for_ms: for_ms / 4, by_ms: rng.below(300) },
                        2 => PlannedFault::Stalled { worker: 0, for_ms: for_ms / 20 },
                        3 => PlannedFault::ClientsCut { next_after: rng.below(2000), way: Way::From },
                        4 => PlannedFault::Stop { down_ms: 100 + rng.below(3000), workers: 1 },
                        _ => PlannedFault::ShortWrite { worker: 0, skip: rng.below(50) as u32 },
                    };
                    plan.events.push(Event { at, fault });
                }
            }
            Profile::Alias => {
                plan.setup.workers = 1;
                plan.writers(rng, 4, 120, 500);
                plan.on_few_points();
            }
            Profile::LongOutage => {
                plan.writers(rng, 6, 120, 30_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event { at: 1_000, fault: PlannedFault::BackendDown { backend, for_ms: 35_000 } });
            }
            Profile::FewerWorkers => {
                plan.writers(rng, 6, 120, 15_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 12_000 } });
                plan.events.push(Event { at: 8_000, fault: PlannedFault::Stop { down_ms: 500, workers: 1 } });
            }
            Profile::LateApply => {
                plan.setup.workers = 1;
                plan.writers(rng, 4, 80, 30_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event {
                    at: 1_000,
                    fault: PlannedFault::BackendSlow { backend, for_ms: 12_000, by_ms: 25_000 },
                });
            }
            Profile::ClockBack => {
                plan.writers(rng, 6, 120, 15_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 12_000 } });
                plan.events.push(Event { at: 4_000, fault: PlannedFault::Clock { millis: -60_000 } });
            }
            Profile::NewConnections => {
                plan.writers(rng, 1, 100, 1);
                plan.without_alias();
                plan.on_few_points();
                plan.ops.iter_mut().for_each(|op| op.connection = Connection::Fresh);
            }
            Profile::Racing => {
                plan.writers(rng, 8, 160, 500);
                plan.without_alias();
                plan.on_few_points();
            }
            Profile::Types => {
                plan.writers(rng, 6, 80, 2_000);
                plan.without_alias();
                plan.ops.iter_mut().filter(|op| op.client % 2 == 0).for_each(|op| {
                    op.points.iter_mut().for_each(|point| point.float = true);
                });
            }
            Profile::Poisoned => {
                plan.writers(rng, 6, 160, 20_000);
                plan.without_alias();
                let (worker, skip) = (rng.below(2) as usize, rng.below(20) as u32);
                let fault = PlannedFault::DiskFails {
                    call: DiskCall::Write,
                    file: DiskFile::Segment,
                    worker,
                    skip,
                    errno: libc::EIO,
                };
                plan.events.push(Event { at: 2_000, fault });
                plan.events.push(Event { at: 15_000, fault: PlannedFault::Stop { down_ms: 500, workers: 2 } });
            }
            Profile::Impostor | Profile::Broken | Profile::Forbidden => {
                let (what, for_ms) = match profile {
                    Profile::Impostor => (Says::Page, 10_000),
                    Profile::Broken => (Says::Broken, 250_000),
                    _ => (Says::Forbidden, 60_000),
                };
                plan.writers(rng, 4, 80, 15_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                let db = (what != Says::Page).then_some(1);
                plan.events.push(Event { at: 2_000, fault: PlannedFault::BackendSays { backend, for_ms, db, what } });
                plan.late_writes(rng, 100_000, if what == Says::Broken { 40 } else { 10 });
            }
            Profile::Vanished => {
                plan.writers(rng, 4, 100, 30_000);
                plan.without_alias();
                plan.ops.iter_mut().filter(|op| op.db == 0).for_each(|op| op.level = Level::All);
                plan.events.push(Event { at: 3_000, fault: PlannedFault::DatabaseDropped { backend: None, db: 1 } });
            }
            Profile::Descriptors => {
                plan.writers(rng, 8, 400, 20_000);
                let (worker, skip) = (rng.below(2) as usize, 0);
                let fault = PlannedFault::DiskFails {
                    call: DiskCall::Create,
                    file: DiskFile::Any,
                    worker,
                    skip,
                    errno: libc::EMFILE,
                };
                plan.events.push(Event { at: 1_000, fault });
            }
            Profile::DropOldest => {
                plan.setup.full = Full::DropOldest;
                plan.setup.backlog_kib = 512;
                plan.writers(rng, 8, 400, 20_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 30_000 } });
                plan.events.push(Event {
                    at: 10_000 + rng.below(10_000),
                    fault: PlannedFault::Crash { power: rng.one_in(2), down_ms: 500, workers: 2 },
                });
                if rng.one_in(3) {
                    let (call, file) = (*rng.pick(&[DiskCall::Sync, DiskCall::SaveState]), DiskFile::Segment);
                    let (worker, skip) = (rng.below(2) as usize, rng.below(30) as u32);
                    let fault = PlannedFault::DiskFails { call, file, worker, skip, errno: libc::EIO };
                    plan.events.push(Event { at: 1_000 + rng.below(10_000), fault });
                }
            }
            Profile::FormerKilled => {
                plan.setup.workers = 3;
                plan.writers(rng, 8, 200, 10_000);
                plan.without_alias();
                for backend in 0..4 {
                    plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 25_000 } });
                }
                // While the one worker that is left delivers the logs of the others.
                for at in [11_000, 11_101 + rng.below(60)] {
                    let fault = PlannedFault::Crash { power: false, down_ms: 100, workers: 1 };
                    plan.events.push(Event { at, fault });
                }
            }
            Profile::Killed => {
                plan.writers(rng, 6, 200, 15_000);
                plan.without_alias();
                for _ in 0..3 {
                    let workers = *rng.pick(&[1, 2]);
                    let power = !rng.one_in(3);
                    plan.events.push(Event {
                        at: rng.below(15_000),
                        fault: PlannedFault::Crash { power, down_ms: 100 + rng.below(1000), workers },
                    });
                }
            }
            Profile::JustAcked => {
                // What has just been acknowledged is nowhere but in the log.
                plan.writers(rng, 8, 300, 3_000);
                plan.exclusive();
                plan.without_alias();
                plan.ops.iter_mut().filter(|op| op.client % 2 == 0).for_each(|op| op.level = Level::Any);
                for backend in 0..4 {
                    plan.events.push(Event { at: 100, fault: PlannedFault::BackendDown { backend, for_ms: 5_000 } });
                }
                let (worker, skip) = (rng.below(2) as usize, rng.below(20) as u32);
                plan.events.push(Event { at: 150, fault: PlannedFault::ShortWrite { worker, skip } });
                if rng.one_in(3) {
                    let (call, file) = (DiskCall::Write, DiskFile::Segment);
                    let fault = PlannedFault::DiskFails { call, file, worker, skip: 20 + skip, errno: libc::EIO };
                    plan.events.push(Event { at: 160, fault });
                }
                for _ in 0..4 {
                    let (power, workers) = (rng.one_in(2), 2);
                    let fault = PlannedFault::Crash { power, down_ms: 50, workers };
                    plan.events.push(Event { at: 200 + rng.below(2_800), fault });
                }
            }
            Profile::Dropped => {
                plan.setup.workers = *rng.pick(&[1, 2, 3]);
                plan.writers(rng, 8, 300, 20_000);
                plan.without_alias();
                for _ in 0..6 {
                    let (db, measurement) = (rng.below(2) as usize, Some(rng.below(MEASUREMENTS as u64) as usize));
                    let fault = PlannedFault::Drop { db, measurement, again_ms: 0 };
                    plan.events.push(Event { at: rng.below(20_000), fault });
                }
                // A backlog while a statement waits.
                for _ in 0..3 {
                    let (backend, for_ms) = (rng.below(4) as usize, 100 + rng.below(5_000));
                    let fault = match rng.below(3) {
                        0 => PlannedFault::BackendSays { backend, for_ms, db: None, what: Says::Unavailable },
                        1 => PlannedFault::LinkSlow { backend, for_ms, by_ms: 1 + rng.below(1_000) },
                        _ => PlannedFault::Stalled { worker: rng.below(2) as usize, for_ms: for_ms / 10 },
                    };
                    plan.events.push(Event { at: rng.below(20_000), fault });
                }
            }
            Profile::Emptied => {
                // Clients write a wrong type now and then, and a server loses all it had.
                plan.writers(rng, 6, 150, 20_000);
                plan.without_alias();
                for op in plan.ops.iter_mut().filter(|op| op.at > 2_000) {
                    op.points.iter_mut().for_each(|point| point.float = rng.one_in(5));
                }
                let (backend, stops) = (rng.below(4) as usize, rng.one_in(3));
                let for_ms = if stops { 10_000 } else { 1 + *rng.pick(&[20, 10_000]) * rng.below(1_000) / 1_000 };
                plan.events.push(Event { at: 3_000, fault: PlannedFault::BackendEmptied { backend, for_ms } });
                if stops {
                    // Before it is back: what was learned of it since would be forgotten.
                    let fault = PlannedFault::Stop { down_ms: 100, workers: 1 + rng.below(3) as usize };
                    plan.events.push(Event { at: 3_000 + rng.below(5_000), fault });
                }
                for _ in 0..3 {
                    let fault = PlannedFault::Stalled { worker: rng.below(2) as usize, for_ms: 1 + rng.below(300) };
                    plan.events.push(Event { at: 3_000 + rng.below(17_000), fault });
                }
            }
            Profile::Parked => {
                // A backend that answers slowly takes points of one database, and then not, and then again.
                plan.setup.workers = *rng.pick(&[1, 2, 2, 3]);
                plan.writers(rng, 8, 400, 25_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                for _ in 0..4 {
                    let (for_ms, db) = (1_100 + rng.below(4_000), Some(rng.below(2) as usize));
                    let what = *rng.pick(&[Says::Forbidden, Says::Unavailable]);
                    let fault = PlannedFault::BackendSays { backend, for_ms, db, what };
                    plan.events.push(Event { at: rng.below(20_000), fault });
                }
                for _ in 0..4 {
                    let (for_ms, by_ms) = (1_000 + rng.below(5_000), 1 + rng.below(1_500));
                    let fault = match rng.below(3) {
                        0 => PlannedFault::BackendSlow { backend, for_ms, by_ms },
                        1 => PlannedFault::LinkSlow { backend, for_ms, by_ms: by_ms / 3 },
                        _ => PlannedFault::Stalled { worker: rng.below(2) as usize, for_ms: for_ms / 10 },
                    };
                    plan.events.push(Event { at: rng.below(25_000), fault });
                }
                for _ in 0..rng.below(3) {
                    let (at, workers) = (rng.below(25_000), *rng.pick(&[1, 2, 3]));
                    let fault = match rng.below(4) {
                        0 => PlannedFault::Stop { down_ms: 100, workers },
                        1 => PlannedFault::Drop { db: rng.below(2) as usize, measurement: Some(1), again_ms: 0 },
                        _ => PlannedFault::Crash { power: rng.one_in(2), down_ms: 100, workers },
                    };
                    plan.events.push(Event { at, fault });
                }
            }
            Profile::DropFails => {
                // A log fails just when it is to drop its oldest points, which needs what was not synced before.
                plan.setup.full = Full::DropOldest;
                plan.setup.safety = *rng.pick(&[Safety::Os, Safety::Memory]);
                plan.setup.backlog_kib = 512;
                plan.writers(rng, 8, 400, 15_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 9_000 } });
                let (call, file, errno) = (DiskCall::Sync, DiskFile::Segment, libc::EIO);
                for worker in 0..2 {
                    let (at, skip) = (1_000 + rng.below(8_000), rng.below(3) as u32);
                    plan.events.push(Event { at, fault: PlannedFault::DiskFails { call, file, worker, skip, errno } });
                }
                let (power, workers) = (rng.one_in(2), 2);
                // After the backend is back, and others have saved how far it is.
                plan.events.push(Event { at: 14_000, fault: PlannedFault::Crash { power, down_ms: 500, workers } });
            }
            Profile::FullDisk => {
                plan.writers(rng, 6, 150, 20_000);
                plan.without_alias();
                for backend in 0..4 {
                    plan.events.push(Event { at: 1_000, fault: PlannedFault::BackendDown { backend, for_ms: 8_000 } });
                }
                plan.events.push(Event { at: 5_000, fault: PlannedFault::DiskFull { for_ms: 70_000 } });
                let (down_ms, workers) = (500, *rng.pick(&[1, 2]));
                let power = rng.one_in(2);
                plan.events.push(Event { at: 7_000, fault: PlannedFault::Crash { power, down_ms, workers } });
            }
        }
        plan.ops.sort_by_key(|op| op.at);
        plan.events.sort_by_key(|event| event.at);
        plan
    }

    /// Nothing happens.
    pub fn quiet(seed: u64, profile: Profile) -> Self {
        Self { seed, profile, setup: Setup::default(), ops: Vec::new(), events: Vec::new() }
    }

    /// How much there is of it.
    pub fn size(&self) -> usize {
        let extras = |op: &Op| usize::from(op.policy != 0) + usize::from(op.connection == Connection::Fresh);
        self.events.len() + self.ops.iter().map(|op| 1 + op.points.len() + extras(op)).sum::<usize>()
    }

    /// As Rust, for a test.
    pub fn code(&self) -> String {
        let Setup { workers, safety, full, missing, flush_size, backlog_kib, .. } = self.setup;
        let mut out = format!("Plan {{\n    setup: Setup {{ workers: {workers}, safety: Safety::{safety:?}, ");
        out += &format!("full: Full::{full:?}, missing: Missing::{missing:?}, flush_size: {flush_size}, ");
        out += &format!("backlog_kib: {backlog_kib}, ..Setup::default() }},\n    ops: vec![\n");
        for op in &self.ops {
            out += &format!("        {},\n", op.code());
        }
        out += "    ],\n    events: vec![\n";
        for Event { at, fault } in &self.events {
            let text = format!("        event({at}, PlannedFault::{fault:?}),\n").replace("what: ", "what: Says::");
            let text = text.replace("way: ", "way: Way::").replace("call: ", "call: DiskCall::");
            out += &text.replace("file: ", "file: DiskFile::");
        }
        out + &format!("    ],\n    ..Plan::quiet({}, Profile::{:?})\n}}", self.seed, self.profile)
    }

    /// Adds requests of so many clients. Each has points of its own, some of which others write as well.
    fn writers(&mut self, rng: &mut Rng, clients: usize, requests: usize, span: u64) {
        for _ in 0..requests {
            let client = rng.below(clients as u64) as usize;
            let lines = if rng.one_in(4) { 1 + rng.below(8) as usize } else { 1 };
            let points = (0..lines).map(|_| {
                // A few points per client, so that they are written again and again.
                let number = if rng.one_in(5) { rng.below(4) } else { 100 * (1 + client as u64) + rng.below(4) };
                Point { measurement: rng.below(MEASUREMENTS as u64) as usize, number: number as usize, float: false }
            });
            let mut points: Vec<_> = points.collect();
            points.sort();
            points.dedup();
            self.ops.push(Op {
                client,
                at: rng.below(span),
                db: rng.below(DATABASES as u64) as usize,
                policy: rng.below(2) as usize,
                connection: if rng.one_in(2) { Connection::Fresh } else { Connection::Kept },
                level: match rng.below(10) {
                    0 => Level::All,
                    1 => Level::Any,
                    _ => Level::Default,
                },
                long: rng.one_in(12),
                points,
            });
        }
    }

    /// Requests that show whether things go on long after.
    fn late_writes(&mut self, rng: &mut Rng, until: u64, requests: usize) {
        for i in 0..requests {
            let at = 20_000 + (until - 20_000) * i as u64 / requests as u64;
            let point = Point { measurement: rng.below(MEASUREMENTS as u64) as usize, number: 900, float: false };
            self.ops.push(Op {
                client: 9,
                at,
                db: i % DATABASES,
                policy: 0,
                connection: Connection::Fresh,
                level: Level::Default,
                long: false,
                points: vec![point],
            });
        }
    }

    fn without_alias(&mut self) {
        self.ops.iter_mut().for_each(|op| op.policy = 0);
    }

    /// The same points are written all the time.
    fn on_few_points(&mut self) {
        for op in &mut self.ops {
            op.db = 0;
            op.points.truncate(1);
            op.points.iter_mut().for_each(|point| (point.measurement, point.number) = (0, point.number % 4));
        }
    }

    /// One point in `n` has another type than its measurement.
    fn some_floats(&mut self, rng: &mut Rng, n: u64) {
        if rng.one_in(2) {
            self.ops.iter_mut().flat_map(|op| &mut op.points).for_each(|point| point.float = rng.one_in(n));
        }
    }

    /// No point has two writers.
    fn exclusive(&mut self) {
        for op in &mut self.ops {
            for point in &mut op.points {
                if point.number < 100 {
                    point.number += 100 * (1 + op.client);
                }
            }
            op.points.sort();
            op.points.dedup();
        }
    }
}

//! What happens in one run: who writes what when, and what breaks when. Made from a seed, and cut down again when it
//! has found something. A new kind of fault is added here (`PlannedFault`, and where `Profile` draws it) and done in
//! `faults.rs`.

use fluxgate_machine::Rng;

/// A whole run. Times are milliseconds since its start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides what the plan leaves open: delays, who goes first.
    pub seed: u64,
    pub profile: Profile,
    pub workers: usize,
    pub circles: usize,
    pub backends_per_circle: usize,
    pub safety: Safety,
    pub full: Full,
    pub missing: Missing,
    pub flush_size: usize,
    pub backlog_kib: u64,
    pub ops: Vec<Op>,
    pub events: Vec<Event>,
}

/// What a 204 promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    Memory,
    Os,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Reject,
    DropOldest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Create,
    Hold,
}

/// One request of a client. A client's requests follow one another.
#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    /// Not before.
    pub at: u64,
    pub db: usize,
    /// How the policy is named: 0 not at all, 1 by its name.
    pub policy: usize,
    pub connection: Connection,
    pub level: Level,
    /// What it writes.
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Kept,
    /// A new one, which may be another worker's.
    Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Default,
    All,
}

/// A place that a value is written to; the value is the number of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub measurement: usize,
    pub number: usize,
    /// Written as a float, where others write integers.
    pub float: bool,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub at: u64,
    pub fault: PlannedFault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedFault {
    /// The backend's process ends; it starts again after so long, with all it had confirmed.
    BackendDown {
        backend: usize,
        for_ms: u64,
    },
    /// It takes up to this long to look at a request; whoever asked may have gone by then, and it is done all the same.
    BackendSlow {
        backend: usize,
        for_ms: u64,
        by_ms: u64,
    },
    /// It answers so to writes (of one database, or all).
    BackendSays {
        backend: usize,
        for_ms: u64,
        db: Option<usize>,
        what: Says,
    },
    /// Somebody drops a database behind the proxy's back, on one backend or on all.
    DatabaseDropped {
        backend: Option<usize>,
        db: usize,
    },
    /// Nothing gets through in one direction or both; it arrives afterwards.
    LinkBlocked {
        backend: usize,
        for_ms: u64,
        way: Way,
    },
    LinkSlow {
        backend: usize,
        for_ms: u64,
        by_ms: u64,
    },
    /// Connections to the backend are cut; the next one after so many bytes.
    Cut {
        backend: usize,
        next_after: Option<u64>,
        way: Way,
    },
    /// Connections to the backend die without a word.
    HalfOpen {
        backend: usize,
    },
    ClientsCut {
        next_after: u64,
        way: Way,
    },
    /// kill -9, or power loss; it starts again after so long with so many workers.
    Crash {
        power: bool,
        down_ms: u64,
        workers: usize,
    },
    /// An orderly stop.
    Stop {
        down_ms: u64,
        workers: usize,
    },
    Clock {
        millis: i64,
    },
    DiskSlow {
        for_ms: u64,
        by_ms: u64,
    },
    DiskFails {
        call: DiskCall,
        file: File,
        worker: usize,
        skip: u32,
        errno: i32,
    },
    ShortWrite {
        worker: usize,
        skip: u32,
    },
    DiskFull {
        for_ms: u64,
    },
    /// A worker's thread loses its CPU.
    Stalled {
        worker: usize,
        for_ms: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    To,
    From,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// 503 to everything.
    Unavailable,
    /// 500 with a text of the storage.
    Broken,
    Forbidden,
    /// 200 with a page: somebody else answers in its place.
    Page,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskCall {
    Write,
    Sync,
    Create,
    Replace,
    Rename,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Any,
    Segment,
    State,
    Letters,
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
    AdoptKilled,
    Damage,
}

pub const PROFILES: [Profile; 20] = [
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
    Profile::AdoptKilled,
    Profile::Damage,
];

pub const MEASUREMENTS: usize = 6;
const DATABASES: usize = 2;
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
        plan.safety = *rng.pick(&[Safety::Disk, Safety::Disk, Safety::Os, Safety::Memory]);
        plan.flush_size = *rng.pick(&[10_000, 10_000, 20, 3]);
        match profile {
            Profile::Mixed => {
                plan.workers = *rng.pick(&[1, 2, 2, 2, 3]);
                plan.full = *rng.pick(&[Full::Reject, Full::Reject, Full::DropOldest]);
                plan.missing = *rng.pick(&[Missing::Create, Missing::Create, Missing::Hold]);
                plan.writers(rng, 8, 300, SPAN);
                for _ in 0..12 {
                    let at = rng.below(SPAN);
                    let fault = plan.any_fault(rng);
                    plan.events.push(Event { at, fault });
                }
            }
            Profile::Calm => plan.writers(rng, 8, 300, 10_000),
            Profile::Strict => {
                plan.workers = 1;
                plan.writers(rng, 8, 200, SPAN);
                plan.exclusive();
                plan.ops.iter_mut().for_each(|op| op.policy = 0);
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
                plan.workers = 1;
                plan.writers(rng, 4, 120, 4_000);
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
                plan.workers = 1;
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
                plan.writers(rng, 1, 100, 3_000);
                plan.without_alias();
                plan.exclusive();
                plan.ops.iter_mut().for_each(|op| op.connection = Connection::Fresh);
            }
            Profile::Racing => {
                plan.writers(rng, 8, 160, 3_000);
                plan.without_alias();
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
                    file: File::Segment,
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
                    file: File::Any,
                    worker,
                    skip,
                    errno: libc::EMFILE,
                };
                plan.events.push(Event { at: 1_000, fault });
            }
            Profile::DropOldest => {
                plan.full = Full::DropOldest;
                plan.backlog_kib = 512;
                plan.writers(rng, 8, 400, 20_000);
                plan.without_alias();
                let backend = rng.below(4) as usize;
                plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 30_000 } });
                plan.events.push(Event {
                    at: 10_000 + rng.below(10_000),
                    fault: PlannedFault::Crash { power: false, down_ms: 500, workers: 2 },
                });
            }
            Profile::AdoptKilled => {
                plan.workers = 3;
                plan.writers(rng, 8, 200, 10_000);
                plan.without_alias();
                for backend in 0..4 {
                    plan.events.push(Event { at: 500, fault: PlannedFault::BackendDown { backend, for_ms: 25_000 } });
                }
                plan.events.push(Event { at: 11_000, fault: PlannedFault::Stop { down_ms: 100, workers: 1 } });
                let soon = 11_100 + rng.below(400);
                plan.events
                    .push(Event { at: soon, fault: PlannedFault::Crash { power: false, down_ms: 100, workers: 1 } });
            }
            Profile::Damage => {
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
        }
        plan.ops.sort_by_key(|op| op.at);
        plan.events.sort_by_key(|event| event.at);
        plan
    }

    /// Nothing happens.
    pub fn quiet(seed: u64, profile: Profile) -> Self {
        Self {
            seed,
            profile,
            workers: 2,
            circles: 2,
            backends_per_circle: 2,
            safety: Safety::Disk,
            full: Full::Reject,
            missing: Missing::Create,
            flush_size: 10_000,
            backlog_kib: 1 << 20,
            ops: Vec::new(),
            events: Vec::new(),
        }
    }

    /// How much there is of it.
    pub fn size(&self) -> usize {
        let extras = |op: &Op| usize::from(op.policy != 0) + usize::from(op.connection == Connection::Fresh);
        self.events.len() + self.ops.iter().map(|op| 1 + op.points.len() + extras(op)).sum::<usize>()
    }

    /// As Rust, for a test.
    pub fn code(&self) -> String {
        let mut out = format!(
            "Plan {{\n    workers: {},\n    safety: Safety::{:?},\n    full: Full::{:?},\n",
            self.workers, self.safety, self.full
        );
        out += &format!(
            "    missing: Missing::{:?},\n    flush_size: {},\n    backlog_kib: {},\n",
            self.missing, self.flush_size, self.backlog_kib
        );
        out += "    ops: vec![\n";
        for op in &self.ops {
            let text = format!("        {op:?},\n").replace('[', "vec![");
            out += &text.replace("connection: ", "connection: Connection::").replace("level: ", "level: Level::");
        }
        out += "    ],\n    events: vec![\n";
        for event in &self.events {
            let text = format!("        {event:?},\n")
                .replace("fault: ", "fault: PlannedFault::")
                .replace("what: ", "what: Says::");
            let text = text.replace("way: ", "way: Way::").replace("call: ", "call: DiskCall::");
            out += &text.replace("file: ", "file: File::");
        }
        out + &format!("    ],\n    ..Plan::quiet({}, Profile::{:?})\n}}", self.seed, self.profile)
    }

    pub fn backends(&self) -> usize {
        self.circles * self.backends_per_circle
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
                level: if rng.one_in(10) { Level::All } else { Level::Default },
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
                points: vec![point],
            });
        }
    }

    fn without_alias(&mut self) {
        self.ops.iter_mut().for_each(|op| op.policy = 0);
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

    fn any_fault(&self, rng: &mut Rng) -> PlannedFault {
        let backend = rng.below(self.backends() as u64) as usize;
        let worker = rng.below(self.workers as u64) as usize;
        let longest = 1 + rng.below(30_000);
        let for_ms = 1 + rng.below(longest);
        let way = *rng.pick(&[Way::To, Way::From, Way::Both]);
        let workers = 1 + rng.below(3) as usize;
        let down_ms = 10 + rng.below(3_000);
        match rng.below(22) {
            0 | 1 => PlannedFault::BackendDown { backend, for_ms },
            2 => PlannedFault::BackendSlow { backend, for_ms, by_ms: rng.below(25_000) },
            3 => {
                let db = rng.one_in(2).then(|| rng.below(DATABASES as u64) as usize);
                let what =
                    *rng.pick(&[Says::Unavailable, Says::Unavailable, Says::Broken, Says::Forbidden, Says::Page]);
                PlannedFault::BackendSays { backend, for_ms, db, what }
            }
            4 => PlannedFault::DatabaseDropped {
                backend: (!rng.one_in(6)).then_some(backend),
                db: rng.below(DATABASES as u64) as usize,
            },
            5 | 6 => PlannedFault::LinkBlocked { backend, for_ms, way },
            7 => PlannedFault::LinkSlow { backend, for_ms, by_ms: rng.below(15_000) },
            8 | 9 => PlannedFault::Cut { backend, next_after: rng.one_in(2).then(|| rng.below(1_000)), way },
            10 => PlannedFault::HalfOpen { backend },
            11 => PlannedFault::ClientsCut { next_after: rng.below(1_000), way },
            12 | 13 => PlannedFault::Crash { power: rng.one_in(2), down_ms, workers },
            14 => PlannedFault::Stop { down_ms, workers },
            15 => PlannedFault::Clock { millis: rng.below(200_000) as i64 - 100_000 },
            16 => PlannedFault::DiskSlow { for_ms: for_ms / 3, by_ms: 1 + rng.below(1_000) },
            17 => PlannedFault::DiskFails {
                call: *rng.pick(&[
                    DiskCall::Write,
                    DiskCall::Sync,
                    DiskCall::Create,
                    DiskCall::Replace,
                    DiskCall::Rename,
                ]),
                file: *rng.pick(&[File::Any, File::Segment, File::State, File::Letters]),
                worker,
                skip: rng.below(10) as u32,
                errno: *rng.pick(&[libc::EIO, libc::ENOSPC, libc::EMFILE]),
            },
            18 => PlannedFault::ShortWrite { worker, skip: rng.below(20) as u32 },
            19 => PlannedFault::DiskFull { for_ms: for_ms / 2 },
            _ => PlannedFault::Stalled { worker, for_ms: 1 + rng.below(1 + for_ms / 10) },
        }
    }
}

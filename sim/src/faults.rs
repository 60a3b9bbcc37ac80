//! What can break: each kind of fault, when a plan draws it, what it does, and how everything is put right at the end.
//! A new kind is added in this file alone: to `PlannedFault`, `any`, `lasts` and `start`.

use std::rc::Rc;
use std::time::Duration;

use fluxgate_machine::{Rng, disk, exec, net};

use crate::backend::{self, Says};
use crate::hosts::{self, CLIENTS, PROXY};
use crate::proxy::Process;
use crate::setup::{DATABASES, MEASUREMENTS, Safety};
use crate::statement;
use crate::world::World;

/// Deliveries may be late for so long after a fault has gone: pauses between attempts, the control thread's part.
const AFTERMATH: Duration = Duration::from_secs(15);

/// A fault at a time, in milliseconds since the start.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: u64,
    pub fault: PlannedFault,
}

pub fn event(at: u64, fault: PlannedFault) -> Event {
    Event { at, fault }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedFault {
    /// The backend's process ends; it starts again after so long, with all it had confirmed.
    BackendDown {
        backend: usize,
        for_ms: u64,
    },
    /// As before, and it comes back without any data: another server in its place.
    BackendEmptied {
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
    /// Its process ends and starts again with another address, which its name means only after so long.
    BackendMoved {
        backend: usize,
        for_ms: u64,
    },
    /// No name means anything.
    NoNames {
        for_ms: u64,
    },
    /// A database there can have so many series more than any has now.
    SeriesLimit {
        backend: usize,
        for_ms: u64,
        room: usize,
    },
    /// Somebody drops a database behind the proxy's back, on one backend or on all.
    DatabaseDropped {
        backend: Option<usize>,
        db: usize,
    },
    /// A client has the proxy drop a measurement, or (None) a database, which another one creates again after so long.
    Drop {
        db: usize,
        measurement: Option<usize>,
        again_ms: u64,
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
        file: DiskFile,
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
pub enum DiskCall {
    Write,
    Sync,
    Create,
    /// A write of the state.
    SaveState,
    Rename,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFile {
    Any,
    Segment,
    State,
    Letters,
}

impl PlannedFault {
    /// How long it lasts by itself.
    pub fn lasts(&self) -> u64 {
        match *self {
            Self::BackendDown { for_ms, .. }
            | Self::BackendEmptied { for_ms, .. }
            | Self::BackendMoved { for_ms, .. }
            | Self::NoNames { for_ms }
            | Self::SeriesLimit { for_ms, .. }
            | Self::BackendSlow { for_ms, .. }
            | Self::BackendSays { for_ms, .. }
            | Self::LinkBlocked { for_ms, .. }
            | Self::LinkSlow { for_ms, .. }
            | Self::DiskSlow { for_ms, .. }
            | Self::DiskFull { for_ms }
            | Self::Stalled { for_ms, .. } => for_ms,
            Self::Crash { down_ms, .. } => down_ms,
            Self::Stop { down_ms, .. } => down_ms + 4_500,
            Self::Drop { again_ms, .. } => again_ms,
            _ => 0,
        }
    }

    /// One of any kind.
    pub fn any(rng: &mut Rng, backends: usize, workers: usize) -> Self {
        let backend = rng.below(backends as u64) as usize;
        let worker = rng.below(workers as u64) as usize;
        let longest = 1 + rng.below(30_000);
        let for_ms = 1 + rng.below(longest);
        let way = *rng.pick(&[Way::To, Way::From, Way::Both]);
        let workers = 1 + rng.below(3) as usize;
        let down_ms = 10 + rng.below(3_000);
        match rng.below(28) {
            0 | 1 => Self::BackendDown { backend, for_ms },
            2 => Self::BackendSlow { backend, for_ms, by_ms: rng.below(25_000) },
            3 => {
                let db = rng.one_in(2).then(|| rng.below(DATABASES as u64) as usize);
                let what =
                    *rng.pick(&[Says::Unavailable, Says::Unavailable, Says::Broken, Says::Forbidden, Says::Page]);
                Self::BackendSays { backend, for_ms, db, what }
            }
            4 => Self::DatabaseDropped {
                backend: (!rng.one_in(6)).then_some(backend),
                db: rng.below(DATABASES as u64) as usize,
            },
            5 | 6 => Self::LinkBlocked { backend, for_ms, way },
            7 => Self::LinkSlow { backend, for_ms, by_ms: rng.below(15_000) },
            8 | 9 => Self::Cut { backend, next_after: rng.one_in(2).then(|| rng.below(1_000)), way },
            10 => Self::HalfOpen { backend },
            11 => Self::ClientsCut { next_after: rng.below(1_000), way },
            12 | 13 => Self::Crash { power: rng.one_in(2), down_ms, workers },
            14 => Self::Stop { down_ms, workers },
            15 => Self::Clock { millis: rng.below(200_000) as i64 - 100_000 },
            16 => Self::DiskSlow { for_ms: for_ms / 3, by_ms: 1 + rng.below(1_000) },
            17 => Self::DiskFails {
                call: *rng.pick(&[
                    DiskCall::Write,
                    DiskCall::Sync,
                    DiskCall::Create,
                    DiskCall::SaveState,
                    DiskCall::Rename,
                ]),
                file: *rng.pick(&[DiskFile::Any, DiskFile::Segment, DiskFile::State, DiskFile::Letters]),
                worker,
                skip: rng.below(10) as u32,
                errno: *rng.pick(&[libc::EIO, libc::ENOSPC, libc::EMFILE]),
            },
            18 => Self::ShortWrite { worker, skip: rng.below(20) as u32 },
            19 => Self::DiskFull { for_ms: for_ms / 2 },
            20 | 21 => Self::Drop {
                db: rng.below(DATABASES as u64) as usize,
                measurement: (!rng.one_in(4)).then(|| rng.below(MEASUREMENTS as u64) as usize),
                again_ms: for_ms,
            },
            22 => Self::BackendMoved { backend, for_ms },
            23 => Self::NoNames { for_ms },
            24 | 25 => Self::SeriesLimit { backend, for_ms, room: rng.below(20) as usize },
            _ => Self::Stalled { worker, for_ms: 1 + rng.below(1 + for_ms / 10) },
        }
    }
}

pub async fn run(world: Rc<World>, process: Rc<Process>, events: Vec<Event>) {
    for event in events {
        exec::sleep(Duration::from_millis(event.at).saturating_sub(exec::now())).await;
        exec::trace(|| format!("{:?}", event.fault));
        start(&world, &process, &event.fault);
    }
}

fn start(world: &Rc<World>, process: &Rc<Process>, fault: &PlannedFault) {
    let now = exec::now();
    let ms = Duration::from_millis;
    let ways = |backend: usize, way: Way| {
        let (proxy, there) = (PROXY, hosts::backend_host(backend));
        let both = [(proxy, there), (there, proxy)];
        match way {
            Way::To => both[..1].to_vec(),
            Way::From => both[1..].to_vec(),
            Way::Both => both.to_vec(),
        }
    };
    match *fault {
        PlannedFault::BackendDown { backend, for_ms } | PlannedFault::BackendEmptied { backend, for_ms } => {
            world.trouble(Some(backend), None, now, now + ms(for_ms) + AFTERMATH);
            if matches!(fault, PlannedFault::BackendEmptied { .. }) {
                world.empty(backend);
            }
            let server = world.backends[backend].clone();
            backend::stop(&server);
            exec::after(ms(for_ms), move || {
                if !server.borrow().is_up() {
                    backend::start(&server, backend);
                }
            });
        }
        PlannedFault::BackendMoved { backend, for_ms } => {
            world.trouble(Some(backend), None, now, now + ms(for_ms) + AFTERMATH);
            let server = &world.backends[backend];
            backend::stop(server);
            server.borrow_mut().moves(now + ms(for_ms));
            backend::start(server, backend);
        }
        PlannedFault::NoNames { for_ms } => {
            world.trouble(None, None, now, now + ms(for_ms) + AFTERMATH);
            world.no_names_until.set(now + ms(for_ms));
        }
        PlannedFault::SeriesLimit { backend, for_ms, room } => {
            world.trouble(Some(backend), None, now, now + ms(for_ms) + AFTERMATH);
            let server = world.backends[backend].clone();
            let most = (0..DATABASES).map(|db| server.borrow().influx.series(db)).max();
            server.borrow_mut().influx.series_max = Some(most.unwrap_or(0) + room);
            exec::after(ms(for_ms), move || server.borrow_mut().influx.series_max = None);
        }
        PlannedFault::BackendSlow { backend, for_ms, by_ms } => {
            // A request that is under way then has its own time.
            world.trouble(Some(backend), None, now, now + ms(for_ms) + ms(by_ms) + AFTERMATH);
            world.backends[backend].borrow_mut().slow(now + ms(for_ms), ms(by_ms));
        }
        PlannedFault::BackendSays { backend, for_ms, db, what } => {
            // What is said of one database may hold up that one only.
            let of = if matches!(what, Says::Forbidden | Says::Broken) { db } else { None };
            world.trouble(Some(backend), of, now, now + ms(for_ms) + AFTERMATH);
            world.backends[backend].borrow_mut().says(now + ms(for_ms), db, what);
        }
        PlannedFault::DatabaseDropped { backend, db } => {
            let on: Vec<_> = match backend {
                Some(backend) => vec![backend],
                None => (0..world.setup.backends()).collect(),
            };
            for backend in on {
                world.trouble(Some(backend), Some(db), now, Duration::MAX);
                world.dropped(backend, db);
                world.backends[backend].borrow_mut().influx.drop_database(db);
            }
        }
        PlannedFault::Drop { db, measurement, again_ms } => {
            let Some(life) = process.life() else { return };
            statement::begin(world, &life, db, measurement, AFTERMATH);
            if measurement.is_none() {
                // What was taken before everybody knew may wait for its database.
                world.trouble(None, Some(db), now, Duration::MAX);
                let world = world.clone();
                exec::after(ms(again_ms), move || {
                    world.backends.iter().for_each(|server| server.borrow_mut().influx.create_database(db));
                });
            }
        }
        PlannedFault::LinkBlocked { backend, for_ms, way } => {
            world.trouble(Some(backend), None, now, now + ms(for_ms) + AFTERMATH);
            ways(backend, way).into_iter().for_each(|(from, to)| net::block(from, to, ms(for_ms)));
        }
        PlannedFault::LinkSlow { backend, for_ms, by_ms } => {
            world.trouble(Some(backend), None, now, now + ms(for_ms) + 4 * ms(by_ms) + AFTERMATH);
            ways(backend, Way::Both).into_iter().for_each(|(from, to)| net::slow(from, to, ms(for_ms), ms(by_ms)));
        }
        PlannedFault::Cut { backend, next_after, way } => {
            world.trouble(Some(backend), None, now, now + AFTERMATH);
            net::cut(PROXY, hosts::backend_host(backend));
            if let Some(bytes) = next_after {
                ways(backend, way).into_iter().for_each(|(from, to)| net::cut_next(from, to, bytes));
            }
        }
        PlannedFault::HalfOpen { backend } => {
            world.trouble(Some(backend), None, now, now + 3 * AFTERMATH);
            net::half_open(PROXY, hosts::backend_host(backend));
        }
        PlannedFault::ClientsCut { next_after, way } => {
            let both = [(CLIENTS, PROXY), (PROXY, CLIENTS)];
            let which = match way {
                Way::To => &both[..1],
                Way::From => &both[1..],
                Way::Both => &both[..],
            };
            which.iter().for_each(|&(from, to)| net::cut_next(from, to, next_after));
        }
        PlannedFault::Crash { power, down_ms, workers } => {
            world.crashes.borrow_mut().push((now, power));
            world.trouble(None, None, now, now + ms(down_ms) + AFTERMATH);
            process.kill(power);
            process.workers.set(workers);
            process.down_until.set(now + ms(down_ms));
        }
        PlannedFault::Stop { down_ms, workers } => {
            world.trouble(None, None, now, now + ms(down_ms) + 2 * AFTERMATH);
            process.workers.set(workers);
            let process = process.clone();
            exec::spawn(async move {
                process.stop().await;
                process.down_until.set(exec::now() + ms(down_ms));
            });
        }
        PlannedFault::Clock { millis } => fluxgate_machine::clock::step(PROXY, millis),
        PlannedFault::DiskSlow { for_ms, by_ms } => {
            world.trouble(None, None, now, now + ms(for_ms) + 4 * ms(by_ms) + AFTERMATH);
            disk::slow(PROXY, ms(for_ms), ms(by_ms));
        }
        PlannedFault::DiskFails { call, file, worker, skip, errno } => {
            world.trouble(None, None, now, Duration::MAX);
            let saves = call == DiskCall::SaveState;
            let call = match call {
                DiskCall::Write | DiskCall::SaveState => disk::Call::Write,
                DiskCall::Sync => disk::Call::Sync,
                DiskCall::Create => disk::Call::Create,
                DiskCall::Rename => disk::Call::Rename,
            };
            let path = match file {
                _ if saves => format!("worker-{worker}/state"),
                DiskFile::Any => format!("worker-{worker}/"),
                // Segments are made of files that had other names.
                DiskFile::Segment => format!("worker-{worker}/spare"),
                DiskFile::State => format!("worker-{worker}/state"),
                DiskFile::Letters => "/rejected/".to_owned(),
            };
            disk::fail(PROXY, call, &path, skip, disk::DiskFailure::Errno(errno));
        }
        PlannedFault::ShortWrite { worker, skip } => {
            let path = format!("worker-{worker}/");
            disk::fail(PROXY, disk::Call::Write, &path, skip, disk::DiskFailure::Short);
        }
        PlannedFault::DiskFull { for_ms } => {
            // What was taken before is delivered all the same, but for what is only in memory.
            if world.setup.safety == Safety::Memory {
                world.trouble(None, None, now, now + ms(for_ms));
            }
            disk::fill(PROXY, 0);
            exec::after(ms(for_ms), || disk::free(PROXY));
        }
        PlannedFault::Stalled { worker, for_ms } => {
            world.trouble(None, None, now, now + ms(for_ms) + AFTERMATH);
            if let Some(life) = process.life()
                && let Some(&group) = life.groups.get(worker)
            {
                exec::stall(group, ms(for_ms));
            }
        }
    }
}

/// Every fault is over.
pub fn heal(world: &World) {
    net::heal();
    disk::heal(PROXY);
    world.no_names_until.set(Duration::ZERO);
    for (number, server) in world.backends.iter().enumerate() {
        server.borrow_mut().heal();
        if !server.borrow().is_up() {
            backend::start(server, number);
        }
    }
}

//! Does what a plan's events say, and puts everything right at the end.

use std::rc::Rc;
use std::time::Duration;

use fluxgate_machine::{disk, exec, net};

use crate::backend;
use crate::plan::{DiskCall, Event, File, PlannedFault, Says, Way};
use crate::proxy::Process;
use crate::world::{self, World};

/// Deliveries may be late for so long after a fault has gone: pauses between attempts, the control thread's part.
const AFTERMATH: Duration = Duration::from_secs(15);

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
        let (proxy, there) = (world::PROXY, world::backend_host(backend));
        let both = [(proxy, there), (there, proxy)];
        match way {
            Way::To => both[..1].to_vec(),
            Way::From => both[1..].to_vec(),
            Way::Both => both.to_vec(),
        }
    };
    match *fault {
        PlannedFault::BackendDown { backend, for_ms } => {
            world.trouble(Some(backend), None, now, now + ms(for_ms) + AFTERMATH);
            let influx = world.backends[backend].clone();
            backend::stop(&influx);
            exec::after(ms(for_ms), move || {
                if !influx.borrow().is_up() {
                    backend::start(&influx, backend);
                }
            });
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
                None => (0..world.plan.backends()).collect(),
            };
            for backend in on {
                world.trouble(Some(backend), Some(db), now, Duration::MAX);
                world.dropped(backend, db);
                world.backends[backend].borrow_mut().drop_database(db);
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
            net::cut(world::PROXY, world::backend_host(backend));
            if let Some(bytes) = next_after {
                ways(backend, way).into_iter().for_each(|(from, to)| net::cut_next(from, to, bytes));
            }
        }
        PlannedFault::HalfOpen { backend } => {
            world.trouble(Some(backend), None, now, now + 2 * AFTERMATH);
            net::half_open(world::PROXY, world::backend_host(backend));
        }
        PlannedFault::ClientsCut { next_after, way } => {
            let both = [(world::CLIENTS, world::PROXY), (world::PROXY, world::CLIENTS)];
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
        PlannedFault::Clock { millis } => fluxgate_machine::clock::step(world::PROXY, millis),
        PlannedFault::DiskSlow { for_ms, by_ms } => {
            world.trouble(None, None, now, now + ms(for_ms) + 4 * ms(by_ms) + AFTERMATH);
            disk::slow(world::PROXY, ms(for_ms), ms(by_ms));
        }
        PlannedFault::DiskFails { call, file, worker, skip, errno } => {
            world.trouble(None, None, now, Duration::MAX);
            let call = match call {
                DiskCall::Write => disk::Call::Write,
                DiskCall::Sync => disk::Call::Sync,
                DiskCall::Create => disk::Call::Create,
                DiskCall::Replace => disk::Call::Replace,
                DiskCall::Rename => disk::Call::Rename,
            };
            let path = match file {
                File::Any => format!("worker-{worker}/"),
                File::Segment => format!("worker-{worker}/0"),
                File::State => format!("worker-{worker}/state"),
                File::Letters => "/rejected/".to_owned(),
            };
            disk::fail(world::PROXY, call, &path, skip, disk::DiskFailure::Errno(errno));
        }
        PlannedFault::ShortWrite { worker, skip } => {
            let path = format!("worker-{worker}/");
            disk::fail(world::PROXY, disk::Call::Write, &path, skip, disk::DiskFailure::Short);
        }
        PlannedFault::DiskFull { for_ms } => {
            world.trouble(None, None, now, now + ms(for_ms) + AFTERMATH);
            disk::fill(world::PROXY, 0);
            exec::after(ms(for_ms), || disk::free(world::PROXY));
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
    disk::heal(world::PROXY);
    for (number, influx) in world.backends.iter().enumerate() {
        influx.borrow_mut().heal();
        if !influx.borrow().is_up() {
            backend::start(influx, number);
        }
    }
}

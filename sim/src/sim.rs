//! One run, from start to verdict.

use std::rc::Rc;
use std::time::Duration;

use fluxgate_dataplane::handoff::LedgerRow;
use fluxgate_machine::{disk, exec};

use crate::plan::{DiskCall, Plan, PlannedFault};
use crate::proxy::Process;
use crate::world::{self, Fate, Violation, World};
use crate::{backend, check, client, faults, hosts, says};

/// After the last fault everything is delivered within this time: what has no database is held for a minute, a batch
/// that may be poison as well.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);

/// A disk so small has the smallest segments.
const DISK_BYTES: u64 = 16 << 20;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct RunOutcome {
    pub violations: Vec<Violation>,
    pub writes: usize,
    pub acked: usize,
    /// Virtual time it took.
    pub lasted: Duration,
    pub polls: u64,
    /// Equal for equal runs.
    pub digest: u64,
}

/// Runs a plan. With `trace` everything that happens is written to standard error.
pub fn run(plan: &Plan, trace: bool) -> RunOutcome {
    let (hosts, seed) = (hosts::count(plan.setup.backends()), plan.seed);
    let plan = plan.clone();
    // Not in the first run's thread, whose hash maps would then be walked in another order than those of later runs.
    world::trust();
    let outcome = exec::run(seed, hosts, move || async move {
        exec::set_tracing(trace);
        live(plan).await
    });
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Violation { kind: check::PANIC, text: text.unwrap_or_default() };
        RunOutcome { violations: vec![violation], ..RunOutcome::default() }
    })
}

async fn live(plan: Plan) -> RunOutcome {
    let log_may_fail = plan.events.iter().any(|event| matches!(event.fault, PlannedFault::DiskFails { .. }));
    let world = World::new(plan.setup, log_may_fail);
    for (number, server) in world.backends.iter().enumerate() {
        backend::start(server, number);
    }
    disk::set_capacity(hosts::PROXY, DISK_BYTES);
    let process = Process::new(world.clone());
    exec::spawn(process.clone().supervise());
    exec::spawn(faults::run(world.clone(), process.clone(), plan.events.clone()));
    exec::spawn(says::watch(world.clone(), process.clone()));
    let clients = exec::group(hosts::CLIENTS, "clients");
    let running = Rc::new(std::cell::Cell::new(0));
    let numbers: std::collections::BTreeSet<_> = plan.ops.iter().map(|op| op.client).collect();
    for number in numbers {
        let ops = plan.ops.iter().filter(|op| op.client == number).cloned().collect();
        running.set(running.get() + 1);
        let (world, running) = (world.clone(), running.clone());
        exec::spawn_in(clients, async move {
            client::run(world, ops).await;
            running.set(running.get() - 1);
        });
    }
    exec::when(move || running.get() == 0).await;
    let last = plan.events.iter().map(|event| event.at + event.fault.lasts()).max().unwrap_or(0);
    exec::sleep(Duration::from_millis(last).saturating_sub(exec::now())).await;
    exec::trace(|| "everything is put right".into());
    faults::heal(&world);
    put_right(&plan, &world, &process).await;
    if let Some(rows) = drained(&world, &process).await {
        check::all(&world, &rows);
    }
    let writes = world.writes.borrow();
    RunOutcome {
        violations: world.violations.borrow().clone(),
        writes: writes.len(),
        acked: writes.iter().filter(|write| write.fate == Fate::Acked).count(),
        lasted: exec::now(),
        polls: exec::polls(),
        digest: exec::digest(),
    }
}

/// A process with a log that has failed is started again, as operators do; unless nothing was in doubt.
async fn put_right(plan: &Plan, world: &Rc<World>, process: &Rc<Process>) {
    exec::sleep(Duration::from_secs(3)).await;
    for _ in 0..60 {
        let Some(life) = process.life() else {
            exec::sleep(Duration::from_secs(1)).await;
            continue;
        };
        if !life.worker_failed() {
            return;
        }
        // A worker that has just started is not ready either.
        exec::sleep(Duration::from_secs(2)).await;
        if life.worker_failed() && process.life().is_some_and(|now| Rc::ptr_eq(&now, &life)) {
            let nothing_in_doubt = plan.events.iter().all(|event| match event.fault {
                PlannedFault::DiskFails { call, errno, .. } => call == DiskCall::Create && errno != libc::EIO,
                _ => true,
            });
            if nothing_in_doubt {
                world.broken(check::CLOSED, "a worker has stopped taking writes, and nothing was in doubt".into());
            }
            process.stop().await;
        }
    }
}

/// Waits until nothing is queued or parked any more and no statement is being carried out; the ledger then.
async fn drained(world: &Rc<World>, process: &Rc<Process>) -> Option<Vec<LedgerRow>> {
    let deadline = exec::now() + DRAINED_WITHIN;
    let mut last = String::from("no process");
    while exec::now() < deadline {
        if let Some(life) = process.life()
            && !life.worker_failed()
            && let Some(rows) = life.clone().ledger().await
        {
            let parked = life.parked();
            // A statement that is being carried out is not everywhere yet.
            if rows.iter().all(|row| row.queued == 0) && parked.is_empty() && !life.changes_structure.get() {
                return Some(rows);
            }
            let behind = rows.iter().filter(|row| row.queued > 0);
            last = behind.map(|row| format!("{} {} for {:?} ", row.queued, row.db, row.backend)).collect();
            last.extend(parked.iter().map(|(backend, db)| format!("{db} is parked for b{backend} ")));
        }
        exec::sleep(Duration::from_millis(500)).await;
    }
    world.broken(check::STUCK, format!("{DRAINED_WITHIN:?} after the last fault is queued: {last}"));
    None
}

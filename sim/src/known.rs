//! What is known to be broken today, by promise: a finding of one of these kinds in a plan that has what it takes is
//! reported as known. What is mended is struck from here; then every seed that finds it again fails.

use crate::check;
use crate::plan::{Full, Plan, PlannedFault, Says};
use crate::world::Violation;

/// The promise that is known to be broken in this way, in a few words; None: this is new.
pub fn known(plan: &Plan, found: &Violation) -> Option<&'static str> {
    let any = |test: &dyn Fn(&PlannedFault) -> bool| plan.events.iter().any(|event| test(&event.fault));
    let says = |what: Says| any(&|f| matches!(f, PlannedFault::BackendSays { what: said, .. } if *said == what));
    let workers = |f: &PlannedFault| match f {
        PlannedFault::Crash { workers, .. } | PlannedFault::Stop { workers, .. } => *workers,
        _ => 1,
    };
    let several_workers = plan.setup.workers > 1 || any(&|f| workers(f) > 1);
    let alias = plan.ops.iter().any(|op| op.policy == 0) && plan.ops.iter().any(|op| op.policy != 0);
    let unknown_fate = any(&|f| {
        matches!(
            f,
            PlannedFault::BackendSlow { .. }
                | PlannedFault::LinkBlocked { .. }
                | PlannedFault::LinkSlow { .. }
                | PlannedFault::Cut { .. }
                | PlannedFault::HalfOpen { .. }
                | PlannedFault::Crash { .. }
        )
    });
    let floats = plan.ops.iter().flat_map(|op| &op.points);
    let two_types = floats.clone().any(|p| p.float) && floats.clone().any(|p| !p.float);
    let dropped = any(&|f| matches!(f, PlannedFault::DatabaseDropped { .. }));
    let lane_fault = dropped || says(Says::Forbidden) || says(Says::Broken);
    let full = any(&|f| matches!(f, PlannedFault::DiskFull { .. }));
    let disk_fails = any(&|f| matches!(f, PlannedFault::DiskFails { .. }));
    let crash = any(&|f| matches!(f, PlannedFault::Crash { .. }));
    let restarts = plan.events.iter().filter_map(|event| match event.fault {
        PlannedFault::Crash { workers, .. } | PlannedFault::Stop { workers, .. } => Some(workers),
        _ => None,
    });
    let counts: Vec<_> = std::iter::once(plan.setup.workers).chain(restarts).collect();
    let adopts = counts.windows(2).any(|pair| pair[1] < pair[0]);
    match found.kind {
        check::ORDER | check::CIRCLES if alias => Some("A: a policy has two names"),
        check::ORDER | check::CIRCLES if several_workers => Some("A: order between workers"),
        check::ORDER | check::CIRCLES if unknown_fate => Some("A: a request of unknown fate is applied late"),
        check::TYPES if two_types && (several_workers || alias || unknown_fate) => {
            Some("A: types by the order of each circle")
        }
        check::LATENESS | check::CLOSED if full && adopts => {
            Some("C: a full disk keeps logs of former workers from being taken over")
        }
        check::STUCK if dropped => Some("C: points of a database that is gone are held for minutes"),
        check::LATENESS if dropped || lane_fault && several_workers => Some("C: one database delays others"),
        check::LATENESS if several_workers && unknown_fate => Some("C: couriers of several workers wait for a turn"),
        check::UNANSWERED if lane_fault && several_workers => Some("C: acks wait for other workers"),
        // The dead letters of what was refused are written first.
        check::UNANSWERED if full && (several_workers || two_types) => Some("C: acks wait while the disk is full"),
        check::ACCOUNTS | check::LOST | check::STUCK | check::LETTERS
            if plan.setup.full == Full::DropOldest && (crash || full) =>
        {
            Some("D: dropped points are not booked before a crash")
        }
        check::ACCOUNTS | check::BLAMED if adopts && (crash || full || disk_fails) => {
            Some("D: a crash while logs are taken over counts twice")
        }
        _ => None,
    }
}

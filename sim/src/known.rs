//! What is known to be broken today, by promise: a finding of one of these kinds in a plan that has what it takes is
//! reported as known. What is mended is struck from here; then every seed that finds it again fails.

use crate::check;
use crate::plan::{Full, Plan, PlannedFault};
use crate::world::Violation;

/// The promise that is known to be broken in this way, in a few words; None: this is new.
pub fn known(plan: &Plan, found: &Violation) -> Option<&'static str> {
    let any = |test: &dyn Fn(&PlannedFault) -> bool| plan.events.iter().any(|event| test(&event.fault));
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
    let full = any(&|f| matches!(f, PlannedFault::DiskFull { .. }));
    let crash = any(&|f| matches!(f, PlannedFault::Crash { .. }));
    match found.kind {
        check::ORDER | check::CIRCLES if unknown_fate => Some("A: a request of unknown fate is applied late"),
        check::TYPES if two_types && unknown_fate => Some("A: types by the order of each circle"),
        check::STUCK if dropped => Some("C: points of a database that is gone are held for minutes"),
        check::LATENESS if dropped => Some("C: one database delays others"),
        // The dead letters of what was refused are written first.
        check::UNANSWERED if full && two_types => Some("C: acks wait while the disk is full"),
        check::ACCOUNTS | check::LOST | check::STUCK | check::LETTERS
            if plan.setup.full == Full::DropOldest && (crash || full) =>
        {
            Some("D: dropped points are not booked before a crash")
        }
        _ => None,
    }
}

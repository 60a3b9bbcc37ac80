//! What is known to be broken today, by promise: a finding of one of these kinds in a plan that has what it takes is
//! reported as known. What is mended is struck from here; then every seed that finds it again fails.

use crate::check;
use crate::plan::{Full, Plan, PlannedFault, Safety, Says};
use crate::world::Violation;

/// The promise that is known to be broken in this way, in a few words; None: this is new.
pub fn known(plan: &Plan, found: &Violation) -> Option<&'static str> {
    let any = |test: &dyn Fn(&PlannedFault) -> bool| plan.events.iter().any(|event| test(&event.fault));
    // How much later than usual a request can be carried out, in milliseconds.
    let longest =
        |of: &dyn Fn(&PlannedFault) -> u64| plan.events.iter().map(|event| of(&event.fault)).max().unwrap_or(0);
    let slow = longest(&|f| if let PlannedFault::BackendSlow { by_ms, .. } = f { *by_ms } else { 0 });
    let slow_link = longest(&|f| if let PlannedFault::LinkSlow { by_ms, .. } = f { *by_ms } else { 0 });
    let blocked = longest(&|f| if let PlannedFault::LinkBlocked { for_ms, .. } = f { *for_ms } else { 0 });
    let broken =
        any(&|f| matches!(f, PlannedFault::Cut { .. } | PlannedFault::Crash { .. } | PlannedFault::Stop { .. }));
    // After a connection has broken newer points wait for 2 s (`DOUBT`), while one is silent for 30 s.
    let too_late = broken && slow + slow_link > 2_000 || slow + slow_link + blocked > 30_000;
    let floats = plan.ops.iter().flat_map(|op| &op.points);
    let two_types = floats.clone().any(|p| p.float) && floats.clone().any(|p| !p.float);
    let dropped = any(&|f| matches!(f, PlannedFault::DatabaseDropped { .. } | PlannedFault::BackendEmptied { .. }));
    let gone = dropped || any(&|f| matches!(f, PlannedFault::Drop { measurement: None, .. }));
    let held = any(&|f| matches!(f, PlannedFault::BackendSays { what: Says::Forbidden | Says::Broken, .. }));
    let broken_for_a_while = any(&|f| matches!(f, PlannedFault::BackendSays { what: Says::Broken, .. }));
    let silent = any(&|f| matches!(f, PlannedFault::HalfOpen { .. }));
    let removes = any(&|f| matches!(f, PlannedFault::Drop { .. }));
    let cut = any(&|f| matches!(f, PlannedFault::Cut { .. }));
    // Points that are held, or wait for a connection that is silent or has broken, keep the cursors back.
    let holds = gone || silent || cut || any(&|f| matches!(f, PlannedFault::BackendSays { db: Some(_), .. }));
    let disk_fails = any(&|f| matches!(f, PlannedFault::DiskFails { .. }));
    // A worker whose log has failed takes no writes until the next start.
    let restarts = disk_fails || any(&|f| matches!(f, PlannedFault::Crash { .. } | PlannedFault::Stop { .. }));
    let full = any(&|f| matches!(f, PlannedFault::DiskFull { .. }));
    let limits = any(&|f| matches!(f, PlannedFault::SeriesLimit { .. }));
    let crashes = any(&|f| matches!(f, PlannedFault::Crash { .. }));
    // A crash takes points that one circle may have had already.
    let forgets = plan.setup.safety != Safety::Disk && crashes;
    let drops = (full || disk_fails) && plan.setup.full == Full::DropOldest;
    match found.kind {
        check::FENCE if too_late && found.text.contains("stands after") => {
            Some("A: a request is applied long after its connection broke")
        }
        check::ORDER | check::CIRCLES if too_late => Some("A: a request is applied long after its connection broke"),
        // A request that is applied late decides the types of its fields late, too. And a search that begins while a
        // server fails, and ends when it does not, sends some lines after later ones.
        check::TYPES if two_types && (too_late || broken_for_a_while) => Some("A: types by the order of each circle"),
        // What it has no room for gives no type to a field.
        check::TYPES if two_types && limits => Some("not promised: types of points that one server has no room for"),
        check::TYPES if two_types && forgets => Some("not promised: points that a crash took from memory"),
        check::STUCK if dropped => Some("C: points of a database that is gone are held for minutes"),
        // What a silent connection was sent may still be carried out: newer points wait for three timeouts.
        check::LATENESS | check::UNANSWERED if silent => Some("A: points wait for a connection that is silent"),
        // What is held fills its half of the window; then others wait.
        check::LATENESS if gone || held => Some("C: one database delays others"),
        // The dead letters of what was refused are written first.
        check::UNANSWERED if full && two_types => Some("C: acks wait while the disk is full"),
        // What another circle has refused for its type is not repeated.
        check::ORDER | check::CIRCLES if dropped && two_types && restarts => {
            Some("E: a restart repeats what lies behind held points, where types differ already")
        }
        // The check forgets what a database that is dropped had refused.
        check::VERDICT | check::BLAMED if gone => Some("S: what a database that has been dropped had refused"),
        // They may have been the first of a field.
        check::TYPES if two_types && drops => Some("not promised: types of points that one circle has dropped"),
        check::CIRCLES | check::TYPES if removes && holds && restarts => {
            Some("E: a restart repeats what lies behind held points")
        }
        check::FENCE if holds && restarts && found.text.contains("stands after") => {
            Some("E: a restart repeats what lies behind held points")
        }
        _ => None,
    }
}

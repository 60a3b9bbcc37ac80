//! What the tests of plans share.

use fluxgate_sim::known::known;
use fluxgate_sim::plan::Plan;
use fluxgate_sim::sim;

/// A plan is tried under so many seeds: each change of the program gives another run.
pub const SEEDS: u64 = 200;

/// What has been mended stays so: the plan finds nothing but what is known.
#[track_caller]
pub fn nothing_found(plan: &Plan) {
    for seed in plan.seed..plan.seed + SEEDS / 10 {
        let mut found = sim::run(&Plan { seed, ..plan.clone() }, false).violations;
        found.retain(|v| known(plan, v).is_none());
        assert!(found.is_empty(), "seed {seed}: {found:?}");
    }
}

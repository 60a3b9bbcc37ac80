//! What every run keeps to.

#![cfg(feature = "sim")]

use fluxgate_sim::plan::{Plan, Profile};
use fluxgate_sim::sim;

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in 0..20 {
        let plan = Plan::of_seed(seed);
        let (one, other) = (sim::run(&plan, false), sim::run(&plan, false));
        assert_eq!((one.digest, one.polls, one.lasted), (other.digest, other.polls, other.lasted), "seed {seed}");
    }
}

#[test]
fn without_a_fault_and_with_one_worker_nothing_is_found() {
    for seed in 0..50 {
        let mut plan = Plan::of_profile(seed, Profile::Strict);
        plan.events.clear();
        let found = sim::run(&plan, false);
        let most = found.acked * 4 > found.writes * 3;
        assert!(
            found.violations.is_empty() && most,
            "seed {seed}: {} acknowledged, {:?}",
            found.acked,
            found.violations
        );
    }
}

//! What is known to be broken, each with a small plan that shows it. Such a test fails when its fault is mended: then
//! strike the row from `src/known.rs` and let the test say that nothing is found.

#![cfg(feature = "sim")]

mod support;

use fluxgate_sim::check;
use fluxgate_sim::known::known;
use fluxgate_sim::plan::{
    DiskCall, DiskFile, Missing, Plan, PlannedFault, Profile, Safety, Says, Setup, Way, event, op,
};
use fluxgate_sim::sim;
use support::{SEEDS, nothing_found};

/// The plan still finds this kind of violation, known as `row`.
#[track_caller]
fn still_found(plan: &Plan, kind: &str, row: &str) {
    let mut found = Vec::new();
    for seed in plan.seed..plan.seed + SEEDS {
        found = sim::run(&Plan { seed, ..plan.clone() }, false).violations;
        if found.iter().any(|v| v.kind == kind && known(plan, v) == Some(row)) {
            return;
        }
    }
    panic!(
        "\"{row}\" is not found here any more. If it has been mended: strike it from sim/src/known.rs, and let this \
         test assert that nothing is found. If only the simulator has changed: look for another plan with \
         PROFILE={:?} make sim, then with SEED= as well. Found: {found:?}",
        plan.profile
    );
}

/// The default policy named and not named: two groups, two lanes. Found by 20 of 400 seeds of its profile, first by
/// seed 11.
#[test]
fn a_policy_that_has_two_names() {
    let plan = Plan {
        setup: Setup { workers: 1, flush_size: 20, ..Setup::default() },
        ops: vec![op(0, 491, 0, &[(0, 3)]), op(0, 494, 0, &[(0, 2)]), op(1, 496, 0, &[(0, 2)]).named()],
        ..Plan::quiet(17, Profile::Alias)
    };
    nothing_found(&plan);
}

/// Two workers, one backend away for 35 s. Found by 177 of 400 seeds of its profile, first by seed 0.
#[test]
fn an_outage_longer_than_the_turn_is_waited_for() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![
            op(3, 15473, 1, &[(5, 401)]).all(),
            op(3, 15582, 1, &[(2, 402), (4, 3)]),
            op(4, 21257, 0, &[(4, 1)]),
            op(3, 25214, 1, &[(4, 400)]).fresh(),
            op(3, 25540, 1, &[(2, 402)]),
        ],
        events: vec![event(1000, PlannedFault::BackendDown { backend: 0, for_ms: 35000 })],
        ..Plan::quiet(22, Profile::LongOutage)
    };
    nothing_found(&plan);
}

/// The logs of former workers lie apart. Found by 164 of 400 seeds of its profile, first by seed 0.
#[test]
fn a_backlog_and_fewer_workers_after_a_start() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![
            op(3, 7736, 1, &[(5, 401)]).all(),
            op(3, 7791, 1, &[(2, 402)]),
            op(1, 10482, 1, &[(3, 200)]),
            op(3, 12607, 1, &[(4, 400)]).fresh(),
            op(3, 12770, 1, &[(2, 402)]),
        ],
        events: vec![event(500, PlannedFault::BackendDown { backend: 0, for_ms: 12000 })],
        ..Plan::quiet(13, Profile::FewerWorkers)
    };
    nothing_found(&plan);
}

/// One worker; the backend looks at a request long after it timed out, and newer points wait for that. Was found by
/// 108 of 400 seeds of its profile, first by seed 1.
#[test]
fn a_request_that_timed_out_is_applied_late() {
    let plan = Plan {
        setup: Setup { workers: 1, flush_size: 3, ..Setup::default() },
        ops: vec![
            op(0, 397, 1, &[(4, 103)]),
            op(0, 430, 0, &[(2, 101)]),
            op(0, 465, 1, &[(0, 0), (2, 102)]),
            op(0, 4635, 1, &[(3, 100)]).fresh(),
            op(3, 4773, 1, &[(4, 402)]),
            op(2, 5102, 1, &[(1, 301)]),
            op(3, 5655, 0, &[(2, 0), (4, 402)]),
            op(3, 5955, 0, &[(1, 403)]).fresh(),
            op(3, 25425, 0, &[(1, 402)]),
            op(0, 25846, 0, &[(2, 0)]).fresh(),
            op(2, 29938, 0, &[(4, 301)]),
        ],
        events: vec![event(1000, PlannedFault::BackendSlow { backend: 1, for_ms: 12000, by_ms: 25000 })],
        ..Plan::quiet(1, Profile::LateApply)
    };
    for seed in plan.seed..plan.seed + 20 {
        nothing_found(&Plan { seed, ..plan.clone() });
    }
}

/// The backend works on a request for up to 25 s; the proxy is killed meanwhile and waits for 2 s after its start.
/// Found by 11 of 3000 seeds, first by seed 274.
#[test]
fn a_request_is_applied_long_after_the_proxy_was_killed() {
    let plan = Plan {
        setup: Setup { missing: Missing::Hold, ..Setup::default() },
        ops: vec![
            op(1, 9875, 1, &[(0, 1)]).long(),
            op(0, 10236, 1, &[(5, 3)]),
            op(2, 10465, 1, &[(5, 303)]),
            op(7, 10466, 1, &[(5, 802)]),
            op(6, 10660, 1, &[(0, 1)]),
        ],
        events: vec![
            event(9310, PlannedFault::BackendSlow { backend: 1, for_ms: 3121, by_ms: 24764 }),
            event(10815, PlannedFault::Crash { power: false, down_ms: 1351, workers: 3 }),
        ],
        ..Plan::quiet(278, Profile::Mixed)
    };
    still_found(&plan, check::ORDER, "A: a request is applied long after its connection broke");
}

/// Records are ordered by wall clocks. Found by 248 of 400 seeds of its profile, first by seed 0.
#[test]
fn the_wall_clock_steps_back_during_an_outage() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![
            op(3, 7736, 1, &[(5, 401)]).all(),
            op(3, 7791, 1, &[(2, 402)]),
            op(1, 10482, 1, &[(3, 200)]),
            op(3, 12607, 1, &[(4, 400)]).fresh(),
            op(3, 12770, 1, &[(2, 402)]),
        ],
        events: vec![event(500, PlannedFault::BackendDown { backend: 0, for_ms: 12000 })],
        ..Plan::quiet(13, Profile::ClockBack)
    };
    nothing_found(&plan);
}

/// One client, no fault: acknowledged, then written again to another worker. Found by 13 of 400 seeds of its profile,
/// first by seed 14.
#[test]
fn the_same_point_again_over_a_new_connection() {
    let plan = Plan {
        setup: Setup { safety: Safety::Os, flush_size: 20, ..Setup::default() },
        ops: vec![
            op(0, 0, 0, &[(0, 1)]),
            op(0, 0, 0, &[(0, 1)]),
            op(0, 0, 0, &[(0, 3)]).fresh(),
            op(0, 0, 0, &[(0, 0)]).fresh(),
            op(0, 0, 0, &[(0, 1)]).fresh(),
            op(0, 0, 0, &[(0, 0)]).fresh(),
            op(0, 0, 0, &[(0, 1)]).fresh(),
            op(0, 0, 0, &[(0, 3)]).fresh(),
            op(0, 0, 0, &[(0, 2)]).fresh(),
            op(0, 0, 0, &[(0, 3)]).fresh(),
            op(0, 0, 0, &[(0, 1)]),
        ],
        ..Plan::quiet(23, Profile::NewConnections)
    };
    nothing_found(&plan);
}

/// No fault: each circle has its own order. Found by 43 of 400 seeds of its profile, first by seed 0.
#[test]
fn racing_writers_leave_circles_different() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![op(2, 407, 0, &[(0, 2)]), op(4, 420, 0, &[(0, 0)]), op(7, 420, 0, &[(0, 0)])],
        ..Plan::quiet(24, Profile::Racing)
    };
    nothing_found(&plan);
}

/// Each circle keeps what the other refuses. Found by 5 of 400 seeds of its profile, first by seed 23.
#[test]
fn two_types_of_a_measurement_at_once() {
    let plan = Plan {
        setup: Setup { safety: Safety::Memory, ..Setup::default() },
        ops: vec![
            op(2, 24, 1, &[(0, 302)]).float(0),
            op(1, 26, 1, &[(0, 203)]),
            op(2, 409, 0, &[(4, 300)]).float(0),
            op(3, 413, 1, &[(4, 402)]),
            op(0, 457, 0, &[(2, 101)]).float(0),
            op(5, 460, 1, &[(4, 602)]),
            op(4, 501, 1, &[(3, 1)]).float(0),
        ],
        ..Plan::quiet(23, Profile::Types)
    };
    nothing_found(&plan);
}

/// Its cursors were not saved while it went on delivering. Found by 134 of 400 seeds of its profile, first by seed 0.
#[test]
fn a_worker_whose_log_has_failed_delivers_again_after_the_start() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![
            op(3, 4091, 1, &[(1, 402)]),
            op(5, 4369, 1, &[(1, 1)]),
            op(5, 4373, 1, &[(5, 3)]).fresh(),
            op(5, 4410, 0, &[(5, 600)]),
            op(2, 4446, 1, &[(1, 2)]),
            op(1, 4771, 0, &[(2, 3), (4, 203)]),
            op(5, 4795, 0, &[(3, 601)]).fresh(),
            op(1, 4930, 0, &[(1, 1)]),
            op(0, 4964, 1, &[(4, 102)]),
            op(4, 5167, 0, &[(1, 1)]),
            op(5, 5680, 0, &[(1, 601)]),
            op(0, 5708, 0, &[(0, 3)]),
            op(0, 5957, 0, &[(5, 103)]),
            op(1, 6039, 0, &[(4, 202)]),
            op(2, 6041, 1, &[(1, 1)]),
            op(5, 6131, 1, &[(3, 603), (4, 603)]),
            op(1, 6288, 0, &[(3, 201)]),
            op(5, 6469, 1, &[(0, 3)]),
            op(3, 9372, 0, &[(2, 401)]),
            op(1, 9428, 1, &[(2, 203)]),
            op(5, 9430, 1, &[(3, 603)]).fresh(),
        ],
        events: vec![event(
            2000,
            PlannedFault::DiskFails { call: DiskCall::Write, file: DiskFile::Segment, worker: 1, skip: 19, errno: 5 },
        )],
        ..Plan::quiet(2, Profile::Poisoned)
    };
    nothing_found(&plan);
}

/// Each worker's cursor is as old as its own last save: one repeats an old value, the other not the newer one. Found by
/// 52 of 400 seeds of its profile, first by seed 12.
#[test]
fn a_crash_with_two_workers_brings_old_values_back() {
    let plan = Plan {
        ops: vec![
            op(0, 140, 1, &[(3, 1)]),
            op(4, 213, 1, &[(1, 501)]),
            op(5, 267, 0, &[(0, 1)]),
            op(3, 690, 0, &[(3, 2)]),
            op(4, 740, 1, &[(5, 2)]),
            op(5, 1085, 0, &[(3, 3)]),
            op(4, 1088, 0, &[(1, 500)]),
            op(4, 1238, 1, &[(4, 503)]).fresh(),
            op(4, 1268, 0, &[(1, 500)]),
        ],
        events: vec![event(478, PlannedFault::Crash { power: true, down_ms: 979, workers: 2 })],
        ..Plan::quiet(40, Profile::Killed)
    };
    nothing_found(&plan);
}

/// A page of something in between is no confirmation of InfluxDB's: the points are held.
#[test]
fn somebody_else_answers_200() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![op(1, 11794, 1, &[(5, 203)])],
        events: vec![event(2000, PlannedFault::BackendSays { backend: 0, for_ms: 10000, db: None, what: Says::Page })],
        ..Plan::quiet(0, Profile::Impostor)
    };
    nothing_found(&plan);
}

/// That others are served meanwhile is no reason to blame its points.
#[test]
fn a_database_that_answers_500_for_long() {
    let plan = Plan {
        ops: vec![op(9, 42000, 1, &[(4, 900)]), op(9, 76000, 0, &[(2, 900)]).fresh()],
        events: vec![event(
            2000,
            PlannedFault::BackendSays { backend: 3, for_ms: 250000, db: Some(1), what: Says::Broken },
        )],
        ..Plan::quiet(22, Profile::Broken)
    };
    nothing_found(&plan);
}

/// Only the points of that database wait.
#[test]
fn a_403_for_one_database() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![op(9, 44000, 1, &[(2, 900)]), op(9, 52000, 0, &[(5, 900)])],
        events: vec![event(
            2000,
            PlannedFault::BackendSays { backend: 0, for_ms: 60000, db: Some(1), what: Says::Forbidden },
        )],
        ..Plan::quiet(0, Profile::Forbidden)
    };
    nothing_found(&plan);
}

/// Acks of other databases do not wait for the cursor that it holds.
#[test]
fn a_database_that_is_gone() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![op(3, 9196, 1, &[(5, 402)]), op(3, 9424, 0, &[(3, 402)]).all()],
        events: vec![event(3000, PlannedFault::DatabaseDropped { backend: None, db: 1 })],
        ..Plan::quiet(3, Profile::Vanished)
    };
    nothing_found(&plan);
}

/// Nothing was written, nothing is in doubt.
#[test]
fn no_descriptor_for_the_next_segment() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![op(3, 19966, 0, &[(1, 400)])],
        events: vec![event(
            1000,
            PlannedFault::DiskFails { call: DiskCall::Create, file: DiskFile::Any, worker: 1, skip: 0, errno: 24 },
        )],
        ..Plan::quiet(0, Profile::Descriptors)
    };
    let found = sim::run(&plan, false).violations;
    assert!(found.is_empty(), "{found:?}");
}

/// A log opens, saves its state and frees its files without new space.
#[test]
fn a_full_disk_and_a_start() {
    for seed in 0..100 {
        let mut plan = Plan::of_profile(seed, Profile::FullDisk);
        let mut same_workers = plan.setup.workers;
        for event in &mut plan.events {
            if let PlannedFault::Crash { workers, .. } = &mut event.fault {
                same_workers = *workers;
            }
        }
        plan.setup.workers = same_workers;
        let found = sim::run(&plan, false).violations;
        let new: Vec<_> = found.iter().filter(|violation| known(&plan, violation).is_none()).collect();
        assert!(new.is_empty(), "seed {seed}: {new:?}");
    }
}

/// What former workers left is appended again, which needs space.
#[test]
fn a_full_disk_and_fewer_workers() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![
            op(5, 6578, 1, &[(5, 601)]),
            op(1, 6602, 1, &[(0, 202)]),
            op(0, 7289, 1, &[(1, 100)]),
            op(3, 8138, 0, &[(3, 402)]),
            op(2, 8153, 1, &[(0, 303)]),
            op(4, 8521, 0, &[(0, 501)]),
        ],
        events: vec![
            event(1000, PlannedFault::BackendDown { backend: 3, for_ms: 8000 }),
            event(5000, PlannedFault::DiskFull { for_ms: 70000 }),
            event(7000, PlannedFault::Crash { power: true, down_ms: 500, workers: 1 }),
        ],
        ..Plan::quiet(7, Profile::FullDisk)
    };
    nothing_found(&plan);
}

/// Appended, but not yet forgotten where it was. Found by 37 of 1000 seeds of its profile, first by seed 14.
#[test]
fn a_crash_while_logs_are_taken_over() {
    let plan = Plan {
        setup: Setup { workers: 3, safety: Safety::Os, flush_size: 20, ..Setup::default() },
        ops: vec![
            op(0, 3696, 0, &[(3, 100)]),
            op(0, 3808, 0, &[(5, 2)]),
            op(4, 4860, 1, &[(2, 502)]),
            op(5, 4869, 1, &[(4, 2)]),
        ],
        events: vec![
            event(500, PlannedFault::BackendDown { backend: 3, for_ms: 25000 }),
            event(11000, PlannedFault::Crash { power: false, down_ms: 100, workers: 1 }),
            event(11107, PlannedFault::Crash { power: false, down_ms: 100, workers: 1 }),
        ],
        ..Plan::quiet(26, Profile::FormerKilled)
    };
    nothing_found(&plan);
}

/// What is dropped is booked before its segment goes. It needs many requests.
#[test]
fn dropped_points_are_booked_before_a_crash() {
    for seed in 0..100 {
        let plan = Plan::of_profile(seed, Profile::DropOldest);
        let found = sim::run(&plan, false).violations;
        let new: Vec<_> = found.iter().filter(|violation| known(&plan, violation).is_none()).collect();
        assert!(new.is_empty(), "seed {seed}: {new:?}");
    }
}

/// It was sent before the drop, timed out, and was repeated before it. A drop waits for it as newer points do.
#[test]
fn a_request_that_timed_out_is_applied_after_a_drop() {
    let plan = Plan {
        ops: vec![op(6, 1930, 0, &[(1, 703)])],
        events: vec![
            event(6, PlannedFault::Stalled { worker: 1, for_ms: 1020 }),
            event(783, PlannedFault::BackendSlow { backend: 2, for_ms: 9658, by_ms: 21014 }),
            event(6131, PlannedFault::Drop { db: 0, measurement: Some(1), again_ms: 0 }),
        ],
        ..Plan::quiet(79, Profile::Dropped)
    };
    nothing_found(&plan);
}

/// Another log had saved that they are settled, their own one not that they were refused. Was found by 4 of 100,000
/// seeds of all kinds, first by seed 200,000,085.
#[test]
fn a_crash_after_a_refusal_counts_it_as_refused() {
    let plan = Plan {
        setup: Setup { workers: 3, ..Setup::default() },
        ops: vec![
            op(3, 1961, 1, &[(0, 403)]),
            op(7, 3320, 0, &[(2, 803)]).float(0),
            op(1, 3951, 0, &[(2, 202)]),
            op(7, 4071, 0, &[(4, 801)]),
            op(0, 4469, 0, &[(3, 100)]).all(),
            op(5, 4578, 0, &[(5, 2)]).float(0),
            op(0, 9022, 0, &[(1, 100)]).fresh(),
            op(0, 9629, 0, &[(0, 0)]).float(0),
            op(5, 9694, 0, &[(0, 3)]).fresh(),
            op(2, 9766, 1, &[(0, 302)]),
            op(6, 10423, 1, &[(2, 700)]).float(0),
            op(3, 10781, 0, &[(3, 400)]).fresh(),
            op(7, 11112, 0, &[(2, 0)]),
            op(0, 11513, 1, &[(2, 1)]).float(0),
            op(3, 12669, 0, &[(5, 402)]),
            op(5, 13061, 0, &[(5, 600)]),
            op(6, 13109, 0, &[(1, 701)]).float(0),
            op(1, 15023, 1, &[(0, 0)]),
        ],
        events: vec![
            event(6589, PlannedFault::DiskSlow { for_ms: 8536, by_ms: 557 }),
            event(9168, PlannedFault::Cut { backend: 0, next_after: Some(440), way: Way::Both }),
            event(13295, PlannedFault::Crash { power: true, down_ms: 2427, workers: 1 }),
        ],
        ..Plan::quiet(200_000_131, Profile::Mixed)
    };
    for seed in plan.seed..plan.seed + 10 {
        nothing_found(&Plan { seed, ..plan.clone() });
    }
}

/// A drop begins while the workers are starting, one of them later than the others: what is acknowledged meanwhile is
/// delivered everywhere after it.
#[test]
fn a_drop_during_a_slow_start_is_the_same_in_all_circles() {
    let plan = Plan {
        setup: Setup { safety: Safety::Os, flush_size: 3, ..Setup::default() },
        ops: vec![op(7, 15181, 1, &[(5, 800)]), op(2, 19448, 0, &[(2, 2)])],
        events: vec![
            event(15233, PlannedFault::Crash { power: true, down_ms: 1960, workers: 3 }),
            event(16925, PlannedFault::DiskSlow { for_ms: 7052, by_ms: 663 }),
            event(19099, PlannedFault::Drop { db: 0, measurement: Some(2), again_ms: 22 }),
        ],
        ..Plan::quiet(200_092_209, Profile::Mixed)
    };
    nothing_found(&plan);
}

/// A drop and, as soon as it is done, the end of the process: cursors are on disk before anything is dropped.
#[test]
fn a_crash_after_a_drop_brings_nothing_back() {
    for (power, workers) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
        for at in [1250, 1270, 1290, 1320] {
            let plan = Plan {
                setup: Setup { workers, ..Setup::default() },
                ops: (0..20).map(|i| op(i % 4, 1000 + 12 * i as u64, 0, &[(1, i)])).collect(),
                events: vec![
                    event(1240, PlannedFault::Drop { db: 0, measurement: Some(1), again_ms: 0 }),
                    event(at, PlannedFault::Crash { power, down_ms: 500, workers }),
                ],
                ..Plan::quiet(1, Profile::Dropped)
            };
            nothing_found(&plan);
        }
    }
}

/// A server that comes back empty does not know types. It waits until other circles have judged a line, also when these
/// have had nothing to do.
#[test]
fn an_empty_server_learns_types_from_circles_that_are_idle() {
    let plan = Plan {
        setup: Setup { flush_size: 3, ..Setup::default() },
        ops: vec![op(1, 2262, 1, &[(0, 202)]), op(3, 5874, 1, &[(0, 403)]).float(0)],
        events: vec![event(3000, PlannedFault::BackendEmptied { backend: 1, for_ms: 13 })],
        ..Plan::quiet(7_000_007, Profile::Emptied)
    };
    nothing_found(&plan);
}

/// Lines of a request are known to be refused; the server lacks the database; when it has it more of them are known.
#[test]
fn an_empty_server_is_not_sent_what_was_refused_while_its_database_was_made() {
    let plan = Plan {
        ops: vec![
            op(0, 1680, 0, &[(0, 102), (3, 102)]),
            op(0, 3202, 1, &[(0, 102), (5, 101)]).float(0),
            op(2, 3259, 0, &[(0, 0)]).all().float(0),
            op(2, 3958, 0, &[(3, 3)]).float(0),
            op(3, 3987, 1, &[(3, 400)]),
            op(5, 4375, 1, &[(2, 603)]),
            op(4, 4465, 0, &[(1, 501)]).float(0),
            op(3, 4605, 0, &[(1, 403)]).fresh(),
        ],
        events: vec![event(3000, PlannedFault::BackendEmptied { backend: 0, for_ms: 2631 })],
        ..Plan::quiet(7_000_237, Profile::Emptied)
    };
    nothing_found(&plan);
}

/// What a backend refuses is told before its courier is seen to be past it, also when the log's worker is slow.
#[test]
fn an_empty_server_learns_types_while_a_worker_stalls() {
    let plan = Plan {
        setup: Setup { safety: Safety::Os, flush_size: 20, ..Setup::default() },
        ops: vec![
            op(4, 2225, 1, &[(1, 503)]).long().float(0),
            op(3, 5385, 1, &[(2, 400)]),
            op(3, 5414, 1, &[(1, 402)]).fresh(),
        ],
        events: vec![
            event(3000, PlannedFault::BackendEmptied { backend: 0, for_ms: 19 }),
            event(5420, PlannedFault::Stalled { worker: 1, for_ms: 76 }),
        ],
        ..Plan::quiet(7_000_227, Profile::Emptied)
    };
    nothing_found(&plan);
}

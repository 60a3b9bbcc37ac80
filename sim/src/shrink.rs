//! Cuts a plan down to what a finding needs: events, requests and points are taken away as long as it is found without
//! them.

use crate::plan::{Connection, Level, Plan};
use crate::sim;

/// Runs it may take.
const RUNS_MAX: usize = 1500;
/// A plan that lost something runs otherwise: it gets so many chances under other seeds.
const CHANCES: u64 = 3;

/// The smallest plan found in which `is_it` still holds for one of the violations.
pub fn shrink(plan: &Plan, is_it: &dyn Fn(&Plan, &crate::Violation) -> bool) -> Plan {
    let mut runs = 0;
    let mut best = plan.clone();
    let mut attempt = |mut candidate: Plan, best: &mut Plan| {
        for chance in 0..CHANCES {
            if runs >= RUNS_MAX {
                return false;
            }
            runs += 1;
            candidate.seed = best.seed + chance;
            if sim::run(&candidate, false).violations.iter().any(|v| is_it(&candidate, v)) {
                *best = candidate;
                return true;
            }
        }
        false
    };
    loop {
        let size = best.size();
        remove(&mut best, &mut attempt, |plan| plan.events.len(), |plan, range| drop(plan.events.drain(range)));
        remove(&mut best, &mut attempt, |plan| plan.ops.len(), |plan, range| drop(plan.ops.drain(range)));
        let mut op = 0;
        while op < best.ops.len() {
            let mut point = 0;
            while best.ops[op].points.len() > 1 && point < best.ops[op].points.len() {
                let mut less = best.clone();
                less.ops[op].points.remove(point);
                if !attempt(less, &mut best) {
                    point += 1;
                }
            }
            for simpler in [Simpler::Level, Simpler::Policy, Simpler::Connection] {
                let mut less = best.clone();
                let changed = match simpler {
                    Simpler::Level => std::mem::replace(&mut less.ops[op].level, Level::Default) != Level::Default,
                    Simpler::Policy => std::mem::replace(&mut less.ops[op].policy, 0) != 0,
                    Simpler::Connection => {
                        std::mem::replace(&mut less.ops[op].connection, Connection::Kept) != Connection::Kept
                    }
                };
                if changed {
                    attempt(less, &mut best);
                }
            }
            op += 1;
        }
        if best.size() >= size {
            return best;
        }
    }
}

enum Simpler {
    Level,
    Policy,
    Connection,
}

fn remove(
    best: &mut Plan,
    attempt: &mut dyn FnMut(Plan, &mut Plan) -> bool,
    len: impl Fn(&Plan) -> usize,
    cut: impl Fn(&mut Plan, std::ops::Range<usize>),
) {
    let mut step = len(best).div_ceil(2);
    while step > 0 {
        let mut at = 0;
        while at < len(best) {
            let mut less = best.clone();
            let end = (at + step).min(len(best));
            cut(&mut less, at..end);
            if !attempt(less, best) {
                at += step;
            }
        }
        step /= 2;
    }
}

//! `fluxgate-sim`: runs seeds and says what they found. Ends with status 1 when that is not known.
//!
//! Environment: `SEEDS` (how many, default 1000) or `MINUTES`; `FIRST` (the first seed, default 0); `PROFILE` (a name
//! in `plan.rs`, default: the seed decides); `SOON` (ends with the first finding that is not known); `THREADS`; `SEED`
//! (that one only, with its trace and what the first finding that is not known shrinks to, or the first of `KIND`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fluxgate_sim::known::known;
use fluxgate_sim::plan::{PROFILES, Plan, Profile};
use fluxgate_sim::{Violation, shrink, sim};

/// A sixth of a run's time would else go to the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a run has freed is kept for the next one, which has another thread.
fn keep_memory() {
    /// `mi_option_purge_delay`, which has no name in Rust.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: it may be set at any time; -1 is "never".
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| end(format!("{name}={text} is not a whole number"))))
}

fn end(why: impl Display) -> ! {
    eprintln!("fluxgate-sim: {why}");
    std::process::exit(2);
}

fn plan(seed: u64, profile: Option<Profile>) -> Plan {
    profile.map_or_else(|| Plan::of_seed(seed), |profile| Plan::of_profile(seed, profile))
}

/// What a kind of finding was found by.
struct Found {
    first: u64,
    count: u64,
    violation: Violation,
}

fn main() {
    keep_memory();
    let profile = std::env::var("PROFILE").ok().filter(|name| !name.is_empty()).map(|name| {
        let named = PROFILES.iter().find(|profile| format!("{profile:?}") == name);
        *named.unwrap_or_else(|| end(format!("PROFILE={name}: there are {PROFILES:?}")))
    });
    if let Some(seed) = number("SEED") {
        return replay(&plan(seed, profile));
    }
    let first = number("FIRST").unwrap_or(0);
    let minutes = number("MINUTES");
    let seeds = minutes.map_or_else(|| number("SEEDS").unwrap_or(1000), |_| u64::MAX - first);
    let until = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let threads =
        number("THREADS").unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let soon = number("SOON").is_some();
    // A panic is a finding, told with the others.
    std::panic::set_hook(Box::new(|_| {}));
    let (begun, cpu) = (Instant::now(), cpu_time());
    let next = AtomicU64::new(first);
    let found: Mutex<BTreeMap<(bool, &str, &str), Found>> = Mutex::default();
    let (writes, days, digest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    let stop = soon && found.lock().is_ok_and(|found| found.keys().any(|(known, ..)| !known));
                    if stop || seed >= first + seeds || until.is_some_and(|until| begun.elapsed() > until) {
                        next.fetch_sub(1, Relaxed);
                        return;
                    }
                    let plan = plan(seed, profile);
                    let outcome = sim::run(&plan, false);
                    writes.fetch_add(outcome.writes as u64, Relaxed);
                    days.fetch_add(outcome.lasted.as_secs(), Relaxed);
                    digest.fetch_add(outcome.digest, Relaxed);
                    let mut of_seed = BTreeMap::new();
                    for violation in outcome.violations {
                        let row = known(&plan, &violation);
                        of_seed.entry((row.is_some(), violation.kind, row.unwrap_or("new"))).or_insert(violation);
                    }
                    let mut found = found.lock().expect("nobody panics holding it");
                    for (key, violation) in of_seed {
                        let entry = found.entry(key).or_insert(Found { first: seed, count: 0, violation });
                        entry.first = entry.first.min(seed);
                        entry.count += 1;
                    }
                }
            });
        }
    });
    let done = next.into_inner() - first;
    let cpu = cpu_time().saturating_sub(cpu);
    let found = found.into_inner().expect("nobody panics holding it");
    for ((_, kind, row), found) in found.iter().rev() {
        println!("{kind} ({row}): {} of {done} seeds, first {}: {}", found.count, found.first, found.violation.text);
    }
    println!(
        "{done} seeds from {first}, {} writes, {:.1} hours of virtual time, {:.1} s of CPU, {:.2} ms a seed, \
         digest {:016x}",
        writes.into_inner(),
        days.into_inner() as f64 / 3600.0,
        cpu.as_secs_f64(),
        1000.0 * cpu.as_secs_f64() / done.max(1) as f64,
        digest.into_inner(),
    );
    let new: Vec<_> = found.iter().filter(|((known, ..), _)| !known).collect();
    for ((_, kind, _), found) in &new {
        let profile = profile.map_or(String::new(), |profile| format!("PROFILE={profile:?} "));
        eprintln!("NEW: {kind}: {profile}SEED={} make sim", found.first);
    }
    if let Some(((_, kind, _), first)) = new.first() {
        if soon {
            std::process::exit(1);
        }
        tell_shrunk(&plan(first.first, profile), kind, false);
        std::process::exit(1);
    }
}

/// Runs one plan with its trace, and cuts it down if it finds something.
fn replay(plan: &Plan) {
    let outcome = sim::run(plan, true);
    eprintln!(
        "{} writes, {} acknowledged, {:?}, digest {:016x}",
        outcome.writes, outcome.acked, outcome.lasted, outcome.digest
    );
    for violation in &outcome.violations {
        eprintln!("{} ({}): {}", violation.kind, known(plan, violation).unwrap_or("new"), violation.text);
    }
    std::panic::set_hook(Box::new(|_| {}));
    let wanted = std::env::var("KIND").unwrap_or_default();
    let is_it = |v: &&Violation| if wanted.is_empty() { known(plan, v).is_none() } else { v.kind == wanted };
    let new = outcome.violations.iter().find(is_it);
    if let Some(violation) = new.or(outcome.violations.first()) {
        let small = tell_shrunk(plan, violation.kind, known(plan, violation).is_some());
        println!("what happens then:");
        for found in sim::run(&small, true).violations {
            println!("{}: {}", found.kind, found.text);
        }
    }
}

/// Prints and returns the smallest plan that shows the same.
fn tell_shrunk(plan: &Plan, kind: &str, is_known: bool) -> Plan {
    let same =
        |plan: &Plan, violation: &Violation| violation.kind == kind && known(plan, violation).is_some() == is_known;
    let small = shrink::shrink(plan, &same);
    eprintln!("{kind}: this is enough (in the form of tests/known_faults.rs):\n{}", small.code());
    small
}

/// Of the whole process.
fn cpu_time() -> Duration {
    // SAFETY: all-zero bytes are a valid rusage, which is made of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable for the length of the call.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

//! A machine in memory: tasks, virtual time, a network, disks and clocks, all of it in one thread and under one seed.
//!
//! The program under test runs on it unchanged: its runtime's functions are these (`dataplane/src/io/sim.rs`). Same
//! seed, same calls: same run. Nothing here knows what the program does; faults are switched on and off by whoever
//! writes the world.
//!
//! - `exec`: tasks in groups (a worker of one life of a process is a group), timers, stalls, kills;
//! - `net`: hosts, listeners, streams; delays, cuts, blocked and half-open links;
//! - `disk`: one disk per host; what was not synced may be lost or torn, calls fail, space runs out;
//! - `clock`: one wall clock per host, which may be stepped.

pub mod clock;
pub mod disk;
pub mod exec;
mod flag;
pub mod net;
mod rng;
mod timers;

pub use exec::{Group, HostId, Machine};
pub use flag::Flag;
pub use rng::Rng;

/// Whether this deliberate fault is being tried: `sim/mutants.txt` asks, in a copy of the program.
pub fn mutant(name: &str) -> bool {
    static TRIED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    TRIED.get_or_init(|| std::env::var("MUTANT").ok()).as_deref() == Some(name)
}

//! Faults of backends, disk, machine and proxy, against the real binary. One file, one promise; after each fault the
//! ledger must add up and the backends must hold what was acknowledged.
//!
//! One program for all files, since linking takes longer than most of the tests.

mod cache_files;
mod circles;
mod control;
mod crash_rounds;
mod damage;
mod dead_backend;
mod descriptors;
mod disk_errors;
mod disk_full;
mod former_workers;
mod graceful_stop;
mod kill_nine;
mod last_write_wins;
mod log_lines;
mod lost_folder;
mod many_names;
mod memory;
mod memory_loads;
mod order;
mod parked;
mod power_cut;
mod refusals;
mod slow_clients;
#[path = "../support/mod.rs"]
mod support;

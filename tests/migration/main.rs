//! Promises about circles whose backends change and about migrations, one file per promise, over the real binary and
//! real servers. Writes and queries go on meanwhile. In the end every circle holds every acknowledged point, at the
//! backend that owns it.

#[path = "../support/mod.rs"]
mod support;

mod clear;
mod cluster;
mod command;
mod expired;
mod interrupted;
mod leaving;
mod lost;
mod overwritten;
mod peers;
mod rebalance;
mod recovery;
mod removals;
mod transition;
mod transition_at_run_time;

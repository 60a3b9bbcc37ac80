//! Promises about migrations, one file per promise, over the real binary and real servers: under writes and queries, afterwards every
//! circle holds what was acknowledged, point by point, at the backend that owns it.

#[path = "../support/mod.rs"]
mod support;

mod clear;
mod command;
mod house;
mod interrupted;
mod leaving;
mod lost;
mod overwritten;
mod peers;
mod rebalance;
mod recovery;
mod removals;

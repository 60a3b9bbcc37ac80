//! The tasks of a worker: who runs, and when. This is the top of the data plane.
//!
//! `run` is a worker's life and starts the others: `accept` takes connections, `conn` serves one of them, `errand` does
//! what the control thread asks for, `delivery` starts the couriers. Not here: what happens to a request (`write`,
//! `query`).

mod accept;
mod conn;
mod delivery;
mod errand;
pub mod run;

//! The tasks of a worker. This is the top layer of the data plane.
//!
//! `run` starts and stops a worker. `accept` takes connections, `conn` serves one connection, `errand` does what the
//! control thread asks for, `delivery` starts the couriers, `offer` gives other workers' couriers the logs of this one.
//! Not here: what happens to a request (`write`, `query`).

mod accept;
mod conn;
mod delivery;
mod errand;
mod offer;
pub mod run;

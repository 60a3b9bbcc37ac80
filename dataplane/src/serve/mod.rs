//! The tasks of a worker. This is the top layer of the data plane.
//!
//! `run` starts and stops a worker. `accept` takes connections, `conn` serves one connection, `udp` receives packets,
//! `errand` does what the control thread asks for, `delivery` starts the couriers, `offer` gives the couriers of other
//! workers the logs of this one.
//! Not here: what happens to a request (`write`, `query`).

mod accept;
mod conn;
mod delivery;
mod errand;
mod offer;
pub mod run;
mod side;
mod udp;

//! Promise: a query that one backend answers alone is answered as that backend answers it, streamed, and never silently
//! cut.
//!
//! Over the real binary: `as_influxdb` compares with real servers, `backend` is a server that does what a test says,
//! `faults` and `passing` use it. Not here: queries over several backends.

mod as_influxdb;
mod backend;
mod faults;
mod passing;
#[path = "../support/mod.rs"]
mod support;

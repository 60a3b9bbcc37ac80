//! Where a query goes: what its statements reach, which of them are allowed, and which backend answers best.
//!
//! Pure functions over parsed statements and a placement; `control` uses them too. Not here: parsing (`influxql`),
//! asking a backend (`query::forward`).

pub(crate) mod access;
pub mod choose;
pub mod reach;
pub(crate) mod route;

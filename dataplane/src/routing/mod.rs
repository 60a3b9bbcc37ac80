//! Where a query goes: which data its statements read, whether they are allowed, and which backend answers best.
//!
//! Pure functions over parsed statements and a placement, also used by `control`. Not here: parsing (`influxql`),
//! asking a backend (`query::forward`).

pub(crate) mod access;
pub mod choose;
pub(crate) mod flux;
pub mod reach;
pub(crate) mod route;

//! One client request as its connection sees it: received bytes, the body, the reasons to refuse it.
//!
//! `conns` holds all connections of a worker, `inbox` the received bytes of one, `body` reads a body through it,
//! `whole` keeps one as a whole, and `pool` lends memory for bodies. Only `reject` turns an error into a status and a
//! text; `api` puts it in the words of InfluxDB 2. Not here: parsing (`http`), what a request does (`write`, `query`).

pub mod api;
pub mod body;
pub mod conns;
pub mod inbox;
pub mod pool;
pub mod refusals;
pub mod reject;
pub mod whole;

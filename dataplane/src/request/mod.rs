//! A client's request as its connection sees it: bytes received, the body, and why a request is refused.
//!
//! `conns` knows all connections of a worker, `inbox` holds what one of them has received, `body` reads a body through
//! it, and `pool` lends the buffers for that. `reject` is the only place where an error becomes a status and a text.
//! Not here: parsing (`http`), what is done with a request (`write`, `query`).

pub mod body;
pub mod conns;
pub mod inbox;
pub mod pool;
pub mod refusals;
pub mod reject;

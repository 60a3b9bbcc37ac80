//! Promise: influx-proxy is stopped and fluxgate started with the same file in the same place, and nothing changes.

#[path = "../support/mod.rs"]
mod support;

mod backslashes;
mod guide;
mod policies;
mod relay;
mod rollback;

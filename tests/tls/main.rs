//! Promise: TLS changes nothing but who can listen. Clients and backends get what they get without it.

mod backends;
mod certificates;
mod clients;
mod command;
#[path = "../support/mod.rs"]
mod support;

//! Who is where, and what things are called: hosts, addresses, databases, measurements.

use std::net::SocketAddr;

use fluxgate_machine::{HostId, net};

use crate::setup::Point;

pub const PROXY: HostId = HostId(1);
pub const CLIENTS: HostId = HostId(2);
const FIRST_BACKEND: u16 = 3;

/// How many hosts there are with so many backends.
pub fn count(backends: usize) -> u16 {
    FIRST_BACKEND + backends as u16
}

pub fn backend_host(backend: usize) -> HostId {
    HostId(FIRST_BACKEND + backend as u16)
}

pub fn backend_addr(backend: usize) -> SocketAddr {
    net::address(backend_host(backend), 8086)
}

pub fn proxy_addr() -> SocketAddr {
    net::address(PROXY, 7076)
}

pub fn database(number: usize) -> String {
    format!("db{number}")
}

pub fn measurement(number: usize) -> String {
    format!("m{number}")
}

/// A point with its database: what has one value on each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub db: usize,
    pub measurement: usize,
    pub number: usize,
}

pub fn place(db: usize, point: Point) -> Place {
    Place { db, measurement: point.measurement, number: point.number }
}

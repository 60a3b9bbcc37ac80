//! Who is where, and what things are called: hosts, addresses, databases, measurements.

use std::cmp::Ordering;
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

/// The number of a database of ours.
pub fn number_of(database: &str) -> usize {
    database.trim_start_matches("db").parse().expect("a database of ours")
}

pub fn measurement(number: usize) -> String {
    format!("m{number}")
}

/// A point with its database: what has one value on each backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub db: usize,
    pub measurement: usize,
    pub number: usize,
}

impl Place {
    /// As one number, for maps are searched by it all the time. Databases and measurements are few.
    fn rank(self) -> u64 {
        (self.db as u64) << 48 | (self.measurement as u64) << 32 | self.number as u64
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

pub fn place(db: usize, point: Point) -> Place {
    Place { db, measurement: point.measurement, number: point.number }
}

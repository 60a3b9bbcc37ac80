//! The backends of the demo: real servers if InfluxDB is installed, otherwise stand-ins.

use std::io;

use crate::lab::influxd::Influxd;
use crate::lab::serials::Serials;
use crate::lab::stand_in::StandIn;

pub enum Backend {
    Influxd(Box<Influxd>),
    StandIn(StandIn),
}

impl Backend {
    /// Starts an empty server with one database.
    pub fn start(standin: bool, db: &str) -> io::Result<Self> {
        if standin {
            return Ok(Self::StandIn(StandIn::with_databases(&[db])?));
        }
        let server = Influxd::start()?;
        server.create_database(db)?;
        Ok(Self::Influxd(Box::new(server)))
    }

    pub fn url(&self) -> String {
        match self {
            Self::Influxd(server) => server.url(),
            Self::StandIn(server) => server.url(),
        }
    }

    pub fn kill(&mut self) {
        match self {
            Self::Influxd(server) => server.kill(),
            Self::StandIn(server) => server.stop(),
        }
    }

    pub fn restart(&mut self) -> io::Result<()> {
        match self {
            Self::Influxd(server) => server.restart(),
            Self::StandIn(server) => server.restart(),
        }
    }

    /// The number of different points in `db`.
    pub fn points(&self, db: &str) -> io::Result<u64> {
        match self {
            Self::Influxd(server) => server.points(db),
            Self::StandIn(server) => Ok(server.serials(db).len()),
        }
    }

    /// The numbers of these points, if the server can list them.
    pub fn serials(&self, db: &str) -> Option<Serials> {
        match self {
            Self::Influxd(_) => None,
            Self::StandIn(server) => Some(server.serials(db)),
        }
    }
}

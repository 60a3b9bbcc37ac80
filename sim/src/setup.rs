//! What a run is set up with, and what its clients write: the parts of a plan that everybody may know.

/// Measurements of a database that are written to.
pub const MEASUREMENTS: usize = 6;

/// What a 204 promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    Memory,
    Os,
    Disk,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Reject,
    DropOldest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Create,
    Hold,
}

/// One request of a client. A client's requests follow one another.
#[derive(Clone, Debug)]
pub struct Op {
    pub client: usize,
    /// Not before.
    pub at: u64,
    pub db: usize,
    /// How the policy is named: 0 not at all, 1 by its name.
    pub policy: usize,
    pub connection: Connection,
    pub level: Level,
    /// Its first line is longer than a block of the disk.
    pub long: bool,
    /// What it writes.
    pub points: Vec<Point>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    Kept,
    /// A new one, which may be another worker's.
    Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Default,
    Any,
    All,
}

/// A place that a value is written to; the value is the number of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub measurement: usize,
    pub number: usize,
    /// Written as a float, where others write integers.
    pub float: bool,
}

/// A request over a kept connection that does not name its policy; points are (measurement, number).
pub fn op(client: usize, at: u64, db: usize, points: &[(usize, usize)]) -> Op {
    let points = points.iter().map(|&(measurement, number)| Point { measurement, number, float: false }).collect();
    Op { client, at, db, policy: 0, connection: Connection::Kept, level: Level::Default, long: false, points }
}

impl Op {
    /// Over a new connection.
    pub fn fresh(self) -> Self {
        Self { connection: Connection::Fresh, ..self }
    }

    /// Names the policy.
    pub fn named(self) -> Self {
        Self { policy: 1, ..self }
    }

    /// Is synced, whatever is configured.
    pub fn any(self) -> Self {
        Self { level: Level::Any, ..self }
    }

    /// Waits for all circles.
    pub fn all(self) -> Self {
        Self { level: Level::All, ..self }
    }

    /// Its first line is longer than a block of the disk.
    pub fn long(self) -> Self {
        Self { long: true, ..self }
    }

    /// The point at this position is a float.
    pub fn float(mut self, at: usize) -> Self {
        self.points[at].float = true;
        self
    }

    pub fn code(&self) -> String {
        let points: Vec<_> = self.points.iter().map(|p| (p.measurement, p.number)).collect();
        let mut out = format!("op({}, {}, {}, &{points:?})", self.client, self.at, self.db);
        let marks = [
            (self.connection == Connection::Fresh, ".fresh()"),
            (self.policy != 0, ".named()"),
            (self.level == Level::All, ".all()"),
            (self.level == Level::Any, ".any()"),
            (self.long, ".long()"),
        ];
        out.extend(marks.iter().filter(|(has, _)| *has).map(|(_, mark)| *mark));
        let floats = self.points.iter().enumerate().filter(|(_, p)| p.float);
        out.extend(floats.map(|(at, _)| format!(".float({at})")));
        out
    }
}

pub const DATABASES: usize = 2;

/// How the proxy and its backends are set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub workers: usize,
    pub circles: usize,
    pub backends_per_circle: usize,
    pub safety: Safety,
    pub full: Full,
    pub missing: Missing,
    pub flush_size: usize,
    pub backlog_kib: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            workers: 2,
            circles: 2,
            backends_per_circle: 2,
            safety: Safety::Disk,
            full: Full::Reject,
            missing: Missing::Create,
            flush_size: 10_000,
            backlog_kib: 12 << 10,
        }
    }
}

impl Setup {
    pub fn backends(&self) -> usize {
        self.circles * self.backends_per_circle
    }
}

//! Circles and their backends, as configured; fixed from start to stop.

/// Number of a backend, counted over all circles in configuration order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u16);

impl BackendId {
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One InfluxDB server, or anything that takes `/write` and `/ping`.
#[derive(Clone)]
pub struct Backend {
    pub id: BackendId,
    /// Unique over all circles; names the backend in logs, metrics and on disk.
    pub name: String,
    /// As written in the configuration (it may be a member key of the ring).
    pub url: String,
    /// Position of its circle in [`Topology::circles`].
    pub circle: usize,
    /// Position in its circle.
    pub index: usize,
    /// Plain text; empty = no authentication towards this backend. Never logged.
    pub username: String,
    /// Plain text. Never logged.
    pub password: String,
    /// Not used for reads while another backend can answer.
    pub write_only: bool,
    /// On its way out: not on the ring, so that it takes no measurement; still delivered to, probed, and read from as the former
    /// owner of what has not been moved.
    pub leaving: bool,
}

/// Without user name and password, so that no log line can show them.
impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("url", &self.url)
            .field("circle", &self.circle)
            .field("index", &self.index)
            .field("write_only", &self.write_only)
            .field("leaving", &self.leaving)
            .finish_non_exhaustive()
    }
}

/// A full copy of all data, spread over its backends.
#[derive(Clone, Debug)]
pub struct Circle {
    pub name: String,
    pub backends: Vec<BackendId>,
}

impl Circle {
    /// Those on the ring, in order: all but the leaving ones.
    pub fn staying<'a>(&self, topology: &'a Topology) -> impl Iterator<Item = &'a Backend> {
        self.backends.iter().map(|&id| topology.backend(id)).filter(|backend| !backend.leaving)
    }
}

/// All circles and backends.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    pub circles: Vec<Circle>,
    /// Indexed by [`BackendId`].
    pub backends: Vec<Backend>,
}

impl Topology {
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.index()]
    }

    pub fn by_name(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|b| b.name == name)
    }
}

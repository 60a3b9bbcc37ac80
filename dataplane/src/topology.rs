//! Circles and their backends, as configured. They do not change while the process runs.

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
    /// As written in the configuration (it may be the backend's key on the ring).
    pub url: String,
    /// Position of its circle in [`Topology::circles`].
    pub circle: usize,
    /// Position in its circle.
    pub index: usize,
    /// Plain text; empty = no authentication to this backend. Never logged.
    pub username: String,
    /// Plain text. Never logged.
    pub password: String,
    /// Not used for reads while another backend can answer.
    pub write_only: bool,
    /// Whether what it says of databases and policies counts; None = by what it says. With `false` it gets writes and
    /// probes, and no statement.
    pub catalog: Option<bool>,
    /// Being removed from its circle: not on the ring, so it gets no new measurement. It still gets deliveries and
    /// probes, and is read from as the former owner of what has not been moved.
    pub leaving: bool,
}

impl Backend {
    /// A backend without credentials that is read from and does not leave. [`Topology::add_circle`] sets its numbers.
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            id: BackendId(0),
            name: name.into(),
            url: url.into(),
            circle: 0,
            index: 0,
            username: String::new(),
            password: String::new(),
            write_only: false,
            catalog: None,
            leaving: false,
        }
    }

    /// Statements may be sent to it.
    pub fn takes_statements(&self) -> bool {
        self.catalog != Some(false)
    }
}

/// Without user name and password, so that they cannot get into a log line.
impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("url", &self.url)
            .field("circle", &self.circle)
            .field("index", &self.index)
            .field("write_only", &self.write_only)
            .field("catalog", &self.catalog)
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
    /// The backends on the ring, in order: all that are not leaving.
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
    /// Appends a circle. Its backends get the next numbers.
    pub fn add_circle(&mut self, name: impl Into<String>, backends: impl IntoIterator<Item = Backend>) {
        let (circle, first) = (self.circles.len(), self.backends.len());
        self.backends.extend(backends);
        let mut ids = Vec::with_capacity(self.backends.len() - first);
        for (index, backend) in self.backends[first..].iter_mut().enumerate() {
            backend.id = BackendId(u16::try_from(first + index).expect("BACKENDS_MAX keeps numbers small"));
            (backend.circle, backend.index) = (circle, index);
            ids.push(backend.id);
        }
        self.circles.push(Circle { name: name.into(), backends: ids });
    }

    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.index()]
    }

    pub fn by_name(&self, name: &str) -> Option<&Backend> {
        self.backends.iter().find(|b| b.name == name)
    }

    /// For tests: circles with these numbers of backends. The backends are b0, b1 and so on, at http://b0 ...
    #[cfg(test)]
    pub fn of_sizes(sizes: &[usize]) -> Self {
        let mut topology = Self::default();
        for &size in sizes {
            let (circle, first) = (topology.circles.len(), topology.backends.len());
            let backend = |number| Backend::new(format!("b{number}"), format!("http://b{number}"));
            topology.add_circle(format!("c{circle}"), (first..first + size).map(backend));
        }
        topology
    }
}

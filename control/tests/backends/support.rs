//! Backends for tests: a real influxd, and stand-ins that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use fluxgate_control::influx::client::Client;
use fluxgate_control::query::QueryShared;
use fluxgate_control::query::workers::Workers;
use fluxgate_control::transition::Transitions;
use fluxgate_control::{Control, ControlSettings, Dialect};
use fluxgate_dataplane::handoff::{self, AdminRequest, AdminResponse, QueryRequest, ToControl, ToWorker, WorkerEnd};
use fluxgate_dataplane::order::RecordOrder;
use fluxgate_dataplane::placement::{HashKey, Placement, PlacementSettings, RingHash};
use fluxgate_dataplane::settings::{Credentials, QuerySettings};
use fluxgate_dataplane::stats::Stats;
use fluxgate_dataplane::tls::Trust;
use fluxgate_dataplane::topology::{Backend, BackendId, Topology};
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(20);

/// A real InfluxDB with an empty data directory; killed when dropped.
pub struct Influxd {
    child: Child,
    dir: tempfile::TempDir,
    /// For HTTP, then the one for backups, which influxd requires.
    ports: [(Socket, u16); 2],
    index: &'static str,
}

impl Influxd {
    pub fn start() -> Self {
        Self::with_index("inmem")
    }

    /// `inmem` (InfluxDB's default) or `tsi1`.
    pub fn with_index(index: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports = [kept_port(), kept_port()];
        let mut influxd = Self { child: spawn(&dir, &ports, index), dir, ports, index };
        influxd.wait_until_up();
        influxd
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0].1)
    }

    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts again with the same data and port.
    pub fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.ports, self.index);
        self.wait_until_up();
    }

    pub fn client(&self) -> Client {
        Client::new(&topology(&[vec![self.url()]]).backends[0], &Trust::default())
    }

    /// Runs a statement that must succeed; returns its rows.
    pub fn run(&self, statement: &str) -> Vec<Vec<String>> {
        self.run_in("", statement)
    }

    /// As `run`, for a statement that does not name its database.
    pub fn run_in(&self, db: &str, statement: &str) -> Vec<Vec<String>> {
        let answers = self.client().query_in(db, statement, Duration::from_secs(10)).unwrap();
        let text = |value: &str| serde_json::from_str(value).unwrap_or_else(|_| value.to_owned());
        let mut rows = Vec::new();
        for answer in answers {
            assert_eq!(answer.error, None, "{statement}");
            rows.extend(answer.series.iter().flat_map(|s| &s.rows).map(|row| row.values().map(text).collect()));
        }
        rows
    }

    pub fn write(&self, db: &str, lines: &str) {
        ureq::post(format!("{}/write?db={db}", self.url())).send(lines).unwrap();
    }

    fn wait_until_up(&mut self) {
        wait_for("influxd", || self.client().ping(Duration::from_secs(1)).is_ok().then_some(()));
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        // The test may have stopped it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &tempfile::TempDir, ports: &[(Socket, u16); 2], index: &str) -> Child {
    let path = |name| dir.path().join(name);
    Command::new("influxd")
        .env("INFLUXDB_HTTP_BIND_ADDRESS", format!("127.0.0.1:{}", ports[0].1))
        .env("INFLUXDB_BIND_ADDRESS", format!("127.0.0.1:{}", ports[1].1))
        .env("INFLUXDB_META_DIR", path("meta"))
        .env("INFLUXDB_DATA_DIR", path("data"))
        .env("INFLUXDB_DATA_WAL_DIR", path("wal"))
        .env("INFLUXDB_DATA_INDEX_VERSION", index)
        .env("INFLUXDB_REPORTING_DISABLED", "true")
        .env("INFLUXDB_MONITOR_STORE_ENABLED", "false")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("influxd is installed")
}

/// A free port; influxd cannot choose one itself. A server may listen there, but nobody else is given the port while
/// the socket lives, also while the server is down.
fn kept_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A server that counts its requests and gives `answer` to each. None = it reads and stays silent.
pub struct StandIn {
    pub addr: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl StandIn {
    pub fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let stand_in = Self { addr: listener.local_addr().unwrap(), requests: Arc::clone(&requests) };
        thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                requests.fetch_add(1, SeqCst);
                match answer {
                    None => silent.push(stream),
                    Some(answer) => drop(thread::spawn(move || {
                        // One read is enough for such small requests. The answer ends the connection.
                        let _ = stream.read(&mut [0; 4096]);
                        let _ = write!(stream, "HTTP/1.1 {answer}");
                    })),
                }
            }
        });
        stand_in
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

pub fn topology(circles: &[Vec<String>]) -> Topology {
    let mut topology = Topology::default();
    for (circle, urls) in (1..).zip(circles) {
        let backend = |(index, url): (usize, &String)| Backend::new(format!("influxdb-{circle}-{index}"), url);
        topology.add_circle(format!("circle-{circle}"), (1..).zip(urls).map(backend));
    }
    topology
}

/// A query in `db`, with InfluxDB's defaults.
pub fn query(db: &str) -> QueryRequest {
    QueryRequest { db: db.to_owned(), ..QueryRequest::default() }
}

pub fn placement(topology: &Topology) -> Placement {
    let settings = PlacementSettings {
        hash_key: HashKey::Idx,
        vnode_size: 256,
        shard_key: "%db,%mm".to_owned(),
        hash: RingHash::Crc32,
    };
    Placement::new(topology, &settings)
}

/// What queries over these backends share. No worker exists to write or to hold couriers.
pub fn shared(topology: Topology) -> QueryShared {
    let topology = Arc::new(topology);
    let stats = Arc::new(Stats::new(1, topology.backends.len(), topology.circles.len()));
    let placement = Arc::new(placement(&topology));
    let order = Arc::new(RecordOrder::new(1, topology.backends.len(), Duration::ZERO));
    QueryShared::new(
        &topology,
        &placement,
        &stats,
        &order,
        QuerySettings::default(),
        Workers::absent(),
        &Trust::default(),
    )
}

/// A running control thread with one worker, whose part the test plays.
pub struct Bench {
    pub control: Option<Control>,
    pub worker: WorkerEnd,
    pub stats: Arc<Stats>,
    pub seen: Vec<ToWorker>,
    next: u64,
}

impl Bench {
    pub fn start(circles: &[Vec<String>]) -> Self {
        let topology = Arc::new(topology(circles));
        let stats = Arc::new(Stats::new(1, topology.backends.len(), topology.circles.len()));
        let (end, mut workers) = handoff::pair(1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = Transitions::file_in(dir.path());
        let order = Arc::new(RecordOrder::new(1, topology.backends.len(), Duration::ZERO));
        let settings = ControlSettings {
            order,
            transitions: Transitions::open(&file, &topology, &PlacementSettings::default()).unwrap(),
            topology,
            credentials: Credentials::default(),
            check_interval: Duration::from_millis(300),
            query: QuerySettings::default(),
            trust: Trust::default(),
            dialect: Dialect::Older,
            pprof_enabled: true,
            hot_tail_bytes: 1 << 20,
            data_dir: dir.path().to_owned(),
            mlog_dir: dir.path().join("log"),
            former_backends: Vec::new(),
            peers: Vec::new(),
        };
        let control = Control::start(settings, end, Arc::clone(&stats)).unwrap();
        Self { control: Some(control), worker: workers.remove(0), stats, seen: Vec::new(), next: 0 }
    }

    pub fn ticket(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn send(&self, message: ToControl) {
        self.worker.send(message).unwrap();
    }

    /// Waits for the message that `pick` takes, and keeps all others in `seen`.
    pub fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(&ToWorker) -> Option<T>) -> T {
        let seen = &mut self.seen;
        let worker = &self.worker;
        wait_for(what, || {
            while let Some(message) = worker.try_recv() {
                if let Some(found) = pick(&message) {
                    return Some(found);
                }
                seen.push(message);
            }
            None
        })
    }

    /// Sends a GET and returns its ticket.
    pub fn ask(&mut self, target: &str) -> u64 {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let ticket = self.ticket();
        let request = AdminRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            ..Default::default()
        };
        self.send(ToControl::Admin { worker: 0, ticket, request });
        ticket
    }

    pub fn answer(&mut self, ticket: u64) -> AdminResponse {
        self.wait("an answer", |message| match message {
            ToWorker::Admin { ticket: t, response } if *t == ticket => Some(response.clone()),
            _ => None,
        })
    }

    pub fn get(&mut self, target: &str) -> AdminResponse {
        let ticket = self.ask(target);
        self.answer(ticket)
    }

    pub fn json(&mut self, target: &str) -> serde_json::Value {
        serde_json::from_slice(&self.get(target).body).unwrap()
    }

    pub fn probed(&mut self, backend: u16, up: bool) {
        self.wait("a probe", |message| match message {
            ToWorker::Probed { backend: b, up: u } => (b.0 == backend && *u == up).then_some(()),
            _ => None,
        });
    }

    /// Asks for a refresh and returns the newest catalog received.
    pub fn refresh(&mut self) -> Option<Arc<handoff::Catalog>> {
        let ticket = self.ticket();
        self.send(ToControl::RefreshCatalog { worker: 0, ticket });
        self.wait("a refresh", |message| match message {
            ToWorker::CatalogRefreshed { ticket: t } => (*t == ticket).then_some(()),
            _ => None,
        });
        self.seen.iter().rev().find_map(|message| match message {
            ToWorker::Catalog(catalog) => Some(Arc::clone(catalog)),
            _ => None,
        })
    }

    pub fn create(&mut self, backend: u16, db: &str, rp: &str) -> handoff::Created {
        let ticket = self.ticket();
        let (db, rp) = (db.to_owned(), rp.to_owned());
        self.send(ToControl::Create { worker: 0, ticket, backend: BackendId(backend), db, rp });
        self.wait("a creation", |message| match message {
            ToWorker::Created { ticket: t, result } if *t == ticket => Some(result.clone()),
            _ => None,
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.stop();
        }
    }
}

pub fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

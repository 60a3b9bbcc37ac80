//! A worker's connections to backends for queries: addresses, and connections kept between queries.
//!
//! A connection belongs to one query until its answer has been read. Dropping it tells the backend to stop the query.
//! Not here: which backend is asked (`choose`), what is sent (`forward`).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Instant;

use crate::courier::{Address, Endpoint};
use crate::io::{self, Event, Stream};
use crate::limits::{QUERY_KEPT_CONNECTION_AGE_MAX, QUERY_KEPT_CONNECTIONS_MAX};
use crate::settings::Settings;
use crate::topology::{Backend, BackendId};

/// What the queries of one worker share.
pub struct Queries {
    pub readers: Readers,
    /// Number of running queries.
    pub running: Cell<usize>,
    /// A backend has another address, or a probe has found it up or down.
    pub news: Event,
}

impl Queries {
    pub fn new(settings: &Settings) -> Self {
        Self { readers: Readers::new(settings), running: Cell::new(0), news: Event::default() }
    }

    /// Sets the new address of a backend.
    pub fn moved(&self, backend: BackendId, addr: SocketAddr) {
        self.readers.moved(backend, addr);
        self.news.notify();
    }
}

/// One worker's access to one backend.
pub struct Reader {
    address: Address,
    /// None: its URL is neither http nor https. No worker starts with such a URL.
    pub endpoint: Option<Endpoint>,
    kept: RefCell<Vec<Kept>>,
}

struct Kept {
    to: SocketAddr,
    since: Instant,
    stream: Stream,
}

/// All readers, by `BackendId`.
pub struct Readers(Vec<Reader>);

impl Readers {
    pub fn new(settings: &Settings) -> Self {
        let reader = |backend: &Backend| {
            let address = Address::default();
            let Backend { url, username, password, .. } = backend;
            let tls = settings.trust.client_config(backend.id);
            let endpoint = Endpoint::new(url, username, password, address.clone(), false, settings.query.timeout, tls);
            Reader { address, endpoint, kept: RefCell::default() }
        };
        Self(settings.topology.backends.iter().map(reader).collect())
    }

    pub fn of(&self, backend: BackendId) -> &Reader {
        &self.0[backend.index()]
    }

    /// Sets the new address of a backend.
    pub fn moved(&self, backend: BackendId, addr: SocketAddr) {
        self.of(backend).address.set(Some(addr));
    }
}

impl Reader {
    /// The most recently used connection, if it may still be good.
    pub fn take(&self, to: SocketAddr) -> Option<Stream> {
        let mut kept = self.kept.borrow_mut();
        kept.retain(|kept| kept.to == to && kept.since.elapsed() < QUERY_KEPT_CONNECTION_AGE_MAX);
        kept.pop().map(|kept| kept.stream)
    }

    /// Keeps a connection whose answer has been read to its end.
    pub fn give(&self, to: SocketAddr, stream: Stream) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() == QUERY_KEPT_CONNECTIONS_MAX {
            kept.remove(0);
        }
        kept.push(Kept { to, since: io::now(), stream });
    }

    /// To be called when a kept connection was dead: the others are as old or older.
    pub fn forget(&self) {
        self.kept.borrow_mut().clear();
    }
}

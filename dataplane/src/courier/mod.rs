//! The courier: delivers to one backend from all logs.
//!
//! ```text
//! merge -> window -> (one group per database and policy) -> deliver -> client -> backend
//!   ^ confirm            |            verdict, bisect, missing | dead letters
//! ```
//!
//! Invariants:
//! - Records are sent in one order over all logs ([`RecordOrder`](crate::order)), the same for all backends.
//! - The cursor of a log moves past a record only when each of its lines has been confirmed by the backend or is synced
//!   as a dead letter.
//! - At most one request of a (database, policy) is in flight, and no line is settled before an earlier one: an old
//!   value cannot replace a newer one.
//! - A request that got no answer may be carried out later. Newer lines of its (database, policy) wait for that, within
//!   bounds (`WATCH_TIMEOUTS`, `DOUBT` in `limits.rs`).
//! - While a hold is set, nothing from its stamp on is fetched. Everything before it is delivered as usual.
//! - After every failure the courier waits, for a timer or for an event. All waiting is in [`Courier::run`].
//!
//! Couriers share nothing, so a backend can delay only its own courier.

mod answer;
mod bisect;
mod body;
mod client;
mod dead_letter;
mod deliver;
mod exchange;
mod group;
mod hint;
mod known;
mod learning;
mod merge;
mod missing;
mod series;
mod side;
mod source;
mod stall;
mod verdict;
mod watch;
mod window;

#[cfg(test)]
mod bisect_test;
#[cfg(test)]
mod courier_test;
#[cfg(test)]
mod fate_test;
#[cfg(test)]
mod held_test;
#[cfg(test)]
mod influxd_test;
#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod types_test;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future;

pub use client::{Address, Endpoint};
pub use exchange::{AttemptFailure, ExchangeFailure, exchange};
pub use group::{RefusedPoints, RejectedPoints, Splitter};
pub use merge::{LogSource, Merge, Passed};
pub use source::{DeliveryState, Parking, RecordSource, Reports, SourceError, UnsettledPart};
pub use window::PartlySettled;

use crate::disklog::RecordView;
use crate::io::{self, Event};
use crate::limits::{
    BACKOFF_MIN, BATCH_BYTES_MAX, BATCH_POOL_BYTES, COURIER_CONNECTIONS, COURIER_PACE, DEAD_LETTER_BYTES_MAX, DOUBT,
    HELD_LOOK_INTERVAL, LOCAL_FAILURE_PAUSE, LOUD_INTERVAL, PARKED_MAX, REQUEST_BYTES_MIN,
};
use crate::settings::MissingDb;
use body::RequestBody;
use client::WriteClient;
use dead_letter::{DeadLetters, SharedLetters};
use deliver::{Delivery, Lane};
use learning::Learning;
use missing::Missing;
use side::{SideOf, Sides};
use stall::Stall;
use verdict::{Health, Jitter};
use window::{Bounds, Window};

/// What a courier needs to start.
#[derive(Debug)]
pub struct Setup {
    pub worker: usize,
    /// The backend's name.
    pub backend: String,
    /// Number of all backends, which share [`BATCH_POOL_BYTES`].
    pub backends: usize,
    pub endpoint: Endpoint,
    pub data_dir: PathBuf,
    /// Lines per window.
    pub flush_size: usize,
    /// The longest pause after failures.
    pub rewrite_interval: Duration,
    pub missing_db: MissingDb,
    /// Splits a body into lines; used only when the backend refuses some of them.
    pub split: Splitter,
}

/// The worker's access to a running courier.
#[derive(Debug)]
pub struct Handle {
    /// Shared with the side couriers.
    health: Rc<RefCell<Health>>,
    hurry: Cell<bool>,
    /// Records from this stamp on are held.
    hold: Cell<Option<u64>>,
    event: Event,
    stop: Event,
    sides: RefCell<Vec<Rc<Self>>>,
}

impl Handle {
    fn new(health: Rc<RefCell<Health>>) -> Rc<Self> {
        Rc::new(Self {
            health,
            hurry: Cell::new(false),
            hold: Cell::new(None),
            event: Event::default(),
            stop: Event::default(),
            sides: RefCell::default(),
        })
    }

    /// Calls `each` with this one and those of the side couriers.
    fn all(&self, each: impl Fn(&Self)) {
        each(self);
        self.sides.borrow().iter().for_each(|side| each(side));
    }

    /// Reports the result of a probe. "Up" ends a pause that began because the backend could not be reached.
    pub fn probed(&self, up: bool) {
        if self.health.borrow_mut().probed(up) {
            self.all(|handle| handle.event.notify());
        }
    }

    /// A client waits for delivery of what is in the log now: the next window starts at once.
    pub fn hurry(&self) {
        self.all(|handle| {
            handle.hurry.set(true);
            handle.event.notify();
        });
    }

    /// Holds records from the stamp `from` on, until a call with None or a later stamp.
    pub fn hold(&self, from: Option<u64>) {
        self.all(|handle| {
            handle.hold.set(from);
            handle.event.notify();
        });
    }
}

/// A courier as its worker sees it.
pub struct RunningCourier {
    handle: Rc<Handle>,
    address: Address,
}

impl RunningCourier {
    pub fn new(handle: Rc<Handle>, address: Address) -> Self {
        Self { handle, address }
    }

    /// See [`Handle::probed`].
    pub fn probed(&self, up: bool) {
        self.handle.probed(up);
    }

    /// Sets the address, resolved at start or again later.
    pub fn moved(&self, addr: SocketAddr) {
        self.address.set(Some(addr));
    }

    /// See [`Handle::hurry`].
    pub fn hurry(&self) {
        self.handle.hurry();
    }

    /// See [`Handle::hold`].
    pub fn hold(&self, from: Option<u64>) {
        self.handle.hold(from);
    }

    /// Ends the courier. A request in flight is sent again after the next start.
    pub fn stop(&self) {
        self.handle.all(|handle| handle.stop.notify());
    }
}

/// What a courier shares with its side couriers.
#[derive(Clone, Debug)]
struct Shared {
    endpoint: Rc<Endpoint>,
    letters: Rc<SharedLetters>,
    learning: Rc<RefCell<Learning>>,
    missing_db: MissingDb,
    split: Splitter,
    /// When the courier was started.
    began: Instant,
}

/// A courier; [`Courier::run`] is its task.
#[derive(Debug)]
pub struct Courier<S, R> {
    source: S,
    delivery: Delivery<R>,
    lanes: [Lane; COURIER_CONNECTIONS],
    window: Window,
    shared: Shared,
    sides: Sides,
    /// Of a side courier: what the courier sees of it.
    side_of: Option<SideOf>,
    /// How many side couriers it may have.
    parked_max: usize,
    /// When the window was started, and whether the one before was full.
    started: Option<Instant>,
    was_full: bool,
    /// The last fetch has passed everything that could be read.
    has_all: bool,
    loud_at: Option<Instant>,
    stall: Stall,
}

impl<S: RecordSource + Parking<R> + 'static, R: Reports + 'static> Courier<S, R> {
    /// Reads the folder of dead letters. Blocks, so call it at start only.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn new(setup: Setup, source: S, reports: R) -> std::io::Result<(Self, Rc<Handle>)> {
        let letters = DeadLetters::open(&setup.data_dir, &setup.backend, setup.worker, DEAD_LETTER_BYTES_MAX)?;
        let bounds = Bounds {
            lines: setup.flush_size.max(1) as u64,
            bytes: (BATCH_POOL_BYTES / setup.backends.max(1)).clamp(REQUEST_BYTES_MIN, BATCH_BYTES_MAX),
        };
        let health = Health::new(setup.rewrite_interval, Jitter::new(seed(&setup)));
        let handle = Handle::new(Rc::new(RefCell::new(health)));
        let label = format!("backend {} (worker {})", setup.backend, setup.worker);
        let shared = Shared {
            endpoint: Rc::new(setup.endpoint),
            letters: Rc::new(SharedLetters::new(letters)),
            learning: Rc::default(),
            missing_db: setup.missing_db,
            split: setup.split,
            began: io::now(),
        };
        let mut courier = Self::with(label, source, reports, handle.clone(), bounds, shared);
        courier.parked_max = (PARKED_MAX / setup.backends.max(1)).max(1);
        Ok((courier, handle))
    }

    fn with(label: String, source: S, reports: R, handle: Rc<Handle>, bounds: Bounds, shared: Shared) -> Self {
        let delivery = Delivery {
            label,
            reports,
            handle,
            split: shared.split,
            missing: RefCell::new(Missing::new(shared.missing_db)),
            learning: shared.learning.clone(),
            series: RefCell::default(),
            letters: RefCell::default(),
            bodies: RefCell::default(),
            timed_out: Cell::new(false),
            too_large: Cell::new(None),
            state: Cell::new(DeliveryState::Up),
            loud_at: Cell::new(None),
            rewriting: Cell::new(false),
            began: Cell::new(0),
        };
        let client = || WriteClient::new(shared.endpoint.clone());
        Self {
            source,
            delivery,
            lanes: std::array::from_fn(|_| Lane { client: client(), part: RequestBody::default() }),
            window: Window::new(bounds),
            shared,
            sides: Sides::default(),
            parked_max: 0,
            side_of: None,
            started: None,
            was_full: false,
            has_all: false,
            loud_at: None,
            stall: Stall::default(),
        }
    }

    /// Serves the backend until the log is closed or [`RunningCourier::stop`] is called. The future may be dropped at
    /// any time: requests in flight are sent again by the next courier, which starts at the cursors.
    pub async fn run(self) {
        let handle = self.delivery.handle.clone();
        // In this order: once it has been told to end it says nothing more.
        future::or(handle.stop.wait(), self.serve()).await;
    }

    async fn serve(mut self) {
        let before = if self.parked_max > 0 { self.source.parked_before() } else { Vec::new() };
        before.into_iter().for_each(|key| _ = self.start_side(key, None));
        loop {
            let readable = match self.refill().await {
                Ok(()) => true,
                Err(SourceError::Closed) => return,
                Err(SourceError::Unreadable) => false,
            };
            if !readable && self.window.is_empty() {
                self.delivery.reports.stuck(true, false);
                io::sleep(LOCAL_FAILURE_PAUSE).await;
                continue;
            }
            self.source.rest();
            // Deliver what was read before.
            self.window.forget(io::now());
            self.look_at_sides();
            self.pass().await;
            let safe = self.save_letters().await;
            if safe {
                self.park_held();
            }
            self.delivery.reports.stuck(!readable, !safe);
            if safe && self.window.settled() {
                self.delivery.reports.failing(false);
                self.confirm();
            } else {
                let is_reachable = self.delivery.handle.health.borrow().reachable();
                self.delivery.reports.failing(!is_reachable || self.window.fails());
                if safe {
                    let settled = self.window.partly_settled(self.source.positions());
                    self.delivery.reports.partly_settled(Arc::new(settled));
                }
                self.stall.tell(&self.delivery.label, self.delivery.state.get(), io::now());
                if let Some(side_of) = &self.side_of {
                    side_of.progress.falls_behind();
                }
                self.pause(safe).await;
            }
        }
    }

    /// Reads records into the window. Waits for records only if the window is empty. Adds nothing while the backend
    /// cannot be reached.
    async fn refill(&mut self) -> Result<(), SourceError> {
        self.has_all = false;
        self.delivery.began.set(self.source.began());
        let earlier = (self.source.began(), self.shared.began + DOUBT);
        self.window.earlier = Some(earlier).filter(|(_, until)| *until > io::now());
        // A held group that becomes due must not wait for new records.
        let wait = self.window.is_empty();
        if wait {
            self.pace().await;
        } else {
            self.window.recount();
            self.window.reuse(&mut self.delivery.bodies.borrow_mut());
            let useful = self.delivery.handle.health.borrow().reachable() && self.window.has_room();
            if !useful {
                return Ok(());
            }
        }
        let (window, reports) = (&mut self.window, &self.delivery.reports);
        let handle = self.delivery.handle.clone();
        let sides = &mut self.sides;
        let progress = self.side_of.as_ref().map(|side_of| &side_of.progress);
        let (full, held, ended) = (Cell::new(false), Cell::new(None), Cell::new(false));
        let default = |db: &[u8]| reports.default_policy(db).map(|name| name.into_bytes().into());
        // Before the logs are looked into: what happens meanwhile must not be slept through.
        let changed = handle.event.wait();
        let mut sink = |log: usize, record: RecordView<'_>| {
            if handle.hold.get().is_some_and(|from| record.stamp >= from) {
                held.set(Some(record.stamp));
                return false;
            }
            if progress.is_some_and(|progress| !progress.takes(log, &record)) {
                ended.set(true);
                return false;
            }
            if !sides.is_empty() && sides.divert(window, log, &record, &default) {
                return true;
            }
            full.set(!window.take(log, &record, &default));
            if !full.get() {
                progress.into_iter().for_each(|progress| progress.took(log, &record));
            }
            !full.get()
        };
        let fetched = self.source.fetch(&mut sink).await?;
        self.was_full = full.get();
        self.has_all = fetched.lost == 0 && !full.get() && handle.hold.get().is_none();
        self.window.below = self.window.below.max(fetched.below);
        if self.window.is_empty() && fetched.lost == 0 {
            reports.settled_below(fetched.below);
            reports.holds(held.get());
            if let Some(side_of) = &self.side_of {
                side_of.tell(&mut self.source, fetched.below, fetched.below > 0);
            }
            // With what this fetch has shown, a side courier may end. Nothing else might wake this one.
            self.look_at_sides();
            if held.get().is_none() && !ended.get() {
                future::or(self.source.ready(), changed).await;
            } else if ended.get() || handle.hold.get().is_some() {
                changed.await;
            }
            return Ok(());
        }
        self.window.begun = true;
        if let Some(oldest) = self.window.oldest {
            reports.holds(Some(oldest));
        }
        if wait || fetched.lines > 0 {
            let now = io::now();
            self.started = Some(now);
            self.stall.holds_points(now);
        }
        Ok(())
    }

    /// Lets records gather for a moment, unless a full window is there already or a client waits.
    async fn pace(&mut self) {
        let Some(started) = self.started.filter(|_| !self.was_full) else { return };
        let handle = &self.delivery.handle;
        while !handle.hurry.replace(false) {
            let rest = COURIER_PACE.saturating_sub(io::now().saturating_duration_since(started));
            if rest.is_zero() {
                return;
            }
            future::or(io::sleep(rest), handle.event.wait()).await;
        }
    }

    /// Serves each due group once: several at a time while the backend can be reached, else one after the other, so
    /// that a backend that is down gets one connection attempt and not four.
    async fn pass(&mut self) {
        let now = io::now();
        let delivery = &self.delivery;
        let queue = RefCell::new(self.window.groups.iter_mut().filter(|g| g.is_due(now)));
        let work = async |lane: &mut Lane| {
            loop {
                let next = queue.borrow_mut().next();
                let Some(group) = next else { return };
                delivery.serve(group, lane).await;
            }
        };
        let [a, b, c, d] = &mut self.lanes;
        let reachable = delivery.handle.health.borrow().reachable();
        if reachable {
            future::zip(future::zip(work(a), work(b)), future::zip(work(c), work(d))).await;
        } else {
            work(a).await;
        }
        if delivery.timed_out.take() {
            self.lanes.iter_mut().for_each(|lane| lane.client.disconnect());
        }
        if let Some(bytes) = delivery.too_large.take() {
            self.window.shrink_requests(bytes);
        }
    }

    /// Writes the dead letters to disk. False: that failed, and must be repeated before the cursor moves.
    async fn save_letters(&mut self) -> bool {
        let letters = self.delivery.letters.take();
        if letters.is_empty() {
            return true;
        }
        match self.shared.letters.append(&letters).await {
            Ok(removed) => {
                if removed {
                    let label = &self.delivery.label;
                    log::warn!("{label}: dead letters reached their limit, the oldest were removed");
                }
                true
            }
            Err(e) => {
                // No lane is running, so no entry was added meanwhile.
                self.delivery.letters.replace(letters);
                if self.loud_at.is_none_or(|at| io::elapsed(at) >= LOUD_INTERVAL) {
                    self.loud_at = Some(io::now());
                    log::error!("{}: cannot write dead letters, the cursor waits: {e}", self.delivery.label);
                }
                false
            }
        }
    }

    /// Every line of the window is settled: reports what became of them and moves the cursors.
    fn confirm(&mut self) {
        if self.window.is_empty() {
            return;
        }
        let reports = &self.delivery.reports;
        for group in &self.window.groups {
            for &(log, lines) in &group.delivered {
                reports.delivered(log, &group.db, lines);
            }
            group.rejected.iter().for_each(|rejected| reports.rejected(&group.db, rejected));
        }
        reports.settled_below(self.window.below);
        self.source.confirm();
        if let Some(side_of) = &self.side_of {
            let is_near = !self.was_full && !self.source.behind();
            side_of.tell(&mut self.source, self.window.below, is_near);
        }
        self.stall.progressed(&self.delivery.label, io::now());
        self.window.clear(&mut self.delivery.bodies.borrow_mut());
        self.sides.resume(self.window.below, io::now());
        if !self.source.behind() {
            self.window.release();
            self.delivery.series.borrow_mut().release(io::now());
            for lane in &mut self.lanes {
                lane.client.release();
                lane.part.release();
            }
            if self.side_of.is_none() && self.delivery.rewriting.replace(false) {
                self.delivery.reports.rewriting(false);
            }
        }
    }

    /// Waits until something in the window is due, a probe finds the backend up, or there are new records and room for
    /// them: what is held must not stop others.
    async fn pause(&mut self, letters_safe: bool) {
        let now = io::now();
        let health = &self.delivery.handle.health;
        let closed_until = health.borrow().until().filter(|until| *until > now);
        let has_room = health.borrow().reachable() && self.window.has_room();
        let takes_new = letters_safe && closed_until.is_none() && has_room && self.has_all;
        // What could not be parked when it was due is looked at with the rest.
        let park_at = self.window.park_at().filter(|at| *at > now && self.sides.len() < self.parked_max);
        let until = match closed_until {
            _ if !letters_safe => now + LOCAL_FAILURE_PAUSE,
            Some(until) => until,
            None => {
                let groups = self.window.groups.iter();
                let first = groups.filter_map(|g| g.due_at(now).or(g.forgotten_at())).chain(park_at).min();
                // Of a record that was seen and not taken nothing tells when it can be.
                let look_at = now + if takes_new { HELD_LOOK_INTERVAL } else { BACKOFF_MIN };
                first.map_or(look_at, |first| if has_room { first.min(look_at) } else { first })
            }
        };
        let Some(rest) = until.checked_duration_since(now).filter(|rest| !rest.is_zero()) else { return };
        let due = future::or(io::sleep(rest), self.delivery.handle.event.wait());
        if !takes_new {
            return due.await;
        }
        let due = async {
            due.await;
            false
        };
        let arrived = async {
            self.source.ready().await;
            true
        };
        if future::or(due, arrived).await {
            self.pace().await;
        }
    }
}

/// A different seed for each worker, backend and start.
fn seed(setup: &Setup) -> u64 {
    let time = io::system_time().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    setup.backend.bytes().fold(time ^ setup.worker as u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}

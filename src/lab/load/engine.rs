//! One sending thread: all its connections over one epoll.
//!
//! A connection has at most one request under way. Readiness is edge-triggered and registered once, so a request costs
//! one write and one read, and shares the wait with the others.
//!
//! Pace: request k of a paced run is *due* at start + k x interval, whatever the server does. It is sent when it is due
//! and a connection is free. Its latency counts from the time it was due, so the requests that wait during a stall of
//! the server count as slow (otherwise the stall would hide them).

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::points::Points;
use super::report::{Counts, Range, RequestFailure};
use crate::lab::http1::Response;

/// Deadlines and reconnects are checked this often.
const HOUSEKEEPING: Duration = Duration::from_millis(50);
/// Pause after a failed connect, before the next attempt of that connection.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// Counters are sent to the reporting thread this often.
const TICK: Duration = Duration::from_millis(250);
const READ_BYTES: usize = 64 * 1024;
const EVENTS: usize = 256;
/// The epoll token of the pacing timer; connections use their index.
const TIMER: u64 = u64::MAX;

/// What all threads of a run share.
pub struct LoadRun<'a> {
    pub points: Points,
    pub addr: SocketAddr,
    pub lines: u64,
    /// Serial of the next point to be sent.
    pub next_serial: AtomicU64,
    /// The first serial that is not sent; `u64::MAX` = no bound.
    pub end_serial: u64,
    pub start: Instant,
    /// No request starts at or after this.
    pub end: Option<Instant>,
    pub timeout: Duration,
    /// Time between two requests of one thread; `None` = as fast as answers come.
    pub interval: Option<Duration>,
    pub stop: &'a AtomicBool,
}

impl LoadRun<'_> {
    /// Takes the next points; fewer than a full request at the end of the run.
    fn claim(&self) -> Option<Range> {
        let first = self.next_serial.fetch_add(self.lines, Relaxed);
        let count = self.lines.min(self.end_serial.saturating_sub(first));
        (count > 0).then_some(Range { first, count })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionState {
    /// No connection; the next attempt not before this.
    Down(Instant),
    Connecting(Instant),
    Idle,
    /// A request is under way, with its deadline.
    Busy(Instant),
}

struct Connection {
    stream: Option<TcpStream>,
    state: ConnectionState,
    request: Vec<u8>,
    /// Index in `request` of the first byte that is not written yet.
    unsent: usize,
    /// The part of an answer that has arrived.
    answer: Vec<u8>,
    points: Range,
    body_bytes: usize,
    due: Instant,
}

pub struct Engine<'a> {
    shared: &'a LoadRun<'a>,
    epoll: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Connection>,
    /// Free connections, the longest idle first, so that all of them are used.
    idle: VecDeque<usize>,
    busy: usize,
    /// When the next request is due (paced runs).
    due: Instant,
    /// The time to which the timer is set.
    armed: Option<Instant>,
    /// No further request will start.
    finished: bool,
    counts: Counts,
    read: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'a> Engine<'a> {
    /// `offset`: when this thread's first request is due, after the start of the run.
    pub fn new(shared: &'a LoadRun<'a>, connections: usize, offset: Duration) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        let connection = |_| Connection {
            stream: None,
            state: ConnectionState::Down(shared.start),
            request: Vec::new(),
            unsent: 0,
            answer: Vec::new(),
            points: Range { first: 0, count: 0 },
            body_bytes: 0,
            due: shared.start,
        };
        Ok(Self {
            shared,
            epoll,
            timer,
            connections: (0..connections).map(connection).collect(),
            idle: VecDeque::with_capacity(connections),
            busy: 0,
            due: shared.start + offset,
            armed: None,
            finished: false,
            counts: Counts::default(),
            read: vec![0; READ_BYTES],
            scratch: Vec::new(),
        })
    }

    /// Sends until the run ends and every request has an answer or has failed. Counters go to `ticks`.
    pub fn run(mut self, ticks: &Sender<Counts>) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let (mut housekeeping, mut tick) = (self.shared.start, self.shared.start + TICK);
        loop {
            let now = Instant::now();
            self.send_due(now);
            if self.finished && self.busy == 0 {
                break;
            }
            if now >= housekeeping {
                self.housekeeping(now);
                housekeeping = now + HOUSEKEEPING;
            }
            if now >= tick {
                self.counts.cpu = Duration::ZERO;
                // The reporter ends after all threads; if it is gone, it has panicked, and the run ends too.
                let _ = ticks.send(std::mem::take(&mut self.counts));
                tick = now + TICK;
            }
            self.arm()?;
            let timeout = Timespec { tv_sec: 0, tv_nsec: HOUSEKEEPING.as_nanos() as i64 };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for event in &events {
                let token = event.data.u64();
                if token != TIMER {
                    self.ready(token as usize, event.flags);
                }
            }
        }
        self.count_unsent();
        self.counts.cpu = thread_cpu();
        let _ = ticks.send(self.counts);
        Ok(())
    }

    fn send_due(&mut self, now: Instant) {
        let ended = self.shared.end.is_some_and(|end| now >= end);
        let paced = self.shared.interval.is_some();
        self.finished |= self.shared.stop.load(Relaxed) || (ended && !paced);
        // Requests that were due before the end are still sent after it, as far as connections are free.
        let until = self.shared.end.map_or(now, |end| end.min(now));
        while !self.finished && (!paced || self.due <= until) {
            let Some(index) = self.idle.pop_front() else { break };
            let due = if paced { self.due } else { Instant::now() };
            self.due += self.shared.interval.unwrap_or_default();
            self.begin(index, due);
        }
        self.finished |= ended;
    }

    fn begin(&mut self, index: usize, due: Instant) {
        let Some(points) = self.shared.claim() else {
            self.finished = true;
            self.idle.push_front(index);
            return;
        };
        let connection = &mut self.connections[index];
        let (start, bytes) =
            self.shared.points.build(points.first, points.count, &mut connection.request, &mut self.scratch);
        connection.unsent = start;
        connection.body_bytes = bytes;
        connection.points = points;
        connection.due = due;
        connection.answer.clear();
        connection.state = ConnectionState::Busy(Instant::now() + self.shared.timeout);
        self.busy += 1;
        self.counts.requests += 1;
        self.counts.sent_points += points.count;
        self.write(index);
    }

    fn write(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else { return };
        while connection.unsent < connection.request.len() {
            match stream.write(&connection.request[connection.unsent..]) {
                Ok(written) => connection.unsent += written,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The server may have answered (413, for example) before it closed; reading shows it.
                Err(_) => return self.read(index, true),
            }
        }
    }

    /// A connection can be read or written. Edge-triggered: remaining work is not announced again.
    fn ready(&mut self, index: usize, flags: epoll::EventFlags) {
        let hung_up = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP);
        match self.connections[index].state {
            ConnectionState::Down(_) => {}
            ConnectionState::Connecting(_) if hung_up => self.close(index, Some(RequestFailure::Connect)),
            ConnectionState::Connecting(_) => {
                self.connections[index].state = ConnectionState::Idle;
                self.idle.push_back(index);
            }
            // A server may close an idle connection; that is not a failure.
            ConnectionState::Idle if hung_up => self.close(index, None),
            ConnectionState::Idle => {}
            ConnectionState::Busy(_) => {
                if flags.contains(epoll::EventFlags::OUT) {
                    self.write(index);
                }
                let still_busy = matches!(self.connections[index].state, ConnectionState::Busy(_));
                if still_busy && (hung_up || flags.contains(epoll::EventFlags::IN)) {
                    self.read(index, hung_up);
                }
            }
        }
    }

    /// Reads available bytes. `drain`: up to the end of the stream. Otherwise a short read shows that there is no more
    /// (epoll(7), question 9), which saves one call per answer.
    fn read(&mut self, index: usize, drain: bool) {
        let connection = &mut self.connections[index];
        let Some(stream) = &mut connection.stream else { return };
        let mut eof = false;
        let mut failure = None;
        loop {
            match stream.read(&mut self.read) {
                Ok(0) => eof = true,
                Ok(got) => {
                    connection.answer.extend_from_slice(&self.read[..got]);
                    if drain || got == self.read.len() {
                        continue;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => failure = Some(RequestFailure::Reset),
            }
            break;
        }
        let lost = failure.or(eof.then_some(RequestFailure::Closed));
        match Response::parse(&connection.answer, lost.is_some()) {
            Ok(Some(response)) => {
                let text = response.body(&connection.answer);
                let latency = Instant::now().saturating_duration_since(connection.due);
                let bytes = connection.body_bytes as u64;
                self.counts.answered(response.status, connection.points, bytes, latency, &text);
                self.busy -= 1;
                // After an early answer the rest of the request must still be sent; a new connection is simpler.
                let reusable = lost.is_none() && !response.close && connection.unsent == connection.request.len();
                connection.state = ConnectionState::Idle;
                if reusable {
                    self.idle.push_back(index);
                } else {
                    self.close(index, None);
                    if !self.finished {
                        self.connect(index);
                    }
                }
            }
            Ok(None) => {
                if let Some(failure) = lost {
                    self.close(index, Some(failure));
                }
            }
            Err(_) => self.close(index, Some(RequestFailure::Malformed)),
        }
    }

    /// Closes a connection; `failure` is the reason, if it failed. The points of an open request count as unknown.
    fn close(&mut self, index: usize, failure: Option<RequestFailure>) {
        let connection = &mut self.connections[index];
        let under_way = matches!(connection.state, ConnectionState::Busy(_));
        if under_way {
            self.busy -= 1;
        } else {
            self.idle.retain(|idle| *idle != index);
        }
        if let Some(failure) = failure {
            self.counts.failed(failure, under_way.then_some(connection.points));
        }
        // Dropping the stream removes it from the epoll set.
        connection.stream = None;
        connection.state = ConnectionState::Down(Instant::now() + RECONNECT_PAUSE);
    }

    fn connect(&mut self, index: usize) {
        match self.connecting() {
            Ok(stream) => {
                let flags =
                    epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
                if epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(index as u64), flags).is_ok() {
                    let connection = &mut self.connections[index];
                    connection.stream = Some(stream);
                    connection.state = ConnectionState::Connecting(Instant::now() + self.shared.timeout);
                    return;
                }
                self.close(index, Some(RequestFailure::Connect));
            }
            Err(_) => self.close(index, Some(RequestFailure::Connect)),
        }
    }

    fn connecting(&self) -> io::Result<TcpStream> {
        let addr = self.shared.addr;
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&addr.into()) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(e),
            _ => Ok(socket.into()),
        }
    }

    fn housekeeping(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            match self.connections[index].state {
                ConnectionState::Down(not_before) if not_before <= now && !self.finished => self.connect(index),
                ConnectionState::Connecting(deadline) if deadline <= now => {
                    self.close(index, Some(RequestFailure::Connect))
                }
                ConnectionState::Busy(deadline) if deadline <= now => self.close(index, Some(RequestFailure::Timeout)),
                _ => {}
            }
        }
    }

    /// Sets the timer to the next due request: epoll's own timeout has only milliseconds.
    fn arm(&mut self) -> io::Result<()> {
        let wanted = self.shared.interval.is_some() && !self.finished && !self.idle.is_empty();
        if !wanted || self.armed == Some(self.due) {
            return Ok(());
        }
        // Zero would disarm the timer.
        let wait = self.due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        self.armed = Some(self.due);
        Ok(())
    }

    fn count_unsent(&mut self) {
        let (Some(interval), Some(end)) = (self.shared.interval, self.shared.end) else { return };
        let until = end.min(Instant::now());
        if self.due < until {
            self.counts.unsent_requests = (until - self.due).as_nanos().div_ceil(interval.as_nanos().max(1)) as u64;
        }
    }
}

/// CPU time of the calling thread, from the scheduler's nanosecond counter (proc(5), `schedstat`); zero if the kernel
/// does not keep it.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

//! Hosts, listeners and streams. Every packet takes its time; a stream is in order and whole until it is cut.
//!
//! A link is what lies between two hosts. It can be slow, or blocked in one direction or both: what is sent meanwhile
//! arrives afterwards, as TCP repeats it, also when the sender has long given up. A stream can be cut after any byte,
//! or die silently: nothing arrives any more and nobody is told. A host that has lost its power answers old streams
//! with a reset once it is back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};

use crate::exec::{self, Arrival, HostId, Machine, What, with};

/// Bytes that may be under way or wait for a reader.
const WINDOW_BYTES: usize = 64 * 1024;
const DELAY_MIN: Duration = Duration::from_micros(30);
const DELAY_MAX: Duration = Duration::from_millis(2);

thread_local! {
    static NET: Net = {
        exec::at_end(|| NET.with(Net::clear));
        Net::default()
    };
}

#[derive(Default)]
struct Net {
    listeners: RefCell<Vec<Rc<Port>>>,
    links: RefCell<BTreeMap<(HostId, HostId), Link>>,
    conns: RefCell<Vec<Weak<Conn>>>,
    next_number: Cell<i32>,
}

impl Net {
    fn clear(&self) {
        drop(self.listeners.take());
        drop(self.conns.take());
    }
}

/// One direction between two hosts.
#[derive(Clone, Copy, Default)]
struct Link {
    blocked_until: Duration,
    slow_until: Duration,
    slow_by: Duration,
    /// The next connection is cut after so many bytes in this direction.
    cut_next: Option<u64>,
}

/// An address somebody listens on.
pub struct Port {
    addr: SocketAddr,
    arrived: RefCell<VecDeque<Stream>>,
    waiting: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

/// Both directions of a connection; end 0 has connected, end 1 has accepted.
pub struct Conn {
    ends: [RefCell<End>; 2],
    hosts: [HostId; 2],
    addrs: [SocketAddr; 2],
    /// Its ends are this number and the next one.
    number: i32,
    /// Nothing arrives any more, and nobody is told.
    dead: Cell<bool>,
}

enum Packet {
    Data(Vec<u8>),
    Fin,
    Reset,
}

/// What is on its way to one end, and what has arrived there.
#[derive(Default)]
struct End {
    coming: VecDeque<(Duration, Packet)>,
    coming_bytes: usize,
    buffer: Vec<u8>,
    taken: usize,
    fin: bool,
    reset: bool,
    /// Its reader does not read any more.
    shut_read: bool,
    /// This end has sent its FIN.
    shut_write: bool,
    closed: bool,
    /// Its host has lost its memory of the connection.
    lost: bool,
    reset_at_end: bool,
    cut_after: Option<u64>,
    reader: Option<Waker>,
    /// The other end waits for room here.
    writer: Option<Waker>,
}

impl End {
    fn buffered(&self) -> usize {
        self.buffer.len() - self.taken
    }

    fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }
}

/// One end of a connection. Dropping it closes it.
#[derive(Clone)]
pub struct Stream(Rc<Handle>);

struct Handle {
    conn: Rc<Conn>,
    end: usize,
    number: i32,
}

/// The address of a host.
pub fn address(host: HostId, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, (host.0 >> 8) as u8, host.0 as u8)), port)
}

/// The host of an address.
pub fn host_of(addr: SocketAddr) -> HostId {
    match addr.ip() {
        IpAddr::V4(ip) => HostId(u16::from(ip.octets()[2]) << 8 | u16::from(ip.octets()[3])),
        IpAddr::V6(_) => HostId(u16::MAX),
    }
}

/// Listens; several may listen on one address, and connections are shared out among them.
pub fn listen(addr: SocketAddr) -> Listener {
    let port =
        Rc::new(Port { addr, arrived: RefCell::default(), waiting: RefCell::default(), closed: Cell::new(false) });
    NET.with(|net| net.listeners.borrow_mut().push(port.clone()));
    Listener(port)
}

/// See [`listen`]. Dropping it closes it.
pub struct Listener(Rc<Port>);

impl Listener {
    pub async fn accept(&self) -> io::Result<Stream> {
        std::future::poll_fn(|cx| {
            if self.0.closed.get() {
                return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
            }
            if let Some(stream) = self.0.arrived.borrow_mut().pop_front() {
                return Poll::Ready(Ok(stream));
            }
            *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.0.addr
    }

    pub fn close(&self) {
        self.0.closed.set(true);
        NET.with(|net| net.listeners.borrow_mut().retain(|port| !Rc::ptr_eq(port, &self.0)));
        let arrived = self.0.arrived.take();
        drop(arrived);
        if let Some(waker) = self.0.waiting.take() {
            waker.wake();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

fn link(from: HostId, to: HostId) -> Link {
    NET.with(|net| net.links.borrow().get(&(from, to)).copied().unwrap_or_default())
}

/// When what is sent now arrives.
fn arrival(m: &Machine, from: HostId, to: HostId) -> Duration {
    let link = link(from, to);
    let mut rng = m.rng.borrow_mut();
    let mut delay = rng.duration(DELAY_MIN, DELAY_MAX);
    if link.slow_until > m.now() {
        delay += rng.duration(Duration::ZERO, link.slow_by);
    }
    let mut at = m.now() + delay;
    if link.blocked_until > at {
        at = link.blocked_until + rng.duration(Duration::ZERO, Duration::from_secs(1));
    }
    at
}

/// Takes as long as to connect to an address, to ask something and to be answered; whether somebody listened there when
/// the question came.
pub async fn ask(addr: SocketAddr) -> bool {
    let (from, to) = (with(Machine::current_host), host_of(addr));
    let one_way = |m: &Machine, from, to| arrival(m, from, to).saturating_sub(m.now());
    exec::sleep(with(|m| one_way(m, from, to) + one_way(m, to, from) + one_way(m, from, to))).await;
    let is_there = NET.with(|net| net.listeners.borrow().iter().any(|port| port.addr == addr));
    exec::sleep(with(|m| one_way(m, to, from))).await;
    is_there
}

/// Connects from the host of the task that runs now.
pub async fn connect(addr: SocketAddr) -> io::Result<Stream> {
    let (from, to) = (with(Machine::current_host), host_of(addr));
    let there = with(|m| arrival(m, from, to).saturating_sub(m.now()));
    exec::sleep(there).await;
    let accepted = NET.with(|net| {
        let listeners = net.listeners.borrow();
        let there: Vec<_> = listeners.iter().filter(|port| port.addr == addr).collect();
        if there.is_empty() {
            return None;
        }
        let port = exec::random(|rng| (*rng.pick(&there)).clone());
        let end = || RefCell::new(End::default());
        let number = net.next_number.get();
        net.next_number.set(number + 2);
        let conn = Rc::new(Conn {
            ends: [end(), end()],
            hosts: [from, to],
            addrs: [address(from, 10_000 + (number % 50_000) as u16), addr],
            number,
            dead: Cell::new(false),
        });
        for (end, (a, b)) in [(1, (from, to)), (0, (to, from))] {
            let mut links = net.links.borrow_mut();
            if let Some(after) = links.get_mut(&(a, b)).and_then(|link| link.cut_next.take()) {
                conn.ends[end].borrow_mut().cut_after = Some(after);
            }
        }
        let mut conns = net.conns.borrow_mut();
        if conns.len() == conns.capacity() {
            conns.retain(|conn| conn.strong_count() > 0);
        }
        conns.push(Rc::downgrade(&conn));
        let stream = |end| Stream(Rc::new(Handle { conn: conn.clone(), end, number: number + end as i32 }));
        Some((port, stream(0), stream(1)))
    });
    let back = with(|m| arrival(m, to, from).saturating_sub(m.now()));
    let Some((port, ours, theirs)) = accepted else {
        exec::sleep(back).await;
        return Err(io::ErrorKind::ConnectionRefused.into());
    };
    if port.closed.get() {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    port.arrived.borrow_mut().push_back(theirs);
    if let Some(waker) = port.waiting.take() {
        waker.wake();
    }
    exec::sleep(back).await;
    Ok(ours)
}

/// Sends a packet to an end.
fn send(m: &Machine, conn: &Rc<Conn>, to: usize, packet: Packet) {
    if conn.dead.get() {
        return;
    }
    let mut at = arrival(m, conn.hosts[1 - to], conn.hosts[to]);
    let mut end = conn.ends[to].borrow_mut();
    if let Some((last, _)) = end.coming.back() {
        at = at.max(*last);
    }
    if let Packet::Data(bytes) = &packet {
        end.coming_bytes += bytes.len();
    }
    end.coming.push_back((at, packet));
    m.at(at, What::Deliver(conn.clone(), to));
}

impl Arrival for Conn {
    fn arrive(self: Rc<Self>, m: &Machine, end: usize) {
        arrive(m, &self, end);
    }
}

fn arrive(m: &Machine, conn: &Rc<Conn>, to: usize) {
    loop {
        if conn.dead.get() {
            return;
        }
        let packet = {
            let mut end = conn.ends[to].borrow_mut();
            let now = m.now();
            let Some((at, _)) = end.coming.front_mut() else { return };
            if *at > now {
                return;
            }
            let until = link(conn.hosts[1 - to], conn.hosts[to]).blocked_until;
            if until > now {
                let at_last =
                    until + m.rng.borrow_mut().duration(Duration::from_micros(100), Duration::from_millis(500));
                *at = at_last;
                m.at(at_last, What::Deliver(conn.clone(), to));
                return;
            }
            let (_, packet) = end.coming.pop_front().expect("looked at above");
            if let Packet::Data(bytes) = &packet {
                end.coming_bytes -= bytes.len();
            }
            packet
        };
        if conn.ends[to].borrow().lost {
            // Nobody there knows of it: a reset comes back, if somebody is there at all.
            let is_there = |port: &Rc<Port>| host_of(port.addr) == conn.hosts[to];
            if NET.with(|net| net.listeners.borrow().iter().any(is_there)) {
                send(m, conn, 1 - to, Packet::Reset);
            }
            continue;
        }
        let mut end = conn.ends[to].borrow_mut();
        match packet {
            Packet::Data(mut bytes) => {
                let mut cut = false;
                if let Some(left) = &mut end.cut_after {
                    if bytes.len() as u64 >= *left {
                        bytes.truncate(*left as usize);
                        cut = true;
                    } else {
                        *left -= bytes.len() as u64;
                    }
                }
                if end.closed {
                    drop(end);
                    send(m, conn, 1 - to, Packet::Reset);
                    continue;
                }
                if end.taken == end.buffer.len() {
                    end.buffer = bytes;
                    end.taken = 0;
                } else {
                    end.buffer.extend_from_slice(&bytes);
                }
                end.wake_reader();
                drop(end);
                if cut {
                    exec::trace(|| format!("net: {} -> {} cut", conn.addrs[1 - to], conn.addrs[to]));
                    conn.ends.iter().for_each(reset);
                }
            }
            Packet::Fin => {
                end.fin = true;
                end.wake_reader();
            }
            Packet::Reset => {
                drop(end);
                reset(&conn.ends[to]);
            }
        }
    }
}

fn reset(end: &RefCell<End>) {
    let mut end = end.borrow_mut();
    end.reset = true;
    end.coming.clear();
    end.coming_bytes = 0;
    end.wake_reader();
    end.wake_writer();
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stream").field(&self.0.number).finish()
    }
}

impl Stream {
    fn here(&self) -> &RefCell<End> {
        &self.0.conn.ends[self.0.end]
    }

    fn there(&self) -> &RefCell<End> {
        &self.0.conn.ends[1 - self.0.end]
    }

    /// # Errors
    /// Never: the real one does.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.conn.addrs[1 - self.0.end])
    }

    pub fn shutdown(&self, how: Shutdown) {
        shut_end(&self.0.conn, self.0.end, how);
    }

    /// Appends to `into` what arrives next, at most `max` bytes.
    pub async fn read_more(&self, into: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_take(cx, max, |bytes| into.extend_from_slice(bytes))).await
    }

    /// Gives `take` what has arrived, at most `max` bytes.
    fn poll_take(&self, cx: &mut Context<'_>, max: usize, take: impl FnOnce(&[u8])) -> Poll<io::Result<usize>> {
        let mut here = self.here().borrow_mut();
        let left = here.buffered();
        if here.shut_read {
            return Poll::Ready(Ok(0));
        }
        if left > 0 && max > 0 {
            let mut n = left.min(max);
            // Now and then less than there is.
            if n > 1 {
                n = exec::random(|rng| if rng.one_in(16) { 1 + rng.below(n as u64) as usize } else { n });
            }
            let from = here.taken;
            take(&here.buffer[from..from + n]);
            here.taken += n;
            here.wake_writer();
            return Poll::Ready(Ok(n));
        }
        if here.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if here.fin || max == 0 {
            return Poll::Ready(Ok(0));
        }
        here.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The end of this end will be a reset.
    pub fn reset_at_end(&self) {
        self.here().borrow_mut().reset_at_end = true;
    }
}

fn shut_end(conn: &Rc<Conn>, end: usize, how: Shutdown) {
    if how != Shutdown::Write {
        let mut here = conn.ends[end].borrow_mut();
        here.shut_read = true;
        here.wake_reader();
    }
    if how != Shutdown::Read && !std::mem::replace(&mut conn.ends[end].borrow_mut().shut_write, true) {
        with(|m| send(m, conn, 1 - end, Packet::Fin));
        conn.ends[1 - end].borrow_mut().wake_writer();
    }
}

/// This end sends nothing again: what a blocked link has not let through is lost.
fn drop_unsent(m: &Machine, conn: &Conn, end: usize) {
    if link(conn.hosts[end], conn.hosts[1 - end]).blocked_until > m.now() {
        let mut there = conn.ends[1 - end].borrow_mut();
        there.coming.clear();
        there.coming_bytes = 0;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let (unread, reset, shut) = {
            let mut here = self.conn.ends[self.end].borrow_mut();
            here.closed = true;
            (here.buffered() > 0 || here.reset_at_end, here.reset || here.lost, here.shut_write)
        };
        if reset {
            return;
        }
        with(|m| {
            if unread {
                drop_unsent(m, &self.conn, self.end);
                send(m, &self.conn, 1 - self.end, Packet::Reset);
            } else if !shut {
                send(m, &self.conn, 1 - self.end, Packet::Fin);
            }
        });
    }
}

/// Ends a direction of the open stream with this number (see [`Stream`]'s `as_raw_fd`).
pub fn shut(number: RawFd, how: Shutdown) {
    let found = NET.with(|net| {
        let conns = net.conns.borrow();
        // Numbers grow with the list, but ended streams leave it: near the end of it is where a live one is looked for
        // first.
        conns.iter().rev().filter_map(Weak::upgrade).find_map(|conn| {
            let end = (number & 1) as usize;
            (conn.number == number & !1).then_some((conn, end))
        })
    });
    if let Some((conn, end)) = found {
        shut_end(&conn, end, how);
    }
}

impl AsRawFd for Stream {
    /// A number of this connection's end, and of no other one of this run.
    fn as_raw_fd(&self) -> RawFd {
        self.0.number
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_take(cx, buf.len(), |bytes| buf[..bytes.len()].copy_from_slice(bytes))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        {
            let here = self.here().borrow();
            if here.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if here.shut_write {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
        }
        let n = {
            let mut there = self.there().borrow_mut();
            let room = WINDOW_BYTES.saturating_sub(there.coming_bytes + there.buffered());
            // A dead connection takes what its buffers hold.
            if room == 0 {
                there.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            room.min(buf.len())
        };
        with(|m| {
            let split = if n > 1 && m.rng.borrow_mut().one_in(8) {
                1 + m.rng.borrow_mut().below(n as u64 - 1) as usize
            } else {
                n
            };
            send(m, &self.0.conn, 1 - self.0.end, Packet::Data(buf[..split].to_vec()));
            if split < n {
                send(m, &self.0.conn, 1 - self.0.end, Packet::Data(buf[split..n].to_vec()));
            }
        });
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}

/// What `from` sends to `to` in the next `duration` arrives only afterwards.
pub fn block(from: HostId, to: HostId, duration: Duration) {
    change(from, to, |link| link.blocked_until = link.blocked_until.max(exec::now() + duration));
}

/// What `from` sends to `to` in the next `duration` takes up to `by` longer.
pub fn slow(from: HostId, to: HostId, duration: Duration, by: Duration) {
    change(from, to, |link| (link.slow_until, link.slow_by) = (exec::now() + duration, by));
}

/// The next connection between the two is cut after so many bytes from `from` to `to`.
pub fn cut_next(from: HostId, to: HostId, bytes: u64) {
    change(from, to, |link| link.cut_next = Some(bytes));
}

fn change(from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
    NET.with(|net| change(net.links.borrow_mut().entry((from, to)).or_default()));
}

fn living() -> Vec<Rc<Conn>> {
    NET.with(|net| net.conns.borrow().iter().filter_map(Weak::upgrade).collect())
}

fn between(a: HostId, b: HostId) -> impl Iterator<Item = Rc<Conn>> {
    living().into_iter().filter(move |c| c.hosts == [a, b] || c.hosts == [b, a])
}

/// All connections between the two are cut.
pub fn cut(a: HostId, b: HostId) {
    between(a, b).for_each(|conn| conn.ends.iter().for_each(reset));
}

/// All connections between the two die silently.
pub fn half_open(a: HostId, b: HostId) {
    between(a, b).for_each(|conn| conn.dead.set(true));
}

/// The host has lost its power: it knows nothing of its connections any more, and tells nobody.
pub fn power_lost(host: HostId) {
    for conn in living() {
        for end in 0..2 {
            if conn.hosts[end] == host {
                let mut state = conn.ends[end].borrow_mut();
                state.lost = true;
                state.coming.clear();
                state.coming_bytes = 0;
                drop(state);
                with(|m| drop_unsent(m, &conn, end));
            }
        }
    }
}

/// Whether nothing is blocked between the two now.
pub fn is_open(a: HostId, b: HostId) -> bool {
    [link(a, b), link(b, a)].iter().all(|link| link.blocked_until <= exec::now())
}

/// All links are as new.
pub fn heal() {
    NET.with(|net| net.links.borrow_mut().clear());
}

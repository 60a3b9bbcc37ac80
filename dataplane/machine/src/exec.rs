//! Tasks and virtual time. One task is polled at a time; which one, of those that can go on, the seed decides. Time
//! stands still while a task can go on, save for a microsecond per poll; then it jumps to the next timer.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};
use std::time::{Duration, Instant};

use crate::rng::Rng;
use crate::timers::Timers;

/// A machine of the network: its processes share an address, a disk and a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u16);

/// Tasks that are stalled and killed together: a thread of one life of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group(u32);

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What a task takes of the time.
const POLL: Duration = Duration::from_micros(1);
/// Polls without any timer: more than this is a task that spins.
const POLLS_AT_ONCE_MAX: u64 = 3_000_000;

struct Slot {
    generation: u32,
    task: Option<Task>,
    queued: bool,
    group: u32,
}

struct GroupState {
    host: HostId,
    name: String,
    alive: bool,
    stalled_until: u64,
}

pub(crate) struct Host {
    pub(crate) clock_step: i64,
}

/// What a timer of the network calls.
pub(crate) trait Arrival {
    /// What is due at an end arrives there.
    fn arrive(self: Rc<Self>, m: &Machine, end: usize);
}

/// Something that happens at a time.
pub(crate) enum What {
    Wake(Waker),
    Sleep {
        slot: u32,
        generation: u32,
    },
    Call(Box<dyn FnOnce()>),
    /// Packets of a connection may have arrived.
    Deliver(Rc<dyn Arrival>, usize),
}

/// A condition, and who waits for it.
type Watched = (Box<dyn Fn() -> bool>, Waker);

struct SleepSlot {
    generation: u32,
    waker: Option<Waker>,
}

/// All of it; one per thread.
pub struct Machine {
    pub(crate) base: Cell<Instant>,
    now: Cell<u64>,
    pub(crate) rng: RefCell<Rng>,
    tasks: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    ready: RefCell<Vec<u32>>,
    timers: RefCell<Timers<What>>,
    sleeps: RefCell<Vec<SleepSlot>>,
    free_sleeps: RefCell<Vec<u32>>,
    watched: RefCell<Vec<Watched>>,
    groups: RefCell<Vec<GroupState>>,
    current: Cell<u32>,
    pub(crate) hosts: RefCell<Vec<Host>>,
    at_end: RefCell<Vec<fn()>>,
    polls: Cell<u64>,
    tracing: Cell<bool>,
    digest: Cell<u64>,
}

thread_local! {
    static MACHINE: Machine = Machine::new();
}

/// Has `clear` called when the run has ended: for state that must not be dropped with the thread's own storage.
pub(crate) fn at_end(clear: fn()) {
    with(|m| m.at_end.borrow_mut().push(clear));
}

pub(crate) fn with<T>(f: impl FnOnce(&Machine) -> T) -> T {
    MACHINE.with(f)
}

/// Runs `world` on a fresh machine under `seed`, in a thread of its own, and returns what it yields. The first group is
/// the world's own, on host 0.
pub fn run<T: Send + 'static, Fut: Future<Output = T> + 'static>(
    seed: u64,
    hosts: u16,
    world: impl FnOnce() -> Fut + Send + 'static,
) -> std::thread::Result<T> {
    let thread = std::thread::Builder::new().stack_size(4 << 20);
    let body = move || {
        with(|m| m.start(seed, hosts));
        let result = Rc::new(RefCell::new(None));
        let out = result.clone();
        let world = world();
        spawn_in(Group(0), async move {
            let value = world.await;
            *out.borrow_mut() = Some(value);
        });
        let driven = catch_unwind(AssertUnwindSafe(|| with(|m| m.drive(|| result.borrow().is_some()))));
        let ended = catch_unwind(|| with(Machine::end));
        if let Err(panic) = driven.and(ended) {
            // What is left must not be dropped when the thread's own storage is.
            with(|m| m.tasks.take().into_iter().for_each(std::mem::forget));
            resume_unwind(panic);
        }
        let value = result.borrow_mut().take();
        value.expect("the machine runs until its world has ended")
    };
    thread.spawn(body).expect("a thread can be started").join()
}

impl Machine {
    fn new() -> Self {
        Self {
            base: Cell::new(Instant::now()),
            now: Cell::new(0),
            rng: RefCell::new(Rng::new(0)),
            tasks: RefCell::default(),
            free: RefCell::default(),
            ready: RefCell::default(),
            timers: RefCell::default(),
            sleeps: RefCell::default(),
            free_sleeps: RefCell::default(),
            watched: RefCell::default(),
            groups: RefCell::default(),
            current: Cell::new(0),
            hosts: RefCell::default(),
            at_end: RefCell::default(),
            polls: Cell::new(0),
            tracing: Cell::new(false),
            digest: Cell::new(0),
        }
    }

    fn start(&self, seed: u64, hosts: u16) {
        *self.rng.borrow_mut() = Rng::new(seed);
        *self.hosts.borrow_mut() = (0..hosts).map(|_| Host { clock_step: 0 }).collect();
        self.groups.borrow_mut().push(GroupState {
            host: HostId(0),
            name: "world".into(),
            alive: true,
            stalled_until: 0,
        });
    }

    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.now.get())
    }

    pub(crate) fn current_host(&self) -> HostId {
        self.groups.borrow()[self.current.get() as usize].host
    }

    pub(crate) fn at(&self, at: Duration, what: What) {
        self.timers.borrow_mut().put(at.as_nanos() as u64, what);
    }

    fn drive(&self, done: impl Fn() -> bool) {
        let mut at_once = 0u64;
        while !done() {
            while let Some(due) = self.next_due() {
                self.fire(due);
            }
            if self.poll_one() {
                self.now.set(self.now.get() + POLL.as_nanos() as u64);
                at_once += 1;
                assert!(at_once < POLLS_AT_ONCE_MAX, "a task of {} spins", self.name());
                continue;
            }
            if self.wake_watchers() {
                continue;
            }
            at_once = 0;
            let Some(next) = self.timers.borrow().next() else {
                panic!("nothing will ever happen again, and the world has not ended")
            };
            self.now.set(self.now.get().max(next));
        }
    }

    fn next_due(&self) -> Option<What> {
        let sleeps = self.sleeps.borrow();
        let is_over = |what: &What| match what {
            What::Sleep { slot, generation } => sleeps[*slot as usize].generation != *generation,
            _ => false,
        };
        self.timers.borrow_mut().take(self.now.get(), is_over)
    }

    fn fire(&self, what: What) {
        match what {
            What::Wake(waker) => waker.wake(),
            What::Sleep { slot, generation } => {
                let mut sleeps = self.sleeps.borrow_mut();
                let sleep = &mut sleeps[slot as usize];
                if sleep.generation == generation
                    && let Some(waker) = sleep.waker.take()
                {
                    drop(sleeps);
                    waker.wake();
                }
            }
            What::Call(call) => call(),
            What::Deliver(conn, end) => conn.arrive(self, end),
        }
    }

    /// False when no task can go on.
    fn poll_one(&self) -> bool {
        let id = {
            let mut ready = self.ready.borrow_mut();
            loop {
                let count = ready.len();
                if count == 0 {
                    return false;
                }
                let at = if count == 1 { 0 } else { self.rng.borrow_mut().below(count as u64) as usize };
                let id = ready.swap_remove(at);
                let (group, generation) = {
                    let tasks = self.tasks.borrow();
                    (tasks[id as usize].group, tasks[id as usize].generation)
                };
                let until = self.groups.borrow()[group as usize].stalled_until;
                if until > self.now.get() {
                    // It stays queued until its thread goes on.
                    self.tasks.borrow_mut()[id as usize].queued = false;
                    self.at(Duration::from_nanos(until), What::Wake(waker(id, generation)));
                    continue;
                }
                break id;
            }
        };
        let (mut task, group, generation) = {
            let mut tasks = self.tasks.borrow_mut();
            let slot = &mut tasks[id as usize];
            slot.queued = false;
            let Some(task) = slot.task.take() else {
                // It was killed, or had ended, with its number still in the queue.
                self.free.borrow_mut().push(id);
                return true;
            };
            (task, slot.group, slot.generation)
        };
        self.polls.set(self.polls.get() + 1);
        self.digest.set((self.digest.get() ^ (u64::from(id) << 32 | u64::from(group))).wrapping_mul(0x0100_0000_01b3));
        self.current.set(group);
        let waker = waker(id, generation);
        let polled = task.as_mut().poll(&mut Context::from_waker(&waker));
        let alive = self.groups.borrow()[group as usize].alive;
        if polled.is_ready() || !alive {
            drop(task);
            let mut tasks = self.tasks.borrow_mut();
            let slot = &mut tasks[id as usize];
            slot.generation = slot.generation.wrapping_add(1);
            if !slot.queued {
                self.free.borrow_mut().push(id);
            }
        } else {
            self.tasks.borrow_mut()[id as usize].task = Some(task);
        }
        self.current.set(0);
        true
    }

    fn wake_watchers(&self) -> bool {
        let mut watched = self.watched.borrow_mut();
        let mut woken = false;
        watched.retain(|(holds, waker)| {
            let now = holds();
            if now {
                waker.wake_by_ref();
                woken = true;
            }
            !now
        });
        woken
    }

    /// Drops all tasks: what they hold may still use the machine.
    fn end(&self) {
        let groups = self.groups.borrow().len() as u32;
        for group in (0..groups).rev() {
            kill(Group(group));
        }
        drop(self.timers.take());
        self.watched.borrow_mut().clear();
        self.at_end.take().into_iter().for_each(|clear| clear());
    }

    fn name(&self) -> String {
        self.groups.borrow()[self.current.get() as usize].name.clone()
    }
}

/// A new group on a host.
pub fn group(host: HostId, name: impl Into<String>) -> Group {
    with(|m| {
        let mut groups = m.groups.borrow_mut();
        groups.push(GroupState { host, name: name.into(), alive: true, stalled_until: 0 });
        Group(groups.len() as u32 - 1)
    })
}

/// Starts a task in the group of the task that runs now.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    spawn_in(Group(with(|m| m.current.get())), task);
}

pub fn spawn_in(group: Group, task: impl Future<Output = ()> + 'static) {
    let task: Task = Box::pin(task);
    with(|m| {
        if !m.groups.borrow()[group.0 as usize].alive {
            return;
        }
        let id = m.free.borrow_mut().pop();
        let mut tasks = m.tasks.borrow_mut();
        let id = match id {
            Some(id) => {
                let slot = &mut tasks[id as usize];
                (slot.task, slot.queued, slot.group) = (Some(task), true, group.0);
                id
            }
            None => {
                tasks.push(Slot { generation: 0, task: Some(task), queued: true, group: group.0 });
                tasks.len() as u32 - 1
            }
        };
        m.ready.borrow_mut().push(id);
    });
}

/// Ends all tasks of a group where they stand; what they hold is dropped.
pub fn kill(group: Group) {
    let doomed: Vec<Task> = with(|m| {
        m.groups.borrow_mut()[group.0 as usize].alive = false;
        let mut doomed = Vec::new();
        let mut tasks = m.tasks.borrow_mut();
        for (id, slot) in tasks.iter_mut().enumerate() {
            if slot.group == group.0
                && let Some(task) = slot.task.take()
            {
                doomed.push(task);
                slot.generation = slot.generation.wrapping_add(1);
                if !slot.queued {
                    m.free.borrow_mut().push(id as u32);
                }
            }
        }
        doomed
    });
    let before = with(|m| m.current.replace(group.0));
    drop(doomed);
    with(|m| m.current.set(before));
}

/// The group's tasks do nothing for so long: its thread has lost its CPU.
pub fn stall(group: Group, duration: Duration) {
    with(|m| {
        let until = (m.now() + duration).as_nanos() as u64;
        let mut groups = m.groups.borrow_mut();
        let state = &mut groups[group.0 as usize];
        state.stalled_until = state.stalled_until.max(until);
    });
}

/// The group of the task that runs now.
pub fn current() -> Group {
    Group(with(|m| m.current.get()))
}

/// Its name.
pub fn current_name() -> String {
    with(Machine::name)
}

/// Since the machine was started.
pub fn now() -> Duration {
    with(Machine::now)
}

pub fn polls() -> u64 {
    with(|m| m.polls.get())
}

/// Differs when anything ran in another order.
pub fn digest() -> u64 {
    with(|m| m.digest.get() ^ m.now.get())
}

pub fn set_tracing(on: bool) {
    with(|m| m.tracing.set(on));
}

pub fn tracing() -> bool {
    MACHINE.try_with(|m| m.tracing.get()).unwrap_or(false)
}

/// A line of the trace: when, who, what.
pub fn trace(what: impl FnOnce() -> String) {
    if tracing() {
        eprintln!("{:>13.6} {:<14} {}", now().as_secs_f64(), current_name(), what());
    }
}

/// Random numbers of the machine's own.
pub fn random<T>(f: impl FnOnce(&mut Rng) -> T) -> T {
    with(|m| f(&mut m.rng.borrow_mut()))
}

/// Does `call` so much later.
pub fn after(duration: Duration, call: impl FnOnce() + 'static) {
    with(|m| m.at(m.now() + duration, What::Call(Box::new(call))));
}

/// Lets others run.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Resolves when `holds` does; looked at whenever no task can go on.
pub async fn when(holds: impl Fn() -> bool + 'static) {
    let holds = Rc::new(holds);
    std::future::poll_fn(|cx| {
        if holds() {
            return Poll::Ready(());
        }
        let (holds, waker) = (holds.clone(), cx.waker().clone());
        with(|m| m.watched.borrow_mut().push((Box::new(move || holds()), waker)));
        Poll::Pending
    })
    .await;
}

pub fn sleep(duration: Duration) -> Sleep {
    Sleep { until: now().saturating_add(duration), slot: None }
}

/// See [`sleep`].
pub struct Sleep {
    until: Duration,
    slot: Option<(u32, u32)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        with(|m| {
            if m.now() >= self.until {
                return Poll::Ready(());
            }
            let mut sleeps = m.sleeps.borrow_mut();
            match self.slot {
                Some((slot, _)) => sleeps[slot as usize].waker = Some(cx.waker().clone()),
                None => {
                    let slot = m.free_sleeps.borrow_mut().pop().unwrap_or_else(|| {
                        sleeps.push(SleepSlot { generation: 0, waker: None });
                        sleeps.len() as u32 - 1
                    });
                    let state = &mut sleeps[slot as usize];
                    state.waker = Some(cx.waker().clone());
                    let generation = state.generation;
                    self.slot = Some((slot, generation));
                    m.at(self.until, What::Sleep { slot, generation });
                }
            }
            Poll::Pending
        })
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some((slot, generation)) = self.slot else { return };
        let _ = MACHINE.try_with(|m| {
            let mut sleeps = m.sleeps.borrow_mut();
            let state = &mut sleeps[slot as usize];
            assert_eq!(state.generation, generation);
            state.generation = state.generation.wrapping_add(1);
            state.waker = None;
            m.free_sleeps.borrow_mut().push(slot);
        });
    }
}

// A waker is a number: the task's slot and generation. It is good on its own thread only, where all tasks live.
const VTABLE: RawWakerVTable = RawWakerVTable::new(|data| RawWaker::new(data, &VTABLE), wake, wake, |_| {});

fn waker(id: u32, generation: u32) -> Waker {
    let data = (u64::from(generation) << 32 | u64::from(id)) as usize as *const ();
    // SAFETY: the functions take the number out of `data` and never follow it; another thread has a machine of its own,
    // in which the number wakes nothing or a task once too often.
    unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) }
}

fn wake(data: *const ()) {
    let number = data as usize as u64;
    let (id, generation) = (number as u32, (number >> 32) as u32);
    let _ = MACHINE.try_with(|m| {
        let mut tasks = m.tasks.borrow_mut();
        let Some(slot) = tasks.get_mut(id as usize) else { return };
        if slot.generation == generation && !slot.queued {
            slot.queued = true;
            m.ready.borrow_mut().push(id);
        }
    });
}

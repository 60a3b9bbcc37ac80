//! Two corrections of how glommio 0.9 uses its rings, made at link time (`build.rs`: `--wrap`), since glommio has no
//! option for either.
//!
//! **COOP_TASKRUN.** Without `IORING_SETUP_COOP_TASKRUN` every socket that becomes ready interrupts the running thread
//! instead of waiting for its next system call. On a 2-core machine this costs a third of the CPU of a small request
//! (9.4-11 instead of 6.0-6.5 us). Each executor thread creates its rings in the order main, poll (IOPOLL), latency.
//! Only the first gets the flag: the latency ring's completion tail is read from memory without a system call. A probe
//! ring with 2 entries, which glommio makes once per process, is not changed. A kernel before 5.19 returns EINVAL; then
//! the call is repeated without the flag.
//!
//! **Bounded sleep.** The preemption timer may fire between glommio's check of its rings and the first task of a round
//! (when the thread lost its CPU for a millisecond). Then `run_task_queues` reports that it ran nothing, and the
//! executor sleeps although tasks are runnable, until another event wakes it: at the start of an executor, where there
//! is none, for ever. So no sleep is unbounded. The first sleep after an event lasts at most [`SLEEP_MIN`], each
//! further one twice as long, up to [`SLEEP_MAX`]. glommio takes the end of such a sleep for an interrupted call and
//! checks its tasks again.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const IORING_SETUP_IOPOLL: u32 = 1;
const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
const PROBE_RING_ENTRIES: c_uint = 2;

/// How long runnable tasks may be delayed by a sleep. Idling costs 36,000 wake-ups of about 10 us an hour.
const SLEEP_MIN: Duration = Duration::from_millis(2);
const SLEEP_MAX: Duration = Duration::from_millis(100);

thread_local! {
    /// True while the next normal ring of this thread is an executor's main ring.
    static MAIN_RING_NEXT: Cell<bool> = const { Cell::new(true) };
    static NEXT_SLEEP: Cell<Duration> = const { Cell::new(SLEEP_MIN) };
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// True once a main ring was created with the flag.
static APPLIED: AtomicBool = AtomicBool::new(false);

/// Whether any executor of this process runs with the flag. False is a reason for a warning, not for a failure.
pub fn coop_applied() -> bool {
    APPLIED.load(Relaxed)
}

unsafe extern "C" {
    fn __real_io_uring_queue_init_params(entries: c_uint, ring: *mut c_void, params: *mut u32) -> c_int;
    fn __real_io_uring_wait_cqes(
        ring: *mut c_void,
        cqe: *mut *mut c_void,
        count: c_uint,
        timeout: *mut Timespec,
        signals: *mut c_void,
    ) -> c_int;
}

/// glommio calls this instead of liburing's function of the same name (without `__wrap_`).
///
/// # Safety
/// As for `io_uring_queue_init_params`: `ring` and `params` are valid for writes of their C types.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_io_uring_queue_init_params(
    entries: c_uint,
    ring: *mut c_void,
    params: *mut u32,
) -> c_int {
    // SAFETY: `io_uring_params` begins with the u32 fields sq_entries, cq_entries, flags (kernel ABI), and the caller
    // owns it for the length of this call.
    let flags = unsafe { params.add(2) };
    // SAFETY: as above.
    let plain = unsafe { *flags } & IORING_SETUP_IOPOLL == 0 && entries != PROBE_RING_ENTRIES;
    if plain && MAIN_RING_NEXT.replace(!MAIN_RING_NEXT.get()) {
        // SAFETY: as above; the caller's own arguments are passed on.
        let answer = unsafe {
            *flags |= IORING_SETUP_COOP_TASKRUN;
            __real_io_uring_queue_init_params(entries, ring, params)
        };
        if answer != -libc::EINVAL {
            APPLIED.store(APPLIED.load(Relaxed) || answer == 0, Relaxed);
            return answer;
        }
        // SAFETY: as above.
        unsafe { *flags &= !IORING_SETUP_COOP_TASKRUN };
    }
    // SAFETY: the caller's own arguments are passed on.
    unsafe { __real_io_uring_queue_init_params(entries, ring, params) }
}

/// glommio calls this instead of liburing's function of the same name (without `__wrap_`), only to sleep.
///
/// # Safety
/// As for `io_uring_wait_cqes`: `ring` is an initialised ring of this thread, `cqe` valid for the write, the others
/// null or valid.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_io_uring_wait_cqes(
    ring: *mut c_void,
    cqe: *mut *mut c_void,
    count: c_uint,
    timeout: *mut Timespec,
    signals: *mut c_void,
) -> c_int {
    if !timeout.is_null() {
        // SAFETY: the caller's own arguments are passed on.
        return unsafe { __real_io_uring_wait_cqes(ring, cqe, count, timeout, signals) };
    }
    let sleep = NEXT_SLEEP.get();
    let mut bound = Timespec { seconds: 0, nanoseconds: i64::from(sleep.subsec_nanos()) };
    // SAFETY: the caller's own arguments are passed on, with a timeout that lives as long as the call.
    let answer = unsafe { __real_io_uring_wait_cqes(ring, cqe, count, ptr::from_mut(&mut bound), signals) };
    if answer == -libc::ETIME {
        NEXT_SLEEP.set((sleep * 2).min(SLEEP_MAX));
        return -libc::EINTR;
    }
    NEXT_SLEEP.set(SLEEP_MIN);
    answer
}

/// Tells the wrapper that this thread is about to build an executor.
pub(super) fn expect_main_ring() {
    MAIN_RING_NEXT.set(true);
}

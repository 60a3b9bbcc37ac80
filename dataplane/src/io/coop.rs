//! Adds `IORING_SETUP_COOP_TASKRUN` to the executor's main ring, which glommio 0.9 creates without it.
//!
//! Without the flag every socket that becomes ready interrupts the running thread instead of waiting for its next
//! kernel entry; measured on a 2-core machine that is a third of the CPU of a small request (9.4-11 instead of 6.0-6.5 us). The
//! linker sends glommio's calls of `io_uring_queue_init_params` here (`build.rs`: `--wrap`).
//!
//! Each executor thread creates its rings in the order main, poll (IOPOLL), latency; only the first gets the flag: the
//! latency ring's completion tail is read from memory without entering the kernel. A probe ring with 2 entries that
//! glommio makes once per process is left alone. A kernel before 5.19 answers EINVAL: the call is repeated as it was.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

const IORING_SETUP_IOPOLL: u32 = 1;
const IORING_SETUP_COOP_TASKRUN: u32 = 1 << 8;
const PROBE_RING_ENTRIES: c_uint = 2;

thread_local! {
    /// True while the next plain ring of this thread is an executor's main ring.
    static MAIN_RING_NEXT: Cell<bool> = const { Cell::new(true) };
}

/// True once a main ring was created with the flag.
static APPLIED: AtomicBool = AtomicBool::new(false);

/// Whether any executor of this process runs with the flag; false is worth a warning, not a failure.
pub fn applied() -> bool {
    APPLIED.load(Relaxed)
}

unsafe extern "C" {
    fn __real_io_uring_queue_init_params(entries: c_uint, ring: *mut c_void, params: *mut u32) -> c_int;
}

/// Called by glommio in place of liburing's function of the same name (without `__wrap_`).
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

/// Tells the shim that this thread is about to build an executor.
pub(super) fn expect_main_ring() {
    MAIN_RING_NEXT.set(true);
}

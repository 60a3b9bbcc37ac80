//! The allocator of the system: what it keeps, and when it gives memory back.

/// Lets the allocator keep large buffers for reuse. Otherwise each buffer for a frame or a request is mapped, cleared
/// by the kernel and unmapped again: 0.50 CPU s per million points instead of 0.30, at 1000 lines per request. It would
/// decide so by itself after the first large buffer that is freed; this does not depend on what happens first. To be
/// called at the start.
pub fn keep_large_buffers() {
    // SAFETY: takes numbers, and moves no memory that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 * 1024 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024 * 1024);
    }
}

/// Bounds the number of arenas, each of which keeps what its threads have freed: one for each worker and three for all
/// other threads. Otherwise there are eight for each core, and threads of queries spread over them: 50 merged queries
/// that nobody reads took 60 to 87 MiB beside their share, now 43 to 65. To be called at the start.
pub fn share_arenas(workers: usize) {
    let arenas = libc::c_int::try_from(workers + 3).unwrap_or(libc::c_int::MAX);
    // SAFETY: takes numbers, and moves no memory that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = arenas;
}

/// Gives memory that has been freed back to the system. The allocator keeps freed memory for ever, for the thread that
/// had it. Takes some milliseconds for each 100 MiB.
pub fn give_memory_back() {
    // SAFETY: takes a number, and moves no memory that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

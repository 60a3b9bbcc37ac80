//! Builds executors: one function, so that all executors have the same settings.

use std::future::Future;
use std::io;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use super::rings;

/// Registered buffers per ring. Only small log writes use them; more would only lock memory.
const IO_MEMORY_BYTES: usize = 256 * 1024;
/// A busy executor checks its sockets and wake-ups from other threads this often. With glommio's default of 100 ms,
/// other tasks would wait that long.
const PREEMPT_INTERVAL: Duration = Duration::from_millis(1);
/// The kernel releases the locked memory of ended rings late: a start that fails for lack of it is tried this often.
const START_ATTEMPTS: u32 = 20;

/// Starts a thread with an executor, pinned to `cpu` if given, that runs `task` to its end.
///
/// # Errors
/// When the kernel refuses the rings (io_uring disabled, locked memory exhausted). The join returns a panic of `task`.
pub fn executor<F, Fut, T>(name: &str, cpu: Option<usize>, task: F) -> io::Result<ExecutorJoinHandle<T>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    rings::expect_main_ring();
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(128)
        .preempt_timer(PREEMPT_INTERVAL)
        .spawn(task)
        .map_err(|e| io::Error::other(e.to_string()))
}

/// Runs a task on the same executor until it ends; nothing waits for it.
///
/// A panic in it would end the whole executor: catch panics inside.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task).detach();
}

/// Runs `task` on a new small executor and waits for it; for tests and tools.
///
/// # Panics
/// When the executor does not start, or `task` panics.
pub fn block_on<F, Fut, T>(task: F) -> T
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let mut attempt = 0;
    loop {
        attempt += 1;
        let handle = LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(64 << 10)
            .ring_depth(64)
            .preempt_timer(PREEMPT_INTERVAL)
            .spawn(task.clone());
        match handle.map(ExecutorJoinHandle::join) {
            Ok(Ok(value)) => return value,
            Ok(Err(e)) | Err(e) if attempt < START_ATTEMPTS && e.to_string().contains("Cannot allocate memory") => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(Err(e)) | Err(e) => panic!("executor: {e}"),
        }
    }
}

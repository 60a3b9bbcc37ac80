//! A stack for trees that are too deep for the usual one.

use std::io;
use std::panic::resume_unwind;
use std::thread;

use crate::limits::QUERY_DEEP_STACK_BYTES;

/// Runs this on a thread of its own, and waits: the work takes no longer than on the worker's own stack. The trees must
/// be dropped in it as well.
///
/// # Errors
/// When the thread cannot be started.
pub fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("deep-query".to_owned()).stack_size(QUERY_DEEP_STACK_BYTES);
        let ended = builder.spawn_scoped(scope, work)?.join();
        Ok(ended.unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

//! Thin interfaces to the runtime: sockets, files, timers, clocks, events. Only this folder and `disklog/store` name
//! glommio, so that it can be replaced.
//!
//! `uring` is the runtime; all clocks, sockets, files and wake-ups from other threads come from it. With the feature
//! `sim` a simulated machine takes its place (`sim.rs`). All code above is the same with both.

mod event;
mod stream;
mod time;
mod tls;

#[cfg(not(feature = "sim"))]
mod uring;
#[cfg(not(feature = "sim"))]
use uring as runtime;

#[cfg(feature = "sim")]
mod sim;
#[cfg(feature = "sim")]
use sim as runtime;

pub use event::Event;
pub use runtime::{
    AppendFile, Bell, Datagrams, Listener, PortGuard, Signal, Socket, bind, block_on, exists, list_files, now,
    read_file, remove, shut, sleep, spawn, sync_folder, system_time, unlike, yield_if_needed,
};
#[cfg(not(feature = "sim"))]
pub use runtime::{bind_datagrams, executor, rings};
pub use stream::Stream;
pub use time::{Elapsed, elapsed, timeout, unless};
pub use tls::HandshakeError;

#[cfg(all(test, not(feature = "sim")))]
mod io_test;

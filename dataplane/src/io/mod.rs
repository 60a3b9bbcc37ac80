//! Thin interfaces over the runtime: sockets, timers, events. Only this folder and `disklog/store.rs` name glommio, so
//! that a fork or another runtime can take its place.

mod append;
mod event;
mod executor;
mod listener;
pub mod rings;
mod signal;
mod stream;
mod time;
mod tls;

pub use append::{AppendFile, remove, sync_folder};
pub use event::Event;
pub use executor::{block_on, executor, spawn};
pub use listener::{Listener, PortGuard, bind};
pub use signal::Signal;
pub use stream::Stream;
pub use time::{Elapsed, now, sleep, timeout, yield_if_needed};
pub use tls::HandshakeError;

#[cfg(test)]
mod tests;

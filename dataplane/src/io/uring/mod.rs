//! The runtime of the program: glommio, one executor per thread, over io_uring.

mod append;
mod clock;
mod datagrams;
mod executor;
mod listener;
pub mod rings;
mod signal;
mod tcp;

pub use append::{AppendFile, exists, list_files, read_file, remove, sync_folder};
pub use clock::{now, sleep, system_time, unlike, yield_if_needed};
pub use datagrams::{Datagrams, bind_datagrams};
pub use executor::{block_on, executor, spawn};
pub use listener::{Listener, PortGuard, bind};
pub use signal::{Bell, Signal};
pub use socket2::Socket;
pub use tcp::shut;
pub(super) use tcp::{TcpStream, connect, peer_addr, reset_at_end, shutdown};

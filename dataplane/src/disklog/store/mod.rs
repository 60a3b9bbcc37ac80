//! The files of one log directory. Nothing else in the log touches a file of an open log.
//!
//! Two interfaces. [`Files`] reads a directory that is not changing, with blocking calls (at open, before the worker
//! accepts, and in tools). [`Store`] is for an open log and never blocks the executor. Tests put a simulated, faulty
//! disk behind both. `disk.rs` is the real disk; with the feature `sim` a simulated one takes its place
//! (`simulated.rs`). Not here: the consequences of failures (`commit.rs` poisons the log).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

#[cfg(not(feature = "sim"))]
mod disk;
#[cfg(not(feature = "sim"))]
pub(super) use disk::{DirLock, Disk, is_dir};

#[cfg(feature = "sim")]
mod simulated;
#[cfg(feature = "sim")]
pub(super) use simulated::{DirLock, Disk, is_dir};

/// Subdirectory of the log's directory for damaged files.
pub(super) const ASIDE_DIR: &str = "damaged";

pub(super) type Io<T> = Pin<Box<dyn Future<Output = io::Result<T>>>>;

/// A directory read with blocking calls.
pub(super) trait Files {
    /// Names and lengths of the ordinary files.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Fewer bytes than `len` only at the end of the file.
    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
}

/// A file of frames, open for writing only.
pub(super) trait WriteFile {
    /// Lets `fill` write `len` bytes into an I/O buffer before this returns, then writes them. Offset and length are
    /// multiples of the block. May write less; returns how many bytes it wrote.
    fn write(&self, offset: u64, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Io<usize>;
    /// Returns when everything written survives power loss.
    fn sync(&self) -> Io<()>;
}

pub(super) trait ReadFile {
    /// Fewer bytes than `len` only at the end of the file.
    fn read(&self, offset: u64, len: usize) -> Io<Vec<u8>>;
}

/// What an open log does with its directory. Renames and removals are durable when the call returns.
pub(super) trait Store: Files {
    /// Opens or creates a file for writing, with `bytes` of disk reserved for it. With `dsync` each write is durable
    /// when it returns.
    fn create(&self, name: &str, bytes: u64, dsync: bool) -> Io<Rc<dyn WriteFile>>;
    fn open(&self, name: &str) -> Io<Rc<dyn ReadFile>>;
    fn truncate(&self, name: &str, bytes: u64) -> Io<()>;
    fn rename(&self, from: &str, to: &str) -> Io<()>;
    fn remove(&self, name: &str) -> Io<()>;
    /// Gives the file a second name under [`ASIDE_DIR`], so that it remains when the log removes it. With
    /// `LOG_DAMAGED_FILES_MAX` files there already: does nothing.
    fn keep_aside(&self, name: &str) -> Io<()>;
    /// False: the directory is not where it was opened, or lacks one of these files. Another directory in its place is
    /// not it. True when that cannot be told.
    fn is_in_place(&self, names: Vec<String>) -> Io<bool>;
}

/// True for "no space" and "over quota".
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

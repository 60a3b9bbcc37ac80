//! A wake-up from another thread: an eventfd read through the executor's ring.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use glommio::io::BufferedFile;

/// An eventfd, owned jointly by all that signal it and the one that waits, so that the descriptor cannot be closed and
/// reused by another file.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// When the kernel has no eventfd left (open files, memory).
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers and touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just created, is open, and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds one to the counter. This blocks only at the counter's maximum (2^64 - 2), which is never reached, and does
    /// not fail with a valid descriptor.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open (we own it) and `one` is 8 readable bytes for the length of the call.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// For the executor that waits. The read must block until the signal: the ring waits for a blocking descriptor, but
    /// with `O_NONBLOCK` it would return EAGAIN at once.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn signal(&self) -> io::Result<Signal> {
        let fd: RawFd = self.0.try_clone()?.into_raw_fd();
        // SAFETY: an open descriptor whose ownership moves into the file here.
        Ok(Signal { file: unsafe { BufferedFile::from_raw_fd(fd) } })
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The waiting end of a [`Bell`].
pub struct Signal {
    file: BufferedFile,
}

impl Signal {
    /// Resolves once the bell has been rung since the last call.
    ///
    /// # Errors
    /// Of `read(2)`.
    pub async fn wait(&self) -> io::Result<()> {
        self.file.read_at(0, 8).await.map(|_| ()).map_err(io::Error::from)
    }
}

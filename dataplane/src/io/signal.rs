//! A wake-up from another thread: an eventfd read through the executor's ring.

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use glommio::io::BufferedFile;

/// The worker's end of an eventfd.
pub struct Signal {
    file: BufferedFile,
}

impl Signal {
    /// Takes the descriptor over.
    pub fn new(eventfd: OwnedFd) -> Self {
        let fd: RawFd = eventfd.into_raw_fd();
        // SAFETY: an open descriptor whose ownership moves into the file here.
        Self { file: unsafe { BufferedFile::from_raw_fd(fd) } }
    }

    /// Resolves once the other thread has written since the last call.
    ///
    /// # Errors
    /// Of `read(2)`.
    pub async fn wait(&self) -> io::Result<()> {
        self.file.read_at(0, 8).await.map(|_| ()).map_err(io::Error::from)
    }
}

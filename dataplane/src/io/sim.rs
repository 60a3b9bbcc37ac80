//! The runtime of simulations: a machine in memory (`fluxgate-machine`) under the names of `uring`.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fluxgate_machine::{Flag, disk, exec, net};

use super::Stream;

pub use exec::{sleep, spawn};
pub use fluxgate_machine::clock::{instant as now, system_time};
pub(super) use net::Stream as TcpStream;
pub use net::shut;

/// A number that no other call is likely to return.
pub fn unlike() -> u64 {
    exec::random(fluxgate_machine::Rng::number)
}

/// Sometimes lets other tasks run.
pub async fn yield_if_needed() {
    if exec::random(|rng| rng.one_in(8)) {
        exec::yield_now().await;
    }
}

/// Runs `task` on a machine of its own.
///
/// # Panics
/// When `task` does.
pub fn block_on<F, Fut, T>(task: F) -> T
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    exec::run(1, 1, task).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(super) async fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    super::timeout(timeout, net::connect(addr)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

#[expect(clippy::unused_async, reason = "as the real one")]
pub(super) async fn shutdown(stream: &TcpStream, how: Shutdown) -> io::Result<()> {
    stream.shutdown(how);
    Ok(())
}

/// # Errors
/// Never.
pub(super) fn peer_addr(stream: &TcpStream) -> io::Result<SocketAddr> {
    stream.peer_addr()
}

pub(super) fn reset_at_end(stream: &TcpStream) {
    stream.reset_at_end();
}

/// A socket that is bound and does not listen yet.
#[derive(Clone, Copy, Debug)]
pub struct Socket(SocketAddr);

impl Socket {
    pub fn bound_to(addr: SocketAddr) -> Self {
        Self(addr)
    }
}

/// Holds nothing: the simulation gives each process its own address.
#[derive(Debug)]
pub struct PortGuard;

/// # Errors
/// Never.
pub fn bind(addr: SocketAddr, count: usize) -> io::Result<(PortGuard, Vec<Socket>)> {
    Ok((PortGuard, vec![Socket(addr); count]))
}

/// A worker's listening socket.
pub struct Listener(net::Listener);

impl Listener {
    /// # Errors
    /// Never.
    pub fn new(socket: Socket) -> io::Result<Self> {
        Ok(Self(net::listen(socket.0)))
    }

    /// # Errors
    /// After [`Listener::close`] `InvalidInput`.
    pub async fn accept(&self) -> io::Result<Stream> {
        self.0.accept().await.map(Stream::from)
    }

    pub fn close(&self) {
        self.0.close();
    }

    /// # Errors
    /// Never.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }
}

/// There is no UDP in simulations.
pub struct Datagrams(std::convert::Infallible);

impl Datagrams {
    /// # Errors
    /// Always: no configuration of a simulation has any.
    pub fn new(_: Socket) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// # Errors
    /// Never.
    #[expect(clippy::unused_async, reason = "as the real one")]
    pub async fn receive(&self, _: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0 {}
    }

    pub fn lost(&self) -> u32 {
        match self.0 {}
    }
}

/// Wakes the task that waits for its [`Signal`].
#[derive(Debug, Default)]
pub struct Bell(Arc<Flag>);

impl Bell {
    /// # Errors
    /// Never.
    pub fn new() -> io::Result<Self> {
        Ok(Self::default())
    }

    pub fn ring(&self) {
        self.0.raise();
    }

    /// # Errors
    /// Never.
    pub fn signal(&self) -> io::Result<Signal> {
        Ok(Signal(self.0.clone()))
    }
}

pub struct Signal(Arc<Flag>);

impl Signal {
    /// # Errors
    /// Never.
    pub async fn wait(&self) -> io::Result<()> {
        self.0.wait().await;
        Ok(())
    }
}

/// A file that only grows.
pub struct AppendFile {
    file: disk::OpenFile,
    size: u64,
}

impl std::fmt::Debug for AppendFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppendFile").field("size", &self.size).finish_non_exhaustive()
    }
}

impl AppendFile {
    /// # Errors
    /// Those of the simulated disk.
    pub async fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: disk::create_empty(path.to_owned()).await?, size: 0 })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// # Errors
    /// The size is then as before.
    pub async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            done += self.file.write(self.size + done as u64, bytes[done..].to_vec()).await?;
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// # Errors
    /// What was appended since the last sync may then be lost.
    pub async fn sync(&self) -> io::Result<()> {
        self.file.sync().await
    }

    /// # Errors
    /// Never.
    #[expect(clippy::unused_async, reason = "as the real one")]
    pub async fn close(self) -> io::Result<()> {
        Ok(())
    }
}

/// # Errors
/// Never.
pub async fn sync_folder(path: &Path) -> io::Result<()> {
    disk::make_folder(path.to_owned()).await
}

/// Nobody else removes files of a simulated disk.
pub async fn exists(_: &Path) -> bool {
    true
}

/// # Errors
/// Of the simulated disk.
pub async fn remove(path: &Path) -> io::Result<()> {
    disk::remove(path.to_owned()).await
}

/// # Errors
/// Of the simulated disk.
pub fn list_files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    Ok(disk::list(folder)?.into_iter().map(|(name, bytes)| (folder.join(name), bytes)).collect())
}

/// # Errors
/// Of the simulated disk.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    disk::read_now(path, 0, usize::MAX)
}

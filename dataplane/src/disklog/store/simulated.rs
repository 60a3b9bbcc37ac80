//! A directory on the disk of a simulated machine.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fluxgate_machine::disk;

use super::{ASIDE_DIR, Files, Io, ReadFile, Store, WriteFile};
use crate::limits::LOG_DAMAGED_FILES_MAX;

pub use disk::is_folder as is_dir;

pub struct Disk {
    dir: PathBuf,
}

pub struct DirLock {
    _lock: disk::Lock,
}

impl Disk {
    pub fn open(dir: &Path) -> io::Result<(Self, DirLock)> {
        disk::make_folder_now(dir);
        let lock = disk::lock(dir).ok_or(io::ErrorKind::WouldBlock)?;
        Ok((Self { dir: dir.to_owned() }, DirLock { _lock: lock }))
    }

    /// Small, so that a few hundred requests fill several segments and outgrow the hot tail.
    pub fn smallest(&self) -> (u64, usize) {
        (64 << 10, 64 << 10)
    }

    pub fn fs_bytes(&self) -> io::Result<u64> {
        Ok(disk::capacity())
    }
}

impl Files for Path {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        disk::list(self)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        disk::read_now(&self.join(name), offset, len)
    }
}

impl Files for Disk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.dir.as_path().list()
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        Files::read(self.dir.as_path(), name, offset, len)
    }
}

impl Store for Disk {
    fn create(&self, name: &str, bytes: u64, dsync: bool) -> Io<Rc<dyn WriteFile>> {
        let path = self.dir.join(name);
        Box::pin(async move { Ok(Rc::new(disk::create(path, bytes, dsync).await?) as Rc<dyn WriteFile>) })
    }

    fn open(&self, name: &str) -> Io<Rc<dyn ReadFile>> {
        let path = self.dir.join(name);
        Box::pin(async move { Ok(Rc::new(disk::open(path).await?) as Rc<dyn ReadFile>) })
    }

    fn truncate(&self, name: &str, bytes: u64) -> Io<()> {
        Box::pin(disk::truncate(self.dir.join(name), bytes))
    }

    fn rename(&self, from: &str, to: &str) -> Io<()> {
        Box::pin(disk::rename(self.dir.join(from), self.dir.join(to)))
    }

    fn remove(&self, name: &str) -> Io<()> {
        Box::pin(disk::remove(self.dir.join(name)))
    }

    fn keep_aside(&self, name: &str) -> Io<()> {
        Box::pin(disk::keep_aside(self.dir.join(name), self.dir.join(ASIDE_DIR), LOG_DAMAGED_FILES_MAX))
    }

    /// Nobody else touches a simulated disk.
    fn is_in_place(&self, _: Vec<String>) -> Io<bool> {
        Box::pin(async { Ok(true) })
    }
}

impl WriteFile for disk::OpenFile {
    fn write(&self, offset: u64, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Io<usize> {
        let mut bytes = disk::buffer(len);
        fill(&mut bytes);
        let file = self.clone();
        Box::pin(async move { file.write(offset, bytes).await })
    }

    fn sync(&self) -> Io<()> {
        let file = self.clone();
        Box::pin(async move { file.sync().await })
    }
}

impl ReadFile for disk::OpenFile {
    fn read(&self, offset: u64, len: usize) -> Io<Vec<u8>> {
        let file = self.clone();
        Box::pin(async move { file.read(offset, len).await })
    }
}

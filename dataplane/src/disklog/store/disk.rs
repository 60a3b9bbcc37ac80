//! The real disk. Its first DMA file must be opened write-only: with a read-write or an empty file the runtime would
//! assume that the device can be polled, and busy-wait on every write.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{DmaFile, OpenOptions};

use super::{ASIDE_DIR, Files, Io, ReadFile, Store, WriteFile};
use crate::crash;
use crate::limits::{HOT_TAIL_BYTES_MIN, LOG_DAMAGED_FILES_MAX, SEGMENT_BYTES_MIN};

const LOCK_FILE: &str = "lock";

/// Blocks.
pub fn is_dir(path: &Path) -> bool {
    path.is_dir()
}

impl Files for Path {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut out = Vec::new();
        for entry in fs::read_dir(self)? {
            let entry = entry?;
            // A running log may have just renamed or removed the file.
            let Ok(meta) = entry.metadata() else { continue };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                out.push((name, meta.len()));
            }
        }
        Ok(out)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.join(name))?;
        let mut out = vec![0; len];
        let mut have = 0;
        while have < len {
            match file.read_at(&mut out[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        out.truncate(have);
        Ok(out)
    }
}

/// A log's directory, accessed through the runtime.
pub struct Disk {
    dir: PathBuf,
    /// Held open, so that its number is not given to another one when it is removed.
    opened: File,
}

/// Held while a log is open. The kernel releases it when the process ends, however it ends.
pub struct DirLock {
    _file: File,
}

impl Disk {
    /// Opens the directory; creates it if missing. `WouldBlock` if another log has it open.
    pub fn open(dir: &Path) -> io::Result<(Self, DirLock)> {
        fs::create_dir_all(dir)?;
        let file = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK_FILE))?;
        file.try_lock()?;
        Ok((Self { dir: dir.to_owned(), opened: File::open(dir)? }, DirLock { _file: file }))
    }

    /// The smallest segment and hot tail that a log on this disk may have, in bytes.
    pub fn smallest(&self) -> (u64, usize) {
        (SEGMENT_BYTES_MIN, HOT_TAIL_BYTES_MIN)
    }

    /// Bytes of the whole file system.
    pub fn fs_bytes(&self) -> io::Result<u64> {
        let path = std::ffi::CString::new(self.dir.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: all-zero bytes are a valid statvfs, which is made of integers.
        let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` is NUL-terminated and `stat` is writable, both for the whole call.
        if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stat.f_frsize * stat.f_blocks)
    }
}

/// Runs `work` on the runtime's blocking thread.
fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Io<T> {
    Box::pin(glommio::executor().spawn_blocking(work))
}

/// Whether `path` leads to something for which `is_it` holds. True when that cannot be told.
fn leads_to(path: &Path, is_it: impl FnOnce(&fs::Metadata) -> bool) -> bool {
    match fs::metadata(path) {
        Ok(found) => is_it(&found),
        Err(e) => !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Converts the runtime's error to a system error that keeps its number.
fn system_error(error: glommio::GlommioError<()>) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// On btrfs, overwriting takes new space unless the file, while it is empty, gets a flag: without it reserved space
/// would not be enough. Other file systems refuse the flag.
fn overwrite_in_place(file: &DmaFile) {
    const FS_NOCOW_FL: libc::c_int = 0x0080_0000;
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is open, and `flags` is an int, readable and writable for both calls.
    unsafe {
        if libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) == 0 && flags & FS_NOCOW_FL == 0 {
            flags |= FS_NOCOW_FL;
            libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags);
        }
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
        Box::pin(async move {
            crash::point("create");
            let flags = if dsync { libc::O_DSYNC } else { 0 };
            let file = OpenOptions::new().write(true).create(true).custom_flags(flags).dma_open(&path).await;
            let file = file.map_err(system_error)?;
            overwrite_in_place(&file);
            match file.pre_allocate(bytes, false).await.map_err(system_error) {
                // Some file systems cannot reserve space; then a write may find the disk full.
                Err(e) if e.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(e),
                _ => {}
            }
            crash::point("created");
            Ok(Rc::new(Rc::new(file)) as Rc<dyn WriteFile>)
        })
    }

    fn open(&self, name: &str) -> Io<Rc<dyn ReadFile>> {
        let path = self.dir.join(name);
        Box::pin(async move {
            let file = DmaFile::open(&path).await.map_err(system_error)?;
            Ok(Rc::new(Rc::new(file)) as Rc<dyn ReadFile>)
        })
    }

    fn truncate(&self, name: &str, bytes: u64) -> Io<()> {
        let path = self.dir.join(name);
        blocking(move || {
            let file = File::options().write(true).open(path)?;
            file.set_len(bytes)?;
            file.sync_all()
        })
    }

    fn rename(&self, from: &str, to: &str) -> Io<()> {
        let dir = self.dir.clone();
        let (from, to) = (dir.join(from), dir.join(to));
        blocking(move || {
            crash::point("rename");
            fs::rename(from, to)?;
            crash::point("renamed");
            sync_dir(&dir)?;
            crash::point("rename-durable");
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Io<()> {
        let dir = self.dir.clone();
        let path = dir.join(name);
        blocking(move || {
            crash::point("remove");
            fs::remove_file(path)?;
            crash::point("removed");
            sync_dir(&dir)
        })
    }

    fn keep_aside(&self, name: &str) -> Io<()> {
        let aside = self.dir.join(ASIDE_DIR);
        let path = self.dir.join(name);
        let name = name.to_owned();
        blocking(move || {
            fs::create_dir_all(&aside)?;
            if fs::read_dir(&aside)?.count() >= LOG_DAMAGED_FILES_MAX {
                return Ok(());
            }
            match fs::hard_link(&path, aside.join(&name)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        })
    }

    fn is_in_place(&self, names: Vec<String>) -> Io<bool> {
        let dir = self.dir.clone();
        let opened = self.opened.metadata().map(|opened| (opened.dev(), opened.ino()));
        blocking(move || {
            let opened = opened?;
            let is_it = leads_to(&dir, |found| (found.dev(), found.ino()) == opened);
            Ok(is_it && names.iter().all(|name| leads_to(&dir.join(name), fs::Metadata::is_file)))
        })
    }
}

impl WriteFile for Rc<DmaFile> {
    fn write(&self, offset: u64, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Io<usize> {
        let mut buffer = self.alloc_dma_buffer(len);
        // A buffer comes from a pool and may be larger than asked for.
        buffer.trim_to_size(len);
        fill(buffer.as_bytes_mut());
        let file = Rc::clone(self);
        Box::pin(async move {
            crash::point("write");
            let written = file.write_at(buffer, offset).await.map_err(system_error);
            crash::point("written");
            written
        })
    }

    fn sync(&self) -> Io<()> {
        let file = Rc::clone(self);
        Box::pin(async move {
            crash::point("sync");
            let synced = file.fdatasync().await.map_err(system_error);
            crash::point("synced");
            synced
        })
    }
}

impl ReadFile for Rc<DmaFile> {
    fn read(&self, offset: u64, len: usize) -> Io<Vec<u8>> {
        let file = Rc::clone(self);
        Box::pin(async move {
            let mut out = Vec::new();
            while out.len() < len {
                let read = file.read_at(offset + out.len() as u64, len - out.len()).await.map_err(system_error)?;
                if read.is_empty() {
                    break;
                }
                out.extend_from_slice(&read);
            }
            Ok(out)
        })
    }
}

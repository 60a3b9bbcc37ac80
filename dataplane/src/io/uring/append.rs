//! A file that only grows; writing does not block the executor.

use std::io;
use std::path::{Path, PathBuf};

use glommio::io::{BufferedFile, Directory};

/// An ordinary file through the page cache; nothing is durable before [`AppendFile::sync`].
#[derive(Debug)]
pub struct AppendFile {
    file: BufferedFile,
    size: u64,
}

impl AppendFile {
    /// Creates an empty file at `path`; an existing file is truncated.
    ///
    /// # Errors
    /// Of `open(2)`.
    pub async fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufferedFile::create(path).await.map_err(io::Error::from)?, size: 0 })
    }

    /// Bytes appended so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// # Errors
    /// Of `write(2)`. The size is then unchanged: the next append overwrites a partial write.
    pub async fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let written = self.file.write_at(bytes[done..].to_vec(), self.size + done as u64).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += written;
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Waits until everything appended is on disk.
    ///
    /// # Errors
    /// Of `fdatasync(2)`. Bytes appended since the last sync may then be lost, even if a later sync succeeds.
    pub async fn sync(&self) -> io::Result<()> {
        self.file.fdatasync().await.map_err(io::Error::from)
    }

    /// # Errors
    /// Of `close(2)`.
    pub async fn close(self) -> io::Result<()> {
        self.file.close().await.map_err(io::Error::from)
    }
}

/// Creates the folder if missing, and waits until its entries are on disk.
///
/// # Errors
/// Of `mkdir(2)` and `fdatasync(2)`.
pub async fn sync_folder(path: &Path) -> io::Result<()> {
    // glommio 0.9 opens a directory relative to descriptor -1, which the kernel takes for absolute paths only.
    let folder = Directory::create(std::path::absolute(path)?).await.map_err(io::Error::from)?;
    folder.sync().await.map_err(io::Error::from)?;
    folder.close().await.map_err(io::Error::from)
}

/// False when there is no file of that name. True when that cannot be told.
pub async fn exists(path: &Path) -> bool {
    let path = path.to_owned();
    glommio::executor().spawn_blocking(move || path.try_exists().unwrap_or(true)).await
}

/// Removes a file.
///
/// # Errors
/// Of `unlink(2)`.
pub async fn remove(path: &Path) -> io::Result<()> {
    glommio::io::remove(path).await.map_err(io::Error::from)
}

/// Paths and sizes of the entries of a folder; empty when the folder does not exist. Blocks: at start only.
///
/// # Errors
/// Of reading the folder.
pub fn list_files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
        Ok(entries) => entries.map(|entry| entry.and_then(|e| Ok((e.path(), e.metadata()?.len())))).collect(),
    }
}

/// The contents of a file. Blocks: at start only.
///
/// # Errors
/// Of `open(2)` and `read(2)`.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

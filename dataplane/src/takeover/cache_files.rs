//! Finds influx-proxy's cache files, which are imported once, when fluxgate replaces it.
//!
//! ```text
//!   <backend>.dat   blocks of points that influx-proxy could not deliver (`cache_blocks`)
//!   <backend>.rec   offset of the next unread byte, 8 bytes big-endian
//! ```
//!
//! A file that another process has open for writing is left alone. Blocks, at start only.

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::one_line::one_line;
use crate::takeover::cache_blocks::Blocks;

/// The cache file of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFile {
    pub backend: String,
    pub data: PathBuf,
    record: PathBuf,
}

/// A process that has a cache file open for writing.
#[derive(Debug, PartialEq, Eq)]
pub struct Writer {
    pub pid: u32,
    /// The name of its program.
    pub name: String,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = one_line(&self.name);
        write!(f, "process {} ({name}) may still write to it; end it, and start fluxgate again", self.pid)
    }
}

/// The cache files in a data directory that are not empty.
pub fn find(data_dir: &Path) -> Vec<CacheFile> {
    let Ok(entries) = fs::read_dir(data_dir) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let data = entry.ok()?.path();
            let backend = data.file_name()?.to_str()?.strip_suffix(".dat")?.to_owned();
            let held = data.metadata().ok()?.len() > 0;
            held.then(|| CacheFile { backend, record: data.with_extension("rec"), data })
        })
        .collect();
    files.sort_by(|a, b| a.backend.cmp(&b.backend));
    files
}

/// Removes the empty files of these backends, so that those which influx-proxy makes when it runs here again are newer
/// than ours.
///
/// # Errors
/// When a file cannot be removed.
pub fn remove_empty<'a>(data_dir: &Path, backends: impl Iterator<Item = &'a str>) -> io::Result<()> {
    for backend in backends {
        let data = data_dir.join(format!("{backend}.dat"));
        let is_empty = data.metadata().is_ok_and(|data| data.len() == 0);
        let file = CacheFile { backend: backend.to_owned(), record: data.with_extension("rec"), data };
        if is_empty && file.writer().is_none() {
            fs::remove_file(&file.data)?;
            match fs::remove_file(&file.record) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The newest of influx-proxy's files in a data directory, with the time at which it was last written.
pub fn newest(data_dir: &Path) -> Option<(SystemTime, PathBuf)> {
    let is_its = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "dat" || ending == "rec");
    let paths = fs::read_dir(data_dir).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_its);
    paths.filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max()
}

impl CacheFile {
    /// What to do when no backend has its name.
    pub fn no_backend(&self) -> String {
        let name = one_line(&self.backend);
        format!(
            "no backend is named {name}. If it has another name now, rename {name}.dat to NAME.dat and {name}.rec, if \
             there is one, to NAME.rec, and start again; if it is gone, remove them"
        )
    }

    /// The timestamp for lines without one: when the file was last written, which is closer to the truth than now.
    pub fn stamp(&self) -> Vec<u8> {
        let modified = self.data.metadata().and_then(|m| m.modified()).ok();
        let nanos = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
        nanos.to_string().into_bytes()
    }

    /// Opens the file behind the blocks that have been delivered.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn blocks(&self) -> io::Result<Blocks> {
        let mut blocks = Blocks::open(self.data.clone())?;
        let record = match fs::read(&self.record) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(blocks),
            other => other?,
        };
        let shown = self.record.display();
        match <[u8; 8]>::try_from(&record[..]).map(u64::from_be_bytes) {
            Ok(offset) if blocks.skip_to(offset)? => {}
            // influx-proxy empties the file first and sets the offset then. Ended in between, it finds none of the
            // blocks that it appends later.
            Ok(offset) => {
                log::warn!(
                    "{shown}: no block of {} begins at offset {offset}: the whole file is imported",
                    self.data.display()
                );
            }
            // As influx-proxy leaves it before the first block is read.
            Err(_) if record.is_empty() => {}
            Err(_) => log::warn!(
                "{shown} has {} bytes instead of 8: the whole file {} is imported",
                record.len(),
                self.data.display()
            ),
        }
        Ok(blocks)
    }

    /// Another process that may still write to the file: influx-proxy itself. Not found when this process may not look,
    /// as when it belongs to another user.
    pub fn writer(&self) -> Option<Writer> {
        let file = self.data.metadata().ok()?;
        let processes = fs::read_dir("/proc").ok()?;
        let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let pid = numbers.filter(|&pid| pid != std::process::id()).find(|pid| has_open(*pid, &file))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Some(Writer { pid, name: name.trim_end().to_owned() })
    }

    /// Renames the files after everything has been taken over, so that they are not read again.
    ///
    /// # Errors
    /// When a rename fails.
    pub fn put_aside(&self) -> io::Result<()> {
        let (data, record) = self.names_aside();
        fs::rename(&self.data, data)?;
        match fs::rename(&self.record, record) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Names that are not taken: `.imported`, or with a number when an earlier import has left files.
    fn names_aside(&self) -> (PathBuf, PathBuf) {
        let named = |path: &Path, number: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".imported{number}"));
            PathBuf::from(name)
        };
        let mut names = (named(&self.data, ""), named(&self.record, ""));
        for number in 2.. {
            if !names.0.exists() && !names.1.exists() {
                break;
            }
            let number = format!(".{number}");
            names = (named(&self.data, &number), named(&self.record, &number));
        }
        names
    }
}

/// Whether a process has this file open for writing.
fn has_open(pid: u32, file: &Metadata) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (file.dev(), file.ino()));
    let writes = |path: &Path| {
        let number = path.file_name().unwrap_or_default().display().to_string();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        // O_WRONLY or O_RDWR.
        flags.is_some_and(|flags| flags & 0o3 != 0)
    };
    descriptors.filter_map(|entry| Some(entry.ok()?.path())).any(|path| is_it(&path) && writes(&path))
}

//! Stores lines that a backend refuses for good, with the reason, so that an operator can read them and send them
//! again.
//!
//! The path is `data_dir/rejected/<backend>/w<worker>-<number>.lp`. An entry is a comment and the line, so the whole
//! file is line protocol:
//!
//! ```text
//! # 2026-01-31T12:00:00Z db=metrics rp= precision=n reason=partial write: field type conflict: ...
//! cpu,host=a usage=1i 1769860800000000000
//! ```
//!
//! A backend has one courier, on one worker, which may be another one after a restart. A file is never reopened for
//! writing: after a start or a failed sync the next entry starts a new file. A failed write, as on a full disk, is
//! tried again in the same file, so that failures make no files that push out others.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::client::Target;
use crate::crash;
use crate::http::query::percent_encode;
use crate::io::{AppendFile, Event, exists, list_files, remove, sync_folder};
use crate::limits::{DEAD_LETTER_FILE_BYTES_MIN, DEAD_LETTER_FILES};

/// The dead letters of one backend.
#[derive(Debug)]
pub struct DeadLetters {
    folder: PathBuf,
    worker: usize,
    bytes_max: u64,
    /// Complete files with their sizes, oldest first.
    files: Vec<(PathBuf, u64)>,
    number: u64,
    current: Option<(PathBuf, AppendFile)>,
}

impl DeadLetters {
    /// Lists the existing files. Blocks, so call it at start only. `bytes_max`: the limit for the backend.
    ///
    /// # Errors
    /// When the folder cannot be read. A missing folder is created with the first entry.
    pub fn open(data_dir: &Path, backend: &str, worker: usize, bytes_max: u64) -> io::Result<Self> {
        let folder = folder(data_dir, backend);
        let mut found = Vec::new();
        let mut number = 0;
        for (path, bytes) in list_files(&folder)? {
            let Some((owner, n)) = path.file_name().and_then(parse_file_name) else { continue };
            found.push((n, owner, path, bytes));
            number = number.max(n);
        }
        found.sort_unstable();
        let files = found.into_iter().map(|(_, _, path, len)| (path, len)).collect();
        Ok(Self { folder, worker, bytes_max, files, number, current: None })
    }

    /// Appends entries (made by [`entry`]) and waits until they are on disk. True: the oldest file was removed to make
    /// room.
    ///
    /// # Errors
    /// When the file system fails. The caller must append the entries again, and they may be there twice.
    pub async fn append(&mut self, entries: &[u8]) -> io::Result<bool> {
        // Somebody may have removed the file, or the whole folder.
        if let Some((path, _)) = &self.current
            && !exists(path).await
        {
            self.current = None;
        }
        if self.current.is_none() {
            self.current = Some(self.next_file().await?);
        }
        let (_, file) = self.current.as_mut().expect("made above");
        crash::point("letter");
        // What a failed write has left is overwritten by the next one.
        file.append(entries).await?;
        crash::point("letter-written");
        if let Err(error) = file.sync().await {
            // A later sync may succeed without having written anything. It counts as a complete file.
            self.files.extend(self.current.take().map(|(path, file)| (path, file.size())));
            return Err(error);
        }
        crash::point("letter-synced");
        self.trim().await
    }

    /// A new file, whose name is durable. A failure leaves none, or an empty one that the next call makes anew.
    async fn next_file(&mut self) -> io::Result<(PathBuf, AppendFile)> {
        // Done for each file, since the folder may have been removed.
        let rejected = self.folder.parent().expect("joined to its parent in open");
        sync_folder(rejected).await?;
        sync_folder(&self.folder).await?;
        let number = self.number + 1;
        let path = self.folder.join(format!("w{}-{number:08}.lp", self.worker));
        let file = AppendFile::create(&path).await?;
        // A synced file is lost if its directory entry is not synced.
        for folder in self.folder.ancestors().take(3) {
            sync_folder(folder).await?;
        }
        self.number = number;
        Ok((path, file))
    }

    /// Starts a new file when the current one is large enough, and removes the oldest ones above the limit.
    async fn trim(&mut self) -> io::Result<bool> {
        let full = |file: &AppendFile| file.size() >= self.bytes_max / DEAD_LETTER_FILES;
        if let Some((path, file)) = self.current.take_if(|(_, file)| full(file)) {
            self.files.push((path, file.size()));
            file.close().await?;
        }
        let open = self.current.as_ref().map_or(0, |(_, file)| file.size());
        let mut removed = false;
        while self.files.iter().map(|(_, len)| (*len).max(DEAD_LETTER_FILE_BYTES_MIN)).sum::<u64>() + open
            > self.bytes_max
            && self.files.len() > 1
        {
            let (path, _) = self.files.remove(0);
            match remove(&path).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => removed = true,
            }
        }
        Ok(removed)
    }
}

/// The dead letters of one backend, for all its couriers on this worker.
#[derive(Debug)]
pub struct SharedLetters {
    /// None: one of them is writing.
    letters: RefCell<Option<DeadLetters>>,
    written: Event,
}

impl SharedLetters {
    pub fn new(letters: DeadLetters) -> Self {
        Self { letters: RefCell::new(Some(letters)), written: Event::default() }
    }

    /// See [`DeadLetters::append`]. Waits for others that write. Dropped before it is done, it leaves nothing for the
    /// others: only the end of all couriers does that.
    pub async fn append(&self, entries: &[u8]) -> io::Result<bool> {
        loop {
            let written = self.written.wait();
            let Some(mut letters) = self.letters.take() else {
                written.await;
                continue;
            };
            let result = letters.append(entries).await;
            self.letters.replace(Some(letters));
            self.written.notify();
            return result;
        }
    }
}

/// Appends one entry to `out`. Names are percent-encoded; line ends in the reason become blanks.
pub fn entry(out: &mut Vec<u8>, at: SystemTime, target: Target<'_>, reason: &str, line: &[u8]) {
    out.extend_from_slice(b"# ");
    out.extend_from_slice(rfc3339(at).as_bytes());
    out.extend_from_slice(b" db=");
    percent_encode(out, target.db);
    out.extend_from_slice(b" rp=");
    percent_encode(out, target.rp);
    out.extend_from_slice(b" precision=");
    out.extend_from_slice(target.precision.as_param().as_bytes());
    out.extend_from_slice(b" reason=");
    out.extend(reason.bytes().map(|b| if b < b' ' { b' ' } else { b }));
    out.push(b'\n');
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn folder(data_dir: &Path, backend: &str) -> PathBuf {
    data_dir.join("rejected").join(file_name(backend))
}

/// A backend's name as a file name: percent-encoded except for letters, digits, `-`, `_`, `~` and dots that are not
/// first.
fn file_name(backend: &str) -> String {
    let mut out = Vec::new();
    percent_encode(&mut out, backend.as_bytes());
    let name = String::from_utf8(out).expect("percent-encoded text is ASCII");
    if name.starts_with('.') { name.replacen('.', "%2E", 1) } else { name }
}

fn parse_file_name(name: &OsStr) -> Option<(usize, u64)> {
    let (worker, number) = name.to_str()?.strip_prefix('w')?.strip_suffix(".lp")?.split_once('-')?;
    Some((worker.parse().ok()?, number.parse().ok()?))
}

/// UTC in seconds. Days are converted to a date as in H. Hinnant's `civil_from_days`.
fn rfc3339(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::precision::Precision;

    #[test]
    fn an_entry_is_a_comment_and_the_line() {
        let mut out = Vec::new();
        let at = UNIX_EPOCH + Duration::from_secs(951_827_696);
        entry(&mut out, at, Target { db: b"a b", rp: b"", precision: Precision::Second }, "x\ny", b"m v=1i 5");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "# 2000-02-29T12:34:56Z db=a%20b rp= precision=s reason=x y\nm v=1i 5\n"
        );
        assert_eq!(rfc3339(UNIX_EPOCH), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(1_769_860_800)), "2026-01-31T12:00:00Z");
    }

    #[test]
    fn no_backend_name_leaves_its_folder() {
        assert_eq!(file_name("../x"), "%2E.%2Fx");
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name("influx-1.a"), "influx-1.a");
    }

    #[test]
    fn entries_survive_a_restart_and_the_oldest_file_goes_at_the_bound() {
        crate::io::block_on(|| async {
            let dir = tempfile::tempdir().unwrap();
            let open = || DeadLetters::open(dir.path(), "b/1", 0, 64 * 1024).unwrap();
            let folder = dir.path().join("rejected/b%2F1");
            let mut letters = open();
            assert!(!letters.append(b"# first\nm v=1\n").await.unwrap());
            drop(letters);
            assert_eq!(std::fs::read(folder.join("w0-00000001.lp")).unwrap(), b"# first\nm v=1\n");
            std::fs::write(folder.join("w2-00000001.lp"), b"# of a worker that is no more\n").unwrap();

            let mut letters = open();
            let block = vec![b'x'; 9000];
            let mut removed = 0;
            for _ in 0..20 {
                removed += u32::from(letters.append(&block).await.unwrap());
            }
            assert!(removed > 0);
            let mut left: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            left.sort();
            assert!(!left.contains(&"w0-00000001.lp".to_owned()) && !left.contains(&"w2-00000001.lp".to_owned()));
            let bytes: u64 = left.iter().map(|f| folder.join(f).metadata().unwrap().len()).sum();
            assert!(bytes <= 64 * 1024 + 9000, "{bytes}");
            assert!(left.contains(&"w0-00000021.lp".to_owned()), "{left:?}");
        });
    }

    #[test]
    fn files_that_somebody_removes_take_no_later_entry_with_them() {
        crate::io::block_on(|| async {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("rejected/b");
            let mut letters = DeadLetters::open(dir.path(), "b", 0, 64 * 1024).unwrap();
            let kept = || {
                let files = list_files(&folder).unwrap();
                files.iter().flat_map(|(path, _)| std::fs::read(path).unwrap()).collect::<Vec<_>>()
            };
            letters.append(b"# 1\nm v=1\n").await.unwrap();
            std::fs::remove_file(folder.join("w0-00000001.lp")).unwrap();
            letters.append(b"# 2\nm v=2\n").await.unwrap();
            assert_eq!(kept(), b"# 2\nm v=2\n");
            std::fs::remove_dir_all(dir.path().join("rejected")).unwrap();
            letters.append(b"# 3\nm v=3\n").await.unwrap();
            assert_eq!(kept(), b"# 3\nm v=3\n");
            // Complete files, too.
            for n in 0..20 {
                list_files(&folder).unwrap().iter().for_each(|(path, _)| std::fs::remove_file(path).unwrap());
                letters.append(&vec![b'x'; 9000 + n]).await.unwrap();
            }
            assert_eq!(kept().len(), 9019);
        });
    }
}

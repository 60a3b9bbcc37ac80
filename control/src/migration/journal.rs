//! The migration log: actions and errors of jobs, in `mlog_dir/migration.log`, rotated by size.
//!
//! When the file cannot be written, the program's log says so once, and jobs go on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fluxgate_dataplane::one_line::one_line;

use crate::limits;

const NAME: &str = "migration.log";

/// The file is created with the first line, so a proxy that never migrates has none.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    bytes_max: u64,
    open: Mutex<OpenJournal>,
}

#[derive(Debug, Default)]
struct OpenJournal {
    file: Option<(File, u64)>,
    complained: bool,
}

impl Journal {
    pub fn new(dir: &Path) -> Self {
        Self::with_bytes_max(dir, limits::MIGRATION_LOG_BYTES_MAX)
    }

    fn with_bytes_max(dir: &Path, bytes_max: u64) -> Self {
        Self { dir: dir.to_owned(), bytes_max, open: Mutex::default() }
    }

    /// Writes one line about a job, also to the program's log.
    pub fn note(&self, job: u64, text: &str) {
        log::info!("migration {job}: {text}");
        let date = httpdate::fmt_http_date(SystemTime::now().max(UNIX_EPOCH));
        let line = format!("{date} job {job}: {}\n", one_line(text));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.append(&mut open, line.as_bytes()) {
            open.file = None;
            if !std::mem::replace(&mut open.complained, true) {
                log::warn!("{}: {error}", self.dir.join(NAME).display());
            }
        }
    }

    fn append(&self, open: &mut OpenJournal, line: &[u8]) -> io::Result<()> {
        let path = self.dir.join(NAME);
        // Somebody may have removed or renamed it.
        open.file.take_if(|(file, _)| !is_at(file, &path));
        if open.file.as_ref().is_some_and(|(_, bytes)| bytes + line.len() as u64 > self.bytes_max) {
            open.file = None;
            self.rotate()?;
        }
        let (file, bytes) = match &mut open.file {
            Some(file) => file,
            None => {
                fs::create_dir_all(&self.dir)?;
                let file = OpenOptions::new().create(true).append(true).open(&path)?;
                let bytes = file.metadata()?.len();
                open.file.insert((file, bytes))
            }
        };
        file.write_all(line)?;
        *bytes += line.len() as u64;
        open.complained = false;
        Ok(())
    }

    /// `migration.log` becomes `.1`, `.1` becomes `.2` ...; the oldest file is overwritten.
    fn rotate(&self) -> io::Result<()> {
        let numbered = |n: usize| self.dir.join(format!("{NAME}.{n}"));
        for n in (1..limits::MIGRATION_LOG_FILES - 1).rev() {
            match fs::rename(numbered(n), numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(self.dir.join(NAME), numbered(1))
    }
}

/// Whether `path` leads to this file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(found)) => (file.dev(), file.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_in_a_bounded_number_of_files_of_bounded_size() {
        let dir = tempfile::tempdir().unwrap();
        let log = Journal::with_bytes_max(&dir.path().join("new"), 200);
        for n in 0..100 {
            log.note(7, &format!("line {n}\nwith a break"));
        }
        let mut files: Vec<_> = fs::read_dir(dir.path().join("new")).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), limits::MIGRATION_LOG_FILES);
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.len() <= 200 && !text.is_empty(), "{file:?}: {}", text.len());
            assert!(text.lines().all(|line| line.contains(" job 7: line ")), "{text}");
        }
        assert!(fs::read_to_string(&files[0]).unwrap().contains("line 99\\nwith a break"));
        let reopened = Journal::with_bytes_max(&dir.path().join("new"), 200);
        reopened.note(8, "after a restart");
        let text = fs::read_to_string(dir.path().join("new").join(NAME)).unwrap();
        assert!(text.contains("line 99") || text.contains("after a restart"), "{text}");
    }

    #[test]
    fn a_file_that_somebody_removes_or_renames_takes_no_later_line_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = Journal::new(dir.path());
        let file = dir.path().join(NAME);
        let now = |n: u64| {
            log.note(1, &format!("line {n}"));
            fs::read_to_string(&file).unwrap().lines().count()
        };
        assert_eq!((now(1), now(2)), (1, 2));
        fs::remove_file(&file).unwrap();
        assert_eq!(now(3), 1);
        fs::rename(&file, dir.path().join("old")).unwrap();
        assert_eq!((now(4), now(5)), (1, 2));
    }
}

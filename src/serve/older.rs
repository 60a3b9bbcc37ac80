//! Points and a record of the circles that are older than what the backends have got since: fluxgate had been stopped
//! with points in its log, influx-proxy ran in its place, and now fluxgate is started again.
//!
//! influx-proxy makes `<backend>.dat` and `<backend>.rec` when it starts, and fluxgate leaves none behind. So files
//! that are newer than the state of our logs mean that it has run here since. Nothing tells of an influx-proxy with
//! another `data_dir`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fluxgate_dataplane::disklog;
use fluxgate_dataplane::disklog::inspect::{saved, worker_dirs};
use fluxgate_dataplane::takeover::cache_files;

/// The folders of the logs in a data directory, with their numbers. None where it is not there.
///
/// # Errors
/// One sentence, when it cannot be read.
pub fn logs(data_dir: &Path) -> Result<Vec<(usize, PathBuf)>, String> {
    match worker_dirs(data_dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        found => found.map_err(|error| format!("data_dir {} cannot be read: {error}", data_dir.display())),
    }
}

/// Refuses to deliver such points without being told to.
///
/// # Errors
/// One sentence that says what is there and what to do, or that it cannot be read.
pub fn ask(data_dir: &Path) -> Result<(), String> {
    let logs = logs(data_dir)?;
    let saved = logs.iter().filter_map(|(_, log)| saved(log)).max();
    let (Some(saved), Some((written, file))) = (saved, cache_files::newest(data_dir)) else { return Ok(()) };
    if written <= saved {
        return Ok(());
    }
    for (_, log) in logs {
        // What cannot be read is told of when the log is opened.
        let Ok(mut pending) = disklog::pending(&log) else { continue };
        let Ok(Some(record)) = pending.next_record() else { continue };
        let (shown, backend) = (data_dir.display(), record.needed_by.first().map_or("?", |(_, name)| *name));
        return Err(format!(
            "data_dir {shown} has points, for {backend} among others, that were not delivered when fluxgate stopped, \
             and influx-proxy has run here since ({} is newer): backends may hold newer values. `fluxgate log cat \
             --pending {shown}` prints them and `fluxgate drain`, in this folder and as the same user, delivers them; \
             to leave them out, move the folders worker-* out of data_dir",
            file.display()
        ));
    }
    Ok(())
}

/// Refuses to drain a folder in which nothing has ever been queued: what is to be delivered lies elsewhere.
///
/// # Errors
/// One sentence that names the folder and says what to do, or that it cannot be read.
pub fn is_here(data_dir: &Path) -> Result<(), String> {
    if !logs(data_dir)?.is_empty() || !cache_files::find(data_dir).is_empty() {
        return Ok(());
    }
    Err(format!(
        "there is no log in data_dir {}, so nothing is delivered: start `fluxgate drain` in the same folder and \
         as the same user as the proxy, with the same file",
        data_dir.display()
    ))
}

/// What to tell of a record of circles in transition that may be older than the data.
pub fn circles(file: &Path, data_dir: &Path) -> Option<String> {
    let (written, newer) = cache_files::newest(data_dir)?;
    (written > modified(file)?).then(|| {
        format!(
            "influx-proxy has run here since {} was written ({} is newer): if it has moved data meanwhile, stop \
             fluxgate and remove {}",
            file.display(),
            newer.display(),
            file.display()
        )
    })
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_log_is_not_drained() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        assert!(is_here(&data_dir).unwrap_err().contains("there is no log in data_dir"));
        std::fs::write(&data_dir, "").unwrap();
        for unread in [is_here(&data_dir), ask(&data_dir)] {
            let sentence = format!("data_dir {} cannot be read: Not a directory (os error 20)", data_dir.display());
            assert_eq!(unread.unwrap_err(), sentence);
        }
        std::fs::remove_file(&data_dir).unwrap();
        std::fs::create_dir(&data_dir).unwrap();
        assert!(is_here(&data_dir).is_err());
        std::fs::write(data_dir.join("b.dat"), "x").unwrap();
        is_here(&data_dir).unwrap();
        std::fs::remove_file(data_dir.join("b.dat")).unwrap();
        std::fs::create_dir(data_dir.join("worker-0")).unwrap();
        is_here(&data_dir).unwrap();
    }
}

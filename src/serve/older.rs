//! Points and a record of the circles that are older than what the backends have got since: fluxgate had been stopped
//! with points in its log, influx-proxy ran in its place, and now fluxgate is started again.
//!
//! influx-proxy makes `<backend>.dat` and `<backend>.rec` when it starts, and fluxgate leaves none behind. So files
//! that are newer than the state of our logs mean that it has run here since. Nothing tells of an influx-proxy with
//! another `data_dir`.

use std::path::Path;
use std::time::SystemTime;

use fluxgate_dataplane::disklog;
use fluxgate_dataplane::disklog::inspect::{saved, worker_dirs};
use fluxgate_dataplane::takeover::cache_files;

/// Refuses to deliver such points without being told to.
///
/// # Errors
/// One sentence that says what is there and what to do.
pub fn ask(data_dir: &Path) -> Result<(), String> {
    let logs = worker_dirs(data_dir).unwrap_or_default();
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
             --pending {shown}` prints them and `fluxgate drain` delivers them; to leave them out, move the folders \
             worker-* out of data_dir",
            file.display()
        ));
    }
    Ok(())
}

/// Refuses to drain a folder in which nothing has ever been queued: what is to be delivered lies elsewhere.
///
/// # Errors
/// One sentence that names the folder and says what to do.
pub fn is_here(data_dir: &Path) -> Result<(), String> {
    let has_log = worker_dirs(data_dir).is_ok_and(|logs| !logs.is_empty());
    if has_log || !cache_files::find(data_dir).is_empty() {
        return Ok(());
    }
    Err(format!(
        "there is no log in data_dir {}, so nothing is delivered: start `fluxgate drain` in the same folder as the \
         proxy, with the same file",
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
        std::fs::create_dir(&data_dir).unwrap();
        assert!(is_here(&data_dir).is_err());
        std::fs::write(data_dir.join("b.dat"), "x").unwrap();
        is_here(&data_dir).unwrap();
        std::fs::remove_file(data_dir.join("b.dat")).unwrap();
        std::fs::create_dir(data_dir.join("worker-0")).unwrap();
        is_here(&data_dir).unwrap();
    }
}

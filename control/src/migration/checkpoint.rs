//! The file of a migration on disk: one JSON file per job, `data_dir/migrations/<id>.json`.
//!
//! A new version is written to a second file, synced and renamed, so the file is never half written. It names backends
//! by name, so that after a change of the configuration one backend does not get the progress of another. It may hold
//! passwords of removed backends; only its owner can read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::order::{Counts, Order, Phase, TaskState};
use super::slices::Slice;

/// Format of the file. A file with another one is refused and left alone.
const VERSION: u32 = 1;

/// A saved job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    pub version: u32,
    pub id: u64,
    pub order: Order,
    pub phase: Phase,
    pub paused: bool,
    /// A cancel was requested; other proxies may not know yet.
    pub cancelled: bool,
    /// Description of the rings. With other rings, finished tasks do not count.
    pub rings: String,
    /// Seconds since 1970.
    pub started: u64,
    pub ended: Option<u64>,
    pub errors: Vec<String>,
    /// Number of errors that are not in `errors`.
    pub errors_left_out: u64,
    pub counts: Vec<Counts>,
    pub tasks: Vec<SavedTask>,
}

/// One task. `from` and `to` are names of backends; for a delete, the backend it is removed from and its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedTask {
    pub key: TaskKey,
    pub state: TaskState,
    pub points: u64,
    pub bytes: u64,
    /// As [`Progress::points_expired`](super::progress::Progress).
    #[serde(default)]
    pub points_expired: u64,
    /// Finished slices of an unfinished copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Identifies a task across restarts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskKey {
    pub db: String,
    pub measurement: String,
    pub from: String,
    pub to: String,
}

/// The folder of all job files.
pub fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("migrations")
}

impl Saved {
    pub fn version() -> u32 {
        VERSION
    }

    /// Replaces the job's file; when this returns Ok, it is on disk.
    ///
    /// Those of the file system. The former file is then still complete.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let (path, beside) = (path(folder, self.id), folder.join(format!("{}.json.new", self.id)));
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    }
}

/// All saved jobs, by id. A file that cannot be read is logged and left alone. `.1` is the highest id in use, readable
/// or not.
pub fn read_all(folder: &Path) -> (Vec<Saved>, u64) {
    let (mut jobs, mut highest) = (Vec::new(), 0);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (jobs, 0),
        Err(error) => {
            log::error!("{}: {error}; unfinished migrations are not resumed", folder.display());
            return (jobs, 0);
        }
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse::<u64>().ok());
        let Some(number) = number else { continue };
        highest = highest.max(number);
        match read(&path) {
            Ok(saved) if saved.id == number => jobs.push(saved),
            Ok(saved) => log::error!("{}: belongs to migration {}; left alone", path.display(), saved.id),
            Err(error) => log::error!("{}: {error}; left alone", path.display()),
        }
    }
    jobs.sort_by_key(|job| job.id);
    (jobs, highest)
}

/// Removes a job's file. An error is only logged: the job comes back with the next start.
pub fn remove(folder: &Path, id: u64) {
    let path = path(folder, id);
    if let Err(error) = fs::remove_file(&path) {
        log::warn!("{}: {error}", path.display());
    }
}

fn path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id}.json"))
}

fn read(path: &Path) -> io::Result<Saved> {
    #[derive(Deserialize)]
    struct FileHead {
        version: u32,
    }
    let text = fs::read(path)?;
    let head: FileHead = serde_json::from_slice(&text).map_err(io::Error::other)?;
    if head.version != VERSION {
        return Err(io::Error::other(format!("unknown version {}", head.version)));
    }
    serde_json::from_slice(&text).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::plan::{Goal, Removed};

    fn saved(id: u64) -> Saved {
        let removed =
            Removed { name: "x".into(), url: "http://x".into(), username: "u".into(), password: "secret".into() };
        let key = TaskKey { db: "d".into(), measurement: "a \"b\"\n".into(), from: "x".into(), to: "y".into() };
        Saved {
            version: VERSION,
            id,
            order: Order {
                goal: Goal::Rebalance { circle: 1, removed: vec![removed] },
                dbs: vec!["d".into()],
                cpus: 2,
                since_ns: Some(-5),
                rate: None,
                ha_addrs: vec!["a:1".into()],
            },
            phase: Phase::Running,
            paused: true,
            cancelled: false,
            rings: "a,b".into(),
            started: 5,
            ended: None,
            errors: vec!["e".into()],
            errors_left_out: 1,
            counts: vec![],
            tasks: vec![SavedTask {
                key,
                state: TaskState::Done,
                points: u64::MAX,
                bytes: 2,
                points_expired: 3,
                slices: vec![Slice { rp: "r".into(), begin_ns: i64::MIN, end_ns: i64::MAX }],
                error: None,
            }],
        }
    }

    #[test]
    fn saved_jobs_are_read_again_and_damaged_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path());
        assert_eq!(read_all(&folder), (vec![], 0));
        for id in [10, 2] {
            saved(id).write(&folder).unwrap();
        }
        let mut newer = saved(2);
        newer.phase = Phase::Done;
        newer.write(&folder).unwrap();
        fs::write(folder.join("11.json"), b"{\"version\":1,").unwrap();
        fs::write(folder.join("12.json"), b"{\"version\":99}").unwrap();
        fs::write(folder.join("13.json.new"), b"half").unwrap();
        assert_eq!(read_all(&folder), (vec![newer, saved(10)], 12));
        assert!(folder.join("11.json").exists() && folder.join("12.json").exists());
        remove(&folder, 2);
        assert_eq!(read_all(&folder).0, [saved(10)]);
    }

    #[test]
    fn only_the_owner_of_the_file_may_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        saved(1).write(dir.path()).unwrap();
        assert_eq!(fs::metadata(dir.path().join("1.json")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{:?}", saved(1)).contains("secret"));
    }
}

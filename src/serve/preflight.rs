//! Checks before the start: io_uring, locked memory, descriptors, data directory. Each error is one sentence that says
//! what is wrong and what to do.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::io_uring::{io_uring_params, io_uring_setup};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

use fluxgate_dataplane::limits::CONNECTIONS_PER_WORKER_MAX;
use fluxgate_dataplane::settings::Settings;

use crate::limits::{
    MEMLOCK_PER_WORKER_BYTES, NOFILE_CLIENTS_MIN_PART, NOFILE_OF_BACKEND_PER_WORKER, NOFILE_OF_PROCESS,
    NOFILE_OF_WORKER, NOFILE_WANTED,
};

/// The user who may do everything.
const ROOT: u32 = 0;

/// Holds the data directory for this process until dropped.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// Checks that io_uring exists and that this process may use it.
///
/// # Errors
/// One sentence that says what forbids it.
pub fn io_uring() -> Result<(), String> {
    // SAFETY: `wq_fd` must be open if a flag asks for it; no flag is set.
    let Err(error) = (unsafe { io_uring_setup(1, &mut io_uring_params::default()) }) else { return Ok(()) };
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    Err(match (error, disabled.trim()) {
        (Errno::NOSYS, _) => {
            "io_uring is not available: it needs kernel 5.11 or newer, and a seccomp profile that does not hide it"
                .into()
        }
        (Errno::PERM, "1" | "2") => format!(
            "io_uring is not available: kernel.io_uring_disabled is {}; run `sysctl kernel.io_uring_disabled=0`",
            disabled.trim()
        ),
        (Errno::PERM, _) => {
            "io_uring is not available: a seccomp profile forbids it, as Docker's default profile does; \
                              run with `--security-opt seccomp=unconfined` or a profile that allows io_uring"
                .into()
        }
        _ => format!("io_uring is not available: {error}"),
    })
}

/// Checks that enough memory may be locked for `workers` executors.
///
/// # Errors
/// One sentence with the limit and what is needed.
pub fn locked_memory(workers: usize) -> Result<(), String> {
    let need = MEMLOCK_PER_WORKER_BYTES * workers as u64;
    let Some(limit) = getrlimit(Resource::Memlock).current.filter(|limit| *limit < need) else { return Ok(()) };
    if may_lock_without_bound() {
        return Ok(());
    }
    Err(format!(
        "too little locked memory: {workers} workers need {} KiB, the limit (ulimit -l) is {} KiB; raise it \
         (systemd: LimitMEMLOCK=infinity) or set fewer `workers`",
        need / 1024,
        limit / 1024
    ))
}

/// Whether CAP_IPC_LOCK is in the effective set of capabilities.
fn may_lock_without_bound() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps >> CAP_IPC_LOCK & 1 == 1)
}

/// Raises the number of descriptors as far as the process may. A refusal leaves the old limit.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(NOFILE_WANTED, |maximum| maximum.min(NOFILE_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

/// Connections that one worker may have, so that the log and the backends always find a descriptor.
pub fn connections_per_worker(settings: &Settings) -> usize {
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let backends = settings.topology.backends.len() as u64;
    let workers = settings.workers as u64;
    let of_worker = NOFILE_OF_WORKER + settings.udp.len() as u64 + backends * NOFILE_OF_BACKEND_PER_WORKER;
    let other = NOFILE_OF_PROCESS + workers * of_worker;
    let each = allowed.saturating_sub(other).max(allowed / NOFILE_CLIENTS_MIN_PART) / workers.max(1);
    let max = CONNECTIONS_PER_WORKER_MAX as u64;
    if each < max {
        log::warn!("{allowed} open files are allowed (ulimit -n): a worker takes {each} connections instead of {max}");
    }
    each.clamp(1, max) as usize
}

/// CPUs this process may run on (taskset, cgroups); a worker is pinned to each in turn.
pub fn allowed_cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// Creates the data directory where it is missing, checks that it can be written, and keeps other instances out.
///
/// # Errors
/// A sentence that names the directory and the key.
pub fn data_dir(dir: &Path) -> Result<DataDirLock, String> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).map_err(|e| format!("data_dir {shown} cannot be created: {e}"))?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock")).map_err(|e| {
        let hint = "; it must belong, with all that is in it, to the user that fluxgate runs as";
        let hint = if e.kind() == ErrorKind::PermissionDenied { hint } else { "" };
        format!("data_dir {shown} cannot be written: {e}{hint}")
    })?;
    // The lock ends with the descriptor.
    file.try_lock().map_err(|_| format!("data_dir {shown} is in use by another instance"))?;
    Ok(DataDirLock { _file: file })
}

/// Refuses to go on as another user than the one whom the data directory belongs to: the next start as that one could
/// not use the files of this one. Where no proxy has run yet, only root is refused: others make files there only where
/// they may, as in a folder of their group.
///
/// # Errors
/// A sentence that names the directory and what to do.
pub fn same_user(dir: &Path, user: u32) -> Result<(), String> {
    let owner = match dir.join("lock").metadata() {
        Ok(lock) => lock.uid(),
        Err(error) if user != ROOT && error.kind() != ErrorKind::PermissionDenied => return Ok(()),
        Err(_) => match dir.metadata() {
            Ok(dir) if dir.is_dir() => dir.uid(),
            // What is not there, or no folder, is told of when it is made.
            _ => return Ok(()),
        },
    };
    if owner == user {
        return Ok(());
    }
    Err(format!(
        "data_dir {} belongs to the user with the number {owner}, who could not use the files of user {user}: run the \
         same command as that user, `sudo -u '#{owner}' fluxgate ...`, or give data_dir to this one, with all that is \
         in it",
        dir.display()
    ))
}

/// Size of the file system that holds `dir`.
///
/// # Errors
/// A sentence that names the directory.
pub fn file_system_bytes(dir: &Path) -> Result<u64, String> {
    match rustix::fs::statvfs(dir) {
        Ok(stat) => Ok(stat.f_frsize * stat.f_blocks),
        Err(e) => Err(format!("the size of data_dir {} cannot be read: {e}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;

    #[test]
    fn a_data_dir_belongs_to_one_instance() {
        let dir = tempfile::tempdir().unwrap();
        let held = data_dir(dir.path()).unwrap();
        assert!(data_dir(dir.path()).unwrap_err().ends_with("is in use by another instance"));
        drop(held);
        data_dir(dir.path()).unwrap();
    }

    #[test]
    fn a_data_dir_of_another_user_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().metadata().unwrap().uid();
        same_user(dir.path(), own).unwrap();
        same_user(dir.path(), own + 1).unwrap();
        same_user(&dir.path().join("absent"), ROOT).unwrap();
        if own == ROOT {
            chown(dir.path(), Some(7), None).unwrap();
            assert!(same_user(dir.path(), ROOT).unwrap_err().contains("belongs to the user with the number 7"));
        }
        data_dir(dir.path()).unwrap();
        same_user(dir.path(), own).unwrap();
        let refused = same_user(dir.path(), own + 1).unwrap_err();
        assert!(refused.contains(&format!("sudo -u '#{own}' fluxgate ...")), "{refused}");
    }

    #[test]
    fn a_file_in_place_of_the_data_dir_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = data_dir(file.path()).unwrap_err();
        assert!(error.starts_with(&format!("data_dir {} cannot be created:", file.path().display())), "{error}");
    }

    #[test]
    fn this_machine_can_run_the_tests() {
        io_uring().unwrap();
        locked_memory(1).unwrap();
    }
}

//! What the machine must grant before anything starts; each refusal is one sentence with the fact and what to do.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Locked memory an executor's rings need when the process may not lock without bound.
const MEMLOCK_PER_WORKER_BYTES: u64 = 1024 * 1024;
/// Descriptors asked for; connections, segments and backends share them.
const NOFILE_WANTED: u64 = 1 << 20;

/// Holds the data directory for this process until dropped.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

/// io_uring exists and this process may use it.
///
/// # Errors
/// A sentence that says what forbids it.
pub fn io_uring() -> Result<(), String> {
    let mut params = [0u8; 120]; // struct io_uring_params, zeroed: no flags
    // SAFETY: io_uring_setup(2) writes at most one io_uring_params (120 bytes) into `params`.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, params.as_mut_ptr()) };
    if fd >= 0 {
        // SAFETY: `fd` was opened by the call above and is used by nobody else.
        unsafe { libc::close(i32::try_from(fd).expect("descriptors are small")) };
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    Err(match (error.raw_os_error(), disabled.trim()) {
        (Some(libc::ENOSYS), _) => {
            "io_uring is not available: the kernel lacks it (5.11 or newer is needed) or a seccomp profile hides it".into()
        }
        (Some(libc::EPERM), "1" | "2") => format!(
            "io_uring is not available: kernel.io_uring_disabled is {}; set it with `sysctl kernel.io_uring_disabled=0`",
            disabled.trim()
        ),
        (Some(libc::EPERM), _) => "io_uring is not available: a seccomp profile forbids it (Docker's default profile \
                                   does; run with `--security-opt seccomp=unconfined` or a profile that allows io_uring)"
            .into(),
        _ => format!("io_uring is not available: {error}"),
    })
}

/// Enough memory may be locked for `workers` executors.
///
/// # Errors
/// A sentence with the limit and the need.
pub fn locked_memory(workers: usize) -> Result<(), String> {
    let limit = rlimit(libc::RLIMIT_MEMLOCK).map_err(|e| format!("cannot read the limit of locked memory: {e}"))?;
    let need = MEMLOCK_PER_WORKER_BYTES * workers as u64;
    if limit.rlim_cur >= need || may_lock_without_bound() {
        return Ok(());
    }
    Err(format!(
        "too little locked memory: {workers} workers need {} KiB, the limit (ulimit -l) is {} KiB; raise it \
         (systemd: LimitMEMLOCK=infinity) or set fewer `workers`",
        need / 1024,
        limit.rlim_cur / 1024
    ))
}

/// CAP_IPC_LOCK in the effective set.
fn may_lock_without_bound() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|caps| caps >> CAP_IPC_LOCK & 1 == 1)
}

/// Raises the number of descriptors as far as the process may.
pub fn raise_descriptor_limit() {
    let Ok(mut limit) = rlimit(libc::RLIMIT_NOFILE) else { return };
    limit.rlim_cur = limit.rlim_max.min(NOFILE_WANTED).max(limit.rlim_cur);
    // SAFETY: `limit` is a valid rlimit. A refusal leaves the old limit, which is then what accept runs into.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

fn rlimit(resource: libc::__rlimit_resource_t) -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the write.
    match unsafe { libc::getrlimit(resource, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Creates the data directory where it is missing, checks that it can be written, and keeps other instances out.
///
/// # Errors
/// A sentence that names the directory and the key.
pub fn data_dir(dir: &Path) -> Result<DataDirLock, String> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).map_err(|e| format!("data_dir {shown} cannot be created: {e}"))?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("lock"))
        .map_err(|e| format!("data_dir {shown} cannot be written: {e}"))?;
    // SAFETY: an open descriptor; the lock ends with it.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        return Err(format!("data_dir {shown} is in use by another instance"));
    }
    Ok(DataDirLock { _file: file })
}

/// Size of the file system that holds `dir`.
///
/// # Errors
/// A sentence that names the directory.
pub fn file_system_bytes(dir: &Path) -> Result<u64, String> {
    let path = CString::new(dir.as_os_str().as_bytes()).map_err(|_| "data_dir holds a zero byte".to_owned())?;
    // SAFETY: an all-zero statvfs is a valid value to be overwritten.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `stat` is valid for the write.
    match unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } {
        0 => Ok(stat.f_frsize * stat.f_blocks),
        _ => Err(format!("the size of data_dir {} cannot be read: {}", dir.display(), io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
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

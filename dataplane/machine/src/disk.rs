//! One disk per host: files of 4 KiB blocks, of which each has a content that is seen and one that survives power loss.
//!
//! A change of names is durable when it returns; halfway it may have happened or not. A write that was not synced may
//! be lost or torn, sector by sector. Calls take their time, in which anything else may happen; those of the start are
//! immediate.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::exec::{self, HostId, Machine, with};
use crate::rng::Rng;

const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Write,
    Sync,
    Read,
    Create,
    Rename,
    Remove,
}

/// How it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFailure {
    Errno(i32),
    /// A write moves less than asked for.
    Short,
}

#[derive(Clone)]
struct ArmedFault {
    call: Call,
    /// The path contains it.
    path: String,
    /// So many calls go well before.
    skip: u32,
    failure: DiskFailure,
}

type Block = Rc<[u8; BLOCK]>;

#[derive(Clone, Default)]
struct Content {
    blocks: Vec<Option<Block>>,
    len: u64,
}

#[derive(Default)]
struct Inode {
    now: Content,
    durable: Content,
    /// Blocks in which the two differ, and perhaps more.
    dirty: Vec<usize>,
    reserved: u64,
}

type File = Rc<RefCell<Inode>>;

pub(crate) struct DiskState {
    files: BTreeMap<PathBuf, File>,
    folders: BTreeSet<PathBuf>,
    locks: BTreeSet<PathBuf>,
    capacity: u64,
    taken_by_others: u64,
    faults: Vec<ArmedFault>,
    slow_until: Duration,
    slow_by: Duration,
}

impl Default for DiskState {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            folders: BTreeSet::new(),
            locks: BTreeSet::new(),
            capacity: 1 << 40,
            taken_by_others: 0,
            faults: Vec::new(),
            slow_until: Duration::ZERO,
            slow_by: Duration::ZERO,
        }
    }
}

impl Content {
    fn write(&mut self, offset: u64, bytes: &[u8], mut touched: impl FnMut(usize)) {
        let end = offset + bytes.len() as u64;
        self.len = self.len.max(end);
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (index, within) = ((at as usize) / BLOCK, (at as usize) % BLOCK);
            let (here, behind) = rest.split_at(rest.len().min(BLOCK - within));
            let slot = self.slot(index);
            match (here.try_into(), slot.as_mut().and_then(Rc::get_mut)) {
                (Ok(whole), None) => *slot = Some(Rc::new(whole)),
                (_, Some(block)) => block[within..within + here.len()].copy_from_slice(here),
                (Err(_), None) => {
                    let block = slot.get_or_insert_with(|| Rc::new([0; BLOCK]));
                    Rc::make_mut(block)[within..within + here.len()].copy_from_slice(here);
                }
            }
            touched(index);
            at += here.len() as u64;
            rest = behind;
        }
    }

    fn slot(&mut self, index: usize) -> &mut Option<Block> {
        if self.blocks.len() <= index {
            self.blocks.resize(index + 1, None);
        }
        &mut self.blocks[index]
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Vec::new();
        }
        let mut out = Vec::with_capacity((end - offset) as usize);
        let mut at = offset as usize;
        while at < end as usize {
            let (index, within) = (at / BLOCK, at % BLOCK);
            let n = (BLOCK - within).min(end as usize - at);
            match self.blocks.get(index) {
                Some(Some(block)) => out.extend_from_slice(&block[within..within + n]),
                _ => out.resize(out.len() + n, 0),
            }
            at += n;
        }
        out
    }
}

impl Inode {
    fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) {
        let Self { now, durable: safe, dirty, .. } = self;
        now.write(offset, bytes, |index| dirty.push(index));
        if !durable {
            return;
        }
        if offset.is_multiple_of(BLOCK as u64) && bytes.len().is_multiple_of(BLOCK) {
            let first = offset as usize / BLOCK;
            (first..first + bytes.len() / BLOCK).for_each(|i| *safe.slot(i) = now.blocks[i].clone());
        } else {
            safe.write(offset, bytes, |_| {});
        }
        safe.len = safe.len.max(now.len);
    }

    fn sync(&mut self) {
        self.durable.blocks.resize(self.now.blocks.len().max(self.durable.blocks.len()), None);
        for index in self.dirty.drain(..) {
            self.durable.blocks[index] = self.now.blocks.get(index).cloned().flatten();
        }
        self.durable.len = self.now.len;
    }

    /// What is there after power loss.
    fn lose_power(&mut self, rng: &mut Rng) {
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for index in std::mem::take(&mut self.dirty) {
            let new = self.now.blocks.get(index).cloned().flatten();
            let old = self.durable.blocks.get(index).cloned().flatten();
            let mut block = old.map_or([0; BLOCK], |b| *b);
            let whole = rng.below(3);
            for sector in (0..BLOCK).step_by(SECTOR) {
                let kept = match whole {
                    0 => true,
                    1 => false,
                    _ => rng.one_in(2),
                };
                if let (true, Some(new)) = (kept, &new) {
                    block[sector..sector + SECTOR].copy_from_slice(&new[sector..sector + SECTOR]);
                }
            }
            *self.durable.slot(index) = Some(Rc::new(block));
        }
        if self.now.len > self.durable.len && rng.one_in(2) {
            self.durable.len = self.now.len;
        }
        self.now = self.durable.clone();
    }

    fn bytes(&self) -> u64 {
        self.now.len.max(self.reserved)
    }
}

impl DiskState {
    fn used(&self) -> u64 {
        self.files.values().map(|file| file.borrow().bytes()).sum::<u64>() + self.taken_by_others
    }

    fn get(&self, path: &Path) -> io::Result<File> {
        self.files.get(path).cloned().ok_or_else(missing)
    }
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

thread_local! {
    /// By host.
    static DISKS: RefCell<Vec<DiskState>> = const { RefCell::new(Vec::new()) };
    /// Memory of what was written.
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// So many bytes of any content, for a write.
pub fn buffer(len: usize) -> Vec<u8> {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    buffer.resize(len, 0);
    buffer
}

fn here<T>(f: impl FnOnce(&mut DiskState) -> T) -> T {
    at(with(Machine::current_host), f)
}

fn at<T>(host: HostId, f: impl FnOnce(&mut DiskState) -> T) -> T {
    let index = host.0 as usize;
    DISKS.with_borrow_mut(|disks| {
        if disks.len() <= index {
            disks.resize_with(index + 1, DiskState::default);
        }
        f(&mut disks[index])
    })
}

/// The fault this call meets, if any; each is met once.
fn fault(call: Call, path: &Path) -> Option<DiskFailure> {
    here(|disk| {
        if disk.faults.is_empty() {
            return None;
        }
        let text = path.to_string_lossy();
        let index = disk.faults.iter_mut().position(|f| {
            if f.call != call || !text.contains(&f.path) {
                return false;
            }
            let met = f.skip == 0;
            f.skip = f.skip.saturating_sub(1);
            met
        })?;
        let failure = disk.faults.remove(index).failure;
        exec::trace(|| format!("disk: {call:?} of {text} meets {failure:?}"));
        Some(failure)
    })
}

fn check(call: Call, path: &Path) -> io::Result<Option<DiskFailure>> {
    match fault(call, path) {
        Some(DiskFailure::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
        other => Ok(other),
    }
}

/// What a call takes, in microseconds when nothing is slow.
fn pause(low: u64, high: u64) -> Duration {
    let pause = exec::random(|rng| rng.duration(Duration::from_micros(low), Duration::from_micros(high)));
    let (slow_until, slow_by) = here(|disk| (disk.slow_until, disk.slow_by));
    let more = if slow_until > exec::now() {
        exec::random(|rng| rng.duration(Duration::ZERO, slow_by))
    } else {
        Duration::ZERO
    };
    pause + more
}

/// Makes `change` at the beginning or at the end of a call's time; a crash in between finds either.
async fn take<T>(low: u64, high: u64, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let pause = pause(low, high);
    if exec::random(|rng| rng.one_in(2)) {
        let done = change();
        exec::sleep(pause).await;
        return done;
    }
    exec::sleep(pause).await;
    change()
}

/// A file being written, or read.
#[derive(Clone)]
pub struct OpenFile {
    path: PathBuf,
    file: File,
    dsync: bool,
}

/// Opens or creates a file, with `bytes` of disk reserved for it.
pub async fn create(path: PathBuf, bytes: u64, dsync: bool) -> io::Result<OpenFile> {
    let path = &path;
    let file = take(20, 300, move || {
        check(Call::Create, path)?;
        here(|disk| {
            let used = disk.used();
            let file = disk.files.entry(path.clone()).or_default().clone();
            let mut inode = file.borrow_mut();
            let new = bytes.saturating_sub(inode.bytes());
            if new > 0 && used + new > disk.capacity {
                return Err(full());
            }
            inode.reserved = inode.reserved.max(bytes);
            let len = inode.now.len.max(bytes);
            inode.now.len = len;
            inode.durable.len = inode.durable.len.max(bytes);
            drop(inode);
            Ok(file)
        })
    })
    .await?;
    Ok(OpenFile { path: path.clone(), file, dsync })
}

/// An empty file at `path`; one that is there is emptied. Nothing is reserved.
pub async fn create_empty(path: PathBuf) -> io::Result<OpenFile> {
    let path = &path;
    let file = take(20, 300, move || {
        check(Call::Create, path)?;
        let file = File::default();
        here(|disk| {
            if disk.used() > disk.capacity {
                return Err(full());
            }
            disk.files.insert(path.clone(), file.clone());
            Ok(file)
        })
    })
    .await?;
    Ok(OpenFile { path: path.clone(), file, dsync: false })
}

pub async fn open(path: PathBuf) -> io::Result<OpenFile> {
    let file = take(10, 100, || here(|disk| disk.get(&path))).await?;
    Ok(OpenFile { path, file, dsync: false })
}

impl OpenFile {
    /// Yields how much was written. The memory of `bytes` serves the next [`buffer`].
    pub async fn write(&self, offset: u64, mut bytes: Vec<u8>) -> io::Result<usize> {
        let pause = pause(20, 400);
        let early = exec::random(|rng| rng.one_in(2));
        if !early {
            exec::sleep(pause).await;
        }
        if check(Call::Write, &self.path)? == Some(DiskFailure::Short) {
            bytes.truncate((bytes.len() / 2 / BLOCK * BLOCK).max(BLOCK.min(bytes.len())));
        }
        let end = offset + bytes.len() as u64;
        let beyond = end.saturating_sub(self.file.borrow().bytes());
        if beyond > 0 && here(|disk| disk.used() + beyond > disk.capacity) {
            return Err(full());
        }
        if early {
            // If it never returns it may have reached the disk in part.
            self.file.borrow_mut().write(offset, &bytes, false);
            exec::sleep(pause).await;
        }
        if !early || self.dsync {
            self.file.borrow_mut().write(offset, &bytes, self.dsync);
        }
        let written = bytes.len();
        BUFFERS.with_borrow_mut(|buffers| buffers.push(bytes));
        Ok(written)
    }

    pub async fn sync(&self) -> io::Result<()> {
        take(50, 3000, || {
            check(Call::Sync, &self.path)?;
            Ok(())
        })
        .await?;
        self.file.borrow_mut().sync();
        Ok(())
    }

    /// Fewer bytes than `len` only at the end of the file.
    pub async fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        take(20, 400, || {
            check(Call::Read, &self.path)?;
            Ok(self.file.borrow().now.read(offset, len))
        })
        .await
    }
}

pub async fn truncate(path: PathBuf, bytes: u64) -> io::Result<()> {
    take(20, 500, || {
        let file = here(|disk| disk.get(&path))?;
        let mut inode = file.borrow_mut();
        inode.now.len = bytes;
        let first_gone = (bytes as usize).div_ceil(BLOCK);
        inode.now.blocks.truncate(first_gone);
        if !(bytes as usize).is_multiple_of(BLOCK)
            && let Some(Some(block)) = inode.now.blocks.get_mut(bytes as usize / BLOCK)
        {
            Rc::make_mut(block)[bytes as usize % BLOCK..].fill(0);
        }
        inode.reserved = 0;
        inode.dirty.clear();
        inode.durable = inode.now.clone();
        Ok(())
    })
    .await
}

pub async fn rename(from: PathBuf, to: PathBuf) -> io::Result<()> {
    take(20, 2000, || {
        check(Call::Rename, &from)?;
        here(|disk| {
            let file = disk.files.remove(&from).ok_or_else(missing)?;
            disk.files.insert(to, file);
            Ok(())
        })
    })
    .await
}

pub async fn remove(path: PathBuf) -> io::Result<()> {
    take(20, 1000, || {
        check(Call::Remove, &path)?;
        here(|disk| disk.files.remove(&path).map(drop).ok_or_else(missing))
    })
    .await
}

/// Makes a folder; one that is there stays.
pub async fn make_folder(path: PathBuf) -> io::Result<()> {
    take(20, 1000, || {
        here(|disk| disk.folders.insert(path));
        Ok(())
    })
    .await
}

/// At once, as all that follows.
pub fn make_folder_now(path: &Path) {
    here(|disk| disk.folders.insert(path.to_owned()));
}

pub fn is_folder(path: &Path) -> bool {
    here(|disk| disk.folders.contains(path))
}

/// Names and lengths of the files directly in a folder.
pub fn list(path: &Path) -> io::Result<Vec<(String, u64)>> {
    here(|disk| {
        let inside = disk.files.iter().filter(|(name, _)| name.parent() == Some(path));
        let name = |name: &PathBuf| name.file_name().map(|n| n.to_string_lossy().into_owned());
        Ok(inside.filter_map(|(path, file)| Some((name(path)?, file.borrow().now.len))).collect())
    })
}

/// Folders directly in a folder.
pub fn folders(path: &Path) -> Vec<PathBuf> {
    here(|disk| disk.folders.iter().filter(|name| name.parent() == Some(path)).cloned().collect())
}

pub fn read_now(path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    check(Call::Read, path)?;
    here(|disk| disk.get(path)).map(|file| file.borrow().now.read(offset, len))
}

pub fn remove_folder_now(path: &Path) {
    here(|disk| {
        disk.files.retain(|name, _| !name.starts_with(path));
        disk.folders.retain(|name| !name.starts_with(path));
    });
}

/// A second name for the file in the folder `aside`, at most `files_max` there.
pub async fn keep_aside(path: PathBuf, aside: PathBuf, files_max: usize) -> io::Result<()> {
    take(20, 500, || {
        here(|disk| {
            let file = disk.get(&path)?;
            disk.folders.insert(aside.clone());
            let count = disk.files.keys().filter(|name| name.parent() == Some(&aside)).count();
            if count < files_max
                && let Some(name) = path.file_name()
            {
                disk.files.insert(aside.join(name), file);
            }
            Ok(())
        })
    })
    .await
}

/// A lock that its process holds; None while another one does.
pub fn lock(path: &Path) -> Option<Lock> {
    let host = with(|m| m.current_host());
    here(|disk| disk.locks.insert(path.to_owned())).then(|| Lock { host, path: path.to_owned() })
}

/// See [`lock`].
pub struct Lock {
    host: HostId,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        at(self.host, |disk| disk.locks.remove(&self.path));
    }
}

/// Bytes of the whole disk.
pub fn capacity() -> u64 {
    here(|disk| disk.capacity)
}

// For the world.

/// The disk of a host gets this size.
pub fn set_capacity(host: HostId, bytes: u64) {
    at(host, |disk| disk.capacity = bytes);
}

/// Somebody else takes all that is free, but so many bytes.
pub fn fill(host: HostId, left: u64) {
    at(host, |disk| {
        disk.taken_by_others = 0;
        disk.taken_by_others = disk.capacity.saturating_sub(disk.used()).saturating_sub(left);
    });
}

/// What others took is free again.
pub fn free(host: HostId) {
    at(host, |disk| disk.taken_by_others = 0);
}

/// One call of this kind, on a path that contains `path`, fails; `skip` such calls go well before.
pub fn fail(host: HostId, call: Call, path: &str, skip: u32, failure: DiskFailure) {
    at(host, |disk| disk.faults.push(ArmedFault { call, path: path.to_owned(), skip, failure }));
}

/// Every call takes up to `by` longer for the next `duration`.
pub fn slow(host: HostId, duration: Duration, by: Duration) {
    at(host, |disk| (disk.slow_until, disk.slow_by) = (exec::now() + duration, by));
}

/// Power loss: of what was not synced anything may be there.
pub fn lose_power(host: HostId) {
    let files: Vec<File> = at(host, |disk| disk.files.values().cloned().collect());
    for file in files {
        exec::random(|rng| file.borrow_mut().lose_power(rng));
    }
}

/// Nothing is armed, slow or taken by others any more.
pub fn heal(host: HostId) {
    at(host, |disk| {
        disk.faults.clear();
        disk.slow_until = Duration::ZERO;
        disk.taken_by_others = 0;
    });
}

/// The whole content of a file of a host, as a reader would see it.
pub fn contents(host: HostId, path: &Path) -> Option<Vec<u8>> {
    let file = at(host, |disk| disk.files.get(path).cloned())?;
    let inode = file.borrow();
    Some(inode.now.read(0, inode.now.len as usize))
}

/// All files of a host under a folder.
pub fn all_files(host: HostId, under: &Path) -> Vec<PathBuf> {
    at(host, |disk| disk.files.keys().filter(|name| name.starts_with(under)).cloned().collect())
}

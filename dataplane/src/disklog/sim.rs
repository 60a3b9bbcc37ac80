//! A faulty disk in memory: writes that were not synced may vanish or be torn at a crash, single calls fail or write
//! less than asked, space runs out, and the machine stops at a chosen call.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use crate::io::yield_if_needed;

use super::store::{Files, Io, ReadFile, Store, WriteFile};

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFault {
    /// EIO, nothing done.
    Fails,
    /// A write moves one block only.
    Short,
    /// The call is done half or not at all, and every later call fails.
    Stops,
}

/// xorshift64*: small, and the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

#[derive(Clone, Default)]
struct Blob {
    /// What a read sees.
    now: Vec<u8>,
    /// What certainly survives power loss.
    durable: Vec<u8>,
    /// Written since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
}

impl Blob {
    fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
        if bytes.len() < offset + new.len() {
            bytes.resize(offset + new.len(), 0);
        }
        bytes[offset..offset + new.len()].copy_from_slice(new);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.unsynced.clear();
    }
}

type Inode = Rc<RefCell<Blob>>;

struct SimDisk {
    files: BTreeMap<String, Inode>,
    aside: Vec<String>,
    calls: u64,
    faults: BTreeMap<u64, DiskFault>,
    stopped: bool,
    /// No file can be made; this many headers cannot be written and files not be renamed.
    no_files: bool,
    bad_headers: u32,
    bad_renames: u32,
    space: u64,
    rng: Rng,
}

#[derive(Clone)]
pub(super) struct Sim(Rc<RefCell<SimDisk>>);

impl Sim {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(SimDisk {
            files: BTreeMap::new(),
            aside: Vec::new(),
            calls: 0,
            faults: BTreeMap::new(),
            stopped: false,
            no_files: false,
            bad_headers: 0,
            bad_renames: 0,
            space: u64::MAX,
            rng: Rng(seed | 1),
        })))
    }

    /// The n-th call that changes the disk, counted from 1 and from the last restart, fails with `fault`.
    pub(super) fn fault_at(&self, call: u64, fault: DiskFault) {
        self.0.borrow_mut().faults.insert(call, fault);
    }

    pub(super) fn calls(&self) -> u64 {
        self.0.borrow().calls
    }

    /// Opening files for writing fails for want of descriptors.
    pub(super) fn refuse_files(&self, refused: bool) {
        self.0.borrow_mut().no_files = refused;
    }

    /// The next writes at the beginning of a file fail.
    pub(super) fn refuse_headers(&self, count: u32) {
        self.0.borrow_mut().bad_headers = count;
    }

    /// The next renames fail after they have been done.
    pub(super) fn refuse_renames(&self, count: u32) {
        self.0.borrow_mut().bad_renames = count;
    }

    pub(super) fn set_space(&self, bytes: u64) {
        self.0.borrow_mut().space = bytes;
    }

    pub(super) fn aside(&self) -> Vec<String> {
        self.0.borrow().aside.clone()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.borrow().files.keys().cloned().collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.borrow().files[name].borrow().now.clone()
    }

    /// Changes a file without the log's knowledge.
    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let inner = self.0.borrow();
        let mut blob = inner.files[name].borrow_mut();
        edit(&mut blob.now);
        blob.sync();
    }

    pub(super) fn delete(&self, name: &str) {
        self.0.borrow_mut().files.remove(name);
    }

    /// The disk after power loss: any sector of 512 bytes that was not synced may have been written or not.
    pub(super) fn restart(&self) -> Self {
        let inner = self.0.borrow();
        let mut rng = inner.rng.clone();
        let mut files = BTreeMap::new();
        for (name, inode) in &inner.files {
            let blob = inode.borrow();
            let mut bytes = blob.durable.clone();
            for (offset, new) in &blob.unsynced {
                for (i, sector) in new.chunks(512).enumerate() {
                    if rng.below(2) == 0 {
                        Blob::put(&mut bytes, offset + i * 512, sector);
                    }
                }
            }
            let blob = Blob { now: bytes.clone(), durable: bytes, unsynced: Vec::new() };
            files.insert(name.clone(), Rc::new(RefCell::new(blob)));
        }
        let new = Self::new(rng.below(u64::MAX));
        new.0.borrow_mut().files = files;
        new
    }

    /// A copy of the whole disk.
    pub(super) fn copy(&self) -> Self {
        let new = Self::new(1);
        for (name, inode) in &self.0.borrow().files {
            new.0.borrow_mut().files.insert(name.clone(), Rc::new(RefCell::new(inode.borrow().clone())));
        }
        new
    }

    /// Counts a call. Err: it fails. Some: the caller does a part of it and then fails (`Stops`) or returns (`Short`).
    fn call(&self) -> io::Result<Option<DiskFault>> {
        let mut inner = self.0.borrow_mut();
        inner.calls += 1;
        if inner.stopped {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let calls = inner.calls;
        match inner.faults.get(&calls).copied() {
            Some(DiskFault::Fails) => Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(DiskFault::Stops) => {
                inner.stopped = true;
                Ok(Some(DiskFault::Stops))
            }
            other => Ok(other),
        }
    }

    /// A change of the directory, done completely or not at all.
    fn change(&self, change: impl FnOnce(&mut SimDisk) -> io::Result<()> + 'static) -> Io<()> {
        let sim = self.clone();
        Box::pin(async move {
            yield_if_needed().await;
            let fault = sim.call()?;
            let mut inner = sim.0.borrow_mut();
            if fault == Some(DiskFault::Stops) {
                if inner.rng.below(2) == 0 {
                    let _ = change(&mut inner);
                }
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            change(&mut inner)
        })
    }

    fn used(inner: &SimDisk) -> u64 {
        inner.files.values().map(|f| f.borrow().now.len() as u64).sum()
    }
}

fn failing(times: &mut u32) -> io::Result<()> {
    if *times == 0 {
        return Ok(());
    }
    *times -= 1;
    Err(io::Error::from_raw_os_error(libc::EMFILE))
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl Files for Sim {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let inner = self.0.borrow();
        Ok(inner.files.iter().map(|(name, f)| (name.clone(), f.borrow().now.len() as u64)).collect())
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let inner = self.0.borrow();
        let blob = inner.files.get(name).ok_or_else(missing)?.borrow();
        let from = (offset as usize).min(blob.now.len());
        Ok(blob.now[from..from.saturating_add(len).min(blob.now.len())].to_vec())
    }
}

impl Store for Sim {
    fn create(&self, name: &str, bytes: u64, dsync: bool) -> Io<Rc<dyn WriteFile>> {
        let (sim, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            let wanted = name.clone();
            let reserve = move |inner: &mut SimDisk| {
                if inner.no_files {
                    return Err(io::Error::from_raw_os_error(libc::EMFILE));
                }
                let used = Sim::used(inner);
                let file = inner.files.entry(wanted).or_default();
                let mut blob = file.borrow_mut();
                let new = bytes.saturating_sub(blob.now.len() as u64);
                if new > 0 && used + new > inner.space {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                let more = vec![0; (bytes as usize).saturating_sub(blob.now.len())];
                blob.now.extend_from_slice(&more);
                blob.durable.extend_from_slice(&more);
                Ok(())
            };
            sim.change(reserve).await?;
            let inode = sim.0.borrow().files.get(&name).cloned().ok_or_else(missing)?;
            Ok(Rc::new(SimFile { sim, inode, dsync }) as Rc<dyn WriteFile>)
        })
    }

    fn open(&self, name: &str) -> Io<Rc<dyn ReadFile>> {
        let (sim, name) = (self.clone(), name.to_owned());
        Box::pin(async move {
            yield_if_needed().await;
            let inode = sim.0.borrow().files.get(&name).cloned().ok_or_else(missing)?;
            Ok(Rc::new(SimFile { sim, inode, dsync: false }) as Rc<dyn ReadFile>)
        })
    }

    fn truncate(&self, name: &str, bytes: u64) -> Io<()> {
        let name = name.to_owned();
        self.change(move |inner| {
            let mut blob = inner.files.get(&name).ok_or_else(missing)?.borrow_mut();
            blob.now.truncate(bytes as usize);
            blob.sync();
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> Io<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.change(move |inner| {
            let inode = inner.files.remove(&from).ok_or_else(missing)?;
            inner.files.insert(to, inode);
            failing(&mut inner.bad_renames)
        })
    }

    fn remove(&self, name: &str) -> Io<()> {
        let name = name.to_owned();
        self.change(move |inner| inner.files.remove(&name).map(|_| ()).ok_or_else(missing))
    }

    fn keep_aside(&self, name: &str) -> Io<()> {
        let name = name.to_owned();
        self.change(move |inner| {
            inner.aside.push(name);
            Ok(())
        })
    }

    fn is_in_place(&self, names: Vec<String>) -> Io<bool> {
        let sim = self.clone();
        Box::pin(async move {
            yield_if_needed().await;
            Ok(names.iter().all(|name| sim.0.borrow().files.contains_key(name)))
        })
    }
}

/// An open file, for reading or writing.
struct SimFile {
    sim: Sim,
    inode: Inode,
    dsync: bool,
}

impl WriteFile for SimFile {
    fn write(&self, offset: u64, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> Io<usize> {
        assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096), "{offset} {len}: not whole blocks");
        let mut bytes = vec![0; len];
        fill(&mut bytes);
        let (sim, inode, dsync, offset) = (self.sim.clone(), Rc::clone(&self.inode), self.dsync, offset as usize);
        Box::pin(async move {
            yield_if_needed().await;
            let fault = sim.call()?;
            if offset == 0 {
                failing(&mut sim.0.borrow_mut().bad_headers)?;
            }
            let mut blob = inode.borrow_mut();
            match fault {
                Some(DiskFault::Short) => bytes.truncate(4096.min(bytes.len())),
                Some(DiskFault::Stops) => {
                    // Never acknowledged: any part of it may exist after the restart.
                    blob.unsynced.push((offset, bytes));
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                _ => {}
            }
            Blob::put(&mut blob.now, offset, &bytes);
            if dsync {
                Blob::put(&mut blob.durable, offset, &bytes);
            } else {
                blob.unsynced.push((offset, bytes.clone()));
            }
            Ok(bytes.len())
        })
    }

    fn sync(&self) -> Io<()> {
        let (sim, inode) = (self.sim.clone(), Rc::clone(&self.inode));
        Box::pin(async move {
            yield_if_needed().await;
            if sim.call()? == Some(DiskFault::Stops) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            inode.borrow_mut().sync();
            Ok(())
        })
    }
}

impl ReadFile for SimFile {
    fn read(&self, offset: u64, len: usize) -> Io<Vec<u8>> {
        let inode = Rc::clone(&self.inode);
        Box::pin(async move {
            yield_if_needed().await;
            let blob = inode.borrow();
            let from = (offset as usize).min(blob.now.len());
            Ok(blob.now[from..from.saturating_add(len).min(blob.now.len())].to_vec())
        })
    }
}

//! The two copies of the state. Their space is reserved, so that a save needs none: on a full disk, too, the log knows
//! what has been delivered, and frees what nobody needs.
//!
//! A save writes one copy, then the other, each durable when written. Wherever a crash comes, one of them is whole. The
//! log acts on a new state (frees or rewrites a segment) only when both are written: so either copy is right.
//!
//! Not here: what a state says (`state.rs`), when it is saved (`shared.rs`).

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::state::{FILES, SavedState, StateFault};
use super::store::{Files, Store, WriteFile, is_full};
use super::{Error, frame};
use crate::crash;
use crate::limits::{LOG_STATE_BYTES_MAX, LOG_STATE_RESERVED_BYTES_MIN};

pub(super) struct StateFiles {
    copies: RefCell<[Option<StateCopy>; 2]>,
    /// The copy that is written first: not the one that was read, until both say the same.
    first: usize,
    /// Both are whole and equal.
    equal: Cell<bool>,
}

#[derive(Clone)]
struct StateCopy {
    file: Rc<dyn WriteFile>,
    reserved: u64,
    /// What lies behind it is zero.
    used: u64,
}

/// What the two copies say.
pub(super) enum FoundState {
    /// There is none, or the very first save was not completed.
    None,
    /// And which of the copies says so.
    Whole(Box<SavedState>, usize),
    Fault(StateFault),
}

/// Reads both copies, with blocking calls.
pub(super) fn read_state(files: &(impl Files + ?Sized), dir: &Path) -> Result<FoundState, Error> {
    let mut found = Vec::new();
    for name in FILES {
        let bytes = match files.read(name, 0, LOG_STATE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("read", &dir.join(name), e)),
        };
        // The reserved space behind the text is zero.
        let is_zero = |part: &&[u8]| part.iter().fold(0, |any, byte| any | byte) == 0;
        let zeros: usize = bytes.rchunks(512).take_while(is_zero).map(<[u8]>::len).sum();
        let text = bytes[..bytes.len() - zeros].iter().rposition(|&byte| byte != 0).map(|last| &bytes[..=last]);
        found.push((bytes.is_empty(), text.map(SavedState::decode)));
    }
    let later = |f: &(bool, Option<Result<SavedState, StateFault>>)| match f.1 {
        Some(Err(fault @ StateFault::Version(_))) => Some(fault),
        _ => None,
    };
    if let Some(fault) = found.iter().find_map(later) {
        return Ok(FoundState::Fault(fault));
    }
    let whole = found.iter().position(|(_, state)| matches!(state, Some(Ok(_))));
    if let Some(at) = whole {
        let Some(Ok(state)) = found.swap_remove(at).1 else { unreachable!("looked at above") };
        return Ok(FoundState::Whole(Box::new(state), at));
    }
    let [(_, first), (second_missing, second)] = &found[..] else { unreachable!("one for each name") };
    Ok(match (first, second) {
        (None, None) => FoundState::None,
        // The second copy has been made and never written.
        (Some(_), None) if !second_missing => FoundState::None,
        _ => FoundState::Fault(StateFault::Damaged),
    })
}

impl StateFiles {
    /// `read`: the copy that the state was read from.
    pub(super) fn new(read: Option<usize>) -> Self {
        Self { copies: RefCell::default(), first: read.map_or(0, |read| 1 - read), equal: Cell::new(false) }
    }

    /// Whether the last state given to [`StateFiles::save`] is in both copies.
    pub(super) fn are_equal(&self) -> bool {
        self.equal.get()
    }

    /// The names of the copies that are open.
    pub(super) fn names(&self) -> Vec<String> {
        let copies = self.copies.borrow();
        FILES.iter().zip(&*copies).filter(|(_, copy)| copy.is_some()).map(|(name, _)| (*name).to_owned()).collect()
    }

    /// Opens the copies and reserves their space, where possible. `found` are the files of the directory.
    pub(super) async fn open(&self, store: &dyn Store, found: &[(String, u64)]) -> io::Result<()> {
        for index in [self.first, 1 - self.first] {
            let bytes = found.iter().find(|(name, _)| name == FILES[index]).map(|(_, bytes)| *bytes);
            self.reserve(store, index, bytes, 0).await?;
        }
        Ok(())
    }

    /// Makes `bytes` the state. One call at a time.
    pub(super) async fn save(&self, store: &dyn Store, bytes: &[u8]) -> io::Result<()> {
        self.equal.set(false);
        for index in [self.first, 1 - self.first] {
            if self.copies.borrow()[index].as_ref().is_none_or(|copy| copy.reserved < bytes.len() as u64) {
                let found = store.list()?;
                let found = found.iter().find(|(name, _)| name == FILES[index]).map(|(_, bytes)| *bytes);
                self.reserve(store, index, found, bytes.len()).await?;
            }
        }
        crash::point("save");
        self.write(self.first, bytes).await?;
        crash::point("half-saved");
        self.write(1 - self.first, bytes).await?;
        crash::point("saved");
        self.equal.set(true);
        Ok(())
    }

    /// Opens or makes a copy with room for `need` bytes and more; `found`: its bytes, if it is there.
    async fn reserve(&self, store: &dyn Store, index: usize, found: Option<u64>, need: usize) -> io::Result<()> {
        let least = frame::padded(need) as u64;
        let wanted = (2 * least).next_power_of_two().max(LOG_STATE_RESERVED_BYTES_MIN);
        let sizes = match found {
            Some(bytes) if bytes >= least.max(LOG_STATE_RESERVED_BYTES_MIN) => [bytes, bytes],
            _ => [wanted, least.max(frame::BLOCK_BYTES as u64)],
        };
        // A new file gets its name when that is durable: the name must not be lost with a crash.
        let tmp = format!("{}.tmp", FILES[index]);
        let name = if found.is_some() { FILES[index] } else { &tmp };
        let mut made = store.create(name, sizes[0], true).await.map(|file| (file, sizes[0]));
        if made.as_ref().is_err_and(is_full) && sizes[1] < sizes[0] {
            made = store.create(name, sizes[1], true).await.map(|file| (file, sizes[1]));
        }
        let (file, reserved) = made?;
        if found.is_none() {
            store.rename(&tmp, FILES[index]).await?;
        }
        self.copies.borrow_mut()[index] = Some(StateCopy { file, reserved, used: reserved });
        Ok(())
    }

    async fn write(&self, index: usize, bytes: &[u8]) -> io::Result<()> {
        let copy = self.copies.borrow()[index].clone().expect("reserved before");
        // A longer text before is overwritten whole.
        let end = frame::padded(bytes.len().max(copy.used as usize));
        let mut done = 0;
        while done < end {
            let write = copy.file.write(done as u64, end - done, &mut |out| {
                let rest = bytes.get(done..).unwrap_or(&[]);
                let text = rest.len().min(out.len());
                out[..text].copy_from_slice(&rest[..text]);
                out[text..].fill(0);
            });
            let written = write.await? & !(frame::BLOCK_BYTES - 1);
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += written;
        }
        if let Some(copy) = &mut self.copies.borrow_mut()[index] {
            copy.used = bytes.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disklog::Seq;
    use crate::disklog::segment::Mark;
    use crate::disklog::sim::{DiskFault, Sim};
    use crate::io::block_on;

    fn state(n: u64) -> SavedState {
        SavedState {
            end: Mark { seq: Seq(n), offset: 0, lines: n },
            segment: Seq(1),
            epoch: 1,
            first: Seq(1),
            first_lines: 0,
            closed: false,
            rerouting: false,
            rerouted: Vec::new(),
            stamp: n,
            cursors: Vec::new(),
            parked: Vec::new(),
            settled: Vec::new(),
            waiting: Vec::new(),
            dropped: Vec::new(),
            changes: Vec::new(),
            refused: Vec::new(),
            rejected: Vec::new(),
            // Of changing length, and over several blocks.
            ledger: vec![b'x'; (n as usize * 7_919) % 20_000],
            number: 0,
        }
    }

    fn read(sim: &Sim) -> Option<u64> {
        match read_state(sim, Path::new("sim")).unwrap() {
            FoundState::Whole(state, _) => Some(state.end.seq.0),
            FoundState::None => None,
            FoundState::Fault(fault) => panic!("{fault:?}"),
        }
    }

    #[test]
    fn a_save_that_is_cut_anywhere_leaves_the_last_state_or_the_new_one() {
        block_on(|| async {
            for stop in 1..60 {
                let sim = Sim::new(stop);
                sim.fault_at(stop, DiskFault::Stops);
                let files = StateFiles::new(None);
                let mut saved = None;
                for n in 1..20 {
                    if files.save(&sim, &state(n).encode()).await.is_err() {
                        break;
                    }
                    saved = Some(n);
                }
                let sim = sim.restart();
                let found = read(&sim);
                assert!(found == saved || found == Some(saved.unwrap_or(0) + 1), "{stop}: {found:?} {saved:?}");
                // Again, in the next life.
                let which = match read_state(&sim, Path::new("sim")).unwrap() {
                    FoundState::Whole(_, which) => Some(which),
                    _ => None,
                };
                sim.fault_at(1 + stop % 4, DiskFault::Stops);
                let done = StateFiles::new(which).save(&sim, &state(50).encode()).await.is_ok();
                let after = read(&sim.restart());
                assert!(after == Some(50) || !done && after == found, "{stop}: {after:?}");
            }
        });
    }

    #[test]
    fn a_full_disk_takes_states_that_are_not_much_longer() {
        block_on(|| async {
            let sim = Sim::new(1);
            let files = StateFiles::new(None);
            files.save(&sim, &state(1).encode()).await.unwrap();
            sim.set_space(0);
            for n in 2..30 {
                files.save(&sim, &state(n).encode()).await.unwrap();
                assert_eq!(read(&sim), Some(n));
            }
            let files = StateFiles::new(Some(0));
            files.open(&sim, &sim.list().unwrap()).await.unwrap();
            files.save(&sim, &state(30).encode()).await.unwrap();
            assert_eq!(read(&sim), Some(30));
            let long = SavedState { ledger: vec![b'x'; 1 << 20], ..state(31) };
            assert!(is_full(&files.save(&sim, &long.encode()).await.unwrap_err()));
            assert_eq!(read(&sim), Some(30));
        });
    }

    #[test]
    fn one_damaged_copy_is_no_loss_and_two_are_damage() {
        block_on(|| async {
            let sim = Sim::new(1);
            let files = StateFiles::new(None);
            files.save(&sim, &state(7).encode()).await.unwrap();
            for name in FILES {
                let copy = sim.copy();
                copy.edit(name, |bytes| bytes[40] ^= 1);
                assert_eq!(read(&copy), Some(7));
                copy.delete(name);
                assert_eq!(read(&copy), Some(7));
            }
            FILES.iter().for_each(|name| sim.edit(name, |bytes| bytes[40] ^= 1));
            let found = read_state(&sim, Path::new("sim")).unwrap();
            assert!(matches!(found, FoundState::Fault(StateFault::Damaged)));
        });
    }
}

//! Errors of a log, and damage found in it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Seq;

#[derive(Debug)]
pub enum Error {
    /// A system call failed; no damage is known.
    Io { op: &'static str, file: PathBuf, source: io::Error },
    /// A write or sync failed before: the contents of the disk are unknown, so the log accepts nothing more.
    Poisoned { reason: String },
    /// The directory of the log, or files in it, have been removed, renamed or replaced by somebody else.
    Gone { dir: PathBuf },
    /// No space, on the disk or within `max_bytes`. Ends when backends catch up.
    Full,
    /// The next file of the log cannot be made now. Nothing was written, so nothing is in doubt: it is tried again.
    NoNextFile,
    /// The log is being closed.
    Closed,
    /// A bug of the caller: more bytes than a record may have.
    TooLong { bytes: usize },
    /// The configuration's backend names do not fit into a segment header (about 8 KB).
    TooManyNames,
    /// Written by a later version. No file was changed.
    UnknownVersion { file: PathBuf, version: u32 },
    /// Another process has this directory open.
    Locked { dir: PathBuf },
    /// Neither a log nor the logs of workers are in this directory.
    NoLog { dir: PathBuf },
}

impl Error {
    pub(super) fn io(op: &'static str, file: &Path, source: io::Error) -> Self {
        Self::Io { op, file: file.to_owned(), source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { op, file, source } => write!(f, "cannot {op} {}: {source}", file.display()),
            Self::Poisoned { reason } => write!(f, "the log refuses work after a failure: {reason}"),
            Self::Gone { dir } => write!(
                f,
                "{} or files in it were removed, renamed or replaced while the proxy ran, so that nothing new can be \
                 kept safe; restart the proxy",
                dir.display()
            ),
            Self::Full => f.write_str("no space for more backlog"),
            Self::NoNextFile => f.write_str("the next file of the log cannot be made now"),
            Self::Closed => f.write_str("the log is closed"),
            Self::TooLong { bytes } => write!(f, "{bytes} bytes are too many for one record"),
            Self::TooManyNames => f.write_str("the names of all backends together are too long for a log header"),
            Self::UnknownVersion { file, version } => {
                write!(f, "{} has format version {version}, which this program does not know", file.display())
            }
            Self::Locked { dir } => write!(f, "{} is in use by another process", dir.display()),
            Self::NoLog { dir } => {
                write!(f, "there is no log in {}: name a data_dir, or a folder worker-N in it", dir.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// Frames of a segment cannot be read.
    Frames,
    /// A whole segment is missing, or both copies of its header are damaged.
    Segment,
    /// The state file: cursors restart at the beginning of the log, the ledger is lost.
    State,
}

/// A part of the log that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub kind: DamageKind,
    pub file: PathBuf,
    /// Bytes of the file; empty for a missing one.
    pub bytes: Range<u64>,
    /// Lost sequences.
    pub seqs: Range<Seq>,
    /// Lost points, for whichever backends: exact for frames. For a missing oldest segment it includes points that were
    /// already confirmed.
    pub lines: u64,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, bytes, seqs, lines, .. } = self;
        let (file, from, to) = (file.display(), bytes.start, bytes.end);
        write!(f, "{file}: bytes {from}..{to}, records {}..{}, {lines} points lost", seqs.start.0, seqs.end.0)
    }
}

/// The last write of a log, where it is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: PathBuf,
    /// Start of the write.
    pub offset: u64,
    pub loss: Loss,
}

/// Whether points that had been acknowledged were in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A crash cut it short: a part of it was never written.
    CutShort,
    /// It was cut short or damaged later. With the number of its points, if it can be read.
    Possible(Option<u64>),
    /// Another write followed it.
    Certain,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the last write, at byte {}, ", self.file.display(), self.offset)?;
        match self.loss {
            Loss::CutShort => f.write_str("is unfinished; under `durability = disk` it had not been acknowledged"),
            Loss::Possible(points) => {
                f.write_str("is not whole: a crash cut it short, or it was damaged after it had been acknowledged; ")?;
                match points {
                    Some(points) => write!(f, "up to {points} points may be missing"),
                    None => f.write_str("its points may be missing"),
                }
            }
            Loss::Certain => {
                f.write_str("cannot be read, although it had been acknowledged; how many points are missing is unknown")
            }
        }
    }
}

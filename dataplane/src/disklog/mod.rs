//! A worker's log: an append-only file of frames, shared by all couriers of the worker.

use crate::precision::Precision;

/// Number of a record in its worker's log; starts at 1 and never repeats, also across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

/// A record, borrowed from the hot tail or from a frame read back.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    pub seq: Seq,
    pub db: &'a [u8],
    /// Empty = the database's default policy.
    pub rp: &'a [u8],
    pub precision: Precision,
    /// Number of lines in `bytes`.
    pub lines: u32,
    /// Whole lines, each ended by LF.
    pub bytes: &'a [u8],
}

//! Decompresses a gzip body as a stream, as strictly as Go's `compress/gzip` and with its error texts, which InfluxDB
//! shows to its clients.
//!
//! ```text
//!   | 10 bytes | extra? | name? | comment? | CRC16? | deflate data | CRC32, length |  and again, any number of members
//! ```
//!
//! The caller calls [`Inflater::inflate`] until the input is consumed *and* the output was not filled, then, at the end
//! of the body, [`Inflater::finish`]. Memory is the caller's two slices and some 48 KiB of state, which
//! [`Inflater::reset`] reuses. A body is valid only when `finish` succeeds, since its checksum comes last. As in Go,
//! reserved header flags are ignored, and the offset of `flate: corrupt input` counts from the start of the member's
//! deflate data.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status};

use crate::limits::GZIP_NAME_BYTES_MAX;

/// Always an error of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipError {
    /// The body is empty.
    Eof,
    /// Ends within a member, or has fewer than ten bytes where a header must be.
    UnexpectedEof,
    /// The bytes are not a gzip header.
    Header,
    /// CRC32 or length at the end of a member is wrong.
    Checksum,
    /// Invalid deflate data, found after this many bytes of it.
    Corrupt { offset: u64 },
    /// More decompressed bytes than allowed: 413.
    TooLarge,
}

impl GzipError {
    pub fn status(self) -> u16 {
        if self == Self::TooLarge { 413 } else { 400 }
    }
}

/// Go's texts, word for word.
impl fmt::Display for GzipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("EOF"),
            Self::UnexpectedEof => f.write_str("unexpected EOF"),
            Self::Header => f.write_str("gzip: invalid header"),
            Self::Checksum => f.write_str("gzip: invalid checksum"),
            Self::Corrupt { offset } => write!(f, "flate: corrupt input before offset {offset}"),
            Self::TooLarge => f.write_str("Request Entity Too Large"),
        }
    }
}

const FLAG_HEADER_CRC: u8 = 1 << 1;
const FLAG_EXTRA: u8 = 1 << 2;
const FLAG_NAME: u8 = 1 << 3;
const FLAG_COMMENT: u8 = 1 << 4;

/// The part of a member to which the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GzipPart {
    Fixed,
    ExtraLen,
    Extra { left: u16 },
    Name { read: u32 },
    Comment { read: u32 },
    HeaderCrc,
    Deflate,
    Trailer,
}

/// The result of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflated {
    pub consumed: usize,
    pub produced: usize,
}

/// State of one body.
pub struct Inflater {
    inflate: Decompress,
    part: GzipPart,
    /// Header fields and trailer, as far as they have arrived.
    small: [u8; 10],
    small_len: usize,
    flags: u8,
    header_crc: Crc,
    crc: Crc,
    member_bytes: u64,
    /// No byte of any member has arrived.
    untouched: bool,
    bytes_left: u64,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Inflater {
    /// For a body of at most `bytes_max` decompressed bytes; 0 = no limit.
    pub fn new(bytes_max: u64) -> Self {
        Self {
            inflate: Decompress::new(false),
            part: GzipPart::Fixed,
            small: [0; 10],
            small_len: 0,
            flags: 0,
            header_crc: Crc::new(),
            crc: Crc::new(),
            member_bytes: 0,
            untouched: true,
            bytes_left: if bytes_max == 0 { u64::MAX } else { bytes_max },
        }
    }

    /// Resets the state for another body, without allocating.
    pub fn reset(&mut self, bytes_max: u64) {
        self.start_member();
        self.untouched = true;
        self.bytes_left = if bytes_max == 0 { u64::MAX } else { bytes_max };
    }

    fn start_member(&mut self) {
        self.inflate.reset(false);
        self.part = GzipPart::Fixed;
        self.small_len = 0;
        self.header_crc.reset();
        self.crc.reset();
        self.member_bytes = 0;
    }

    /// Decompresses from `input` to the front of `out` until one of them is used up.
    pub fn inflate(&mut self, input: &[u8], out: &mut [u8]) -> Result<Inflated, GzipError> {
        let (mut consumed, mut produced) = (0, 0);
        loop {
            if self.part != GzipPart::Deflate {
                if consumed == input.len() {
                    break;
                }
                consumed += self.take_small(&input[consumed..])?;
                continue;
            }
            let room = &mut out[produced..];
            if room.is_empty() {
                break;
            }
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&input[consumed..], room, FlushDecompress::None);
            let read = (self.inflate.total_in() - in_before) as usize;
            let written = (self.inflate.total_out() - out_before) as usize;
            // Bytes written before a fault count first, so that the size of `out` does not decide which error is
            // reported.
            self.bytes_left = self.bytes_left.checked_sub(written as u64).ok_or(GzipError::TooLarge)?;
            let status = status.map_err(|_| GzipError::Corrupt { offset: self.inflate.total_in() })?;
            self.crc.update(&room[..written]);
            self.member_bytes += written as u64;
            consumed += read;
            produced += written;
            if status == Status::StreamEnd {
                self.part = GzipPart::Trailer;
            } else if read == 0 && written == 0 {
                break;
            }
        }
        Ok(Inflated { consumed, produced })
    }

    /// Called at the end of the body: checks that it is complete.
    pub fn finish(&self) -> Result<(), GzipError> {
        match self.part {
            GzipPart::Fixed if self.small_len == 0 && self.untouched => Err(GzipError::Eof),
            GzipPart::Fixed if self.small_len == 0 => Ok(()),
            _ => Err(GzipError::UnexpectedEof),
        }
    }

    /// Takes bytes of the header or trailer from the front of `input`; returns how many.
    fn take_small(&mut self, input: &[u8]) -> Result<usize, GzipError> {
        self.untouched = false;
        match self.part {
            GzipPart::Fixed => {
                let taken = self.gather(input, 10);
                if self.small_len == 10 {
                    // The magic number and `deflate`, the only method (RFC 1952 section 2.3.1).
                    if self.small[..3] != [0x1f, 0x8b, 8] {
                        return Err(GzipError::Header);
                    }
                    self.flags = self.small[3];
                    self.header_crc.update(&self.small);
                    self.enter_after(GzipPart::Fixed);
                }
                Ok(taken)
            }
            GzipPart::ExtraLen => {
                let taken = self.gather(input, 2);
                if self.small_len == 2 {
                    self.header_crc.update(&self.small[..2]);
                    let left = u16::from_le_bytes([self.small[0], self.small[1]]);
                    self.small_len = 0;
                    self.part = GzipPart::Extra { left };
                    if left == 0 {
                        self.enter_after(self.part);
                    }
                }
                Ok(taken)
            }
            GzipPart::Extra { left } => {
                let taken = input.len().min(usize::from(left));
                self.header_crc.update(&input[..taken]);
                self.part = GzipPart::Extra { left: left - taken as u16 };
                if taken == usize::from(left) {
                    self.enter_after(self.part);
                }
                Ok(taken)
            }
            GzipPart::Name { read } | GzipPart::Comment { read } => {
                let nul = memchr::memchr(0, input);
                let taken = nul.map_or(input.len(), |at| at + 1);
                let read = u32::try_from(taken).unwrap_or(u32::MAX).saturating_add(read);
                if read > GZIP_NAME_BYTES_MAX || (read == GZIP_NAME_BYTES_MAX && nul.is_none()) {
                    return Err(GzipError::Header);
                }
                self.header_crc.update(&input[..taken]);
                let name = matches!(self.part, GzipPart::Name { .. });
                self.part = if name { GzipPart::Name { read } } else { GzipPart::Comment { read } };
                if nul.is_some() {
                    self.enter_after(self.part);
                }
                Ok(taken)
            }
            GzipPart::HeaderCrc => {
                let taken = self.gather(input, 2);
                if self.small_len == 2 {
                    if u16::from_le_bytes([self.small[0], self.small[1]]) != self.header_crc.sum() as u16 {
                        return Err(GzipError::Header);
                    }
                    self.enter_after(GzipPart::HeaderCrc);
                }
                Ok(taken)
            }
            GzipPart::Trailer => {
                let taken = self.gather(input, 8);
                if self.small_len == 8 {
                    let [a, b, c, d, e, f, g, h, ..] = self.small;
                    let (crc, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
                    // The length is kept modulo 2^32.
                    if crc != self.crc.sum() || length != self.member_bytes as u32 {
                        return Err(GzipError::Checksum);
                    }
                    self.start_member();
                }
                Ok(taken)
            }
            GzipPart::Deflate => Ok(0),
        }
    }

    fn gather(&mut self, input: &[u8], want: usize) -> usize {
        let taken = input.len().min(want - self.small_len);
        self.small[self.small_len..self.small_len + taken].copy_from_slice(&input[..taken]);
        self.small_len += taken;
        taken
    }

    /// Enters the next part that the flags announce.
    fn enter_after(&mut self, part: GzipPart) {
        self.small_len = 0;
        let has = |flag| self.flags & flag != 0;
        let rank = match part {
            GzipPart::Fixed => 0,
            GzipPart::ExtraLen | GzipPart::Extra { .. } => 1,
            GzipPart::Name { .. } => 2,
            GzipPart::Comment { .. } => 3,
            _ => 4,
        };
        self.part = match rank {
            0 if has(FLAG_EXTRA) => GzipPart::ExtraLen,
            0..=1 if has(FLAG_NAME) => GzipPart::Name { read: 0 },
            0..=2 if has(FLAG_COMMENT) => GzipPart::Comment { read: 0 },
            0..=3 if has(FLAG_HEADER_CRC) => GzipPart::HeaderCrc,
            _ => GzipPart::Deflate,
        };
    }
}

#[cfg(test)]
#[path = "gzip_test.rs"]
mod tests;

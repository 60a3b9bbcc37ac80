//! Reads the blocks of one of influx-proxy's cache files, also of a damaged one.
//!
//! ```text
//!   | length, 4 bytes big-endian | block | length | block ...
//!   block   "<db> <gzip>" (2.4)  or  "<db> <rp> <gzip>" (2.5); db and rp query-escaped
//! ```
//!
//! A write that a crash or a full disk cut short leaves a torn block, and influx-proxy appends the next one right
//! behind it: the length of the torn block then reaches into the next ones. So what does not read as a block is
//! searched for the next thing that does: a length, names, and a gzip stream that ends where the length says, with the
//! right checksum. Only the bytes before it are lost, and they are told of in one line.
//!
//! Reads block. Not here: where the files are, and where reading begins (`cache_files`).

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;

use crate::http::query;
use crate::limits::{CACHE_NAMES_BYTES_MAX, CACHE_PIECE_BYTES_MAX, CACHE_SEARCH_BYTES};

const LENGTH_BYTES: u64 = 4;
const GZIP: &[u8] = b"\x1f\x8b";
/// Where the gzip stream of a block begins, with the blank before it.
const GZIP_BEGINS: &[u8] = b" \x1f\x8b\x08";

/// Some of the lines of a block, whole ones.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    pub db: Vec<u8>,
    /// Empty = the default policy.
    pub rp: Vec<u8>,
    pub lines: Vec<u8>,
}

/// The blocks of a file from an offset on.
pub struct Blocks {
    file: Rc<File>,
    /// For messages.
    name: PathBuf,
    /// Where the next block begins.
    at: u64,
    len: u64,
    open: Option<OpenBlock>,
    /// Bytes that could not be read as blocks.
    pub damaged_bytes: u64,
}

/// A block that is being read.
struct OpenBlock {
    db: Vec<u8>,
    rp: Vec<u8>,
    gzip: Gzip,
    /// What has been inflated and not been handed out: it may end within a line.
    rest: Vec<u8>,
    ended: bool,
}

type Gzip = MultiGzDecoder<BufReader<Span>>;

/// A part of a file.
struct Span {
    file: Rc<File>,
    at: u64,
    end: u64,
}

impl Read for Span {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wanted = buf.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut buf[..wanted], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Blocks {
    /// Reads from offset 0 on.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Rc::new(file), name: path, at: 0, len, open: None, damaged_bytes: 0 })
    }

    /// Skips to an offset. False, and nothing is skipped, when no block begins or ends there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        let known = offset <= self.len && (self.ends_a_block(offset)? || self.block_at(offset)?.is_some());
        if known {
            self.at = offset;
        }
        Ok(known)
    }

    /// The next lines; None at the end. Damage is logged.
    ///
    /// # Errors
    /// When the file cannot be read. Damage is no error.
    pub fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(lines) = open.next_lines()? {
                    return Ok(Some(Piece { db: open.db.clone(), rp: open.rp.clone(), lines }));
                }
                self.open = None;
            }
            if self.at == self.len {
                return Ok(None);
            }
            match self.block_at(self.at)? {
                Some((open, end)) => (self.open, self.at) = (Some(open), end),
                None => self.at = self.skip_damage()?,
            }
        }
    }

    /// Whether the lengths from the beginning on lead there.
    fn ends_a_block(&self, offset: u64) -> io::Result<bool> {
        let mut at = 0;
        while at < offset {
            match self.end_of(at)? {
                Some(end) => at = end,
                None => return Ok(false),
            }
        }
        Ok(at == offset)
    }

    /// Where the block ends that begins there, by its length.
    fn end_of(&self, at: u64) -> io::Result<Option<u64>> {
        let mut length = [0; LENGTH_BYTES as usize];
        if at + LENGTH_BYTES > self.len || self.file.read_at(&mut length, at)? < length.len() {
            return Ok(None);
        }
        let length = u64::from(u32::from_be_bytes(length));
        let end = at + LENGTH_BYTES + length;
        Ok((length > 0 && end <= self.len).then_some(end))
    }

    /// The block that begins there, and where it ends; None when there is none, or it is damaged.
    fn block_at(&self, at: u64) -> io::Result<Option<(OpenBlock, u64)>> {
        let Some(end) = self.end_of(at)? else { return Ok(None) };
        let begin = at + LENGTH_BYTES;
        let names_max = CACHE_NAMES_BYTES_MAX + GZIP.len();
        let mut head = vec![0; names_max.min((end - begin) as usize)];
        let read = self.file.read_at(&mut head, begin)?;
        let Some((db, rp, names_bytes)) = names(&head[..read]) else { return Ok(None) };
        let gzip = || {
            let span = Span { file: self.file.clone(), at: begin + names_bytes as u64, end };
            MultiGzDecoder::new(BufReader::new(span))
        };
        let mut open = OpenBlock { db, rp, gzip: gzip(), rest: Vec::new(), ended: false };
        let whole = or_damage(open.fill())?.is_some()
            // The checksum is at the end, and nothing may be taken before it is known.
            && (open.ended || or_damage(io::copy(&mut gzip(), &mut io::sink()))?.is_some());
        Ok(whole.then_some((open, end)))
    }

    /// Where the next block begins behind the damage at `self.at`, or the end.
    fn skip_damage(&mut self) -> io::Result<u64> {
        let from = self.at;
        // A gzip stream may end with zeros. One that lacks them takes those of the next block's length for its own.
        let next = self.next_block(from.saturating_sub(LENGTH_BYTES - 1))?;
        let end = next.unwrap_or(self.len);
        let (bytes, name) = (end.saturating_sub(from), self.name.display());
        if bytes == 0 {
            return Ok(end);
        }
        self.damaged_bytes += bytes;
        if next.is_some() {
            log::error!(
                "{name}: {bytes} bytes from offset {from} are a torn block and cannot be imported; the blocks behind \
                 them are"
            );
        } else if self.is_zeros(from)? {
            log::warn!("{name}: the last {bytes} bytes, from offset {from}, are zeros: nothing was ever written there");
        } else {
            log::error!("{name}: the last {bytes} bytes, from offset {from}, are a torn block and cannot be imported");
        }
        Ok(end)
    }

    /// The first block that begins at `from` or behind it.
    fn next_block(&self, from: u64) -> io::Result<Option<u64>> {
        let search = memchr::memmem::Finder::new(GZIP_BEGINS);
        let mut buf = vec![0; CACHE_SEARCH_BYTES];
        let mut at = from;
        while at < self.len {
            let read = self.file.read_at(&mut buf, at)?;
            for found in search.find_iter(&buf[..read]) {
                if let Some(begin) = self.block_around(from, at + found as u64)? {
                    return Ok(Some(begin));
                }
            }
            if read < GZIP_BEGINS.len() {
                break;
            }
            // What begins at the end of this part is found in the next one.
            at += (read - GZIP_BEGINS.len() + 1) as u64;
        }
        Ok(None)
    }

    /// The block whose gzip stream begins behind the blank at `blank`.
    fn block_around(&self, from: u64, blank: u64) -> io::Result<Option<u64>> {
        let first = from.max(blank.saturating_sub(CACHE_NAMES_BYTES_MAX as u64 + LENGTH_BYTES));
        let mut before = vec![0; (blank - first) as usize];
        let read = self.file.read_at(&mut before, first)?;
        before.truncate(read);
        let mut blanks = 0;
        for (index, byte) in before.iter().enumerate().rev() {
            blanks += usize::from(*byte == b' ');
            if blanks > 1 || !(*byte == b' ' || is_escaped(*byte)) {
                break;
            }
            let Some(begin) = (first + index as u64).checked_sub(LENGTH_BYTES).filter(|&begin| begin >= from) else {
                break;
            };
            let leads_there = self.end_of(begin)?.is_some_and(|end| end > blank);
            if leads_there && self.block_at(begin)?.is_some() {
                return Ok(Some(begin));
            }
        }
        Ok(None)
    }

    fn is_zeros(&self, from: u64) -> io::Result<bool> {
        let mut rest = BufReader::new(Span { file: self.file.clone(), at: from, end: self.len });
        loop {
            let part = io::BufRead::fill_buf(&mut rest)?;
            if part.is_empty() {
                return Ok(true);
            }
            if part.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            let len = part.len();
            io::BufRead::consume(&mut rest, len);
        }
    }
}

impl OpenBlock {
    /// Inflates until there are as many bytes as a piece may have, or the end.
    fn fill(&mut self) -> io::Result<()> {
        let wanted = CACHE_PIECE_BYTES_MAX.saturating_sub(self.rest.len());
        let read = (&mut self.gzip).take(wanted as u64).read_to_end(&mut self.rest)?;
        self.ended = read < wanted;
        Ok(())
    }

    /// Whole lines; the last one may lack its end.
    fn next_lines(&mut self) -> io::Result<Option<Vec<u8>>> {
        if !self.ended {
            self.fill()?;
        }
        let end = match memchr::memrchr(b'\n', &self.rest) {
            Some(at) if !self.ended => at + 1,
            // A line that is as long as a piece is no line of InfluxDB's.
            _ => self.rest.len(),
        };
        let rest = self.rest.split_off(end);
        let lines = std::mem::replace(&mut self.rest, rest);
        Ok((!lines.is_empty()).then_some(lines))
    }
}

/// Database, policy, and how many bytes they take with their blanks.
fn names(head: &[u8]) -> Option<(Vec<u8>, Vec<u8>, usize)> {
    let (db, rest) = split_blank(head)?;
    let (rp, rest) = if rest.starts_with(GZIP) { (&b""[..], rest) } else { split_blank(rest)? };
    let are_names = !db.is_empty() && rest.starts_with(GZIP) && db.iter().chain(rp).all(|byte| is_escaped(*byte));
    let unescaped = |name| Some(query::unescape(name)?.into_owned());
    are_names.then_some((unescaped(db)?, unescaped(rp)?, head.len() - rest.len()))
}

fn split_blank(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// A byte of a query-escaped name.
fn is_escaped(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'%' | b'+')
}

/// None when what was read is no gzip stream, or a damaged one.
fn or_damage<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

//! Reads influx-proxy's cache files, once, when fluxgate replaces it.
//!
//! ```text
//!   <backend>.dat   | length, 4 bytes big-endian | block | length | block ...
//!   block           "<db> <gzip>" (2.4)  or  "<db> <rp> <gzip>" (2.5); db and rp query-escaped
//!   <backend>.rec   offset of the next unread byte, 8 bytes big-endian
//! ```
//!
//! Timestamps are nanoseconds. influx-proxy never gets past a torn last block; here all complete blocks are taken and
//! the torn one is logged. Reads block, at start only.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::bufread::MultiGzDecoder;

use crate::http::query;
use crate::limits::CACHE_BLOCK_BYTES_MAX;

/// The cache file of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheFile {
    pub backend: String,
    pub data: PathBuf,
    record: PathBuf,
}

/// One batch that influx-proxy could not deliver.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    pub db: Vec<u8>,
    /// Empty = the default policy.
    pub rp: Vec<u8>,
    pub lines: Vec<u8>,
}

/// Reads the blocks that influx-proxy has not delivered.
pub struct Blocks<'a> {
    file: &'a CacheFile,
    data: BufReader<File>,
    at: u64,
    len: u64,
}

/// The cache files in a data directory that are not empty.
pub fn find(data_dir: &Path) -> Vec<CacheFile> {
    let Ok(entries) = std::fs::read_dir(data_dir) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|entry| {
            let data = entry.ok()?.path();
            let backend = data.file_name()?.to_str()?.strip_suffix(".dat")?.to_owned();
            let held = data.metadata().ok()?.len() > 0;
            held.then(|| CacheFile { backend, record: data.with_extension("rec"), data })
        })
        .collect();
    files.sort_by(|a, b| a.backend.cmp(&b.backend));
    files
}

/// The timestamp for lines without one: when the file was last written, which is closer to the truth than now.
pub fn stamp(file: &CacheFile) -> Vec<u8> {
    let modified = file.data.metadata().and_then(|m| m.modified()).ok();
    let nanos = modified.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
    nanos.to_string().into_bytes()
}

/// Opens the file behind the blocks that have been delivered.
///
/// # Errors
/// When the file cannot be read.
pub fn blocks(file: &CacheFile) -> io::Result<Blocks<'_>> {
    let mut data = File::open(&file.data)?;
    let len = data.metadata()?.len();
    let record = std::fs::read(&file.record).unwrap_or_default();
    let at = record.try_into().map_or(0, u64::from_be_bytes).min(len);
    data.seek(SeekFrom::Start(at))?;
    Ok(Blocks { file, data: BufReader::new(data), at, len })
}

impl Blocks<'_> {
    /// The next complete block. None: the end, or nothing more can be read (which is logged).
    ///
    /// # Errors
    /// When the file cannot be read. A torn last block is not an error.
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        let mut length = [0; 4];
        if self.at == self.len {
            return Ok(None);
        }
        let torn = |at: u64| {
            let (left, file) = (self.len - at, self.file.data.display());
            log::error!("{file}: the last {left} bytes, from offset {at}, are a torn block and cannot be imported");
            Ok(None)
        };
        let at = self.at;
        match self.data.read_exact(&mut length) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return torn(at),
            other => other?,
        }
        let length = u64::from(u32::from_be_bytes(length));
        if length > CACHE_BLOCK_BYTES_MAX || at + 4 + length > self.len {
            return torn(at);
        }
        let mut bytes = vec![0; length as usize];
        self.data.read_exact(&mut bytes)?;
        self.at = at + 4 + length;
        match parse(&bytes) {
            Some(block) => Ok(Some(block)),
            None => {
                log::error!("{}: the block at offset {at} cannot be read and is skipped", self.file.data.display());
                Ok(Some(Block { db: Vec::new(), rp: Vec::new(), lines: Vec::new() }))
            }
        }
    }

    /// Renames the files after everything has been taken over, so that they are not read again.
    ///
    /// # Errors
    /// When a rename fails.
    pub fn finish(self) -> io::Result<()> {
        let imported =
            |path: &Path| path.with_extension(format!("{}.imported", path.extension().unwrap_or_default().display()));
        std::fs::rename(&self.file.data, imported(&self.file.data))?;
        match std::fs::rename(&self.file.record, imported(&self.file.record)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// `<db> <gzip>` or `<db> <rp> <gzip>`. Escaped names contain no blank, and a gzip stream begins with 1f 8b.
fn parse(bytes: &[u8]) -> Option<Block> {
    let (db, rest) = split_blank(bytes)?;
    let (rp, gzip) = if rest.starts_with(b"\x1f\x8b") { (&b""[..], rest) } else { split_blank(rest)? };
    let mut lines = Vec::new();
    MultiGzDecoder::new(gzip).take(CACHE_BLOCK_BYTES_MAX).read_to_end(&mut lines).ok()?;
    Some(Block { db: query::unescape(db)?.into_owned(), rp: query::unescape(rp)?.into_owned(), lines })
}

fn split_blank(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn block(names: &str, lines: &str) -> Vec<u8> {
        let mut bytes = format!("{names} ").into_bytes();
        let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
        gzip.write_all(lines.as_bytes()).unwrap();
        gzip.finish().unwrap();
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
    }

    fn read_all(dir: &Path) -> (Vec<Block>, CacheFile) {
        let file = find(dir).pop().unwrap();
        let mut blocks = blocks(&file).unwrap();
        let all = std::iter::from_fn(|| blocks.next_block().unwrap()).collect();
        blocks.finish().unwrap();
        (all, file)
    }

    #[test]
    fn both_generations_are_read_from_where_influx_proxy_had_come() {
        let dir = tempfile::tempdir().unwrap();
        let delivered = block("old", "gone v=1 1\n");
        let bytes = [delivered.clone(), block("a+b%2Fc", "m v=1 1\n"), block("db rp%201", "m v=2 2\n")].concat();
        std::fs::write(dir.path().join("b.dat"), bytes).unwrap();
        std::fs::write(dir.path().join("b.rec"), (delivered.len() as u64).to_be_bytes()).unwrap();
        let (all, file) = read_all(dir.path());
        assert_eq!(file.backend, "b");
        let want = [("a b/c", "", "m v=1 1\n"), ("db", "rp 1", "m v=2 2\n")];
        let want = want.map(|(db, rp, lines)| Block { db: db.into(), rp: rp.into(), lines: lines.into() });
        assert_eq!(all, want);
        assert_eq!(find(dir.path()), [], "imported once");
    }

    #[test]
    fn whole_blocks_before_a_torn_one_are_read() {
        let whole = block("db", "m v=1 1\n");
        let torn = block("db", "m v=2 2\n");
        for cut in 1..torn.len() {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("b.dat"), [&whole[..], &torn[..cut]].concat()).unwrap();
            assert_eq!(read_all(dir.path()).0.len(), 1, "cut at {cut}");
        }
    }
}

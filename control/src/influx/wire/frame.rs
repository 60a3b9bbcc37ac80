//! Finds the ends of the documents of a chunked answer: in JSON a line end, in msgpack the structure itself.

use std::io::{self, BufRead, ErrorKind, Read};

/// The next line, of at most `bytes_max`; None at the end.
///
/// # Errors
/// Read errors; also a line that is cut or too long.
pub fn line(reader: &mut impl BufRead, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.by_ref().take(bytes_max).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => Err(cut()),
    }
}

/// The next msgpack value, unchanged, of at most `bytes_max`; None at the end.
///
/// # Errors
/// Read errors; also a value that is cut, too long or malformed.
pub fn msgpack(reader: &mut impl BufRead, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    if reader.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut reader = reader.take(bytes_max);
    let mut document = Vec::new();
    // Values still to be read.
    let mut left: u64 = 1;
    while left > 0 {
        left -= 1;
        let tag = u8::try_from(number(&mut reader, &mut document, 1)?).expect("one byte");
        let payload = match tag {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
            0x80..=0x8f => {
                left += 2 * u64::from(tag & 0x0f);
                0
            }
            0x90..=0x9f => {
                left += u64::from(tag & 0x0f);
                0
            }
            0xa0..=0xbf => u64::from(tag & 0x1f),
            0xc4..=0xc6 => number(&mut reader, &mut document, 1 << (tag - 0xc4))?,
            0xc7..=0xc9 => number(&mut reader, &mut document, 1 << (tag - 0xc7))? + 1,
            0xca => 4,
            0xcb => 8,
            0xcc..=0xcf => 1 << (tag - 0xcc),
            0xd0..=0xd3 => 1 << (tag - 0xd0),
            0xd4..=0xd8 => 1 + (1 << (tag - 0xd4)),
            0xd9..=0xdb => number(&mut reader, &mut document, 1 << (tag - 0xd9))?,
            0xdc | 0xdd => {
                left += number(&mut reader, &mut document, 2 << (tag - 0xdc))?;
                0
            }
            0xde | 0xdf => {
                left += 2 * number(&mut reader, &mut document, 2 << (tag - 0xde))?;
                0
            }
            0xc1 => return Err(io::Error::new(ErrorKind::InvalidData, "its answer is not msgpack")),
        };
        take(&mut reader, &mut document, payload)?;
    }
    Ok(Some(document))
}

/// A big-endian number of `bytes` bytes, at most 8.
fn number(reader: &mut impl Read, document: &mut Vec<u8>, bytes: u64) -> io::Result<u64> {
    let start = document.len();
    take(reader, document, bytes)?;
    Ok(document[start..].iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn take(reader: &mut impl Read, document: &mut Vec<u8>, bytes: u64) -> io::Result<()> {
    let read = reader.take(bytes).read_to_end(document)?;
    if read as u64 == bytes { Ok(()) } else { Err(cut()) }
}

fn cut() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "its answer is cut")
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    /// {"a": [nil, 1.0, "x" * 40, -1, ext 5], "b": {}}, followed by a number.
    fn two() -> (Vec<u8>, usize) {
        let mut bytes = vec![0x82, 0xa1, b'a', 0xdc, 0, 5, 0xc0, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xd9, 40];
        bytes.extend([b'x'; 40]);
        bytes.extend([0xff, 0xc7, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa1, b'b', 0x80]);
        let first = bytes.len();
        bytes.extend([0xcd, 1, 2]);
        (bytes, first)
    }

    #[test]
    fn msgpack_documents_are_split_at_their_ends() {
        let (bytes, first) = two();
        let mut reader = BufReader::with_capacity(3, &bytes[..]);
        assert_eq!(msgpack(&mut reader, 100).unwrap().unwrap(), bytes[..first]);
        assert_eq!(msgpack(&mut reader, 100).unwrap().unwrap(), bytes[first..]);
        assert_eq!(msgpack(&mut reader, 100).unwrap(), None);
    }

    #[test]
    fn a_cut_document_is_an_error() {
        let (bytes, first) = two();
        for end in 1..first {
            assert!(msgpack(&mut &bytes[..end], 100).is_err(), "{end}");
        }
        assert!(msgpack(&mut &[0xc1][..], 100).is_err());
        let mut lines = &b"{}\n{"[..];
        assert_eq!(line(&mut lines, 100).unwrap().unwrap(), b"{}\n");
        assert!(line(&mut lines, 100).is_err());
        assert_eq!(line(&mut lines, 100).unwrap(), None);
    }
}

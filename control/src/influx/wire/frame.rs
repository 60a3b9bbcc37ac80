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
    let mut document = Vec::new();
    let mut scan = MsgpackScan::default();
    while !scan.is_over() {
        let there = match reader.fill_buf() {
            Ok([]) if document.is_empty() => return Ok(None),
            Ok([]) => return Err(cut()),
            Ok(there) => there,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let taken = scan.take(there)?;
        if (document.len() + taken) as u64 > bytes_max {
            return Err(cut());
        }
        document.extend_from_slice(&there[..taken]);
        reader.consume(taken);
    }
    Ok(Some(document))
}

/// Finds the end of one value in bytes that come piece by piece.
struct MsgpackScan {
    /// Values still to be read.
    left: u64,
    /// Bytes of the present value still to be passed over.
    payload: u64,
    /// A length that is being read.
    length: Option<MsgpackLength>,
}

struct MsgpackLength {
    of: LengthOf,
    bytes_left: u8,
    so_far: u64,
}

#[derive(Clone, Copy)]
enum LengthOf {
    Bytes,
    /// One byte of its type comes before the payload.
    Extension,
    Values,
    Pairs,
}

impl Default for MsgpackScan {
    fn default() -> Self {
        Self { left: 1, payload: 0, length: None }
    }
}

impl MsgpackScan {
    fn is_over(&self) -> bool {
        self.left == 0 && self.payload == 0 && self.length.is_none()
    }

    /// How many of these bytes belong to the value.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() && !self.is_over() {
            if self.payload > 0 {
                let passed = self.payload.min((bytes.len() - at) as u64);
                self.payload -= passed;
                at += passed as usize;
            } else {
                self.byte(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Takes a byte of a length, or the first byte of a value.
    fn byte(&mut self, byte: u8) -> io::Result<()> {
        if let Some(length) = &mut self.length {
            length.so_far = length.so_far << 8 | u64::from(byte);
            length.bytes_left -= 1;
            if length.bytes_left == 0 {
                match length.of {
                    LengthOf::Bytes => self.payload = length.so_far,
                    LengthOf::Extension => self.payload = length.so_far + 1,
                    LengthOf::Values => self.left += length.so_far,
                    LengthOf::Pairs => self.left += 2 * length.so_far,
                }
                self.length = None;
            }
            return Ok(());
        }
        self.left -= 1;
        let mut length = |of, bytes_left| self.length = Some(MsgpackLength { of, bytes_left, so_far: 0 });
        match byte {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => {}
            0x80..=0x8f => self.left += 2 * u64::from(byte & 0x0f),
            0x90..=0x9f => self.left += u64::from(byte & 0x0f),
            0xa0..=0xbf => self.payload = u64::from(byte & 0x1f),
            0xc4..=0xc6 => length(LengthOf::Bytes, 1 << (byte - 0xc4)),
            0xc7..=0xc9 => length(LengthOf::Extension, 1 << (byte - 0xc7)),
            0xca => self.payload = 4,
            0xcb => self.payload = 8,
            0xcc..=0xcf => self.payload = 1 << (byte - 0xcc),
            0xd0..=0xd3 => self.payload = 1 << (byte - 0xd0),
            0xd4..=0xd8 => self.payload = 1 + (1 << (byte - 0xd4)),
            0xd9..=0xdb => length(LengthOf::Bytes, 1 << (byte - 0xd9)),
            0xdc | 0xdd => length(LengthOf::Values, 2 << (byte - 0xdc)),
            0xde | 0xdf => length(LengthOf::Pairs, 2 << (byte - 0xde)),
            0xc1 => return Err(io::Error::new(ErrorKind::InvalidData, "its answer is not msgpack")),
        }
        Ok(())
    }
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
        bytes.extend([0xff, 0xc7, 12, 5]);
        bytes.extend([0; 12]);
        bytes.extend([0xa1, b'b', 0xdf, 0, 0, 0, 0]);
        let first = bytes.len();
        bytes.extend([0xcd, 1, 2]);
        (bytes, first)
    }

    #[test]
    fn msgpack_documents_are_split_at_their_ends() {
        let (bytes, first) = two();
        for capacity in 1..=bytes.len() {
            let mut reader = BufReader::with_capacity(capacity, &bytes[..]);
            assert_eq!(msgpack(&mut reader, 100).unwrap().unwrap(), bytes[..first]);
            assert_eq!(msgpack(&mut reader, 100).unwrap().unwrap(), bytes[first..]);
            assert_eq!(msgpack(&mut reader, 100).unwrap(), None);
        }
        assert!(msgpack(&mut &bytes[..], first as u64 - 1).is_err(), "too long");
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

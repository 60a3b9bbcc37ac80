//! The chunked transfer coding (RFC 9112 section 7.1), decoded in place.
//!
//! ```text
//!   before   | 5 CRLF | hello | CRLF 3 CRLF | abc | CRLF 0 CRLF CRLF | next request
//!   after    | helloabc |  (left over)                               | next request
//!                       ^ data_len                                   ^ consumed
//! ```
//!
//! [`Decoder::decode`] consumes all bytes it gets, up to the end of the body. A size line that arrives in two pieces is
//! kept as a state, not as bytes. The decoder is strict where servers could disagree: sizes are hexadecimal digits
//! only, lines end in CR LF only, data is followed by CR LF. Extensions and trailers are skipped, and limited together
//! by `CHUNK_EXTRAS_BYTES_MAX`. Not here: the limit of the body, which the caller checks with `data_len`.

use crate::limits::CHUNK_EXTRAS_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// In a size; `digits` of it have been read.
    Size {
        digits: u8,
    },
    Extension,
    /// After the CR of a size line.
    SizeLf,
    Data,
    /// After the data: its CR, its LF.
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// After the CR of the empty line.
    EndLf,
    Done,
}

/// An error of the client that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// No hexadecimal digits, or more than 64 bits of them.
    Size,
    /// CR LF is missing, incomplete or in the wrong place.
    LineEnd,
    /// More extensions and trailers than allowed.
    ExtrasTooLong,
}

impl ChunkError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Size => "invalid chunk size",
            Self::LineEnd => "malformed chunked encoding",
            Self::ExtrasTooLong => "chunk extensions or trailers too large",
        }
    }
}

/// The result of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the buffer that belonged to the body: all of them unless `done`.
    pub consumed: usize,
    /// Bytes of data, now at the front of the buffer.
    pub data_len: usize,
    /// The last chunk and the trailers have been read.
    pub done: bool,
}

/// State of one body.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    state: ChunkState,
    /// The size being read, later the bytes left of the chunk.
    left: u64,
    extras: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self { state: ChunkState::Size { digits: 0 }, left: 0, extras: 0 }
    }

    /// Decodes the bytes that have arrived and moves the data to the front of `buf`. After an error `buf` and decoder
    /// are unusable.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, ChunkError> {
        let (mut at, mut data_len) = (0, 0);
        while at < buf.len() && self.state != ChunkState::Done {
            if self.state == ChunkState::Data {
                let take = (buf.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                buf.copy_within(at..at + take, data_len);
                data_len += take;
                at += take;
                self.left -= take as u64;
                if self.left == 0 {
                    self.state = ChunkState::DataCr;
                }
            } else {
                self.state = self.step(buf[at])?;
                at += 1;
            }
        }
        Ok(Decoded { consumed: at, data_len, done: self.state == ChunkState::Done })
    }

    /// True once the whole body has been read. A connection that ends before has cut the body.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    /// One byte that is not data.
    fn step(&mut self, byte: u8) -> Result<ChunkState, ChunkError> {
        match (self.state, byte) {
            (ChunkState::Size { digits }, _) => {
                if let Some(digit) = (byte as char).to_digit(16) {
                    // 16 digits are 64 bits; leading zeros count.
                    if digits == 16 {
                        return Err(ChunkError::Size);
                    }
                    self.left = self.left << 4 | u64::from(digit);
                    return Ok(ChunkState::Size { digits: digits + 1 });
                }
                match byte {
                    _ if digits == 0 => Err(ChunkError::Size),
                    b';' => self.extra(ChunkState::Extension),
                    b'\r' => Ok(ChunkState::SizeLf),
                    _ => Err(ChunkError::Size),
                }
            }
            (ChunkState::Extension, b'\r') => Ok(ChunkState::SizeLf),
            (ChunkState::Extension, byte) if is_text(byte) => self.extra(ChunkState::Extension),
            (ChunkState::SizeLf, b'\n') if self.left == 0 => Ok(ChunkState::TrailerStart),
            (ChunkState::SizeLf, b'\n') => Ok(ChunkState::Data),
            (ChunkState::DataCr, b'\r') => Ok(ChunkState::DataLf),
            (ChunkState::DataLf, b'\n') => Ok(ChunkState::Size { digits: 0 }),
            (ChunkState::TrailerStart, b'\r') => Ok(ChunkState::EndLf),
            (ChunkState::Trailer, b'\r') => self.extra(ChunkState::TrailerLf),
            (ChunkState::TrailerStart | ChunkState::Trailer, byte) if is_text(byte) => self.extra(ChunkState::Trailer),
            (ChunkState::TrailerLf, b'\n') => self.extra(ChunkState::TrailerStart),
            (ChunkState::EndLf, b'\n') => Ok(ChunkState::Done),
            _ => Err(ChunkError::LineEnd),
        }
    }

    fn extra(&mut self, next: ChunkState) -> Result<ChunkState, ChunkError> {
        self.extras += 1;
        if self.extras > CHUNK_EXTRAS_BYTES_MAX { Err(ChunkError::ExtrasTooLong) } else { Ok(next) }
    }
}

/// Valid in an extension or trailer: no control byte except tab, so neither CR, LF nor NUL.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(body: &[u8]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
        let mut buf = body.to_vec();
        let decoded = Decoder::new().decode(&mut buf)?;
        Ok((buf[..decoded.data_len].to_vec(), decoded.consumed, decoded.done))
    }

    #[test]
    fn data_moves_to_the_front_and_the_next_request_stays() {
        let mut buf = b"5\r\nhello\r\n3\r\nabc\r\n0\r\n\r\nPOST /".to_vec();
        let decoded = Decoder::new().decode(&mut buf).unwrap();
        assert_eq!(decoded, Decoded { consumed: 23, data_len: 8, done: true });
        assert_eq!(&buf[..8], b"helloabc");
        assert_eq!(&buf[23..], b"POST /");
    }

    #[test]
    fn good_bodies_are_read() {
        for (body, data) in [
            (&b"0\r\n\r\n"[..], &b""[..]),
            (b"000\r\n\r\n", b""),
            (b"0000000000000001\r\nx\r\n0\r\n\r\n", b"x"),
            (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
            (b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
            (b"2;name=value;x=\"y\"\r\nab\r\n0;last\r\n\r\n", b"ab"),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
            (b"1\r\nx\r\n0\r\nTrailer: one\r\nOther: two\r\n\r\n", b"x"),
        ] {
            assert_eq!(whole(body), Ok((data.to_vec(), body.len(), true)), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn shapes_on_which_servers_disagree_are_refused() {
        for (body, error) in [
            (&b"\r\n"[..], ChunkError::Size),
            (b"x\r\n", ChunkError::Size),
            (b" 5\r\nhello\r\n", ChunkError::Size),
            (b"5 \r\nhello\r\n", ChunkError::Size),
            (b"+5\r\nhello\r\n", ChunkError::Size),
            (b"-5\r\nhello\r\n", ChunkError::Size),
            (b"0x5\r\nhello\r\n", ChunkError::Size),
            (b"5_\r\nhello\r\n", ChunkError::Size),
            (b"10000000000000000\r\n", ChunkError::Size),
            (b"00000000000000001\r\n", ChunkError::Size),
            (b";ext\r\n", ChunkError::Size),
            (b"5\nhello\r\n", ChunkError::Size),
            (b"5\rhello\r\n", ChunkError::LineEnd),
            (b"5\r\nhelloX\r\n", ChunkError::LineEnd),
            (b"5\r\nhello\n0\r\n\r\n", ChunkError::LineEnd),
            (b"5;a\nhello\r\n", ChunkError::LineEnd),
            (b"5;a\0\r\nhello\r\n", ChunkError::LineEnd),
            (b"5;a\rb\r\nhello\r\n", ChunkError::LineEnd),
            (b"0\r\n\n", ChunkError::LineEnd),
            (b"0\r\nA: b\nC: d\r\n\r\n", ChunkError::LineEnd),
            (b"0\r\nA: \0\r\n\r\n", ChunkError::LineEnd),
        ] {
            assert_eq!(whole(body), Err(error), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded_over_the_whole_body() {
        let chunk = |extension: usize| format!("1;{}\r\nx\r\n", "e".repeat(extension));
        let many = chunk(999).repeat(CHUNK_EXTRAS_BYTES_MAX / 1000);
        assert!(whole(many.as_bytes()).is_ok());
        assert_eq!(whole((many + &chunk(999)).as_bytes()), Err(ChunkError::ExtrasTooLong));
        let trailers = format!("0\r\n{}", "A: b\r\n".repeat(CHUNK_EXTRAS_BYTES_MAX / 6 + 1));
        assert_eq!(whole(trailers.as_bytes()), Err(ChunkError::ExtrasTooLong));
    }

    #[test]
    fn a_cut_body_is_never_done() {
        let body = b"5;x\r\nhello\r\n0\r\nT: v\r\n\r\n";
        for cut in 0..body.len() {
            assert!(!whole(&body[..cut]).unwrap().2, "cut at {cut}");
        }
    }

    #[test]
    fn every_split_gives_what_the_whole_gives() {
        for body in
            [&b"5;x=y\r\nhello\r\nb\r\n, wonderful \r\n0\r\nT: v\r\n\r\nGET"[..], b"5\r\nhello\r\nx", b"2\r\nab\n"]
        {
            for first in 0..=body.len() {
                for second in first..=body.len() {
                    assert_eq!(crate::http::fuzz::dechunk(body, &[first, second]), whole(body), "at {first}, {second}");
                }
            }
        }
    }
}

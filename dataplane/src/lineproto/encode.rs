//! A valid line in the form that is sent to backends: the same bytes, a timestamp if it had none, and an LF.
//!
//! A missing timestamp goes directly after the fields, not to the end of the line. The bytes after the fields are blank
//! or ignored by InfluxDB, and are left out. The scanner has checked that the result is a line of its own among others.

use super::Line;

impl Line {
    /// The bytes of the line itself that are sent.
    #[inline]
    pub(super) fn kept<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        let end = if self.has_timestamp { self.end } else { self.fields_end };
        &body[self.start as usize..end as usize]
    }

    /// Bytes that [`encode`](Self::encode) writes, for a timestamp text of `timestamp_bytes`.
    #[inline]
    pub fn encoded_len(&self, timestamp_bytes: usize) -> usize {
        if self.has_timestamp {
            (self.end - self.start) as usize + 1
        } else {
            (self.fields_end - self.start) as usize + timestamp_bytes + 2
        }
    }

    /// Writes the line to the front of `out` and returns the number of bytes written. `timestamp` is the text, in the
    /// request's precision, for a line that has none.
    ///
    /// Panics if `out` is shorter than [`encoded_len`](Self::encoded_len), or `body` is not the one scanned.
    #[inline]
    pub fn encode(&self, body: &[u8], timestamp: &[u8], out: &mut [u8]) -> usize {
        let line = self.kept(body);
        let bytes = self.encoded_len(timestamp.len());
        let (head, tail) = out[..bytes].split_at_mut(line.len());
        head.copy_from_slice(line);
        if !self.has_timestamp {
            tail[0] = b' ';
            tail[1..=timestamp.len()].copy_from_slice(timestamp);
        }
        out[bytes - 1] = b'\n';
        bytes
    }
}

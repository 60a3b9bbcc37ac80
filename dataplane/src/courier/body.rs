//! A request's body with room in front for the head, so that both are sent in one write.
//!
//!   | room, BATCH_HEAD_BYTES ... head | lines |
//!                              ^ written when the length is known

use crate::limits::{BATCH_GROWTH_BYTES_MAX, BATCH_HEAD_BYTES, REQUEST_BYTES_MIN};

#[derive(Debug, Default)]
pub struct RequestBody {
    /// Empty, or the room followed by the lines.
    buf: Vec<u8>,
}

impl RequestBody {
    pub fn push(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.buf.extend_from_slice(bytes);
    }

    /// Makes room for `additional` bytes.
    pub fn reserve(&mut self, additional: usize) {
        if self.buf.is_empty() {
            self.buf.resize(BATCH_HEAD_BYTES, 0);
        }
        let needed = self.buf.len() + additional;
        if needed > self.buf.capacity() {
            let growth = self.buf.capacity().min(BATCH_GROWTH_BYTES_MAX).max(additional);
            self.buf.reserve_exact(growth);
        }
    }

    pub fn bytes(&self) -> &[u8] {
        self.buf.get(BATCH_HEAD_BYTES..).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Removes the content, keeps the memory.
    pub fn clear(&mut self) {
        self.buf.truncate(BATCH_HEAD_BYTES);
    }

    /// Removes the content; frees the memory unless it is small.
    pub fn release(&mut self) {
        self.clear();
        if self.capacity() > REQUEST_BYTES_MIN {
            *self = Self::default();
        }
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// The buffer, for writers that append to a `Vec`. Its content must stay.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        self.reserve(0);
        &mut self.buf
    }

    /// Head and body as one slice. None: the head does not fit in the room.
    pub fn framed(&mut self, head: &[u8]) -> Option<&[u8]> {
        self.reserve(0);
        let start = BATCH_HEAD_BYTES.checked_sub(head.len())?;
        self.buf[start..BATCH_HEAD_BYTES].copy_from_slice(head);
        Some(&self.buf[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_body_are_one_slice_as_long_as_the_head_fits() {
        let mut body = RequestBody::default();
        assert_eq!(body.framed(b"HEAD").unwrap(), b"HEAD");
        body.push(b"m v=1\n");
        assert_eq!(body.framed(b"POST").unwrap(), b"POSTm v=1\n");
        assert_eq!(body.framed(&[b'x'; BATCH_HEAD_BYTES]).unwrap().len(), BATCH_HEAD_BYTES + 6);
        assert!(body.framed(&[b'x'; BATCH_HEAD_BYTES + 1]).is_none());
        assert_eq!(body.bytes(), b"m v=1\n");
        body.clear();
        assert_eq!(body.len(), 0);
    }

    #[test]
    fn memory_stays_close_to_the_length() {
        let mut body = RequestBody::default();
        let line = [b'x'; 1000];
        for _ in 0..8192 {
            body.push(&line);
        }
        assert!(body.capacity() <= body.len() + BATCH_HEAD_BYTES + BATCH_GROWTH_BYTES_MAX);
        body.release();
        assert_eq!((body.len(), body.capacity()), (0, 0));
    }
}

//! The growing body of an answer: pieces of about `ANSWER_PIECE_BYTES`, compressed on the way if the client accepts
//! gzip.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};

use crate::limits::ANSWER_PIECE_BYTES;

pub(super) struct Pieces {
    done: Vec<Bytes>,
    /// The current piece. Call [`Self::settle`] after each row.
    pub(super) buf: Vec<u8>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces {
    pub(super) fn new(gzip: bool) -> Self {
        // The fastest level: even this costs nine times what writing JSON does (18.8 ms to 2.1 ms for 100,000 rows).
        let gzip = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Self { done: Vec::new(), buf: Vec::new(), gzip }
    }

    /// Ends the piece if it is long enough.
    #[inline]
    pub(super) fn settle(&mut self) {
        if self.buf.len() >= ANSWER_PIECE_BYTES {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        match &mut self.gzip {
            None => {
                // The next piece will be as long plus one row.
                let next = Vec::with_capacity(ANSWER_PIECE_BYTES + ANSWER_PIECE_BYTES / 16);
                self.done.push(std::mem::replace(&mut self.buf, next).into());
            }
            Some(gzip) => {
                gzip.write_all(&self.buf).expect("memory takes everything");
                self.buf.clear();
                if gzip.get_ref().len() >= ANSWER_PIECE_BYTES {
                    self.done.push(std::mem::take(gzip.get_mut()).into());
                }
            }
        }
    }

    /// All pieces, none of them empty.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if let Some(mut gzip) = self.gzip {
            gzip.write_all(&self.buf).expect("memory takes everything");
            self.buf = gzip.finish().expect("memory takes everything");
        }
        if !self.buf.is_empty() {
            self.done.push(self.buf.into());
        }
        self.done
    }
}

//! Reads a request body: by length or in chunks, plain or gzip, up to a size limit.

use std::io;

use crate::http::chunked::{ChunkError, Decoder};
use crate::http::gzip::{GzipError, Inflater};
use crate::http::head::BodyKind;
use crate::request::inbox::Inbox;

/// Why a body could not be read to its end. Nothing of it may be acknowledged.
#[derive(Debug)]
pub enum BodyError {
    /// More bytes than allowed: 413.
    TooLarge,
    Chunk(ChunkError),
    Gzip(GzipError),
    /// The client has gone, or ended before the announced length.
    Gone,
    /// No byte for `idle_timeout`, or too few for too long: 408.
    TimedOut,
}

impl From<io::Error> for BodyError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

#[derive(Debug)]
enum BodyFrame {
    /// Bytes still to come.
    Length(u64),
    /// The first `data` bytes of the inbox are decoded, followed by `gap` bytes of chunk framing to skip.
    Chunked { decoder: Decoder, data: usize, gap: usize },
}

/// Progress of one body. Reads exactly the bytes of the body; what follows stays in the inbox.
#[derive(Debug)]
pub struct Body {
    frame: BodyFrame,
    inflater: Option<Box<Inflater>>,
    bytes_left: u64,
}

impl Body {
    /// `bytes_max` bounds the decoded bytes (0 = no bound). `inflater` is for a gzip body, freshly reset.
    ///
    /// # Errors
    /// [`BodyError::TooLarge`] when the announced length exceeds `bytes_max`.
    pub fn new(kind: BodyKind, bytes_max: u64, inflater: Option<Box<Inflater>>) -> Result<Self, BodyError> {
        let bytes_left = if bytes_max == 0 { u64::MAX } else { bytes_max };
        let frame = match kind {
            BodyKind::None => BodyFrame::Length(0),
            BodyKind::Length(n) if n > bytes_left => return Err(BodyError::TooLarge),
            BodyKind::Length(n) => BodyFrame::Length(n),
            BodyKind::Chunked => BodyFrame::Chunked { decoder: Decoder::new(), data: 0, gap: 0 },
        };
        Ok(Self { frame, inflater, bytes_left })
    }

    /// The bytes still to come, if known.
    pub fn size_hint(&self) -> Option<u64> {
        match (&self.frame, &self.inflater) {
            (BodyFrame::Length(n), None) => Some(*n),
            _ => None,
        }
    }

    /// Length of a plain body that is completely in the inbox. The caller consumes it there.
    pub fn whole(&self, inbox: &Inbox) -> Option<usize> {
        let n = usize::try_from(self.size_hint()?).ok()?;
        (n <= inbox.bytes().len()).then_some(n)
    }

    /// To be called after the caller has consumed what [`Body::whole`] returned.
    pub fn taken_whole(&mut self) {
        self.frame = BodyFrame::Length(0);
    }

    /// A plain body has been read to its end.
    pub fn exhausted(&self) -> bool {
        self.size_hint() == Some(0)
    }

    /// Reads the next bytes of the body into `out` (not empty). 0: the body is complete and valid.
    ///
    /// # Errors
    /// See [`BodyError`]; the connection cannot be used any more.
    pub async fn read(&mut self, inbox: &mut Inbox, out: &mut [u8]) -> Result<usize, BodyError> {
        if self.inflater.is_some() {
            return self.read_inflated(inbox, out).await;
        }
        if let BodyFrame::Length(left @ 1..) = &mut self.frame
            && inbox.bytes().is_empty()
        {
            let room = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
            let n = inbox.read_past(&mut out[..room]).await?;
            *left -= n as u64;
            return if n == 0 { Err(ended(inbox)) } else { Ok(n) };
        }
        let available = self.payload(inbox).await?;
        let n = available.min(out.len());
        out[..n].copy_from_slice(&inbox.bytes()[..n]);
        self.advance(inbox, n);
        self.bytes_left = self.bytes_left.checked_sub(n as u64).ok_or(BodyError::TooLarge)?;
        Ok(n)
    }

    async fn read_inflated(&mut self, inbox: &mut Inbox, out: &mut [u8]) -> Result<usize, BodyError> {
        loop {
            let available = self.payload(inbox).await?;
            let inflater = self.inflater.as_mut().expect("the caller has looked");
            let step = inflater.inflate(&inbox.bytes()[..available], out).map_err(BodyError::Gzip)?;
            self.advance(inbox, step.consumed);
            if step.produced > 0 {
                return Ok(step.produced);
            }
            if available == 0 {
                let inflater = self.inflater.as_mut().expect("as above");
                return inflater.finish().map(|()| 0).map_err(BodyError::Gzip);
            }
        }
    }

    /// Waits for payload bytes at the front of the inbox and returns their number. 0: the end of the body.
    async fn payload(&mut self, inbox: &mut Inbox) -> Result<usize, BodyError> {
        loop {
            match &mut self.frame {
                BodyFrame::Length(0) => return Ok(0),
                BodyFrame::Length(left) => {
                    let here = inbox.bytes().len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if here > 0 {
                        return Ok(here);
                    }
                }
                BodyFrame::Chunked { decoder, data, gap } => {
                    if *data > 0 {
                        return Ok(*data);
                    }
                    inbox.consume(std::mem::take(gap));
                    if decoder.is_done() {
                        return Ok(0);
                    }
                    if !inbox.bytes().is_empty() {
                        let decoded = decoder.decode(inbox.bytes_mut()).map_err(BodyError::Chunk)?;
                        *data = decoded.data_len;
                        *gap = decoded.consumed - decoded.data_len;
                        continue;
                    }
                }
            }
            if inbox.fill().await? == 0 {
                return Err(ended(inbox));
            }
        }
    }

    fn advance(&mut self, inbox: &mut Inbox, n: usize) {
        inbox.consume(n);
        match &mut self.frame {
            BodyFrame::Length(left) => *left -= n as u64,
            BodyFrame::Chunked { data, .. } => *data -= n,
        }
    }

    /// Reads and discards the rest if it is at most `bytes_max`. False: more is left, so close the connection.
    pub async fn discard(&mut self, inbox: &mut Inbox, bytes_max: usize) -> bool {
        self.inflater = None;
        let mut left = bytes_max;
        loop {
            match self.payload(inbox).await {
                Ok(0) => return true,
                Ok(n) if n <= left => {
                    left -= n;
                    self.advance(inbox, n);
                }
                _ => return false,
            }
        }
    }

    /// Returns the inflater for reuse.
    pub fn into_inflater(self) -> Option<Box<Inflater>> {
        self.inflater
    }
}

fn ended(inbox: &Inbox) -> BodyError {
    if inbox.timed_out() { BodyError::TimedOut } else { BodyError::Gone }
}

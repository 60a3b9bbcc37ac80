//! Reads a body that must be kept as a whole: of an admin request, or the form of a query.

use std::rc::Rc;
use std::time::Duration;

use crate::io;
use crate::limits::{POOL_BUFFER_BYTES_MIN, WHOLE_BODY_GROWTH_BYTES_MAX};
use crate::request::body::Body;
use crate::request::inbox::Inbox;
use crate::request::pool::{Pool, Reserved};
use crate::request::reject::Reject;

/// A body and its part of the worker's memory for bodies. Keep it as long as anything made of the bytes.
#[derive(Default)]
pub struct WholeBody {
    pub bytes: Vec<u8>,
    /// None: the body was complete in the connection's own buffer.
    reserved: Option<Reserved>,
}

impl WholeBody {
    /// Reserves `bytes` more for what is made of the body. Waits up to `patience`, unless the body has memory already.
    ///
    /// # Errors
    /// [`Reject::Busy`] when there is no memory.
    pub async fn extend(&mut self, pool: &Rc<Pool>, patience: Duration, bytes: usize) -> Result<(), Reject> {
        match &mut self.reserved {
            // No wait: two bodies that wait with memory in their hands would wait for each other.
            Some(reserved) => reserved.grow(bytes).then_some(()).ok_or(Reject::Busy)?,
            None => {
                let waiting = pool.reserve_waiting(bytes);
                self.reserved = Some(io::timeout(patience, waiting).await.map_err(|_| Reject::Busy)?);
            }
        }
        Ok(())
    }
}

/// Reads `body` to its end. Waits up to `patience` for the first memory, which then grows with the bytes that have
/// arrived, whatever length was announced.
///
/// # Errors
/// When the body fails; [`Reject::Busy`] when there is no memory. The connection is unusable then.
pub async fn read(
    pool: &Rc<Pool>,
    patience: Duration,
    inbox: &mut Inbox,
    body: &mut Body,
) -> Result<WholeBody, Reject> {
    if let Some(len) = body.whole(inbox) {
        let bytes = inbox.bytes()[..len].to_vec();
        inbox.consume(len);
        body.taken_whole();
        return Ok(WholeBody { bytes, reserved: None });
    }
    let waiting = pool.reserve_waiting(POOL_BUFFER_BYTES_MIN);
    let mut reserved = io::timeout(patience, waiting).await.map_err(|_| Reject::Busy)?;
    let mut bytes = vec![0; POOL_BUFFER_BYTES_MIN];
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            let left = body.size_hint().map_or(filled, |left| usize::try_from(left).unwrap_or(usize::MAX).max(1));
            let more = left.min(WHOLE_BODY_GROWTH_BYTES_MAX);
            if !reserved.grow(more) {
                return Err(Reject::Busy);
            }
            bytes.reserve_exact(more);
            bytes.resize(filled + more, 0);
        }
        match body.read(inbox, &mut bytes[filled..]).await? {
            0 => break,
            n => filled += n,
        }
        io::yield_if_needed().await;
    }
    bytes.truncate(filled);
    Ok(WholeBody { bytes, reserved: Some(reserved) })
}

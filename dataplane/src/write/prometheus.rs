//! Prometheus' remote write: a snappy block with series becomes lines, which are taken like those of `/write`.
//!
//! ```text
//! body ─> snappy ─> survey: all of it is a message, and InfluxDB would take it ─> lines, in pieces ─> intake
//! ```
//!
//! Nothing is appended before all has been surveyed. The body, what is in it, and the lines in hand are a part of the
//! memory for bodies.
//!
//! Not here: what the messages are and which lines they become (`prometheus`).

use super::intake::Intake;
use crate::io;
use crate::limits::{PROMETHEUS_LINES_BYTES_MAX, PROMETHEUS_REQUEST_BYTES_MAX, SCAN_PIECE_BYTES};
use crate::prometheus::lines::{LINE_REST_BYTES, SeriesKey, Survey, is_point};
use crate::prometheus::{self, Labels, NOT_SNAPPY, Samples, WriteRequest};
use crate::request::body::{Body, BodyError};
use crate::request::inbox::Inbox;
use crate::request::reject::Reject;
use crate::request::whole::{self, WholeBody};
use crate::worker::Worker;

/// The most bytes that a request may have, as sent and also uncompressed. `bytes_max` is the configured bound; 0: none.
pub fn request_bytes_max(bytes_max: u64) -> u64 {
    let own = PROMETHEUS_REQUEST_BYTES_MAX as u64;
    if bytes_max == 0 { own } else { own.min(bytes_max) }
}

/// Appends the points of a request to the log.
///
/// # Errors
/// Why the request is refused. Nothing of it has been appended then, unless the log failed midway.
pub async fn take(worker: &Worker, intake: &mut Intake, inbox: &mut Inbox, body: &mut Body) -> Result<(), Reject> {
    let (pool, patience) = (&worker.pool, worker.settings.idle_timeout);
    let mut memory = whole::read(pool, patience, inbox, body).await?;
    let request = uncompress(worker, &mut memory).await?;
    let survey = survey(&request).await?;
    let piece_bytes = usize::try_from(survey.lines_bytes).map_or(SCAN_PIECE_BYTES, |all| all.min(SCAN_PIECE_BYTES));
    // The key of the series in hand is kept beside its lines.
    memory.extend(pool, patience, 2 * piece_bytes).await?;
    append(worker, intake, &request, piece_bytes).await
}

/// Replaces the block in `memory` by what it holds, which is returned.
async fn uncompress(worker: &Worker, memory: &mut WholeBody) -> Result<Vec<u8>, Reject> {
    let not_snappy = || Reject::Prometheus(NOT_SNAPPY.into());
    let block = std::mem::take(&mut memory.bytes);
    let length = prometheus::uncompressed_len(&block).ok_or_else(not_snappy)?;
    let max = request_bytes_max(worker.settings.max_body_bytes);
    // Before anything is allocated: a few bytes can claim to be gigabytes.
    if length as u64 > max || block.len() + length > PROMETHEUS_REQUEST_BYTES_MAX {
        return Err(BodyError::TooLarge.into());
    }
    memory.extend(&worker.pool, worker.settings.idle_timeout, length).await?;
    let mut request = vec![0; length];
    if !prometheus::uncompress(&block, &mut request) {
        return Err(not_snappy());
    }
    Ok(request)
}

async fn survey(request: &[u8]) -> Result<Survey, Reject> {
    let (mut labels, mut key, mut survey) = (Labels::default(), SeriesKey::default(), Survey::default());
    let mut all = WriteRequest::new(request);
    let refused = |error: &dyn std::fmt::Display| Reject::Prometheus(error.to_string());
    while let Some(series) = all.next_series().map_err(|error| refused(&error))? {
        survey.add(series, &mut labels, &mut key).map_err(|error| refused(&error))?;
        io::yield_if_needed().await;
    }
    match survey.unsupported {
        Some(unsupported) => Err(refused(&unsupported)),
        None if survey.lines_bytes > PROMETHEUS_LINES_BYTES_MAX => Err(BodyError::TooLarge.into()),
        None => Ok(survey),
    }
}

async fn append(worker: &Worker, intake: &mut Intake, request: &[u8], piece_bytes: usize) -> Result<(), Reject> {
    let mut piece = Vec::with_capacity(piece_bytes);
    let mut key = SeriesKey::default();
    let mut number = 0;
    let mut all = WriteRequest::new(request);
    while let Some(series) = all.next_series().expect("surveyed before") {
        let points = Samples::new(series).filter(is_point).count() as u64;
        if points == 0 {
            continue;
        }
        key_of(series, &mut key);
        if let Err(reason) = key.is_a_line() {
            intake.refusals.add_points(points, number + 1, key.as_bytes(), &reason);
        } else {
            for sample in Samples::new(series).filter(is_point) {
                if piece.len() + key.as_bytes().len() + LINE_REST_BYTES > piece_bytes {
                    intake.take(worker, &piece, false).await?;
                    piece.clear();
                    io::yield_if_needed().await;
                }
                key.push_line(sample, &mut piece);
            }
        }
        number += points;
        io::yield_if_needed().await;
    }
    intake.take(worker, &piece, true).await?;
    Ok(())
}

/// Not in [`append`], so that the labels are not kept while it waits.
fn key_of(series: &[u8], key: &mut SeriesKey) {
    let mut labels = Labels::default();
    prometheus::read_series(series, &mut labels, |_| ()).expect("surveyed before");
    key.set(&mut labels).expect("surveyed before");
}

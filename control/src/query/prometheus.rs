//! Prometheus' remote read of more than one measurement: each backend of a circle is asked as the client asked, and the
//! series come together in InfluxDB's order, by measurement.
//!
//! A backend may hold measurements that are read from another one, during and after a migration. It is told to leave
//! these out.

use std::collections::BTreeSet;

use bytes::Bytes;
use fluxgate_dataplane::handoff::QueryReply;
use fluxgate_dataplane::placement::Place;
use fluxgate_dataplane::prometheus::read::{self, ReadRequest};
use fluxgate_dataplane::prometheus::{compress, compressed_len_max, uncompress, uncompressed_len};
use fluxgate_dataplane::routing::reach::Reach;
use fluxgate_dataplane::topology::BackendId;

use super::context::{Context, Stop, Times};
use crate::influx::answer::{Answer, decoded};
use crate::influx::prometheus::{ReadFailure, ReadReply};

/// Answers `message`, a request that the worker has checked.
pub fn run(context: &Context<'_>, message: &[u8]) -> Result<QueryReply, Stop> {
    let request = ReadRequest::parse(message).map_err(|text| Stop::Failed { status: 400, text })?;
    context.held.take(message.len())?;
    let mut has_panicked = false;
    loop {
        let shares = match context.shares(&Reach::Circle) {
            // What one backend fails over while others cannot answer, one InfluxDB would fail over, too.
            Err(_) if has_panicked => return Ok(QueryReply::Panicked),
            shares => shares?,
        };
        let backends: Vec<_> = shares.backends.keys().copied().collect();
        // Each attempt leaves out at least one more backend.
        let Some(foreign) = foreign(context, &backends)? else { continue };
        let packed = |names: &BTreeSet<String>| {
            compress(&request.without(names.iter().map(String::as_str))).expect("a request is shorter than 4 GiB")
        };
        let questions = backends.iter().zip(&foreign).map(|(&backend, names)| (backend, packed(names))).collect();
        match context.ask_prometheus(questions)? {
            Ok(replies) => return merged(context, replies),
            Err(failures) => has_panicked |= failures.contains(&ReadFailure::Panicked),
        }
    }
}

/// For each backend the measurements that it holds and that are read from others. None: one has not answered.
fn foreign(context: &Context<'_>, backends: &[BackendId]) -> Result<Option<Vec<BTreeSet<String>>>, Stop> {
    let questions = backends.iter().map(|&backend| (backend, "SHOW MEASUREMENTS".to_owned())).collect();
    let answers = context.ask_each(questions, Times::Nanoseconds)?;
    let mut all = Vec::new();
    for (&backend, answer) in backends.iter().zip(answers) {
        let Ok(answer) = answer else { return Ok(None) };
        let circle = context.shared.topology.backend(backend).circle;
        let db = &context.request.db[..];
        let is_foreign = |name: &String| context.placement.reader(circle, Place::new(db, name).bytes()) != backend;
        all.push(names(&answer).filter(is_foreign).collect());
    }
    Ok(Some(all))
}

fn names(answer: &Answer) -> impl Iterator<Item = String> {
    let rows = answer.series.iter().flat_map(|series| &series.rows);
    rows.filter_map(|row| row.values().next()).map(|name| decoded(name).into_owned())
}

fn merged(context: &Context<'_>, replies: Vec<ReadReply>) -> Result<QueryReply, Stop> {
    let held = &context.held;
    let mut refusal = None;
    let mut answers = Vec::new();
    for reply in replies {
        match reply {
            ReadReply::Answer(block) => {
                let unreadable = || Stop::unavailable("a backend's answer to Prometheus cannot be read");
                let length = uncompressed_len(&block).ok_or_else(unreadable)?;
                held.take(length)?;
                let mut answer = vec![0; length];
                if !uncompress(&block, &mut answer) {
                    return Err(unreadable());
                }
                held.give_back(block.capacity());
                answers.push(answer);
            }
            // One that has none of the database or policy has no series either.
            ReadReply::Refused(text) => refusal = Some(text),
        }
    }
    if let Some(text) = refusal.filter(|_| answers.is_empty()) {
        return Err(Stop::Failed { status: 400, text });
    }
    let mut series = Vec::new();
    for answer in &answers {
        let of_one = read::series(answer).map_err(|error| Stop::unavailable(error.to_string()))?;
        held.take(of_one.len() * size_of::<read::AnsweredSeries<'_>>())?;
        series.extend(of_one);
    }
    // Stable: the series of a measurement come from one backend, in its order.
    series.sort_by_key(|series| series.measurement);
    let bytes = answers.iter().map(Vec::len).sum::<usize>() + 16;
    // Twice: the series, and the answer around them.
    held.take(2 * bytes)?;
    let answer = read::answer(series, bytes);
    drop(answers);
    let packed_max = compressed_len_max(answer.len());
    held.take(packed_max)?;
    let too_large = || Stop::unavailable("the answer has 4 GiB or more: ask for fewer measurements or a shorter time");
    let packed = compress(&answer).ok_or_else(too_large)?;
    drop(answer);
    // The body takes its own part with it; the rest goes back with the request.
    let body = held.send_off(vec![Bytes::from(packed)], packed_max);
    let fields = vec![("Content-Type", "application/x-protobuf".to_owned()), ("Content-Encoding", "snappy".to_owned())];
    Ok(QueryReply::Answer { fields, body })
}

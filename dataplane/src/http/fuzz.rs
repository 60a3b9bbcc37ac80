//! Fuzz functions, also called by tests: each checks a promise of this module over any bytes and panics when it is
//! broken. Also the simple implementations that the fast ones must agree with.

use std::io::Read as _;

use crate::http::chunked::{ChunkError, Decoder};
use crate::http::gzip::{GzipError, Inflater};
use crate::http::head::{self, BodyKind};
use crate::http::{Status, answer, go_json, query};
use crate::limits::{CHUNK_EXTRAS_BYTES_MAX, QUERY_HEAD_BYTES_MAX};

/// Heads: the result does not depend on how the bytes were split, every range lies in the head, nothing panics.
pub fn fuzz_head(data: &[u8]) {
    let whole = head::parse(data);
    if let Ok(Status::Complete(head)) = whole {
        assert!(head.head_len <= data.len().min(QUERY_HEAD_BYTES_MAX));
        assert!(!head.expect_continue || head.body != BodyKind::None);
        let head_bytes = &data[..head.head_len];
        assert_eq!(head::parse(head_bytes), whole);
        query::pairs(head.query(head_bytes)).for_each(drop);
        let _ = query::path(head.path(head_bytes));
        for span in [head.authorization, head.x_request_id, head.origin, head.content_type].into_iter().flatten() {
            assert!(!span.of(head_bytes).contains(&b'\n'));
        }
    }
    // Once a prefix gives a result, all longer ones give the same.
    let step = data.len() / 64 + 1;
    for cut in (0..data.len()).step_by(step) {
        let part = head::parse(&data[..cut]);
        assert!(part == Ok(Status::Partial) || part == whole, "{part:?} at {cut}, {whole:?} for the whole");
    }
    let whole = answer::parse(data, false);
    for cut in (0..data.len()).step_by(step) {
        let part = answer::parse(&data[..cut], false);
        assert!(part == Ok(Status::Partial) || part == whole, "{part:?} at {cut}, {whole:?} for the whole");
    }
    let _ = go_json::error_text(data);
}

/// Bodies: the chunk decoder agrees with the simple one however the body is split; gzip agrees with flate2's reader.
/// The first byte says where to split.
pub fn fuzz_body(data: &[u8]) {
    let Some((&cut, body)) = data.split_first() else { return };
    let cuts = [usize::from(cut) % (body.len() + 1)];

    let pieces = dechunk(body, &cuts);
    let whole = dechunk(body, &[]);
    match (&whole, &pieces) {
        (Ok(_), _) => assert_eq!(whole, pieces),
        (Err(error), _) => assert_eq!(pieces, Err(*error)),
    }
    match dechunk_naive(body) {
        Some((_, _, extras)) if extras > CHUNK_EXTRAS_BYTES_MAX => assert_eq!(whole, Err(ChunkError::ExtrasTooLong)),
        Some((data, consumed, _)) => assert_eq!(whole, Ok((data, consumed, true))),
        None => assert!(!matches!(whole, Ok((_, _, true)))),
    }

    let bytes_max = 1 << 20;
    let whole = gunzip(body, &[], bytes_max, 1 << 16);
    assert_eq!(gunzip(body, &cuts, bytes_max, 1 + usize::from(cut)), whole);
    let mut theirs = Vec::new();
    let mut reader = flate2::bufread::MultiGzDecoder::new(body).take(bytes_max + 1);
    match (&whole, reader.read_to_end(&mut theirs)) {
        (Ok(ours), Ok(_)) => assert_eq!(*ours, theirs),
        // Our own limits.
        (Err(GzipError::Header | GzipError::TooLarge | GzipError::Eof), Ok(_)) => {}
        (Err(error), Ok(_)) => panic!("{error} where flate2 reads {} bytes", theirs.len()),
        // flate2 refuses reserved header flags, Go does not.
        (_, Err(_)) => {}
    }
}

/// The pieces between consecutive cuts.
fn pieces<'a>(body: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let ends = cuts.iter().copied().chain([body.len()]);
    let starts = [0].into_iter().chain(cuts.iter().copied());
    starts.zip(ends).map(|(start, end)| &body[start..end])
}

/// Data, bytes consumed, and whether the body was complete, when it arrives split at `cuts` (ascending).
pub fn dechunk(body: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize, bool), ChunkError> {
    let mut decoder = Decoder::new();
    let (mut data, mut consumed) = (Vec::new(), 0);
    for piece in pieces(body, cuts) {
        let mut buf = piece.to_vec();
        let decoded = decoder.decode(&mut buf)?;
        assert!(decoded.done || decoded.consumed == piece.len());
        assert_eq!(&buf[decoded.consumed..], &piece[decoded.consumed..], "the next request must stay as it is");
        data.extend_from_slice(&buf[..decoded.data_len]);
        consumed += decoded.consumed;
    }
    Ok((data, consumed, decoder.is_done()))
}

/// Data, bytes consumed and bytes of extensions and trailers of a whole body; line by line.
fn dechunk_naive(body: &[u8]) -> Option<(Vec<u8>, usize, usize)> {
    fn line(rest: &mut &[u8]) -> Option<String> {
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line: String = rest[..end].iter().map(|&b| b as char).collect();
        *rest = &rest[end + 2..];
        let fine = line.bytes().zip(line.chars()).all(|(_, c)| c == '\t' || !(c < ' ' || c == '\x7f'));
        fine.then_some(line)
    }
    let (mut rest, mut data, mut extras) = (body, Vec::new(), 0);
    loop {
        let size_line = line(&mut rest)?;
        let digits = size_line.split(';').next()?;
        extras += size_line.chars().count() - digits.chars().count();
        if digits.len() > 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::try_from(u64::from_str_radix(digits, 16).ok()?).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let trailer = line(&mut rest)?;
        if trailer.is_empty() {
            return Some((data, body.len() - rest.len(), extras));
        }
        extras += trailer.chars().count() + 2;
    }
}

/// The decompressed body when it arrives split at `cuts` (ascending), with an output buffer of `out_len` bytes.
pub fn gunzip(body: &[u8], cuts: &[usize], bytes_max: u64, out_len: usize) -> Result<Vec<u8>, GzipError> {
    // Reused, to find an incomplete reset.
    let mut inflater = Inflater::new(7);
    let _ = inflater.inflate(b"\x1f\x8b\x08\x08\0\0\0\0\0\0name", &mut [0; 16]);
    inflater.reset(bytes_max);
    let (mut inflated, mut out) = (Vec::new(), vec![0; out_len]);
    for mut piece in pieces(body, cuts) {
        loop {
            let step = inflater.inflate(piece, &mut out)?;
            inflated.extend_from_slice(&out[..step.produced]);
            piece = &piece[step.consumed..];
            if piece.is_empty() && step.produced < out_len {
                break;
            }
            assert!(step.consumed + step.produced > 0, "no progress");
        }
    }
    inflater.finish().map(|()| inflated)
}

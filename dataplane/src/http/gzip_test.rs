//! Gzip bodies: Go's errors for damaged ones, flate2's bytes for valid ones, however they are split.

use super::*;
use crate::http::fuzz::{fuzz_body, gunzip};
use crate::http::naive_inflate::{self, InflateFault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder, write::GzEncoder};
use proptest::prelude::*;
use std::io::Write as _;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn whole(body: &[u8]) -> Result<Vec<u8>, GzipError> {
    gunzip(body, &[], 0, 4096)
}

#[track_caller]
fn fails(body: &[u8], text: &str) {
    assert_eq!(whole(body).unwrap_err().to_string(), text);
}

#[test]
fn errors_have_the_texts_go_gives() {
    let good = gzip(b"m v=1 5\nm v=2 6\n");
    fails(b"", "EOF");
    fails(b"m v=1", "unexpected EOF");
    fails(b"m v=1 5\nm v=2 6\n", "gzip: invalid header");
    fails(&[0x1f, 0x8b, 7, 0, 0, 0, 0, 0, 0, 0], "gzip: invalid header");
    for cut in 1..good.len() {
        fails(&good[..cut], "unexpected EOF");
    }
    for at in good.len() - 8..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fails(&bad, "gzip: invalid checksum");
    }
    fails(&[&good[..], b"garbage"].concat(), "unexpected EOF");
    fails(&[&good[..], b"garbage garbage"].concat(), "gzip: invalid header");
    // An invalid block type, at the very start and after a stored block.
    fails(&[&good[..10], &[0x07, 0, 0, 0, 0, 0]].concat(), "flate: corrupt input before offset 1");
    fails(&[&good[..10], &[0, 1, 0, 0xfe, 0xff, b'x', 0x07, 0]].concat(), "flate: corrupt input before offset 7");
    // A stored block whose length and its complement disagree.
    fails(&[&good[..10], &[0, 1, 0, 0, 0, b'x', 1]].concat(), "flate: corrupt input before offset 5");
}

#[test]
fn recorded_bodies_get_the_recorded_answers() {
    let records =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/lineproto.jsonl")).unwrap();
    let mut errors = 0;
    for record in records.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        if record["headers"]["Content-Encoding"] != "gzip" || !record["note"].as_str().unwrap().starts_with("gzip") {
            continue;
        }
        let body = match record["body_base64"].as_str() {
            Some(base64) => STANDARD.decode(base64).unwrap(),
            None => record["body"].as_str().unwrap().as_bytes().to_vec(),
        };
        let error = whole(&body).err().map(|error| error.to_string());
        if record["note"] == "gzip, bad line" {
            assert_eq!(error, None);
        } else {
            assert_eq!(error.as_deref(), record["error"].as_str(), "{}", record["id"]);
            errors += usize::from(error.is_some());
        }
    }
    assert!(errors >= 8, "only {errors} records of bad gzip bodies found");
}

#[test]
fn members_follow_each_other_and_may_be_empty() {
    let body = [gzip(b"one\n"), gzip(b""), gzip(b"two\n")].concat();
    assert_eq!(whole(&body), Ok(b"one\ntwo\n".to_vec()));
    assert_eq!(whole(&gzip(b"")), Ok(Vec::new()));
}

#[test]
fn header_fields_are_skipped_and_checked() {
    let named = |name: &str| {
        let mut encoder =
            GzBuilder::new().filename(name).comment("a comment").extra("extra").write(Vec::new(), Compression::fast());
        encoder.write_all(b"data").unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(whole(&named("name")), Ok(b"data".to_vec()));
    assert_eq!(whole(&named(&"n".repeat(511))), Ok(b"data".to_vec()));
    assert_eq!(whole(&named(&"n".repeat(512))), Err(GzipError::Header));

    let plain = gzip(b"data");
    let mut header = plain[..10].to_vec();
    header[3] = FLAG_HEADER_CRC;
    let mut crc = Crc::new();
    crc.update(&header);
    let sum = (crc.sum() as u16).to_le_bytes();
    assert_eq!(whole(&[&header, &sum[..], &plain[10..]].concat()), Ok(b"data".to_vec()));
    assert_eq!(whole(&[&header, &[sum[0] ^ 1, sum[1]][..], &plain[10..]].concat()), Err(GzipError::Header));

    let mut empty_extra = plain.clone();
    empty_extra[3] = FLAG_EXTRA;
    empty_extra.splice(10..10, [0, 0]);
    assert_eq!(whole(&empty_extra), Ok(b"data".to_vec()));
}

#[test]
fn a_bomb_is_stopped_at_the_bound() {
    let bomb = gzip(&vec![b' '; 100_000]);
    assert_eq!(gunzip(&bomb, &[], 100_000, 4096).map(|data| data.len()), Ok(100_000));
    assert_eq!(gunzip(&bomb, &[], 99_999, 4096), Err(GzipError::TooLarge));
    assert_eq!(GzipError::TooLarge.status(), 413);
    let two = [gzip(&[b' '; 600]), gzip(&[b' '; 600])].concat();
    assert_eq!(gunzip(&two, &[], 1199, 4096), Err(GzipError::TooLarge), "the bound is for all members together");
}

#[test]
fn every_split_gives_what_the_whole_gives() {
    let good = [gzip(b"m v=1 5\nm v=2 6\n"), gzip(&b"abc".repeat(50))].concat();
    let mut corrupt = good.clone();
    corrupt[14] ^= 0x55;
    for body in [&good[..], &good[..good.len() - 3], &corrupt] {
        for first in 0..=body.len() {
            for out_len in [1, 7, 4096] {
                let second = (first + out_len).min(body.len());
                assert_eq!(gunzip(body, &[first, second], 0, out_len), whole(body), "cut at {first}, {out_len}");
            }
        }
    }
}

proptest! {
    #[test]
    fn what_was_compressed_comes_back(data: Vec<u8>, cut: proptest::sample::Index, out_len in 1usize..300) {
        let body = gzip(&data);
        prop_assert_eq!(gunzip(&body, &[cut.index(body.len())], 0, out_len), Ok(data));
    }

    /// In one of eight thousand damaged bodies the two offsets differ by one byte (codes that are refused at different
    /// bits).
    #[test]
    fn faults_are_told_where_go_finds_them(text in "[a-h m=v,]{1,80}", at: proptest::sample::Index, with: [u8; 2]) {
        let body = gzip(text.repeat(2).as_bytes());
        let mut deflate = body[10..body.len() - 8].to_vec();
        let at = at.index(deflate.len());
        let end = (at + 2).min(deflate.len());
        deflate[at..end].copy_from_slice(&with[..end - at]);
        let damaged = [&body[..10], &deflate].concat();
        for out_len in [1, 1 << 16] {
            let fast = gunzip(&damaged, &[], 0, out_len);
            match (naive_inflate::inflate(&deflate), &fast) {
                (Err(InflateFault::Cut), Err(GzipError::UnexpectedEof)) => {}
                (Err(InflateFault::Corrupt(at)), Err(GzipError::Corrupt { offset })) => {
                    prop_assert!(offset.abs_diff(at as u64) <= 1, "{offset} instead of {at}");
                }
                // Bytes left after the last block are taken for the trailer.
                (Ok((_, read)), Err(GzipError::UnexpectedEof)) => prop_assert!(deflate.len() - read < 8),
                (Ok((_, read)), Err(GzipError::Checksum)) => prop_assert!(deflate.len() - read >= 8),
                (naive, fast) => prop_assert!(false, "{naive:?} {fast:?}"),
            }
        }
    }

    #[test]
    fn damaged_bodies_break_no_promise(data: Vec<u8>, at: proptest::sample::Index, xor: u8, cut: u8) {
        let mut body = gzip(&data);
        let at = at.index(body.len());
        body[at] ^= xor;
        fuzz_body(&[&[cut], &body[..]].concat());
    }

    #[test]
    fn chunked_bodies_break_no_promise(
        text in "([0-9a-f]{1,2}(;[a-z =]{0,3})?\r\n[a-z]{0,6}\r?\n?){0,4}0\r\n(A: b\r\n)?\r\n.{0,3}", cut: u8,
    ) {
        fuzz_body(&[&[cut], text.as_bytes()].concat());
    }

    #[test]
    fn any_bytes_break_no_promise(data: Vec<u8>) {
        fuzz_body(&data);
    }
}

//! Line protocol: the fast scanner agrees with the plain one, however the bytes are split, and lines keep their
//! meaning.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::lineproto::fuzz::fuzz(data));

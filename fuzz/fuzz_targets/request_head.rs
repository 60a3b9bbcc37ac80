//! Heads of requests and answers: the result does not depend on how the bytes were split, and no range points outside.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::http::fuzz::fuzz_head(data));

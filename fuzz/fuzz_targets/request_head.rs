//! Heads of requests and answers: how the bytes were cut does not matter, nothing points outside.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::http::fuzz::fuzz_head(data));

//! Chunked and gzip bodies: the result equals that of the plain forms, however the bytes are split.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::http::fuzz::fuzz_body(data));

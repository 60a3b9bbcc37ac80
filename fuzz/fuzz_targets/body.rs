//! Chunked and gzip bodies: as the plain forms read them, however cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::http::fuzz::fuzz_body(data));

//! Log files: recovery accepts any bytes and yields only frames with valid checksums, in order.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::disklog::fuzz::fuzz_open(data));

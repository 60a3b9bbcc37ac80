//! Prometheus' remote write: the points of a request, or why it is refused, are those of the plain form.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::prometheus::fuzz::fuzz(data));

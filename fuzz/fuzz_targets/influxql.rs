//! InfluxQL: what is accepted keeps its meaning when printed, and what writes is known by its words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::influxql::fuzz::fuzz(data));

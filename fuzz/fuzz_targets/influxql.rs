//! InfluxQL: an accepted statement keeps its meaning when printed, and statements that write are recognised by their
//! words.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fluxgate_dataplane::influxql::fuzz::fuzz(data));

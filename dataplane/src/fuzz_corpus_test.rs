//! Runs the fuzz targets over their saved corpus (`fuzz/corpus/`). An input that once broke a promise is added there
//! and stays.

use std::fs;
use std::path::Path;

use crate::{disklog, http, influxql, lineproto, prometheus};

fn run(target: &str, fuzz: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("a folder of the project").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "{} has lost its inputs", folder.display());
    for input in inputs {
        let data = fs::read(&input).expect("a file of the project");
        if let Err(panic) = std::panic::catch_unwind(|| fuzz(&data)) {
            eprintln!("with {}", input.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn request_head_keeps_its_promises_on_the_saved_corpus() {
    run("request_head", http::fuzz::fuzz_head);
}

#[test]
fn body_keeps_its_promises_on_the_saved_corpus() {
    run("body", http::fuzz::fuzz_body);
}

#[test]
fn line_protocol_keeps_its_promises_on_the_saved_corpus() {
    run("line_protocol", lineproto::fuzz::fuzz);
}

#[test]
fn influxql_keeps_its_promises_on_the_saved_corpus() {
    run("influxql", influxql::fuzz::fuzz);
}

#[test]
fn prometheus_keeps_its_promises_on_the_saved_corpus() {
    run("prometheus", prometheus::fuzz::fuzz);
}

#[test]
fn log_open_keeps_its_promises_on_the_saved_corpus() {
    run("log_open", disklog::fuzz::fuzz_open);
}

/// When the format of the log changes, its saved inputs must be made again, or they no longer test anything.
#[test]
fn the_saved_log_is_of_todays_format() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/log_open/three-frames");
    assert_eq!(disklog::fuzz::frames(&fs::read(path).expect("a file of the project")), 3);
}

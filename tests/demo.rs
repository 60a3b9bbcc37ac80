//! Promise: `fluxgate demo` proves in one command that a backend that dies loses nothing.

use std::process::{Command, Output};

fn demo(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fluxgate")).arg("demo").args(arguments).output().unwrap()
}

fn proved(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{told}", output.status);
    for part in ["influxdb-1-2 is killed", "influxdb-1-2 is back", "the ledger balances", "Nothing was lost."] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    assert!(!text.contains("FAIL") && !text.contains('\x1b'), "{text}");
}

#[test]
fn a_killed_backend_loses_nothing_with_standins() {
    let output = demo(&["--standins", "--seconds", "6", "--rate", "5000"]);
    proved(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("each point checked by its number, 0 missing"));
}

#[test]
fn a_killed_backend_loses_nothing_with_real_servers() {
    let output = demo(&["--seconds", "6", "--rate", "5000"]);
    proved(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("real InfluxDB servers"), "influxd is not on PATH: run `make setup`\n{text}");
}

#[test]
fn a_demo_too_short_to_show_anything_is_refused() {
    assert_eq!(demo(&["--seconds", "1"]).status.code(), Some(2));
}

//! Promise: `tests/run_all.sh` (the end of `make test`) ends with the totals over all runners, names what failed, hides
//! no output, and fails if anything failed. Cargo is a script here that prints what cargo would print.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const ALL_GOOD: &str = "     Running unittests src/lib.rs (target/debug/deps/fluxgate-1)
test a::b ... ok
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

     Running tests/names.rs (target/debug/deps/names-1)
test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.01s";
const ONE_FAILS: &str = "     Running tests/names.rs (target/debug/deps/names-1)
test one ... FAILED
test two ... ok
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
error: test failed, to rerun pass `--test names`";
const ONE_DIES: &str = "     Running tests/tls/main.rs (target/debug/deps/tls-1)
test one ... ok
error: test failed, to rerun pass `--test tls`";
const BENCHES: &str = "     Running benches/head.rs (target/debug/deps/head-1)
Testing head/short
Success";

/// Output and success of the script when cargo's calls end like this: tests and benches. The one for the simulator, in
/// between, prints nothing.
fn run(tests: (&str, i32), benches: (&str, i32)) -> (String, bool) {
    let dir = tempfile::tempdir().unwrap();
    let cargo = dir.path().join("cargo");
    let part = |(text, status): (&str, i32)| format!("cat <<'END'\n{text}\nEND\nexit {status}\n");
    let (tests, benches) = (part(tests), part(benches));
    let text = format!("#!/bin/sh\ncase \"$*\" in *--bench*)\n{benches};; *fluxgate-sim*) exit 0;; esac\n{tests}");
    std::fs::write(&cargo, text).unwrap();
    std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run_all.sh");
    let output = Command::new(script).env("CARGO", &cargo).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[test]
fn the_last_line_is_the_totals_and_all_output_is_shown() {
    let (text, success) = run((ALL_GOOD, 0), (BENCHES, 0));
    assert_eq!(text, format!("{ALL_GOOD}\n{BENCHES}\n43 passed, 0 failed, 1 skipped\n"));
    assert!(success);
}

#[test]
fn what_failed_is_named_and_the_status_says_so() {
    for (tests, benches, end) in [
        ((ONE_FAILS, 101), (BENCHES, 0), "failed:\n  one\n2 passed, 1 failed, 0 skipped\n"),
        (
            (ONE_DIES, 101),
            (BENCHES, 0),
            "failed:\n  `--test tls` ended without a result\n1 passed, 1 failed, 0 skipped\n",
        ),
        (
            (ALL_GOOD, 0),
            ("error[E0425]: a bench", 101),
            "failed:\n  cargo, see above\n42 passed, 1 failed, 1 skipped\n",
        ),
    ] {
        let (text, success) = run(tests, benches);
        assert!(text.ends_with(end), "{text}");
        assert!(!success, "{text}");
    }
}

//! Whoever reads the output may go away: that is no success, and no failure either.

use std::process::{Command, Stdio};

/// Status and standard error of a command whose output nobody reads.
fn unread(dir: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
    let output = command.args(arguments).current_dir(dir).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn output_that_nobody_reads_ends_a_command_as_sigpipe_does() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("proxy.json"), include_str!("../golden/proxy.json")).unwrap();
    std::fs::create_dir_all(dir.path().join("data/worker-0")).unwrap();
    std::fs::write(dir.path().join("data/worker-0/state"), "damaged").unwrap();
    for arguments in [
        // What is damaged is not told to be sound.
        &["log", "verify", "data"][..],
        &["log", "ls", "data"],
        // What is cut is not told to be whole.
        &["check"],
        &["import-config", "proxy.json"],
        &["encrypt", "text"],
        &["demo", "--standins"],
    ] {
        assert_eq!(unread(dir.path(), arguments), (Some(141), String::new()), "{arguments:?}");
    }
    // An error is told by its own status.
    assert_eq!(unread(dir.path(), &["import-config", "absent.toml"]).0, Some(2));
}

//! influxdb-relay's file: what `import-config` makes of it serves the same clients, and the same servers get all.

use std::process::{Command, Stdio};
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::die_with_us;
use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::eventually;
use fluxgate::lab::stand_in::StandIn;

#[test]
fn a_relays_file_is_refused_with_a_sentence_that_helps_and_works_once_imported() {
    let backends = [0, 1].map(|_| StandIn::with_databases(&["db"]).unwrap());
    let port = Port::of_loopback().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let outputs = backends.each_ref().map(|backend| format!("{{location = \"{}/write\"}}", backend.url()));
    let (addr, outputs) = (port.addr(), outputs.join(", "));
    let relay = format!("[[http]]\nname = \"r\"\nbind-addr = \"{addr}\"\noutput = [{outputs}]\n");
    std::fs::write(dir.path().join("relay.toml"), relay).unwrap();

    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
        command.args(arguments).current_dir(dir.path()).output().unwrap()
    };
    for arguments in [&["-config", "relay.toml"][..], &["check", "-config", "relay.toml"]] {
        let refused = run(arguments);
        let sentence = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{sentence}");
        assert!(sentence.contains("`fluxgate import-config FILE > fluxgate.toml`"), "{sentence}");
    }
    let imported = run(&["import-config", "relay.toml"]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    std::fs::write(dir.path().join("fluxgate.toml"), imported.stdout).unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
    command.args(["-config", "fluxgate.toml"]).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
    die_with_us(&mut command);
    let mut child = command.spawn().unwrap();
    let wait = Duration::from_secs(30);
    let write =
        || Client::connect(addr).is_ok_and(|mut client| client.write("db", "cpu n=1i 1\n").unwrap().status == 204);
    let written = eventually(wait, write);
    let delivered = eventually(wait, || backends.iter().all(|backend| backend.points("db") == 1));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(written && delivered, "written {written}, delivered {delivered}");
}

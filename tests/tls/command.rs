//! Promise: `fluxgate migrate` talks to an https proxy only if it trusts the certificate, or is told not to check it.

use std::process::Command;

use fluxgate::lab::proxy::ProxyConfig;
use fluxgate::lab::stand_in::StandIn;

use crate::certificates::Authority;

#[test]
fn the_command_believes_the_authorities_it_is_told_and_no_others() {
    let (authority, other) = (Authority::new("the proxy's"), Authority::new("another"));
    let standin = StandIn::with_databases(&["db"]).unwrap();
    let proxy = crate::support::start(&authority.https(ProxyConfig::new(&[vec![standin.url()]])));
    let path = |authority: &Authority| authority.ca().to_str().unwrap().to_owned();
    let missing = "/nonexistent.pem".to_owned();
    for (options, status, says) in [
        (vec!["--ca-file".to_owned(), path(&authority)], 0, "there are no migrations"),
        (vec!["--insecure".to_owned()], 0, "there are no migrations"),
        (vec!["--ca-file".to_owned(), path(&other)], 2, "does not answer"),
        (vec!["--ca-file".to_owned(), missing], 2, "ca_file /nonexistent.pem cannot be read"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
        let output = command.args(["migrate", "jobs", "--url", &proxy.url()]).args(&options).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{options:?}: {text}");
        assert!(text.contains(says), "{options:?}: {text}");
    }
}

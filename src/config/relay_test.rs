//! Files of influxdb-relay: known, refused with what to do, and translated.

use std::path::Path;
use std::time::Duration;

use super::config_test::{ok, refusal};
use super::import;

/// Every key that a relay knows, in a file written anew.
const RELAY: &str = r#"
[[http]]
name = "one"
bind-addr = "127.0.0.1:9096"
ssl-combined-pem = "/etc/relay.pem"
default-retention-policy = "week"
output = [
  { name = "left", location = "http://10.0.0.1:8086/write", timeout = "2s", buffer-size-mb = 100, max-batch-kb = 50 },
  { name = "right", location = "https://10.0.0.2:8086/write", timeout = "1m30s", max-delay-interval = "500ms",
    skip-tls-verification = true, http-user = "u", http-pass = "p" },
  { location = "http://10.0.0.3:8086/api/write" },
]

[[http]]
name = "two"
bind-addr = "127.0.0.1:9097"
output = [ { name = "left", location = "http://10.0.0.1:8086/write" } ]

[[udp]]
name = "packets"
bind-addr = "127.0.0.1:9098"
precision = "s"
read-buffer = 8192
output = [ { name = "left", location = "10.0.0.1:8089", mtu = 512 } ]
"#;

fn imported(text: &str) -> String {
    import(Path::new("relay.toml"), text).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_relays_file_is_known_and_refused_with_what_to_do() {
    let udp = "[[udp]]\nbind-addr = \":9\"\noutput = []\n";
    for text in [RELAY, udp] {
        let sentence = "relay.toml: this is a file of influxdb-relay; `fluxgate import-config FILE > fluxgate.toml` \
                        writes one of fluxgate's from it: each output becomes a circle with one backend";
        assert_eq!(refusal("relay.toml", text), sentence);
    }
    let error = import(Path::new("relay.toml"), udp).expect_err("no HTTP").to_string();
    assert!(error.starts_with("relay.toml:1: this file of influxdb-relay has no [[http]] with an output"), "{error}");
}

#[test]
fn each_output_becomes_a_circle() {
    let new = imported(RELAY);
    // Without files that are not there.
    let plain = new.replace("https_enabled = true", "https_enabled = false");
    let config = ok("new.toml", &plain);
    let data = &config.data;
    let backends: Vec<_> = data.topology.backends.iter().map(|b| (&b.name[..], &b.url[..], b.circle)).collect();
    let want = [
        ("left", "http://10.0.0.1:8086", 0),
        ("right", "https://10.0.0.2:8086", 1),
        ("backend-3", "http://10.0.0.3:8086", 2),
    ];
    assert_eq!(backends, want, "{new}");
    let right = &data.topology.backends[1];
    assert_eq!((&right.username[..], &right.password[..], data.trust.verifies(right.id)), ("u", "p", false));
    assert_eq!(data.listen, "127.0.0.1:9096".parse().unwrap());
    assert_eq!((data.write_timeout, data.rewrite_interval), (Duration::from_secs(90), Duration::from_secs(1)));
    assert_eq!((&config.https.cert[..], &config.https.key[..]), ("/etc/relay.pem", "/etc/relay.pem"));
    let udp = &data.udp[0];
    assert_eq!((udp.bind, &udp.db[..], udp.read_buffer), ("127.0.0.1:9098".parse().unwrap(), "udp", Some(8192)));
    let notes = [
        "default-retention-policy",
        "[[http]] with bind-addr \"127.0.0.1:9097\" is left out",
        "buffer-size-mb",
        "max-batch-kb",
        "\"http://10.0.0.3:8086/api/write\"",
        "udp 127.0.0.1:9098: set database",
    ];
    let text = new.replace("\n# ", " ");
    notes.iter().for_each(|note| assert!(text.contains(note), "{note}\n{new}"));
}

#[test]
fn the_listener_with_outputs_is_taken_and_the_others_are_named() {
    let new = imported(
        "[[http]]\nbind-addr = ':1'\n[[http]]\nbind-addr = ':2'\noutput = [{location = 'http://h/write'}]\n\
         [[http]]\nbind-addr = ':3'\n",
    );
    let left_out = |addr: &str| new.replace("\n# ", " ").contains(&format!("bind-addr \"{addr}\" is left out"));
    assert_eq!([":1", ":2", ":3"].map(left_out), [true, false, true], "{new}");
    assert!(new.contains("listen_addr = \":2\""), "{new}");
}

#[test]
fn a_small_file_needs_no_note() {
    let small =
        "[[http]]\nname = 'r'\nbind-addr = ':9096'\noutput = [{name = 'a', location = 'http://h:8086/write'}]\n";
    let new = imported(small);
    assert!(!new.contains("NOTE"), "{new}");
    let config = ok("new.toml", &new);
    assert_eq!((config.data.topology.circles.len(), config.influx_proxy), (1, "none"), "{new}");
}

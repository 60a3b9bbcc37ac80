//! Backends that speak https.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use serde_json::json;

use crate::certificates::Authority;
use crate::support::start;

const LINES: &str = "a n=1i 1\nb n=2i 2\nc n=3i 3\n";

fn write(proxy: &Proxy) {
    let mut client = Client::connect(proxy.addr()).unwrap();
    let reply = client.request("POST", "/write?db=db", &[], LINES.as_bytes()).unwrap();
    assert_eq!(reply.status, 204, "{}", reply.text());
}

fn is_active(proxy: &Proxy) -> bool {
    proxy.health().is_ok_and(|circles| circles.iter().all(|circle| circle.backends.iter().all(|b| b.active)))
}

fn delivered(proxy: &Proxy, points: u64) -> bool {
    let all = || proxy.ledger().is_ok_and(|ledger| ledger.totals.delivered == points && ledger.totals.queued == 0);
    eventually(Duration::from_secs(30), all)
}

#[test]
fn points_reach_backends_that_are_trusted_and_wait_for_those_that_are_not() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let (cert, key) = authority.issue("influxd", "127.0.0.1");
    let backend = Influxd::start_https(&cert, &key).unwrap();
    backend.create_database("db").unwrap();

    // A certificate of another authority is not trusted.
    let ca = other.file("trusted.pem");
    std::fs::copy(other.ca(), &ca).unwrap();
    let config = ProxyConfig::new(&[vec![backend.url()]]);
    let mut proxy = start(&config.set("ca_file", ca.to_str().unwrap()));
    write(&proxy);
    let reason = "its certificate is not trusted: unknown issuer";
    let told = |words: &str| proxy.stderr().lines().any(|line| line.contains(words) && line.contains(reason));
    assert!(eventually(Duration::from_secs(10), || told("down: ") && told("writes fail: ")), "{}", proxy.stderr());
    assert!(!is_active(&proxy));
    assert_eq!((proxy.ledger().unwrap().totals.queued, backend.points("db").unwrap()), (3, 0));

    // A certificate of the right authority is; the points that waited are delivered, too.
    std::fs::copy(authority.ca(), &ca).unwrap();
    proxy.restart().unwrap();
    assert!(delivered(&proxy, 3), "{:?}\n{}", proxy.ledger(), proxy.stderr());
    assert!(eventually(Duration::from_secs(10), || is_active(&proxy)), "{:?}", proxy.health());
    write(&proxy);
    assert!(delivered(&proxy, 6), "{:?}", proxy.ledger());
    assert_eq!(backend.points("db").unwrap(), 3, "the same points again");
    // A query that one backend answers goes through a worker's own connection.
    let (status, text) = proxy.get("/query?db=db&q=select+n+from+b").unwrap();
    assert!(status == 200 && text.contains("[\"1970-01-01T00:00:00.000000002Z\",2]"), "{status} {text}");
}

#[test]
fn a_certificate_for_another_name_is_believed_only_when_that_is_asked_for() {
    let authority = Authority::new("authority");
    let (cert, key) = authority.issue("influxd", "elsewhere.example");
    let backend = Influxd::start_https(&cert, &key).unwrap();
    backend.create_database("db").unwrap();
    let config = |skip: bool| {
        let backends = json!([{"name": "b", "url": backend.url(), "insecure_skip_verify": skip}]);
        ProxyConfig::new(&[])
            .set("circles", json!([{"name": "c", "backends": backends}]))
            .set("ca_file", authority.ca().to_str().unwrap())
    };
    let strict = start(&config(false));
    let reason = "it is for another name than the one in the url";
    assert!(eventually(Duration::from_secs(10), || strict.stderr().contains(reason)), "{}", strict.stderr());
    assert!(!strict.stderr().contains("insecure_skip_verify is set"));

    let lenient = start(&config(true));
    write(&lenient);
    assert!(delivered(&lenient, 3), "{:?}\n{}", lenient.ledger(), lenient.stderr());
    assert!(lenient.stderr().contains("backend b: insecure_skip_verify is set"), "{}", lenient.stderr());
    assert_eq!(backend.points("db").unwrap(), 3);
}

/// As everybody makes one. To rustls it is an authority's, which is no server's.
fn self_made(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", "-subj", "/CN=127.0.0.1"]);
    openssl.args(["-addext", "subjectAltName=IP:127.0.0.1"]).arg("-keyout").arg(&key).arg("-out").arg(&cert);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (cert, key)
}

#[test]
fn a_self_made_certificate_leads_to_the_keys_that_help() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = self_made(dir.path());
    let backend = Influxd::start_https(&cert, &key).unwrap();
    backend.create_database("db").unwrap();
    let config = ProxyConfig::new(&[vec![backend.url()]]);
    for config in [config.clone(), config.set("ca_file", cert.to_str().unwrap())] {
        let proxy = start(&config);
        write(&proxy);
        let told = |words: &str| {
            let names_both = |line: &str| line.contains("ca_file") && line.contains("insecure_skip_verify");
            proxy.stderr().lines().any(|line| line.contains(words) && names_both(line))
        };
        assert!(eventually(Duration::from_secs(10), || told("down: ") && told("writes fail: ")), "{}", proxy.stderr());
        proxy.edit(|file| file["circles"][0]["backends"][0]["insecure_skip_verify"] = true.into()).unwrap();
        let mut proxy = proxy;
        proxy.restart().unwrap();
        assert!(delivered(&proxy, 3), "{:?}\n{}", proxy.ledger(), proxy.stderr());
    }
}

#[test]
fn a_backend_asked_without_tls_that_wants_it_loses_nothing() {
    let authority = Authority::new("authority");
    let (cert, key) = authority.issue("influxd", "127.0.0.1");
    let backend = Influxd::start_https(&cert, &key).unwrap();
    backend.create_database("db").unwrap();
    let config = ProxyConfig::new(&[vec![format!("http://{}", backend.addr())]]);
    let mut proxy = start(&config.set("ca_file", authority.ca().to_str().unwrap()));
    write(&proxy);
    let down = || proxy.stderr().contains("writes fail");
    assert!(eventually(Duration::from_secs(10), down), "{}", proxy.stderr());
    assert_eq!(proxy.ledger().unwrap().totals.queued, 3, "{:?}", proxy.ledger());

    // http to an https backend is a wrong url, too. The right url helps in both cases.
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    std::fs::write(proxy.config_file(), text.replace("http://", "https://")).unwrap();
    proxy.restart().unwrap();
    assert!(delivered(&proxy, 3), "{:?}\n{}", proxy.ledger(), proxy.stderr());
}

//! Certificates, keys and trust as a configuration file asks for them.

use std::path::Path;

use super::config_test::{json, ok};
use super::parse;

/// A certificate for `name` and its key.
fn issue(name: &str) -> (String, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key)
}

#[test]
fn certificate_and_key_must_be_there_and_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        format!("\"{}\"", dir.path().join(name).display())
    };
    let (first, second) = (issue("a"), issue("b"));
    let (cert, key) = (file("cert", &first.0), file("key", &first.1.serialize_pem()));
    let both = file("both", &format!("{}{}", first.1.serialize_pem(), first.0));
    let other_key = file("other", &second.1.serialize_pem());
    let pkcs8 = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGj\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIGj\n-----END RSA PRIVATE KEY-----\n";
    let (pkcs8, legacy, empty) = (file("pkcs8", pkcs8), file("legacy", legacy), file("empty", ""));
    for (cert, key, want) in [
        (&cert, &key, None),
        (&both, &both, None),
        (&cert, &other_key, Some("https_key DIR/other does not belong to the certificate in https_cert DIR/cert")),
        (&cert, &cert, Some("https_key DIR/cert has no private key in PEM form")),
        (&key, &key, Some("https_cert DIR/key has no certificate in PEM form")),
        (&empty, &key, Some("https_cert DIR/empty has no certificate in PEM form")),
        (&cert, &pkcs8, Some("https_key DIR/pkcs8 is encrypted; fluxgate needs a key without a passphrase")),
        (&cert, &legacy, Some("https_key DIR/legacy is encrypted; fluxgate needs a key without a passphrase")),
    ] {
        let keys = format!("\"https_enabled\": true,\n\"https_cert\": {cert},\n\"https_key\": {key}");
        let found = parse(Path::new("f.json"), &json(&keys));
        let Some(want) = want else {
            assert!(found.unwrap().data.tls.is_some());
            continue;
        };
        let line = if want.starts_with("https_cert") { 3 } else { 4 };
        let told = found.unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "DIR");
        assert_eq!(told, format!("f.json:{line}: {want}"));
    }
}

#[test]
fn what_is_unsafe_or_not_as_written_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = issue("a");
    let files = [("cert", cert), ("key", key.serialize_pem())].map(|(name, text)| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    });
    let text = format!(
        r#"{{"circles": [{{"name": "c", "backends": [
        {{"name": "x", "url": "https://h:1", "insecure_skip_verify": true}},
        {{"name": "y", "url": "http://h:2", "insecure_skip_verify": true}}]}}],
        "listen_addr": "127.0.0.1:0",
        "https_enabled": true, "https_cert": "{}", "https_key": "{}", "tls": {{"min_version": "tls1.1"}}}}"#,
        files[0], files[1]
    );
    let config = ok("f.json", &text);
    let [version, skip] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(
        version.starts_with("tls.min_version is \"tls1.1\"") && skip.starts_with("backend x: insecure_skip_verify")
    );
    let verified: Vec<_> = config.data.topology.backends.iter().map(|b| config.data.trust.verifies(b.id)).collect();
    assert_eq!(verified, [false, true]);
}

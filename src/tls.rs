//! Turns the TLS keys of a configuration into what rustls needs: certificate, key, versions, cipher suites,
//! authorities.
//!
//! Each error names the key of the configuration and, if there is one, the file. Blocks: at start and on SIGHUP.

use fluxgate_dataplane::tls::{ServerTls, Trust};
use fluxgate_dataplane::topology::BackendId;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// TLS for clients as the configuration file has it. [`server`] makes a [`ServerTls`] of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Https {
    pub enabled: bool,
    /// Files in PEM form.
    pub cert: String,
    pub key: String,
    pub ciphers: Vec<String>,
    pub min_version: String,
    pub max_version: String,
}

/// A key of the configuration whose value cannot be used, and why.
#[derive(Debug)]
pub struct TlsRefusal {
    pub key: &'static str,
    pub what: String,
}

fn refuse<T>(key: &'static str, what: impl Into<String>) -> Result<T, TlsRefusal> {
    Err(TlsRefusal { key, what: what.into() })
}

/// TLS for clients, and a warning for the operator if there is one.
pub fn server(https: &Https) -> Result<(ServerTls, Option<String>), TlsRefusal> {
    let (versions, warning) = versions(https)?;
    let suites = suites(&https.ciphers)?;
    let certificate = certificate(https)?;
    match ServerTls::new(certificate, suites, &versions) {
        Ok(tls) => Ok((tls, warning)),
        // Everything else was checked above.
        Err(_) => refuse("tls.ciphers", "tls.ciphers has no suite for the versions that tls.max_version allows"),
    }
}

/// Reads `https_cert` (the server's own certificate first, then those that lead to its authority) and `https_key`.
pub fn certificate(https: &Https) -> Result<CertifiedKey, TlsRefusal> {
    let chain = read("https_cert", &https.cert)?;
    let chain = certificates("https_cert", &https.cert, &chain)?;
    let text = read("https_key", &https.key)?;
    let file = &https.key;
    let contains = |words: &str| text.windows(words.len()).any(|window| window == words.as_bytes());
    if contains("BEGIN ENCRYPTED PRIVATE KEY") || contains("Proc-Type: 4,ENCRYPTED") {
        return refuse(
            "https_key",
            format!("https_key {file} is encrypted; fluxgate needs a key without a passphrase"),
        );
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(&text) else {
        return refuse("https_key", format!("https_key {file} has no private key in PEM form"));
    };
    let Ok(key) = ring::default_provider().key_provider.load_private_key(key) else {
        let what =
            format!("https_key {file} has a type that is not supported; RSA, ECDSA (P-256, P-384) and Ed25519 are");
        return refuse("https_key", what);
    };
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => refuse(
            "https_key",
            format!("https_key {file} does not belong to the certificate in https_cert {}", https.cert),
        ),
        Err(_) => refuse(
            "https_cert",
            format!("https_cert {} does not begin with a certificate that can be used", https.cert),
        ),
    }
}

/// The authorities to trust for backends: those of `ca_file`, else the system's. Read only if a backend needs them.
pub fn trust(ca_file: &str, needed_by: Option<&str>, unverified: Vec<BackendId>) -> Result<Trust, TlsRefusal> {
    let roots = match needed_by {
        _ if !ca_file.is_empty() => certificates("ca_file", ca_file, &read("ca_file", ca_file)?)?,
        None => Vec::new(),
        Some(user) => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let what = format!(
                    "{user} uses https, but this system has no trusted certificate authorities; install the \
                     package ca-certificates, set ca_file, or take any certificate, as influx-proxy does, with \
                     insecure_skip_verify at the backend"
                );
                return refuse("ca_file", what);
            }
            found.certs
        }
    };
    match Trust::new(roots, unverified) {
        Ok(trust) => Ok(trust),
        Err(_) => refuse("ca_file", format!("ca_file {ca_file} has no certificate that can be used")),
    }
}

/// Certificates of the authorities in `file`, else of the system's.
///
/// # Errors
/// One sentence, when there are none.
pub fn authorities(file: Option<&std::path::Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    match file.map(|file| file.display().to_string()) {
        Some(file) => {
            let read = read("ca_file", &file).and_then(|text| certificates("ca_file", &file, &text));
            read.map_err(|fault| fault.what)
        }
        None => match rustls_native_certs::load_native_certs().certs {
            none if none.is_empty() => Err("no certificate authorities are installed; set --ca-file".to_owned()),
            found => Ok(found),
        },
    }
}

pub fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

fn read(key: &'static str, file: &str) -> Result<Vec<u8>, TlsRefusal> {
    if file.is_empty() {
        return refuse(key, format!("https_enabled is true, but {key} is missing"));
    }
    std::fs::read(file).or_else(|e| refuse(key, format!("{key} {file} cannot be read: {e}")))
}

fn certificates(key: &'static str, file: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsRefusal> {
    match CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => refuse(key, format!("{key} {file} has no certificate in PEM form")),
    }
}

type Versions = Vec<&'static SupportedProtocolVersion>;

/// Versions are numbered from 0 for 1.0 to 3 for 1.3. Those below 1.2 are known only for the warning.
fn versions(https: &Https) -> Result<(Versions, Option<String>), TlsRefusal> {
    let min = version("tls.min_version", &https.min_version)?.unwrap_or(2);
    let max = version("tls.max_version", &https.max_version)?.unwrap_or(3);
    if max < 2 {
        let what = format!("tls.max_version is \"{}\", but fluxgate speaks only tls1.2 and tls1.3", https.max_version);
        return refuse("tls.max_version", what);
    }
    if min > max {
        let what =
            format!("tls.min_version is \"{}\", above tls.max_version \"{}\"", https.min_version, https.max_version);
        return refuse("tls.min_version", what);
    }
    let warning = (min < 2).then(|| {
        format!(
            "tls.min_version is \"{}\", but fluxgate speaks only tls1.2 and tls1.3: tls1.2 is used instead",
            https.min_version
        )
    });
    let all = [(2, &TLS12), (3, &TLS13)];
    Ok((all.into_iter().filter(|(n, _)| (min..=max).contains(n)).map(|(_, version)| version).collect(), warning))
}

fn version(key: &'static str, text: &str) -> Result<Option<u8>, TlsRefusal> {
    match text.to_ascii_lowercase().trim_start_matches("tls") {
        "" if text.is_empty() => Ok(None),
        "1.0" => Ok(Some(0)),
        "1.1" => Ok(Some(1)),
        "1.2" => Ok(Some(2)),
        "1.3" => Ok(Some(3)),
        _ => refuse(key, format!("{key} is \"{text}\"; it must be one of tls1.0, tls1.1, tls1.2, tls1.3")),
    }
}

/// The suites named as Go names them. As in Go, a list without suites of TLS 1.3 says nothing about that version.
fn suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, TlsRefusal> {
    let all = ring::ALL_CIPHER_SUITES;
    let is_tls13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let mut wanted = Vec::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        // Go's older names of these suites end with the cipher.
        let long = if upper.ends_with("_POLY1305") { format!("{upper}_SHA256") } else { upper };
        match all.iter().find(|suite| suite_name(suite) == long) {
            Some(suite) => wanted.push(*suite),
            None => {
                let known: Vec<_> = all.iter().map(suite_name).collect();
                let what =
                    format!("tls.ciphers has \"{name}\", which is not supported; these are: {}", known.join(", "));
                return refuse("tls.ciphers", what);
            }
        }
    }
    if !wanted.iter().any(is_tls13) {
        wanted.extend(all.iter().filter(|suite| is_tls13(suite)));
    }
    // In our order of preference.
    Ok(all.iter().filter(|suite| wanted.contains(suite)).copied().collect())
}

/// The name that Go and IANA use.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replacen("TLS13_", "TLS_", 1)
}

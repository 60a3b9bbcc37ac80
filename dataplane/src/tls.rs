//! TLS settings: versions, cipher suites and the certificate for clients, trust in backends.
//!
//! Everything here is made at start from data that the caller has read. The certificate can be replaced later without a
//! lock that a worker waits for. Sessions are not resumed on either side: workers share no state, and clients of a
//! proxy keep their connections.
//!
//! Not here: bytes and sockets (`io/tls.rs`), files (`fluxgate::tls`).

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{self, CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::topology::BackendId;

/// The only protocol offered inside TLS (RFC 7301). A client that offers only others, for example h2, is refused in the
/// handshake.
const ALPN: &[u8] = b"http/1.1";

/// The server side of the handshake with clients.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

/// The current certificate. A handshake keeps the one that it began with.
#[derive(Debug)]
struct Certificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ServerTls {
    /// `suites` and `versions` must have a combination in common.
    ///
    /// # Errors
    /// Those of rustls, when no combination is left.
    pub fn new(
        certificate: CertifiedKey,
        suites: Vec<SupportedCipherSuite>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<Self, rustls::Error> {
        let certificate = Arc::new(Certificate(ArcSwap::from_pointee(certificate)));
        let provider = CryptoProvider { cipher_suites: suites, ..ring::default_provider() };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// Connections accepted from now on, by any worker, get this certificate.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.certificate.0.store(Arc::new(certificate));
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

/// Shows nothing: the certificate is stored with its key.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(..)")
    }
}

/// How the certificate of a backend that speaks `https` is verified.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Root certificates to verify backends with; empty when no backend needs them.
    pub roots: Arc<Vec<CertificateDer<'static>>>,
    unverified: Arc<Vec<BackendId>>,
    verifying: Arc<ClientConfig>,
    unverifying: Arc<ClientConfig>,
}

impl Trust {
    /// The certificates of the backends in `unverified` are not verified.
    ///
    /// # Errors
    /// None of `roots` can be used.
    pub fn new(roots: Vec<CertificateDer<'static>>, unverified: Vec<BackendId>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut store = RootCertStore::empty();
        // System stores contain certificates that cannot be parsed; one usable certificate is enough.
        let (usable, _) = store.add_parsable_certificates(roots.iter().cloned());
        if usable == 0 && !roots.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let builder = || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let verifying = builder()?.with_root_certificates(store);
        let accept_all = Arc::new(AcceptAll(provider.clone()));
        let unverifying = builder()?.dangerous().with_custom_certificate_verifier(accept_all);
        Ok(Self {
            roots: Arc::new(roots),
            unverified: Arc::new(unverified),
            verifying: client_config(verifying),
            unverifying: client_config(unverifying),
        })
    }

    pub fn verifies(&self, backend: BackendId) -> bool {
        !self.unverified.contains(&backend)
    }

    pub fn client_config(&self, backend: BackendId) -> Arc<ClientConfig> {
        if self.verifies(backend) { self.verifying.clone() } else { self.unverifying.clone() }
    }
}

/// For a configuration in which no backend speaks `https`.
impl Default for Trust {
    fn default() -> Self {
        Self::new(Vec::new(), Vec::new()).expect("ring supports the default versions")
    }
}

fn client_config(builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> Arc<ClientConfig> {
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Why a TLS connection to a backend failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    UnknownIssuer,
    /// Expired, or not valid yet.
    Expired,
    OtherName,
    Certificate,
    /// The backend speaks no TLS, or no version or cipher suite in common.
    Protocol,
}

impl TlsFault {
    pub fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Self::UnknownIssuer,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::OtherName,
                _ => Self::Certificate,
            },
            _ => Self::Protocol,
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self {
            Self::UnknownIssuer => "unknown issuer",
            Self::Expired => "expired, or not valid yet",
            Self::OtherName => "it is for another name than the one in the url",
            // `openssl req -x509` makes one of an authority, which ca_file does not help.
            Self::Certificate => "it is malformed, or one of an authority instead of a server",
            Self::Protocol => return f.write_str("the TLS handshake with it failed"),
        };
        write!(
            f,
            "its certificate is not trusted: {why} (ca_file names the authorities to trust; insecure_skip_verify at \
             this backend takes any certificate, as influx-proxy does)"
        )
    }
}

/// Accepts every certificate: `insecure_skip_verify`.
#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

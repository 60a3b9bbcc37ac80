//! What TLS is spoken with: versions, cipher suites and the certificate towards clients, trust towards backends.
//!
//! Everything here is made at start from files that others have read; a certificate can be replaced later, without a
//! lock in any worker's way. Sessions are not resumed, on either side: no state is shared between workers, and the
//! clients of a proxy like this one keep their connections.
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

/// The only protocol offered inside TLS (RFC 7301). A client that offers others only, h2 say, is refused there.
const ALPN: &[u8] = b"http/1.1";

/// Our side of the handshake with clients.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

/// The certificate shown from now on. Whoever is in a handshake keeps the one it has begun with.
#[derive(Debug)]
struct Certificate(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ServerTls {
    /// `suites` and `versions` must have something in common.
    ///
    /// # Errors
    /// Of rustls, when nothing is left to be negotiated.
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

    /// Connections accepted from now on, by any worker, are shown this certificate.
    pub fn replace(&self, certificate: CertifiedKey) {
        self.certificate.0.store(Arc::new(certificate));
    }

    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

/// Without the certificate: it comes with its key.
impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(..)")
    }
}

/// What makes a backend that speaks `https` be believed.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Certificates that vouch for backends; empty when no backend needs them.
    pub roots: Arc<Vec<CertificateDer<'static>>>,
    unverified: Arc<Vec<BackendId>>,
    verifying: Arc<ClientConfig>,
    believing: Arc<ClientConfig>,
}

impl Trust {
    /// The backends in `unverified` are believed whatever they show.
    ///
    /// # Errors
    /// None of `roots` can be used.
    pub fn new(roots: Vec<CertificateDer<'static>>, unverified: Vec<BackendId>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut store = RootCertStore::empty();
        // Systems carry certificates that nobody can use any more; one is enough to go on.
        let (usable, _) = store.add_parsable_certificates(roots.iter().cloned());
        if usable == 0 && !roots.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let builder = || ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let verifying = builder()?.with_root_certificates(store);
        let everybody = Arc::new(Everybody(provider.clone()));
        let believing = builder()?.dangerous().with_custom_certificate_verifier(everybody);
        Ok(Self {
            roots: Arc::new(roots),
            unverified: Arc::new(unverified),
            verifying: client_config(verifying),
            believing: client_config(believing),
        })
    }

    pub fn verifies(&self, backend: BackendId) -> bool {
        !self.unverified.contains(&backend)
    }

    pub fn client_config(&self, backend: BackendId) -> Arc<ClientConfig> {
        if self.verifies(backend) { self.verifying.clone() } else { self.believing.clone() }
    }
}

/// For a configuration without backends that speak `https`.
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

/// What is wrong with a backend's TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    UnknownIssuer,
    /// Or not valid yet.
    Expired,
    OtherName,
    Certificate,
    /// It speaks no TLS, or none that we do.
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
        f.write_str(match self {
            Self::UnknownIssuer => "its certificate is not trusted: unknown issuer (see ca_file, insecure_skip_verify)",
            Self::Expired => "its certificate is not trusted: expired, or not valid yet",
            Self::OtherName => "its certificate is not trusted: it is for another name than the one in the url",
            Self::Certificate => "its certificate is not trusted: it cannot be used",
            Self::Protocol => "no TLS with it",
        })
    }
}

/// Every name is believed of everybody: `insecure_skip_verify`.
#[derive(Debug)]
struct Everybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Everybody {
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

//! TLS to servers: what is verified, what is shown, and the handshake. Where the server is, is not known here.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{self, TlsError};
use crate::config::{Authorities, Mode, ServerTls, Verify};
use crate::crypto;
use crate::socket::Socket;
use crate::telemetry::pace::Pace;

/// How a server is spoken to in TLS: made once, used for every connection to it, so that sessions are resumed.
#[derive(Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    /// None stands for the address that was connected to.
    name: Option<ServerName<'static>>,
    /// What has to be agreed on.
    requires: Option<&'static [u8]>,
    /// Of lines about handshakes that failed.
    pub(super) pace: Pace,
}

/// The authorities that the system trusts, read when the first server needs them: a hundred files or more.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Arc<RootCertStore>>);

impl Connector {
    /// What the configuration says of a server, with its files read. Fails with all that is wrong with them.
    pub fn new(tls: &ServerTls, mode: Mode, http2: bool, system: &SystemRoots) -> Result<Self, Vec<TlsError>> {
        let provider = crypto::provider();
        let verifier = verifier(&tls.verify, &provider, system);
        let identity = tls.identity.as_ref().map(certificates::identity).transpose();
        let (verifier, identity) = match (verifier, identity) {
            (Ok(verifier), Ok(identity)) => (verifier, identity),
            (verifier, identity) => {
                let identity = identity.err().unwrap_or_default();
                return Err(verifier.err().into_iter().chain(identity).collect());
            }
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| vec![TlsError::Library(error)])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match (identity, &tls.identity) {
            (Some((chain, key)), Some(files)) => builder.with_client_auth_cert(chain, key).map_err(|source| {
                vec![TlsError::Unusable {
                    path: files.cert.value.clone(),
                    source,
                }]
            })?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match mode {
            // The one version that is spoken to this server.
            Mode::Http if http2 => vec![HTTP2.to_vec()],
            Mode::Http => vec![b"http/1.1".to_vec()],
            Mode::Tcp => tls.alpn.clone(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            requires: (mode == Mode::Http && http2).then_some(HTTP2),
            config: Arc::new(config),
            name: tls.sni.clone(),
            pace: Pace::default(),
        })
    }

    /// Performs the handshake with the server at `address`. Its time is bounded by whoever calls.
    pub(super) async fn handshake(&self, stream: Socket, address: IpAddr) -> io::Result<TlsStream<Socket>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::IpAddress(address.into()),
        };
        let stream = TlsConnector::from(Arc::clone(&self.config))
            .connect(name, stream)
            .await?;
        match self.requires {
            Some(protocol) if stream.get_ref().1.alpn_protocol() != Some(protocol) => {
                Err(io::Error::other("the server does not agree to HTTP/2"))
            }
            _ => Ok(stream),
        }
    }
}

impl SystemRoots {
    fn get(&self) -> Result<Arc<RootCertStore>, TlsError> {
        if let Some(roots) = self.0.get() {
            return Ok(Arc::clone(roots));
        }
        let roots = Arc::new(certificates::system_authorities()?);
        Ok(Arc::clone(self.0.get_or_init(|| roots)))
    }
}

fn verifier(
    verify: &Verify,
    provider: &Arc<CryptoProvider>,
    system: &SystemRoots,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let (roots, file) = match verify {
        Verify::None => return Ok(Arc::new(Anybody(Arc::clone(provider)))),
        Verify::Required(Authorities::System) => (system.get()?, None),
        Verify::Required(Authorities::File(file)) => (Arc::new(certificates::authorities(file)?), Some(file)),
    };
    match WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build() {
        Ok(verifier) => Ok(verifier),
        Err(_) => Err(match file {
            Some(file) => TlsError::NoCertificate(file.value.clone()),
            None => TlsError::NoSystemRoots(None),
        }),
    }
}

/// Believes every certificate: `verify="none"`. The handshake itself is verified as ever.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// HTTP/2, as TLS knows it (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";

/// Sessions that are kept for resumption, of one server under one name; the library keeps eight tickets of each. Some more
/// than one, as the table counts by rounding.
const SESSIONS: usize = 32;

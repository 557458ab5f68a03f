//! Whether a client's certificate is believed: what the library has no setting for.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificates::Listed;

/// Believes the clients whom the library believes, and those whose very certificate is listed; looks at so many certificates
/// between a client's and an authority's, and at no more.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    listed: Listed,
    depth: Option<usize>,
}

impl ClientVerifier {
    /// The depth is the library's own limit where there is none.
    pub(super) const fn new(verifier: Arc<dyn ClientCertVerifier>, listed: Listed, depth: Option<usize>) -> Self {
        Self {
            verifier,
            listed,
            depth,
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // They come in the order of the chain (RFC 5246, section 7.4.2), so no path is longer than what is passed on.
        let most = self.depth.map_or(between.len(), |depth| depth.min(between.len()));
        match self.verifier.verify_client_cert(certificate, &between[..most], now) {
            Err(_) if self.listed.has(certificate, now) => Ok(ClientCertVerified::assertion()),
            verified => verified,
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

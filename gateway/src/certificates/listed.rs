//! Peers that show a certificate which stands in the file of authorities itself: a self-signed one, as `openssl req -x509` and
//! most appliances write it, which is marked as an authority's. The library takes none of these for a peer's own; OpenSSL
//! does, and with it HAProxy and most others. Whoever has its key could have issued any other, so that nothing is given away.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::server::ParsedCertificate;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::parse_x509_certificate;

/// The certificates of a file of authorities, as those of peers.
#[derive(Default)]
pub struct Listed(Vec<CertificateDer<'static>>);

impl Listed {
    /// None are to be listed where there are revocation lists: these say nothing of a certificate that nobody has issued.
    pub const fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self(certificates)
    }

    /// Whether a certificate is listed, byte for byte, and good at this time.
    pub fn has(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.0.iter().any(|listed| listed == certificate)
            && parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| {
                let validity = parsed.validity();
                (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now)
            })
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listed({})", self.0.len())
    }
}

/// Believes the servers whom the library believes, and those whose very certificate is listed.
#[derive(Debug)]
pub(super) struct OrListed {
    verifier: Arc<WebPkiServerVerifier>,
    listed: Listed,
}

impl OrListed {
    /// Beside whom this verifier believes, those listed.
    pub(super) const fn new(verifier: Arc<WebPkiServerVerifier>, listed: Listed) -> Self {
        Self { verifier, listed }
    }
}

impl ServerCertVerifier for OrListed {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.verifier.verify_server_cert(certificate, between, name, ocsp, now) {
            Err(_) if self.listed.has(certificate, now) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::RootCertStore;

    use super::*;

    /// As `openssl req -x509` makes it.
    fn self_signed(name: &str, until: SystemTime) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = (until - Duration::from_secs(86_400)).into();
        params.not_after = until.into();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn who_shows_what_is_listed_is_believed_under_its_name_and_in_its_time() {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3_600);
        let (good, old) = (
            self_signed("db.example", now + hour),
            self_signed("db.example", now - hour),
        );
        let stranger = self_signed("db.example", now + hour);
        let mut roots = RootCertStore::empty();
        let listed = vec![good.clone(), old.clone()];
        roots.add_parsable_certificates(listed.clone());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crate::crypto::provider());
        let verifier = OrListed::new(verifier.build().unwrap(), Listed::new(listed));
        let is_believed = |certificate: &CertificateDer<'_>, name: &str| {
            let name = ServerName::try_from(name).unwrap();
            verifier
                .verify_server_cert(certificate, &[], &name, &[], UnixTime::now())
                .is_ok()
        };
        assert!(is_believed(&good, "db.example"));
        assert!(!is_believed(&good, "other.example"));
        assert!(!is_believed(&old, "db.example"));
        assert!(!is_believed(&stranger, "db.example"));
    }
}

//! TLS as the side that connects: whom to believe, what to show and what to offer, made of files.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::listed::OrListed;
use super::{Listed, TlsError, authorities, identity, paths, revocation_lists, system_authorities};
use crate::config::{Authorities, ServerTls, Verify};
use crate::crypto;

/// The authorities that the system trusts, read when somebody first needs them: a hundred files or more.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Arc<RootCertStore>>);

impl SystemRoots {
    /// Those that `tls` needs, if it believes them.
    pub fn of(&self, tls: &ServerTls) -> Result<Option<Arc<RootCertStore>>, TlsError> {
        if !matches!(tls.verify, Verify::Required(Authorities::System)) {
            return Ok(None);
        }
        if let Some(roots) = self.0.get() {
            return Ok(Some(Arc::clone(roots)));
        }
        let roots = Arc::new(system_authorities()?);
        Ok(Some(Arc::clone(self.0.get_or_init(|| roots))))
    }
}

/// How TLS is spoken by what the configuration says of a server, with its files read; `system` are the system's authorities,
/// where those are believed. Fails with all that is wrong with the files.
pub fn client(
    tls: &ServerTls,
    system: Option<&Arc<RootCertStore>>,
    alpn: Vec<Vec<u8>>,
) -> Result<ClientConfig, Vec<TlsError>> {
    let provider = crypto::provider_with(&tls.parameters.ciphers, &tls.parameters.curves);
    let verifier = verifier(tls, system, &provider);
    let shown = tls.identity.as_ref().map(identity).transpose();
    let (verifier, shown) = match (verifier, shown) {
        (Ok(verifier), Ok(shown)) => (verifier, shown),
        (verifier, shown) => {
            let shown = shown.err().unwrap_or_default();
            return Err(verifier.err().into_iter().flatten().chain(shown).collect());
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(crypto::TlsVersion::range(tls.parameters.min, tls.parameters.max))
        .map_err(|error| vec![TlsError::Library(error)])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (shown, &tls.identity) {
        (Some((chain, key)), Some(files)) => builder.with_client_auth_cert(chain, key).map_err(|source| {
            vec![TlsError::Unusable {
                path: files.cert.value.clone(),
                source,
            }]
        })?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn;
    Ok(config)
}

/// The files that [`client`] reads.
pub fn client_paths(tls: &ServerTls) -> Vec<PathBuf> {
    let mut files: Vec<_> = tls.crls.iter().map(|file| file.value.clone()).collect();
    if let Verify::Required(Authorities::File(file)) = &tls.verify {
        files.push(file.value.clone());
    }
    if let Some(identity) = &tls.identity {
        files.extend(paths(identity));
    }
    files
}

fn verifier(
    tls: &ServerTls,
    system: Option<&Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Vec<TlsError>> {
    let (roots, file) = match (&tls.verify, system) {
        (Verify::None, _) => return Ok(Arc::new(Anybody(Arc::clone(provider)))),
        (Verify::Required(Authorities::File(file)), _) => {
            let authorities = authorities(file);
            (authorities.map(|(roots, listed)| (Arc::new(roots), listed)), Some(file))
        }
        (Verify::Required(Authorities::System), Some(system)) => (Ok((Arc::clone(system), Vec::new())), None),
        (Verify::Required(Authorities::System), None) => (Err(TlsError::NoSystemRoots(None)), None),
    };
    let ((roots, listed), lists) = match (roots, revocation_lists(&tls.crls)) {
        (Ok(roots), Ok(lists)) => (roots, lists),
        (roots, lists) => {
            return Err(roots.err().into_iter().chain(lists.err().unwrap_or_default()).collect());
        }
    };
    let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(lists.lists)
        .enforce_revocation_expiration()
        .build();
    match (built, tls.crls.first(), file) {
        (Ok(verifier), None, _) if !listed.is_empty() => Ok(Arc::new(OrListed::new(verifier, Listed::new(listed)))),
        (Ok(verifier), ..) => Ok(verifier),
        (Err(error), Some(crl), _) => Err(vec![TlsError::Revocation {
            path: crl.value.clone(),
            why: error.to_string(),
        }]),
        (Err(_), None, Some(file)) => Err(vec![TlsError::NoCertificate(file.value.clone())]),
        (Err(_), None, None) => Err(vec![TlsError::NoSystemRoots(None)]),
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

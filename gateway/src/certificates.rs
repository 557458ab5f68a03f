//! Certificates, keys and authorities in PEM files, for binds and for servers. What is done with them is theirs.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{At, BindTls};

/// Why files for TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or holds no such thing.
    #[error("{path}: no usable {what}: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// The file holds no certificate.
    #[error("{0}: holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// Certificate and key do not go together, or use an unknown algorithm.
    #[error("{path}: {source}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate that is to be trusted cannot be.
    #[error("{path}: not usable as an authority: {source}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The system trusts nobody, or does not say whom.
    #[error("the system has no certificates of authorities{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoSystemRoots(Option<String>),
    /// The library refuses what it was given.
    #[error("{0}")]
    Library(rustls::Error),
}

/// A certificate chain, leaf first, and the leaf's key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads a certificate and its key. Fails with all that is wrong with the files.
pub fn identity(files: &BindTls) -> Result<Identity, Vec<TlsError>> {
    match (read_chain(&files.cert.value), &files.key) {
        (Ok(chain), key) => {
            let key = read_key(&key.as_ref().unwrap_or(&files.cert).value).map_err(|key| vec![key])?;
            Ok((chain, key))
        }
        // One file that cannot be read is one fault.
        (Err(chain), None) => Err(vec![chain]),
        (Err(chain), Some(key)) => Err(std::iter::once(chain).chain(read_key(&key.value).err()).collect()),
    }
}

/// The authorities in a file.
pub fn authorities(file: &At<PathBuf>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(&file.value)? {
        roots.add(certificate).map_err(|source| TlsError::Authority {
            path: file.value.clone(),
            source,
        })?;
    }
    Ok(roots)
}

/// The authorities that the system trusts. Those that cannot be read are passed over, as everywhere: a system's store may
/// hold what no library understands.
pub fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(TlsError::NoSystemRoots(found.errors.first().map(ToString::to_string)));
    }
    Ok(roots)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::Pem {
        path: path.to_owned(),
        what: "private key",
        source,
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem {
        path: path.to_owned(),
        what: "certificate",
        source,
    };
    let chain = CertificateDer::pem_file_iter(path)
        .map_err(pem)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(pem)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

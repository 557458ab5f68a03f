//! Certificates, keys, authorities and revocation lists in files, for binds and for servers: read within limits, and read again
//! when they change. What is done with them is theirs.

mod age;
mod certificate;
mod client;
mod file;
mod form;
mod index;
mod listed;
mod names;
mod ocsp;
mod revocation;
mod store;
mod ticket_keys;
mod watch;

use std::io;
use std::path::{Path, PathBuf};

use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{At, CertificateFiles};

pub use age::{Age, of_authorities, of_chain, of_revocation_list};
pub use certificate::{Certificate, KeyKind, paths};
pub use client::{SystemRoots, client, client_paths};
pub use file::{Stamp, read, stamps};
pub use form::Form;
pub use index::Index;
pub use listed::Listed;
pub use revocation::{RevocationLists, revocation_lists};
pub use store::{MAX_FILES, Refreshed, Store, files};
pub use ticket_keys::ticket_keys;
pub use watch::{Watched, Watcher};

/// Why files for TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or holds no such thing.
    #[error("{path}: no usable {what}: {}", why_no_pem(.source))]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// A file holds something else, which can be told.
    #[error("{path}: no usable {what}: {form}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What it holds.
        form: Form,
    },
    /// The file holds no certificate.
    #[error("{0}: holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// Certificate and key do not go together, or use an unknown algorithm.
    #[error("{path}: {}", why_unusable(.source))]
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
    /// A revocation list cannot be used.
    #[error("{path}: no usable revocation list: {why}")]
    Revocation {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An OCSP response cannot be used with its certificate.
    #[error("{path}: no usable OCSP response: {why}")]
    Ocsp {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A file with keys for tickets cannot be used.
    #[error("{path}: no usable keys for tickets: {}{why}", .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    TicketKeys {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where it is about one.
        line: Option<usize>,
        /// Why.
        why: String,
    },
    /// A folder of certificates cannot be read.
    #[error("{path}: cannot be read as a folder: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A folder of certificates holds none.
    #[error("{0}: there is no certificate in this folder")]
    EmptyFolder(PathBuf),
    /// A folder has more files than are looked at.
    #[error("{0}: more than {MAX_FILES} files")]
    TooMany(PathBuf),
    /// The system trusts nobody, or does not say whom.
    #[error("the system has no certificates of authorities{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoSystemRoots(Option<String>),
    /// The library refuses what it was given.
    #[error("{0}")]
    Library(rustls::Error),
}

/// In our words, where the library's are for programmers.
fn why_no_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::MissingSectionEnd { .. } => "it ends in the middle of a section".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "a line that begins with ----- is malformed".to_owned(),
        pem::Error::Base64Decode(_) => "what stands between its marks is not base64".to_owned(),
        pem::Error::NoItemsFound => "there is none in it".to_owned(),
        other => other.to_string(),
    }
}

/// Likewise.
fn why_unusable(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "certificate and key do not belong together".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Other(why)) => format!("not a certificate for TLS: {why}"),
        rustls::Error::InvalidCertificate(_) => "not a certificate that can be read".to_owned(),
        // All that the library says of a key that it cannot use.
        rustls::Error::General(_) => "a key of this kind or length cannot be used".to_owned(),
        other => other.to_string(),
    }
}

/// A certificate chain, leaf first, and the leaf's key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads a certificate and its key. Fails with all that is wrong with the files.
pub fn identity(files: &CertificateFiles) -> Result<Identity, Vec<TlsError>> {
    let cert = &files.cert.value;
    match (
        read(cert, "certificate").and_then(|bytes| Ok((chain(cert, &bytes)?, bytes))),
        &files.key,
    ) {
        (Ok((chain, bytes)), None) => Ok((chain, own_key(cert, &bytes).map_err(|key| vec![key])?)),
        (Ok((chain, _)), Some(key)) => Ok((chain, key_in(&key.value).map_err(|key| vec![key])?)),
        // One file that cannot be read is one fault.
        (Err(chain), None) => Err(vec![chain]),
        (Err(chain), Some(key)) => Err(std::iter::once(chain).chain(key_in(&key.value).err()).collect()),
    }
}

/// The authorities in a file, and their certificates.
pub fn authorities(file: &At<PathBuf>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), TlsError> {
    let mut roots = RootCertStore::empty();
    let certificates = add_authorities(&mut roots, &file.value, &read(&file.value, "certificate")?)?;
    Ok((roots, certificates))
}

/// Adds the authorities in a file that has been read, whose certificates it answers.
pub fn add_authorities(
    roots: &mut RootCertStore,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = chain(path, bytes)?;
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|source| TlsError::Authority {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(certificates)
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

/// The certificates in a PEM text.
fn chain(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem {
            path: path.to_owned(),
            what: "certificate",
            source,
        })?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    Err(match Form::of(bytes) {
        // What is said of a key would not be about what was looked for.
        None | Some(Form::Encrypted) => TlsError::NoCertificate(path.to_owned()),
        Some(form) => TlsError::Form {
            path: path.to_owned(),
            what: "certificate",
            form,
        },
    })
}

/// The key of a certificate that is said to have no file of its own: in the same file, or beside it.
fn own_key(cert: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(bytes) {
        Ok(key) => return Ok(key),
        Err(_) if form::is_encrypted(bytes) => return Err(other_key(cert, Form::Encrypted)),
        Err(pem::Error::NoItemsFound) => {}
        Err(source) => return Err(no_key(cert, source)),
    }
    let beside = beside(cert, "key").into_iter().find(|path| path.is_file());
    match beside {
        Some(path) => key_in(&path),
        None => Err(no_key(cert, pem::Error::NoItemsFound)),
    }
}

fn key_in(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, KEY)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|source| match Form::of(&bytes) {
        Some(form @ Form::Encrypted) => other_key(path, form),
        Some(form) if matches!(source, pem::Error::NoItemsFound) => other_key(path, form),
        _ => no_key(path, source),
    })
}

fn other_key(path: &Path, form: Form) -> TlsError {
    TlsError::Form {
        path: path.to_owned(),
        what: KEY,
        form,
    }
}

fn no_key(path: &Path, source: pem::Error) -> TlsError {
    TlsError::Pem {
        path: path.to_owned(),
        what: KEY,
        source,
    }
}

/// What errors call it.
const KEY: &str = "private key";

/// Where what belongs to a certificate may be without being said: `a.pem.key` and `a.key` for `a.pem`, as HAProxy looks.
fn beside(cert: &Path, extension: &str) -> Vec<PathBuf> {
    let mut appended = cert.as_os_str().to_owned();
    appended.push(".");
    appended.push(extension);
    let mut places = vec![PathBuf::from(appended)];
    let replaced = cert.with_extension(extension);
    if replaced != cert && !places.contains(&replaced) {
        places.push(replaced);
    }
    places
}

//! One certificate that a bind shows: its chain and key, the names it is for, how long it is valid, and what its authority says
//! of it (OCSP).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustls::sign::CertifiedKey;
use rustls::{CertificateError, SignatureAlgorithm};
use x509_parser::parse_x509_certificate;

use super::file::{self, Stamp};
use super::{TlsError, beside, chain, key_in, names, ocsp, own_key};
use crate::config::{At, CertificateFiles};
use crate::crypto;

/// A certificate, ready to be shown.
#[derive(Debug)]
pub struct Certificate {
    /// The file that it was read from.
    pub path: PathBuf,
    /// The names it is for, lower-case; patterns begin with `*.`.
    pub names: Vec<String>,
    /// When it expires, in Unix time.
    pub not_after: i64,
    /// What its key is.
    pub kind: KeyKind,
    /// Chain, key and the OCSP response that goes with them.
    pub key: Arc<CertifiedKey>,
    /// Why there is an OCSP response that is not shown, or how long the one that is may be.
    staple: Staple,
    /// Of all files that it is made of, and of those that may come to be: first those of chain and key.
    stamps: Vec<Option<Stamp>>,
    /// How many of them are of chain and key.
    own: usize,
    /// How many warnings about its age have been written.
    warned: AtomicU8,
    /// Whether an OCSP response that is not shown has been told of.
    told: AtomicBool,
}

/// What is known of a certificate's OCSP response.
#[derive(Debug)]
enum Staple {
    /// There is none.
    None,
    /// It is shown until then, in Unix time; none says for ever.
    Until(Option<i64>),
    /// It is too old to be shown.
    Stale(PathBuf),
    /// It is for another certificate, or not readable, or says that this one is not good.
    Unusable(TlsError),
}

/// What a certificate's key is, in the order in which they are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// ECDSA: small and fast.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// RSA: what everybody can.
    Rsa,
    /// What comes later.
    Other,
}

impl KeyKind {
    /// As a word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ecdsa => "ecdsa",
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::Other => "other",
        }
    }
}

impl Certificate {
    /// Reads a certificate, its key, and its OCSP response where there is one, as of `now` in Unix time. One that cannot be used does
    /// not make the certificate so: see [`responded`](Self::responded).
    pub(super) fn load(files: &CertificateFiles, now: i64) -> Result<Self, Vec<TlsError>> {
        // Before anything is read: what changes meanwhile has another stamp.
        let stamps = stamps(files);
        let path = files.cert.value.clone();
        let read = file::read(&path, "certificate").and_then(|bytes| Ok((chain(&path, &bytes)?, bytes)));
        let (chain, key) = match (read, &files.key) {
            (Ok((chain, bytes)), None) => (chain, own_key(&path, &bytes)),
            (Ok((chain, _)), Some(key)) => (chain, key_in(&key.value)),
            // One file that cannot be read is one fault.
            (Err(error), None) => return Err(vec![error]),
            (Err(error), Some(key)) => return Err(std::iter::once(error).chain(key_in(&key.value).err()).collect()),
        };
        let key = key.map_err(|error| vec![error])?;
        let unusable = |source| {
            vec![TlsError::Unusable {
                path: path.clone(),
                source,
            }]
        };
        let leaf = chain.first().cloned();
        let leaf = leaf.ok_or_else(|| vec![TlsError::NoCertificate(path.clone())])?;
        let (_, parsed) = parse_x509_certificate(&leaf).map_err(|_| unusable(CertificateError::BadEncoding.into()))?;
        let mut key = CertifiedKey::from_der(chain, key, &crypto::provider()).map_err(unusable)?;
        let kind = match key.key.algorithm() {
            SignatureAlgorithm::ECDSA => KeyKind::Ecdsa,
            SignatureAlgorithm::ED25519 => KeyKind::Ed25519,
            SignatureAlgorithm::RSA => KeyKind::Rsa,
            _ => KeyKind::Other,
        };
        let staple = match response_of(files) {
            None => Staple::None,
            Some(file) => match response_in(&file, parsed.raw_serial()) {
                Err(error) => Staple::Unusable(error),
                Ok((_, Some(until))) if until <= now => Staple::Stale(file),
                Ok((bytes, until)) => {
                    key.ocsp = Some(bytes);
                    Staple::Until(until)
                }
            },
        };
        Ok(Self {
            names: names::of(&parsed),
            not_after: parsed.validity().not_after.timestamp(),
            kind,
            key: Arc::new(key),
            staple,
            stamps,
            own: own_paths(files).len(),
            warned: AtomicU8::new(0),
            told: AtomicBool::new(false),
            path,
        })
    }

    /// Whether the files are still those that it was read from, and its OCSP response as good as then.
    pub(super) fn is_current(&self, stamps: &[Option<Stamp>], now: i64) -> bool {
        self.stamps == stamps && !self.response_is_over(now)
    }

    /// Whether the OCSP response that is shown has become too old for that.
    pub(super) fn response_is_over(&self, now: i64) -> bool {
        matches!(self.staple, Staple::Until(Some(until)) if until <= now)
    }

    /// Fails when an OCSP response for it cannot be used.
    pub(super) fn responded(self) -> Result<Self, TlsError> {
        match self.staple {
            Staple::Unusable(error) => Err(error),
            staple => Ok(Self { staple, ..self }),
        }
    }

    /// Whether it has an OCSP response that cannot be used, and chain and key are those that this other one was read from.
    pub(super) fn is_only_without(&self, other: &Self) -> bool {
        matches!(self.staple, Staple::Unusable(_)) && self.stamps.get(..self.own) == other.stamps.get(..other.own)
    }

    /// What an operator has to be told about its age, each once: that it expires within so many days (0: that it has expired).
    pub fn ages(&self, now: i64) -> Option<i64> {
        let left = self.not_after - now;
        let reached = WARNINGS.iter().filter(|days| left <= **days * DAY).count();
        let reached = u8::try_from(reached).unwrap_or(u8::MAX);
        let before = self.warned.fetch_max(reached, Ordering::Relaxed);
        (reached > before).then(|| (left.max(0) + DAY - 1) / DAY)
    }

    /// The file of an OCSP response that is too old to be shown; answers once.
    pub fn stale_response(&self) -> Option<&Path> {
        match &self.staple {
            Staple::Stale(file) => (!self.told.swap(true, Ordering::Relaxed)).then_some(file),
            Staple::None | Staple::Until(_) | Staple::Unusable(_) => None,
        }
    }

    /// Why an OCSP response cannot be used without which it is shown; answers once.
    pub fn unusable_response(&self) -> Option<&TlsError> {
        match &self.staple {
            Staple::Unusable(error) => (!self.told.swap(true, Ordering::Relaxed)).then_some(error),
            Staple::None | Staple::Until(_) | Staple::Stale(_) => None,
        }
    }

    /// How it is called in logs and metrics: by its first name.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// The files that a certificate is made of, and those that may come to be.
pub fn paths(files: &CertificateFiles) -> Vec<PathBuf> {
    let mut paths = own_paths(files);
    paths.extend(named_or_beside(files, files.ocsp.as_ref(), "ocsp"));
    paths
}

/// Those of chain and key.
fn own_paths(files: &CertificateFiles) -> Vec<PathBuf> {
    let mut paths = vec![files.cert.value.clone()];
    paths.extend(named_or_beside(files, files.key.as_ref(), "key"));
    paths
}

fn named_or_beside(files: &CertificateFiles, named: Option<&At<PathBuf>>, extension: &str) -> Vec<PathBuf> {
    match named {
        Some(file) => vec![file.value.clone()],
        None => beside(&files.cert.value, extension),
    }
}

/// Their stamps.
pub(super) fn stamps(files: &CertificateFiles) -> Vec<Option<Stamp>> {
    file::stamps(paths(files).iter().map(PathBuf::as_path))
}

fn response_of(files: &CertificateFiles) -> Option<PathBuf> {
    match &files.ocsp {
        Some(file) => Some(file.value.clone()),
        None => beside(&files.cert.value, "ocsp")
            .into_iter()
            .find(|path| path.is_file()),
    }
}

/// The OCSP response in a file for the certificate with this serial number, and until when it is good.
fn response_in(file: &Path, serial: &[u8]) -> Result<(Vec<u8>, Option<i64>), TlsError> {
    let bytes = file::read(file, "OCSP response")?;
    ocsp::response(bytes, serial).map_err(|why| TlsError::Ocsp {
        path: file.to_owned(),
        why,
    })
}

pub(super) const DAY: i64 = 24 * 60 * 60;
/// Days before the end at which a line is written. Certificates of public authorities are renewed a month before it, or a third
/// of their life: at two weeks, that has failed for a while.
pub(super) const WARNINGS: [i64; 5] = [14, 7, 3, 1, 0];
